"""The table of architecture families, and the names that LoRA targets go by in each."""

from __future__ import annotations

import pytest

from dialsum.errors import EXIT_UNFIT, UnfitError
from dialsum.models.families import (
    FAMILIES,
    Family,
    find_foreign_targets,
    get_family,
    map_target_names,
)

GATED = {"q", "k", "v", "o", "wi_0", "wi_1", "wo", "lm_head", "embed_tokens"}
"""What mT5 and T5 v1.1 have; their feed-forward layer has a gate."""
PLAIN = {"q", "k", "v", "o", "wi", "wo", "lm_head", "embed_tokens"}
"""What T5 v1 has."""
BART = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "lm_head", "embed_tokens"}
PRESENT = {"mt5": GATED, "t5": PLAIN, "bart": BART}


@pytest.mark.parametrize(
    ("architecture", "present", "asked", "targets", "mapped"),
    [
        ("mt5", GATED, [], [], []),
        ("mt5", GATED, ["q", "q"], ["q"], []),
        ("mt5", GATED, ["wi"], ["wi_0", "wi_1"], ["wi is called wi_0, wi_1"]),
        ("mt5", GATED, ["fc1"], ["wi_0", "wi_1"], ["fc1 is called wi_0, wi_1"]),
        ("mt5", GATED, ["shared"], ["embed_tokens"], ["shared is called embed_tokens"]),
        (
            "mt5",
            GATED,
            ["q", "k", "v", "o", "wi", "wo", "lm_head", "embed_tokens"],
            sorted(GATED),
            ["wi is called wi_0, wi_1"],
        ),
        (
            "mt5",
            GATED,
            ["q_proj", "out_proj", "o_proj", "fc2"],
            ["o", "q", "wo"],
            [
                "q_proj is called q",
                "out_proj is called o",
                "o_proj is called o",
                "fc2 is called wo",
            ],
        ),
        ("t5", PLAIN, ["wi", "wo"], ["wi", "wo"], []),
        ("t5", PLAIN, ["fc1"], ["wi"], ["fc1 is called wi"]),
        ("t5", GATED, ["wi"], ["wi_0", "wi_1"], ["wi is called wi_0, wi_1"]),
        ("bart", BART, ["q"], ["q_proj"], ["q is called q_proj"]),
        (
            "bart",
            BART,
            ["q", "v", "wi", "wi_0", "wo"],
            ["fc1", "fc2", "q_proj", "v_proj"],
            [
                "q is called q_proj",
                "v is called v_proj",
                "wi is called fc1",
                "wi_0 is called fc1",
                "wo is called fc2",
            ],
        ),
        (
            "bart",
            BART,
            ["o", "o_proj"],
            ["out_proj"],
            ["o is called out_proj", "o_proj is called out_proj"],
        ),
    ],
)
def test_target_names_are_mapped_and_said(
    architecture: str, present: set[str], asked: list[str], targets: list[str], mapped: list[str]
) -> None:
    found, notes = map_target_names(asked, family=get_family(architecture), present=present)
    assert found == targets
    assert notes == [f"qlora.target_modules: {text} in this model" for text in mapped]


@pytest.mark.parametrize(
    ("architecture", "asked", "unknown", "known"),
    [
        ("mt5", [""], [""], []),
        ("mt5", ["query", "q", "key", "wi"], ["query", "key"], ["wi"]),
        ("t5", ["wi_0", "gate_proj", "q_proj"], ["wi_0", "gate_proj"], ["q_proj"]),
        ("bart", ["fc3", "q", "c_attn"], ["fc3", "c_attn"], ["q"]),
    ],
)
def test_all_unknown_target_names_are_refused_at_once(
    architecture: str, asked: list[str], unknown: list[str], known: list[str]
) -> None:
    present = PRESENT[architecture]
    with pytest.raises(UnfitError) as caught:
        map_target_names(asked, family=get_family(architecture), present=present)
    said, _, rest = str(caught.value).partition(" match(es) no layer ")
    assert said == f"qlora.target_modules: {', '.join(unknown)}"
    assert ", ".join(sorted(present)) in rest
    assert not [name for name in known if name in said.split(": ", 1)[1].split(", ")]
    assert caught.value.exit_code == EXIT_UNFIT


@pytest.mark.parametrize("architecture", ["", "MT5", "gpt3", "led"])
def test_unknown_architecture_is_refused_with_what_there_is(architecture: str) -> None:
    with pytest.raises(UnfitError, match="mt5, t5, bart") as caught:
        get_family(architecture)
    assert repr(architecture) in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_aliases_lead_to_layers_of_the_family(family: Family) -> None:
    own = {*family.linear, family.embedding}
    astray = {name: leads for name, leads in family.aliases.items() if not set(leads) <= own}
    assert astray == {}


@pytest.mark.parametrize(
    ("asked", "architecture", "foreign"),
    [
        ([], "bart", []),
        (["zzz"], "mt5", ["zzz"]),
        (["q", "wi", "lm_head", "embed_tokens"], "bart", []),
        (["q_proj", "query_key_value", "c_attn"], "t5", ["query_key_value", "c_attn"]),
    ],
)
def test_targets_of_no_model_of_a_family_are_named(
    asked: list[str], architecture: str, foreign: list[str]
) -> None:
    """What no model of the family can have is known before any is loaded."""
    assert find_foreign_targets(asked, family=get_family(architecture)) == foreign


@pytest.mark.training
@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_what_a_config_leaves_out_is_what_the_library_takes(family: Family) -> None:
    import transformers

    for name in family.model_classes.values():
        config = getattr(transformers, name).config_class()
        assert {key: getattr(config, key, None) for key in family.defaults} == family.defaults

"""What of a model gets adapters: which layers, in 4 or 8 bits and back, how many weights learn."""

from __future__ import annotations

from typing import Any

import pytest

from adapted_models import (
    ALPHA,
    BITS,
    EIGHT_BIT,
    FOUR_BIT,
    LORA,
    RANK,
    SORTS,
    Build,
    linear_layers,
    with_adapter,
)
from dialsum.errors import UnfitError
from dialsum.models.families import get_family
from dialsum.models.load import dequantise, describe_loader, places_of_new_rows
from small_models import UNTIED, make_config

pytestmark = pytest.mark.training

FULL = ("transformers (full fine-tuning)", "transformers (full fine-tuning)")


@BITS
@pytest.mark.parametrize("sort", SORTS)
def test_auto_covers_every_linear_layer_of_the_blocks(
    sort: str, qlora: dict[str, Any], build: Build
) -> None:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    case = build(sort, **qlora)
    blocks = {name for name in linear_layers(case.model) if "lm_head" not in name}
    assert len(blocks) == {"mt5": 18, "t5_v1_1": 18, "t5": 16, "bart": 16}[sort]
    assert with_adapter(case.model) == blocks
    layer = Linear4bit if qlora is FOUR_BIT else Linear8bitLt
    quantised = [one for one in case.model.modules() if type(one) is layer]
    # T5 keeps the second half of its feed-forward layers whole: they overflow otherwise.
    assert len(quantised) == len(blocks) - (0 if sort == "bart" else 2)
    assert case.adapted.notes == []
    learning = {name for name, one in case.model.named_parameters() if one.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in learning)


@pytest.mark.parametrize("sort", SORTS)
def test_rank_and_alpha_arrive(sort: str, build: Build) -> None:
    case = build(sort, **FOUR_BIT | {"lora_dropout": 0.25})
    layers = [one for one in case.model.modules() if getattr(one, "lora_A", None)]
    assert layers
    for layer in layers:
        assert (layer.r["default"], layer.lora_alpha["default"]) == (RANK, ALPHA)
        assert layer.scaling["default"] == ALPHA / RANK
        assert layer.lora_A["default"].weight.shape[0] == RANK
        assert layer.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize(
    ("sort", "asked", "layers", "note"),
    [
        ("bart", ["q", "wi"], {"q_proj", "fc1"}, "q is called q_proj"),
        ("mt5", ["wi"], {"wi_0", "wi_1"}, "wi is called wi_0, wi_1"),
        ("t5", ["wi"], {"wi"}, None),
    ],
)
def test_named_targets_are_adapted_and_no_other(
    sort: str, asked: list[str], layers: set[str], note: str | None, build: Build
) -> None:
    case = build(sort, **FOUR_BIT | {"target_modules": asked})
    assert {name.rsplit(".", 1)[-1] for name in with_adapter(case.model)} == layers
    assert any(note in text for text in case.adapted.notes) if note else not case.adapted.notes


def test_a_target_of_no_layer_is_refused(build: Build) -> None:
    with pytest.raises(UnfitError, match="query_key_value"):
        build("t5", **FOUR_BIT | {"target_modules": ["q", "query_key_value"]})


@pytest.mark.parametrize(
    ("targets", "tied", "places"),
    [
        ([], True, ["shared"]),
        ([], False, ["embed_tokens", "lm_head"]),
        (["q", "wo"], True, ["shared"]),
        (["q", "wo"], False, ["embed_tokens", "lm_head"]),
        (["embed_tokens"], True, ["lm_head"]),
        (["lm_head"], False, ["embed_tokens"]),
        (["embed_tokens", "lm_head"], True, []),
        (["embed_tokens", "lm_head"], False, []),
    ],
)
def test_where_new_rows_learn(targets: list[str], tied: bool, places: list[str]) -> None:
    assert places_of_new_rows(targets, family=get_family("mt5"), tied=tied) == places


@pytest.mark.parametrize("sort", SORTS)
def test_full_fine_tuning_trains_every_weight(sort: str, build: Build) -> None:
    case = build(sort, use_qlora=False, load_in_4bit=False)
    assert case.adapted.targets == []
    assert all(one.requires_grad for one in case.model.parameters())
    total, trainable = case.adapted.count_parameters()
    assert total == trainable == sum(one.numel() for one in case.model.parameters())
    tied = case.model.lm_head.weight is case.model.get_input_embeddings().weight
    assert tied == (sort not in UNTIED)
    assert case.adapted.loader["used"] == "transformers (full fine-tuning)"


@BITS
@pytest.mark.parametrize("sort", SORTS)
def test_parameters_are_counted_as_before_quantisation(
    sort: str, qlora: dict[str, Any], build: Build
) -> None:
    whole = build(sort, use_qlora=False, load_in_4bit=False)
    case = build(sort, **qlora)
    total, trainable = case.adapted.count_parameters()
    learning = [one.numel() for one in case.model.parameters() if one.requires_grad]
    assert trainable == sum(learning)
    assert total - trainable == whole.adapted.count_parameters()[0]


@pytest.mark.parametrize(
    ("qlora", "requested", "used"),
    [
        ({"load_in_4bit": False}, "PEFT + no quantisation", "PEFT + no quantisation"),
        (EIGHT_BIT, "PEFT + bitsandbytes 8-bit", "PEFT + bitsandbytes 8-bit"),
        ({}, "PEFT + bitsandbytes 4-bit", "PEFT + bitsandbytes 4-bit"),
        ({"use_unsloth": True}, "Unsloth", "PEFT + bitsandbytes 4-bit"),
        ({"use_qlora": False, "load_in_8bit": True, "load_in_4bit": False}, *FULL),
        ({"use_qlora": False}, *FULL),
    ],
)
def test_the_loader_is_recorded_as_asked_and_used(
    qlora: dict[str, Any], requested: str, used: str
) -> None:
    config = make_config("mt5", "none/needed", qlora=FOUR_BIT | qlora)
    loader = describe_loader(config.qlora)
    assert (loader["requested"], loader["used"]) == (requested, used)
    assert ("encoder-decoder" in loader["why"]) == (requested != used)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_4_bit_layers_compute_in_the_type_of_the_run(sort: str, dtype: str, build: Build) -> None:
    # float32 on a CPU, bfloat16 on a GPU that has it: choices.dtype says which.
    import torch
    from bitsandbytes.nn import Linear4bit

    case = build(sort, dtype=dtype, **FOUR_BIT)
    layers = [one for one in case.model.modules() if type(one) is Linear4bit]
    case.step()
    assert layers
    for layer in layers:
        assert layer.compute_dtype == getattr(torch, dtype)
        assert layer.weight.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.weight.quant_state.dtype == getattr(torch, dtype)
    learning = {one.dtype for one in case.model.parameters() if one.requires_grad}
    # What learns is float32 even over a bfloat16 base: small updates would be rounded away.
    assert learning == {torch.float32}


@pytest.mark.parametrize(
    ("qlora", "spread"),
    [(LORA, 1e-6), (FOUR_BIT, 1e-6), (EIGHT_BIT, 0.1)],
    ids=["float", "4-bit", "8-bit"],
)
@pytest.mark.parametrize("sort", SORTS)
def test_dequantised_weights_say_the_same(
    sort: str, qlora: dict[str, Any], spread: float, build: Build
) -> None:
    # 8-bit layers round their inputs too while summaries are written, so those answers are near.
    import torch

    case = build(sort, **qlora | {"target_modules": ["q_proj" if sort == "bart" else "q"]})
    before = case.logits()
    base = case.model.unload()
    # Adapters start at nothing; the base alone says what the adapted model said.
    dequantise(base)
    assert {one.dtype for one in base.parameters()} == {torch.float32}
    assert not hasattr(base.config, "quantization_config")
    assert not getattr(base, "is_loaded_in_4bit", False)
    assert not getattr(base, "is_loaded_in_8bit", False)
    batch = case.batch()
    base.eval()
    with torch.no_grad():
        after = base(**batch).logits
    assert float((after - before).abs().max() / before.std()) <= spread
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert tied == (sort not in UNTIED)

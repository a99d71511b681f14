"""What learns: adapters in 4 bits, rows of new tokens, embeddings in full; and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapted_models import (
    ALPHA,
    EIGHT_BIT,
    EVERYTHING,
    FOUR_BIT,
    LORA,
    RANK,
    SORTS,
    TEXT,
    Build,
    Case,
    make_builder,
)
from dialsum.errors import UnfitError
from dialsum.model.adapt import (
    AdaptedModel,
    choose_loader,
    places_of_new_rows,
    require_trainable,
)
from dialsum.model.load import load_model
from dialsum.model.save import EXTRA_FILE, load_extra, save_weights
from small_models import UNTIED, make_config

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return the maker of adapted models; each call loads one anew."""
    return make_builder(tmp_path_factory.mktemp("checkpoints"))


def linear_layers(model: Any) -> set[str]:
    """Return the names of the linear layers of the base, in 4 bits or not."""
    import torch

    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name
    }


def with_adapter(model: Any) -> set[str]:
    """Return the names of the layers that have a LoRA adapter."""
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if getattr(module, "lora_A", None) or getattr(module, "lora_embedding_A", None)
    }


BITS = pytest.mark.parametrize("qlora", [FOUR_BIT, EIGHT_BIT], ids=["4-bit", "8-bit"])


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


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_the_scale_is_alpha_over_rank_or_its_root(rank: int, build: Build) -> None:
    for stabilised, scale in ((False, ALPHA / rank), (True, ALPHA / rank**0.5)):
        case = build("t5", **LORA | {"lora_rank": rank, "use_rslora": stabilised})
        layers = [one for one in case.model.modules() if getattr(one, "lora_A", None)]
        assert {one.scaling["default"] for one in layers} == {scale}


@pytest.mark.parametrize(
    ("sort", "rank", "targets", "layers"),
    [
        ("t5", 64, "auto", None),
        ("t5", 65, "auto", "k, o, q, v (64 x 64); wo (64 x 128); wi (128 x 64)"),
        ("bart", 96, ["k_proj", "fc1"], "k_proj (64 x 64); fc1 (128 x 64)"),
    ],
)
def test_a_rank_above_a_layer_is_said(
    sort: str, rank: int, targets: Any, layers: str | None, build: Build
) -> None:
    # In 4 bits a weight itself has another shape; the layer's size counts.
    case = build(sort, **FOUR_BIT | {"lora_rank": rank, "target_modules": targets})
    said = [note for note in case.adapted.notes if "lora_rank" in note]
    assert len(said) == (0 if layers is None else 1)
    for note in said:
        assert f"qlora.lora_rank {rank} is above" in note
        assert f": {layers}; rank 64 " in note


@pytest.mark.parametrize("qlora", [LORA, FOUR_BIT], ids=["float", "4-bit"])
@pytest.mark.parametrize("sort", SORTS)
def test_dora_starts_as_the_base_and_learns_lengths_too(
    sort: str, qlora: dict[str, Any], build: Build
) -> None:
    import torch

    case = build(sort, **qlora | {"use_dora": True})
    start = case.logits()
    with case.model.disable_adapter():
        assert torch.equal(case.logits(), start)
    lengths = {
        name: one.clone()
        for name, one in case.model.named_parameters() if "lora_magnitude_vector" in name
    }  # fmt: skip
    assert len(lengths) == len(with_adapter(case.model))
    case.step()
    stayed = [
        name for name, one in case.model.named_parameters()
        if name in lengths and torch.equal(one, lengths[name])
    ]  # fmt: skip
    assert stayed == []


def test_dora_on_rows_of_zeros_is_refused(build: Build) -> None:
    # The library would go on with NaN: BART's padding token has a row of zeros in the tied head.
    with pytest.raises(UnfitError, match=r"use_dora: rows of zeros in lm_head \(1 of \d+\)"):
        build("bart", **FOUR_BIT | {"use_dora": True, "target_modules": ["q", "lm_head"]})


@pytest.mark.parametrize("sort", SORTS)
def test_pissa_starts_as_the_base_with_both_factors_alive(sort: str, build: Build) -> None:
    import torch

    plain = build(sort, **LORA).logits()
    case = build(sort, **LORA | {"init_lora_weights": "pissa"})
    assert torch.allclose(case.logits(), plain, atol=1e-4)
    factors = [one for name, one in case.model.named_parameters() if "lora_" in name]
    assert factors
    assert all(one.abs().max() > 0 for one in factors)


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
    assert places_of_new_rows(targets, tied=tied) == places


def effective_rows(case: Case) -> dict[str, Any]:
    """Return the rows that input embeddings and head compute with, adapters included."""
    import torch

    model = case.model.base_model.model
    inner = model.model if case.config.model.architecture == "bart" else model
    width = model.config.d_model
    every = torch.arange(len(case.tokenizer))
    model.eval()
    with torch.no_grad():
        head = model.lm_head(torch.eye(width)).T[: len(every)].clone()
        return {
            "encoder": inner.encoder.embed_tokens(every).clone(),
            "decoder": inner.decoder.embed_tokens(every).clone(),
            "head": head,
        }


@pytest.mark.parametrize("sort", SORTS)
def test_new_rows_learn_and_old_rows_stay(sort: str, build: Build) -> None:
    import torch

    case = build(sort, **FOUR_BIT)
    written = [token for token in case.new if token in TEXT]
    assert {"#Person1#", "#Person2#"} <= set(written)
    ids = case.tokenizer.convert_tokens_to_ids(written)
    old = [one for one in range(len(case.tokenizer)) if one not in case.new_ids]
    before = effective_rows(case)
    case.step()
    after = effective_rows(case)
    for place, rows in before.items():
        assert torch.equal(after[place][old], rows[old]), place
        assert (after[place][ids] != rows[ids]).any(dim=1).all(), place
    # Encoder and decoder have one matrix in every family; a tied head has it, too.
    assert torch.equal(after["encoder"], after["decoder"])
    assert torch.equal(after["head"], after["decoder"]) == (sort not in UNTIED)


@pytest.mark.parametrize("sort", SORTS)
def test_a_new_token_can_come_first(sort: str, build: Build) -> None:
    # A row of the head that stays the mean of its pieces' rows gives the mean of their logits:
    # one of them would always be written in its place.
    import torch

    case = build(sort, **FOUR_BIT)
    (tag,) = case.tokenizer.convert_tokens_to_ids(["#Person1#"])
    labels = torch.tensor([[tag, case.tokenizer.eos_token_id]])
    learning = [one for one in case.model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(100):
        outputs = case.model(input_ids=labels, labels=labels)
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert outputs.logits.argmax(dim=-1).tolist() == labels.tolist()


def test_adapters_on_head_and_embeddings_learn(build: Build) -> None:
    import torch

    case = build("mt5", **FOUR_BIT | {"target_modules": EVERYTHING})
    adapted = {name.rsplit(".", 1)[-1] for name in with_adapter(case.model)}
    assert adapted == {"q", "k", "v", "o", "wi_0", "wi_1", "wo", "lm_head", "embed_tokens"}
    notes = " ".join(case.adapted.notes)
    assert "adapter on embed_tokens" in notes
    assert "adapter on lm_head" in notes
    learning = {name for name, one in case.model.named_parameters() if one.requires_grad}
    assert all("lora_" in name for name in learning)
    base = case.model.base_model.model.shared.weight.clone()
    before = effective_rows(case)
    # One half of each adapter starts at zero, so the other one moves from the second step on.
    case.step()
    case.step()
    after = effective_rows(case)
    (tag,) = case.tokenizer.convert_tokens_to_ids(["#Person1#"])
    for place in ("encoder", "decoder", "head"):
        assert not torch.equal(after[place][tag], before[place][tag]), place
    assert torch.equal(case.model.base_model.model.shared.weight, base)


@pytest.mark.parametrize("sort", SORTS)
def test_embeddings_that_train_keep_their_ties(sort: str, build: Build) -> None:
    import torch

    case = build(sort, **FOUR_BIT | {"train_embeddings": True})
    before = effective_rows(case)
    norms = {
        name: one.clone() for name, one in case.model.named_parameters()
        if "norm" in name and one.requires_grad
    }  # fmt: skip
    case.step()
    after = effective_rows(case)
    model = case.model.base_model.model
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == (sort not in UNTIED)
    assert torch.equal(after["encoder"], after["decoder"])
    assert torch.equal(after["head"], after["decoder"]) == tied
    changed = {place: (after[place] != rows).any(dim=1) for place, rows in before.items()}
    # The softmax moves the rows of the head; a tied embedding goes along.
    assert changed["head"].float().mean() > 0.9
    assert (changed["encoder"].float().mean() > 0.9) == tied
    assert changed["encoder"][case.tokenizer(TEXT)["input_ids"]].all()
    assert norms
    for name, one in case.model.named_parameters():
        if name in norms:
            assert not torch.equal(one, norms[name]), name


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


@BITS
@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_an_evaluation_leaves_training_as_it_was(
    sort: str, qlora: dict[str, Any], build: Build
) -> None:
    # On CPUs with AVX512-BF16 bitsandbytes would repack the weights, and no gradient come through.
    import torch

    case = build(sort, **qlora)

    def gradients() -> dict[str, Any]:
        case.model.train()
        case.model.zero_grad()
        torch.manual_seed(0)
        case.model(**case.batch()).loss.backward()
        return {
            name: one.grad.clone()
            for name, one in case.model.named_parameters() if one.grad is not None
        }  # fmt: skip

    before, first = gradients(), case.logits()
    after = gradients()
    assert torch.equal(case.logits(), first)
    assert before.keys() == after.keys()
    assert [name for name, one in before.items() if not torch.equal(one, after[name])] == []


@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_gradients_reach_every_adapter_through_checkpointing(sort: str, build: Build) -> None:
    case = build(sort, checkpointing=True, **FOUR_BIT)
    assert case.model.config.use_cache is False
    case.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    case.model.train()
    case.model(**case.batch()).loss.backward()
    seconds = {name: one for name, one in case.model.named_parameters() if "lora_B" in name}
    without = [
        name for name, one in seconds.items() if one.grad is None or not one.grad.abs().sum() > 0
    ]
    assert seconds
    assert without == []


@pytest.mark.parametrize(
    "qlora",
    [
        {},
        {"train_embeddings": True},
        {"target_modules": EVERYTHING},
        {"target_modules": ["q", "lm_head"]},
        {"target_modules": ["q", "embed_tokens"]},
        {"load_in_4bit": False, "load_in_8bit": True},
        {"use_rslora": True},
        {"use_dora": True},
        {"load_in_4bit": False, "init_lora_weights": "pissa"},
    ],
    ids=["adapters", "and embeddings", "on everything", "on the head", "on the embeddings",
         "8-bit", "rank-stabilised", "DoRA", "PiSSA"],
)
@pytest.mark.parametrize("sort", SORTS)
def test_what_learned_comes_back_from_disk(
    sort: str, qlora: dict[str, Any], build: Build, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel

    case = build(sort, **FOUR_BIT | qlora)
    start = case.logits()
    for _ in range(2):
        case.step()
    learned = case.logits()
    assert not torch.allclose(learned, start, atol=1e-2)
    save_weights(case.model, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert "adapter_model.safetensors" in files
    assert (EXTRA_FILE in files) == bool(qlora.get("train_embeddings"))
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    loaded = load_model(
        case.folder, config=case.config, tokenizer=case.tokenizer, new_tokens=case.new,
        device="cpu", dtype=torch.float32,
    )  # fmt: skip
    again = PeftModel.from_pretrained(loaded.model, str(tmp_path))
    load_extra(again, tmp_path)
    back = Case(
        adapted=AdaptedModel(model=again, loader={}, targets=[]), tokenizer=case.tokenizer,
        config=case.config, new=case.new, folder=case.folder,
    )  # fmt: skip
    assert torch.equal(back.logits(), learned)


@pytest.mark.parametrize(
    ("qlora", "requested", "used"),
    [
        ({"load_in_4bit": False}, "PEFT + no quantisation", "PEFT + no quantisation"),
        (EIGHT_BIT, "PEFT + bitsandbytes 8-bit", "PEFT + bitsandbytes 8-bit"),
        ({}, "PEFT + bitsandbytes 4-bit", "PEFT + bitsandbytes 4-bit"),
        ({"use_unsloth": True}, "Unsloth", "PEFT + bitsandbytes 4-bit"),
    ],
)
def test_the_loader_is_recorded_as_asked_and_used(
    qlora: dict[str, Any], requested: str, used: str
) -> None:
    config = make_config("mt5", "none/needed", qlora=FOUR_BIT | qlora)
    loader = choose_loader(config.qlora)
    assert (loader["requested"], loader["used"]) == (requested, used)
    assert ("encoder-decoder" in loader["why"]) == (requested != used)


def test_a_model_in_which_nothing_learns_is_refused(build: Build) -> None:
    case = build("t5", use_qlora=False, load_in_4bit=False)
    require_trainable(case.model)
    for parameter in case.model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UnfitError, match=r"qlora\.target_modules"):
        require_trainable(case.model)

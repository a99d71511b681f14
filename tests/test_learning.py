"""What learns in an adapted model, what stays as it was, and what comes back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapted_models import BITS, EVERYTHING, FOUR_BIT, SORTS, TEXT, Build, Case, with_adapter
from dialsum.models.load import AdaptedModel
from dialsum.models.save import save_weights
from small_models import UNTIED

pytestmark = pytest.mark.training


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


@BITS
@pytest.mark.parametrize("sort", SORTS)
def test_new_rows_learn_and_old_rows_stay(sort: str, qlora: dict[str, Any], build: Build) -> None:
    import torch

    case = build(sort, **qlora)
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
        name: one.clone()
        for name, one in case.model.named_parameters()
        if "norm" in name and one.requires_grad
    }
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
            for name, one in case.model.named_parameters()
            if one.grad is not None
        }

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
    ids=[
        "adapters",
        "and embeddings",
        "on everything",
        "on the head",
        "on the embeddings",
        "8-bit",
        "rank-stabilised",
        "DoRA",
        "PiSSA",
    ],
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
    assert not [name for name in files if "base" in name]
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    base = case.load_base()
    again = PeftModel.from_pretrained(base, str(tmp_path))
    back = Case(
        adapted=AdaptedModel(model=again, loader={}, targets=[]),
        tokenizer=case.tokenizer,
        config=case.config,
        new=case.new,
        folder=case.folder,
    )
    # Where a matrix lies in memory decides how a product is rounded.
    # The library computes GELU and adapters in other steps: equal but for rounding.
    torch.testing.assert_close(back.logits(), learned, rtol=1e-4, atol=3e-5)

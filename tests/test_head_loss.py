"""The training's own loss, in chunks of target tokens: that of the plain way, in less memory."""

from __future__ import annotations

from typing import Any

import pytest

from adapted_models import EVERYTHING, FOUR_BIT, LORA, SORTS, Build, Case
from dialsum.train.loss import IGNORED
from tensor_sizes import tensors_made

pytestmark = pytest.mark.training

FULL = {"use_qlora": False, "load_in_4bit": False}
WAYS: dict[str, dict[str, Any]] = {
    "full": FULL,
    "adapters": LORA,
    "4-bit": FOUR_BIT,
    "on everything": LORA | {"target_modules": EVERYTHING},
    "and embeddings": LORA | {"train_embeddings": True},
}
"""Heads that learn in full, with rows of their own, frozen, under an adapter."""
DIALOGUES = [
    "#Person1#: 안녕하세요. #Person2#: 네, 안녕하세요.",
    "#Person1#: 오늘 저녁에 만나서 같이 밥을 먹고 영화를 보자. #Person2#: 좋아.",
    "네.",
]
ROWS = 5
"""Tokens of a chunk here, give or take one: several chunks, of unequal size."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the loss of these small models, of about 1,000 pieces, into chunks and blocks too."""
    from dialsum.train import loss as train_loss

    monkeypatch.setattr(train_loss, "CHUNK_BYTES", 4 * 1017 * ROWS)
    monkeypatch.setattr(train_loss, "BLOCK_BYTES", 4 * 1017 * 2)


def sum_losses(logits: Any, labels: Any, *, label_smoothing: float) -> Any:
    """Return torch's own loss over the labels that count, in float32."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(
        logits.flatten(0, -2).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def plain_loss(
    model: Any, batch: dict[str, Any], *, count: int | None, label_smoothing: float
) -> Any:
    """Return the loss as the model's own logits give it, all of them at once."""
    labels = batch["labels"]
    rest = {key: value for key, value in batch.items() if key != "labels"}
    decoder = model.prepare_decoder_input_ids_from_labels(labels=labels)
    logits = model(**rest, decoder_input_ids=decoder).logits
    total = sum_losses(logits, labels, label_smoothing=label_smoothing)
    return total / (int((labels != IGNORED).sum()) if count is None else count)


def make_batch(case: Case, *, equal: bool = False, ignored: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the dialogues as a batch that asks for what it shows.

    Args:
        equal: one dialogue several times, so that nothing is padding.
        ignored: rows of which no label counts.
    """
    texts = [DIALOGUES[1]] * 3 if equal else DIALOGUES
    padded = case.tokenizer.pad(
        {"input_ids": [case.tokenizer(text)["input_ids"] for text in texts]}, return_tensors="pt"
    )
    labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, IGNORED)
    for row in ignored:
        labels[row] = IGNORED
    return {
        "input_ids": padded["input_ids"],
        "attention_mask": padded["attention_mask"],
        "labels": labels,
    }


def prepare(case: Case) -> Case:
    """Put a model where training would: new rows and second factors away from their start."""
    import torch

    torch.manual_seed(5)
    with torch.no_grad():
        for name, one in case.model.named_parameters():
            if "trainable_tokens_delta" in name or "lora_B" in name or "embedding_A" in name:
                one.add_(torch.randn_like(one), alpha=0.1)
        bias = getattr(case.model, "final_logits_bias", None)
        if bias is not None:
            bias.copy_(torch.randn_like(bias))
    case.model.train()
    return case


def gradients_of(case: Case, loss: Any) -> dict[str, Any]:
    """Take a loss backward and return the gradient of every parameter that got one."""
    case.model.zero_grad()
    loss.backward()
    return {
        name: one.grad.clone()
        for name, one in case.model.named_parameters()
        if one.grad is not None
    }


def assert_close(first: dict[str, Any], second: dict[str, Any], *, within: float) -> None:
    """Compare every gradient, relative to its norm."""
    assert first.keys() == second.keys()
    whole = sum(float(one.norm()) ** 2 for one in first.values()) ** 0.5
    assert whole > 0
    for name, one in first.items():
        # Some gradients of BART's are zero but for rounding: a key's bias changes no attention.
        apart = float((one - second[name]).norm())
        assert apart <= within * max(float(one.norm()), 1e-3 * whole), name


def compare(
    case: Case,
    batch: dict[str, Any],
    *,
    smoothing: float = 0.0,
    count: int | None = 11,
    within: float = 1e-5,
) -> None:
    """Compare loss and every gradient with those of the plain way, dropout as it falls."""
    import torch

    from dialsum.train.loss import summary_loss

    found = []
    for way in (plain_loss, summary_loss):
        torch.manual_seed(0)
        loss = way(case.model, batch, count=count, label_smoothing=smoothing)
        found.append((loss.detach(), gradients_of(case, loss)))
    (plain, gradients), (own, own_gradients) = found
    assert own.dtype == torch.float32
    assert abs(float(own / plain) - 1) < within
    assert_close(gradients, own_gradients, within=within)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_loss_and_gradients_are_those_of_the_plain_way(sort: str, way: str, build: Build) -> None:
    case = prepare(build(sort, **WAYS[way]))
    for smoothing in (0.0, 0.1):
        compare(case, make_batch(case), smoothing=smoothing)


@pytest.mark.parametrize("sort", SORTS)
def test_rows_of_any_length_and_chunks_of_any_size_count_alike(
    sort: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dialsum.train import loss as train_loss

    case = prepare(build(sort, **FULL))
    equal, one_empty = make_batch(case, equal=True), make_batch(case, ignored=(1,))
    one_left = make_batch(case, ignored=(0, 1))
    for batch in (equal, one_empty, one_left):
        compare(case, batch, smoothing=0.1, count=None)
    for size in (1, 2**30):
        monkeypatch.setattr(train_loss, "CHUNK_BYTES", size)
        compare(case, one_empty)


@pytest.mark.parametrize("way", ["full", "adapters"])
@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_gradient_checkpointing_changes_nothing(sort: str, way: str, build: Build) -> None:
    case = prepare(build(sort, checkpointing=True, **WAYS[way]))
    case.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    compare(case, make_batch(case))


@pytest.mark.parametrize("way", ["full", "adapters"])
@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_rdrop_is_both_losses_and_both_divergences(sort: str, way: str, build: Build) -> None:
    import torch
    from torch.nn.functional import kl_div

    from dialsum.train.loss import summary_loss

    case = prepare(build(sort, **WAYS[way]))
    batch, alpha = make_batch(case), 3.0
    twice = {key: torch.cat([value, value]) for key, value in batch.items()}
    counted = batch["labels"] != IGNORED

    def plain() -> Any:
        rest = {key: value for key, value in twice.items() if key != "labels"}
        decoder = case.model.prepare_decoder_input_ids_from_labels(labels=twice["labels"])
        logits = case.model(**rest, decoder_input_ids=decoder).logits
        both = sum_losses(logits, twice["labels"], label_smoothing=0.1)
        one, other = (half[counted].log_softmax(-1) for half in logits.chunk(2))
        apart = sum(
            kl_div(p, q, log_target=True, reduction="sum") for p, q in ((one, other), (other, one))
        )
        # Half of R-Drop's own: with one and the same pass it is the usual loss.
        return (both + alpha / 2 * apart) / 2 / 11

    torch.manual_seed(0)
    expected = plain()
    gradients = gradients_of(case, expected)
    torch.manual_seed(0)
    own = summary_loss(case.model, batch, count=11, label_smoothing=0.1, rdrop_alpha=alpha)
    assert own.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_close(gradients, gradients_of(case, own), within=1e-4)
    case.model.eval()
    usual = summary_loss(case.model, batch, count=None, label_smoothing=0.1)
    still = summary_loss(case.model, batch, count=None, label_smoothing=0.1, rdrop_alpha=alpha)
    assert still.item() == pytest.approx(usual.item(), rel=1e-6)


def test_dora_on_the_head_is_the_plain_way_s(build: Build) -> None:
    case = prepare(build("mt5", **LORA | {"use_dora": True, "target_modules": ["q", "lm_head"]}))
    compare(case, make_batch(case))


def test_the_sum_is_divided_by_the_step_s_tokens_and_smoothed_as_by_the_library(
    build: Build,
) -> None:
    import torch
    from transformers.trainer_pt_utils import LabelSmoother

    from dialsum.train.loss import summary_loss

    case = build("mt5", **LORA)
    case.model.eval()
    batch = make_batch(case)
    tokens = int((batch["labels"] != IGNORED).sum())
    mean, seventh = (
        summary_loss(case.model, batch, count=count, label_smoothing=0.1) for count in (None, 7)
    )
    assert torch.allclose(7 * seventh, tokens * mean)
    smoothed = LabelSmoother(epsilon=0.1)({"logits": case.model(**batch).logits}, batch["labels"])
    assert torch.allclose(mean, smoothed)


@pytest.mark.parametrize("way", ["full", "adapters"])
def test_a_batch_without_targets_teaches_nothing(way: str, build: Build) -> None:
    from dialsum.train.loss import summary_loss

    case = prepare(build("t5", **WAYS[way]))
    batch = make_batch(case, ignored=(0, 1, 2))
    loss = summary_loss(case.model, batch, count=None, label_smoothing=0.1)
    assert loss.item() == 0
    gradients = gradients_of(case, loss)
    assert gradients
    assert all(not one.any() for one in gradients.values())


@pytest.mark.parametrize(
    ("sort", "way"),
    [("mt5", "full"), ("mt5", "adapters"), ("t5", "full"), ("bart", "on everything")],
)
def test_bfloat16_is_near_float32(sort: str, way: str, build: Build) -> None:
    import torch

    from dialsum.train.loss import summary_loss

    case = prepare(build(sort, **WAYS[way]))
    case.model.eval()
    batch = make_batch(case)
    exact = summary_loss(case.model, batch, count=11, label_smoothing=0.1)
    found = []
    for one in (plain_loss, summary_loss):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = one(case.model, batch, count=11, label_smoothing=0.1)
        assert loss.dtype == torch.float32
        assert abs(float(loss.detach() / exact.detach()) - 1) < 1e-2
        found.append(gradients_of(case, loss))
    plain, own = found
    assert plain.keys() == own.keys()
    together = [torch.cat([one.flatten() for one in each.values()]) for each in found]
    assert float((together[0] - together[1]).norm() / together[0].norm()) < 1e-2


def test_float16_goes_through_its_scaler(build: Build) -> None:
    import torch

    from dialsum.train.loss import summary_loss

    case = prepare(build("bart", **FULL))
    case.model.eval()
    batch = make_batch(case)
    exact = gradients_of(case, summary_loss(case.model, batch, count=11, label_smoothing=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = summary_loss(case.model, batch, count=11, label_smoothing=0.1)
    scaled = gradients_of(case, scaler.scale(loss))
    own = {name: one / scaler.get_scale() for name, one in scaled.items()}
    assert_close(exact, own, within=2e-2)


def test_float16_keeps_the_gradients_of_unlikely_pieces() -> None:
    import torch

    from dialsum.train.loss import sum_head_losses

    torch.manual_seed(1)
    head = torch.nn.Linear(8, 40, bias=False)
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.weight[:20, 0] -= 15.0
    hidden = torch.randn(6, 8)
    hidden[:, 0] = 1.0
    labels = torch.arange(20, 26)

    def gradient() -> Any:
        head.zero_grad()
        sum_head_losses(head, hidden, labels, bias=None, label_smoothing=0.0, rows=4).backward()  # type: ignore[no-untyped-call]
        return head.weight.grad[:20].clone()

    exact = gradient()
    assert 0 < float(exact.abs().max()) < 1e-6
    with torch.autocast("cpu", dtype=torch.float16):
        low = gradient()
    assert float((low - exact).norm() / exact.norm()) < 0.15


@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_an_evaluation_has_the_same_loss_and_no_gradient(sort: str, build: Build) -> None:
    import torch

    from dialsum.train.loss import summary_loss

    case = prepare(build(sort, **LORA))
    case.model.eval()
    batch = make_batch(case)
    learning = summary_loss(case.model, batch, count=None, label_smoothing=0.0)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), tensors_made() as made:
            loss = summary_loss(case.model, batch, count=None, label_smoothing=0.0)
        assert torch.allclose(loss, learning)
        assert not loss.requires_grad
        assert biggest_with(made, case.model.config.vocab_size) <= ROWS + 1


def biggest_with(shapes: list[tuple[int, ...]], vocabulary: int) -> int:
    """Return the most rows of any tensor whose columns are the vocabulary."""
    import math

    return max(math.prod(shape[:-1]) for shape in shapes if shape and shape[-1] == vocabulary)


@pytest.mark.parametrize(
    ("sort", "way"),
    [("mt5", way) for way in WAYS] + [("t5", "full"), ("t5", "adapters"), ("bart", "adapters")],
)
def test_no_logits_of_a_whole_pass_are_held(sort: str, way: str, build: Build) -> None:
    from dialsum.train.loss import summary_loss

    case = prepare(build(sort, **WAYS[way]))
    batch, vocabulary = make_batch(case), case.model.config.vocab_size
    tokens = int((batch["labels"] != IGNORED).sum())
    assert tokens > 3 * ROWS
    scored: list[int] = []
    hook = case.model.get_output_embeddings().register_forward_hook(
        lambda _layer, _inputs, logits: scored.append(logits.shape[:-1].numel())
    )
    with tensors_made() as made:
        gradients_of(case, summary_loss(case.model, batch, count=11, label_smoothing=0.1))
    hook.remove()
    assert sum(scored) == tokens
    assert biggest_with(made, vocabulary) <= ROWS + 1
    with tensors_made() as made:
        gradients_of(case, plain_loss(case.model, batch, count=11, label_smoothing=0.1))
    assert biggest_with(made, vocabulary) >= tokens


def test_a_head_that_learns_has_one_gradient_and_no_second(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dialsum.train import loss as train_loss

    monkeypatch.setattr(train_loss, "CHUNK_BYTES", 16 * 64 * 50)
    head = torch.nn.Linear(64, 300, bias=False)
    hidden = torch.randn(12, 64, requires_grad=True)
    with tensors_made() as made:
        loss = train_loss.sum_head_losses(
            head, hidden, torch.arange(12), bias=None, label_smoothing=0.1, rows=4
        )
        loss.backward()  # type: ignore[no-untyped-call]
    assert made.count((300, 64)) == 1
    expected = sum_losses(head(hidden), torch.arange(12), label_smoothing=0.1)
    assert torch.allclose(loss, expected)


def test_a_loss_taken_backward_twice_is_refused() -> None:
    import torch

    from dialsum.train.loss import sum_head_losses

    head = torch.nn.Linear(4, 9, bias=False)
    loss = sum_head_losses(
        head, torch.randn(3, 4), torch.arange(3), bias=None, label_smoothing=0.0, rows=2
    )
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="already taken backward"):
        loss.backward()  # type: ignore[no-untyped-call]

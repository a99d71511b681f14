"""The training loss: one mean over an optimizer step, however it is cut into forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dialsum.data.dialogues import Dialogue
from dialsum.data.encode import encode_rows
from dialsum.model.generate import GenerationSettings
from dialsum.train.arguments import TrainingPlan, make_arguments
from dialsum.train.fit import DevSet, fit
from dialsum.train.loss import IGNORED, make_loss, sum_token_losses
from dialsum.train.progress import Progress
from small_models import KINDS, make_config, make_model, train_sample_tokenizer

pytestmark = pytest.mark.training

WORDS = ["네", "오늘", "저녁에", "만나서", "같이", "밥을", "먹고", "영화를", "보자고", "합니다"]
ROWS = [
    Dialogue(
        fname=f"d_{row}", dialogue=" ".join(WORDS[:words]), summary=" ".join(WORDS[-words:]),
        topic=None, row=row,
    )
    for row, words in enumerate([1, 10, 3, 7], start=1)
]  # fmt: skip
"""Of unequal lengths: only those show whether a short row counts too much."""


def labels_of(*rows: list[int]) -> Any:
    """Return labels padded to one length."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_torch_s_own_over_the_step_s_tokens(smoothing: float) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(1)
    labels = labels_of([3, 1, 4, 1], [5], [])
    logits = torch.randn(*labels.shape, 11, requires_grad=True)
    loss = make_loss(smoothing)({"logits": logits}, labels)
    expected = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )
    assert torch.allclose(loss, expected)
    grown = make_loss(smoothing)({"logits": logits}, labels, num_items_in_batch=10)
    assert torch.allclose(grown, expected * 5 / 10)


def test_label_smoothing_is_that_of_the_trainer_s_own_smoother() -> None:
    import torch
    from transformers.trainer_pt_utils import LabelSmoother

    torch.manual_seed(1)
    labels = labels_of([3, 1, 4, 1], [5])
    outputs = {"logits": torch.randn(*labels.shape, 11)}
    own = LabelSmoother(epsilon=0.2)(outputs, labels)
    assert torch.allclose(make_loss(0.2)(outputs, labels), own)
    assert not torch.allclose(make_loss(0.0)(outputs, labels), own)


def test_the_loss_is_computed_in_float32() -> None:
    import torch

    torch.manual_seed(1)
    labels = labels_of([3, 1], [5, 2])
    logits = 20 * torch.randn(*labels.shape, 1000)
    exact = sum_token_losses(logits.bfloat16().float(), labels)
    assert sum_token_losses(logits.bfloat16(), labels).dtype == torch.float32
    assert torch.allclose(sum_token_losses(logits.bfloat16(), labels), exact)


def weights_after_a_step(
    sort: str, tokenizer: Any, folder: Path, *, batch: int, accumulation: int,
    smoothing: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Return what one step of plain gradient descent by the real trainer adds to the weights."""
    import torch

    config = make_config(
        sort, "none/needed",
        training={"learning_rate": 0.5, "max_steps": 1, "max_grad_norm": 0.0,
                  "label_smoothing_factor": smoothing},
        model={"architecture": sort, "checkpoint": "none/needed"},
        generation={"num_beams": 1, "max_new_tokens": 2},
    )  # fmt: skip
    torch.manual_seed(3)
    model = make_model(sort, tokenizer=tokenizer, width=16)
    start = {name: one.detach().clone() for name, one in model.named_parameters()}
    plan = TrainingPlan(
        batch_size=batch, accumulation=accumulation, rows=len(ROWS), bf16=False, fp16=False,
        tf32=False, gradient_checkpointing=False, num_workers=0, use_cpu=True,
    )  # fmt: skip
    arguments = make_arguments(config, plan=plan, checkpoints=folder / "checkpoints")
    # Adam would hide the gradient's size, dropout its direction.
    arguments.optim = "sgd"
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        for module in model.modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    encoded = encode_rows(
        ROWS, tokenizer, prefix="", encoder_max_len=64, decoder_max_len=64
    )  # fmt: skip
    result = fit(
        model, tokenizer, config=config, arguments=arguments, train=encoded,
        dev=DevSet(
            encoded=encoded.first(1), score=lambda _: dict.fromkeys(SCORES, 1.0),
            settings=GenerationSettings.from_config(config, exempt=(), bf16=False), batch_size=1,
        ),
        progress=Progress(folder / "metrics.jsonl", tensorboard=None),
    )  # fmt: skip
    assert result.steps == 1
    return {name: one.detach() - start[name] for name, one in model.named_parameters()}


SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_mean", "rouge_sum")


def relative_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return the norm of the difference of two sets of weights over the norm of one."""
    import torch

    one, other = (torch.cat([weight.flatten() for weight in each.values()])
                  for each in (first, second))  # fmt: skip
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize(
    ("sort", "smoothing"), [("mt5", 0.0), ("t5", 0.0), ("bart", 0.0), ("bart", 0.1)]
)
def test_accumulation_gives_the_gradient_of_the_whole_batch(
    sort: str, smoothing: float, tmp_path: Path
) -> None:
    tokenizer = train_sample_tokenizer(KINDS[sort])
    steps = [
        weights_after_a_step(
            sort, tokenizer, tmp_path / f"{batch}x{accumulation}", batch=batch,
            accumulation=accumulation, smoothing=smoothing,
        )
        for batch, accumulation in ((4, 1), (2, 2), (1, 4))
    ]  # fmt: skip
    assert all(float(one.abs().max()) > 0 for one in steps[0].values())
    assert relative_difference(steps[0], steps[1]) < 1e-4
    assert relative_difference(steps[0], steps[2]) < 1e-4


def test_smoothing_reaches_the_gradient(tmp_path: Path) -> None:
    tokenizer = train_sample_tokenizer("bpe")
    plain, smooth = (
        weights_after_a_step(
            "bart", tokenizer, tmp_path / str(smoothing), batch=4, accumulation=1,
            smoothing=smoothing,
        )
        for smoothing in (0.0, 0.3)
    )  # fmt: skip
    assert relative_difference(plain, smooth) > 0.01

"""Accumulation: batch B x A has the gradient, loss and norm of batch B.A x 1, whatever the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from small_fit import ADAPTERS, FULL, UNEQUAL, SmallTraining, make_rows, read_events, weights_of
from small_fit import relative_difference as difference

pytestmark = pytest.mark.training

EQUAL = make_rows([8] * 12)


def one_step(folder: Path, **asked: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a step of plain gradient descent on all rows adds, and what was reported."""
    training = {"learning_rate": 0.5, "max_steps": 1, "max_grad_norm": 0.0}
    asked["training"] = training | asked.get("training", {})
    # Adam would hide the gradient's size, dropout its direction.
    trainer = SmallTraining(optim="sgd", **asked).loop(folder)
    before = weights_of(trainer.model)
    trainer.run()
    after = weights_of(trainer.model)
    (event,) = read_events(folder, "train")
    return {name: after[name] - before[name] for name in before}, event


@pytest.mark.parametrize("strategy", ["token_budget", "random"])
@pytest.mark.parametrize("rows", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize(
    ("sort", "qlora", "smoothing"),
    [
        ("mt5", FULL, 0.0),
        ("mt5", ADAPTERS, 0.1),
        ("t5", FULL, 0.1),
        ("t5", ADAPTERS, 0.0),
        ("t5_v1_1", FULL, 0.0),
        ("bart", FULL, 0.1),
        ("bart", ADAPTERS, 0.0),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_accumulation_gives_the_gradient_of_the_whole_batch(
    sort: str, qlora: dict[str, Any], smoothing: float, rows: Any, strategy: str, tmp_path: Path
) -> None:
    training = {"label_smoothing_factor": smoothing, "train_sampling_strategy": strategy}
    steps = [
        one_step(
            tmp_path / f"{batch}x{accumulation}",
            sort=sort,
            qlora=qlora,
            rows=rows,
            batch=batch,
            accumulation=accumulation,
            training=training,
        )
        for batch, accumulation in ((12, 1), (4, 3), (1, 12))
    ]
    (whole, whole_said), *others = steps
    assert any(float(one.abs().max()) > 0 for one in whole.values())
    for cut, said in others:
        assert difference(whole, cut) < 1e-4
        assert said["loss"] == pytest.approx(whole_said["loss"], rel=1e-4)
        assert said["grad_norm"] == pytest.approx(whole_said["grad_norm"], rel=1e-4)


def test_the_reported_loss_is_the_mean_over_target_tokens(tmp_path: Path) -> None:
    import torch

    trainer = SmallTraining(batch=3, accumulation=4, training={"max_steps": 1}, optim="sgd").loop(
        tmp_path
    )
    encoded = trainer.task
    rows = encoded[range(len(encoded))]
    with torch.no_grad():
        expected = float(
            trainer.model(
                input_ids=rows["input_ids"],
                attention_mask=rows["attention_mask"],
                labels=rows["labels"],
            ).loss
        )
    trainer.run()
    assert read_events(tmp_path, "train")[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_smoothing_reaches_the_gradient(tmp_path: Path) -> None:
    plain, smooth = (
        one_step(
            tmp_path / str(smoothing),
            batch=4,
            accumulation=3,
            training={"label_smoothing_factor": smoothing},
        )[0]
        for smoothing in (0.0, 0.3)
    )
    assert difference(plain, smooth) > 0.01

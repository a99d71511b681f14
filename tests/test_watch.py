"""What is remarked on in a run's curves: each remark where it is due, once, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from dialsum.train.progress import (
    CHECK_STEP,
    FLAT_EVALUATIONS,
    LEAST_STEPS,
    QUIET_STEPS,
    RISING_EVALUATIONS,
    Remark,
    Watch,
)


def follow(
    watch: Watch, losses: Sequence[float], *, first: int = 1, norm: float = 1.0
) -> list[Remark]:
    """Hand a watch one step after the other and return its remarks."""
    return [
        remark
        for step, loss in enumerate(losses, start=first)
        for remark in watch.step(step, loss=loss, grad_norm=norm)
    ]


def evaluate(watch: Watch, dev: Sequence[float], *, better: bool = True) -> list[Remark]:
    """Hand a watch one evaluation after the other, ten steps apart, and return its remarks."""
    return [
        remark
        for at, loss in enumerate(dev, start=1)
        for remark in watch.evaluation(10 * at, dev_loss=loss, better=better)
    ]


@pytest.mark.parametrize(
    ("kind", "loss", "norm"), [("loss_spike", 4.1, 1.0), ("gradient_spike", 2.0, 10.1)]
)
def test_a_spike_is_told_once_with_its_step(kind: str, loss: float, norm: float) -> None:
    watch = Watch()
    assert follow(watch, [2.0] * LEAST_STEPS) == []
    (told,) = watch.step(21, loss=loss, grad_norm=norm)
    assert (told["kind"], told["step"]) == (kind, 21)
    assert told["median"] == (2.0 if kind == "loss_spike" else 1.0)
    assert watch.step(22, loss=loss, grad_norm=norm) == []
    (again,) = watch.step(21 + QUIET_STEPS, loss=loss, grad_norm=norm)
    assert again["kind"] == kind


@pytest.mark.parametrize(("loss", "norm"), [(4.0, 1.0), (2.0, 10.0), (0.1, 0.1)])
def test_what_stays_within_the_usual_is_no_spike(loss: float, norm: float) -> None:
    watch = Watch()
    follow(watch, [2.0] * LEAST_STEPS)
    assert watch.step(21, loss=loss, grad_norm=norm) == []


def test_too_few_steps_have_no_median() -> None:
    watch = Watch()
    follow(watch, [2.0] * (LEAST_STEPS - 1))
    assert watch.step(LEAST_STEPS, loss=100.0, grad_norm=100.0) == []


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(0.96, "converging"), (1.0, "not converging"), (0.98, "not converging"), (1.04, "diverging")],
)
def test_convergence_is_judged_once_at_its_step(now: float, verdict: str) -> None:
    watch = Watch()
    losses = [1.0] * LEAST_STEPS + [now] * (CHECK_STEP + 40 - LEAST_STEPS)
    (told,) = follow(watch, losses)
    assert (told["kind"], told["step"]) == ("convergence", CHECK_STEP)
    assert (told["verdict"], told["first"]) == (verdict, 1.0)
    assert told["now"] == now


def test_over_fitting_is_dev_loss_that_rises_while_training_loss_falls() -> None:
    watch = Watch()
    told: list[Remark] = []
    for at, dev in enumerate([1.0, 1.1, 1.2, 1.3, 1.4], start=1):
        follow(watch, [1.0 / at] * 50, first=1000 * at)
        told += watch.evaluation(1000 * at, dev_loss=dev, better=True)
    (remark,) = told
    assert (remark["kind"], remark["step"]) == ("over_fitting", 1000 * (RISING_EVALUATIONS + 1))
    assert remark["since_step"] == 1000
    assert (remark["dev_loss"], remark["train_loss"]) == (1.3, 0.25)


@pytest.mark.parametrize(
    ("dev", "train"),
    [
        ([1.0, 1.1, 1.2, 1.3], [1.0, 1.1, 1.2, 1.3]),
        ([1.0, 1.1, 1.2, 1.3], [1.0, 1.0, 1.0, 1.0]),
        ([1.0, 1.1, 1.05, 1.2], [1.0, 0.8, 0.6, 0.4]),
        ([1.3, 1.2, 1.1, 1.0], [1.0, 0.8, 0.6, 0.4]),
        ([1.0, 1.1, 1.2], [1.0, 0.8, 0.6]),
    ],
    ids=["both rise", "training stands", "one fall between", "both fall", "too few"],
)
def test_other_curves_are_no_over_fitting(dev: list[float], train: list[float]) -> None:
    watch = Watch()
    for at, (dev_loss, loss) in enumerate(zip(dev, train, strict=True), start=1):
        follow(watch, [loss] * 50, first=1)
        remarks = watch.evaluation(at, dev_loss=dev_loss, better=True)
        assert [one["kind"] for one in remarks] == []


def test_a_plateau_is_told_once_until_the_score_moves() -> None:
    watch = Watch()
    falling = [1 / at for at in range(1, 20)]
    assert evaluate(watch, falling[: FLAT_EVALUATIONS - 1], better=False) == []
    (told,) = watch.evaluation(77, dev_loss=0.01, better=False)
    assert (told["kind"], told["step"]) == ("plateau", 77)
    assert evaluate(watch, falling, better=False) == []
    assert evaluate(watch, [0.1]) == []
    (again,) = evaluate(watch, falling[:FLAT_EVALUATIONS], better=False)
    assert again["kind"] == "plateau"


def test_a_run_that_goes_on_is_remarked_on_as_a_whole_one() -> None:
    losses = [3.0 - step / 100 for step in range(150)] + [1.5] * 100 + [9.0, 9.0]
    whole, first, second = Watch(), Watch(), Watch()
    told = follow(whole, losses[:170]) + evaluate(whole, [1.0, 1.1, 1.2])
    assert follow(first, losses[:170]) + evaluate(first, [1.0, 1.1, 1.2]) == told
    second = Watch(**json.loads(json.dumps(vars(first))))
    rest = follow(whole, losses[170:], first=171) + evaluate(whole, [1.3], better=False)
    assert follow(second, losses[170:], first=171) + evaluate(second, [1.3], better=False) == rest
    assert [one["kind"] for one in rest] == ["convergence", "loss_spike", "over_fitting"]
    assert rest[0]["verdict"] == "converging"

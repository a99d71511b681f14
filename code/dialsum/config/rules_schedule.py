"""What must hold between the keys of the learning rate's shape and the run's length, rule by rule.

Must not know files or YAML: a rule sees the values of one experiment and says where each was
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dialsum.config.messages import show_value
from dialsum.config.view import Rule, View
from dialsum.config.yaml import Problem

KWARGS = "training.lr_scheduler_kwargs"
SCHEDULE = "training.lr_scheduler_type"
ARGUMENTS: dict[str, dict[str, str]] = {
    "cosine": {"num_cycles": "a number above 0 (0.5: one fall to zero)"},
    "cosine_with_restarts": {"num_cycles": "a whole number from 2 (one cycle is plain cosine)"},
    "polynomial": {
        "power": "a number above 0",
        "lr_end": "a number from 0, below the learning rate",
    },
    "inverse_sqrt": {"timescale": "a whole number from 1, in steps"},
}
"""Arguments of each shape in transformers' optimization.py; the other shapes have none."""


def schedule_knows_its_arguments(view: View) -> Iterator[Problem]:
    """An argument of another shape would stop the library at the first step."""
    shape, known = view[SCHEDULE], ARGUMENTS.get(view[SCHEDULE], {})
    for name, value in view[KWARGS].items():
        if name not in known:
            meant = f"{shape} takes {', '.join(known)}" if known else f"{shape} takes none: {{}}"
            yield view.problem(KWARGS, f"{name}: {show_value(value)}", meant=meant)
        elif not _fits(name, value, shape=shape, view=view):
            yield view.problem(KWARGS, f"{name}: {show_value(value)}", meant=known[name])


def restarts_restart(view: View) -> Iterator[Problem]:
    """The library's default of one cycle is plain cosine under another name."""
    if view[SCHEDULE] == "cosine_with_restarts" and "num_cycles" not in view[KWARGS]:
        found = "cosine_with_restarts without num_cycles: one cycle, plain cosine"
        yield view.problem(SCHEDULE, found, meant="lr_scheduler_kwargs: {num_cycles: 4}, or cosine")


def _fits(name: str, value: Any, *, shape: str, view: View) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name == "num_cycles" and shape == "cosine_with_restarts":
        return isinstance(value, int) and value >= 2
    if name == "timescale":
        return isinstance(value, int) and value >= 1
    if name == "lr_end":
        rate = "training.learning_rate"
        return 0 <= value < (view[rate] if view.knows(rate) else 1)
    return 0 < value < float("inf")


def epochs_are_not_overruled(view: View) -> Iterator[Problem]:
    """max_steps rules over num_train_epochs, so a later num_train_epochs would do nothing."""
    if view["training.max_steps"] is None or not view.stated("training.num_train_epochs"):
        return
    rank = view.resolved.rank
    if rank("training.num_train_epochs") > rank("training.max_steps"):
        epochs, steps = view["training.num_train_epochs"], view["training.max_steps"]
        found = f"{epochs:g}, but max_steps {steps} rules"
        yield view.problem(
            "training.num_train_epochs", found, meant="training.max_steps: null beside it"
        )


def warmup_can_end(view: View) -> Iterator[Problem]:
    """From 1 on it counts whole steps, fewer than there are."""
    warmup = view["training.warmup_steps"]
    steps = view["training.max_steps"] if view.knows("training.max_steps") else None
    if warmup >= 1 and warmup != int(warmup):
        yield view.problem(
            "training.warmup_steps", f"{warmup}", meant="whole steps, or a share below 1"
        )
    elif steps is not None and warmup >= max(steps, 1):
        found = f"{warmup:g} of {steps} steps: the peak learning rate is never reached"
        yield view.problem(
            "training.warmup_steps", found, meant="fewer than max_steps, or a share below 1"
        )


def constant_has_no_warmup(view: View) -> Iterator[Problem]:
    """The library's constant shape drops the warm-up without a word."""
    rank, warmup = view.resolved.rank, view["training.warmup_steps"]
    if view[SCHEDULE] != "constant" or not warmup or view.resolved.complete_record:
        return
    if rank("training.warmup_steps") >= rank(SCHEDULE):
        found = f"{warmup:g}, but the shape constant has no warm-up"
        yield view.problem(
            "training.warmup_steps", found, meant="lr_scheduler_type: constant_with_warmup"
        )


SCHEDULE_RULES: tuple[Rule, ...] = (
    schedule_knows_its_arguments,
    restarts_restart,
    epochs_are_not_overruled,
    warmup_can_end,
    constant_has_no_warmup,
)

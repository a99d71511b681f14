"""What a person who watches the curves would remark on, as events: spikes, over-fitting, plateaus.

Must not know tensors or the trainer: it is handed numbers, and changes nothing in a run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

WINDOW = 50
"""Steps that the running medians look back on."""
LEAST_STEPS = 20
"""Steps before a median is trusted."""
LOSS_SPIKE = 2.0
"""Times the median at which a loss is a spike; batches of 16 real rows stay within 1.5."""
GRADIENT_SPIKE = 10.0
"""Times the median at which a gradient norm is called exploding."""
QUIET_STEPS = 25
"""Steps after a spike in which another of its kind is not told: one fault is one event."""
RISING_EVALUATIONS = 3
"""Evaluations in a row of rising dev loss, with falling training loss, that are over-fitting."""
FLAT_EVALUATIONS = 5
"""Evaluations in a row without a better score that are a plateau."""
CHECK_STEP = 200
"""Step from which on the first look whether training converges is taken."""


@dataclass(frozen=True)
class Remark:
    """One event.

    Args:
        kind: loss_spike, gradient_spike, over_fitting, plateau or convergence.
        step: optimizer step.
        text: a sentence for the user.
        values: the numbers behind it.
    """

    kind: str
    step: int
    text: str
    values: dict[str, Any] = field(default_factory=dict)


class Watch:
    """Follows one run's numbers and remarks on them."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._first: list[float] = []
        self._last_told: dict[str, int] = {}
        self._checked = False
        self._evaluations: list[tuple[int, float, float]] = []
        self._flat = 0
        self._over_fitting = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on from here has to know, as JSON can hold it."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "first": self._first,
            "last_told": self._last_told,
            "checked": self._checked,
            "flat": self._flat,
            "evaluations": self._evaluations,
            "over_fitting": self._over_fitting,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what state_dict returned."""
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])
        self._first, self._last_told = state["first"], state["last_told"]
        self._checked, self._flat = state["checked"], state["flat"]
        self._evaluations = [(step, dev, train) for step, dev, train in state["evaluations"]]
        self._over_fitting = state["over_fitting"]

    def step(self, step: int, *, loss: float, grad_norm: float) -> list[Remark]:
        """Take in a finished optimizer step; both numbers finite."""
        remarks = []
        for kind, value, past, limit, name in (
            ("loss_spike", loss, self._losses, LOSS_SPIKE, "loss"),
            ("gradient_spike", grad_norm, self._norms, GRADIENT_SPIKE, "gradient norm"),
        ):
            usual = median(past) if len(past) >= LEAST_STEPS else None
            if usual is not None and value > limit * usual and self._may_tell(kind, step):
                remarks.append(
                    Remark(
                        kind,
                        step,
                        f"step {step}: {name} {value:.3g} is {value / usual:.1f} times "
                        f"the median of the last {len(past)} steps ({usual:.3g})",
                        {"value": value, "median": usual},
                    )
                )
            past.append(value)
        if len(self._first) < LEAST_STEPS:
            self._first.append(loss)
        if step >= CHECK_STEP and not self._checked and len(self._losses) >= LEAST_STEPS:
            self._checked = True
            remarks.append(self._check_convergence(step))
        return remarks

    def _may_tell(self, kind: str, step: int) -> bool:
        last = self._last_told.get(kind)
        if last is not None and step - last < QUIET_STEPS:
            return False
        self._last_told[kind] = step
        return True

    def _check_convergence(self, step: int) -> Remark:
        first, now = median(self._first), median(list(self._losses)[-LEAST_STEPS:])
        if now < 0.97 * first:
            verdict = "converging"
        elif now > 1.03 * first:
            verdict = "diverging: the learning rate may be too high"
        else:
            verdict = "not converging: the learning rate may be too low, or nothing can learn"
        return Remark(
            "convergence",
            step,
            f"step {step}: {verdict} (median training loss {first:.3g} in the "
            f"first {len(self._first)} steps seen, {now:.3g} in the last {LEAST_STEPS})",
            {"verdict": verdict.partition(":")[0], "first": first, "now": now},
        )

    def evaluation(self, step: int, *, dev_loss: float, better: bool) -> list[Remark]:
        """Take in an evaluation on dev.

        Args:
            better: the metric that chooses the best checkpoint improved.
        """
        train_loss = median(self._losses) if self._losses else float("nan")
        self._evaluations.append((step, dev_loss, train_loss))
        remarks = []
        recent = self._evaluations[-(RISING_EVALUATIONS + 1) :]
        pairs = list(pairwise(recent))
        rising = len(pairs) == RISING_EVALUATIONS and all(
            after[1] > before[1] for before, after in pairs
        )
        if not rising:
            self._over_fitting = False
        elif recent[-1][2] < recent[0][2] and not self._over_fitting:
            self._over_fitting = True
            remarks.append(
                Remark(
                    "over_fitting",
                    step,
                    f"step {step}: dev loss rose {RISING_EVALUATIONS} times in a "
                    f"row, {recent[0][1]:.4g} to {dev_loss:.4g}, while training loss fell, "
                    f"{recent[0][2]:.4g} to {train_loss:.4g}: the model begins to over-fit after "
                    f"step {recent[0][0]}",
                    {"since_step": recent[0][0], "dev_loss": dev_loss, "train_loss": train_loss},
                )
            )
        self._flat = 0 if better else self._flat + 1
        if self._flat == FLAT_EVALUATIONS:
            remarks.append(
                Remark(
                    "plateau",
                    step,
                    f"step {step}: no better score in {FLAT_EVALUATIONS} evaluations",
                    {"evaluations": FLAT_EVALUATIONS},
                )
            )
        return remarks

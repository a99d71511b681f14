"""What is done about a step that is not finite: report it, then go back, skip it, or stop.

Must not know the trainer's loop; it is told when a step ended and what it found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dialsum.atomic import write_json
from dialsum.errors import NonFiniteError
from dialsum.train.nonfinite import Origin, Snapshot
from dialsum.train.progress import Progress

Policy = Literal["rollback", "skip", "stop"]

MOST_TIMES = 3
"""Bad steps that a run survives; at the next one it fails."""
SNAPSHOT_STEPS = 50
"""Steps between two snapshots of what learns: what a rollback can cost."""


@dataclass
class BadStep:
    """What is known of a step that is not finite.

    Args:
        step_rows: all rows of the step, by their place in the split.
    """

    step: int
    epoch: float
    learning_rate: float
    loss: float
    grad_norm: float | None
    origin: Origin
    step_rows: Sequence[int]
    scaler_scale: float | None = None

    @property
    def rows(self) -> Sequence[int]:
        """Rows of the pass in which it arose, of the whole step where that is not known."""
        return self.origin.rows or self.step_rows


@dataclass
class Guard:
    """Answers bad steps by policy, and keeps the report.

    Args:
        policy: rollback (to the last snapshot, half the learning rate), skip (the step changes
            nothing), stop.
        report: nan_report.json.
        names: fname of every training row, for the report.
    """

    policy: Policy
    report: Path
    names: Sequence[str]
    progress: Progress
    events: list[dict[str, Any]] = field(default_factory=list)
    _snapshot: Snapshot | None = None

    def keep(self, model: Any, optimizer: Any, *, step: int, due: bool = False) -> None:
        """Take a snapshot of finite weights where one is due.

        Args:
            due: in any case. At a checkpoint one is, so that a run that goes on from there rolls
                back to where the whole run would have.
        """
        if self.policy == "rollback" and (
            due or self._snapshot is None or step - self._snapshot.step >= SNAPSHOT_STEPS
        ):
            self._snapshot = Snapshot(model, optimizer, step=step)

    def remember(self, events: Sequence[dict[str, Any]]) -> None:
        """Go on from a checkpoint: these are the bad steps before it, later ones have not been."""
        self.events = list(events)
        if self.events:
            self._write_report()
        else:
            self.report.unlink(missing_ok=True)

    def answer(self, bad: BadStep, *, model: Any, optimizer: Any, scheduler: Any) -> None:
        """Undo a bad step by policy. Gradients are the caller's to drop.

        Raises:
            NonFiniteError: the policy is stop, the weights cannot be had back, or it happened too
                often.
        """
        action, failure = self._decide(bad)
        text = _describe(bad, self.names)
        if action == "rollback" and self._snapshot is not None:
            self._snapshot.restore(model, optimizer)
            halve_learning_rate(optimizer, scheduler)
            text += (
                f"; weights of step {self._snapshot.step} restored, learning rate halved, "
                "these rows skipped"
            )
        elif action == "skip":
            text += "; the step is skipped"
        self._write(bad, action)
        if failure is not None:
            raise NonFiniteError(f"{text}; {failure}. See {self.report.name} in results/")
        self.progress.warn(text)

    def _decide(self, bad: BadStep) -> tuple[str, str | None]:
        """Return what to do, and why the run must end if it must."""
        if self.policy == "stop":
            return "stop", "training.on_nan is stop"
        if len(self.events) >= MOST_TIMES:
            return "stop", (
                f"that is more than {MOST_TIMES} such steps. Lower training.learning_rate, or look "
                "at the rows named in the report"
            )
        damaged = bad.origin.where == "weights"
        if self.policy == "skip":
            if damaged:
                return "stop", "the weights themselves are damaged, and skipping cannot mend them"
            return "skip", None
        if self._snapshot is None:
            return "stop", "no good weights were seen before it"
        return "rollback", None

    def _write(self, bad: BadStep, action: str) -> None:
        names, step_names = (
            [self.names[row] for row in rows] for rows in (bad.rows, bad.step_rows)
        )
        event = {
            "step": bad.step, "epoch": round(bad.epoch, 4), "learning_rate": bad.learning_rate,
            "loss": _number(bad.loss), "grad_norm": _number(bad.grad_norm),
            "found_in": bad.origin.where, "layer": bad.origin.layer, "rows": names,
            "step_rows": step_names,
            "scaler_scale": bad.scaler_scale, "action": action,
            "restored_step": self._snapshot.step
            if action == "rollback" and self._snapshot else None,
        }
        self.events.append(event)
        self.progress.nan_events += 1
        known = {key: value for key, value in event.items() if value is not None}
        self.progress.event("nan", **known)
        self._write_report()

    def _write_report(self) -> None:
        write_json(self.report, {"schema_version": 1, "policy": self.policy, "events": self.events})


def halve_learning_rate(optimizer: Any, scheduler: Any) -> None:
    """Halve the learning rate of now and of all the schedule to come."""
    scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
    for group in optimizer.param_groups:
        group["lr"] /= 2
        group["initial_lr"] /= 2


def _describe(bad: BadStep, names: Sequence[str]) -> str:
    where = {
        "weights": f"weights of {bad.origin.layer}", "forward": f"output of {bad.origin.layer}",
        "loss": "loss", "gradients": f"gradient of {bad.origin.layer}",
        "nowhere": "gradients, though not when the step was run again",
    }[bad.origin.where]
    rows = [names[row] for row in bad.rows]
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    among = f" (rows {', '.join(rows[:3])}{more})" if rows else ""
    return f"step {bad.step}: not finite: {where}{among}"


def _number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: NaN and infinity as text."""
    return value if value is None or math.isfinite(value) else str(value)

"""What is not finite in training: where it first stood, the way back, and what is done about it.

Must not know the loop; it is told when a step ended and what it found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from dialsum.errors import NonFiniteError
from dialsum.files import write_json
from dialsum.train.passes import Batch, rows_of
from dialsum.train.progress import Progress

Policy = Literal["rollback", "skip", "stop"]

MOST_TIMES = 3
"""Bad steps that a run survives; at the next one it fails."""
SNAPSHOT_STEPS = 50
"""Steps between two snapshots of what learns: what a rollback can cost."""
Loss = Callable[[Batch], torch.Tensor]
"""The training loss of one pass, with its graph."""


@dataclass(frozen=True)
class Origin:
    """Where the first value that is not finite stands.

    Args:
        where: weights, forward, loss, gradients; or nowhere, when it did not come again.
        layer: the layer or parameter.
        rows: the rows of the pass in which it arose, by their place in the split.
    """

    where: str
    layer: str | None
    rows: list[int] = field(default_factory=list)


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Say whether no tensor holds NaN or infinity; one wait for the device."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return True
    norms = torch._foreach_norm(floating, ord=float("inf"))
    return bool(torch.isfinite(torch.stack([norm.float().cpu() for norm in norms])).all())


def learning(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: item for name, item in model.named_parameters() if item.requires_grad}


def find_origin(model: torch.nn.Module, passes: Sequence[Batch], *, loss: Loss) -> Origin:
    """Run the passes of a step again, one by one, and say what first is not finite.

    Gradients of the model are lost. The caller restores the random state of the step before.
    """
    for name, parameter in learning(model).items():
        if not all_finite([parameter]):
            return Origin("weights", name, rows_of(passes) if len(passes) == 1 else [])
    for batch in passes:
        model.zero_grad(set_to_none=True)
        with _watch_forward(model) as seen:
            value = loss(batch)
        if seen:
            return Origin("forward", seen[0], rows_of([batch]))
        if not all_finite([value]):
            return Origin("loss", None, rows_of([batch]))
        value.backward()
        # Gradients arise from the last layer to the first.
        for name, parameter in reversed(list(learning(model).items())):
            if parameter.grad is not None and not all_finite([parameter.grad]):
                return Origin("gradients", name, rows_of([batch]))
    return Origin("nowhere", None)


@contextmanager
def _watch_forward(model: torch.nn.Module) -> Iterator[list[str]]:
    """Collect the names of layers whose output is not finite, in the order in which they end."""
    seen: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(_module: Any, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if not seen and isinstance(first, torch.Tensor) and not all_finite([first]):
                seen.append(name or type(model).__name__)

        return look

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Snapshot:
    """The parameters that learn and the optimizer's state, in the machine's main memory."""

    def __init__(self, model: torch.nn.Module, optimizer: Any, *, step: int) -> None:
        self.step = step
        self._weights = {name: _copy(item) for name, item in learning(model).items()}
        self._optimizer = [
            {key: _copy(value) for key, value in optimizer.state.get(parameter, {}).items()}
            for parameter in _parameters(optimizer)
        ]

    def restore(self, model: torch.nn.Module, optimizer: Any) -> None:
        """Put weights and optimizer state back as they were."""
        with torch.no_grad():
            for name, parameter in learning(model).items():
                parameter.copy_(self._weights[name])
        for parameter, saved in zip(_parameters(optimizer), self._optimizer, strict=True):
            if not saved:
                optimizer.state.pop(parameter, None)
                continue
            for key, value in saved.items():
                current = optimizer.state[parameter][key]
                if isinstance(current, torch.Tensor) and current.shape == value.shape:
                    current.copy_(value)
                else:
                    optimizer.state[parameter][key] = value


def _parameters(optimizer: Any) -> list[torch.nn.Parameter]:
    return [item for group in optimizer.param_groups for item in group["params"]]


def _copy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to("cpu", copy=True)


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

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on from here has to know, as JSON can hold it."""
        return {"events": self.events}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: these are the bad steps before it, later ones have not been."""
        self.events = list(state["events"])
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

    def report_left_out(self, bad: BadStep, rows: Sequence[int]) -> None:
        """Take note of rows that are not finite by themselves and are left out from here on."""
        names = [self.names[row] for row in rows]
        self._write(bad, "rows left out", left_out=names)
        self.progress.warn(
            f"{_describe(bad, self.names)}; not finite by itself, with good weights, so left out "
            f"from here on: {', '.join(names)}. Look at its text"
        )

    def _decide(self, bad: BadStep) -> tuple[str, str | None]:
        """Return what to do, and why the run must end if it must."""
        if self.policy == "stop":
            return "stop", "training.on_nan is stop"
        if sum(event["action"] != "rows left out" for event in self.events) >= MOST_TIMES:
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

    def _write(self, bad: BadStep, action: str, *, left_out: Sequence[str] | None = None) -> None:
        names, step_names = (
            [self.names[row] for row in rows] for rows in (bad.rows, bad.step_rows)
        )
        event = {
            "step": bad.step,
            "epoch": round(bad.epoch, 4),
            "learning_rate": bad.learning_rate,
            "loss": _number(bad.loss),
            "grad_norm": _number(bad.grad_norm),
            "found_in": bad.origin.where,
            "layer": bad.origin.layer,
            "rows": names,
            "step_rows": step_names,
            "scaler_scale": bad.scaler_scale,
            "action": action,
            "restored_step": self._snapshot.step
            if action == "rollback" and self._snapshot
            else None,
            "left_out": left_out,
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
        "weights": f"weights of {bad.origin.layer}",
        "forward": f"output of {bad.origin.layer}",
        "loss": "loss",
        "gradients": f"gradient of {bad.origin.layer}",
        "nowhere": "gradients, though not when the step was run again",
    }[bad.origin.where]
    rows = [names[row] for row in bad.rows]
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    among = f" (rows {', '.join(rows[:3])}{more})" if rows else ""
    return f"step {bad.step}: not finite: {where}{among}"


def _number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: NaN and infinity as text."""
    return value if value is None or math.isfinite(value) else str(value)

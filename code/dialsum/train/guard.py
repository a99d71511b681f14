"""What goes wrong without an error: what is not finite, where it first stood and what is done about
it; and what should learn and is never reached by a gradient.

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

from dialsum.errors import NonFiniteError, RunError
from dialsum.files import write_json
from dialsum.text import say_first
from dialsum.train.progress import Progress
from dialsum.train.task import Pass, rows_of

Policy = Literal["rollback", "skip", "stop"]

MOST_TIMES = 3
"""Bad steps that a run survives; at the next one it fails."""
SNAPSHOT_STEPS = 50
"""Steps between two snapshots of what learns: what a rollback can cost."""
GRADIENT_STEPS = 2
FACTORS = {"lora_A": "lora_B", "lora_embedding_A": "lora_embedding_B"}
"""The two factors of an adapter on a linear layer and on an embedding, as PEFT calls them."""
SHOWN, SHOWN_ROWS = 8, 3
Loss = Callable[[Pass], torch.Tensor]
"""The training loss of one pass, with its graph."""


@dataclass(frozen=True)
class Fault:
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


def find_fault(model: torch.nn.Module, passes: Sequence[Pass], *, loss: Loss) -> Fault:
    """Run the passes of a step again, one by one, and say what first is not finite.

    Gradients of the model are lost. The caller restores the random state of the step before.
    """
    for name, parameter in learning(model).items():
        if not all_finite([parameter]):
            return Fault("weights", name, rows_of(passes) if len(passes) == 1 else [])
    for batch in passes:
        model.zero_grad(set_to_none=True)
        with _watch_forward(model) as seen:
            value = loss(batch)
        if seen:
            return Fault("forward", seen[0], rows_of([batch]))
        if not all_finite([value]):
            return Fault("loss", None, rows_of([batch]))
        value.backward()
        # Gradients arise from the last layer to the first.
        for name, parameter in reversed(list(learning(model).items())):
            if parameter.grad is not None and not all_finite([parameter.grad]):
                return Fault("gradients", name, rows_of([batch]))
    return Fault("nowhere", None)


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
    fault: Fault
    step_rows: Sequence[int]
    scaler_scale: float | None = None

    @property
    def rows(self) -> Sequence[int]:
        """Rows of the pass in which it arose, of the whole step where that is not known."""
        return self.fault.rows or self.step_rows


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
        damaged = bad.fault.where == "weights"
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
            "found_in": bad.fault.where,
            "layer": bad.fault.layer,
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
        "weights": f"weights of {bad.fault.layer}",
        "forward": f"output of {bad.fault.layer}",
        "loss": "loss",
        "gradients": f"gradient of {bad.fault.layer}",
        "nowhere": "gradients, though not when the step was run again",
    }[bad.fault.where]
    rows = [names[row] for row in bad.rows]
    among = f" (rows {say_first(rows, limit=SHOWN_ROWS)})" if rows else ""
    return f"step {bad.step}: not finite: {where}{among}"


def _number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: NaN and infinity as text."""
    return value if value is None or math.isfinite(value) else str(value)


class GradientCheck:
    """Looks at the gradients of the first two steps, then at nothing more.

    An adapter in a place that the network never computes with (`shared` of T5 and BART), or behind
    recomputed blocks whose inputs need no gradient, trains to the end and learns nothing; no
    library says so. Of an adapter both factors must show a gradient other than zero in one of the
    steps. One factor starts at zero, so that the other has no gradient before the first has moved
    (at a learning rate of 0, as in the first step of a warm-up, it does not): a factor is held to
    account only for steps in which its partner is not zero. Of all other parameters that learn, a
    gradient must have been computed at all: rows of new tokens that do not occur in two steps
    rightly have zeros.

    Args:
        model: what trains, adapted or not.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._seen: set[str] = set()
        self._owed: set[str] = set()
        self._steps = 0

    @property
    def done(self) -> bool:
        """Whether both steps were seen, so that calling again would do nothing."""
        return self._steps >= GRADIENT_STEPS

    def after_backward(self) -> None:
        """Look at the gradients of one optimizer step, before they are clipped or cleared.

        Raises:
            RunError: the second step is seen and something that learns had no gradient in both.
        """
        if self.done:
            return
        self._steps += 1
        parameters = learning(self._model)
        partners = {name: partner for name in parameters if (partner := _partner_of(name))}
        alive = _find_nonzero({name: parameters[name].detach() for name in partners})
        moved = _find_nonzero({name: parameters[name].grad for name in partners})
        for name, parameter in parameters.items():
            partner = partners.get(name)
            if partner is None or partner in alive:
                self._owed.add(name)
            if parameter.grad is not None if partner is None else name in moved:
                self._seen.add(name)
        if self.done and (without := self._owed - self._seen):
            layers = sorted({_layer_of(name) for name in without})
            raise RunError(
                f"{len(layers)} of the layers that should learn got no gradient in the first "
                f"{GRADIENT_STEPS} steps and would stay as they are to the end: "
                f"{say_first(layers, limit=SHOWN)}. Take them out of qlora.target_modules; where "
                "all layers are named, set training.gradient_checkpointing: false"
            )


def _partner_of(name: str) -> str | None:
    """Return the name of an adapter's other factor; None for what is no factor."""
    for own, other in (*FACTORS.items(), *((other, own) for own, other in FACTORS.items())):
        if f".{own}." in name:
            return name.replace(f".{own}.", f".{other}.")
    return None


def _find_nonzero(tensors: dict[str, Any]) -> set[str]:
    """Return the names of tensors with a value other than zero, NaN too; waits once for the GPU."""
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if not there:
        return set()
    largest = [torch.linalg.vector_norm(tensor.float(), torch.inf) for tensor in there.values()]
    values = torch.stack(largest).tolist()
    return {name for name, value in zip(there, values, strict=True) if value != 0}


def _layer_of(name: str) -> str:
    """Return the layer of a parameter as the checkpoint calls it."""
    layer = name.removeprefix("base_model.model.")
    for mark in (".lora_", ".trainable_tokens_", ".token_adapter"):
        layer = layer.partition(mark)[0]
    return layer.removesuffix(".weight").removesuffix(".bias")

"""What a run tells while it goes on: events in metrics.jsonl, lines on screen, remarks on its
curves.

Must not know the loop: it is handed numbers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from dialsum.files import append_json_line
from dialsum.lifeline import EVALUATION, LOADING, beat
from dialsum.machine.devices import GpuState
from dialsum.score.show import describe_measured

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
COUNT_EVERY_SECONDS = 30.0
"""Between two words on how many summaries are written."""


Remark = dict[str, Any]
"""What the curves show: kind (loss_spike, gradient_spike, over_fitting, plateau, convergence),
step, message, and the numbers behind it."""


@dataclass
class Watch:
    """Follows one run and remarks on it; its fields are what a resumed run goes on from.

    Args:
        losses, norms: of the last WINDOW steps.
        first: losses of the first LEAST_STEPS steps.
        last_told: step at which each kind of spike was told.
        evaluations: step, dev loss and training loss of each.
        flat: evaluations since the last better score.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last_told: dict[str, int] = field(default_factory=dict)
    checked: bool = False
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    flat: int = 0
    over_fitting: bool = False

    def step(self, step: int, *, loss: float, grad_norm: float) -> list[Remark]:
        """Take in a finished optimizer step; both numbers finite."""
        remarks = []
        for kind, value, past, limit, name in (
            ("loss_spike", loss, self.losses, LOSS_SPIKE, "loss"),
            ("gradient_spike", grad_norm, self.norms, GRADIENT_SPIKE, "gradient norm"),
        ):
            usual = median(past) if len(past) >= LEAST_STEPS else None
            if usual is not None and value > limit * usual and self._may_tell(kind, step):
                text = (
                    f"step {step}: {name} {value:.3g} is {value / usual:.1f} times "
                    f"the median of the last {len(past)} steps ({usual:.3g})"
                )
                remarks.append(_remark(kind, step, text, value=value, median=usual))
            past.append(value)
            del past[:-WINDOW]
        if len(self.first) < LEAST_STEPS:
            self.first.append(loss)
        if step >= CHECK_STEP and not self.checked and len(self.losses) >= LEAST_STEPS:
            self.checked = True
            remarks.append(self._check_convergence(step))
        return remarks

    def _may_tell(self, kind: str, step: int) -> bool:
        last = self.last_told.get(kind)
        if last is not None and step - last < QUIET_STEPS:
            return False
        self.last_told[kind] = step
        return True

    def _check_convergence(self, step: int) -> Remark:
        first, now = median(self.first), median(self.losses[-LEAST_STEPS:])
        if now < 0.97 * first:
            verdict = "converging"
        elif now > 1.03 * first:
            verdict = "diverging: the learning rate may be too high"
        else:
            verdict = "not converging: the learning rate may be too low, or nothing can learn"
        text = (
            f"step {step}: {verdict} (median training loss {first:.3g} in the "
            f"first {len(self.first)} steps seen, {now:.3g} in the last {LEAST_STEPS})"
        )
        short = verdict.partition(":")[0]
        return _remark("convergence", step, text, verdict=short, first=first, now=now)

    def evaluation(self, step: int, *, dev_loss: float, better: bool) -> list[Remark]:
        """Take in an evaluation on dev.

        Args:
            better: the metric that chooses the best checkpoint improved.
        """
        train_loss = median(self.losses) if self.losses else float("nan")
        self.evaluations.append((step, dev_loss, train_loss))
        remarks = []
        recent = self.evaluations[-(RISING_EVALUATIONS + 1) :]
        pairs = list(pairwise(recent))
        rising = len(pairs) == RISING_EVALUATIONS and all(
            after[1] > before[1] for before, after in pairs
        )
        if not rising:
            self.over_fitting = False
        elif recent[-1][2] < recent[0][2] and not self.over_fitting:
            self.over_fitting = True
            text = (
                f"step {step}: dev loss rose {RISING_EVALUATIONS} times in a row, "
                f"{recent[0][1]:.4g} to {dev_loss:.4g}, while training loss fell, "
                f"{recent[0][2]:.4g} to {train_loss:.4g}: the model begins to over-fit after "
                f"step {recent[0][0]}"
            )
            numbers = {"dev_loss": dev_loss, "train_loss": train_loss}
            remarks.append(_remark("over_fitting", step, text, since_step=recent[0][0], **numbers))
        self.flat = 0 if better else self.flat + 1
        if self.flat == FLAT_EVALUATIONS:
            text = f"step {step}: no better score in {FLAT_EVALUATIONS} evaluations"
            remarks.append(_remark("plateau", step, text, evaluations=FLAT_EVALUATIONS))
        return remarks


def _remark(kind: str, step: int, message: str, **numbers: Any) -> Remark:
    return {"kind": kind, "step": step, "message": message, **numbers}


class Asking:
    """Asks in a thread of its own what may hang; nobody waits for an answer.

    Attributes:
        error: what a question raised; it is the last one.
    """

    def __init__(self, ask: Callable[[], GpuState | None]) -> None:
        self.error: Exception | None = None
        self._ask = ask
        self._answer: GpuState | None = None
        self._wanted = threading.Event()
        # A daemon: one that hangs must not keep the process from its end.
        threading.Thread(target=self._work, name="card", daemon=True).start()

    def look(self) -> GpuState | None:
        """Return what was answered since the last look, if anything, and ask again."""
        answer, self._answer = self._answer, None
        self._wanted.set()
        return answer

    def _work(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            try:
                self._answer = self._ask()
            except Exception as error:
                # The edge of the driver: whoever looks next says it.
                self.error = error
                return


class Progress:
    """One run's events, in order of time.

    Args:
        metrics: metrics.jsonl of the run.
        ask_card: asks the driver how the run's card is; None: it has none.

    Attributes:
        current: the stage that began last.
        step: the optimizer step that is being run, or was run last; None before the first.
    """

    def __init__(
        self, metrics: Path, *, ask_card: Callable[[], GpuState | None] | None = None
    ) -> None:
        self._metrics = metrics
        self._asking = None if ask_card is None else Asking(ask_card)
        self.hottest_c: int | None = None
        self._watts: list[float] = []
        self._listeners: list[Callable[[], None]] = []
        self.current: str | None = None
        self.step: int | None = None
        self.nan_events = 0
        self.remarks: list[dict[str, Any]] = []
        self.max_grad_norm = 0.0
        self._started = self._since = time.monotonic()
        self._spent: dict[str | None, float] = {}
        self._earlier: dict[str, float] = {}
        self._last_step = (0, self._started)
        self._counted = self._started

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on from here has to know, as JSON can hold it."""
        return {
            "nan_events": self.nan_events,
            "remarks": self.remarks,
            "max_grad_norm": self.max_grad_norm,
            "time": self.divide_time(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what state_dict returned."""
        self.nan_events, self.remarks = state["nan_events"], state["remarks"]
        self.max_grad_norm = state["max_grad_norm"]
        self._earlier = state["time"]

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Have something called after each line of loss and each evaluation."""
        self._listeners.append(listener)

    def _call_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def event(self, kind: str, **values: Any) -> None:
        """Append one event to metrics.jsonl; None values are left out."""
        moment = datetime.now().astimezone().isoformat(timespec="milliseconds")
        append_json_line(self._metrics, {"time": moment, "event": kind, **values})

    def stage(self, name: str, text: str, **details: Any) -> None:
        """Say that a new part of the run begins; details go into the event alone."""
        self._spend()
        self.current, self._counted = name, self._since
        beat(EVALUATION if name in ("generate", "score") else LOADING)
        self.event("stage", stage=name, text=text, **details)
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed:6.1f} s] {name}: {text}", flush=True)

    def count_written(self, done: int, rows: int) -> None:
        """Say and record how many summaries are written, if the last word is a while ago."""
        now = time.monotonic()
        if now - self._counted < COUNT_EVERY_SECONDS:
            return
        self._counted = now
        self.event("written", done=done, rows=rows)
        print(f"  {done:,} of {rows:,} summaries written", flush=True)

    def _spend(self) -> None:
        """Count the time since the last stage began to that stage."""
        now = time.monotonic()
        self._spent[self.current] = self._spent.get(self.current, 0.0) + now - self._since
        self._since = now

    @property
    def earlier_seconds(self) -> float:
        """What the run had taken up to the checkpoint from which it went on; 0 without one."""
        return sum(self._earlier.values())

    def divide_time(self) -> dict[str, float]:
        """Return the seconds by what they went into: start (libraries that load, data, model, token
        ids), training with its checkpoints, its evaluations, writing summaries, and the rest; of a
        run that went on from a checkpoint, those up to that checkpoint too."""
        self._spend()
        spent = dict(self._spent)
        evaluation = spent.pop("evaluation", 0.0)
        parts = {
            "start": sum(spent.pop(name, 0.0) for name in (None, "data", "model", "encode")),
            "training": max(0.0, spent.pop("train", 0.0) - evaluation),
            "evaluation": evaluation,
            "writing": spent.pop("generate", 0.0),
        }
        parts["rest"] = sum(spent.values())
        return {
            name: round(seconds + self._earlier.get(name, 0.0), 2)
            for name, seconds in parts.items()
        }

    def warn(self, message: str) -> None:
        """Say and record something that the user should look at."""
        self.event("warning", message=message)
        print(f"warning: {message}", flush=True)

    def remark(self, remark: Remark) -> None:
        """Say and record something that the curves show."""
        self.remarks.append(remark)
        self.event(**remark)
        print(f"note: {remark['message']}", flush=True)

    def train_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        """Record a line of loss, and how the card is."""
        loss, norm = logs.get("loss"), logs.get("grad_norm")
        self.event(
            "train",
            step=step,
            total_steps=total,
            epoch=logs.get("epoch"),
            loss=loss,
            grad_norm=norm,
            learning_rate=logs.get("learning_rate"),
            **self._read_card(),
        )
        if loss is not None:
            print(
                f"step {step}/{total}  epoch {logs.get('epoch', 0):.2f}  loss {loss:.4f}  "
                f"grad norm {norm or 0:.2f}  learning rate {logs.get('learning_rate', 0):.2e}"
                f"{self._pace(step)}",
                flush=True,
            )
        self._call_listeners()

    def _read_card(self) -> dict[str, float | None]:
        """Return how the card was when it answered last, and have it asked again: nobody waits for
        a driver."""
        if self._asking is None:
            return {}
        card, error = self._asking.look(), self._asking.error
        if error is not None:
            self.warn(f"the card's temperature is not known any more: {error}")
            self._asking = None
        if card is None:
            return {}
        heat, watts = card.temperature_c, card.power_w
        self.hottest_c = max(filter(None, (self.hottest_c, heat)), default=None)
        self._watts += [] if watts is None else [watts]
        known = {
            "gpu_temperature_c": heat,
            "gpu_power_w": watts,
            "gpu_utilisation_percent": card.utilisation_percent,
        }
        return {name: one for name, one in known.items() if one is not None}

    def describe_card(self) -> dict[str, float | None] | None:
        """Return the highest temperature and the mean power over the logged steps of this process;
        None where no card told."""
        if self.hottest_c is None and not self._watts:
            return None
        watts = math.fsum(self._watts) / len(self._watts) if self._watts else None
        return {"hottest_c": self.hottest_c, "mean_power_w": watts and round(watts, 1)}

    def _pace(self, step: int) -> str:
        """Say the seconds per step since the line before, evaluations left out."""
        now = time.monotonic()
        before, moment = self._last_step
        self._last_step = (step, now)
        if not before or step <= before:
            return ""
        return f"  {(now - moment) / (step - before):.2f} s/step"

    def evaluation(
        self,
        step: int,
        total: int,
        *,
        epoch: float,
        values: Mapping[str, float],
        best: bool,
        seconds: float,
        rows: int,
        num_beams: int,
    ) -> None:
        """Record an evaluation on dev.

        Args:
            values: eval_loss and the ROUGE scores, 0-100.
            rows, num_beams: on what: these are fewer than the reported score's.
        """
        before, moment = self._last_step
        self._last_step = (before, moment + seconds)
        self._spent["evaluation"] = self._spent.get("evaluation", 0.0) + seconds
        self.event(
            "eval",
            step=step,
            total_steps=total,
            epoch=epoch,
            best=best,
            seconds=round(seconds, 2),
            rows=rows,
            num_beams=num_beams,
            **values,
        )
        measured = describe_measured(rows=rows, num_beams=num_beams)
        print(
            f"step {step}/{total}  dev ({measured}): R1 {values['rouge1']:.2f}  "
            f"R2 {values['rouge2']:.2f}  RL {values['rougeL']:.2f}  loss {values['eval_loss']:.4f}"
            f"{'  (best so far)' if best else ''}",
            flush=True,
        )
        self._call_listeners()

"""What a run tells while it goes on: events in metrics.jsonl, lines on screen, TensorBoard.

Must not know the loop: it is handed numbers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.files import append_json_line
from dialsum.score.show import describe_measured
from dialsum.train.watch import Remark


class Progress:
    """One run's events, in order of time.

    Args:
        metrics: metrics.jsonl of the run.
        tensorboard: folder for TensorBoard events; None: none are written.

    Attributes:
        current: the stage that began last.
        step: the optimizer step that is being run, or was run last; None before the first.
    """

    def __init__(self, metrics: Path, *, tensorboard: Path | None) -> None:
        self._metrics = metrics
        self._tensorboard_folder = tensorboard
        self._writer: Any = None
        self._listeners: list[Any] = []
        self.current: str | None = None
        self.step: int | None = None
        self.nan_events = 0
        self.remarks: list[dict[str, Any]] = []
        self.max_grad_norm = 0.0
        self._started = time.monotonic()
        self._last_step = (0, self._started)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on from here has to know, as JSON can hold it."""
        return {
            "nan_events": self.nan_events,
            "remarks": self.remarks,
            "max_grad_norm": self.max_grad_norm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what state_dict returned."""
        self.nan_events, self.remarks = state["nan_events"], state["remarks"]
        self.max_grad_norm = state["max_grad_norm"]

    def add_listener(self, listener: Any) -> None:
        """Also hand every numeric event to listener(kind, step, values) (Weights & Biases)."""
        self._listeners.append(listener)

    def event(self, kind: str, **values: Any) -> None:
        """Append one event to metrics.jsonl; None values are left out."""
        moment = datetime.now().astimezone().isoformat(timespec="milliseconds")
        append_json_line(self._metrics, {"time": moment, "event": kind, **values})

    def stage(self, name: str, text: str, **details: Any) -> None:
        """Say that a new part of the run begins; details go into the event alone."""
        self.current = name
        self.event("stage", stage=name, text=text, **details)
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed:6.1f} s] {name}: {text}", flush=True)

    def warn(self, message: str) -> None:
        """Say and record something that the user should look at."""
        self.event("warning", message=message)
        print(f"warning: {message}", flush=True)

    def remark(self, remark: Remark) -> None:
        """Say and record something that the curves show."""
        self.remarks.append(
            {"kind": remark.kind, "step": remark.step, "message": remark.text, **remark.values}
        )
        self.event(remark.kind, step=remark.step, message=remark.text, **remark.values)
        print(f"note: {remark.text}", flush=True)

    def train_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        """Record a line of loss."""
        loss, norm = logs.get("loss"), logs.get("grad_norm")
        self.event(
            "train",
            step=step,
            total_steps=total,
            epoch=logs.get("epoch"),
            loss=loss,
            grad_norm=norm,
            learning_rate=logs.get("learning_rate"),
        )
        if loss is not None:
            print(
                f"step {step}/{total}  epoch {logs.get('epoch', 0):.2f}  loss {loss:.4f}  "
                f"grad norm {norm or 0:.2f}  learning rate {logs.get('learning_rate', 0):.2e}"
                f"{self._pace(step)}",
                flush=True,
            )
        numbers = {"loss": loss, "grad_norm": norm, "learning_rate": logs.get("learning_rate")}
        known = {key: value for key, value in numbers.items() if value is not None}
        self._report("train", step, known)

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
        self._report("dev", step, values)

    def _report(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if self._tensorboard_folder is not None:
            try:
                self._write_curves(self._tensorboard_folder, kind, step, values)
            except OSError as error:
                self._tensorboard_folder = None
                self.warn(f"TensorBoard's curves end here: {error.strerror or error}")
        for listener in self._listeners:
            listener(kind, step, values)

    def _write_curves(
        self, folder: Path, kind: str, step: int, values: Mapping[str, float]
    ) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a run had written after the checkpoint from which it goes on comes again.
            self._writer = SummaryWriter(str(folder), purge_step=step)
        for key, value in values.items():
            self._writer.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

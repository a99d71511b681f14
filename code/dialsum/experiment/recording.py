"""The record of one run as it grows, and the text of whatever ended it.

Must not know how a run goes on; run.py fills it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.errors import (
    DialsumError,
    FullMemoryError,
    NonFiniteError,
    explain_os_error,
    first_line,
)
from dialsum.experiment.job import FIRST, FULL, NAN, Attempt
from dialsum.files import write_json, write_report
from dialsum.machine.memory import is_out_of_memory
from dialsum.paths import RunPaths, relative, shown
from dialsum.record import SCHEMA_VERSION, best_metrics_text
from dialsum.train.progress import Progress


@dataclass
class Recording:
    """What is known of a run so far; a failed run records what it had reached."""

    paths: RunPaths
    started: datetime
    head: dict[str, Any]
    attempt: Attempt = FIRST
    parts: dict[str, Any] = field(default_factory=dict)

    def add(self, section: str, **values: Any) -> None:
        """Put values into a section of the record."""
        self.parts.setdefault(section, {}).update(values)

    def add_failure(self, error: BaseException, progress: Progress) -> None:
        """Record how far a failed run had come, and why in a word where a retry may mend
        it."""
        cause = name_cause(error)
        if cause is not None:
            known = {"cause": cause, "stage": progress.current, "step": progress.step}
            values = {key: value for key, value in known.items() if value is not None}
            self.parts["failure"] = values
        if progress.step is not None and "steps" not in self.parts.get("training", {}):
            self.add(
                "training",
                steps=max(progress.step - 1, 0),
                nan_events=progress.nan_events,
                max_grad_norm=progress.max_grad_norm,
            )

    def finish(self, status: str, *, reason: str | None = None) -> dict[str, Any]:
        """Write results/summary.txt, then result.json last of all, and return the record."""
        finished = datetime.now().astimezone()
        record = {
            "schema_version": SCHEMA_VERSION,
            **self.head,
            "status": status,
            "reason": reason,
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": finished.isoformat(timespec="seconds"),
            "duration_seconds": round((finished - self.started).total_seconds(), 2),
            **self.parts,
            "artifacts": self._artifacts(),
        }
        record = self.attempt.add_to(record)
        try:
            write_report(self.paths.summary, best_metrics_text(record))
            record["artifacts"]["summary"] = relative(self.paths.summary, self.paths.folder)
        finally:
            # A night's training must not be lost over a text.
            write_json(self.paths.result, record)
        return record

    def _artifacts(self) -> dict[str, str]:
        files = {
            "model": self.paths.model,
            "predictions_dev": self.paths.predictions_dev,
            "submission": self.paths.submission,
            "metrics": self.paths.metrics,
            "log": self.paths.train_log,
            "resolved_config": self.paths.resolved_config,
            "environment": self.paths.environment,
            "checkpoints": self.paths.checkpoints,
            "nan_report": self.paths.nan_report,
        }
        return {
            name: relative(path, self.paths.folder) for name, path in files.items() if path.exists()
        }


def name_cause(error: BaseException) -> str | None:
    """Return NAN or FULL; None for everything that other values would not mend."""
    if isinstance(error, NonFiniteError):
        return NAN
    if isinstance(error, FullMemoryError) or is_out_of_memory(error):
        return FULL
    return None


def explain_failure(error: BaseException, *, folder: Path) -> str:
    """Say in words what ended a run; an unforeseen error by its type.

    Args:
        folder: the run's own, named where the error names no file.
    """
    text = explain_foreseen(error, folder=folder)
    if text is not None:
        return text
    text = first_line(error)
    return text if text == type(error).__name__ else f"{type(error).__name__}: {text}"


def explain_foreseen(error: BaseException, *, folder: Path) -> str | None:
    """Say in words an error that a user can mend; None for others, whose trace is needed."""
    if isinstance(error, DialsumError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error)
    text = first_line(error)
    if is_out_of_memory(error):
        return (
            f"the GPU's memory was full ({text}). Halve training.per_device_train_batch_size and "
            "double training.gradient_accumulation_steps, or set "
            "training.gradient_checkpointing: true"
        )
    if "enforce fail at inline_container" in text or "No space left on device" in text:
        return (
            f"{shown(folder)}: the disk was full while weights were written ({text}). Free space, "
            "or write elsewhere with --output-dir, and start again."
        )
    return None

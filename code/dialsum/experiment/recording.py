"""The record of one run: its surroundings, what is known as it grows, and the text of its end.

Signals that ask to stop (Ctrl-C, SIGTERM, the end of the terminal) end a run, never its record.
Must not know how a run goes on; run.py fills it.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from dialsum.environment_variables import record_variables
from dialsum.errors import (
    DialsumError,
    DiskFullError,
    FullMemoryError,
    NonFiniteError,
    explain_os_error,
    first_line,
)
from dialsum.experiment.attempt import DEVICE, DISK, FIRST, FULL, NAN, Attempt
from dialsum.files import write_json, write_report
from dialsum.machine.memory import is_device_failure, is_out_of_memory
from dialsum.packages import PACKAGES
from dialsum.paths import PROJECT_ROOT, RunPaths, relative, shown
from dialsum.record import SCHEMA_VERSION, best_metrics_text, find_artifacts
from dialsum.text import PASSING_LINE, PrintableStream
from dialsum.train.progress import Progress


def describe_environment(
    *, started: datetime, paths: RunPaths, seed: int, devices: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the record of this machine and these libraries.

    Args:
        started: when the run began; names its folder once a newer run replaces it.
        paths: the run's; what will stand as its model is known as its own from its first moment.
        devices: as dialsum.machine.devices lists them.
    """
    versions = {}
    for package, module in PACKAGES.items():
        with suppress(metadata.PackageNotFoundError):
            # What was imported says so itself; what comes later is what stands here
            # (find_shadowed_packages).
            imported = getattr(sys.modules.get(module), "__version__", None)
            versions[package] = str(imported or metadata.version(package))
    return {
        "schema_version": SCHEMA_VERSION,
        "started_at": started.isoformat(timespec="seconds"),
        "seed": seed,
        "model": relative(paths.model, paths.folder),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "devices": devices,
        "commit": _commit(),
        "argv": sys.argv,
        "variables": record_variables(os.environ),
    }


def _commit() -> str | None:
    """Return the project's commit, with `+changes` where files differ from it; None outside git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(PROJECT_ROOT), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes else commit


AGAIN_SECONDS = 1.0
"""Signals closer than this are one wish: the second must not hit what the first has set off."""


class StopSignals:
    """Raises KeyboardInterrupt for a signal, or keeps it while nothing may be cut off.

    It keeps signals from the beginning, until `let_go`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._holding, self._insisting = True, False
        self._pending = False
        self._kept_at = 0.0
        self._raised_at = float("-inf")

    def receive(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal in: keep it, or raise it."""
        if os.getpid() != self._process:
            raise KeyboardInterrupt  # a child that was forked has no record of its own
        now = time.monotonic()
        if self._holding:
            again = self._pending and now - self._kept_at >= AGAIN_SECONDS
            if again and self._insisting:
                self._raise()
            if not self._pending:
                self._pending, self._kept_at = True, now
        elif now - self._raised_at >= AGAIN_SECONDS:
            self._raise()

    def hold(self) -> None:
        """Keep signals from now on: what follows must come to its end."""
        self._holding = True

    def let_go(self) -> None:
        """Raise KeyboardInterrupt for signals from now on, and for one that was kept."""
        self._holding = False
        if self._pending:
            self._raise()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Keep a signal until the block has ended; a second one, a second later, cuts it off."""
        self._holding = self._insisting = True
        try:
            yield
        finally:
            self._holding = self._insisting = False
        if self._pending:
            self._raise()

    def _raise(self) -> None:
        self._pending = False
        self._raised_at = time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def listen_for_stop_signals() -> Iterator[StopSignals]:
    """Take in the signals that ask this process to stop; put the old handlers back at the end.

    A signal that the starter had ignored (nohup, a background job) stays ignored. Outside of the
    main thread, which alone gets signals, nothing is changed.
    """
    signals = StopSignals()
    old = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, signals.receive)
    try:
        yield signals
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Copy:
    """A text stream that writes to another stream and to a file, which gets no progress bars."""

    def __init__(self, stream: TextIO, file: PrintableStream) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        # The disk of the log may be full, and threads of libraries outlive it.
        with suppress(OSError, ValueError):
            if not PASSING_LINE.match(text):
                self._file.write(text)
        return written

    def flush(self) -> None:
        self._stream.flush()
        with suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def copy_output(path: Path) -> Iterator[None]:
    """Copy stdout and stderr of this process into path until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8", buffering=1) as file:
        log = PrintableStream(file)
        sys.stdout, sys.stderr = _Copy(before[0], log), _Copy(before[1], log)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


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
        """Record how far a failed run had come, and why in a word where something is to follow
        from it."""
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

    def finish(
        self, status: str, *, reason: str | None = None, earlier_seconds: float = 0.0
    ) -> dict[str, Any]:
        """Write results/summary.txt, then result.json last of all, and return the record.

        Args:
            earlier_seconds: that the run had taken up to the checkpoint from which it went on.
        """
        finished = datetime.now().astimezone()
        record = {
            "schema_version": SCHEMA_VERSION,
            **self.head,
            "status": status,
            "reason": reason,
            "started_at": self.started.isoformat(timespec="seconds"),
            "finished_at": finished.isoformat(timespec="seconds"),
            "duration_seconds": round(
                (finished - self.started).total_seconds() + earlier_seconds, 2
            ),
            **self.parts,
            "artifacts": find_artifacts(self.paths),
        }
        record = self.attempt.add_to(record)
        try:
            write_report(self.paths.summary, best_metrics_text(record))
            record["artifacts"]["summary"] = relative(self.paths.summary, self.paths.folder)
        finally:
            # A night's training must not be lost over a text.
            write_json(self.paths.result, record)
        return record


def name_cause(error: BaseException) -> str | None:
    """Return NAN or FULL, which other values may mend, DISK or DEVICE, which the next experiment
    would meet too; None for the rest."""
    if isinstance(error, NonFiniteError):
        return NAN
    if isinstance(error, FullMemoryError) or is_out_of_memory(error):
        return FULL
    if isinstance(error, DiskFullError) or _tells_of_full_disk(error):
        return DISK
    return DEVICE if is_device_failure(error) else None


def _tells_of_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = first_line(error)
    return "enforce fail at inline_container" in text or "No space left on device" in text


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
    if _tells_of_full_disk(error):
        return (
            f"{shown(folder)}: the disk was full while weights were written ({text}). Free space, "
            "or write elsewhere with --output-dir, and start again."
        )
    return None

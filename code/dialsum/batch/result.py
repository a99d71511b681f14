"""What came of a batch: one result per experiment, what could not be written, and the exit status.

Must not know processes or screens.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dialsum.batch.child import ChildEnd
from dialsum.batch.plan import BatchPlan
from dialsum.batch.space import ROOM_FOR_WORDS_BYTES
from dialsum.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, DialsumError, DiskFullError
from dialsum.experiment.job import Job
from dialsum.paths import shown
from dialsum.record import Record

DISK_FULL = "no space left on the disk"


def describe_unwritten(error: DialsumError) -> str:
    """Say why something was not written; a full disk in the same words whatever the file."""
    return DISK_FULL if isinstance(error, DiskFullError) else str(error)


def group_unwritten(causes: Mapping[Path, str]) -> dict[str, str]:
    """Return one sentence for each cause, with all that it kept from being written."""
    return {
        cause: f"{cause}; not written: "
        + ", ".join(
            shown(path) + (" (an older one stands there)" if path.exists() else "")
            for path in causes
            if causes[path] == cause
        )
        for cause in dict.fromkeys(causes.values())
    }


LOG_TAIL_BYTES = 16_384
REASON_LINES = 4


@dataclass(frozen=True)
class ExperimentResult:
    """What came of one experiment.

    Attributes:
        job: its last attempt's.
        record: that attempt's record; log: what its process printed.
        unwritten: why the record stands nowhere on the disk; None where it does.
    """

    job: Job
    record: Record
    log: Path
    unwritten: str | None = None


@dataclass
class BatchResult:
    """What came of a batch so far.

    Attributes:
        by_number: of the experiments that have ended, by their number in the batch.
        finished_at: None while it runs.
        interrupted: whether somebody stopped it before its end.
        problems: what went wrong around the experiments, for the closing lines.
        unwritten: the batch's own files that could not be written, and why.
        warned: the causes that were said.
    """

    plan: BatchPlan
    by_number: dict[int, ExperimentResult] = field(default_factory=dict)
    finished_at: datetime | None = None
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)
    unwritten: dict[Path, str] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    @property
    def experiments(self) -> list[ExperimentResult]:
        """What came of those that have ended, in the order of the batch."""
        return [self.by_number[number] for number in sorted(self.by_number)]

    @property
    def records(self) -> list[Record]:
        """The records of the experiments that have ended, in the order of the batch."""
        return [one.record for one in self.experiments]

    @property
    def not_started(self) -> list[Job]:
        """The experiments that have not ended; once the batch has, those that never started."""
        return [job for job in self.plan.jobs if job.number not in self.by_number]

    @property
    def all_unwritten(self) -> dict[Path, str]:
        """Files of the batch and records of its runs that could not be written, and why."""
        records = {one.record.path: one.unwritten for one in self.experiments if one.unwritten}
        return self.unwritten | records

    @property
    def all_succeeded(self) -> bool:
        """Whether every experiment of the plan ran and succeeded."""
        return not self.not_started and all(record.succeeded for record in self.records)

    @property
    def status(self) -> str:
        """running, interrupted, success or failed."""
        if self.finished_at is None:
            return "running"
        if self.interrupted:
            return "interrupted"
        return "success" if self.exit_status == EXIT_OK else "failed"

    @property
    def exit_status(self) -> int:
        """0: all succeeded and are recorded; 130: stopped; 1: anything else."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_OK if self.all_succeeded and not self.all_unwritten else EXIT_FAILED


def explain_end(end: ChildEnd | str | None, log: Path | None) -> tuple[str, str]:
    """Say why a run ended that left no record of its own.

    Args:
        end: of its process; or what kept it from running, in words.
        log: what it printed, whose last words are quoted; None: they are not.

    Returns:
        Its status (failed or interrupted) and the reason.
    """
    if not isinstance(end, ChildEnd):
        return "failed", str(end)
    if end.hung:
        return "failed", f"hung: {end.hung}; where it stood is at the end of its log"
    if end.interrupted:
        how = (
            "it did not stop when asked and was killed"
            if end.killed
            else "it stopped before it could record anything"
        )
        return "interrupted", f"the batch was stopped; {how}"
    if end.signal_name == "SIGKILL":
        how = "was killed (SIGKILL): most often the machine had no memory left, see dmesg"
    elif end.signal_name:
        how = f"crashed ({end.signal_name})"
    else:
        how = f"ended with status {end.exit_status} "
        how += "and left no record" if end.exit_status else "but left no record"
    if log is None:
        tail = ""
    elif said := _last_words(log):
        tail = f"; its log ends: {said}"
    elif shutil.disk_usage(log.parent).free < ROOM_FOR_WORDS_BYTES:
        tail = f"; its log is empty: {DISK_FULL} of {shown(log.parent)}"
    else:
        tail = "; it printed nothing"
    return "failed", f"its process {how}{tail}"


def _last_words(log: Path) -> str:
    """Return the last error that a log tells of, on one line; else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"(the log cannot be read: {error.strerror or error})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    starts = [place for place, line in enumerate(lines) if line.startswith("error:")]
    return " ".join(lines[starts[-1] :][:REASON_LINES] if starts else lines[-1:])

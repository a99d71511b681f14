"""What came of a batch: one outcome per experiment, and the exit status that follows.

Must not know processes or screens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dialsum.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from dialsum.record import Record
from dialsum.run.executor import ChildEnd
from dialsum.run.plan import BatchPlan, PlannedExperiment

LOG_TAIL_BYTES = 16_384
REASON_LINES = 4


@dataclass(frozen=True)
class Outcome:
    """What came of one experiment.

    Attributes:
        record: its run's record.
        unwritten: why the record stands nowhere on the disk; None where it does.
    """

    experiment: PlannedExperiment
    record: Record
    unwritten: str | None = None


@dataclass
class BatchOutcome:
    """What came of a batch so far.

    Attributes:
        outcomes: of the experiments that were started, in order.
        finished_at: None while it runs.
        interrupted: whether somebody stopped it before its end.
        problems: what went wrong around the experiments, for the closing lines.
        unwritten: why the batch's own files could not be written.
    """

    plan: BatchPlan
    outcomes: list[Outcome] = field(default_factory=list)
    finished_at: datetime | None = None
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        """The records of the experiments that were started, in order."""
        return [outcome.record for outcome in self.outcomes]

    @property
    def not_started(self) -> list[PlannedExperiment]:
        """The experiments that never started."""
        return list(self.plan.experiments[len(self.outcomes) :])

    @property
    def all_succeeded(self) -> bool:
        """Whether every experiment of the plan ran and succeeded."""
        return not self.not_started and all(record.succeeded for record in self.records)

    @property
    def exit_status(self) -> int:
        """0: all succeeded and are recorded; 130: stopped; 1: anything else."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        recorded = not self.unwritten and all(
            outcome.unwritten is None for outcome in self.outcomes
        )
        return EXIT_OK if self.all_succeeded and recorded else EXIT_FAILED


def explain_end(end: ChildEnd, log: Path) -> tuple[str, str]:
    """Say why a run ended that left no record of its own.

    Returns:
        Its status (failed or interrupted) and the reason.
    """
    if end.interrupted:
        how = (
            "it did not stop when asked and was killed"
            if end.killed
            else "it stopped before it could record anything"
        )
        return "interrupted", f"the batch was stopped; {how}"
    said = _last_words(log)
    tail = f"; its log ends: {said}" if said else "; it printed nothing"
    if end.signal_name == "SIGKILL":
        return (
            "failed",
            "its process was killed (SIGKILL): most often the machine had no memory left, see "
            f"dmesg{tail}",
        )
    if end.signal_name:
        return "failed", f"its process crashed ({end.signal_name}){tail}"
    if end.exit_status == 0:
        return "failed", f"its process ended with status 0 but left no record{tail}"
    return "failed", f"its process ended with status {end.exit_status} and left no record{tail}"


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

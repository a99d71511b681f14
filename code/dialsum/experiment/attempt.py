"""Which of several attempts a run is, and what batch.retry changes after a failed one.

Must not know how a run goes, nor import what trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from dialsum.config.rules import (
    ACCUMULATION,
    ALPHA,
    BATCH,
    LEARNING_RATE,
    RANK,
    RETRY,
    count_halvings,
)
from dialsum.config.schema import Config
from dialsum.config.sources import Source, Statement
from dialsum.config.yaml import Origin
from dialsum.paths import RunPaths, relative

NAN, FULL, KILLED, LOST, HUNG = "non_finite", "out_of_memory", "killed", "died", "hung"
CRASHED, DISK, DEVICE, UNFIT = "crashed", "disk_full", "device", "unfit"
"""What `failure.cause` of a record may say."""
OF_ALL = (DISK, DEVICE, HUNG)
"""Causes that the next experiment would most likely meet too."""
CAUSE_WORDS = {NAN: "NaN", FULL: "full memory", KILLED: "being killed (SIGKILL)"}
"""Why an attempt failed, by `failure.cause` of its record, where other values may mend it."""
CUT_OFF = (KILLED, LOST, HUNG, DISK)
"""Causes that say nothing of the experiment: it goes on from its checkpoint."""
SUFFIXES = {1: "st", 2: "nd", 3: "rd"}


class NoHalfError(Exception):
    """A value that cannot be halved; the text says why."""


@dataclass(frozen=True)
class Change:
    """One value that a retry replaces.

    Args:
        by: what of batch.retry asks for it.
        key: dotted key.
        before, after: the value in the attempt before, and in this one.
    """

    by: str
    key: str
    before: Any
    after: Any

    def describe(self) -> str:
        """Return `learning_rate 1.2e-4 -> 6e-5`."""
        name = self.key.rpartition(".")[2]
        return f"{name} {show_number(self.before)} -> {show_number(self.after)}"

    def describe_whole(self) -> str:
        """Return the change with its dotted key and what asked for it."""
        section = self.key.rpartition(".")[0]
        return f"{section}.{self.describe()} ({RETRY} {self.by})"

    def to_record(self) -> dict[str, Any]:
        """Return the change as it stands in records."""
        return {"by": self.by, "key": self.key, "from": self.before, "to": self.after}

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> Change:
        """Read a change as to_record writes it."""
        return cls(content["by"], content["key"], content["from"], content["to"])


def show_number(value: Any) -> str:
    """Return a number in short, exactly: small ones as `1.2e-4`."""
    if not isinstance(value, float):
        return str(value)
    exact = Decimal(repr(value)).normalize()
    return f"{exact:e}" if 0 < abs(value) < 1e-3 else f"{exact:f}"


def list_changes(
    by: str, config: Config, *, batch: int | None = None, accumulation: int | None = None
) -> list[Change]:
    """Return what an entry of batch.retry changes of a config.

    Args:
        batch, accumulation: what the failed run used where the config says `auto`.

    Raises:
        NoHalfError: a value cannot be halved, or is not known.
    """
    training, lora = config.training, config.qlora
    if by == "lr_half":
        rate = training.learning_rate
        return [Change(by, LEARNING_RATE, rate, rate / 2)]
    if by == "rank_half":
        ranks = ((RANK, lora.lora_rank), (ALPHA, lora.lora_alpha))
        return [Change(by, key, value, _halve(key, value)) for key, value in ranks]
    rows, passes = training.per_device_train_batch_size, training.gradient_accumulation_steps
    used_rows = batch if rows == "auto" else rows
    used_passes = accumulation if passes == "auto" else passes
    if used_rows is None or used_passes is None:
        raise NoHalfError("the batch size was auto, and the failed run left no word of what it was")
    return [
        Change(by, BATCH, used_rows, _halve(BATCH, used_rows)),
        Change(by, ACCUMULATION, used_passes, used_passes * 2),
    ]


def _halve(key: str, value: int) -> int:
    if not count_halvings(value):
        raise NoHalfError(f"{key} {value} has no half")
    return value // 2


def state_changes(changes: Sequence[Change], *, left: Sequence[str]) -> Source:
    """Return changes as a source of the configuration that is laid over every other.

    Args:
        left: what of batch.retry is still to come.
    """
    values = [(one.key, one.after, f"{RETRY} {one.by}") for one in changes]
    values.append((RETRY, list(left), f"{RETRY}, what is left of it"))
    statements = [
        Statement(key, "", value, Origin(None, None, why), key) for key, value, why in values
    ]
    notes = [f"retry: {change.describe_whole()}" for change in changes]
    return Source(statements=statements, notes=notes)


@dataclass(frozen=True)
class Attempt:
    """Which attempt a run is.

    Args:
        number: from 1.
        changes: what it changes of the attempt before.
        earlier: the attempts before it, as describe_attempt makes them.
    """

    number: int = 1
    changes: tuple[Change, ...] = ()
    earlier: tuple[dict[str, Any], ...] = ()

    def follow(self, changes: Sequence[Change], content: Mapping[str, Any]) -> Attempt:
        """Return the next attempt, after this one ended with a record of that content."""
        own = describe_attempt(self, content)
        return Attempt(self.number + 1, tuple(changes), (*self.earlier, own))

    def point_back(self, kept: Path, *, log: Path, folder: Path) -> Attempt:
        """Return it with the places of what the attempt before it left.

        Args:
            kept: the folder to which that one's run was moved.
            log: what its process printed.
            folder: of this run; the places are relative to it.
        """
        old = RunPaths.alone(kept)
        files = {
            "record": old.result,
            "nan_report": old.nan_report,
            "log": old.train_log,
            "batch_log": log,
        }
        places = {name: relative(path, folder) for name, path in files.items() if path.exists()}
        *others, last = self.earlier
        return replace(self, earlier=(*others, {**last, "artifacts": places}))

    def remarks(self) -> list[str]:
        """Return what was changed, for the head of resolved_config.yaml."""
        if self.number == 1:
            return []
        changes = [*changes_of({"attempts": self.earlier}), *self.changes]
        head = f"Attempt {self.number} in its batch; changed from the experiment's own values:"
        return [head, *(f"  {change.describe_whole()}" for change in changes)]

    def to_record(self) -> dict[str, Any]:
        """Return it as it stands in a job."""
        changes = [one.to_record() for one in self.changes]
        return {"number": self.number, "changes": changes, "earlier": list(self.earlier)}

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> Attempt:
        """Read what to_record wrote; KeyError or TypeError where it is something else."""
        changes = tuple(Change.from_record(one) for one in content["changes"])
        return cls(content["number"], changes, tuple(content["earlier"]))

    def add_to(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's record with all attempts in it, its own last; a first one needs none."""
        if self.number == 1:
            return dict(content)
        own = describe_attempt(self, content)
        return {**content, "attempt": self.number, "attempts": [*self.earlier, own]}


FIRST = Attempt()
"""What every run is that is no retry."""


def describe_attempt(attempt: Attempt, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return one attempt, which left a record of that content, as it stands in the list of all."""
    training = content.get("training", {})
    known = {
        "reason": content.get("reason"),
        "failure": content.get("failure"),
        "started_at": content.get("started_at"),
        "seconds": content.get("duration_seconds"),
        "steps": training.get("steps"),
        "nan_events": training.get("nan_events"),
        "config_sha256": content.get("config_sha256"),
    }
    return {
        "number": attempt.number,
        "changes": [one.to_record() for one in attempt.changes],
        "status": content["status"],
        **{key: value for key, value in known.items() if value is not None},
    }


def changes_of(content: Mapping[str, Any]) -> list[Change]:
    """Return what all attempts of a record changed, in order."""
    return [
        Change.from_record(one) for entry in content.get("attempts", ()) for one in entry["changes"]
    ]


def say_attempts(content: Mapping[str, Any]) -> list[str]:
    """Return one line per attempt after the first: what it changed, and after what."""
    entries = content.get("attempts", ())
    return [
        f"{ordinal(entry['number'])} attempt: "
        f"{', '.join(Change.from_record(one).describe() for one in entry['changes']) or 'the same'}"
        f" after {say_failure(before)}"
        for before, entry in pairwise(entries)
    ]


def say_failure(content: Mapping[str, Any]) -> str:
    """Return why an attempt failed in a few words: `NaN at step 700`."""
    failure = content.get("failure", {})
    cause = CAUSE_WORDS.get(failure.get("cause"), "a failure")
    return cause if failure.get("step") is None else f"{cause} at step {failure['step']:,}"


def ordinal(number: int) -> str:
    """Return `2nd`."""
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else SUFFIXES.get(number % 10, 'th')}"

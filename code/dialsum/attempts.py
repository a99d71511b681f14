"""The attempts of one experiment in a batch: how a run knows which it is, how all are recorded.

Must not know what a rung changes (config/retry.py), nor when there is a next attempt (run).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dialsum.config.retry import RETRY, Change, state_changes
from dialsum.config.sources import Source
from dialsum.paths import RunPaths, relative

NAN, FULL, KILLED = "non_finite", "out_of_memory", "killed"
"""What `failure.cause` of a record may say."""
CAUSE_WORDS = {NAN: "NaN", FULL: "full memory", KILLED: "being killed (SIGKILL)"}
"""Why an attempt failed, by `failure.cause` of its record."""
SUFFIXES = {1: "st", 2: "nd", 3: "rd"}


@dataclass(frozen=True)
class AttemptOfRun:
    """Which attempt a run is.

    Args:
        number: from 1.
        changes: what it changes of the attempt before.
        left: rungs of batch.retry that are still to come.
        earlier: the records of the attempts before it, as describe_attempt makes them.
    """

    number: int
    changes: tuple[Change, ...]
    left: tuple[str, ...]
    earlier: tuple[dict[str, Any], ...]

    @property
    def all_changes(self) -> list[Change]:
        """The changes of all attempts up to this one, in order."""
        return [*changes_of({"attempts": self.earlier}), *self.changes]

    def source(self) -> Source:
        """Return the changed values as a source of the configuration."""
        return state_changes(self.all_changes, left=self.left)

    def remarks(self) -> list[str]:
        """Return what was changed, for the head of resolved_config.yaml."""
        if self.number == 1:
            return []
        head = f"Attempt {self.number} in its batch; changed from the experiment's own values:"
        return [head, *(f"  {change.describe_whole()}" for change in self.all_changes)]

    def to_record(self) -> dict[str, Any]:
        """Return it as it stands in a job."""
        return {
            "number": self.number,
            "changes": [one.to_record() for one in self.changes],
            "left": list(self.left),
            "earlier": list(self.earlier),
        }

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> AttemptOfRun:
        """Read what to_record wrote; KeyError or TypeError where it is something else."""
        changes = tuple(Change.from_record(one) for one in content["changes"])
        return cls(content["number"], changes, tuple(content["left"]), tuple(content["earlier"]))

    def add_to(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's record with all attempts in it, its own last; a first one needs none."""
        if self.number == 1:
            return dict(content)
        own = describe_attempt(self.number, self.changes, content)
        return {**content, "attempt": self.number, "attempts": [*self.earlier, own]}


FIRST = AttemptOfRun(1, (), (), ())
"""What every run is that no batch started again."""


def describe_attempt(
    number: int, changes: Sequence[Change], content: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one attempt as it stands in the list of all.

    Args:
        changes: what it changed of the attempt before.
        content: its record.
    """
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
        "number": number,
        "changes": [one.to_record() for one in changes],
        "status": content["status"],
        **{key: value for key, value in known.items() if value is not None},
    }


def point_to_files(entry: dict[str, Any], kept: Path, *, log: Path, folder: Path) -> dict[str, Any]:
    """Return an attempt's entry with the places of what it left.

    Args:
        kept: the folder to which its run was moved.
        log: what its process printed.
        folder: of the run that follows; the places are relative to it.
    """
    old = RunPaths.alone(kept)
    files = {
        "record": old.result,
        "nan_report": old.nan_report,
        "log": old.train_log,
        "batch_log": log,
    }
    places = {name: relative(path, folder) for name, path in files.items() if path.exists()}
    return {**entry, "artifacts": places}


def changes_of(content: Mapping[str, Any]) -> list[Change]:
    """Return what all attempts of a record changed, in order."""
    return [
        Change.from_record(one) for entry in content.get("attempts", ()) for one in entry["changes"]
    ]


def list_overrides(content: Mapping[str, Any], *, rungs: Sequence[str]) -> list[str]:
    """Return the changed values of a record as `key=value`, so that it can be repeated.

    Args:
        rungs: batch.retry of the experiment's own configuration.
    """
    changes = changes_of(content)
    used = [
        rung
        for entry in content.get("attempts", ())
        for rung in dict.fromkeys(one["rung"] for one in entry["changes"])
    ]
    left = list(rungs)
    for rung in used:
        if rung in left:
            left.remove(rung)
    values: dict[str, Any] = {change.key: change.after for change in changes}
    said = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return [*said, f"{RETRY}=[{', '.join(left)}]"] if said else []


def say_attempts(content: Mapping[str, Any]) -> list[str]:
    """Return one line per attempt after the first: what it changed, and after what."""
    entries = content.get("attempts", ())
    return [
        f"{ordinal(entry['number'])} attempt: "
        f"{', '.join(Change.from_record(one).describe() for one in entry['changes'])} "
        f"after {say_failure(before)}"
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

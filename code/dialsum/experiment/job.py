"""A job: all that is asked of one run. Resolved once; what was checked is what runs.

It stands as `job.json` in the run's folder, and is all that the process of a batch's run reads.
Which of several attempts it is, it knows too. Must not know how a run goes, nor import what trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dialsum.config.load import LoadedConfig
from dialsum.config.rules import Change
from dialsum.config.schema import Config
from dialsum.errors import UnfitError, first_line
from dialsum.paths import RunPaths, relative, shown

NAN, FULL, KILLED = "non_finite", "out_of_memory", "killed"
"""What `failure.cause` of a record may say."""
CAUSE_WORDS = {NAN: "NaN", FULL: "full memory", KILLED: "being killed (SIGKILL)"}
"""Why an attempt failed, by `failure.cause` of its record."""
SUFFIXES = {1: "st", 2: "nd", 3: "rd"}


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


@dataclass(frozen=True)
class Job:
    """What is asked of one run.

    Args:
        loaded: the checked config, its checkpoint pinned to a commit.
        paths: where its files go.
        kind: full, one_epoch or demo.
        batch: the batch it belongs to, if any; number: from 1, as --only counts in it.
        attempt: which of its batch's attempts it is.
        data_sha256: of the rows that were checked, by kind; empty: none were.
        train_rows: how many of them are trained on; None: not counted.
        resume: go on from the run's latest whole checkpoint.
    """

    loaded: LoadedConfig
    paths: RunPaths
    kind: str
    batch: str | None = None
    number: int = 1
    attempt: Attempt = FIRST
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    train_rows: int | None = None
    resume: bool = False

    @property
    def config(self) -> Config:
        """Every value of the experiment."""
        return self.loaded.config

    @property
    def name(self) -> str:
        """The configuration file's stem."""
        return self.loaded.name

    @property
    def label(self) -> str:
        """How it is called on screen and in log names."""
        return self.config.general.label or self.name

    def to_json(self) -> str:
        """Return the job as text; null is a value here, and stays."""
        content = {
            "kind": self.kind,
            "batch": self.batch,
            "number": self.number,
            "folder": str(self.paths.folder),
            "model": str(self.paths.model),
            "attempt": self.attempt.to_record(),
            "data_sha256": dict(self.data_sha256),
            **self.loaded.to_record(),
        }
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def read_job(file: Path) -> Job:
    """Read what to_json wrote.

    Raises:
        UnfitError: it is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Job(
            loaded=LoadedConfig.from_record(content),
            paths=RunPaths(folder=Path(content["folder"]), model=Path(content["model"])),
            kind=content["kind"],
            batch=content["batch"],
            number=content["number"],
            attempt=Attempt.from_record(content["attempt"]),
            data_sha256=content["data_sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnfitError(
            f"{shown(file)}: no job of this program ({type(error).__name__}: "
            f"{first_line(error)}); start an experiment with --config FILE"
        ) from error

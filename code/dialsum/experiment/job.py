"""A job: all that is asked of one run. Resolved once; what was checked is what runs.

It stands as `job.json` in the run's folder, and is all that the process of a batch's run reads.
Must not know how a run goes, nor import what trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dialsum.config.load import LoadedConfig
from dialsum.config.schema import Config
from dialsum.errors import UnfitError, first_line
from dialsum.experiment.attempt import FIRST, Attempt
from dialsum.paths import RunPaths, shown


@dataclass(frozen=True)
class Job:
    """What is asked of one run.

    Args:
        loaded: the checked config, its checkpoint pinned to a commit.
        paths: where its files go.
        kind: full, one_epoch, rehearsal or demo.
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
            "train_rows": self.train_rows,
            **self.loaded.to_record(),
        }
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what to_json returned.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, RecursionError: it is something else.
        """
        content = json.loads(text)
        return cls(
            loaded=LoadedConfig.from_record(content),
            paths=RunPaths(folder=Path(content["folder"]), model=Path(content["model"])),
            kind=content["kind"],
            batch=content["batch"],
            number=content["number"],
            attempt=Attempt.from_record(content["attempt"]),
            data_sha256=content["data_sha256"],
            train_rows=content["train_rows"],
        )


NO_JOB = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading something else than a job may raise."""


def read_job(file: Path) -> Job:
    """Read a run's job.json.

    Raises:
        UnfitError: it is something else.
    """
    try:
        return Job.from_json(file.read_text(encoding="utf-8"))
    except NO_JOB as error:
        raise UnfitError(
            f"{shown(file)}: no job of this program ({type(error).__name__}: "
            f"{first_line(error)}); start an experiment with --config FILE"
        ) from error

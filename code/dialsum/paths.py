"""The name of every file that a batch or a run writes, and where the project lies.

Nobody else joins these paths. Must not know what is inside the files, and writes nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent

OUTPUTS = "outputs"
LLM_OUTPUTS = "outputs/llm"
"""Stands for outputs/ in batches of scripts/llm_finetuning.py, apart from the seven's."""
STAMP = "%Y%m%d_%H%M%S"
"""How a moment stands in file names."""
LOCK = ".dialsum-lock"
"""A folder's lock while somebody is at work in it; what a killed process left of it
holds nobody up."""


SHARED_TOKEN = ".dialsum-shared"


def shared_token(folder: Path) -> Path:
    """Return the file, while a batch runs on a cluster, by which a node tells that it sees the very
    same folder."""
    return folder / SHARED_TOKEN


NAME_BYTES = 200
"""Longest name of an experiment or label, in bytes of UTF-8: file systems take 255, and what is put
around it (`experiment_12_`, `.attempt_3.log`, the name while it is written) takes up to 52."""
RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def find_name_fault(name: str) -> str | None:
    """Say why usual file systems can hold no file or folder called so; None where they can."""
    if not name.strip(" ."):
        return "nothing but dots or spaces"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        return "bytes that are no UTF-8"
    if odd := [char for char in name if char in '/\\<>:"|?*' or not (char.isprintable())]:
        return (
            f"the character {odd[0]} in it"
            if odd[0].isprintable()
            else (f"the control character U+{ord(odd[0]):04X} in it")
        )
    if name[0] in ". " or name[-1] in ". ":
        return "a dot or space first or last"
    if RESERVED_NAMES.fullmatch(name):
        return "a name that Windows keeps for devices"
    size = len(name.encode())
    return f"{size:,} bytes, above {NAME_BYTES}" if size > NAME_BYTES else None


def project_path(path: str | Path) -> Path:
    """Return path as it stands if absolute, else below the project's root."""
    path = Path(path)
    return path if path.is_absolute() else PROJECT_ROOT / path


def shown(path: Path) -> str:
    """Return path in short: relative to the working folder, else to the project, else whole.

    In the root folder it stays whole: `tmp/x` would read like a path of the project's.
    """
    if Path.cwd() == Path(Path.cwd().anchor):
        return path.as_posix()
    for base in (Path.cwd(), PROJECT_ROOT):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


def in_command(path: Path) -> str:
    """Return a path as a command needs it: it must work from the folder in which it was printed."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


def batch_root(*, demo: bool, own_data: bool, one_epoch: bool, rehearse: bool = False) -> str:
    """Return the folder under outputs/ of a batch: each sort has its own, so that none displaces
    the results of another.

    Args:
        own_data: whether a demo is on other data than the sample.
    """
    short = "rehearsal" if rehearse else "quick_test" if one_epoch else ""
    if not demo:
        return short or "auto_experiments"
    return "demo" + ("_own_data" if own_data else "") + (f"_{short}" if short else "")


def in_project(path: Path) -> str:
    """Return a path as a record names a file that is no part of it: below the project's root, else
    whole."""
    base = PROJECT_ROOT
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def relative(path: Path, folder: Path) -> str:
    """Return a path as it is seen from a folder, as records name it."""
    return Path(os.path.relpath(path, folder)).as_posix()


def timestamp(moment: datetime) -> str:
    """Return a moment as it stands in file names: YYYYmmdd_HHMMSS, local time."""
    return moment.astimezone().strftime(STAMP)


class Inside:
    """A file or folder below another path of the object that has it."""

    def __init__(self, name: str, *, of: str = "folder") -> None:
        self.name, self.of = name, of

    def __get__(self, owner: object, _kind: type) -> Path:
        base: Path = getattr(owner, self.of)
        return base / self.name


@dataclass(frozen=True)
class RunPaths:
    """The files of one run of one experiment.

    Args:
        folder: the run's own folder, `…/experiments/NAME` in a batch, `outputs/NAME` for trainer.py
            alone.
        model: where the best model goes, `…/models/NAME` in a batch, `folder/model` for trainer.py
            alone.
    """

    folder: Path
    model: Path

    @classmethod
    def alone(cls, folder: Path) -> RunPaths:
        """Name the files of a run that no batch owns."""
        return cls(folder=folder, model=folder / "model")

    result = Inside("result.json")
    """The run's record, written last: while it is missing, the run is not finished."""
    job = Inside("job.json")
    """All that was asked of the run; `trainer.py --job` repeats it."""
    resolved_config = Inside("resolved_config.yaml")
    """Every value that the run used, as YAML that can be run again."""
    environment = Inside("environment.json")
    """Versions, machine and start time; written first."""
    metrics = Inside("metrics.jsonl")
    """One JSON line per event, in order of time."""
    train_log = Inside("train.log")
    """What the run printed."""
    results = Inside("results")
    """Folder of what the run is for: summary and predictions."""
    summary = Inside("summary.txt", of="results")
    """The scores as text, with the `Best Metrics` block."""
    predictions_dev = Inside("predictions_dev.csv", of="results")
    """Dev predictions: fname, summary."""
    submission = Inside("submission.csv", of="results")
    """Test predictions in the competition's form."""
    nan_report = Inside("nan_report.json", of="results")
    """Every step that was not finite; absent where there was none."""
    tensorboard = Inside("logs")
    """Folder of TensorBoard events."""
    checkpoints = Inside("checkpoints")
    """Folder of training checkpoints."""
    model_info = Inside("model_info.json", of="model")
    """What the saved model is, beside its weights."""
    stop_request = Inside("stop")
    """File that a user makes to end training now, with the best weights so far."""
    wandb = Inside("wandb")
    """Folder of what Weights & Biases keeps of the run."""
    previous = Inside("previous")
    """Folder of earlier runs of the same name, one folder each, named by their start."""

    @property
    def artifacts(self) -> dict[str, Path]:
        """What a record points to, where it is there."""
        return {
            "model": self.model,
            "predictions_dev": self.predictions_dev,
            "submission": self.submission,
            "metrics": self.metrics,
            "log": self.train_log,
            "resolved_config": self.resolved_config,
            "environment": self.environment,
            "checkpoints": self.checkpoints,
            "nan_report": self.nan_report,
        }

    @property
    def has_outside_model(self) -> bool:
        """Whether the model goes to a folder of its own, outside of the run's."""
        return not self.model.is_relative_to(self.folder)

    @property
    def written(self) -> tuple[Path, ...]:
        """All that a run writes into its own folder; what tells when it started comes last.

        Whatever else stands there is somebody else's.
        """
        inside = () if self.has_outside_model else (self.model,)
        return (
            *inside,
            self.job,
            self.resolved_config,
            self.metrics,
            self.train_log,
            self.results,
            self.tensorboard,
            self.checkpoints,
            self.wandb,
            self.stop_request,
            self.environment,
            self.result,
        )


@dataclass(frozen=True)
class BatchPaths:
    """The files of one root of batches (`outputs/auto_experiments` and its siblings).

    Args:
        root: folder of all batches of one kind.
        log_root: folder that gets one `main_experiments_STAMP` folder per batch.
        runs_dir: folder of the runs; `root/experiments` when absent.
    """

    root: Path
    log_root: Path
    runs_dir: Path | None = None

    @property
    def runs(self) -> Path:
        """Folder of the runs, one folder each."""
        return self.runs_dir or self.root / "experiments"

    summary = Inside("experiment_summary.json", of="root")
    """Each experiment's latest run in this root, best first."""
    ledger = Inside("batches.sqlite3", of="root")
    """What every batch in this root has to do, and what became of it."""
    models = Inside("models", of="root")
    """Folder of the runs' models."""

    def results(self, started: datetime) -> Path:
        """Return the file of one batch."""
        return self.root / f"experiment_results_{timestamp(started)}.json"

    def logs(self, started: datetime) -> Path:
        """Return the folder of one batch's logs."""
        return self.log_root / f"main_experiments_{timestamp(started)}"

    def experiment_log(
        self, started: datetime, *, number: int, label: str, attempt: int = 1
    ) -> Path:
        """Return the log of one experiment of a batch; number and attempt count from 1."""
        retry = f".attempt_{attempt}" if attempt > 1 else ""
        return self.logs(started) / f"experiment_{number}_{label}{retry}.log"

    def text_summary(self, started: datetime) -> Path:
        """Return the batch's closing table as text."""
        return self.logs(started) / "experiment_summary.txt"

    def run(self, name: str) -> RunPaths:
        """Name the files of one experiment's run in this root."""
        return RunPaths(folder=self.runs / name, model=self.models / name)

"""From the command line's options and the configurations to the plan of a batch: who runs, with
what, into where, and what it will take.

Must not check the machine or the data (check.py), nor write anything.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from dialsum.batch.options import DEMO_DATA, BatchOptions, select_numbers
from dialsum.config.load import LoadedConfig, load_configs
from dialsum.config.schema import Config
from dialsum.errors import ConfigError
from dialsum.models.checkpoint import find_size
from dialsum.paths import (
    OUTPUTS,
    PROJECT_ROOT,
    BatchPaths,
    RunPaths,
    batch_root,
    project_path,
    shown,
    timestamp,
)

TRAINER = (sys.executable, str(PROJECT_ROOT / "code" / "trainer.py"))
"""The command that runs one experiment."""


@dataclass(frozen=True)
class PlannedExperiment:
    """One experiment of a batch.

    Attributes:
        number: from 1, as --only counts; the numbers of a partial batch have gaps.
        paths: its run's files. log: what its process prints.
        train, test: its data; test None where no submission is wanted.
        trainer: program and first arguments of its process.
        train_rows: rows of its training data, None until they were read; data_sha256: of the rows
            of each file, then.
    """

    number: int
    loaded: LoadedConfig
    paths: RunPaths
    log: Path
    train: Path
    test: Path | None
    trainer: tuple[str, ...]
    train_rows: int | None = None
    data_sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The configuration file's stem."""
        return self.loaded.name

    @property
    def label(self) -> str:
        """How it is called on screen and in log names."""
        return self.loaded.config.general.label or self.loaded.name

    @property
    def config(self) -> Config:
        """Its configuration, options applied."""
        return self.loaded.config

    @property
    def job_file(self) -> Path:
        """Where all that is asked of its process is written, beside its log."""
        return self.log.with_suffix(".job.json")

    @property
    def command(self) -> tuple[str, ...]:
        """How its process is started."""
        return (*self.trainer, "--job", str(self.job_file))


@dataclass(frozen=True)
class BatchPlan:
    """A batch before it starts.

    Attributes:
        experiments: those to run, in order; total: how many the command line named.
    """

    options: BatchOptions
    kind: str
    started_at: datetime
    paths: BatchPaths
    experiments: tuple[PlannedExperiment, ...]
    total: int

    @property
    def batch_id(self) -> str:
        """Name of the batch in records and file names."""
        return timestamp(self.started_at)


def load_selected(options: BatchOptions) -> tuple[dict[int, LoadedConfig], list[str]]:
    """Load the configurations that --only leaves; those that are fit are returned beside the
    problems of the others.

    Returns:
        Number to configuration for those that are fit, and the problems of the others.

    Raises:
        UnfitError: --only cannot be understood.
    """
    numbers = select_numbers(options.only, configs=options.configs)
    paths = [options.configs[number - 1] for number in numbers]
    twins = _find_twins(paths)
    try:
        return dict(zip(numbers, _load(paths, options), strict=True)), twins
    except ConfigError as error:
        problems = error.problems
    loaded: dict[int, LoadedConfig] = {}
    for number, path in zip(numbers, paths, strict=True):
        # Only to find those that are fit: every problem is known already.
        with suppress(ConfigError):
            loaded[number] = _load([path], options)[0]
    return loaded, problems + twins


def _load(paths: Sequence[Path], options: BatchOptions) -> list[LoadedConfig]:
    return load_configs(paths, overrides=all_overrides(options), overlays=options.overlays)


def all_overrides(options: BatchOptions) -> list[str]:
    """Turn the options that stand for configuration values into overrides; --set comes last and
    wins."""
    overrides: list[str] = []
    if options.data_folder is not None:
        # As JSON, which is YAML: a folder may be called anything.
        overrides.append(
            f"data.data_dir={json.dumps(str(options.data_folder), ensure_ascii=False)}"
        )
    if options.one_epoch:
        overrides += ["training.num_train_epochs=1", "training.max_steps=null"]
    if options.seed is not None:
        overrides.append(f"training.seed={options.seed}")
    return [*overrides, *options.overrides]


def _find_twins(configs: Sequence[Path]) -> list[str]:
    """Refuse two files of one name in a batch: their runs would stand in one folder."""
    first: dict[str, Path] = {}
    problems = []
    for path in configs:
        # Folders of some systems do not tell case or the two ways of writing Hangul apart.
        name = unicodedata.normalize("NFC", path.stem).casefold()
        if name in first:
            problems.append(
                f"{shown(path)}: an experiment named {path.stem!r} is in this batch already "
                f"({shown(first[name])}); rename the file, or run it in another batch"
            )
        first.setdefault(name, path)
    return problems


def make_plan(
    options: BatchOptions,
    loaded: dict[int, LoadedConfig],
    *,
    started_at: datetime,
    trainer: Sequence[str] = TRAINER,
) -> BatchPlan:
    """Lay out a batch.

    Args:
        loaded: number to configuration, as load_selected returns it.
        started_at: moves on to the next second that no earlier batch has in its file names.
        trainer: program and first arguments of an experiment's process.
    """
    outputs = (options.output_dir or project_path(OUTPUTS)).absolute()
    default_logs = outputs / "logs" if options.output_dir else PROJECT_ROOT / "logs"
    paths = BatchPaths.make(
        outputs
        / batch_root(
            demo=options.demo, own_data=_has_own_data(loaded), one_epoch=options.one_epoch
        ),
        (options.log_dir or default_logs).absolute(),
        runs=options.runs_dir.absolute() if options.runs_dir else None,
    )
    while paths.logs(started_at).exists() or paths.results(started_at).exists():
        started_at += timedelta(seconds=1)
    plan = BatchPlan(options, options.kind, started_at, paths, (), total=len(options.configs))
    experiments = tuple(_plan_one(plan, number, one, trainer) for number, one in loaded.items())
    return replace(plan, experiments=experiments)


def _has_own_data(loaded: dict[int, LoadedConfig]) -> bool:
    """Tell whether an experiment reads another file than the sample's."""
    folders = {
        (project_path(one.config.data.data_dir) / file).resolve().parent
        for one in loaded.values()
        for file in (
            one.config.data.train_file,
            one.config.data.dev_file,
            one.config.data.test_file,
        )
        if file
    }
    return bool(folders - {DEMO_DATA.resolve()})


def _plan_one(
    plan: BatchPlan, number: int, loaded: LoadedConfig, trainer: Sequence[str]
) -> PlannedExperiment:
    named = plan.paths.run(loaded.name)
    # Where a link leads is what is looked at, and what paths in records are relative to.
    run = RunPaths(folder=named.folder.resolve(), model=named.model.resolve())
    data = loaded.config.data
    folder = project_path(data.data_dir)
    return PlannedExperiment(
        number=number,
        loaded=loaded,
        paths=run,
        log=plan.paths.experiment_log(
            plan.started_at, number=number, label=loaded.config.general.label or loaded.name
        ),
        train=folder / data.train_file,
        test=folder / data.test_file if data.test_file else None,
        trainer=tuple(trainer),
    )


EXPECTED_FOR_ROWS = 12_457
"""Training rows that general.expected_minutes is stated for."""
BYTES_PER_WEIGHT = 4
OPTIMIZER_COPIES = 2
"""AdamW keeps two numbers beside each weight that learns."""
ADAPTED_SHARE = 0.05
"""Part of the weights that adapters amount to, at the least ranks in use."""
LOGS_BYTES = 20 * 2**20


def expect_minutes(experiment: PlannedExperiment, *, kind: str) -> float | None:
    """Return the expected duration in minutes; None where nothing is known.

    general.expected_minutes holds for all epochs of the real data on one RTX 3090: it is scaled by
    rows, and to one epoch.
    """
    stated = experiment.config.general.expected_minutes
    if stated is None:
        return None
    share = 1.0 if experiment.train_rows is None else experiment.train_rows / EXPECTED_FOR_ROWS
    return stated * share / ((experiment.loaded.own_epochs or 1.0) if kind == "one_epoch" else 1.0)


def estimate_disk_bytes(config: Config) -> int:
    """Return the least bytes that a run leaves on the disk: its model, its checkpoints with
    optimizer, its logs."""
    size = find_size(config, environment=os.environ).value
    learning = float(size.parameters)
    if config.qlora.use_qlora:
        learning *= ADAPTED_SHARE
        learning += size.vocabulary * size.width if config.qlora.train_embeddings else 0
    weights = learning * BYTES_PER_WEIGHT
    checkpoints = config.training.save_total_limit * weights * (1 + OPTIMIZER_COPIES)
    return int(weights + checkpoints + LOGS_BYTES)

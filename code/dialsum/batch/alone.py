"""A run that no batch starts, from its options to a job that was checked here.

Must not know the queue.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dialsum.batch.check import check_data, find_machine_problems
from dialsum.batch.checkpoints import find_model_problems, pin_checkpoint
from dialsum.batch.lock import find_batch_around, find_runs_at_work
from dialsum.batch.space import find_lack_of_space, find_obstacle
from dialsum.config.load import load_config, load_without_wrong
from dialsum.errors import ConfigError, ProblemsError, UnfitError
from dialsum.experiment.job import Job
from dialsum.packages import find_shadowed_packages
from dialsum.paths import OUTPUTS, RunPaths, project_path
from dialsum.record import find_foreign, find_model, holds_run


def make_alone_job(asked: Namespace) -> Job:
    """Return the job of a run that no batch starts, checked as far as it can be here.

    Args:
        asked: trainer.py's options, --config among them.

    Raises:
        ProblemsError: configuration, place, machine, checkpoint or data are unfit: all of it.
    """
    paths = choose_place(
        asked.config.stem,
        output_dir=asked.output_dir,
        run_dir=asked.run_dir,
        model_dir=asked.model_dir,
    )
    values = {"overrides": asked.overrides, "overlays": asked.overlay}
    known: list[str] = []
    try:
        loaded = load_config(asked.config, **values)
    except ConfigError as error:
        mended = load_without_wrong(asked.config, **values)
        if mended is None:
            raise
        loaded, known = mended, error.problems
    kind = "one_epoch" if asked.one_epoch else "full"
    return check_alone(Job(loaded, paths, kind, resume=asked.resume), known=known)


def choose_place(
    name: str, *, output_dir: Path | None, run_dir: Path | None, model_dir: Path | None
) -> RunPaths:
    """Return where a run by itself goes; one that stands there already keeps its model's place.

    Args:
        name: of the experiment.
        output_dir: stands for outputs/; the run goes to a folder of its name in it.
        run_dir: the run's own folder.
        model_dir: the model's own folder.

    Raises:
        UnfitError: both output_dir and run_dir are given.
    """
    if output_dir is not None and run_dir is not None:
        raise UnfitError(
            "--output-dir and --run-dir: give one of them; --run-dir is the run's own folder, "
            "--output-dir the folder in which it gets one of its name"
        )
    folder = (run_dir or (output_dir or project_path(OUTPUTS)) / name).resolve()
    model = model_dir.resolve() if model_dir else find_model(folder) if holds_run(folder) else None
    return RunPaths(folder=folder, model=model or RunPaths.alone(folder).model)


def check_alone(job: Job, *, known: Sequence[str] = ()) -> Job:
    """Refuse a run that no batch checked where it cannot go on this machine, or not at its place;
    fetch its checkpoint where it can.

    Its data are read only where something else is wrong: the run itself reads them next.

    Args:
        known: what is wrong with its configuration.

    Returns:
        The job with the commit of its checkpoint (pin_checkpoint).

    Raises:
        ProblemsError: place, machine, checkpoint or data are unfit, or the configuration was.
    """
    config, paths = job.config, job.paths
    wrong = [*known, *find_shadowed_packages()]
    obstacle = find_obstacle(paths.folder) or find_obstacle(paths.model.parent)
    obstacle = obstacle or find_foreign(paths) or find_batch_around(paths)
    place = [obstacle] if obstacle else find_runs_at_work([paths])
    # Of a run that goes on, a part is on the disk already.
    wrong += place or ([] if job.resume else find_lack_of_space([job]))
    wrong += find_machine_problems([config])
    wrong += find_model_problems(config)[0]
    if wrong:
        raise ProblemsError([*wrong, *check_data([config])[1]])
    return replace(job, loaded=pin_checkpoint(job.loaded))

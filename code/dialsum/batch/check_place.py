"""Where the files of a batch or a run go, and whether they can: folders, rights, space, nothing of
others in the way, nobody else at work there.

Must not write anything to find out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dialsum.archive import find_foreign, find_model, holds_run
from dialsum.batch.estimates import estimate_disk_bytes
from dialsum.batch.lock import find_batch_around, find_batches_at_work, find_runs_at_work
from dialsum.batch.plan import BatchPlan, PlannedExperiment
from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.paths import OUTPUTS, BatchPaths, RunPaths, project_path, shown
from dialsum.reading import read_regular

GIB, MIB = 2**30, 2**20
ROOM_FOR_WORDS_BYTES = 2**16
"""Where less is free, nothing can be recorded, and an empty log does not mean that nothing was
said."""
WAY_OUT = "give another place with --output-dir DIR"


def find_place_problems(plan: BatchPlan) -> list[str]:
    """Return what is wrong with the places that a batch writes to."""
    paths = plan.paths
    folders = dict.fromkeys([paths.root, paths.runs, paths.log_root])
    problems = [problem for folder in folders if (problem := _find_obstacle(folder))]
    problems += _find_foreign_summary(paths)
    runs = [one.paths for one in plan.experiments]
    problems += [problem for run in runs if (problem := find_foreign(run))]
    return list(dict.fromkeys(problems)) or find_lack_of_space(
        [(run.folder, one.config) for run, one in zip(runs, plan.experiments, strict=True)]
    )


def find_run_problems(paths: RunPaths, config: Config, *, resume: bool) -> list[str]:
    """Return what is wrong with the place of a run that no batch started.

    Args:
        resume: whether it goes on with the run there, part of which is on the disk already.
    """
    problem = _find_obstacle(paths.folder) or _find_obstacle(paths.model.parent)
    problem = problem or find_foreign(paths) or find_batch_around(paths)
    problems = find_runs_at_work([paths]) if problem is None else [problem]
    return problems or ([] if resume else find_lack_of_space([(paths.folder, config)]))


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


def find_others_at_work(plan: BatchPlan) -> list[str]:
    """Return that another batch or run is at work in the folders of this one, if it is."""
    runs = [one.paths for one in plan.experiments]
    return find_batches_at_work(plan.paths) or find_runs_at_work(runs)


def _find_foreign_summary(paths: BatchPaths) -> list[str]:
    """Refuse a summary that another program wrote: a batch writes its own over it."""
    try:
        content = json.loads(read_regular(paths.summary).decode("utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "schema_version" in content:
        return []
    return [
        f"{shown(paths.summary)}: was not written by this program, which writes its own file of "
        f"that name there; move it, or {WAY_OUT}"
    ]


def _find_obstacle(folder: Path) -> str | None:
    """Say why a folder, or what of it has to be made, cannot be written to."""
    present = nearest_existing(folder)
    if not present.is_dir():
        return f"{shown(present)}: is a file, but a folder is needed there; move it, or {WAY_OUT}"
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        return f"{shown(present)}: lies on a file system that can only be read; {WAY_OUT}"
    if not os.access(present, os.W_OK | os.X_OK):
        return (
            f"{shown(present)}: this user may not write there; mend its permissions (chmod "
            f"u+wx), or {WAY_OUT}"
        )
    return None


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, else its nearest parent that does."""
    path = path.absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path


def find_lack_of_space(runs: Sequence[tuple[Path, Config]]) -> list[str]:
    """Compare what runs leave at least with what is free, disk by disk.

    Args:
        runs: folder and configuration of each.
    """
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for folder, config in runs:
        place = nearest_existing(folder)
        device = place.stat().st_dev
        places[device] = place
        needed[device] += estimate_disk_bytes(config)
    return [
        f"{shown(place)}: {_show(free)} free, but models and checkpoints of "
        f"{count_word(len(runs))} take at least about {_show(needed[device])}; free space, "
        f"{'run fewer at a time (--only), ' if len(runs) > 1 else ''}or {WAY_OUT}"
        for device, place in places.items()
        if (free := shutil.disk_usage(place).free) < needed[device]
    ]


def find_full_disk(experiment: PlannedExperiment) -> str | None:
    """Say why an experiment of a running batch has no room; None where it has.

    What it leaves at least must be free where its run goes, and some where its log and model go.
    """
    lack = find_lack_of_space([(experiment.paths.folder, experiment.config)])
    places = [nearest_existing(path) for path in (experiment.log, experiment.paths.model)]
    lack += [
        f"{shown(place)}: no space left on the disk; free some, or {WAY_OUT}"
        for place in places
        if shutil.disk_usage(place).free < ROOM_FOR_WORDS_BYTES
    ]
    return lack[0] if lack else None


def _show(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


def count_word(experiments: int) -> str:
    """Return `1 experiment` or `7 experiments`."""
    return f"{experiments} experiment{'s' if experiments != 1 else ''}"

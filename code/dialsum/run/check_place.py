"""Whether a batch's files can be written where they are to go: folders, rights, space, nobody else
at work there.

Must not write anything to find out.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path

from dialsum.paths import shown
from dialsum.run.estimates import estimate_disk_bytes
from dialsum.run.lock import describe_held, is_held
from dialsum.run.plan import BatchPlan

GIB = 2**30
WAY_OUT = "give another place with --output-dir DIR"


def find_place_problems(plan: BatchPlan) -> list[str]:
    """Return what is wrong with the places that a batch writes to."""
    paths = plan.paths
    folders = dict.fromkeys([paths.root, paths.runs, paths.log_root])
    problems = [problem for folder in folders if (problem := _find_obstacle(folder))]
    return list(dict.fromkeys(problems)) or _find_lack_of_space(plan)


def find_other_batch(plan: BatchPlan) -> list[str]:
    """Return that another batch is at work in the folders of this one, if it is."""
    folders = dict.fromkeys([plan.paths.root, plan.paths.runs])
    # One batch holds both folders; saying it once is enough.
    return [describe_held(folder) for folder in folders if is_held(folder)][:1]


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


def _find_lack_of_space(plan: BatchPlan) -> list[str]:
    """Compare what the runs leave at least with what is free, disk by disk."""
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for experiment in plan.experiments:
        place = nearest_existing(experiment.paths.folder)
        device = place.stat().st_dev
        places[device] = place
        needed[device] += estimate_disk_bytes(experiment.config)
    runs = count_word(len(plan.experiments))
    return [
        f"{shown(place)}: {free / GIB:.1f} GiB free, but models and checkpoints of {runs} take at "
        f"least about {needed[device] / GIB:.1f} GiB; free space, run fewer at a time (--only), "
        f"or {WAY_OUT}"
        for device, place in places.items()
        if (free := shutil.disk_usage(place).free) < needed[device]
    ]


def count_word(experiments: int) -> str:
    """Return `1 experiment` or `7 experiments`."""
    return f"{experiments} experiment{'s' if experiments != 1 else ''}"

"""The places that runs write to: whether they can be written, and whether there is room.

Must not write anything.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dialsum.batch.plan import count_experiments
from dialsum.config.schema import Config
from dialsum.experiment.job import Job
from dialsum.models.checkpoint import find_size
from dialsum.paths import shown
from dialsum.text import show_bytes
from dialsum.train.checkpoints import Room

ROOM_FOR_WORDS_BYTES = 2**16
"""Where less is free, nothing can be recorded, and an empty log does not mean that nothing was
said."""
BYTES_PER_WEIGHT = 4
OPTIMIZER_COPIES = 2
"""AdamW keeps two numbers beside each weight that learns."""
ADAPTED_SHARE = 0.05
"""Part of the weights that adapters amount to, at the least ranks in use."""
LOGS_BYTES = 20 * 2**20
ELSEWHERE = "give another place with --output-dir DIR"


def find_obstacle(folder: Path) -> str | None:
    """Say why a folder, or what of it has to be made, cannot be written to."""
    present = nearest_existing(folder)
    if not present.is_dir():
        return f"{shown(present)}: is a file, but a folder is needed there; move it, or {ELSEWHERE}"
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        return f"{shown(present)}: lies on a file system that can only be read; {ELSEWHERE}"
    if not os.access(present, os.W_OK | os.X_OK):
        return (
            f"{shown(present)}: this user may not write there; mend its permissions (chmod "
            f"u+wx), or {ELSEWHERE}"
        )
    return None


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, else its nearest parent that does."""
    path = path.absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path


def measure_space(jobs: Sequence[Job]) -> list[tuple[Path, int, int]]:
    """Return, disk by disk, a place on it, the bytes that runs leave there at least, and what is
    free, but for the reserve."""
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for job in jobs:
        place = nearest_existing(job.paths.folder)
        device = place.stat().st_dev
        places[device] = place
        needed[device] += estimate_disk_bytes(job.config)
    return [(place, needed[device], max(0, Room(place).left())) for device, place in places.items()]


def find_lack_of_space(jobs: Sequence[Job]) -> list[str]:
    """Say which disks have no room for what runs leave at least."""
    budgets = [job.config.batch.disk_budget_gb for job in jobs]
    over = []
    if budgets and (budget := budgets[0]) is not None:
        needed = sum(estimate_disk_bytes(job.config) - LOGS_BYTES for job in jobs)
        if needed > budget * 1e9:
            over = [
                f"batch.disk_budget_gb is {budget:g}, {show_bytes(int(budget * 1e9))}, but models "
                f"and checkpoints of {count_experiments(len(jobs))} take at least about "
                f"{show_bytes(needed)}; raise it"
            ]
    return over + [
        f"{shown(place)}: {show_bytes(free)} free, but models and checkpoints of "
        f"{count_experiments(len(jobs))} take at least about {show_bytes(needed)}; free "
        f"space, {'run fewer at a time (--only), ' if len(jobs) > 1 else ''}or {ELSEWHERE}"
        for place, needed, free in measure_space(jobs)
        if free < needed
    ]


def describe_space(jobs: Sequence[Job]) -> str:
    """Say in a few words what runs take at least of what is free."""
    return "; ".join(
        f"at least {show_bytes(needed)} of {show_bytes(free)} free in {shown(place)}"
        for place, needed, free in measure_space(jobs)
    )


def estimate_disk_bytes(config: Config) -> int:
    """Return the least bytes that a run leaves on the disk: its model, its checkpoints with
    optimizer, its logs."""
    size = find_size(config).value
    learning = float(size.parameters)
    if config.qlora.use_qlora:
        learning *= ADAPTED_SHARE
        learning += size.vocabulary * size.width if config.qlora.train_embeddings else 0
    weights = learning * BYTES_PER_WEIGHT
    checkpoints = config.training.save_total_limit * weights * (1 + OPTIMIZER_COPIES)
    return int(weights + checkpoints + LOGS_BYTES)


def find_full_disk(job: Job, log: Path) -> str | None:
    """Say why an experiment of a running batch has no room; None where it has.

    What it leaves at least must be free where its run goes, and some where its log and model go.
    """
    lack = find_lack_of_space([job])
    lack += [
        f"{shown(place)}: no space left on the disk; free some, or {ELSEWHERE}"
        for place in map(nearest_existing, (log, job.paths.model))
        if shutil.disk_usage(place).free < ROOM_FOR_WORDS_BYTES
    ]
    return lack[0] if lack else None

"""Training checkpoints that are whole or do not count: a manifest, written last, names every file.

Must not know what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.files import write_json

MANIFEST = "manifest.json"
STATE, TENSORS = "trainer_state.json", "training_state.pt"
"""Files of a checkpoint besides the weights: numbers as the library's tools know them, tensors."""

RESERVE_BYTES, RESERVE_SHARE = 5 * 10**9, 0.05
"""Left free on a disk, of two the less: logs, records and others' work go on."""


def seal_checkpoint(folder: Path, *, config_sha256: str, data_sha256: str) -> None:
    """Write the manifest of a finished checkpoint: name, size and sha256 of each file.

    Args:
        config_sha256, data_sha256: what the run trains with and on; it goes on only with the same.
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(
        folder / MANIFEST,
        {
            "schema_version": 1,
            "config_sha256": config_sha256,
            "data_sha256": data_sha256,
            "files": files,
        },
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a checkpoint's manifest, or None where it was not written to its end.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for known in manifest["files"].values():
            int(known["bytes"]), str(known["sha256"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no manifest: {type(error).__name__}") from error
    return manifest


def find_damage(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None: every file stands there as it was sealed."""
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return f"{MANIFEST} cannot be read ({error})"
    if manifest is None:
        return f"it has no {MANIFEST}, so it was not written to its end"
    for name, known in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != known["bytes"] or _hash(path) != known["sha256"]:
            return f"{name} is not what was written"
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoint folders, the latest step first."""
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and re.fullmatch(r"checkpoint-[0-9]+", path.name)  # copies are the user's
    ]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step that a checkpoint folder is named after."""
    return int(checkpoint.name.rpartition("-")[2])


def latest_whole_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the latest checkpoint that is whole, and a line for each later one that is not."""
    damaged: list[str] = []
    for checkpoint in list_checkpoints(folder):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint, damaged
        damaged.append(f"{checkpoint.name} is left out: {damage}")
    return None, damaged


def find_sealed_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint that was written to its end, unread; None without one."""
    return next((one for one in list_checkpoints(folder) if (one / MANIFEST).is_file()), None)


@dataclass(frozen=True)
class Room:
    """What may still be written to a disk.

    Args:
        folder: what counts against the budget.
        budget_bytes: most that the folder may hold; None: what its disk holds, but for a reserve.
    """

    folder: Path
    budget_bytes: int | None = None

    def left(self) -> int:
        """Return the bytes that may still be written; negative where there are too many."""
        disk = shutil.disk_usage(self.folder)
        reserve = min(RESERVE_BYTES, int(RESERVE_SHARE * disk.total))
        if self.budget_bytes is None:
            return disk.free - reserve
        held = sum(
            (Path(folder) / name).lstat().st_size
            for folder, _, names in os.walk(self.folder)
            for name in names
        )
        return min(disk.free, self.budget_bytes - held)


def prune(folder: Path, *, keep: Path, limit: int) -> list[str]:
    """Remove older checkpoints, the oldest first, until limit are left; keep and the last one stay.

    Called after a new one was sealed: a run that dies here still has a whole one.

    Returns:
        The names of those that were removed.
    """
    if not (found := list_checkpoints(folder)):
        return []
    last, *earlier = found
    removable = [one for one in earlier if one != keep]
    spared = limit - (1 if keep in (last, *earlier) and keep != last else 0) - 1
    gone = removable[max(spared, 0) :][::-1]
    for checkpoint in gone:
        shutil.rmtree(checkpoint)
    return [checkpoint.name for checkpoint in gone]


def drop_unsealed_checkpoints(folder: Path) -> None:
    """Remove checkpoints without a manifest: no run can go on from them.

    On a full disk they hold the room that the record needs.
    """
    for checkpoint in list_checkpoints(folder):
        if not (checkpoint / MANIFEST).is_file():
            shutil.rmtree(checkpoint)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

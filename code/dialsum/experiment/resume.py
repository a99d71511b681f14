"""Going on with a run that did not finish: from which checkpoint, and whether it is the same run.

Must not know how a run is trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dialsum.errors import RunError, UnfitError
from dialsum.files import read_regular, write_text
from dialsum.paths import RunPaths, shown
from dialsum.record import read_record
from dialsum.train.checkpoints import (
    TENSORS,
    find_damage,
    latest_whole_checkpoint,
    list_checkpoints,
    read_manifest,
    step_of,
)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Args:
        checkpoint: the latest whole one.
        notes: later ones that are not whole, a line each.
    """

    checkpoint: Path
    notes: list[str]

    @property
    def step(self) -> int:
        """Optimizer steps already done."""
        return step_of(self.checkpoint)


def find_resume_point(paths: RunPaths, *, config_sha256: str, train_sha256: str) -> ResumePoint:
    """Return the checkpoint that an unfinished run goes on from.

    Raises:
        UnfitError: the run is finished, has no whole checkpoint, or was another: other values, or
            other training rows.
    """
    place = shown(paths.folder)
    if _status(paths) == "success":
        raise UnfitError(
            f"{place}: this run is finished, so there is nothing to resume. Start it without "
            "--resume to run it again; the finished one is then kept in previous/"
        )
    checkpoint, notes = latest_whole_checkpoint(paths.checkpoints)
    if checkpoint is None:
        found = f" ({'; '.join(notes)})" if notes else ""
        raise UnfitError(f"{place}: no checkpoint to resume from{found}. Start it without --resume")
    manifest = read_manifest(checkpoint) or {}
    if TENSORS not in manifest.get("files", {}):
        raise UnfitError(
            f"{place}: {checkpoint.name} was written by another version of this program, which "
            "kept its state in other files; start without --resume, or go on with that version"
        )
    for key, now, what in (
        ("config_sha256", config_sha256, f"other values (compare {shown(paths.resolved_config)})"),
        ("data_sha256", train_sha256, "other training rows"),
    ):
        if manifest.get(key) != now:
            raise UnfitError(
                f"{place}: {checkpoint.name} was trained with {what}; going on with it would be "
                "neither run. Start without --resume, or give back what it was trained with"
            )
    return ResumePoint(checkpoint, notes)


def _status(paths: RunPaths) -> str | None:
    if not paths.result.is_file():
        return None
    try:
        return read_record(paths.result).status
    except RunError as error:
        raise UnfitError(
            f"{error}. Whether the run is finished cannot be told: move that file away to go on "
            "from the latest checkpoint, or start without --resume"
        ) from error


def reopen_run(paths: RunPaths, point: ResumePoint, *, first: Mapping[Path, str]) -> None:
    """Take back what an unfinished run wrote after the checkpoint: it comes again.

    Of metrics.jsonl the training events after the checkpoint's step go, then checkpoints that are
    not whole, then the record, since a record means that a run has ended.

    Args:
        first: files that the resumed run writes anew, path to text. They come before anything goes:
            on a full disk the run stays as it is.

    Raises:
        UnfitError: metrics.jsonl cannot be read.
    """
    texts = dict(first)
    kept = [line for line in _read_lines(paths.metrics) if _is_before(line, point.step)]
    texts[paths.metrics] = "".join(f"{line.decode()}\n" for line in kept)
    for path, text in texts.items():
        write_text(path, text)
    for checkpoint in list_checkpoints(paths.checkpoints):
        if step_of(checkpoint) > point.step or find_damage(checkpoint) is not None:
            shutil.rmtree(checkpoint)
    paths.result.unlink(missing_ok=True)


def _read_lines(path: Path) -> list[bytes]:
    """Return the lines of metrics.jsonl; none where there is no such file."""
    try:
        return read_regular(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnfitError(
            f"{shown(path)}: cannot be read: {error.strerror or error}; move it away to go on "
            "without the events so far, or start without --resume"
        ) from error


def _is_before(line: bytes, last: int) -> bool:
    """Say whether an event belongs to the steps up to the checkpoint."""
    try:
        event = json.loads(line.decode())
        step = int(event.get("step", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False  # such as the last line of a run that was killed while it wrote
    if event.get("event") == "stage":
        return event.get("stage") not in ("generate", "score", "done")
    return step <= last and event.get("event") != "written"

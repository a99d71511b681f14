"""Keeps what earlier runs left: moves them aside before a new run, and records runs that could not
record themselves.

Must not know why a run ended; it is told. A move that is cut off is taken up again by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.atomic import write_json
from dialsum.errors import RunError
from dialsum.paths import RunPaths, shown, timestamp
from dialsum.reading import read_regular
from dialsum.record.read import SCHEMA_VERSION, Record, parse_moment, read_record

UNKNOWN_START = "unknown_start"
"""Folder name for what a run left that died before it wrote when it started."""


def archive_previous(paths: RunPaths) -> Path | None:
    """Move what stands at a run's place, its model too, to `previous/STARTED/`; finished or not.

    The record is moved last and rewritten on the way, so that every path in its `artifacts` stays
    true.

    Returns:
        The new folder, None where nothing stood there.

    Raises:
        RunError: something cannot be moved; what was moved until then stands in the new folder.
    """
    entries = _list_entries(paths)
    has_outside_model = _is_outside(paths) and paths.model.exists()
    if not entries and not has_outside_model:
        return None
    started = _read_start(paths)
    target = RunPaths.alone(_choose_target(paths, timestamp(started) if started else UNKNOWN_START))
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        if has_outside_model:
            shutil.move(paths.model, target.model)
        for entry in entries:
            if entry == paths.result:
                _move_result(paths, target)
            else:
                shutil.move(entry, target.folder / entry.name)
    except OSError as error:
        raise RunError(
            f"{shown(paths.folder)}: the earlier run cannot be moved to {shown(target.folder)}: "
            f"{error.strerror or error}. Move it away by hand, or write elsewhere with "
            "--output-dir."
        ) from error
    return target.folder


def _list_entries(paths: RunPaths) -> list[Path]:
    """List the run's own files in the order of moving: what says when it started, then the record,
    last."""
    if not paths.folder.is_dir():
        return []
    try:
        entries = sorted(entry for entry in paths.folder.iterdir() if entry != paths.previous)
    except OSError as error:
        raise RunError(
            f"{shown(paths.folder)}: the earlier run in it cannot be looked at: "
            f"{error.strerror or error}. Mend its permissions, or write elsewhere with --output-dir"
        ) from error
    last = [entry for entry in (paths.environment, paths.result) if entry in entries]
    return [entry for entry in entries if entry not in last] + last


def _is_outside(paths: RunPaths) -> bool:
    return not paths.model.is_relative_to(paths.folder)


def _read_start(paths: RunPaths) -> datetime | None:
    """Return when the run at paths started, None where none of its files can say."""
    for path in (paths.result, paths.environment):
        try:
            return parse_moment(json.loads(read_regular(path).decode("utf-8"))["started_at"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged or absent: exactly what the next file, or UNKNOWN_START, is for
    return None


def _choose_target(paths: RunPaths, name: str) -> Path:
    """Return a folder under previous/ that no other run has; one that a cut-off move began is gone
    on with."""
    number = 1
    while True:
        target = RunPaths.alone(paths.previous / (name if number == 1 else f"{name}_{number}"))
        began_only = name != UNKNOWN_START and not (
            target.result.exists() or target.environment.exists()
        )
        if not target.folder.exists() or began_only:
            return target.folder
        number += 1


def _move_result(paths: RunPaths, target: RunPaths) -> None:
    try:
        content = read_record(paths.result).content
    except RunError:
        # Not ours to mend: it goes along as it is, for a person to look at.
        shutil.move(paths.result, target.result)
        return
    moved = _follow_artifacts(content, paths, target)
    if "attempts" in content:
        moved["attempts"] = [_follow_artifacts(one, paths, target) for one in content["attempts"]]
    write_json(target.result, moved)
    paths.result.unlink()


def _follow_artifacts(
    content: dict[str, Any], paths: RunPaths, target: RunPaths
) -> dict[str, Any]:
    artifacts = {
        key: _follow(value, paths, target) for key, value in content.get("artifacts", {}).items()
    }
    return {**content, "artifacts": artifacts} if artifacts else dict(content)


def _follow(relative: Any, paths: RunPaths, target: RunPaths) -> Any:
    """Return an artifact's path as it is seen from the folder that the record moves to."""
    if not isinstance(relative, str):
        return relative
    absolute = Path(os.path.normpath(paths.folder / relative))
    if absolute == paths.model:
        absolute = target.model
    elif absolute.is_relative_to(paths.folder) and not absolute.is_relative_to(paths.previous):
        return relative
    return Path(os.path.relpath(absolute, target.folder)).as_posix()


def find_own_record(paths: RunPaths, *, batch: str) -> Record | None:
    """Return the record at paths if a run of that batch wrote it; None where it is missing, older
    or damaged."""
    try:
        record = read_record(paths.result)
    except RunError:
        return None
    return record if record.value("batch") == batch else None


def describe_dead_run(
    *,
    experiment: str,
    label: str,
    kind: str,
    batch: str,
    status: str,
    reason: str,
    started_at: datetime,
    finished_at: datetime,
) -> dict[str, Any]:
    """Return the record of a run that ended before it could write its own, as far as it is known
    from outside.

    Args:
        experiment, label, kind, batch: who it was, as in any record.
        status: failed or interrupted.
        reason: what happened, for the user.
        started_at, finished_at: of the process.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment,
        "label": label,
        "kind": kind,
        "batch": batch,
        "status": status,
        "reason": reason,
        "started_at": started_at.astimezone().isoformat(timespec="milliseconds"),
        "finished_at": finished_at.astimezone().isoformat(timespec="milliseconds"),
        "duration_seconds": round((finished_at - started_at).total_seconds(), 3),
    }


def write_failed_record(paths: RunPaths, content: dict[str, Any]) -> Record:
    """Write the record of a run that ended before it could write its own.

    An earlier run that still stands at the place, because the new one died before it moved it, is
    moved first.

    Args:
        paths: the run's files.
        content: as describe_dead_run returns it; what the run left behind is added as its
            artifacts.

    Raises:
        DiskFullError, RunError: the record cannot be written.
    """
    if not _belongs_to_run(paths, parse_moment(content["started_at"])):
        archive_previous(paths)
    whole = {**content, "artifacts": _find_artifacts(paths)}
    write_json(paths.result, whole)
    return Record(path=paths.result, content=whole)


def _belongs_to_run(paths: RunPaths, started_at: datetime) -> bool:
    """Tell a run that died without a record, but began to write, from an earlier run at the same
    place."""
    if paths.result.exists():
        return False
    start = _read_start(paths)
    # Times in files may be whole seconds.
    return start is not None and start >= started_at.replace(microsecond=0)


def _find_artifacts(paths: RunPaths) -> dict[str, str]:
    """Name what the dead run left that a person may want to look at; its model was never
    finished."""
    left = {
        "metrics": paths.metrics,
        "log": paths.train_log,
        "resolved_config": paths.resolved_config,
    }
    return {key: path.name for key, path in left.items() if path.exists()}

"""The folder of a run: whether this program may write there, and how an earlier run is moved aside.

A run is known by its result.json or, where it died before that, by its environment.json, which is
the first file that it writes. Only names that a run writes are moved, and all of them or none. A
move that was cut off by the death of its process is taken up again by the next one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.errors import DiskFullError, RunError, UnfitError
from dialsum.files import dump_json, read_regular, write_json, write_text
from dialsum.paths import LOCK, RunPaths, shown, timestamp
from dialsum.record import SCHEMA_VERSION, Record, parse_moment, read_record

MOST_NAMES = 3
UNTOUCHED = "nothing in it was touched"
WAY_OUT = (
    "Name a new or empty folder (trainer.py --run-dir DIR; --output-dir DIR is the folder above "
    "all runs, in trainer.py and in the runner), or move away what stands there"
)


def holds_run(folder: Path) -> bool:
    """Tell whether a run of this program stands in a folder, finished or not."""
    own = RunPaths.alone(folder)
    result, environment = _read(own.result), _read(own.environment)
    return {"schema_version", "experiment", "status"} <= result.keys() or (
        "started_at" in environment
        # Those of the first versions had no schema_version.
        and ("schema_version" in environment or {"packages", "argv"} <= environment.keys())
    )


def find_model(folder: Path) -> Path | None:
    """Return where the run in a folder keeps its model; None where none of its files says it."""
    own = RunPaths.alone(folder)
    artifacts = _read(own.result).get("artifacts")
    said = [
        _read(own.environment).get("model"),
        artifacts.get("model") if isinstance(artifacts, dict) else None,
    ]
    return next(
        (Path(os.path.normpath(folder / place)) for place in said if isinstance(place, str)), None
    )


def owns_model(paths: RunPaths) -> bool:
    """Tell whether the run at a place wrote, or was about to write, what stands as its model."""
    return holds_run(paths.folder) and find_model(paths.folder) == paths.model


def find_foreign(paths: RunPaths) -> str | None:
    """Say what stands in the way of a run that would write here; None where nothing does.

    Files of others beside a run of ours are no obstacle: they stay where they are.
    """
    return (
        _find_nesting(paths)
        or _find_foreign_in(paths.folder, ours=holds_run(paths.folder), what="run")
        or (
            _find_foreign_in(paths.model, ours=owns_model(paths), what="model")
            if paths.has_outside_model
            else None
        )
        or _find_link(paths)
    )


def _find_foreign_in(folder: Path, *, ours: bool, what: str) -> str | None:
    if os.path.lexists(folder) and not folder.is_dir():
        return f"{shown(folder)}: is a file, but the {what}'s folder goes there. {WAY_OUT}"
    try:
        names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        return f"{shown(folder)}: cannot be looked into: {error.strerror or error}. {WAY_OUT}"
    names = [name for name in names if name not in (LOCK, RunPaths.alone(folder).previous.name)]
    if not names or ours:
        return None
    lacking = (
        "no result.json or environment.json of a run of this program"
        if what == "run"
        else "no model that the run in the run's folder wrote"
    )
    return f"{shown(folder)}: holds {_quote(names)}, and {lacking}; {UNTOUCHED}. {WAY_OUT}"


def _quote(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _find_nesting(paths: RunPaths) -> str | None:
    """Refuse a place inside another run, and a model among the files of its own run."""
    folder, model = paths.folder, paths.model
    wrong_inside = not paths.has_outside_model and model != RunPaths.alone(folder).model
    if wrong_inside or folder.is_relative_to(model):
        return (
            f"{shown(model)}: a run's model goes to {shown(RunPaths.alone(folder).model)}, or to a "
            "folder outside of the run's; leave --model-dir out, or name another one"
        )
    for place in dict.fromkeys([folder, model] if paths.has_outside_model else [folder]):
        for above in place.parents:
            if holds_run(above) and RunPaths.alone(above).previous not in place.parents:
                return f"{shown(place)}: lies inside the run in {shown(above)}. {WAY_OUT}"
    return None


def _find_link(paths: RunPaths) -> str | None:
    """Refuse links where a run writes: through one it would write, move or delete elsewhere."""
    for path in (*paths.written, paths.previous):
        if path.is_symlink():
            return (
                f"{shown(path)}: is a link to {path.readlink()}, and a run neither writes nor "
                "deletes through links. Remove the link; a folder on another disk is named with "
                "--run-dir, --runs-dir or --output-dir"
            )
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it is missing, damaged or something else."""
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # not known to be ours is all that the caller asks
    return content if isinstance(content, dict) else {}


UNKNOWN_START = "unknown_start"
"""Folder name for what a run left that died before it wrote when it started."""
DRAFT = ".draft"
"""Ends the name of what is to stand at a place once everything else is done."""


def archive_previous(paths: RunPaths, *, first: Mapping[Path, str] | None = None) -> Path | None:
    """Move what a run left at a place, its model too, to `previous/STARTED/`, finished or not, and
    put the first files of the new run there: all of this, or nothing.

    The moved record is rewritten, so that every path in its `artifacts` stays true. Files of others
    beside the run's stay where they are.

    Args:
        first: path to text. They are on the disk before anything is moved: where it is full, the
            earlier run stays as it is.

    Returns:
        The new folder, None where nothing stood there.

    Raises:
        UnfitError: what stands there was not written by this program.
        DiskFullError, RunError: there is no room, or something cannot be moved; everything stands
            where it stood.
    """
    foreign = find_foreign(paths)
    if foreign is not None:
        raise UnfitError(foreign)
    change = _Change()
    try:
        for path, text in (first or {}).items():
            change.write_draft(path, text)
        target = _move_run(paths, change)
        change.place_drafts()
    except OSError as error:
        change.undo()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(paths.folder) from error
        raise RunError(
            f"{shown(paths.folder)}: the earlier run cannot be moved to {shown(paths.previous)}: "
            f"{error.strerror or error}; it stands where it stood. Move it away by hand, or write "
            "elsewhere with --output-dir."
        ) from error
    except BaseException:
        change.undo()
        raise
    change.remove_sources()
    return target


class _Change:
    """What is done to a place, step by step, so that it can be undone."""

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._drafts: list[Path] = []
        self._moved: list[tuple[Path, Path]] = []
        self._copied: list[tuple[Path, Path]] = []

    def make(self, folder: Path) -> None:
        """Make a folder and those above it that are missing."""
        for one in reversed([folder, *folder.parents]):
            if not one.is_dir():
                one.mkdir()
                self._made.append(one)

    def write_draft(self, path: Path, text: str) -> None:
        """Write a file that is to stand at path in the end; the last one is placed last."""
        self.make(path.parent)
        draft = path.with_name(path.name + DRAFT)
        self._drafts.append(draft)
        write_text(draft, text)

    def move(self, source: Path, target: Path) -> None:
        """Rename, or copy to another file system: there the source goes when all is done."""
        try:
            source.rename(target)
            self._moved.append((source, target))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            draft = target.with_name(target.name + DRAFT)
            shutil.rmtree(draft, ignore_errors=True)  # of a copy that was cut off
            self._copied.append((source, draft))
            try:
                shutil.copytree(source, draft, symlinks=True, copy_function=_copy)
            except _CopyError as failed:
                raise failed.why from failed
            draft.rename(target)
            self._copied[-1] = (source, target)

    def place_drafts(self) -> None:
        """Give each draft its name."""
        while self._drafts:
            self._drafts[0].rename(str(self._drafts[0]).removesuffix(DRAFT))
            del self._drafts[0]

    def remove_sources(self) -> None:
        """Remove what was copied to another file system."""
        for source, _ in self._copied:
            shutil.rmtree(source)

    def undo(self) -> None:
        """Bring everything back to where it stood.

        Raises:
            RunError: something cannot be moved back, with where it stands now.
        """
        for source, target in reversed(self._moved):
            try:
                target.rename(source)
            except OSError as error:
                raise RunError(
                    f"{shown(target)}: cannot be moved back to {shown(source)}: "
                    f"{error.strerror or error}; move it by hand"
                ) from error
        for _, copy in self._copied:
            shutil.rmtree(copy, ignore_errors=True)
        for draft in self._drafts:
            draft.unlink(missing_ok=True)
        for folder in reversed(self._made):
            with suppress(OSError):  # not empty: somebody else uses it by now
                folder.rmdir()


class _CopyError(Exception):
    """Ends the copy of a folder at the first file that cannot be copied, which copytree does not.

    Args:
        why: with its number, which copytree drops.
    """

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


def _copy(source: str, target: str) -> None:
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise _CopyError(error) from error


def _move_run(paths: RunPaths, change: _Change) -> Path | None:
    """Move the run that stands at a place; return its new folder, None where none stands there."""
    sources = [path for path in paths.written if os.path.lexists(path)]
    if paths.has_outside_model and paths.model.is_dir() and find_model(paths.folder) == paths.model:
        sources.insert(0, paths.model)
    if not sources:
        return None
    started = _read_start(paths)
    target = RunPaths.alone(_choose_target(paths, timestamp(started) if started else UNKNOWN_START))
    change.make(target.folder)
    try:
        content = read_record(paths.result).content
    except RunError:
        content = None  # none, or a damaged one that goes along as it is, for a person to look at
    if content is not None:
        change.write_draft(target.result, dump_json(_follow_record(content, paths, target)))
    for source in sources:
        name = target.model.name if source == paths.model else source.name
        change.move(source, target.folder / name)
    return target.folder


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
        # Environment and record are moved last.
        began_only = (
            name != UNKNOWN_START
            and not target.result.exists()
            and not (target.environment.exists() and paths.environment.exists())
        )
        if not target.folder.exists() or began_only:
            return target.folder
        number += 1


def _follow_record(content: dict[str, Any], paths: RunPaths, target: RunPaths) -> dict[str, Any]:
    """Return a record as it has to read in the folder that it moves to."""
    moved = _follow_artifacts(content, paths, target)
    if "attempts" in content:
        moved["attempts"] = [_follow_artifacts(one, paths, target) for one in content["attempts"]]
    return moved


def _follow_artifacts(content: dict[str, Any], paths: RunPaths, target: RunPaths) -> dict[str, Any]:
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
        UnfitError: something that this program did not write stands at the place.
        DiskFullError, RunError: the record cannot be written; an earlier run stays as it is.
    """
    if _belongs_to_run(paths, parse_moment(content["started_at"])):
        whole = {**content, "artifacts": _find_artifacts(paths)}
        write_json(paths.result, whole)
    else:
        whole = {**content, "artifacts": {}}
        archive_previous(paths, first={paths.result: dump_json(whole)})
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

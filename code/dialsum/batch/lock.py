"""Keeps whoever is at work in a folder alone there: a run in its own, a batch in its root.

The lock is the system's, on a file that says who holds it, and goes with the process, however that
ends. trainer.py holds its run's folder; the runner holds the folders of its root, and a run's while
it writes there itself. Where a file system knows no locks, nobody is kept out.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from dialsum.errors import UnfitError
from dialsum.files import find_half_written
from dialsum.paths import LOCK, BatchPaths, RunPaths, shown
from dialsum.record import remove_half_written, remove_left
from dialsum.text import shorten

PATIENCE_SECONDS = 0.5
"""Somebody who only asks holds a lock for a moment."""
RETRY_SECONDS = 0.05
BATCH_PID = "DIALSUM_BATCH_PID"
"""Environment variable with the number of the batch's process that a run belongs to, where that did
not start it itself: on a node of a cluster."""
MOST_CHARACTERS = 160
"""Of the command that is named."""


@contextmanager
def hold_run(paths: RunPaths) -> Iterator[None]:
    """Be the only run in a run's folder, and in its model's, until the block ends.

    Raises:
        UnfitError: another run, or another process's batch, is at work there; or the folder cannot
            be made.
    """
    with ExitStack() as stack:
        for lock in _locks_of(paths):
            stack.enter_context(_hold(lock, "run"))
        # After its own: of a batch and a run that start in one moment, one at least sees the other.
        if problem := find_batch_around(paths):
            raise UnfitError(problem)
        remove_half_written(paths)
        yield


@contextmanager
def hold_batch(paths: BatchPaths, runs: Iterable[RunPaths]) -> Iterator[None]:
    """Be the only batch in its folders, with no run by itself in them, until the block ends.

    Args:
        runs: the places of the batch's own runs.

    Raises:
        UnfitError: another batch or a run is at work there; or the folders cannot be made.
    """
    with ExitStack() as stack:
        for folder in _folders_of(paths):
            stack.enter_context(_hold(folder / LOCK, "batch"))
        for problem in find_runs_at_work(runs):
            raise UnfitError(problem)
        remove_left(_find_half_written(paths))
        yield


def _find_half_written(paths: BatchPaths) -> list[Path]:
    """Return what a killed runner left of a batch's own files; a run's go when that is held."""
    left = [
        path
        for path in find_half_written(paths.root)
        if path.name.startswith((".experiment_summary.json.", ".experiment_results_"))
    ]
    name = paths.text_summary(datetime.now()).name
    for folder in paths.log_root.glob("main_experiments_*"):
        left += find_half_written(folder, [name])
    return left


def _folders_of(paths: BatchPaths) -> list[Path]:
    return list(dict.fromkeys([paths.root, paths.runs, paths.models]))


def _locks_of(paths: RunPaths) -> list[Path]:
    # The model's folder moves and is copied: its lock stands beside it.
    beside = paths.model.with_name(f".{paths.model.name}{LOCK}")
    return [paths.folder / LOCK, *([beside] if paths.has_outside_model else [])]


def find_batches_at_work(paths: BatchPaths) -> list[str]:
    """Say who works in the folders of a batch, if somebody does."""
    # One batch holds all of them; saying it once is enough.
    found = [holder[1] for one in _folders_of(paths) if (holder := find_holder(one / LOCK))]
    return found[:1]


def find_runs_at_work(runs: Iterable[RunPaths]) -> list[str]:
    """Say for each place of a run who is at work there, if somebody is."""
    found = ([holder for lock in _locks_of(run) if (holder := find_holder(lock))] for run in runs)
    return [holders[0][1] for holders in found if holders]


def find_batch_around(paths: RunPaths) -> str | None:
    """Say which batch is at work in the folders around a run's, unless it started this process."""
    outside = [paths.model.parent] if paths.has_outside_model else []
    own = {os.getppid(), os.getpid()}
    if (batch := os.environ.get(BATCH_PID, "")).isdecimal():
        own.add(int(batch))
    for folder in dict.fromkeys([paths.folder.parent, *outside]):
        holder = find_holder(folder / LOCK)
        if holder is not None and holder[0] not in own:
            return holder[1]
    return None


def find_holder(lock: Path) -> tuple[int, str] | None:
    """Return who holds a lock: its process, and a sentence that says so with the ways out; None
    where nobody does."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None  # no file, no lock; whether one can be made is another's question
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _read_holder(descriptor, lock)
    finally:
        os.close(descriptor)


def _read_holder(descriptor: int, lock: Path) -> tuple[int, str]:
    what, pid, text = "batch or run", 0, "a process that has not said which it is"
    with suppress(OSError, ValueError, KeyError, TypeError):  # it is about to write it
        who = json.loads(os.pread(descriptor, 2**16, 0))
        host = "" if who["host"] == os.uname().nodename else f" on {who['host']}"
        text = f"process {int(who['pid'])}{host}, since {who['since']}: {who['command']}"
        what, pid = str(who["what"]), int(who["pid"])
    stop = f" (kill {pid}, or Ctrl-C there)" if pid else ""
    return pid, (
        f"{shown(lock.parent)}: another {what} is at work in this folder ({text}). Wait for its "
        f"end, stop it{stop}, or give this one another place with --output-dir DIR"
    )


@contextmanager
def _hold(lock: Path, what: str) -> Iterator[None]:
    made = make_folder(lock.parent)
    try:
        descriptor = _acquire(lock, what)
        try:
            yield
        finally:
            # Still held: who waits for this very file finds it gone, and makes another.
            lock.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        for folder in made:
            with suppress(OSError):  # not empty, as after every start
                folder.rmdir()


def make_folder(folder: Path) -> list[Path]:
    """Make a folder; return those that were made, the deepest first.

    Raises:
        UnfitError: it cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnfitError(
            f"{shown(folder)}: this folder cannot be made: {error.strerror or error}. Mend its "
            "permissions, or give another place with --output-dir DIR"
        ) from error
    return missing


def _acquire(lock: Path, what: str) -> int:
    """Return the open file of a lock that is held now, with who holds it in it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with ExitStack() as closing:
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                closing.callback(os.close, descriptor)
                if not _try(descriptor, fcntl.LOCK_EX):
                    if time.monotonic() > end:
                        raise UnfitError(_read_holder(descriptor, lock)[1])
                # Whoever held it before removed the file.
                elif lock.exists() and os.path.samestat(os.fstat(descriptor), lock.lstat()):
                    command = shlex.join([Path(sys.executable).name, *sys.argv])
                    who = {
                        "what": what,
                        "pid": os.getpid(),
                        "host": os.uname().nodename,
                        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
                        "command": shorten(command, limit=MOST_CHARACTERS),
                    }
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(who).encode(), 0)
                    closing.pop_all()
                    return descriptor
            except FileNotFoundError:
                make_folder(lock.parent)  # removed in this moment by whoever made it
            except OSError as error:
                raise UnfitError(
                    f"{shown(lock)}: cannot be written: {error.strerror or error}. Mend that, or "
                    "give another place with --output-dir DIR"
                ) from error
        time.sleep(RETRY_SECONDS)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free; True as well where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True

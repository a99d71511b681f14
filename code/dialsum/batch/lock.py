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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dialsum.errors import UnfitError
from dialsum.paths import LOCK, BatchPaths, RunPaths, shown

PATIENCE_SECONDS = 0.5
"""Somebody who only asks holds a lock for a moment."""
ASK_SECONDS = 0.05
MOST_CHARACTERS = 160
"""Of the command that is named."""


@dataclass(frozen=True)
class Holder:
    """Who is at work in a folder, as far as it said so.

    Attributes:
        what: `batch`, `run`, or both where it has not said it yet.
        pid: its process; 0 where it has not said it yet.
        text: process, command and start in words.
    """

    what: str
    pid: int
    text: str


@contextmanager
def hold_run(paths: RunPaths) -> Iterator[None]:
    """Be the only run in a run's folder, and in its model's, until the block ends.

    Raises:
        UnfitError: another run, or another process's batch, is at work there; or the folder cannot
            be made.
    """
    with ExitStack() as stack:
        stack.enter_context(_hold(paths.folder / LOCK, "run"))
        if paths.has_outside_model:
            stack.enter_context(_hold(_model_lock(paths), "run"))
        # After its own: of a batch and a run that start in one moment, one at least sees the other.
        problem = find_batch_around(paths)
        if problem is not None:
            raise UnfitError(problem)
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
        for folder in batch_folders(paths):
            stack.enter_context(_hold(folder / LOCK, "batch"))
        for problem in find_runs_at_work(runs):
            raise UnfitError(problem)
        yield


def batch_folders(paths: BatchPaths) -> list[Path]:
    """Return the folders that a batch holds."""
    return list(dict.fromkeys([paths.root, paths.runs, paths.models]))


def find_batches_at_work(paths: BatchPaths) -> list[str]:
    """Say who works in the folders of a batch, if somebody does."""
    # One batch holds all of them; saying it once is enough.
    return [problem for one in batch_folders(paths) if (problem := _find_problem(one / LOCK))][:1]


def find_runs_at_work(runs: Iterable[RunPaths]) -> list[str]:
    """Say for each place of a run who is at work there, if somebody is."""
    # A run holds its folder and its model's; saying it once is enough.
    problems = (_find_problem(run.folder / LOCK) or _find_problem(_model_lock(run)) for run in runs)
    return [problem for problem in problems if problem]


def find_batch_around(paths: RunPaths) -> str | None:
    """Say which batch is at work in the folders around a run's, unless it started this process."""
    outside = [paths.model.parent] if paths.has_outside_model else []
    for folder in dict.fromkeys([paths.folder.parent, *outside]):
        holder = find_holder(folder / LOCK)
        if holder is not None and holder.pid != os.getppid() and holder.pid != os.getpid():
            return _describe(folder / LOCK, holder)
    return None


def find_holder(lock: Path) -> Holder | None:
    """Return who holds a lock; None where nobody does."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None  # no file, no lock; whether one can be made is another's question
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _read_holder(descriptor)
    finally:
        os.close(descriptor)


def _find_problem(lock: Path) -> str | None:
    holder = find_holder(lock)
    return None if holder is None else _describe(lock, holder)


def _model_lock(paths: RunPaths) -> Path:
    """The model's folder moves and is copied: its lock stands beside it."""
    return paths.model.with_name(f".{paths.model.name}{LOCK}")


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
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise UnfitError(_describe_unwritable(lock, error)) from error
        try:
            if _try(descriptor, fcntl.LOCK_EX):
                if _is_at(descriptor, lock):
                    _sign(descriptor, what)
                    return descriptor
            elif time.monotonic() > end:
                raise UnfitError(_describe(lock, _read_holder(descriptor)))
        except OSError as error:
            os.close(descriptor)
            raise UnfitError(_describe_unwritable(lock, error)) from error
        except UnfitError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(ASK_SECONDS)


def _try(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free; True as well where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _is_at(descriptor: int, lock: Path) -> bool:
    """Tell whether a lock's file still stands at its place; whoever held it before removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), lock.lstat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int, what: str) -> None:
    """Write who holds a lock into its file: a run or a batch, and its process."""
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    who = {
        "what": what,
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command if len(command) <= MOST_CHARACTERS else f"{command[:MOST_CHARACTERS]}…",
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _read_holder(descriptor: int) -> Holder:
    try:
        who = json.loads(os.pread(descriptor, 2**16, 0))
        pid = int(who["pid"])
        host = "" if who["host"] == os.uname().nodename else f" on {who['host']}"
        text = f"process {pid}{host}, since {who['since']}: {who['command']}"
        return Holder(str(who["what"]), pid, text)
    except (OSError, ValueError, KeyError, TypeError):
        # It is about to write it.
        return Holder("batch or run", 0, "a process that has not said which it is")


def _describe(lock: Path, holder: Holder) -> str:
    """Say that somebody is at work in a folder, who, and the ways out."""
    stop = f" (kill -INT {holder.pid}, or Ctrl-C there)" if holder.pid else ""
    return (
        f"{shown(lock.parent)}: another {holder.what} is at work in this folder ({holder.text}). "
        f"Wait for its end, stop it{stop}, or give this one another place with --output-dir DIR"
    )


def _describe_unwritable(lock: Path, error: OSError) -> str:
    return (
        f"{shown(lock)}: cannot be written: {error.strerror or error}. Mend that, or give another "
        "place with --output-dir DIR"
    )

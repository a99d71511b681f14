"""Keeps two batches out of one folder: the second would move the first one's running experiments
aside.

Must not write anything: the lock is the system's, on the folder itself, and goes with the process
    that holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dialsum.errors import UnfitError
from dialsum.paths import shown


def is_held(folder: Path) -> bool:
    """Tell whether another process holds the folder now; False where it does not exist or cannot be
    locked."""
    try:
        with _hold(folder):
            return False
    except UnfitError:
        return True


@contextmanager
def hold_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Hold existing folders until the block ends.

    Raises:
        UnfitError: another batch holds one of them.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            stack.enter_context(_hold(folder))
        yield


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # no folder, no batch in it; whether it can be made is another check's question
        return
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UnfitError(describe_held(folder)) from None
        # A file system that knows no locks (some network drives): the batch runs there as it would
        # without.


def describe_held(folder: Path) -> str:
    """Say that another batch runs in a folder, and the ways out."""
    return (
        f"{shown(folder)}: another batch is running in this folder; wait for its end, stop it "
        "(Ctrl-C there), "
        "or give this one another place with --output-dir DIR"
    )

"""Says that a program runs in the environment, so that the set-up does not change its packages now.

Every run shares one lock in .venv; scripts/setup/in_use.sh takes it alone before it changes
anything. The lock is the system's and goes with the process, however that ends. Standard library
only: what is not wholly installed is waited for in words. Must not know what the program does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dialsum.errors import UnfitError

MADE_MARK = ".dialsum"
"""Stands in an environment that the project's set-up made; others are nobody's to change."""
USE_LOCK = ".dialsum-use"
"""The lock's file; each run adds its process number, for whoever is refused."""


@contextmanager
def use_environment(folder: Path | None = None) -> Iterator[None]:
    """Keep the set-up from changing the environment until the block ends.

    Does nothing in an environment that the set-up did not make, nor where no lock can be had.

    Args:
        folder: the environment; this interpreter's own when absent.

    Raises:
        UnfitError: the set-up is changing it now.
    """
    folder = folder or Path(sys.prefix)
    descriptor = _open(folder / USE_LOCK) if (folder / MADE_MARK).exists() else None
    if descriptor is None:
        yield
        return
    try:
        _share(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        return None  # an environment that cannot be written cannot be changed either


def _share(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UnfitError(
                f"{folder}: the set-up is changing this environment now; start again when it "
                "has ended. Nothing was started."
            ) from None
        # A file system without locks, or a full disk: the run goes on as it would without.

"""What of a batch could not be written, and why: gathered over files, worded once for a cause.

Must not write anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dialsum.errors import DialsumError, DiskFullError, RunError
from dialsum.paths import shown

DISK_FULL = "no space left on the disk"
WAY_OUT = "Free space, or write elsewhere with --output-dir, and start again."


class UnwrittenFilesError(RunError):
    """Files that could not be written; those written beside them are whole.

    Args:
        causes: file to why, as name_cause says it.
    """

    def __init__(self, causes: Mapping[Path, str]) -> None:
        self.causes = dict(causes)
        super().__init__("; ".join(word_causes(self.causes).values()) + f". {WAY_OUT}")


def name_cause(error: DialsumError) -> str:
    """Say why something was not written; a full disk in the same words whatever the file."""
    return DISK_FULL if isinstance(error, DiskFullError) else str(error)


def write_each(writers: Iterable[tuple[Path, Callable[[Path], None]]]) -> None:
    """Call each writer with its file; one that fails keeps none of the others from trying.

    Raises:
        UnwrittenFilesError: with every file that could not be written.
    """
    causes: dict[Path, str] = {}
    for path, write in writers:
        try:
            write(path)
        except DialsumError as error:
            causes[path] = name_cause(error)
    if causes:
        raise UnwrittenFilesError(causes)


def word_causes(causes: Mapping[Path, str]) -> dict[str, str]:
    """Return one sentence for each cause, with all that it kept from being written."""
    return {
        cause: f"{cause}; not written: "
        + ", ".join(
            shown(path) + (" (an older one stands there)" if path.exists() else "")
            for path in causes
            if causes[path] == cause
        )
        for cause in dict.fromkeys(causes.values())
    }

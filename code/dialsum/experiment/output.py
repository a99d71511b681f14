"""Copies what a run prints into its train.log, while the screen or the batch's log still gets it.

Must not know what is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from dialsum.printable import PASSING_LINE, PrintableStream


class _Copy:
    """A text stream that writes to another stream and to a file, which gets no progress bars."""

    def __init__(self, stream: TextIO, file: PrintableStream) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        # The disk of the log may be full, and threads of libraries outlive it.
        with suppress(OSError, ValueError):
            if not PASSING_LINE.match(text):
                self._file.write(text)
        return written

    def flush(self) -> None:
        self._stream.flush()
        with suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def copy_output(path: Path) -> Iterator[None]:
    """Copy stdout and stderr of this process into path until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8", buffering=1) as file:
        log = PrintableStream(file)
        sys.stdout, sys.stderr = _Copy(before[0], log), _Copy(before[1], log)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

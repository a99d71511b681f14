"""Ctrl-C, SIGTERM and the end of the terminal during one run: they end it, never its record.

Must not know what is recorded.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from dialsum.printable import PASSING_LINE, PrintableStream

AGAIN_SECONDS = 1.0
"""Signals closer than this are one wish: the second must not hit what the first has set off."""


class StopSignals:
    """Raises KeyboardInterrupt for a signal, or keeps it while nothing may be cut off.

    It keeps signals from the beginning, until `let_go`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._holding = True
        self._pending = False
        self._raised_at = float("-inf")

    def receive(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal in: keep it, or raise it."""
        if os.getpid() != self._process:
            raise KeyboardInterrupt  # a child that was forked has no record of its own
        if self._holding:
            self._pending = True
        elif time.monotonic() - self._raised_at >= AGAIN_SECONDS:
            self._raise()

    def hold(self) -> None:
        """Keep signals from now on: what follows must come to its end."""
        self._holding = True

    def let_go(self) -> None:
        """Raise KeyboardInterrupt for signals from now on, and for one that was kept."""
        self._holding = False
        if self._pending:
            self._raise()

    def _raise(self) -> None:
        self._pending = False
        self._raised_at = time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def listen_for_stop_signals() -> Iterator[StopSignals]:
    """Take in the signals that ask this process to stop; put the old handlers back at the end.

    A signal that the starter had ignored (nohup, a background job) stays ignored. Outside of the
    main thread, which alone gets signals, nothing is changed.
    """
    signals = StopSignals()
    old = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, signals.receive)
    try:
        yield signals
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


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

"""Ctrl-C, SIGTERM and the end of the terminal during one run: they end it, never its record.

Must not know what is recorded.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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

"""The wish to stop a batch: Ctrl-C, SIGTERM, the end of the terminal; heard, and acted on in time.

Must not know what is running.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.1
AGAIN_SECONDS = 0.5
"""Signals closer than this are one wish."""


class Interrupts:
    """The wishes to stop that reached the runner: kept, never raised in the middle of something.

    Attributes:
        times: when they came, seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    @property
    def wanted(self) -> bool:
        """Whether somebody wants the batch to stop."""
        return bool(self.times)

    @property
    def insisted(self) -> bool:
        """Whether somebody asked again; `timeout` and some shells send each signal twice in one
        moment."""
        return bool(self.times) and self.times[-1] - self.times[0] >= AGAIN_SECONDS

    def receive(self) -> None:
        """Take note of a signal; which one it was does not matter."""
        self.times.append(time.monotonic())

    def sleep(self, seconds: float) -> bool:
        """Wait; return False at once when somebody wants to stop."""
        end = time.monotonic() + seconds
        while not self.wanted and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))
        return not self.wanted


@contextmanager
def listen_for_interrupts() -> Iterator[Interrupts]:
    """Collect Ctrl-C, SIGTERM and the end of the terminal instead of dying of them.

    A signal that the starter had ignored (nohup, a background job) stays ignored.
    """
    interrupts = Interrupts()
    old = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            old[number] = signal.signal(number, lambda *_: interrupts.receive())
    try:
        yield interrupts
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

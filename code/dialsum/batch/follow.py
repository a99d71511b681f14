"""Follows one running experiment for the person before the screen.

Must not know processes or records: it reads the events that the run writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dialsum.batch.progress import EventFile, Rest, RunProgress, format_duration
from dialsum.batch.screen import Screen


class Follower:
    """Reads one run's events while it runs and shows them.

    Args:
        screen: where they are shown.
        metrics: the run's metrics.jsonl; what stands in it now is an earlier run's.
        title: how the run is called.
        estimate: from the seconds of this run so far, and those that its steps will take, to the
            time until the batch ends; None if unknown.
    """

    def __init__(
        self,
        screen: Screen,
        metrics: Path,
        *,
        title: str,
        estimate: Callable[[float, float | None], Rest | None],
    ) -> None:
        self._screen = screen
        self._title = title
        self._estimate = estimate
        self._progress = RunProgress()
        self._events = EventFile(metrics)
        self._events.skip_existing()
        self._started = time.monotonic()

    @property
    def progress(self) -> RunProgress:
        """What the run's events told so far."""
        return self._progress

    def poll(self) -> None:
        """Show what is new: what is worth a line of its own, else the state that passes."""
        for event in self._events.read_new():
            line = self._progress.update(event, now=time.monotonic())
            passing = event.get("event") == "stage" and self._screen.terminal
            if line is not None and not passing:
                self._screen.say(f"  {line}")
                self._screen.restart_pause()
        self._screen.show_progress(self._line)

    def _line(self) -> str:
        now = time.monotonic()
        so_far = now - self._started
        run_left = self._progress.seconds_left(now)
        rest = self._estimate(so_far, run_left)
        batch_left = None if rest is None else rest.describe()
        times = f"{format_duration(so_far)} so far"
        times += "" if run_left is None else f", {format_duration(run_left)} left"
        times += "" if batch_left is None else f", {batch_left}"
        return f"{self._title}  {self._progress.describe()}  ({times})"

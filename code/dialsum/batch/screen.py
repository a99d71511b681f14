"""What a person sees while a batch runs: lines that stay, one that is written over, and how far the
running experiments are, by their events.

Where the output is no terminal, the line that is written over becomes a plain line now and then.
Must not know plans, processes or records.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from dialsum.files import NotRegularError, open_regular
from dialsum.score.show import describe_measured
from dialsum.text import PrintableStream, cut_to_width, format_duration, visible

PLAIN_EVERY_SECONDS = 60.0
"""Pause between two progress lines where they pile up in a file."""
TERMINAL_EVERY_SECONDS = 0.5
STAGE_WORDS = {
    "start": "starting",
    "data": "reading the dialogues",
    "model": "loading tokenizer and model",
    "encode": "encoding",
    "train": "training",
    "generate": "writing summaries",
    "score": "scoring",
    "done": "done",
}


@dataclass
class Screen:
    """Writes to one stream; when its reader is gone, it falls silent and the batch goes on.

    Attributes:
        stream: usually sys.stdout.
        terminal: whether a line can be written over.
        clock: seconds, only ever growing.
    """

    stream: TextIO
    terminal: bool
    clock: Callable[[], float] = time.monotonic
    silent: bool = False
    _progress_at: float = field(default=float("-inf"))
    _progress_shown: bool = False

    @classmethod
    def on(cls, stream: TextIO) -> Screen:
        """Make a screen of a stream, looking whether it is a terminal."""
        return cls(stream=stream, terminal=stream.isatty() and os.environ.get("TERM") != "dumb")

    def __post_init__(self) -> None:
        self._printable = PrintableStream(self.stream, terminal=self.terminal)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where the output is none."""
        return shutil.get_terminal_size().columns if self.terminal else None

    def say(self, *lines: str) -> None:
        """Print lines that stay."""
        if self._progress_shown:
            self._write("\r\x1b[K")
            self._progress_shown = False
        for line in lines:
            self._write(line + "\n")

    def show_progress(self, make_line: Callable[[], str]) -> None:
        """Show a passing state, if it is time for one; the line is only made when it is shown."""
        pause = TERMINAL_EVERY_SECONDS if self.terminal else PLAIN_EVERY_SECONDS
        now = self.clock()
        if now - self._progress_at < pause:
            return
        self._progress_at = now
        if not self.terminal:
            self._write(make_line() + "\n")
            return
        self._write("\r\x1b[K" + cut_to_width(visible(make_line()), (self.width or 0) - 1))
        self._progress_shown = True

    def restart_pause(self) -> None:
        """Count the pause before the next progress line from now: something was just said."""
        self._progress_at = self.clock()

    def _write(self, text: str) -> None:
        if self.silent:
            return
        try:
            self._printable.write(text)
            self.stream.flush()
        except OSError:
            # The reader left (`| head`, a closed terminal) or its disk is full: a night's work does
            # not end for that, and everything said here stands in the batch's logs as well.
            self.silent = True
            # Python would try again at its end and turn the status to 120.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@dataclass
class EventFile:
    """A growing metrics.jsonl, read from where it was left."""

    path: Path
    _offset: int = 0

    def read_new(self) -> list[dict[str, Any]]:
        """Return the events that came since the last call; a line that is not complete yet comes
        next time."""
        try:
            with open_regular(self.path) as file:
                # A run that goes on takes back what it wrote after its checkpoint.
                self._offset = min(self._offset, file.seek(0, os.SEEK_END))
                file.seek(self._offset)
                text = file.read()
        except (FileNotFoundError, NotRegularError):
            return []  # what is no file is refused by the run itself
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        events = []
        for line in filter(bytes.strip, whole.splitlines()):
            event = None
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
            if not isinstance(event, dict):
                wrong = f"a line of metrics.jsonl is no JSON object: {line[:80]!r}"
                event = {"event": "warning", "message": wrong}
            events.append(event)
        return events


@dataclass
class RunProgress:
    """One experiment's state, as its events told it.

    Attributes:
        stage: key of STAGE_WORDS, or what the run called it; words: the same for people.
        best: the best dev rouge_mean so far, 0-100.
    """

    stage: str = "start"
    words: str = STAGE_WORDS["start"]
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    best: float | None = None
    _recent: list[tuple[float, int]] = field(default_factory=list)
    """Time and step of the events of the last half of the steps: the pace, evaluations counted in,
    without what was slow at the start."""

    def update(self, event: dict[str, Any], *, now: float) -> str | None:
        """Take one event in; return a line where it is worth one of its own.

        Args:
            event: as it stands in metrics.jsonl.
            now: clock seconds.
        """
        # What is odd in one event must not end the view of a night's runs.
        with suppress(KeyError, TypeError, ValueError):
            kind = event.get("event")
            if kind == "stage":
                self.stage = str(event.get("stage"))
                self.words = STAGE_WORDS.get(self.stage, self.stage)
                if self.stage == "generate" and "rows" in event:
                    self.words = f"writing {event['rows']:,} {event.get('split')} summaries"
                return None if self.stage == "done" else self.words
            if kind == "written":
                self.words = f"{int(event['done']):,} of {int(event['rows']):,} summaries written"
            if kind == "warning":
                return f"warning: {event.get('message')}"
            if kind in ("train", "eval"):
                self.step, self.total_steps = int(event["step"]), int(event["total_steps"])
                # What is not finite stands in records by its name.
                if "loss" in event:
                    self.loss = float(event["loss"])
                self._recent.append((now, self.step))
                while len(self._recent) > 2 and self._recent[1][1] < self.step / 2:
                    del self._recent[0]
            if kind == "eval":
                return self._take_evaluation(event)
        return None

    def _take_evaluation(self, event: dict[str, Any]) -> str:
        if event.get("best"):
            self.best = float(event["rouge_mean"])
        measured = describe_measured(rows=event.get("rows"), num_beams=event.get("num_beams"))
        titles = {"rouge1": "R1 ", "rouge2": " R2 ", "rougeL": " RL ", "rouge_mean": ", mean "}
        scores = "".join(
            f"{title}{float(event[key]):.2f}" for key, title in titles.items() if key in event
        )
        place = f"dev ({measured}):" if measured else "dev"
        best = " (best so far)" if event.get("best") else ""
        return f"{self.describe_step()}  {place} {scores}{best}"

    def describe_step(self) -> str:
        """Return `step 400/1,556  loss 1.830`, without what is not known yet."""
        total = "" if self.total_steps is None else f"/{self.total_steps:,}"
        loss = "" if self.loss is None else f"  loss {self.loss:.3f}"
        return f"step {self.step:,}{total}{loss}"

    def seconds_left(self, now: float) -> float | None:
        """Return the time that the remaining steps take at the pace of the last ones, evaluations
        counted in; None if unknown, and after the last step, when only its evaluation is left.

        Between two events as many steps are taken for done as the pace says, but no more than
        usually lie between two: what takes longer slows the pace, and nothing jumps.
        """
        if self.stage != "train" or self.total_steps is None or len(self._recent) < 2:
            return None
        (began, first), (latest, last) = self._recent[0], self._recent[-1]
        if last <= first or latest <= began or last >= self.total_steps:
            return None
        usual = max(later - earlier for (_, earlier), (_, later) in pairwise(self._recent))
        unseen = min((now - latest) * (last - first) / (latest - began), usual)
        done = min(last + unseen, float(self.total_steps))
        return (self.total_steps - done) * (now - began) / (done - first)

    def describe(self) -> str:
        """Return the state as a short line: it has to fit a terminal beside times."""
        state = self.describe_step() if self.stage == "train" else self.words
        return state if self.best is None else f"{state}  best {self.best:.2f}"


def estimate_rest(
    running: Sequence[tuple[float | None, float, float | None]],
    waiting: Sequence[float | None],
    *,
    finished: Sequence[tuple[float | None, float]],
    slots: int = 1,
) -> str | None:
    """Return `about 1 h 20 m left in the batch`; None before anything was measured on this machine.

    What is finished says how fast this machine is against the expectation; without expectations,
    each of the rest takes the mean of what is finished.

    Args:
        running: of each that runs the seconds that were expected (None: unknown), that it runs
            already, and that its remaining steps take (None: they do not say).
        waiting: expected seconds of those after them, None where unknown.
        finished: expected and taken seconds of those that succeeded in this batch.
        slots: how many run at the same time.
    """
    if not running or not any(taken > 0 for _, taken in finished):
        return None
    asked = [*(expected for expected, _, _ in running), *waiting]
    known = [value for value in asked if value is not None]
    compared = [(expected, taken) for expected, taken in finished if expected]
    if compared and len(known) == len(asked):
        factor = sum(taken for _, taken in compared) / sum(expected for expected, _ in compared)
        each = [factor * value for value in known]
    else:
        each = [sum(taken for _, taken in finished) / len(finished)] * len(asked)
    left = [
        max(whole - so_far, steps or 0.0)
        for whole, (_, so_far, steps) in zip(each, running, strict=False)
    ]
    # Overdue, and its steps do not say how long it still takes: that part is left out.
    how = "about" if all(seconds > 0 for seconds in left) else "at least"
    left = [max(seconds, 0.0) for seconds in left]
    rest = max(*left, (sum(left) + sum(each[len(left) :])) / slots)
    return f"{how} {format_duration(rest)} left in the batch" if rest > 0 else None

"""What is known of a running experiment from its events, and how long it and the batch will still
take.

Must not know terminals or processes: events in, text out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from dialsum.files import NotRegularError, open_regular
from dialsum.score.show import describe_measured

C = TypeVar("C", int, int | None)

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
class EventFile:
    """A growing metrics.jsonl, read from where it was left.

    What stood there before `skip_existing` belongs to an earlier run and is never given out; a file
    that was replaced by a new one is read from its beginning.
    """

    path: Path
    _inode: int | None = None
    _offset: int = 0

    def skip_existing(self) -> None:
        """Take everything that stands in the file now as read."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        self._inode, self._offset = status.st_ino, status.st_size

    def read_new(self) -> list[dict[str, Any]]:
        """Return the events that came since the last call; a line that is not complete yet comes
        next time."""
        try:
            with open_regular(self.path) as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                text = file.read()
        except (FileNotFoundError, NotRegularError):
            return []  # what is no file is refused by the run itself
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_parse(line) for line in whole.splitlines() if line.strip()]


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if isinstance(event, dict):
        return event
    return {
        "event": "warning",
        "message": f"a line of metrics.jsonl is no JSON object: {line[:80]!r}",
    }


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
        kind = event.get("event")
        if kind == "stage":
            self.stage = str(event.get("stage"))
            self.words = _word_stage(event, self.stage)
            return None if self.stage == "done" else self.words
        if kind == "warning":
            return f"warning: {event.get('message')}"
        if kind == "train" or kind == "eval":
            self._take_step(event, now)
        if kind == "eval":
            return self._take_evaluation(event)
        return None

    def _take_step(self, event: dict[str, Any], now: float) -> None:
        self.step = _count(event.get("step"), self.step)
        self.total_steps = _count(event.get("total_steps"), self.total_steps)
        if "loss" in event:
            self.loss = _finite(event["loss"], math.nan)
        self._recent.append((now, self.step))
        while len(self._recent) > 2 and self._recent[1][1] < self.step / 2:
            del self._recent[0]

    def _take_evaluation(self, event: dict[str, Any]) -> str:
        mean = _finite(event.get("rouge_mean"), None)
        if event.get("best") and mean is not None:
            self.best = mean
        measured = describe_measured(
            rows=_count(event.get("rows"), None), num_beams=_count(event.get("num_beams"), None)
        )
        scores = " ".join(
            f"{short} {value:.2f}"
            for short, key in (("R1", "rouge1"), ("R2", "rouge2"), ("RL", "rougeL"))
            if (value := _finite(event.get(key), None)) is not None
        )
        mean_text = "" if mean is None else f", mean {mean:.2f}"
        place = f"dev ({measured}):" if measured else "dev"
        return f"{self.describe_step()}  {place} {scores}{mean_text}" + (
            " (best so far)" if event.get("best") else ""
        )

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


def _word_stage(event: dict[str, Any], stage: str) -> str:
    """Say a stage for people; which summaries are written, where the run tells."""
    words = STAGE_WORDS.get(stage, stage)
    rows, split = _count(event.get("rows"), None), event.get("split")
    if stage != "generate" or rows is None or not isinstance(split, str):
        return words
    return f"writing {rows:,} {split} summaries"


def _count(value: Any, otherwise: C) -> C:
    """Return a whole number; what is none must not end a run that only shows it."""
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _finite(value: Any, otherwise: float | None) -> float | None:
    """Return a number as float; records name what is not finite, which becomes nan."""
    if value is None or isinstance(value, bool):
        return otherwise
    try:
        return float(value)
    except (TypeError, ValueError):
        return otherwise


@dataclass(frozen=True)
class Rest:
    """Seconds until a batch ends.

    Attributes:
        at_least: whether the running experiment's own part is unknown and not in them.
    """

    seconds: float
    at_least: bool

    def describe(self) -> str | None:
        """Return `about 1 h 20 m left in the batch`; None where nothing can be said."""
        if self.at_least and self.seconds <= 0:
            return None
        how = "at least" if self.at_least else "about"
        return f"{how} {format_duration(self.seconds)} left in the batch"


def estimate_rest(
    rest: Sequence[float | None],
    *,
    finished: Sequence[tuple[float | None, float]],
    current_seconds: float,
    current_left: float | None = None,
) -> Rest | None:
    """Estimate the time until the batch ends; None before anything was measured on this machine.

    What is finished says how fast this machine is against the expectation; without expectations,
    each of the rest takes the mean of what is finished.

    Args:
        rest: seconds expected for the running experiment and those after it, None where unknown.
        finished: expected and taken seconds of those that succeeded in this batch.
        current_seconds: how long the running one runs already.
        current_left: what its remaining steps take; None where its steps do not say.
    """
    if not rest or not any(taken > 0 for _, taken in finished):
        return None
    known = [value for value in rest if value is not None]
    compared = [(expected, taken) for expected, taken in finished if expected]
    if compared and len(known) == len(rest):
        factor = sum(taken for _, taken in compared) / sum(expected for expected, _ in compared)
        each = [factor * value for value in known]
    else:
        each = [sum(taken for _, taken in finished) / len(finished)] * len(rest)
    current = max(each[0] - current_seconds, current_left or 0.0)
    # Overdue, and its steps do not say how long it still takes: that part is left out.
    return Rest(max(current, 0.0) + sum(each[1:]), at_least=current <= 0)


def format_duration(seconds: float) -> str:
    """Return a duration for people: `58 s`, `3 m 20 s`, `45 m`, `1 h 20 m`."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} m" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"

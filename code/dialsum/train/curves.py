"""A run's curves for TensorBoard and Weights & Biases, from its metrics.jsonl: while it trains, by
a process of its own beside it (train/tracking.py), or afterwards (scripts/curves.py).

Nobody waits for what happens here. Must not know the run: it has the file alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from dialsum.errors import explain_os_error, first_line
from dialsum.lifeline import end_with

POLL_SECONDS = 1.0
"""Between two looks at the file of a run that trains."""
BEGIN_SECONDS = 60.0
"""For W&B to begin; the run does not wait for it."""
MOST_CHARACTERS = 300  # of an error's text in the record
MOST_BYTES = 4096  # of an answer

KINDS = {"train": "train", "eval": "dev"}
"""Events that are points of curves, and how the curves' names begin."""
NO_CURVES = ("step", "total_steps", "rows", "num_beams")
"""Numbers of an event that are none."""

MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""W&B's words for its mode, its old ones too, and the one that each stands for."""


class Point(NamedTuple):
    """One step of the curves.

    Args:
        moment: seconds since 1970.
        values: by curve, such as `train/loss`.
    """

    step: int
    moment: float
    values: dict[str, float]


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        scores: the final ones on dev, 0-100.
        exit_code: 0 for a success.
    """

    scores: dict[str, float] = field(default_factory=dict)
    exit_code: int = 1


@dataclass(frozen=True)
class Order:
    """What a tracker is to do, as JSON can hold it.

    Args:
        tracker: `tensorboard` or `wandb`.
        metrics: the run's metrics.jsonl.
        folder: where the tracker writes.
        project, entity, name, group, config: of the W&B run.
        id: of the W&B run; one that is there already gets what it lacks.
    """

    tracker: Literal["tensorboard", "wandb"]
    metrics: str
    folder: str
    project: str = ""
    entity: str | None = None
    name: str = ""
    group: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    id: str = ""


class OffError(Exception):
    """A tracker that is not to be had; the text says why."""


class Tracker(Protocol):
    """Takes points.

    Attributes:
        status: for the record: used (on, offline) and what else is known.
    """

    status: dict[str, str]

    def add(self, points: list[Point]) -> None:
        """Take points, in order of time."""

    def finish(self, ending: Ending, /) -> None:
        """Write or send all that was taken."""


class TensorBoard:
    """Writes all of a run's curves anew into one file of events.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, order: Order) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = Path(order.folder)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = EventFileWriter(str(folder))
        self.status = {"used": "on"}

    def add(self, points: list[Point]) -> None:
        """Write points, and have them on the disk."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            values = [
                Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()
            ]
            self._writer.add_event(
                Event(wall_time=point.moment, step=point.step, summary=Summary(value=values))
            )
        self._writer.flush()

    def finish(self, _: Ending, /) -> None:
        """Close the file."""
        self._writer.close()


class Wandb:
    """One run of Weights & Biases.

    Raises:
        OffError: its address does not answer, or its own settings turn it off.
        Exception: W&B raises its own errors, the network's, its service's.
    """

    def __init__(self, order: Order) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if said := read_mode():
            os.environ["WANDB_MODE"] = MODES[said]  # W&B takes small letters alone
        import wandb
        from wandb.sdk import wandb_setup

        settings = wandb_setup.singleton().settings
        mode = MODES.get(settings.mode, "online")
        if mode == "disabled":
            raise OffError("its own settings say disabled (`wandb online` turns it on)")
        if mode != "offline":
            find_answer(settings.base_url)
        self._run = wandb.init(
            project=order.project,
            entity=order.entity,
            name=order.name,
            group=order.group,
            mode=mode,
            id=order.id,  # its settings may name one for every run
            resume="allow",
            config=order.config,
            dir=order.folder,
            settings=wandb.Settings(
                init_timeout=BEGIN_SECONDS,
                login_timeout=BEGIN_SECONDS,
                console="off",
                disable_git=True,
                save_code=False,
            ),
        )
        self.status = {"used": "on"}
        if self._run.offline:
            where = "WANDB_MODE is" if said else "its own settings say"
            self.status = {"used": "offline", "why": f"{where} {said or settings.mode}"}
        if getattr(self._run, "url", None):
            self.status["url"] = str(self._run.url)

    def add(self, points: list[Point]) -> None:
        """Hand points to W&B's service, which sends them."""
        for point in points:
            self._run.log({**point.values, "_timestamp": point.moment}, step=point.step)

    def finish(self, ending: Ending, /) -> None:
        """Send what is left, the final scores too."""
        self._run.summary.update({f"final/{key}": one for key, one in ending.scores.items()})
        self._run.finish(exit_code=ending.exit_code)


TRACKERS: dict[str, Callable[[Order], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb}


def read_mode() -> str:
    """Return what WANDB_MODE says, in small letters; empty where it says nothing."""
    return os.environ.get("WANDB_MODE", "").strip().lower()


def find_answer(base_url: str, *, max_seconds: float = 15.0) -> None:
    """Return once W&B's address has answered a question, whatever it answers.

    W&B itself tries a dead address for long, and does not say then what is wrong.

    Raises:
        OffError: no connection, no answer in time, or not W&B's answer.
    """
    import ssl
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    parts = urlsplit(base_url)
    place = parts.netloc.rpartition("@")[2] or base_url  # without a name and password
    url = parts._replace(netloc=place).geturl()
    wrong = ""
    try:
        request = Request(
            f"{url.rstrip('/')}/graphql",
            data=b'{"query": "query { viewer { id } }"}',
            headers={"Content-Type": "application/json", "User-Agent": "dialsum"},
        )
        with urlopen(request, timeout=max_seconds) as answer:
            if not answer.read(MOST_BYTES).lstrip().startswith(b"{"):
                wrong = "answers, but not as W&B does"
    except HTTPError as error:
        # It refuses a question without a key; that is an answer.
        wrong = "" if error.code < 500 else f"answers {error.code} {error.reason}"
    except OSError as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            wrong = f"has not answered within {max_seconds:g} s"
        elif not isinstance(cause, ssl.SSLError):  # it is there; W&B has certificates of its own
            wrong = f"cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    except HTTPException:
        wrong = "answers, but not as W&B does"
    except ValueError as error:
        wrong = f"is no address: {error}"
    if wrong:
        raise OffError(f"{place} {wrong}")


def find_points(lines: list[bytes]) -> list[Point]:
    """Return the points of curves among the lines of a metrics.jsonl.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: a line is no event.
    """
    points = []
    for event in map(json.loads, lines):
        kind = KINDS.get(event["event"])
        if kind is None:
            continue
        values = {
            f"{kind}/{key}": float(value)
            for key, value in event.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and key not in NO_CURVES
        }
        moment = datetime.fromisoformat(event["time"]).timestamp()
        points.append(Point(step=event["step"], moment=moment, values=values))
    return points


def find_wandb_id(metrics: Path) -> str | None:
    """Return the id of the W&B run that a run's curves went to, or were to go to; None: of none."""
    if not metrics.is_file():
        return None
    for line in metrics.read_bytes().splitlines():
        if b'"event": "wandb"' in line:
            return str(json.loads(line)["id"])
    return None


def follow(metrics: Path, ended: threading.Event) -> Iterator[list[Point]]:
    """Give the points of a run that trains, as they come, until it has ended.

    Raises:
        OSError: the file cannot be read.
        ValueError, KeyError, TypeError, AttributeError: as find_points.
    """
    while not metrics.exists() and not ended.wait(POLL_SECONDS):
        pass
    rest = b""
    with metrics.open("rb") as file:
        last = False
        while not last:
            last = ended.is_set()
            whole, _, rest = (rest + file.read()).rpartition(b"\n")
            if points := find_points(whole.splitlines()):
                yield points
            if not last:
                ended.wait(POLL_SECONDS)


def send(order: Order, ending: Ending) -> dict[str, str]:
    """Send or write all curves of a run that has ended, however long it takes; return the tracker's
    status.

    Raises:
        OffError: the tracker is not to be had.
        OSError: metrics.jsonl cannot be read, or the curves not written.
        ValueError, KeyError, TypeError, AttributeError: as find_points.
        Exception: as Wandb.
    """
    lines = Path(order.metrics).read_bytes().splitlines(keepends=True)
    # A run that was killed in the midst of a write leaves half a line.
    points = find_points([line for line in lines if line.endswith(b"\n")])
    tracker = TRACKERS[order.tracker](order)
    tracker.add(points)
    tracker.finish(ending)
    return tracker.status


def explain(error: Exception) -> str:
    """Say in a line why a tracker failed."""
    if isinstance(error, OSError) and error.errno is not None:
        return explain_os_error(error)
    text = first_line(error)[:MOST_CHARACTERS]
    return text if isinstance(error, OffError) else f"{type(error).__name__}: {text}"


def main() -> None:
    """Follow a run: the order comes as the first line of standard input, its Ending as the second;
    statuses go to standard output, a JSON line each."""
    end_with(int(sys.argv[1]))
    # What libraries print is no status.
    statuses = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def tell(**status: object) -> None:
        with suppress(OSError):  # nobody listens any more
            statuses.write(json.dumps(status) + "\n")

    order = Order(**json.loads(sys.stdin.readline()))
    ended = threading.Event()
    last: list[Ending] = []

    def wait_for_end() -> None:
        last.append(Ending(**json.loads(sys.stdin.readline() or "{}")))
        ended.set()

    # Beginning may hang, and the run's end must be known all the same.
    threading.Thread(target=wait_for_end, name="run-end", daemon=True).start()
    begun = False
    try:
        tracker = TRACKERS[order.tracker](order)
        begun = True
        tell(**tracker.status)
        for points in follow(Path(order.metrics), ended):
            tracker.add(points)
        tracker.finish(last[0])
        tell(sent=True)
    # W&B raises its own errors, the network's, its service's; whichever, the run is told.
    except Exception as error:
        tell(used="off", why=f"{'stopped' if begun else 'could not start'}: {explain(error)}")
        os._exit(1)  # W&B would wait for a service that does not answer


def to_line(what: Order | Ending) -> bytes:
    """Return what goes to a follower's standard input."""
    return json.dumps(asdict(what)).encode() + b"\n"

"""TensorBoard and Weights & Biases of a run, each in a process of its own that follows the run's
metrics.jsonl (train/curves.py): one that fails, hangs or never begins holds up no run.

Must not know the loop, nor import a tracker.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from dialsum.config.schema import Tracking
from dialsum.files import append_json_line
from dialsum.lifeline import run_main
from dialsum.paths import PROJECT_ROOT, RunPaths, in_command
from dialsum.train.curves import MODES, Ending, Order, find_wandb_id, read_mode, to_line

FINISH_SECONDS = 4.0
"""What all trackers together get at a run's end for what they have not written or sent yet."""
KILL_SECONDS = 0.5
"""For a process that was killed to be gone."""
TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}


def find_why_off(asked: Tracking) -> str | None:
    """Return why W&B is off before anything of it is asked; None where it is to be tried."""
    mode = read_mode()
    disabled = os.environ.get("WANDB_DISABLED", "").strip()
    if asked.wandb is False:
        return "tracking.wandb is false"
    if mode == "disabled":
        return "WANDB_MODE is disabled in the environment"
    if disabled.lower() in ("1", "true", "t", "yes", "y", "on"):
        return f"WANDB_DISABLED is {disabled} in the environment"
    if mode and mode not in MODES:
        return f"WANDB_MODE is {mode[:20]!r}; set it to one of {', '.join(MODES)}"
    if MODES.get(mode) != "offline" and not os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY is set neither in the environment nor in .env"
    return None


class Follower:
    """The process of one tracker.

    Attributes:
        record: for result.json: used (on, offline, off), why, url; empty until it has begun.
        sent: all was written or sent.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, order: Order) -> None:
        self.title, self.record, self.sent = TITLES[order.tracker], dict[str, Any](), False
        self._rest = b""
        # What W&B leaves there when it is ended goes with it.
        self._scratch = tempfile.TemporaryDirectory(
            prefix="dialsum-tracker-", ignore_cleanup_errors=True
        )
        self._process = subprocess.Popen(
            # In the run's own group, which is ended as one.
            [*run_main("dialsum.train.curves"), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self._scratch.name},
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self._statuses = self._process.stdin, self._process.stdout
        os.set_blocking(self._statuses.fileno(), False)
        self.tell(order)

    def tell(self, what: Order | Ending) -> None:
        """Hand the process its order, then how the run ended."""
        # A process that does not read must not be waited for: what a pipe does not hold is lost.
        os.set_blocking(self._orders.fileno(), False)
        with suppress(OSError):
            self._orders.write(to_line(what))

    def look(self) -> bool:
        """Take in what the process has told since; return whether that was anything."""
        before = dict(self.record)
        self._rest += self._statuses.read() or b""
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            status = json.loads(line)
            self.sent = self.sent or status.pop("sent", False)
            self.record |= status
        if not self.sent and self.record.get("used") != "off" and self._process.poll() is not None:
            self.record |= {"used": "off", "why": f"stopped: its process ended, {self._how()}"}
        return self.record != before

    def _how(self) -> str:
        status = self._process.returncode
        return f"signal {-status}" if status < 0 else f"status {status}"

    def end(self, deadline: float) -> bool:
        """Wait for it to write or send all until the deadline (time.monotonic()), and end its
        process and all that this has started; return whether it told anything new."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        new = self.look()
        with suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    process.kill()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        self._scratch.cleanup()
        self._orders.close()
        self._statuses.close()
        if not self.record:
            self.record = {"used": "off", "why": "could not start before the run had ended"}
            new = True
        return new


def order_tensorboard(paths: RunPaths) -> Order:
    """Return what has TensorBoard write a run's curves."""
    return Order("tensorboard", metrics=str(paths.metrics), folder=str(paths.tensorboard))


def order_wandb(
    asked: Tracking, *, paths: RunPaths, name: str, group: str | None, config: Mapping[str, Any]
) -> Order:
    """Return what has W&B take a run's curves, once it has an id (with_id)."""
    return Order(
        "wandb",
        metrics=str(paths.metrics),
        folder=str(paths.folder),
        project=asked.project,
        entity=asked.entity,
        name=name,
        group=group,
        config=dict(config),
    )


def with_id(order: Order) -> Order:
    """Return it with the id of the W&B run that the curves went to before, which gets what it
    lacks; else with a new one, which metrics.jsonl tells from now on."""
    metrics = Path(order.metrics)
    if (known := find_wandb_id(metrics)) is None:
        known = uuid.uuid4().hex[:12]
        moment = datetime.now().astimezone().isoformat(timespec="milliseconds")
        append_json_line(metrics, {"time": moment, "event": "wandb", "id": known})
    return replace(order, id=known)


def name_command(tracker: str, folder: Path) -> str:
    """Return the command that writes or sends a run's curves afterwards."""
    words = (Path(sys.executable), PROJECT_ROOT / "scripts" / "curves.py", folder)
    return shlex.join([*map(in_command, words), f"--{tracker}"])


def find_numbers(scores: Any) -> dict[str, float]:
    """Return the numbers among a record's scores on dev; none where it has no scores."""
    found = scores if isinstance(scores, dict) else {}
    return {key: one for key, one in found.items() if isinstance(one, float)}


class Followers:
    """The trackers of one run, from its start to its end; nobody waits for them but there, and then
    no longer than FINISH_SECONDS for all.

    Args:
        asked: by the config.
        warn: says and records something that the user should look at.
        name, group, config: of the W&B run.

    Attributes:
        record: for result.json: of W&B requested, used (on, offline, off), why, url and
            unsent (true: it lacks points); the same of TensorBoard in `tensorboard`.
    """

    def __init__(
        self,
        asked: Tracking,
        *,
        paths: RunPaths,
        warn: Callable[[str], None],
        name: str,
        group: str | None,
        config: Mapping[str, Any],
    ) -> None:
        self._warn, self._folder = warn, paths.folder
        self._ways: dict[str, Follower] = {}
        self._off: dict[str, dict[str, str]] = {}
        self._requested = str(asked.wandb).lower()
        if asked.tensorboard:
            self._start(order_tensorboard(paths))
        else:
            self._off["tensorboard"] = {"used": "off", "why": "tracking.tensorboard is false"}
        if (why := find_why_off(asked)) is None:
            order = order_wandb(asked, paths=paths, name=name, group=group, config=config)
            self._start(with_id(order))
        else:
            self._off["wandb"] = {"used": "off", "why": why}
            print(f"{TITLES['wandb']} off: {why}", flush=True)

    def _start(self, order: Order) -> None:
        try:
            self._ways[order.tracker] = Follower(order)
        except OSError as error:
            why = f"could not start: {error.strerror or error}"
            self._off[order.tracker] = {"used": "off", "why": why}
            self._warn(f"{TITLES[order.tracker]} off: {why}")

    def look(self) -> None:
        """Say what the trackers have told since; call it now and then."""
        for name, follower in self._ways.items():
            if follower.look():
                self._say(name, follower.record)

    def _say(self, name: str, record: Mapping[str, Any]) -> None:
        title = TITLES[name]
        if record["used"] == "off":
            self._warn(f"{title} off: {record['why']}; the run goes on. {self._explain(name)}")
        elif record["used"] == "offline":
            print(f"{title} offline, in the run folder: {record['why']}", flush=True)
        elif "url" in record:
            print(f"{title} on: {record['url']}", flush=True)

    def _explain(self, name: str) -> str:
        return f"metrics.jsonl holds all; send it later: {name_command(name, self._folder)}"

    def finish(self, scores: Any, *, exit_code: int) -> dict[str, Any]:
        """End the trackers, and return the record.

        Args:
            scores: the record's on dev, if any.
            exit_code: the run's, 0 for a success.
        """
        # metrics.jsonl may be what cannot be written any more, and the record is still to come.
        self._warn = lambda message: print(f"warning: {message}", flush=True)
        deadline = time.monotonic() + FINISH_SECONDS
        for follower in self._ways.values():
            follower.tell(Ending(find_numbers(scores), exit_code=exit_code))
        for name, follower in self._ways.items():
            if follower.end(deadline):
                self._say(name, follower.record)
            record = follower.record
            if not follower.sent:
                record["unsent"] = True
                if record["used"] != "off":
                    self._warn(
                        f"{follower.title} has not taken everything in {FINISH_SECONDS:g} s. "
                        f"{self._explain(name)}"
                    )
        found = self._off | {name: follower.record for name, follower in self._ways.items()}
        return {"requested": self._requested, **found["wandb"], "tensorboard": found["tensorboard"]}

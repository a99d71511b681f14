"""One experiment on a node of a Ray cluster: its process is a Child as on the runner's own machine.

It runs in place where the node sees the runner's folders, which a token in them shows; else in a
temporary folder, and what it leaves is packed for the runner to fetch. Must not import Ray, nor
write into the batch's own files: the runner alone does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dialsum.batch.cards import read_card_use, wait_until_free
from dialsum.batch.child import Child, ChildEnd, Interrupts
from dialsum.batch.lock import BATCH_PID
from dialsum.errors import EXIT_FAILED, RunError
from dialsum.experiment.job import Job
from dialsum.files import write_json, write_text
from dialsum.machine.devices import DriverError, nvidia_gpus, visible_gpus
from dialsum.paths import RunPaths, shared_token
from dialsum.record import read_json_object

PIECE_BYTES = 8 * 2**20
"""Most that goes to the runner at once."""
PARENT_SECONDS = 0.5
TEMPORARY = "dialsum-run-"
"""Begins the name of a node's temporary folder."""


@dataclass(frozen=True)
class Order:
    """What the runner asks of a node.

    Args:
        job: as Job.to_json returns it; resume: whether it goes on from its checkpoint.
        trainer: program and first arguments of the experiment's process.
        token: what the token files of folders hold that the node shares with the runner.
        environment: added to the node's own.
        batch_pid: the runner's process, which holds the batch's folders.
        grace_seconds, patience_seconds: as a Child takes them.
    """

    job: str
    resume: bool
    trainer: tuple[str, ...]
    token: str
    environment: dict[str, str]
    batch_pid: int
    grace_seconds: float
    patience_seconds: float | None


@dataclass(frozen=True)
class News:
    """What came since the runner asked last.

    Attributes:
        log: what the process printed; metrics: of a run that is not in place, its events.
        end: how the process ended; None while it runs, and while there is more to read.
        note: what there is to say of the node's cards after it.
    """

    log: bytes
    metrics: bytes
    end: ChildEnd | None
    note: str


class NodeRun:
    """A running experiment on this node.

    Attributes:
        in_place: whether it runs in the runner's own folders.
        pid: of its process, on this node.

    Raises:
        RunError: its process cannot be started.
        OSError: the temporary folder cannot be made.
    """

    def __init__(self, order: Order) -> None:
        # Ray keeps Ctrl-C from its workers; what they start would be deaf to it too.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._job = Job.from_json(order.job)
        self._folder = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        self._log, self._pack = self._folder / "log", self._folder / "pack.tar"
        asked = self._job.paths
        self.in_place = all(_shares(folder, order.token) for folder in folders_of(asked))
        self._paths = asked if self.in_place else _move_below(self._folder / "files", asked)
        if not self.in_place:
            moved = replace(self._job, paths=self._paths)
            write_text(self._paths.job, moved.to_json())
        self._end: ChildEnd | None = None
        self._looked_after = threading.Lock()
        self._note = ""
        self._cooling = threading.Thread(target=self._wait_for_cards, daemon=True)
        environment = {**order.environment, BATCH_PID: str(order.batch_pid)}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if cards := [one.uuid for one in visible_gpus(nvidia_gpus(), visible)]:
            # Ray counts in the order of the bus, CUDA by speed.
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
        # Another experiment that starts or ends beside this one uses other cards.
        self._cards = cards
        self._use_before = read_card_use(cards)
        resume = ["--resume"] if order.resume and self.in_place else []
        try:
            self._child = Child(
                [*order.trainer, "--job", str(self._paths.job), *resume],
                log=self._log,
                environment=environment,
                grace_seconds=order.grace_seconds,
                patience_seconds=order.patience_seconds,
            )
        except RunError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.pid = self._child.pid
        threading.Thread(target=self._end_with, args=(os.getppid(),), daemon=True).start()

    def follow(self, wishes: Sequence[float], *, log_at: int, metrics_at: int) -> News:
        """Look after the process, and return what is new.

        Args:
            wishes: when somebody wanted the batch to stop, seconds of the runner's clock.
            log_at, metrics_at: bytes that the runner has.

        Raises:
            RunError: the process was killed and does not vanish.
        """
        interrupts = Interrupts()
        interrupts.times += wishes
        with self._looked_after:
            if self._end is None:
                self._end = self._child.poll(interrupts)
                if self._end is not None:
                    self._cooling.start()
        log = _read_from(self._log, log_at)
        metrics = b"" if self.in_place else _read_from(self._paths.metrics, metrics_at)
        more = log or metrics or (self._cooling.is_alive() and not wishes)
        return News(log, metrics, None if more else self._end, self._note)

    def _wait_for_cards(self) -> None:
        """Keep the node's cards until they are free, and for the cool-down; note what stays."""
        settings = self._job.config.batch

        def sleep(seconds: float) -> bool:
            time.sleep(seconds)
            return True

        try:
            self._note = wait_until_free(
                self._use_before,
                group=self.pid,
                timeout_seconds=settings.free_timeout_seconds,
                cooldown=settings.cooldown,
                sleep=sleep,
                read_use=lambda: read_card_use(self._cards),
            )[1]
        except DriverError as error:
            self._note = f"warning: {error}"

    def _end_with(self, raylet: int) -> None:
        """End this process and the experiment's once the node's raylet, its parent, is gone: the
        cluster takes the node for dead then, but Ray lets its actors live on."""
        while os.getppid() == raylet:
            time.sleep(PARENT_SECONDS)
        # Never given back: the runner may still be heard, and a look at what is gone would tell it
        # that the experiment failed, where its node is lost.
        self._looked_after.acquire()
        try:
            self.close()
        finally:
            os._exit(EXIT_FAILED)

    def pack(self) -> int:
        """Pack what a run left that is not in place, checkpoints left out; return the bytes."""
        paths = self._paths
        content = read_json_object(paths.result)
        if isinstance(artifacts := content.get("artifacts"), dict):
            artifacts.pop("checkpoints", None)
            write_json(paths.result, content)
        with tarfile.open(self._pack, "w") as archive:
            for path in paths.written:
                if path != paths.checkpoints and path.exists():
                    archive.add(path, arcname=f"run/{path.relative_to(paths.folder)}")
            if paths.has_outside_model and paths.model.exists():
                archive.add(paths.model, arcname="model")
        return self._pack.stat().st_size

    def read_pack(self, offset: int) -> bytes:
        """Return the next piece of what was packed."""
        return _read_from(self._pack, offset)

    def close(self) -> None:
        """Kill what still runs, and remove the temporary folder.

        Raises:
            RunError: the process does not vanish.
        """
        try:
            self._child.kill()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def folders_of(paths: RunPaths) -> list[Path]:
    """Return the folders of a run's own and of its model, which a node may share."""
    return list(dict.fromkeys([paths.folder.parent, paths.model.parent]))


def _shares(folder: Path, token: str) -> bool:
    try:
        return shared_token(folder).read_text(encoding="utf-8") == token
    except OSError:
        return False  # another disk of the same name, or none


def _move_below(folder: Path, paths: RunPaths) -> RunPaths:
    """Return the same places in another folder; what points from one to the other stays true."""
    common = Path(os.path.commonpath([paths.folder, paths.model]))
    moved = RunPaths(
        folder=folder / paths.folder.relative_to(common),
        model=folder / paths.model.relative_to(common),
    )
    moved.folder.mkdir(parents=True)
    return moved


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE_BYTES)
    except FileNotFoundError:
        return b""  # nothing was written yet

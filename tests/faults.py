"""A small real batch of three while the world is against it: what is lost, what is left behind.

    python tests/faults.py --rounds 20              kills at random moments, then every named fault
    python tests/faults.py --rounds 1000 --pretend  kills alone, of stand-ins that pretend to train
    python tests/faults.py --rounds 0 --only disk,tracking_dead

A round of kills ends the runner, an experiment's process or both with SIGKILL, at a moment drawn
from the seed or while a file is being written, and goes on with --resume, which is killed again in
every third round. A named fault is played once. After each: the table is that of a batch that
nobody disturbed, nothing that was finished ran again, exit statuses are true, no process and no
temporary file is left. Where a fault changes what should come, its function says so and checks
that. One table ends it; the exit status is 0 where nothing was lost.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "code")]

from batch_world import TRAINER, leave, make_options  # noqa: E402
from dialsum.batch.ledger import INTERRUPTED, OPTIONS, read_batches  # noqa: E402
from dialsum.cli import BatchOptions  # noqa: E402
from dialsum.experiment.attempt import NAN  # noqa: E402
from dialsum.paths import LOCK, BatchPaths  # noqa: E402
from dialsum.record import Record, read_record  # noqa: E402
from dialsum.text import align  # noqa: E402
from dialsum.train.checkpoints import MANIFEST, TENSORS, step_of  # noqa: E402
from faulty_trainer import BAD_NAME, TOOK  # noqa: E402
from small_models import SAMPLE  # noqa: E402
from trainer_runs import (  # noqa: E402
    EXPERIMENTS,
    FEW,
    ROWS,
    SECRETS,
    architecture_of,
    environment,
    read_events,
    small_checkpoint,
)
from wandb_server import WandbServer  # noqa: E402

REAL = ("01_mt5_xlsum_optimized_v2", "02_eenzeenee_t5_rtx3090", "01_baseline_kobart_rtx3090")
MT5, T5, KOBART = REAL
CONFIG = """
extends: {experiment}
general: {{expected_minutes: null, device: cpu}}
model: {{checkpoint: {checkpoint}, dropout: 0.0}}
training:
  {{learning_rate: {rate}, weight_decay: {decay}, warmup_steps: 0, gradient_checkpointing: false}}
"""
SHORT = (*FEW, "training.eval_steps=2", "batch.slots=2", "batch.free_timeout_seconds=1")
VICTIMS = ("runner", "child", "both")
MARK = "DIALSUM_FAULTS"
"""Variable that every process of a round inherits, so that none is overlooked."""
PROGRAM = """
import sys
sys.path[:0] = {paths!r}
from dialsum.batch.ledger import OPTIONS
from dialsum.batch.start import run_batch
from dialsum.errors import run_script
run_script(lambda _: run_batch(OPTIONS.validate_json(sys.argv[1]), trainer={trainer!r}))
"""
MOST_TRACKING_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
SUCCESS, FAILED, UNFIT, STOPPED = 0, 1, 2, 130


@dataclass
class Row:
    """One line of the table: what was done to a batch, and what came of it."""

    fault: str
    done: str = ""
    said: list[str] = field(default_factory=list)
    resumed: int = 0
    same: bool = False
    again: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)

    def expect(self, right: bool, otherwise: str) -> None:
        """Take note of what is not as it should be."""
        if not right:
            self.lost.append(otherwise)

    def cells(self) -> list[str]:
        """Return it as it stands in the table."""
        return [
            self.fault,
            self.done,
            ", ".join(self.said),
            f"{self.resumed} x --resume" if self.resumed else "-",
            "yes" if self.same else "NO",
            ", ".join(self.again) or "-",
            ", ".join(self.left) or "-",
            f"{self.seconds:.0f}",
            "; ".join(self.lost) or "nothing",
        ]


HEAD = ["fault", "what was done", "exit status", "went on", "table equal"]
HEAD += ["ran again", "left over", "s", "lost"]


@dataclass
class Batch:
    """A batch in a folder of its own.

    Attributes:
        fault: of tests/faulty_trainer.py, in every experiment's process. With a trainer that is not
            its own, a batch leaves its deep look out, which spares each start some seconds.
        variables: of the runner's environment.
    """

    folder: Path
    options: BatchOptions
    pretend: bool = False
    fault: str = "none"
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The experiments."""
        return [path.stem for path in self.options.configs]

    @cached_property
    def paths(self) -> BatchPaths:
        """Where it writes."""
        assert self.options.output_dir is not None
        logs = self.options.log_dir or self.options.output_dir / "logs"
        return BatchPaths(self.options.output_dir / "auto_experiments", logs)

    @property
    def log(self) -> Path:
        """What its runners said."""
        return self.folder / "screen.log"

    @property
    def screen(self) -> str:
        """What its runners said."""
        return self.log.read_text(encoding="utf-8")

    @property
    def status(self) -> str | None:
        """What the ledger says of it; None where it was not begun."""
        batches = read_batches(self.paths.ledger)
        return batches[0].status if batches else None

    @property
    def is_over(self) -> bool:
        """Whether it has succeeded, and said so in its table."""
        batches = read_batches(self.paths.ledger)
        return bool(batches) and (
            batches[0].status == "success"
            and self.paths.text_summary(batches[0].plan.started_at).is_file()
        )

    def start(self, *, resume: bool = False) -> subprocess.Popen[bytes]:
        """Start it, or go on with it, in a process of its own."""
        trainer = (sys.executable, str(HERE / "faulty_trainer.py"), self.fault)
        paths = [str(HERE), str(HERE.parent / "code")]
        asked = replace(self.options, resume=resume)
        program = PROGRAM.format(paths=paths, trainer=TRAINER if self.pretend else trainer)
        with self.log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-c", program, OPTIONS.dump_json(asked).decode()],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment(**{MARK: str(self.folder), **self.variables}),
            )

    def run(self, *, resume: bool = False) -> int:
        """Run it, or go on with it, to its end; return the exit status."""
        return self.start(resume=resume).wait(timeout=PATIENCE_SECONDS)

    def records(self) -> dict[str, Record]:
        """Return the records that stand in its places, by experiment."""
        places = {name: self.paths.run(name).result for name in self.names}
        return {name: read_record(path) for name, path in places.items() if path.is_file()}

    def table(self) -> dict[str, Any]:
        """Return what each successful experiment scored, in full."""
        done = {name: one for name, one in self.records().items() if one.succeeded}
        return {name: one.value("evaluation") for name, one in done.items()}

    def finished(self) -> dict[str, str]:
        """Return the records of what is finished, as text."""
        done = {name: one for name, one in self.records().items() if one.succeeded}
        return {name: json.dumps(one.content, sort_keys=True) for name, one in done.items()}

    def processes(self) -> dict[int, bytes]:
        """Return the command lines of its processes, by number."""
        found, mark = {}, f"{MARK}={self.folder}\0".encode()
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    if mark in (process / "environ").read_bytes():
                        found[int(process.name)] = (process / "cmdline").read_bytes()
                except OSError:
                    continue  # another user's, or gone
        return found

    def children(self) -> list[int]:
        """Return the processes of its experiments."""
        return [number for number, words in self.processes().items() if b"--job" in words]

    def wait_for_silence(self, *, seconds: float = 20.0) -> bool:
        """Wait until none of its processes is left; return whether that came."""
        end = time.monotonic() + seconds
        while any(words for words in self.processes().values()):  # the dead have no words
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def wait_for(self, process: subprocess.Popen[bytes], found: Callable[[], bool]) -> None:
        """Wait until something is found; RuntimeError where the batch ends before."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not found():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"it did not come to that: {self.screen[-3000:]}")
            time.sleep(0.01)

    def has_trained(self, name: str, *, steps: int = 1) -> bool:
        """Tell whether an experiment has taken so many steps."""
        metrics = self.paths.run(name).metrics
        return metrics.is_file() and any(
            event.get("step", 0) >= steps for event in read_events(metrics.parent)
        )

    def find_leavings(self) -> list[Path]:
        """Return what only a process that is at work may have."""
        return [
            path
            for path in self.folder.rglob("*")
            if path.name.endswith((".tmp", ".draft", "-wal", "-shm")) or path.name == LOCK
        ]


@dataclass
class World:
    """Makes the batches of one call, and holds what an undisturbed one comes to."""

    top: Path
    pretend: bool
    chance: random.Random
    whole: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)

    @cached_property
    def tracking_seconds(self) -> float:
        """What a run waits for W&B at most where nothing is wrong with it."""
        with WandbServer.running() as server:
            return max(track(self, "tracking_works", server.url)[1].values())

    def make(self, name: str, *, output_dir: str = "out", values: Sequence[str] = ()) -> Batch:
        """Return a batch of three in a new folder; values are --set's."""
        folder = self.top / name
        folder.mkdir()
        if self.pretend:
            return Batch(folder, make_options(folder, "count_20", "count_24", "count_16"), True)
        for kind, count in ROWS.items():
            with (SAMPLE / f"{kind}.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[: count + 1]
            write_rows(folder / "data" / f"{kind}.csv", rows)
        for experiment in REAL:
            write_config(folder, experiment)
        options = BatchOptions(
            tuple(folder / f"{experiment}.yaml" for experiment in REAL),
            data_dir=folder / "data",
            output_dir=folder / output_dir,
            log_dir=folder / "logs",
            overrides=(*SHORT, f"data.cache_dir={self.top / 'encoded'}", *values),
        )
        return Batch(folder, options)

    def end(self, batch: Batch, row: Row, finished: dict[str, str], *, goes_on: bool = True) -> Row:
        """Go on until the batch has succeeded, and look at what is left of the fault.

        Args:
            finished: what must not run again.
        """
        while goes_on and not batch.is_over and row.resumed < 3:
            resume = batch.status is not None
            status = batch.run(resume=resume)
            row.resumed += resume
            row.said.append(str(status))
            # A runner that was killed after its last word has nothing to go on with.
            good = status == (SUCCESS if batch.status == "success" else FAILED)
            row.expect(good, f"exit status {status} of a batch that is {batch.status}")
        row.expect(not goes_on or batch.is_over, f"the batch is {batch.status}, its table missing")
        table = batch.table()
        row.same = table == self.whole
        after = batch.finished()
        row.again = [name for name, content in finished.items() if after.get(name) != content]
        row.expect(batch.wait_for_silence(), f"processes {list(batch.processes().values())}")
        row.left = [path.name for path in batch.find_leavings()]
        row.expect(not row.left, "something is left over")
        return row


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a table of data."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_config(folder: Path, experiment: str, *, rate: float = 2e-3, decay: float = 0.0) -> None:
    """Write the file of an experiment on a small checkpoint."""
    checkpoint = small_checkpoint(architecture_of(experiment))
    known = {"experiment": EXPERIMENTS / f"{experiment}.yaml", "checkpoint": checkpoint}
    text = CONFIG.format(**known, rate=rate, decay=decay)
    (folder / f"{experiment}.yaml").write_text(text, encoding="utf-8")


def end_undisturbed(world: World, batch: Batch, row: Row, finished: dict[str, str]) -> Row:
    """End a batch whose table must be the undisturbed one's, with nothing run again."""
    world.end(batch, row, finished)
    row.expect(row.same, f"{batch.table()} in place of {world.whole}")
    row.expect(not row.again, f"{', '.join(row.again)} ran again though finished")
    return row


def is_writing(batch: Batch) -> bool:
    """Tell whether a record, a checkpoint or another file of a batch is being written."""
    for folder in (batch.paths.root, *(batch.paths.run(name).folder for name in batch.names)):
        try:
            places = [*folder.iterdir(), *(folder / "results").glob(".*")]
            if any(place.name.endswith((".tmp", ".draft")) for place in places) or any(
                not (one / MANIFEST).is_file() for one in folder.glob("checkpoints/checkpoint-*")
            ):
                return True
        except OSError:
            continue  # not made yet, or moved in this moment
    return False


def wait_for_moment(world: World, batch: Batch, process: subprocess.Popen[bytes]) -> list[int]:
    """Wait for the moment of a kill: any one, or one in which something is written; return the
    children."""
    end = time.monotonic() + world.chance.uniform(0.0, world.seconds)
    in_write, children = world.chance.random() < 0.5, list[int]()
    looked = 0.0
    while process.poll() is None:
        now = time.monotonic()
        if now - looked > 0.1:
            looked, children = now, batch.children()
        if now > end and (not in_write or is_writing(batch)):
            break
        time.sleep(0.0 if in_write and now > end else 0.01)
    return children


def kill(victim: str, process: subprocess.Popen[bytes], children: Sequence[int]) -> None:
    """Kill the runner of a batch, its experiments' processes, or both."""
    if victim != "child":
        process.kill()
    if victim != "runner":
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has ended
    if victim != "child":
        process.wait()


def play_kills(world: World, number: int) -> Row:
    """Kill at a random moment, in every third round twice, and go on."""
    row, batch = Row(f"kill {number}"), world.make(f"kill_{number}")
    finished = dict[str, str]()
    for _ in range(2 if number % 3 == 0 else 1):
        victim, resume = world.chance.choice(VICTIMS), batch.status is not None
        process = batch.start(resume=resume)
        row.resumed += resume
        kill(victim, process, wait_for_moment(world, batch, process))
        status = process.wait(timeout=PATIENCE_SECONDS)
        row.expect(batch.wait_for_silence(), f"a process was left after killing {victim}")
        in_write = is_writing(batch)
        world.kills[f"{victim}{' in a write' if in_write else ''}"] += 1
        row.done += f"{', then ' if row.done else ''}-9 to {victim}"
        row.done += " in a write" if in_write else ""
        row.said.append(str(status))
        if victim == "child":
            good = SUCCESS if batch.status == "success" else FAILED
            row.expect(status == good, f"exit status {status} of a batch that is {batch.status}")
        finished = batch.finished()
        if batch.is_over:
            break
    return end_undisturbed(world, batch, row, finished)


@contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[None]:
    """Mount something at a folder until the block ends.

    Raises:
        PermissionError: this user may not mount.
    """
    place.mkdir(parents=True, exist_ok=True)
    asked = ["mount", *arguments, str(place)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(world: World, name: str, *, free: int) -> Row:
    """Fill the disk but for so many bytes once the first experiment trains, and give it back."""
    batch, row = world.make(name, output_dir="disk/out"), Row(name)
    disk = batch.folder / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=60m", "tmpfs"):
        row.said.append(str(batch.run()))
        row.expect(row.said == ["2"], "a batch that has no room was not refused")
        row.expect("free space" in batch.screen, "it is not said that space is to be freed")
        row.expect(not list(disk.rglob("*")), "a refused batch left something")
        subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
        process = batch.start()
        batch.wait_for(process, lambda: batch.has_trained(MT5))
        leave(free, disk)
        status = process.wait(timeout=PATIENCE_SECONDS)
        row.said.append(str(status))
        row.done = f"60 MB refused, then filled to {free:,} bytes"
        row.expect(status == FAILED, f"exit status {status} on a full disk")
        said = ("no space left", "the disk was full", "the disk leaves")
        row.expect(any(words in batch.screen for words in said), "the screen does not say so")
        finished = batch.finished()
        (disk / "filler").unlink()
        return end_undisturbed(world, batch, row, finished)


def play_disk(world: World) -> Row:
    """Not a byte is free: what runs fails and is said to; with space again it goes on."""
    return fill(world, "disk", free=0)


def play_disk_nearly(world: World) -> Row:
    """Small files still fit, a checkpoint does not."""
    return fill(world, "disk_nearly", free=150_000)


def play_read_only(world: World) -> Row:
    """The output becomes read-only: before the start it is refused, in mid-run what runs fails."""
    batch, row = world.make("read_only"), Row("read_only", "before the start, then in mid-run")
    out = batch.folder / "out"
    out.mkdir()
    again = ("-o", "remount,ro,bind")
    with mounted(out, "--bind", str(out)):
        subprocess.run(["mount", *again, str(out)], check=True)
        row.said.append(str(batch.run()))
        row.expect(row.said == ["2"], "what cannot be written was not refused")
        row.expect("can only be read" in batch.screen, "the screen does not say so")
    process = batch.start()
    batch.wait_for(process, lambda: batch.has_trained(MT5))
    with mounted(out, "--bind", str(out)):
        subprocess.run(["mount", *again, str(out)], check=True)
        status = process.wait(timeout=PATIENCE_SECONDS)
        row.said.append(str(status))
        row.expect(status == FAILED, f"exit status {status} with a place that is read-only")
        row.expect("Read-only file system" in batch.screen, "the screen does not say so")
    return end_undisturbed(world, batch, row, batch.finished())


def play_nan_rate(world: World) -> Row:
    """A learning rate at which weights grow a thousandfold: the run goes back to good ones, or
    fails and says why; the others are as undisturbed."""
    batch, row = world.make("nan_rate"), Row("nan_rate", "learning rate 0.99 in experiment 3")
    write_config(batch.folder, KOBART, rate=0.99, decay=1000.0)
    status = batch.run()
    row.said.append(str(status))
    world.end(batch, row, {}, goes_on=False)
    record = batch.records()[KOBART]
    if record.succeeded:
        row.done += ", rolled back"
        row.expect(status == SUCCESS, f"exit status {status} where all succeeded")
        row.expect(bool(record.value("training.nan_events")), "it met no NaN")
        return expect_others(world, batch, row, KOBART)
    row.done += f", failed ({record.value('failure.cause')})"
    row.expect(status == FAILED, f"exit status {status} where one failed")
    row.expect(record.value("failure.cause") == NAN, f"its record says {record.value('failure')}")
    return expect_others(world, batch, row, KOBART, refused="--retry-failed")


def play_nan_data(world: World) -> Row:
    """One train row gives NaN: it is left out, and every record names it. The table is that of a
    row less, so only that each experiment has scores can be asked of it."""
    batch, row = world.make("nan_data"), Row("nan_data", "one train row gives NaN, left out")
    batch.fault = "nan"
    row.said.append(str(batch.run()))
    world.end(batch, row, {}, goes_on=False)
    row.expect(row.said == ["0"], "a row that is left out ends no run")
    row.expect(batch.table().keys() == world.whole.keys(), "not every experiment has scores")
    for name, record in batch.records().items():
        left_out = record.value("training.rows_left_out")
        row.expect(left_out == [BAD_NAME], f"{name}: {left_out} left out in place of {BAD_NAME}")
        row.expect(bool(record.value("training.nan_events")), f"{name} tells of no NaN")
    return row


def expect_others(
    world: World, batch: Batch, row: Row, name: str, *, refused: str | None = None
) -> Row:
    """Check that all but one are as in the undisturbed batch, and that there is no going on."""
    others = {key: value for key, value in world.whole.items() if key != name}
    table = batch.table()
    row.same = {key: value for key, value in table.items() if key != name} == others
    row.expect(row.same, f"{table} in place of {others}")
    if refused is not None:
        status = batch.run(resume=True)
        row.said.append(str(status))
        row.expect(status == UNFIT, f"exit status {status} of --resume with nothing to go on with")
        row.expect(refused in batch.screen, f"{refused} is not named")
    return row


def play_memory(world: World) -> Row:
    """Memory is full for passes over a size: smaller ones take their place, and the record says
    so. Sums in another order may move the last digits, so the scores are held against a point."""
    batch, row = world.make("memory"), Row("memory", "torch.OutOfMemoryError over 4 rows")
    batch.fault = "memory"
    row.said.append(str(batch.run()))
    world.end(batch, row, {}, goes_on=False)
    row.expect(row.said == ["0"], "full memory that smaller passes mend ends no run")
    for name, record in batch.records().items():
        retries = record.value("training.memory_retries")
        row.expect(bool(retries), f"{name} tells of no smaller passes")
        mean = record.number("evaluation.dev.rouge_mean") or 0.0
        whole = world.whole[name]["dev"]["rouge_mean"]
        row.expect(abs(mean - whole) < 1.0, f"{name}: {mean} in place of {whole}")
    return row


def track(
    world: World, name: str, url: str, *, then: Callable[[], None] | None = None
) -> tuple[Batch, dict[str, float]]:
    """Run a batch with W&B at an address; return what each experiment waited for it in seconds.

    Args:
        then: is called when the first experiment trains.
    """
    batch = world.make(name, values=["tracking.wandb=true"])
    batch.fault = "timed"
    batch.variables = {"WANDB_API_KEY": SECRETS["WANDB_API_KEY"], "WANDB_BASE_URL": url}
    process = batch.start()
    if then is not None:
        batch.wait_for(process, lambda: batch.has_trained(MT5))
        then()
    if status := process.wait(timeout=PATIENCE_SECONDS):
        raise RuntimeError(f"W&B ended a run: exit status {status}")
    return batch, {log.stem: add_up(log) for log in batch.folder.glob("logs/*/experiment_*.log")}


def play_tracking(
    world: World, name: str, url: str, *, then: Callable[[], None] | None = None
) -> Row:
    """Run with W&B at an address that fails; no run may lose more than MOST_TRACKING_SECONDS over
    what it waits for a W&B that works, and metrics.jsonl has all that was not sent."""
    row, usual = Row(name), world.tracking_seconds
    batch, took = track(world, name, url, then=then)
    world.end(batch, row, {}, goes_on=False)
    row.said.append("0")
    row.expect(row.same, f"{batch.table()} in place of {world.whole}")
    row.done = f"a run waits {max(took.values()):.1f} s at most, {usual:.1f} s where W&B works"
    lost = max(took.values()) - usual
    row.expect(lost <= MOST_TRACKING_SECONDS, f"W&B took {took} s, {usual} s where it works")
    for one in batch.names:
        kinds = Counter(event["event"] for event in read_events(batch.paths.run(one).folder))
        row.expect(kinds["eval"] == 3 and kinds["train"] == 4, f"metrics.jsonl of {one}: {kinds}")
    return row


def add_up(log: Path) -> float:
    """Return the seconds that W&B took by an experiment's log."""
    text = log.read_text(encoding="utf-8")
    return sum(float(found) for found in re.findall(rf"{re.escape(TOOK)} ([0-9.]+) s", text))


def play_tracking_dead(world: World) -> Row:
    """Nobody listens at W&B's port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return play_tracking(world, "tracking_dead", f"http://127.0.0.1:{port}")


def play_tracking_mute(world: World) -> Row:
    """W&B's port accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        return play_tracking(world, "tracking_mute", url)


def play_tracking_falls_silent(world: World) -> Row:
    """W&B answers until the first run trains; then no request ends."""
    with WandbServer.running() as server:
        return play_tracking(world, "tracking_falls_silent", server.url, then=server.fall_silent)


def cut_off(batch: Batch, *, at: int = 2) -> dict[str, str]:
    """Start a batch and kill it once its first experiment has come to a step; return what is
    finished."""
    process = batch.start()
    batch.wait_for(process, lambda: batch.has_trained(MT5, steps=at))
    kill("both", process, batch.children())
    batch.wait_for_silence()
    return batch.finished()


def play_checkpoint(world: World) -> Row:
    """The latest checkpoint is cut short while the batch is stopped: the one before takes over."""
    batch, row = world.make("checkpoint"), Row("checkpoint", "killed, latest checkpoint truncated")
    finished = cut_off(batch, at=6)
    sealed = batch.paths.run(MT5).checkpoints.glob(f"checkpoint-*/{MANIFEST}")
    latest = max((path.parent for path in sealed), key=step_of)
    os.truncate(latest / TENSORS, (latest / TENSORS).stat().st_size // 2)
    end_undisturbed(world, batch, row, finished)
    said = f"{latest.name} is left out"
    row.expect(said in batch.screen, f"it is not said that {said}")
    return row


def play_config(world: World) -> Row:
    """A configuration file is edited while the batch is stopped: named, and not used."""
    batch, row = world.make("config"), Row("config", "killed, learning rate edited")
    finished = cut_off(batch)
    write_config(batch.folder, T5, rate=1e-3)
    end_undisturbed(world, batch, row, finished)
    said = "its configuration was changed since (training.learning_rate 0.002 -> 0.001)"
    row.expect(said in batch.screen, f"it is not said that {said}")
    return row


def play_data(world: World) -> Row:
    """A data file changes while the batch is stopped: all starts from the beginning, and ends as a
    batch that had the new rows from the start."""
    batch, other = world.make("data"), world.make("data_from_the_start")
    row = Row("data", "killed, two train rows removed")
    cut_off(batch)
    for one in (batch, other):
        train = one.folder / "data" / "train.csv"
        with train.open(encoding="utf-8", newline="") as file:
            write_rows(train, list(csv.reader(file))[:-2])
    status = other.run()
    row.expect(status == SUCCESS, f"exit status {status} with the new rows from the start")
    world.end(batch, row, {})
    row.same = batch.table() == other.table()
    row.expect(row.same, f"{batch.table()} in place of {other.table()}")
    row.expect("data changed since the batch began" in batch.screen, "the change is not named")
    return row


def play_second(world: World) -> Row:
    """A second batch is started in the same place: refused, and the first is none the worse."""
    batch, row = world.make("second"), Row("second", "the same batch started beside it")
    process = batch.start()
    batch.wait_for(process, lambda: batch.has_trained(MT5))
    for resume in (False, True):
        status = batch.run(resume=resume)
        row.said.append(str(status))
        row.expect(status == UNFIT, f"exit status {status} of a second batch in the same place")
    row.expect("is at work in this folder" in batch.screen, "the screen does not say so")
    row.said.append(str(process.wait(timeout=PATIENCE_SECONDS)))
    return end_undisturbed(world, batch, row, {})


def stop(world: World, name: str, number: signal.Signals, *, times: int, ends: int) -> Row:
    """Send a signal to the runner while two experiments train."""
    batch, row = world.make(name), Row(name, f"{number.name} x {times}")
    process = batch.start()
    batch.wait_for(process, lambda: batch.has_trained(MT5))
    for one in range(times):
        time.sleep(0.6 * bool(one))
        process.send_signal(number)
    status = process.wait(timeout=PATIENCE_SECONDS)
    row.said.append(str(status))
    row.expect(status == ends, f"exit status {status} in place of {ends}")
    expected = "success" if ends == SUCCESS else INTERRUPTED
    row.expect(batch.status == expected, f"the batch is {batch.status} in place of {expected}")
    return end_undisturbed(world, batch, row, batch.finished())


def play_sigterm(world: World) -> Row:
    """SIGTERM: what runs saves and records, and the batch goes on when asked."""
    return stop(world, "sigterm", signal.SIGTERM, times=1, ends=STOPPED)


def play_sighup(world: World) -> Row:
    """A terminal that closes ends nothing."""
    return stop(world, "sighup", signal.SIGHUP, times=1, ends=SUCCESS)


def play_sigint_twice(world: World) -> Row:
    """Ctrl-C again kills at once."""
    return stop(world, "sigint_twice", signal.SIGINT, times=2, ends=STOPPED)


NAMED: dict[str, Callable[[World], Row]] = {
    function.__name__.removeprefix("play_"): function
    for function in (
        play_disk,
        play_disk_nearly,
        play_read_only,
        play_nan_rate,
        play_nan_data,
        play_memory,
        play_tracking_dead,
        play_tracking_mute,
        play_tracking_falls_silent,
        play_checkpoint,
        play_config,
        play_data,
        play_second,
        play_sigterm,
        play_sighup,
        play_sigint_twice,
    )
}


def play(world: World, name: str, function: Callable[[], Row]) -> Row:
    """Play one fault in its own folder, which is removed where nothing was lost."""
    began = time.monotonic()
    try:
        row = function()
    except PermissionError as error:
        return Row(name, f"skipped: {error}", same=True)
    except Exception as error:
        # The edge of one fault: what it ran into is lost in the table, and the next is played.
        traceback.print_exc()
        row = Row(name, lost=[f"{type(error).__name__}: {error}"])
    row.seconds = time.monotonic() - began
    if row.lost:
        kept = Path(tempfile.mkdtemp(prefix="dialsum-lost-"))
        for folder in world.top.glob(f"{name.replace(' ', '_')}*"):
            shutil.copytree(folder, kept / folder.name, symlinks=True)
        row.lost.append(f"see {kept}")
    for folder in world.top.glob(f"{name.replace(' ', '_')}*"):
        shutil.rmtree(folder)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds and the named faults, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="rounds of kills")
    parser.add_argument("--pretend", action="store_true", help="stand-ins in place of training")
    parser.add_argument("--seed", type=int, default=1)
    names = f"named faults, after the rounds: all but with --pretend; of {', '.join(NAMED)}"
    parser.add_argument("--only", metavar="NAME,…", help=names)
    asked = parser.parse_args(arguments)
    named = list(NAMED) if asked.only is None else [*filter(None, asked.only.split(","))]
    if unknown := sorted({*named} - {*NAMED}):
        parser.error(
            f"--only: no fault is called {', '.join(unknown)}; there are {', '.join(NAMED)}"
        )
    if asked.pretend:
        named = []
    rows = []
    with tempfile.TemporaryDirectory(prefix="dialsum-faults-") as top:
        world = World(Path(top), asked.pretend, random.Random(asked.seed))
        whole, began = world.make("whole"), time.monotonic()
        status = whole.run()
        world.seconds = time.monotonic() - began
        world.whole = whole.table()
        if status or len(world.whole) != 3:
            print(whole.screen)
            return 1
        means = [value["dev"]["rouge_mean"] for value in world.whole.values()]
        print(f"undisturbed: {world.seconds:.1f} s, means {means}", flush=True)
        faults: list[tuple[str, Callable[[], Row]]] = []
        for number in range(1, asked.rounds + 1):
            faults.append((f"kill {number}", partial(play_kills, world, number)))
        for name in named:
            faults.append((name, partial(NAMED[name], world)))
        for name, function in faults:
            row = play(world, name, function)
            rows.append(row)
            if row.lost or not asked.pretend:
                print(f"{time.strftime('%H:%M:%S')}  {'  '.join(row.cells())}", flush=True)
    lost = [row for row in rows if row.lost]
    shown = lost if asked.pretend else rows
    print("", *align([HEAD, *(row.cells() for row in shown)], left=range(7)), sep="\n")
    kills = ", ".join(f"{count} x {victim}" for victim, count in sorted(world.kills.items()))
    print(f"{asked.rounds} rounds, killed {kills or 'nothing'}; {len(named)} named faults")
    print(f"lost something: {len(lost)}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

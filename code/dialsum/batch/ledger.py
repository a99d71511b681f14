"""The ledger of a root, `batches.sqlite3`: what each of its batches has to do, and what became of
it.

The runner alone writes it, each change in a transaction of its own: before the act, and after it.
Anybody reads it meanwhile. What a run came to stands in its record; what was asked of it, when, and
what happened around it stands here. Must not know processes, nor what a run computes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from dialsum.batch.plan import BatchPlan, work_of
from dialsum.cli import BatchOptions
from dialsum.errors import DialsumError, DiskFullError, RunError, UnfitError
from dialsum.experiment.job import NO_JOB, Job
from dialsum.paths import BatchPaths, shown
from dialsum.record import Record

PLANNED, RUNNING, INTERRUPTED = "planned", "running", "interrupted"
"""What an experiment may be before it has ended; then it is what its record says."""
VERSION = 1
APPLICATION = 0x6469616C
"""Marks the file as ours, in SQLite's own header (`dial`)."""
BUSY_SECONDS = 10.0
"""A reader holds a writer up for a moment only."""
TABLES = """
CREATE TABLE batches (
    batch TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    options TEXT NOT NULL,
    log_root TEXT NOT NULL,
    runs_dir TEXT,
    slots INTEGER NOT NULL
) STRICT;
CREATE TABLE experiments (
    batch TEXT NOT NULL REFERENCES batches,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    PRIMARY KEY (batch, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
    batch TEXT NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    pid INTEGER,
    started_at TEXT,
    finished_at TEXT,
    resumed INTEGER NOT NULL,
    log TEXT NOT NULL,
    work TEXT NOT NULL,
    job TEXT NOT NULL,
    PRIMARY KEY (batch, number, attempt),
    FOREIGN KEY (batch, number) REFERENCES experiments
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    event INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    batch TEXT NOT NULL REFERENCES batches,
    number INTEGER,
    kind TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
"""
OPTIONS = TypeAdapter(BatchOptions)


def absolute_options(options: BatchOptions) -> BatchOptions:
    """Return options whose paths mean the same in any working folder."""
    places = {
        name: path.absolute()
        for name in ("data_dir", "output_dir", "runs_dir", "log_dir")
        if (path := getattr(options, name)) is not None
    }
    return replace(options, configs=tuple(path.absolute() for path in options.configs), **places)


Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class KeptExperiment:
    """One experiment of a batch in the ledger.

    Attributes:
        status: planned, running, or what its record says.
        first, last: the jobs of its first and of its last attempt; pid: of the last one's process.
        log: what that one printed.
        started_at: when that one did; None where it has not.
    """

    number: int
    name: str
    label: str
    status: str
    reason: str | None
    first: Job
    last: Job
    log: Path
    pid: int | None
    started_at: datetime | None


@dataclass(frozen=True)
class KeptBatch:
    """A batch in the ledger, as it stood when it was read.

    Attributes:
        plan: its jobs are those of the last attempts.
        host, pid: where its runner is, or was.
        latest_event: of the whole ledger: who goes on with a batch checks that nobody else did.
    """

    plan: BatchPlan
    status: str
    finished_at: datetime | None
    host: str
    pid: int
    experiments: tuple[KeptExperiment, ...]
    latest_event: int


class Ledger:
    """A ledger that is written. A change that cannot be written now is kept, and written with the
    next one.

    Attributes:
        unwritten: why the last change could not be written; None where it was.

    Raises:
        UnfitError: the file is no ledger of this program, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unwritten: DialsumError | None = None
        self._waiting: list[Statement] = []
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
        try:
            is_new = _look_at(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            if is_new:
                head = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                connection.executescript(f"BEGIN IMMEDIATE; {TABLES} {head} COMMIT;")
        except sqlite3.Error as error:
            connection.close()
            raise UnfitError(_explain(path, error)) from error
        except UnfitError:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Write what is waiting, if that can be, and close the file."""
        self._change()
        self._connection.close()

    def begin(self, plan: BatchPlan) -> None:
        """Enter a batch with every experiment that it plans, before anything of it happens."""
        me = os.uname().nodename, os.getpid()
        paths, batch = plan.paths, plan.batch_id
        runs = None if paths.runs_dir is None else str(paths.runs_dir)
        options = OPTIONS.dump_json(absolute_options(plan.options)).decode()
        head = (plan.started_at.isoformat(), *me, options)
        rows: list[Statement] = [
            (
                "INSERT INTO batches VALUES (?, 'running', ?, NULL, ?, ?, ?, ?, ?, ?)",
                (batch, *head, str(paths.log_root), runs, plan.slots),
            )
        ]
        for job in plan.jobs:
            rows.append(
                (
                    "INSERT INTO experiments VALUES (?, ?, ?, ?, 'planned', NULL)",
                    (batch, job.number, job.name, job.label),
                )
            )
            rows.append(self._plan_attempt(plan, job))
        self._change(*rows, self._event(batch, None, "began", plan.kind))

    def go_on(self, plan: BatchPlan, kept: KeptBatch, ended: Mapping[int, Record]) -> None:
        """Take over a batch that was read before.

        Args:
            plan: what is run now: the kept one's, with what changed since.
            ended: what its experiments came to that have ended, by number: their records are right
                where the ledger's writer did not live to enter it.

        Raises:
            UnfitError: somebody else went on with it in the meantime.
        """
        batch, found = plan.batch_id, _latest_event(self._connection)
        if found != kept.latest_event:
            raise UnfitError(
                f"{shown(self.path)}: another process went on with batch {batch} in this moment; "
                "start again when it has ended"
            )
        rows: list[Statement] = [
            (
                "UPDATE batches SET status = 'running', finished_at = NULL, host = ?, pid = ?, "
                "slots = ? WHERE batch = ?",
                (os.uname().nodename, os.getpid(), plan.slots, batch),
            )
        ]
        for job in plan.jobs:
            if record := ended.get(job.number):
                rows += self._enter(plan, job, record, last=True)
            else:
                rows.append(self._plan_attempt(plan, job))
                rows.append(self._experiment(batch, job.number, PLANNED, None))
        self._change(*rows, self._event(batch, None, "goes on", ""))

    def start(self, plan: BatchPlan, job: Job) -> None:
        """Enter that an attempt is about to start: nothing of an earlier run was moved yet."""
        how = "goes on from its checkpoint" if job.resume else "starts"
        self._change(
            self._plan_attempt(plan, job),
            (
                "UPDATE attempts SET status = 'running', started_at = ?, finished_at = NULL, "
                "resumed = ? WHERE batch = ? AND number = ? AND attempt = ?",
                (_now(), job.resume, *_key(plan, job)),
            ),
            self._experiment(plan.batch_id, job.number, RUNNING, None),
            self._event(plan.batch_id, job.number, "starts", f"{job.label} {how}"),
        )

    def name_process(self, plan: BatchPlan, job: Job, pid: int) -> None:
        """Enter the process of an attempt that has started."""
        self._change(
            (
                "UPDATE attempts SET pid = ? WHERE batch = ? AND number = ? AND attempt = ?",
                (pid, *_key(plan, job)),
            )
        )

    def end_attempt(self, plan: BatchPlan, job: Job, record: Record, *, last: bool) -> None:
        """Enter what an attempt came to.

        Args:
            last: no retry follows, so that the experiment has ended too.
        """
        rows, reason = self._enter(plan, job, record, last=last), record.value("reason")
        said = record.status + (f": {reason}" if reason else "")
        self._change(*rows, self._event(plan.batch_id, job.number, "ends", said))

    def tell(self, plan: BatchPlan, kind: str, message: str, *, number: int | None = None) -> None:
        """Enter what happened around the experiments."""
        self._change(self._event(plan.batch_id, number, kind, message))

    def end(self, batch: str, status: str) -> None:
        """Enter that a batch has ended."""
        self._change(
            (
                "UPDATE batches SET status = ?, finished_at = ? WHERE batch = ?",
                (status, _now(), batch),
            ),
            self._event(batch, None, "ended", status),
        )

    def write_waiting(self) -> None:
        """Try again to write what could not be written."""
        if self._waiting:
            self._change()

    def _enter(self, plan: BatchPlan, job: Job, record: Record, *, last: bool) -> list[Statement]:
        reason, end = record.value("reason"), record.value("finished_at") or _now()
        rows: list[Statement] = [
            (
                "UPDATE attempts SET status = ?, reason = ?, finished_at = ? "
                "WHERE batch = ? AND number = ? AND attempt = ?",
                (record.status, reason, end, *_key(plan, job)),
            )
        ]
        if last:
            rows.append(self._experiment(plan.batch_id, job.number, record.status, reason))
        return rows

    def _plan_attempt(self, plan: BatchPlan, job: Job) -> Statement:
        return (
            "INSERT INTO attempts VALUES (?, ?, ?, 'planned', NULL, NULL, NULL, NULL, 0, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET status = 'planned', reason = NULL, work = excluded.work, "
            "job = excluded.job",
            (*_key(plan, job), str(plan.log_of(job)), work_of(job), job.to_json()),
        )

    def _experiment(self, batch: str, number: int, status: str, reason: str | None) -> Statement:
        return (
            "UPDATE experiments SET status = ?, reason = ? WHERE batch = ? AND number = ?",
            (status, reason, batch, number),
        )

    def _event(self, batch: str, number: int | None, kind: str, message: str) -> Statement:
        return (
            "INSERT INTO events (time, batch, number, kind, message) VALUES (?, ?, ?, ?, ?)",
            (_now(), batch, number, kind, message),
        )

    def _change(self, *rows: Statement) -> None:
        self._waiting += rows
        try:
            with self._connection:
                for statement, values in self._waiting:
                    self._connection.execute(statement, values)
        except sqlite3.Error as error:
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            self.unwritten = (
                DiskFullError(self.path) if full else RunError(_explain(self.path, error))
            )
            return
        self._waiting, self.unwritten = [], None


def _key(plan: BatchPlan, job: Job) -> tuple[str, int, int]:
    return plan.batch_id, job.number, job.attempt.number


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _explain(path: Path, error: sqlite3.Error) -> str:
    return (
        f"{shown(path)}: the ledger of this folder's batches cannot be used: {error}. Mend that, "
        "move the file away (its batches cannot be resumed then), or give another place with "
        "--output-dir DIR"
    )


def _look_at(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell whether a ledger is still to be made here.

    Raises:
        UnfitError: something else stands there, or a ledger of another version.
    """
    application, version, tables = (
        connection.execute(asked).fetchone()[0]
        for asked in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if not (application or version or tables):
        return True
    if application != APPLICATION:
        raise UnfitError(
            f"{shown(path)}: is a database of another program; move it away, or give another place "
            "with --output-dir DIR"
        )
    if version != VERSION:
        raise UnfitError(
            f"{shown(path)}: is a ledger of version {version}, and this program writes {VERSION}; "
            "go on with the version that wrote it, or move the file away"
        )
    return False


def _latest_event(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(event), 0) FROM events").fetchone()[0])


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a ledger to read it; one that a killed runner had only begun to make is empty.

    Raises:
        UnfitError: it is no ledger of this program, or cannot be read.
    """
    try:
        # Who may write clears up what SQLite keeps beside the file.
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.row_factory = sqlite3.Row
            if not _look_at(connection, path):
                yield connection
                return
        with closing(sqlite3.connect(":memory:")) as empty:
            empty.executescript(TABLES)
            yield empty
    except sqlite3.Error as error:
        raise UnfitError(_explain(path, error)) from error


def read_batches(
    path: Path, *, batch: str | None = None, status: str | None = None, most: int = -1
) -> list[KeptBatch]:
    """Return the batches of a ledger, the latest first; none where there is no ledger.

    Args:
        batch, status: those of that name, or in that state, alone.
        most: so many of them; -1: all.

    Raises:
        UnfitError: it is no ledger of this program, or cannot be read.
    """
    if not path.exists():
        return []
    batches: list[KeptBatch] = []
    with _reading(path) as connection:
        latest = _latest_event(connection)
        for row in connection.execute(
            "SELECT * FROM batches WHERE batch = coalesce(?, batch) "
            "AND status = coalesce(?, status) ORDER BY started_at DESC LIMIT ?",
            (batch, status, most),
        ):
            try:
                batches.append(_read_batch(connection, row, path, latest))
            except NO_JOB as error:
                raise UnfitError(
                    f"{shown(path)}: batch {row['batch']} is not what this program writes "
                    f"({str(error).splitlines()[0]}); move the file away"
                ) from error
    return batches


def read_durations(path: Path) -> dict[str, float]:
    """Return how long what came to its end in one go took, in seconds, by work_of; the latest
    counts.

    Raises:
        UnfitError: it is no ledger of this program, or cannot be read.
    """
    if not path.exists():
        return {}
    took: dict[str, float] = {}
    with _reading(path) as connection:
        for row in connection.execute(
            "SELECT work, started_at, finished_at FROM attempts WHERE status = 'success' "
            "AND NOT resumed ORDER BY finished_at"
        ):
            start, end = (
                datetime.fromisoformat(row[name]) for name in ("started_at", "finished_at")
            )
            # Records tell whole seconds.
            took[row["work"]] = max(0.0, (end - start).total_seconds())
    return took


def read_events(path: Path, batch: str, *, after: int = 0) -> list[dict[str, Any]]:
    """Return a batch's events in their order: event (its number), time, number, kind, message.

    Args:
        after: number of the last one that is known.
    """
    with _reading(path) as connection:
        rows = connection.execute(
            "SELECT event, time, number, kind, message FROM events "
            "WHERE batch = ? AND event > ? ORDER BY event",
            (batch, after),
        )
        return [dict(row) for row in rows]
    return []


def _read_batch(
    connection: sqlite3.Connection, row: sqlite3.Row, path: Path, latest: int
) -> KeptBatch:
    attempts = connection.execute(
        "SELECT experiments.number, experiments.name, experiments.label, experiments.status, "
        "experiments.reason, attempt, job, log, pid, attempts.started_at "
        "FROM experiments JOIN attempts USING (batch, number) WHERE batch = ? "
        "ORDER BY number, attempt",
        (row["batch"],),
    ).fetchall()
    experiments: dict[int, KeptExperiment] = {}
    for one in attempts:
        job = Job.from_json(one["job"])
        known = experiments.get(one["number"])
        experiments[one["number"]] = KeptExperiment(
            number=one["number"],
            name=one["name"],
            label=one["label"],
            status=one["status"],
            reason=one["reason"],
            first=known.first if known else job,
            last=job,
            log=Path(one["log"]),
            pid=one["pid"],
            started_at=_moment(one["started_at"]),
        )
    plan = BatchPlan(
        options=OPTIONS.validate_json(row["options"]),
        started_at=datetime.fromisoformat(row["started_at"]),
        paths=BatchPaths(
            path.parent, Path(row["log_root"]), Path(row["runs_dir"]) if row["runs_dir"] else None
        ),
        jobs=tuple(one.last for one in experiments.values()),
        slots=row["slots"],
    )
    return KeptBatch(
        plan=plan,
        status=row["status"],
        finished_at=_moment(row["finished_at"]),
        host=row["host"],
        pid=row["pid"],
        experiments=tuple(experiments.values()),
        latest_event=latest,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

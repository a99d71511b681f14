"""Batches as their ledgers tell of them, for whoever looks on or looks back: a list, one whole, one
while it runs.

Reads only. Must not know how a batch is run.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.batch.ledger import (
    PLANNED,
    RUNNING,
    KeptBatch,
    KeptExperiment,
    read_batches,
    read_events,
)
from dialsum.batch.lock import find_holder
from dialsum.batch.screen import EventFile, RunProgress
from dialsum.errors import RunError
from dialsum.paths import LOCK, BatchPaths, shown
from dialsum.record import read_record
from dialsum.text import align, format_duration

LOOK_SECONDS = 1.0
CUT_OFF = "cut off"
"""What runs by the ledger, whose runner is gone."""
GO_ON = "; the same command with --resume goes on"


def find_batches(outputs: Path) -> list[KeptBatch]:
    """Return every batch of the roots in a folder, or of the one root that it is; the latest first.

    Raises:
        UnfitError: a ledger cannot be read.
    """
    name = BatchPaths(outputs, outputs).ledger.name
    ledgers = [*outputs.glob(name), *outputs.glob(f"*/{name}")]
    batches = [batch for ledger in ledgers for batch in read_batches(ledger)]
    return sorted(batches, key=lambda batch: batch.plan.started_at, reverse=True)


def say_status(batch: KeptBatch) -> str:
    """Return what a batch is; one whose runner is gone is not running, whatever the ledger says."""
    if batch.status == RUNNING and find_holder(batch.plan.paths.root / LOCK) is None:
        return CUT_OFF
    return batch.status


def list_batches(batches: Sequence[KeptBatch]) -> list[str]:
    """Return a table of batches."""
    rows = [["batch", "kind", "status", "succeeded", "failed", "left", "took", "in"]]
    for batch in batches:
        states = [one.status for one in batch.experiments]
        succeeded, failed = states.count("success"), states.count("failed")
        took = "" if batch.finished_at is None else _took(batch.plan.started_at, batch.finished_at)
        rows.append(
            [
                batch.plan.batch_id,
                batch.plan.sort,
                say_status(batch),
                str(succeeded),
                str(failed),
                str(len(states) - succeeded - failed),
                took,
                shown(batch.plan.paths.root),
            ]
        )
    return align(rows, left=(0, 1, 2, 7))


def describe_batch(batch: KeptBatch) -> list[str]:
    """Return one batch: its experiments, then its events."""
    plan = batch.plan
    lines = [
        f"batch {plan.batch_id}, {plan.sort}: {say_status(batch)}"
        + (GO_ON if say_status(batch) == CUT_OFF else ""),
        f"command  {plan.options.script or _name_runner(plan.options.configs)}"
        f"{plan.options.only_words}{plan.options.command_line}",
        f"runner   process {batch.pid} on {batch.host}",
        f"logs     {shown(plan.paths.logs(plan.started_at))}",
        "",
    ]
    rows = [["#", "experiment", "status", "mean", "attempts", "what"]]
    rows += [_describe_experiment(one, batch) for one in batch.experiments]
    lines += [*align(rows, left=(1, 2, 5)), ""]
    events = read_events(plan.paths.ledger, plan.batch_id)
    return lines + [_describe_event(event) for event in events]


def _name_runner(configs: Sequence[Path]) -> str:
    return shlex.join(["code/auto_experiment_runner.py", "--config", *map(shown, configs)])


def follow_batch(
    batch: KeptBatch, *, say: Callable[[str], object], sleep: Callable[[float], object] = time.sleep
) -> None:
    """Show a batch, then what happens in it, until it ends or its runner is gone."""
    for line in describe_batch(batch):
        say(line)
    ledger, name = batch.plan.paths.ledger, batch.plan.batch_id
    known = max((event["event"] for event in read_events(ledger, name)), default=0)
    views: dict[tuple[int, int], tuple[EventFile, RunProgress]] = {}
    while True:
        [now] = read_batches(ledger, batch=name)
        for one in now.experiments:
            if one.status != RUNNING:
                continue
            key = one.number, one.last.attempt.number
            is_new = key not in views
            file, progress = views.setdefault(
                key, (EventFile(one.last.paths.metrics), RunProgress())
            )
            for event in file.read_new():
                told = progress.update(event, now=time.monotonic())
                if told is not None and not is_new:
                    say(f"  {one.number} {one.label}: {told}")
            if is_new:
                say(f"  {one.number} {one.label}: {progress.describe()}")
        for event in read_events(ledger, name, after=known):
            known = event["event"]
            say(_describe_event(event))
        if say_status(now) != RUNNING:
            say(f"batch {name}: {say_status(now)}")
            summary = now.plan.paths.text_summary(now.plan.started_at)
            if summary.is_file():
                say(f"its tables: {shown(summary)}")
            return
        sleep(LOOK_SECONDS)


def _describe_experiment(one: KeptExperiment, batch: KeptBatch) -> list[str]:
    mean = None
    if one.status == "success":
        with suppress(RunError):  # moved away since
            record = read_record(one.last.paths.result)
            # Where it was moved, a later batch's may stand there.
            own = record.value("batch") == batch.plan.batch_id
            mean = record.number("evaluation.dev.rouge_mean") if own else None
    dead = one.status == RUNNING and say_status(batch) == CUT_OFF
    score = "" if mean is None else f"{mean:.2f}"
    attempt = "" if one.status == PLANNED else str(one.last.attempt.number)
    status = CUT_OFF if dead else one.status
    return [str(one.number), one.label, status, score, attempt, one.reason or ""]


def _describe_event(event: Mapping[str, Any]) -> str:
    when = datetime.fromisoformat(event["time"]).strftime("%m-%d %H:%M:%S")
    number = "" if event["number"] is None else f"{event['number']} "
    return f"{when}  {number}{event['kind']}  {event['message']}".rstrip()


def _took(start: datetime, end: datetime) -> str:
    return format_duration((end - start).total_seconds())

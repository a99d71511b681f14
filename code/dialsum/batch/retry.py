"""Whether a failed experiment of a batch gets a fresh attempt, and what that one changes.

Must not start a process nor move a file (queue.py): a record in, a decision out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.archive import describe_dead_run
from dialsum.attempts import (
    CAUSE_WORDS,
    FIRST,
    KILLED,
    NAN,
    AttemptOfRun,
    describe_attempt,
    ordinal,
    point_to_files,
    say_failure,
)
from dialsum.batch.plan import BatchPlan, PlannedExperiment
from dialsum.batch.screen import RunProgress
from dialsum.config.retry import Change, RungError, apply_rung
from dialsum.record import Record

MENDABLE_STAGE = "train"
"""Before training nothing that a rung halves takes memory; after it a night would be thrown away,
and no rung makes writing summaries smaller."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at an experiment.

    Attributes:
        planned: the experiment as the plan has it.
        experiment: the same with this attempt's values and log.
        run: what its process is told of it.
    """

    planned: PlannedExperiment
    experiment: PlannedExperiment
    run: AttemptOfRun


@dataclass(frozen=True)
class Decision:
    """What follows a failed attempt.

    Attributes:
        changes: what the next one changes; empty: there is none.
        left: the rungs after it.
        said: why rungs were left out, or why there is no other attempt; empty where none was asked.
    """

    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def first_attempt(planned: PlannedExperiment) -> Attempt:
    """Return the attempt with the experiment's own values."""
    rungs = tuple(planned.config.batch.retry)
    return Attempt(planned, planned, replace(FIRST, left=rungs))


def decide(attempt: Attempt, record: Record) -> Decision:
    """Choose the next rung after an attempt, in the order of batch.retry.

    After full memory, lr_half is left out, and stays for an attempt that meets NaN.
    """
    left = attempt.run.left
    cause, stage = record.value("failure.cause"), record.value("failure.stage")
    if record.status != "failed" or not attempt.planned.config.batch.retry:
        return Decision()
    if cause not in CAUSE_WORDS:
        return Decision(said=("no fresh attempt: batch.retry is for NaN and full memory",))
    if stage != MENDABLE_STAGE:
        return Decision(
            said=(
                f"no fresh attempt: {say_failure(record.content)} outside of training, which no "
                "rung of batch.retry mends",
            )
        )
    said = []
    for place, rung in enumerate(left):
        if cause != NAN and rung == "lr_half":
            said.append("lr_half is left out: half the learning rate takes no less memory")
            continue
        try:
            changes = apply_rung(
                rung,
                attempt.experiment.config,
                batch=_whole(record, "training.per_device_train_batch_size"),
                accumulation=_whole(record, "training.gradient_accumulation_steps"),
            )
        except RungError as error:
            said.append(f"{rung} is left out: {error}")
            continue
        return Decision(tuple(changes), (*left[:place], *left[place + 1 :]), tuple(said))
    end = f"no rung of batch.retry is left after the {ordinal(attempt.run.number)} attempt"
    return Decision(said=(*said, end))


def _whole(record: Record, key: str) -> int | None:
    value = record.number(key)
    return None if value is None else int(value)


def plan_next(attempt: Attempt, decision: Decision, record: Record) -> Attempt:
    """Return the attempt that a decision asks for; what the failed one left is still in its place.

    Args:
        record: of the attempt that failed.

    Raises:
        ConfigError: the changed values do not fit together.
    """
    planned, before = attempt.planned, attempt.run
    entry = describe_attempt(before.number, before.changes, record.content)
    run = AttemptOfRun(before.number + 1, decision.changes, decision.left, (*before.earlier, entry))
    loaded = planned.loaded.changed(run.source())
    log = planned.log.with_name(f"{planned.log.stem}.attempt_{run.number}{planned.log.suffix}")
    return Attempt(planned, replace(planned, loaded=loaded, log=log), run)


def point_to_failed(attempt: Attempt, kept: Path, *, log: Path) -> Attempt:
    """Return an attempt that knows where the one before it is kept, ready to start.

    Args:
        kept: the folder to which the failed run was moved.
        log: what the failed one's process printed.
    """
    *others, last = attempt.run.earlier
    entry = point_to_files(last, kept, log=log, folder=attempt.planned.paths.folder)
    return replace(attempt, run=replace(attempt.run, earlier=(*others, entry)))


def describe_dead_attempt(
    attempt: Attempt,
    *,
    status: str,
    reason: str,
    started_at: datetime,
    plan: BatchPlan,
    killed_in: RunProgress | None,
) -> dict[str, Any]:
    """Return the record of an attempt that ended just now and left none.

    Args:
        killed_in: what its events told, where something killed it that was not this batch.
    """
    content = describe_dead_run(
        experiment=attempt.planned.name,
        label=attempt.planned.label,
        kind=plan.kind,
        batch=plan.batch_id,
        status=status,
        reason=reason,
        started_at=started_at,
        finished_at=datetime.now().astimezone(),
    )
    if killed_in is not None:
        content["failure"] = {"cause": KILLED, "stage": killed_in.stage}
        content["failure"] |= {"step": killed_in.step} if killed_in.step else {}
    return attempt.run.add_to(content)

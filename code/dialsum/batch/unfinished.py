"""Going on with the last batch of a root: what of it stays, what goes on and from where, and what
died with its runner.

The ledger says what was asked, the records say what came of it. Must not start anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from dialsum.batch.ledger import (
    INTERRUPTED,
    RUNNING,
    KeptBatch,
    KeptExperiment,
    Ledger,
    absolute_options,
    read_batches,
    read_events,
)
from dialsum.batch.lock import hold_run
from dialsum.batch.plan import BatchPlan, find_root, load_selected
from dialsum.batch.result import BatchResult, ExperimentResult
from dialsum.cli import BatchOptions
from dialsum.config.load import LoadedConfig
from dialsum.config.schema import schema_keys
from dialsum.config.sources import Source, read_overrides
from dialsum.config.yaml import show_value
from dialsum.errors import RunError, UnfitError
from dialsum.experiment.attempt import LOST
from dialsum.experiment.job import Job, read_job
from dialsum.experiment.resume import ResumePoint, find_resume_point
from dialsum.paths import BatchPaths, shown
from dialsum.record import Record, describe_dead_run, read_record, write_failed_record
from dialsum.text import say_first

FLAGS = {
    "configs": "--config",
    "one_epoch": "--one-epoch",
    "demo": "--demo",
    "rehearse": "--rehearse",
    "data_dir": "--data-dir",
    "only": "--only",
    "output_dir": "--output-dir",
    "runs_dir": "--runs-dir",
    "log_dir": "--log-dir",
    "overrides": "--set",
    "seed": "--seed",
    "stop_on_error": "--stop-on-error",
}
"""Options that say what a batch is."""
AROUND = (
    "tracking.wandb",
    "tracking.project",
    "tracking.entity",
    "tracking.tensorboard",
    "batch.disk_budget_gb",
    "batch.hang_minutes",
    "batch.cooldown",
    "batch.free_timeout_seconds",
)
"""Keys that --set may give other values when a batch goes on: what a night may have failed of, and
no score depends on."""
MOST_CHANGES = 3


@dataclass(frozen=True)
class Unfinished:
    """A batch that goes on.

    Attributes:
        kept: as the ledger has it.
        plan: its jobs as they run now, and which of them have ended.
        results: of those that have ended, by number.
        notes: what the user should know.
    """

    kept: KeptBatch
    plan: BatchPlan
    results: Mapping[int, ExperimentResult]
    notes: list[str]


def find_unfinished(options: BatchOptions) -> Unfinished:
    """Return the last batch of the root that options name, as it goes on now.

    Args:
        options: resume or retry_failed among them. Where they say more, it must be what the batch
            was started with.

    Raises:
        UnfitError: there is no batch, it was started with other options, or nothing of it is left.
    """
    loaded, problems = load_selected(options)
    ledger = BatchPaths(find_root(options, loaded), Path()).ledger
    batches = read_batches(ledger, most=1)
    if not batches:
        raise UnfitError(
            f"{shown(ledger)}: no batch was started in this folder, so there is none to go on "
            "with. Start one without --resume; one that was started with --demo, --one-epoch, "
            "--data-dir or --output-dir needs them here as well"
        )
    kept = batches[0]
    around = _find_other_values(options, kept)
    # The same cluster may have another address after it was started anew.
    address = options.ray_address or kept.plan.options.ray_address
    notes = _find_edits(kept, loaded, problems)
    jobs, ended = [], {}
    for one in kept.experiments:
        record = _read_own(one)
        if record is not None and (
            record.succeeded or not (record.cut_off or options.retry_failed)
        ):
            ended[one.number] = ExperimentResult(one.last, record, one.log)
            jobs.append(one.last)
            continue
        job, note = _prepare(one, record)
        if around.statements:
            job = replace(job, loaded=job.loaded.changed(around))
        jobs.append(job)
        notes += [note] if note else []
    plan = replace(
        kept.plan,
        options=replace(kept.plan.options, dry_run=options.dry_run, ray_address=address),
        jobs=tuple(jobs),
        ended=frozenset(ended),
    )
    # A runner that was killed after its last experiment owes the table still.
    has_table = plan.paths.text_summary(plan.started_at).exists()
    if not plan.waiting and has_table and kept.status not in (RUNNING, INTERRUPTED):
        failed = [one.job.label for one in ended.values() if not one.record.succeeded]
        rest = f"; {', '.join(failed)} failed: --retry-failed runs what failed again"
        why = (
            "and none of it failed" if options.retry_failed else "so there is nothing to go on with"
        )
        flag = "--retry-failed" if options.retry_failed else "--resume"
        raise UnfitError(
            f"{shown(plan.paths.root)}: its last batch, {plan.batch_id}, has come to its end, {why}"
            f"{rest if failed else ''}. Leave {flag} out to start a new one"
        )
    done = [f"{number} {one.job.label}" for number, one in ended.items()]
    head = f"goes on with batch {plan.batch_id} ({kept.status})"
    finished = f"; finished before: {', '.join(done)}" if done else "; none of it was finished"
    return Unfinished(kept, plan, ended, [head + finished, *notes])


def find_cut_off(plan: BatchPlan) -> list[str]:
    """Say that the last batch of a root was not finished, before a new one moves its runs away.

    Raises:
        UnfitError: the ledger cannot be read.
    """
    batches = read_batches(plan.paths.ledger, most=1)
    if not batches or batches[0].status not in (RUNNING, INTERRUPTED):
        return []
    last = batches[0].plan
    return [
        f"batch {last.batch_id} in {shown(last.paths.root)} was not finished: --resume would go on "
        "with it. A new batch moves its runs to previous/, where --resume does not look"
    ]


def _find_other_values(options: BatchOptions, kept: KeptBatch) -> Source:
    """Return the values of AROUND that the batch was not started with.

    Raises:
        UnfitError: options ask for something else that the batch was not started with.
    """
    asked, then = absolute_options(options), absolute_options(kept.plan.options)
    usual = BatchOptions(())
    found = read_overrides([one for one in asked.overrides if one not in then.overrides])
    if not found.problems and all(one.key in AROUND for one in found.statements):
        asked = replace(asked, overrides=then.overrides)
    else:
        found = Source()
    other = [
        flag
        for name, flag in FLAGS.items()
        if getattr(asked, name) not in (getattr(usual, name), getattr(then, name))
    ]
    if other:
        files = say_first([shown(path) for path in then.configs], limit=3)
        started = (then.script or files) + then.only_words + then.command_line
        raise UnfitError(
            f"{', '.join(other)}: the last batch in {shown(kept.plan.paths.root)}, "
            f"{kept.plan.batch_id}, was not started so ({started}). It goes on "
            "with what it began with: leave the option out (--set may change "
            f"{', '.join(AROUND)}), or leave --resume out to start a new batch"
        )
    return found


def _find_edits(
    kept: KeptBatch, loaded: Mapping[int, LoadedConfig], problems: list[str]
) -> list[str]:
    """Name what in the configuration files is not what the batch began with."""
    notes = [
        f"not used, since the batch goes on with what it began with: {one}" for one in problems
    ]
    for one in kept.experiments:
        if one.number not in loaded:
            continue
        now, then = loaded[one.number], one.first.loaded
        edits = [
            f"{key} {show_value(then.value(key))} -> {show_value(now.value(key))}"
            for key in schema_keys()
            # The checkpoint's commit was found at the start.
            if now.value(key) not in ((then.value(key), None) if key == "model.revision" else ())
            and now.value(key) != then.value(key)
        ]
        if edits:
            notes.append(
                f"{one.number} {one.label}: its configuration was changed since "
                f"({say_first(edits, limit=MOST_CHANGES)}); it goes on with what it began with"
            )
    return notes


def _read_own(one: KeptExperiment) -> Record | None:
    """Return the record of an experiment's last attempt; None where it left none that proves it."""
    with suppress(RunError):  # none, or a damaged one
        record = read_record(one.last.paths.result)
        asked = one.last.batch, one.last.loaded.sha256
        if (record.value("batch"), record.value("config_sha256")) == asked:
            return record
        # Of a process that could not write its own, its runner wrote what it knew.
        if record.value("batch") == asked[0] and record.status == "failed":
            return record
    return None


def _prepare(one: KeptExperiment, record: Record | None) -> tuple[Job, str]:
    """Return an experiment's job as it runs now, and what is to be said of it."""
    name, job = f"{one.number} {one.label}", one.last
    if record is not None and not record.cut_off:
        attempt = job.attempt.follow((), record.content)
        return replace(one.first, attempt=attempt), f"{name}: failed, and runs again"
    if one.status == "success":
        return job, f"{name}: its record is gone or not of this batch, so it runs again"
    if not _is_own(job):
        return job, ""
    point = _find_point(job)
    if point is None:
        return job, f"{name}: was cut off before its first checkpoint, so it starts again"
    left = "".join(f"; {note}" for note in point.notes)
    return replace(job, resume=True), f"{name}: goes on after step {point.step:,}{left}"


def _find_point(job: Job) -> ResumePoint | None:
    with suppress(UnfitError):
        return find_resume_point(
            job.paths,
            config_sha256=job.loaded.outcome_sha256,
            train_sha256=str(job.data_sha256.get("train")),
        )
    return None


def find_step(job: Job) -> int | None:
    """Return the step from which a run that was cut off goes on; None where it starts again."""
    point = _find_point(job) if _is_own(job) else None
    return None if point is None else point.step


def _is_own(job: Job) -> bool:
    """Tell whether what stands in a job's folder is of this very job."""
    with suppress(UnfitError):
        found = read_job(job.paths.job)
        # By what decides the outcome: the rest may have been changed when it went on.
        return found.batch == job.batch and found.loaded.outcome_sha256 == job.loaded.outcome_sha256
    return False


def close_dead(ledger: Ledger, *, but: str) -> list[tuple[Path, BatchResult]]:
    """Record as interrupted what the ledger calls running though its runner is gone; called by who
    holds the root.

    Args:
        but: the batch that starts or goes on now.

    Returns:
        The batches that died, each with its file of results.

    Raises:
        UnfitError, RunError: the ledger cannot be read, or a record not be written.
    """
    found = []
    for kept in read_batches(ledger.path, status=RUNNING):
        if kept.plan.batch_id == but:
            continue
        plan = kept.plan
        last = datetime.fromisoformat(read_events(ledger.path, plan.batch_id)[-1]["time"])
        result = BatchResult(plan, finished_at=last, interrupted=True)
        for one in kept.experiments:
            record = _read_own(one)
            if record is None and one.status == RUNNING and _is_own(one.last):
                record = _record_dead(one)
                ledger.end_attempt(plan, one.last, record, last=True)
            if record is not None:
                result.by_number[one.number] = ExperimentResult(one.last, record, one.log)
        ledger.end(plan.batch_id, result.status)
        found.append((plan.paths.results(plan.started_at), result))
    return found


def _record_dead(one: KeptExperiment) -> Record:
    """Write the record of a run that died with its runner."""
    content = describe_dead_run(
        one.last,
        "interrupted",
        "it died with its runner: that process was killed, or the machine went down",
        started_at=one.started_at or datetime.now().astimezone(),
    )
    content["failure"] = {"cause": LOST}
    with hold_run(one.last.paths):
        return write_failed_record(one.last.paths, one.last.attempt.add_to(content))

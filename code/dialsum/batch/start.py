"""How experiments start: a batch from its options to its closing table, and a run by itself.

The order of the steps is here; what each of them decides is theirs. Reports are handed in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from dialsum.batch.check import (
    check_alone,
    check_plan,
    choose_place,
    choose_slots,
    explain_checkpoint,
    load_without_wrong,
    pin_checkpoints,
    take_env_file,
)
from dialsum.batch.child import listen_for_interrupts
from dialsum.batch.plan import (
    TRAINER,
    BatchOptions,
    BatchPlan,
    describe_plan,
    describe_replaced,
    load_selected,
    make_plan,
)
from dialsum.batch.queue import WriteResults, note_unwritten, run_queue
from dialsum.batch.result import BatchResult, name_cause
from dialsum.batch.screen import Screen
from dialsum.config.load import load_config
from dialsum.environment_variables import describe_variables
from dialsum.errors import EXIT_OK, ConfigError, DialsumError, ProblemsError
from dialsum.experiment.job import Job
from dialsum.files import write_report
from dialsum.paths import STAMP, BatchPaths


class FormatClosing(Protocol):
    """Makes the lines that end a batch; width: columns of the terminal, None: of any width."""

    def __call__(self, result: BatchResult, *, width: int | None = None) -> list[str]: ...


SAMPLE = "sample"
"""Name of the folder of the demo's own data."""


def run_batch(
    options: BatchOptions,
    *,
    write_results: WriteResults,
    format_closing: FormatClosing,
    dry_run: bool = False,
    trainer: Sequence[str] = TRAINER,
    screen: Screen | None = None,
) -> int:
    """Run a batch from its options to its closing text and return the exit status.

    Args:
        write_results: writes the batch's own files, again and again (run_queue).
        format_closing: makes the lines that end it, for the screen and the batch's logs.
        dry_run: check and print the plan only; nothing is written.
        trainer: program and first arguments of an experiment's process.
        screen: where a person follows it; stdout when absent.

    Raises:
        UnfitError: something is not fit; every problem that can be known is in it, and nothing was
            started.
    """
    screen = screen or Screen.on(sys.stdout)
    said, unread = take_env_file()
    loaded, problems = load_selected(options)
    problems += unread
    plan = make_plan(options, loaded, started_at=datetime.now().astimezone(), trainer=trainer)
    findings = check_plan(plan, dry_run=dry_run, refused=problems)
    plan = findings.plan
    if plan.jobs:
        screen.say(*describe_plan(plan, width=screen.width))
        notes = [*said, *describe_variables(os.environ), *findings.notes, *_expect_little(plan)]
        for lines in (describe_replaced(plan.jobs), notes):
            screen.say(*(["", *lines] if lines else []))
    problems += findings.problems
    if problems:
        raise ProblemsError(problems)
    if dry_run:
        machine = "" if findings.machine_fit else ", this machine is not (see above)"
        screen.say("", f"dry run: configuration and data are fit{machine}; nothing was written")
        return EXIT_OK
    plan = pin_checkpoints(plan, say=screen.say)
    with listen_for_interrupts() as interrupts:
        result = run_queue(plan, screen=screen, write_results=write_results, interrupts=interrupts)
        # Still listening: a second Ctrl-C must not cost the table.
        text = plan.paths.text_summary(plan.started_at)
        try:
            write_report(text, "\n".join(format_closing(result)) + "\n")
        except DialsumError as error:
            note_unwritten(result, {text: name_cause(error)}, screen)
        screen.say("", *format_closing(result, width=screen.width))
    return result.exit_status


def _expect_little(plan: BatchPlan) -> list[str]:
    """Say beforehand where scores near the constant sentence are no mistake."""
    if plan.kind == "demo" and any(
        Path(job.config.data.data_dir).name != SAMPLE for job in plan.jobs
    ):
        why = "tiny models learn little from data that was not made for them"
    elif plan.options.one_epoch:
        why = "one epoch teaches little"
    else:
        return []
    return [f"scores near the constant sentence (the floor) are to be expected: {why}"]


def explain_batch(options: BatchOptions) -> str:
    """Return every value of every selected experiment with where it was written.

    Raises:
        ConfigError: with every problem of every file.
    """
    loaded, problems = load_selected(options)
    if problems:
        raise ConfigError(problems)
    return "\n\n".join(
        one.explain(checkpoint=explain_checkpoint(one.config, environment=os.environ))
        for one in loaded.values()
    )


def make_jobs(configs: Sequence[Path], **options: Any) -> list[Job]:
    """Return the checked jobs of a batch, their checkpoints fetched: for experiments from Python.

    Args:
        configs: experiment files.
        options: what else BatchOptions holds, such as demo, overrides or output_dir.

    Raises:
        ProblemsError: configuration, data, places, machine or checkpoints are not fit.
    """
    asked = BatchOptions(configs=tuple(configs), **options)
    loaded, problems = load_selected(asked)
    plan = make_plan(asked, loaded, started_at=datetime.now().astimezone())
    findings = check_plan(plan, refused=problems)
    if problems := [*problems, *findings.problems]:
        raise ProblemsError(problems)
    return list(pin_checkpoints(findings.plan, say=print).jobs)


def start_batch(
    jobs: Sequence[Job],
    *,
    write_results: WriteResults = lambda _: {},
    trainer: Sequence[str] = TRAINER,
    screen: Screen | None = None,
) -> BatchResult:
    """Run jobs to their end and return what came of them; each leaves its record in its folder.

    Args:
        jobs: of one call of make_jobs, all or some of them, or changed ones.
        write_results, trainer, screen: as for run_batch.

    Raises:
        UnfitError: another batch is at work in these folders.
    """
    first = jobs[0].paths
    root = first.model.parent.parent
    paths = BatchPaths(root, log_root=root / "logs", runs=first.folder.parent)
    options = BatchOptions(
        configs=tuple(job.loaded.path for job in jobs),
        demo=jobs[0].kind == "demo",
        one_epoch=jobs[0].kind == "one_epoch",
    )
    started = datetime.strptime(str(jobs[0].batch), STAMP).astimezone()
    slots, problems = choose_slots([job.config for job in jobs], environment=os.environ)
    if problems:
        raise ProblemsError(problems)
    plan = BatchPlan(options, started, paths, tuple(jobs), slots, tuple(trainer))
    return run_queue(plan, screen=screen or Screen.on(sys.stdout), write_results=write_results)


def make_alone_job(
    path: Path,
    *,
    overrides: Sequence[str],
    overlays: Sequence[Path],
    output_dir: Path | None,
    run_dir: Path | None,
    model_dir: Path | None,
    one_epoch: bool,
    resume: bool,
) -> Job:
    """Return the job of a run that no batch starts, checked as far as it can be here.

    Args:
        output_dir, run_dir, model_dir: where it goes (choose_place).
        resume: go on with the run that stands there.

    Raises:
        ProblemsError: configuration, place, machine, checkpoint or data are unfit: all of it.
    """
    paths = choose_place(path.stem, output_dir=output_dir, run_dir=run_dir, model_dir=model_dir)
    known: list[str] = []
    try:
        loaded = load_config(path, overrides=overrides, overlays=overlays)
    except ConfigError as error:
        mended = load_without_wrong(path, overrides=overrides, overlays=overlays)
        if mended is None:
            raise
        loaded, known = mended, error.problems
    kind = "one_epoch" if one_epoch else "full"
    return check_alone(Job(loaded, paths, kind, resume=resume), known=known)

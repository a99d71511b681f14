"""The way of a batch from options to closing table: load, plan, check, say, run, report.

What code/auto_experiment_runner.py calls. Must not decide anything that the steps decide.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from dialsum.batch.check import (
    Findings,
    check_plan,
    explain_checkpoint,
    pin_checkpoints,
    take_env_file,
)
from dialsum.batch.child import listen_for_interrupts
from dialsum.batch.options import BatchOptions
from dialsum.batch.plan import TRAINER, BatchPlan, load_selected, make_plan
from dialsum.batch.plan_text import describe_plan, describe_replaced
from dialsum.batch.queue import note_unwritten, run_batch
from dialsum.batch.result import BatchOutcome, UnwrittenFilesError
from dialsum.batch.screen import Screen
from dialsum.environment_variables import describe_variables
from dialsum.errors import EXIT_OK, ConfigError, ProblemsError
from dialsum.report.closing import format_closing
from dialsum.report.summaries import write_batch_files, write_closing_text

SAMPLE = "sample"
"""Name of the folder of the demo's own data."""


def start_batch(
    options: BatchOptions,
    *,
    dry_run: bool = False,
    trainer: Sequence[str] = TRAINER,
    screen: Screen | None = None,
) -> int:
    """Run a batch from its options to its closing table and return the exit status.

    Args:
        dry_run: check and print the plan only; nothing is written.
        trainer: program and first arguments of an experiment's process.
        screen: where a person follows it; stdout when absent.

    Raises:
        UnfitError: something is not fit; every problem that can be known is in it, and nothing was
            started.
    """
    screen = screen or Screen.on(sys.stdout)
    variables, unread = _take_environment()
    loaded, problems = load_selected(options)
    problems += unread
    plan = make_plan(options, loaded, started_at=datetime.now().astimezone(), trainer=trainer)
    findings = check_plan(plan, dry_run=dry_run, refused=problems)
    plan = findings.plan
    findings = replace(findings, notes=[*variables, *findings.notes])
    _say_plan(plan, findings, screen)
    problems = [*problems, *findings.problems]
    if problems:
        raise ProblemsError(problems)
    if dry_run:
        screen.say(
            "",
            "dry run: configuration and data are fit"
            + (", this machine is not (see above)" if not findings.machine_fit else "")
            + "; nothing was written",
        )
        return EXIT_OK
    plan = pin_checkpoints(plan, say=screen.say)
    with listen_for_interrupts() as interrupts:
        outcome = run_batch(
            plan, screen=screen, write_results=write_batch_files, interrupts=interrupts
        )
        # Still listening: a second Ctrl-C must not cost the table.
        _close(outcome, screen)
    return outcome.exit_status


def _take_environment() -> tuple[list[str], list[str]]:
    """Take what a file .env may give.

    Returns:
        What to say of the environment; what is wrong with the file.
    """
    try:
        notes, problems = take_env_file(), []
    except ProblemsError as error:
        notes, problems = [], error.problems
    return [*notes, *describe_variables(os.environ)], problems


def _say_plan(plan: BatchPlan, findings: Findings, screen: Screen) -> None:
    if not plan.experiments:
        return
    screen.say(*describe_plan(plan, width=screen.width))
    replaced = describe_replaced(plan.experiments)
    screen.say(*(["", *replaced] if replaced else []))
    notes = [*findings.notes, *_expect_little(plan)]
    screen.say(*(["", *notes] if notes else []))


def _expect_little(plan: BatchPlan) -> list[str]:
    """Say beforehand where scores near the constant sentence are no mistake."""
    foreign = plan.kind == "demo" and any(
        one.train.parent.name != SAMPLE for one in plan.experiments
    )
    if not (foreign or plan.options.one_epoch):
        return []
    why = (
        "tiny models learn little from data that was not made for them"
        if foreign
        else "one epoch teaches little"
    )
    return [f"scores near the constant sentence (the floor) are to be expected: {why}"]


def _close(outcome: BatchOutcome, screen: Screen) -> None:
    """Print the closing text and keep it beside the logs."""
    try:
        write_closing_text(outcome, format_closing(outcome))
    except UnwrittenFilesError as error:
        note_unwritten(outcome, error, screen)
    screen.say("", *format_closing(outcome, width=screen.width))


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

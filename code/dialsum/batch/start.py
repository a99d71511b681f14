"""A batch from its options to its closing table.

The order of the steps is here; what each of them decides is theirs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.batch.check import CHECKPOINTS, CONFIGURATION, UNSEEN, Findings, check_plan
from dialsum.batch.checkpoints import explain_checkpoint, pin_checkpoints
from dialsum.batch.child import listen_for_interrupts
from dialsum.batch.deep import ask_for_checkpoints, find_card_name, look_deeper, remember_memory
from dialsum.batch.ledger import read_durations
from dialsum.batch.plan import (
    TRAINER,
    BatchPlan,
    describe_bounds,
    describe_plan,
    describe_replaced,
    load_mended,
    load_selected,
    make_plan,
)
from dialsum.batch.queue import note_unwritten, run_queue
from dialsum.batch.ray_executor import reach_cluster
from dialsum.batch.result import describe_unwritten
from dialsum.batch.screen import Screen
from dialsum.batch.space import estimate_disk_bytes
from dialsum.batch.unfinished import Unfinished, find_cut_off, find_unfinished
from dialsum.cli import BatchOptions
from dialsum.environment_variables import describe_variables, take_env_file
from dialsum.errors import EXIT_OK, ConfigError, DialsumError, ProblemsError
from dialsum.files import write_report
from dialsum.report.closing import format_closing


def run_batch(
    options: BatchOptions, *, trainer: Sequence[str] = TRAINER, screen: Screen | None = None
) -> int:
    """Run a batch from its options to its closing text and return the exit status.

    Args:
        trainer: program and first arguments of an experiment's process.
        screen: where a person follows it; stdout when absent.

    Raises:
        UnfitError: something is not fit; every problem that can be known is in it, and nothing was
            started.
    """
    screen = screen or Screen.on(sys.stdout)
    said, unread = take_env_file()
    said += describe_variables(os.environ)
    unfinished = find_unfinished(options) if options.resume or options.retry_failed else None
    findings = _check(options, trainer=trainer, known=unread, unfinished=unfinished)
    # Stand-ins for the trainer have no tokenizers.
    can_look = findings.plan.trainer == TRAINER
    if can_look and (options.deep if options.dry_run else findings.problems):
        findings = _look_deeper(findings, screen, keep=False, hub=True, forecast=options.deep)
    plan = findings.plan
    if plan.fit:
        screen.say(*describe_plan(plan, width=screen.width))
    if plan.jobs:
        notes = [*said, *findings.notes]
        if plan.kind == "demo" and plan.own_data:
            notes.append(
                "scores near the constant sentence (the floor) are to be expected: tiny models "
                "learn little from data that was not made for them"
            )
        for lines in (describe_replaced(plan.fit), notes):
            screen.say(*(["", *lines] if lines else []))
    if findings.problems or options.dry_run:
        screen.say("", *findings.describe(width=screen.width))
        findings.refuse()
        machine = "" if findings.machine_fit else ", this machine is not (see above)"
        unseen = [name for name, one in findings.areas.items() if one.state == UNSEEN]
        machine += f"; not looked at: {', '.join(unseen)}" if unseen else ""
        if findings.areas[CHECKPOINTS].state == "unknown":
            machine += "; whether the hub has the checkpoints is not known"
        kept = " but forecasts, in data.cache_dir" if options.deep else ""
        fit = f"configuration and data are fit{machine}; nothing was written{kept}"
        screen.say("", f"dry run: {fit}")
        return EXIT_OK
    with reach_cluster(plan) as cluster:
        try:
            plan = pin_checkpoints(plan, say=screen.say)
        except ProblemsError as error:
            findings.areas[CHECKPOINTS].problems += error.problems
            findings.areas[CHECKPOINTS].says = "not all could be had"
            screen.say("", *findings.describe(width=screen.width))
            findings.refuse()
        findings = replace(findings, plan=plan)
        there = findings.areas[CHECKPOINTS]
        if there.state != "ok":  # to be made or fetched, which was done just now
            there.says, there.state = "all here now", "ok"
        if can_look:
            findings = _look_deeper(findings, screen, keep=True, hub=False, forecast=options.deep)
        screen.say("", *findings.describe(width=screen.width))
        findings.refuse()
        with listen_for_interrupts() as interrupts:
            result = run_queue(
                plan, screen=screen, interrupts=interrupts, unfinished=unfinished, cluster=cluster
            )
            # Still listening: a second Ctrl-C must not cost the table.
            text, lines = plan.paths.text_summary(plan.started_at), format_closing(result)
            try:
                write_report(text, "\n".join([*lines, ""]))
            except DialsumError as error:
                note_unwritten(result, {text: describe_unwritten(error)}, screen)
                lines = format_closing(result)
            if screen.width is not None:
                lines = format_closing(result, width=screen.width)
            screen.say("", *lines)
    return result.exit_status


def _look_deeper(
    findings: Findings, screen: Screen, *, keep: bool, hub: bool, forecast: bool
) -> Findings:
    """Add what the deep look finds, and say it; the plan has what was forecast.

    Args:
        keep: encoded rows are kept for the runs.
        hub: ask it for what is not here.
        forecast: memory too, and facts that nobody need know.
    """
    plan, card = findings.plan, find_card_name()
    found, bounds = look_deeper(plan, keep=keep, forecast=forecast, card=card, say=screen.say)
    if hub:
        found[CHECKPOINTS] = ask_for_checkpoints(plan)
    for name, area in found.items():
        screen.say(*area.notes)
        findings.areas[name].problems += area.problems
        findings.areas[name].says = area.says or findings.areas[name].says
        findings.areas[name].state = area.state
    if bounds and plan.kind != "demo":
        screen.say("", *describe_bounds(plan, bounds, card=card, width=screen.width), "")
    memory = remember_memory(plan) if forecast else plan.memory
    return replace(findings, plan=replace(plan, memory=memory))


def _check(
    options: BatchOptions,
    *,
    trainer: Sequence[str] = TRAINER,
    known: Sequence[str] = (),
    unfinished: Unfinished | None = None,
) -> Findings:
    """Plan a batch and check it."""
    if unfinished is None:
        loaded, problems = load_selected(options)
        mended = load_mended(options, loaded)
        all_of_them = dict(sorted({**loaded, **mended}.items()))
        now = datetime.now().astimezone()
        plan = make_plan(options, all_of_them, started_at=now, trainer=trainer)
        plan = replace(plan, mended=frozenset(mended))
        notes = find_cut_off(plan)
    else:
        problems, notes = [], unfinished.notes
        plan = replace(unfinished.plan, trainer=tuple(trainer))
    problems += known
    plan = replace(plan, measured=read_durations(plan.paths.ledger), memory=remember_memory(plan))
    if plan.kind != "demo":
        plan = replace(
            plan, disk={job.number: estimate_disk_bytes(job.config) for job in plan.jobs}
        )
    findings = check_plan(plan, dry_run=options.dry_run, refused=problems)
    findings.areas[CONFIGURATION].notes[:0] = notes
    return findings


def prepare_batch(
    configs: Sequence[Path], *, trainer: Sequence[str] = TRAINER, **options: Any
) -> BatchPlan:
    """Return the checked plan of a batch, its checkpoints fetched: for experiments from Python.

    run_queue runs it; its jobs may be changed or left out before.

    Args:
        configs: experiment files.
        options: what else BatchOptions holds, such as demo, overrides or output_dir.

    Raises:
        ProblemsError: configuration, data, places, machine or checkpoints are not fit.
    """
    asked = BatchOptions(configs=tuple(configs), **options)
    findings = _check(asked, trainer=trainer)
    findings.refuse()
    return pin_checkpoints(findings.plan, say=print)


def explain_batch(options: BatchOptions) -> str:
    """Return every value of every selected experiment with where it was written.

    Raises:
        ConfigError: with every problem of every file.
    """
    loaded, problems = load_selected(options)
    if problems:
        raise ConfigError(problems)
    return "\n\n".join(
        one.explain(checkpoint=explain_checkpoint(one.config)) for one in loaded.values()
    )

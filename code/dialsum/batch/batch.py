"""The queue: one experiment after another, each in a process of its own, whatever becomes of the
others.

Must not know what an experiment computes, nor how results are laid out: it hands over outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime

from dialsum.batch.attempts import first_attempt
from dialsum.batch.executor import GRACE_SECONDS
from dialsum.batch.handover import CardUse, read_card_use
from dialsum.batch.interrupts import Interrupts, listen_for_interrupts
from dialsum.batch.lock import hold_batch, make_folder
from dialsum.batch.outcome import BatchOutcome
from dialsum.batch.plan import BatchPlan
from dialsum.batch.queue import Queue, write_job
from dialsum.batch.screen import Screen
from dialsum.batch.unwritten import UnwrittenFilesError, word_causes
from dialsum.errors import DialsumError, UnfitError

WriteResults = Callable[[BatchOutcome], None]


def run_batch(
    plan: BatchPlan,
    *,
    screen: Screen,
    write_results: WriteResults,
    interrupts: Interrupts | None = None,
    grace_seconds: float = GRACE_SECONDS,
    read_use: Callable[[], CardUse] = read_card_use,
) -> BatchOutcome:
    """Run the experiments of a plan in order; a failure is recorded, and the next one starts.

    Args:
        plan: checked before (preflight.py).
        screen: where a person follows it.
        write_results: called at the start, after each experiment and at the end, to write the
            batch's own files.
        interrupts: where somebody listens for wishes to stop already; else they are heard here.
        grace_seconds: time an experiment has to stop when asked.
        read_use: asks the driver who uses the cards.

    Raises:
        UnfitError: the folders cannot be made or another batch holds them; nothing was started.
    """
    outcome = BatchOutcome(plan)
    for folder in (plan.paths.root, plan.paths.runs, plan.paths.logs(plan.started_at)):
        make_folder(folder)
    hearing = nullcontext(interrupts) if interrupts else listen_for_interrupts()
    runs = [one.paths for one in plan.experiments]
    with hold_batch(plan.paths, runs), hearing as interrupts:
        _write_first(outcome, write_results)
        queue = Queue(outcome, screen, interrupts, grace_seconds, read_use)
        queue.say_cards(none="no NVIDIA GPU in this machine")
        for experiment in plan.experiments:
            if outcome.outcomes:
                queue.hand_over(outcome.outcomes[-1].experiment)
            if interrupts.wanted:
                break
            if not queue.has_room(experiment):
                break
            queue.run_one(experiment)
            _write_or_say(outcome, write_results, screen)
            if plan.options.stop_on_error and not outcome.records[-1].succeeded:
                break
        outcome.interrupted = interrupts.wanted and not outcome.all_succeeded
        outcome.finished_at = datetime.now().astimezone()
        _write_or_say(outcome, write_results, screen)
    return outcome


def _write_first(outcome: BatchOutcome, write_results: WriteResults) -> None:
    """Write the batch's files, and the job of each experiment, before anything runs: what fails
    now would fail after hours as well."""
    try:
        for experiment in outcome.plan.experiments:
            write_job(first_attempt(experiment), outcome.plan)
        write_results(outcome)
    except DialsumError as error:
        raise UnfitError(f"{error} Nothing was started.") from error


def _write_or_say(outcome: BatchOutcome, write_results: WriteResults, screen: Screen) -> None:
    """Write the batch's files; that they cannot be written ends no batch, but is said and turns up
    at its end, unless a later attempt succeeds."""
    outcome.unwritten.clear()
    try:
        write_results(outcome)
    except UnwrittenFilesError as error:
        note_unwritten(outcome, error, screen)


def note_unwritten(outcome: BatchOutcome, error: UnwrittenFilesError, screen: Screen) -> None:
    """Keep what could not be written for the closing lines; say each cause once in a batch."""
    outcome.unwritten |= error.causes
    for cause, line in word_causes(error.causes).items():
        screen.warn_once(line, about=cause)

"""The queue: one experiment after another, each in a process of its own, whatever becomes of the
others.

Must not know what an experiment computes, nor how results are laid out: it hands over outcomes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dialsum.archive import archive_previous, find_own_record, write_failed_record
from dialsum.batch.check import find_full_disk
from dialsum.batch.child import (
    GRACE_SECONDS,
    ChildEnd,
    Interrupts,
    listen_for_interrupts,
    run_child,
)
from dialsum.batch.handover import CardUse, read_card_use, wait_until_free
from dialsum.batch.lock import hold_batch, hold_run, make_folder
from dialsum.batch.plan import BatchPlan, PlannedExperiment, expect_minutes
from dialsum.batch.result import (
    DISK_FULL,
    BatchOutcome,
    Outcome,
    UnwrittenFilesError,
    explain_end,
    name_cause,
    word_causes,
)
from dialsum.batch.retry import (
    Attempt,
    decide,
    describe_dead_attempt,
    first_attempt,
    plan_next,
    point_to_failed,
)
from dialsum.batch.screen import Follower, RunProgress, Screen, estimate_rest, format_duration
from dialsum.errors import DialsumError, UnfitError
from dialsum.experiment.job import Job, kind_of
from dialsum.files import write_text
from dialsum.machine.driver import nvidia_gpus
from dialsum.paths import shown
from dialsum.record import Record
from dialsum.score.show import format_final
from dialsum.train.tracking import BATCH_OFF, COULD_NOT_START


@dataclass
class Queue:
    """The running batch: what its experiments share.

    Attributes:
        grace_seconds: time an experiment has to stop when asked.
        read_use: asks the driver who uses the cards.
    """

    outcome: BatchOutcome
    screen: Screen
    interrupts: Interrupts
    grace_seconds: float
    read_use: Callable[[], CardUse]
    _use_before: CardUse = field(default_factory=lambda: CardUse({}, {}))
    _group: int = 0
    _stopping_said: bool = False
    _for_child: dict[str, str] = field(default_factory=dict)

    def run_one(self, planned: PlannedExperiment) -> None:
        """Run one experiment to its end, fresh attempts included, and take its outcome in."""
        following: Attempt | None = first_attempt(planned)
        while following is not None:
            attempt = following
            result = self._run_attempt(attempt)
            self._note_tracking(result.record)
            self.screen.say(*describe_outcome(self._title(attempt), result))
            following = self._prepare_next(attempt, result)
        self.outcome.outcomes.append(result)

    def has_room(self, experiment: PlannedExperiment) -> bool:
        """Tell whether the disk has room for an experiment; say and note where it has not."""
        full = find_full_disk(experiment)
        if full is None and any(one.unwritten == DISK_FULL for one in self.outcome.outcomes):
            # As under a quota, which no free space shows.
            full = f"{DISK_FULL} for the last record"
        if full is None:
            return True
        problem = f"the disk is full, so nothing was started from {experiment.label} on: {full}"
        self.screen.say("", problem)
        self.outcome.problems.append(problem)
        return False

    def _note_tracking(self, record: Record) -> None:
        """Spare the experiments to come the wait for a W&B that cannot be had."""
        why = str(record.value("tracking.why"))
        if record.value("tracking.used") != "off" or not why.startswith(COULD_NOT_START):
            return
        if BATCH_OFF not in self._for_child:
            self._for_child[BATCH_OFF] = f"{why} (as an earlier experiment of this batch found)"
            self.screen.say(f"Weights & Biases is off for the rest of this batch: it {why}")

    def _prepare_next(self, attempt: Attempt, result: Outcome) -> Attempt | None:
        """Decide about a fresh attempt, and move what the failed one left out of its way."""
        if self.interrupts.wanted or result.unwritten:
            return None
        decision = decide(attempt, result.record)
        self.screen.say(*(f"  {line}" for line in decision.said))
        if not decision.changes:
            return None
        self.hand_over(attempt.experiment)
        if self.interrupts.wanted:
            return None
        if full := find_full_disk(attempt.planned):
            self.screen.say(f"  no fresh attempt: {full}")
            return None
        try:
            following = plan_next(attempt, decision, result.record)
            with hold_run(attempt.planned.paths):
                kept = archive_previous(attempt.planned.paths)
        except DialsumError as error:
            self.screen.say(f"  no fresh attempt: {error}")
            return None
        if kept is None:
            return None
        self.screen.say(
            f"  the failed attempt's files now stand in {shown(kept)}",
            *(f"  fresh attempt: {change.describe_whole()}" for change in decision.changes),
        )
        return point_to_failed(following, kept, log=attempt.experiment.log)

    def _run_attempt(self, attempt: Attempt) -> Outcome:
        experiment, title = attempt.experiment, self._title(attempt)
        path = shown(experiment.loaded.path)
        self.screen.say("", title, f"  file {path}", f"  log  {shown(experiment.log)}")
        self.screen.restart_pause()
        follower = Follower(
            self.screen, experiment.paths.metrics, title=title, estimate=self.time_left
        )
        self._use_before = self._ask_use()
        started = datetime.now().astimezone()
        end: ChildEnd | str
        try:
            if attempt.run.number > 1:
                write_job(attempt, self.outcome.plan)
            end = run_child(
                experiment.command,
                log=experiment.log,
                interrupts=self.interrupts,
                on_start=self._note_group,
                on_poll=lambda: self._poll(follower),
                environment=self._for_child,
                grace_seconds=self.grace_seconds,
            )
        except DialsumError as error:
            end = str(error)
        except Exception as error:
            # The edge of the queue: a fault of ours while following one run must not end the night.
            end = f"the runner failed while following it ({type(error).__name__}: {error})"
            self.screen.say(traceback.format_exc())
        return self._collect(attempt, end, started, follower.progress)

    def _poll(self, follower: Follower) -> None:
        follower.poll()
        if self.interrupts.wanted and not self._stopping_said:
            self._stopping_said = True
            self.screen.say(
                "stopping: the experiment is asked to record itself and end, which takes at most "
                f"{self.grace_seconds:g} s; Ctrl-C again kills it at once"
            )

    def _note_group(self, pid: int) -> None:
        self._group = pid

    def _title(self, attempt: Attempt) -> str:
        experiment = attempt.planned
        place = len(self.outcome.outcomes) + 1
        planned = len(self.outcome.plan.experiments)
        again = f", attempt {attempt.run.number}" if attempt.run.number > 1 else ""
        return f"[{place}/{planned}] {experiment.number} {experiment.label}{again}"

    def _collect(
        self, attempt: Attempt, end: ChildEnd | str, started: datetime, progress: RunProgress
    ) -> Outcome:
        """Find the record that the run wrote, or write the one that it could not write."""
        plan, experiment = self.outcome.plan, attempt.experiment
        own = find_own_record(experiment.paths, batch=plan.batch_id)
        if own is not None:
            return Outcome(experiment, own)
        status, reason = _explain(end, experiment.log)
        killed = isinstance(end, ChildEnd) and end.signal_name == "SIGKILL"
        content = describe_dead_attempt(
            attempt,
            status=status,
            reason=reason,
            started_at=started,
            plan=plan,
            killed_in=progress if killed and status == "failed" else None,
        )
        try:
            with hold_run(experiment.paths):
                return Outcome(experiment, write_failed_record(experiment.paths, content))
        except DialsumError as error:
            cause = name_cause(error)
            if cause == DISK_FULL:
                place = shown(experiment.paths.folder)
                content["reason"] = f"{cause} of {place}: {_explain(end, None)[1]}"
            record = Record(experiment.paths.result, content)
            return Outcome(experiment, record, unwritten=cause)

    def hand_over(self, experiment: PlannedExperiment) -> None:
        """Wait after an experiment until the cards are free for the next one; say how they are."""
        settings = experiment.config.batch
        handover = wait_until_free(
            self._use_before,
            group=self._group,
            timeout_seconds=settings.free_timeout_seconds,
            cooldown=settings.cooldown_seconds,
            interrupts=self.interrupts,
            read_use=self._ask_use,
        )
        if handover.note:
            self.screen.say(handover.note)
        if not handover.free:
            self.outcome.problems.append(f"after {experiment.label}: {handover.note}")
        self.say_cards()

    def say_cards(self, *, none: str = "") -> None:
        """Say how the cards are; none: what is said where there is none."""
        try:
            lines = [gpu.describe() for gpu in nvidia_gpus()]
        except DialsumError as error:
            lines = [f"warning: {error}"]
        if lines or none:
            self.screen.say(*(lines or [none]))

    def _ask_use(self) -> CardUse:
        """Ask who uses the cards; a driver that fails then is said: the next run meets it too."""
        try:
            return self.read_use()
        except DialsumError as error:
            self.screen.say(f"warning: {error}")
            return CardUse({}, {})

    def time_left(self, running_seconds: float, running_left: float | None) -> str | None:
        """Say when the whole batch ends; None if unknown."""
        kind = self.outcome.plan.kind
        finished = [
            (_expected_seconds(one.experiment, kind), one.record.number("duration_seconds") or 0.0)
            for one in self.outcome.outcomes
            if one.record.succeeded
        ]
        rest = [_expected_seconds(one, kind) for one in self.outcome.not_started]
        return estimate_rest(
            rest, finished=finished, current_seconds=running_seconds, current_left=running_left
        )


def write_job(attempt: Attempt, plan: BatchPlan) -> None:
    """Write all that the process of an attempt is asked: what was checked is what runs."""
    experiment = attempt.experiment
    kind = kind_of(experiment.config, one_epoch=plan.options.one_epoch)
    job = Job(
        experiment.loaded,
        experiment.paths,
        kind,
        plan.batch_id,
        attempt=attempt.run,
        data_sha256=experiment.data_sha256,
    )
    write_text(experiment.job_file, job.to_json())


def _explain(end: ChildEnd | str, log: Path | None) -> tuple[str, str]:
    return ("failed", end) if isinstance(end, str) else explain_end(end, log)


def _expected_seconds(experiment: PlannedExperiment, kind: str) -> float | None:
    minutes = expect_minutes(experiment, kind=kind)
    return None if minutes is None else minutes * 60


def describe_outcome(title: str, outcome: Outcome) -> list[str]:
    """Return the lines that close one experiment on the screen."""
    record = outcome.record
    took = format_duration(record.number("duration_seconds") or 0.0)
    if record.succeeded:
        dev = record.value("evaluation.dev")
        scores = format_final(dev if isinstance(dev, dict) else {})
        lines = [f"{title}  done in {took}: {scores}"]
    else:
        reason = record.value("reason") or "no reason is recorded"
        lines = [f"{title}  {record.status.upper()} after {took}: {reason}"]
    if outcome.unwritten:
        lines.append(f"  this could not be recorded: {outcome.unwritten}, {shown(record.path)}")
    return lines


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

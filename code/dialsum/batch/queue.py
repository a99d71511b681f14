"""The queue: experiments one after another, or several at a time, each in a process of its own,
whatever becomes of the others; a failed one is tried again as batch.retry asks.

Must not know what an experiment computes, nor how results are laid out.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from dialsum.batch.cards import (
    CardUse,
    find_strangers,
    read_card_use,
    wait_for_strangers,
    wait_until_free,
)
from dialsum.batch.child import (
    GRACE_SECONDS,
    POLL_SECONDS,
    Child,
    ChildEnd,
    Interrupts,
    listen_for_interrupts,
)
from dialsum.batch.ledger import Ledger
from dialsum.batch.lock import find_runs_at_work, hold_batch, hold_run, make_folder
from dialsum.batch.plan import BatchPlan
from dialsum.batch.ray_executor import Cluster, NodeLost, RayChild, reach_cluster
from dialsum.batch.result import (
    DISK_FULL,
    BatchResult,
    ExperimentResult,
    describe_unwritten,
    explain_end,
    group_unwritten,
)
from dialsum.batch.screen import EventFile, RunProgress, Screen, estimate_rest
from dialsum.batch.space import find_full_disk
from dialsum.batch.unfinished import Unfinished, close_dead, find_step
from dialsum.errors import EXIT_UNFIT, DialsumError, RunError, UnfitError
from dialsum.experiment.attempt import (
    CAUSE_WORDS,
    CRASHED,
    DISK,
    HUNG,
    KILLED,
    LOST,
    NAN,
    OF_ALL,
    UNFIT,
    NoHalfError,
    list_changes,
    ordinal,
    say_failure,
    state_changes,
)
from dialsum.experiment.job import Job
from dialsum.files import write_json, write_text
from dialsum.machine.devices import THREAD_COUNTS, nvidia_gpus, usable_cores
from dialsum.paths import shown
from dialsum.record import (
    Record,
    archive_previous,
    describe_dead_run,
    read_record,
    write_failed_record,
)
from dialsum.report.summaries import summarise_batch, write_batch_files
from dialsum.score.show import format_final
from dialsum.text import format_duration
from dialsum.train.checkpoints import list_checkpoints

NO_USE = CardUse({}, {})
BREAKS_AFTER = 2
"""Experiments that fail for one cause outside of them before the rest is not started."""
MOST_LOSSES = 3
"""Lost nodes after which an experiment is started again."""
OLD_PROCESS_SECONDS = 120.0
"""Time that a process on a lost node may still be at work in the run's folder."""
WAIT_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Threads that wait leave the core to the experiment beside them."""


def run_queue(
    plan: BatchPlan,
    *,
    screen: Screen | None = None,
    interrupts: Interrupts | None = None,
    unfinished: Unfinished | None = None,
    cluster: Cluster | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> BatchResult:
    """Run the experiments of a plan; a failure is recorded, and the next one starts.

    The batch's own files are written at the start, after each experiment and at the end.

    Args:
        plan: checked before (check.py).
        screen: where a person follows it; stdout when absent.
        interrupts: where somebody listens for wishes to stop already; else they are heard here.
        unfinished: the batch that the plan goes on with, if it does.
        cluster: where somebody reached the Ray cluster already; else a plan for Ray does it here.
        grace_seconds: time an experiment has to stop when asked.

    Raises:
        UnfitError: the folders cannot be made or another batch holds them, or a Ray cluster is not
            fit; nothing was started.
    """
    screen = screen or Screen.on(sys.stdout)
    reaching = nullcontext(cluster) if cluster else reach_cluster(plan)
    before = {} if unfinished is None else unfinished.results
    ended = {number: before[number] for number in plan.ended}
    result = BatchResult(plan, by_number=ended)
    for folder in (plan.paths.root, plan.paths.runs, plan.paths.logs(plan.started_at)):
        make_folder(folder)
    hearing = nullcontext(interrupts) if interrupts else listen_for_interrupts()
    with (
        reaching as reached,
        hold_batch(plan.paths, [job.paths for job in plan.jobs]),
        closing(Ledger(plan.paths.ledger)) as ledger,
        hearing as heard,
    ):
        for file, dead in close_dead(ledger, but=plan.batch_id):
            write_json(file, summarise_batch(dead))
        if unfinished is None:
            ledger.begin(plan)
        else:
            records = {number: one.record for number, one in ended.items()}
            ledger.go_on(plan, unfinished.kept, records)
        unwritten = write_batch_files(result)
        if ledger.unwritten:
            unwritten[ledger.path] = describe_unwritten(ledger.unwritten)
        if unwritten:
            ledger.end(plan.batch_id, "failed")
            # What fails now would fail after hours as well.
            raise UnfitError(
                f"{'; '.join(group_unwritten(unwritten).values())}. Free space, or write elsewhere "
                "with --output-dir, and start again. Nothing was started."
            )
        queue = _Queue(plan, result, ledger, screen, heard, grace_seconds, reached)
        if reached is None:
            queue.say_cards(none="no NVIDIA GPU in this machine")
        else:
            screen.say(reached.describe())
        try:
            queue.run()
        finally:
            # No process is left behind, whatever ended the queue.
            for run in queue.running:
                if run.child is not None and run.end is None:
                    run.child.kill()
        result.interrupted = heard.wanted and not result.all_succeeded
        result.finished_at = datetime.now().astimezone()
        # The ledger last: a runner that is killed before has not ended, and goes on when asked.
        queue.write()
        ledger.end(plan.batch_id, result.status)
        if ledger.unwritten:
            note_unwritten(result, {ledger.path: describe_unwritten(ledger.unwritten)}, screen)
    return result


@dataclass
class _Running:
    """One experiment while its process runs.

    Attributes:
        child: None where it could not be started.
        cards: uuids of the GPUs that it has to itself; empty where it is not kept to any.
        end: how it ended, or what kept it from running; None while it runs.
        use_before: who used the cards just before.
    """

    job: Job
    title: str
    events: EventFile
    use_before: CardUse = NO_USE
    child: Child | RayChild | None = None
    cards: tuple[str, ...] = ()
    end: ChildEnd | NodeLost | str | None = None
    progress: RunProgress = field(default_factory=RunProgress)
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Queue:
    """The running batch: what its experiments share."""

    plan: BatchPlan
    result: BatchResult
    ledger: Ledger
    screen: Screen
    interrupts: Interrupts
    grace_seconds: float
    cluster: Cluster | None = None
    running: list[_Running] = field(default_factory=list)
    ended: list[_Running] = field(default_factory=list)
    """Experiments that ended, while nobody has waited for the cards that they used."""
    losses: Counter[int] = field(default_factory=Counter)
    """Lost nodes, by the number of the experiment."""
    stopping: bool = False
    """No other experiment is started."""
    stopping_said: bool = False
    blind: bool = False
    """Showing the runs failed; they go on unseen."""
    for_child: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Run every experiment to its end, retries included."""
        if self.plan.slots > 1 and self.cluster is None:
            threads = str(max(1, usable_cores() // self.plan.slots))
            shared = dict.fromkeys(THREAD_COUNTS, threads) | WAIT_ASLEEP
            self.for_child |= {key: one for key, one in shared.items() if key not in os.environ}
        waiting = self.plan.waiting
        while waiting or self.running:
            while waiting and self._has_room(waiting[0]) and self._may_start(waiting[0]):
                self._start(waiting.pop(0))
            if not self.running:
                return
            self._sleep(POLL_SECONDS)
            for run in [one for one in self.running if one.end is not None]:
                self._finish(run)
                if waiting or self.running:
                    self.write()

    def _has_room(self, job: Job) -> bool:
        """Tell whether one more may run beside those that do; one alone always may."""
        slots = self.plan.slots
        if self.cluster is not None and len(self.running) < slots:
            slots = min(slots, self.cluster.count_places(self.cluster.needs_of(job.config)))
        return len(self.running) < max(1, slots)

    def _may_start(self, job: Job) -> bool:
        """Tell whether the next experiment may start; wait for the cards before."""
        while self.ended and not self.stopping:
            self._hand_over(self.ended.pop())
        if self.stopping or self.interrupts.wanted:
            return False
        full = find_full_disk(job, self.plan.log_of(job))
        if full is None and any(one.unwritten == DISK_FULL for one in self.result.experiments):
            # As under a quota, which no free space shows.
            full = f"{DISK_FULL} for the last record"
        if full is not None:
            self.stopping = True
            problem = f"the disk is full, so nothing was started from {job.label} on: {full}"
            self.screen.say("", problem)
            self.result.problems.append(problem)
            self.ledger.tell(self.plan, "stopped", problem)
        return full is None

    def _start(self, job: Job) -> None:
        """Move an earlier run out of the way, leave the job in its place, and start the process."""
        numbers = [one.number for one in self.plan.jobs]
        title = f"[{numbers.index(job.number) + 1}/{len(numbers)}] {job.number} {job.label}"
        title += f", attempt {job.attempt.number}" if job.attempt.number > 1 else ""
        run, log = _Running(job, title, EventFile(job.paths.metrics)), self.plan.log_of(job)
        lines = ["", run.title, f"  file {shown(job.loaded.path)}", f"  log  {shown(log)}"]
        self.running.append(run)
        self.ledger.start(self.plan, job)
        patience = job.config.batch.hang_minutes
        try:
            kept = None
            if job.resume:
                with hold_run(job.paths):
                    write_text(job.paths.job, job.to_json())
                for event in run.events.read_new():
                    run.progress.update(event, now=time.monotonic())
            else:
                with hold_run(job.paths):
                    kept = archive_previous(job.paths, first={job.paths.job: job.to_json()})
            if kept is not None:
                lines.append(f"  the earlier run now stands in {shown(kept)}")
            self.screen.say(*lines)
            self.screen.restart_pause()
            taken = {card for one in self.running for card in one.cards}
            free = [card for card in self.plan.cards if card not in taken]
            run.cards = tuple(free[: job.config.batch.gpus_per_experiment])
            run.child = self._make_child(run, None if patience is None else 60 * patience)
            if run.child.pid is not None:
                self.ledger.name_process(self.plan, job, run.child.pid)
        except DialsumError as error:
            run.end = str(error)

    def _make_child(self, run: _Running, patience_seconds: float | None) -> Child | RayChild:
        """Start the process of a run, here or on a node.

        Raises:
            RunError: it cannot be started.
        """
        job, log = run.job, self.plan.log_of(run.job)
        if self.cluster is not None:

            def say(text: str) -> None:
                self.screen.say(f"  {job.number} {job.label}: {text}")
                self.ledger.tell(self.plan, "node", text, number=job.number)

            return RayChild(
                self.cluster,
                job,
                trainer=self.plan.trainer,
                log=log,
                environment=self.for_child,
                grace_seconds=self.grace_seconds,
                patience_seconds=patience_seconds,
                say=say,
            )
        self._wait_for_strangers(run)
        run.use_before = self._ask_use(run.cards)
        own = {"CUDA_VISIBLE_DEVICES": ",".join(run.cards)} if run.cards else {}
        resume = ["--resume"] if job.resume else []
        return Child(
            [*self.plan.trainer, "--job", str(job.paths.job), *resume],
            log=log,
            environment={**self.for_child, **own},
            grace_seconds=self.grace_seconds,
            patience_seconds=patience_seconds,
        )

    def _sleep(self, seconds: float) -> bool:
        """Follow what runs for so long; return False soon after somebody wants to stop."""
        end = time.monotonic() + seconds
        while True:
            for run in self.running:
                if run.child is None or run.end is not None:
                    continue
                try:
                    run.end = run.child.poll(self.interrupts)
                except DialsumError as error:
                    run.end = str(error)
                except Exception as error:
                    # The edge of the queue: a fault of ours over one run must not end the night.
                    run.end = f"the runner failed while following it ({type(error).__name__}: "
                    run.end += f"{error})"
                    self.screen.say(traceback.format_exc())
                    with suppress(DialsumError):
                        run.child.kill()
            if self.running and not self.blind:
                try:
                    self._show()
                except Exception:
                    # Nor does a fault in what is only shown: the runs go on unseen.
                    self.blind = True
                    unseen = "the experiments go on without being shown"
                    self.screen.say(traceback.format_exc(), unseen)
            stop = self.interrupts.wanted
            time.sleep(max(0.0, min(POLL_SECONDS, end - time.monotonic())))
            if stop or time.monotonic() >= end:
                return not self.interrupts.wanted

    def _show(self) -> None:
        """Say what the events of the running experiments tell, and how far they are."""
        for run in self.running:
            for event in run.events.read_new():
                line = run.progress.update(event, now=time.monotonic())
                passing = event.get("event") == "stage" and self.screen.terminal
                if line is not None and not passing:
                    who = "" if self.plan.slots == 1 else f"{run.job.number} {run.job.label}: "
                    self.screen.say(f"  {who}{line}")
                    self.screen.restart_pause()
        self.screen.show_progress(self._describe_progress)
        if self.interrupts.wanted and not self.stopping_said:
            self.stopping_said = True
            self.ledger.tell(self.plan, "asked to stop", "by Ctrl-C or a signal")
            running = "the experiment is" if len(self.running) == 1 else "the experiments are"
            self.screen.say(
                f"stopping: {running} asked to record what there is and end, which takes at most "
                f"{self.grace_seconds:g} s; Ctrl-C again kills at once"
            )

    @cached_property
    def _expected(self) -> dict[int, float | None]:
        """Seconds that each experiment is expected to take, by its number."""
        return {job.number: self.plan.expect_seconds(job) for job in self.plan.jobs}

    def _describe_progress(self) -> str:
        """Return the state of what runs: a line each, or one line for all on a terminal."""
        now = time.monotonic()
        left = [run.progress.seconds_left(now) for run in self.running]
        numbers = {run.job.number for run in self.running}
        batch_left = estimate_rest(
            [
                (self._expected[run.job.number], now - run.since, own)
                for run, own in zip(self.running, left, strict=True)
            ],
            [
                self._expected[job.number]
                for job in self.result.not_started
                if job.number not in numbers
            ],
            finished=[
                (self._expected[one.job.number], one.record.number("duration_seconds") or 0.0)
                for one in self.result.experiments
                if one.record.succeeded
            ],
            slots=self.plan.slots,
        )
        if len(self.running) > 1 and self.screen.terminal:
            states = (f"{one.job.number} {one.progress.describe()}" for one in self.running)
            return "; ".join(states) + (f"  ({batch_left})" if batch_left else "")
        lines = []
        for run, own in zip(self.running, left, strict=True):
            times = [f"{format_duration(now - run.since)} so far"]
            times += [] if own is None else [f"{format_duration(own)} left"]
            times += [batch_left] if batch_left and run is self.running[-1] else []
            lines.append(f"{run.title}  {run.progress.describe()}  ({', '.join(times)})")
        return "\n".join(lines)

    def _finish(self, run: _Running) -> None:
        """Take in what came of an experiment that ended; start its retry where there is one."""
        self.running.remove(run)
        if isinstance(run.end, NodeLost) and (again := self._move_on(run, run.end)):
            self._start(again)
            return
        came = self._collect(run)
        record = came.record
        took = format_duration(record.number("duration_seconds") or 0.0)
        if record.succeeded:
            dev = record.value("evaluation.dev")
            said = f"done in {took}: {format_final(dev if isinstance(dev, dict) else {})}"
        else:
            reason = record.value("reason") or "no reason is recorded"
            said = f"{record.status.upper()} after {took}: {reason}"
        self.screen.say(f"{run.title}  {said}")
        if came.unwritten:
            lost = f"{came.unwritten}, {shown(record.path)}"
            self.screen.say(f"  this could not be recorded: {lost}")
        if self.plan.options.rehearse and record.succeeded and not run.job.resume:
            try:
                again = self._rewind(run.job)
            except (OSError, DialsumError) as error:
                self.screen.say(f"  NOT rehearsed: going on from a checkpoint ({error})")
            else:
                self.ledger.end_attempt(self.plan, run.job, record, last=False)
                self._start(again)
                return
        retry = self._prepare_retry(run, came)
        self.ledger.end_attempt(self.plan, run.job, record, last=retry is None)
        if retry is not None:
            self._start(retry)
            return
        self.ended.append(run)
        self.result.by_number[run.job.number] = came
        self.stopping |= self.plan.options.stop_on_error and not record.succeeded
        self._stop_where_all_would_fail(record)

    def _move_on(self, run: _Running, lost: NodeLost) -> Job | None:
        """Say that a run lost its node, and return its job as it goes on elsewhere; None where it
        does not."""
        job = run.job
        self.losses[job.number] += 1
        if self.interrupts.wanted:
            return None
        if self.losses[job.number] > MOST_LOSSES:
            why = f"{lost}; that was the {ordinal(self.losses[job.number])} time"
            run.end = NodeLost("", why)
            return None
        until = time.monotonic() + OLD_PROCESS_SECONDS
        # What is cut off from the cluster, not dead, still holds the folder.
        while (held := find_runs_at_work([job.paths])) and time.monotonic() < until:
            if not self._sleep(POLL_SECONDS):
                return None
        if held:
            run.end = NodeLost("", f"{lost}, and its process does not end: {held[0]}")
            return None
        if self._read_own(job) is not None:
            return None  # it came to its end before its node was taken for lost
        step = find_step(job)
        how = "starts again" if step is None else f"goes on after step {step:,}"
        said = f"{lost}: it {how} on another"
        self.screen.say(f"{run.title}  {said}")
        self.ledger.tell(self.plan, "node lost", f"{job.label}: {said}", number=job.number)
        return replace(job, resume=step is not None)

    def _rewind(self, job: Job) -> Job:
        """Take a rehearsed run back to its first step, as if it had been cut off there."""
        last, *_ = list_checkpoints(job.paths.checkpoints)
        with hold_run(job.paths):
            shutil.rmtree(last)
            job.paths.result.unlink()
        self.screen.say("  rehearsed; now it goes on from its first checkpoint, in a new process")
        return replace(job, resume=True)

    def _stop_where_all_would_fail(self, record: Record) -> None:
        """Start no other where a second experiment failed for a cause that is none of its own."""

        def find_cause(one: Record) -> str | None:
            cause = one.value("failure.cause")
            # What kept two from starting in the same words is not theirs.
            return (
                str(one.value("reason")) if cause == UNFIT else cause if cause in OF_ALL else None
            )

        cause, jobs = find_cause(record), self.plan.waiting
        if cause is None or self.stopping:
            return
        alike = [
            job.label
            for job in jobs
            if (one := self.result.by_number.get(job.number)) and find_cause(one.record) == cause
        ]
        left = [job.label for job in self.result.not_started]
        if len(alike) >= BREAKS_AFTER and left:
            self.stopping = True
            problem = (
                f"{' and '.join(alike)} failed for one cause, which is none of theirs "
                f"({record.value('reason')}): {', '.join(left)} would fail too and stay planned. "
                "Mend it, then go on with --resume"
            )
            self.screen.say("", problem)
            self.result.problems.append(problem)
            self.ledger.tell(self.plan, "stopped", problem)

    def _collect(self, run: _Running) -> ExperimentResult:
        """Find the record that the run wrote, or write the one that it could not write."""
        job, log, end = run.job, self.plan.log_of(run.job), run.end
        if (own := self._read_own(job)) is not None:
            if isinstance(end, ChildEnd) and end.signal_name:
                # Killed after its record: what it would have removed at its end is still there.
                with suppress(DialsumError), hold_run(job.paths):
                    pass
            return ExperimentResult(job, own, log)
        lost = isinstance(end, NodeLost)
        end = str(end) if isinstance(end, NodeLost) else end
        status, reason = explain_end(end, log)
        content = describe_dead_run(job, status, reason, started_at=run.started)
        if isinstance(end, ChildEnd) and end.signal_name and status == "failed":
            cause = HUNG if end.hung else KILLED if end.signal_name == "SIGKILL" else CRASHED
            content["failure"] = {"cause": cause, "stage": run.progress.stage}
            content["failure"] |= {"step": run.progress.step} if run.progress.step else {}
        elif isinstance(end, ChildEnd) and end.exit_status == EXIT_UNFIT:
            content["failure"] = {"cause": UNFIT}
        elif lost:
            content["failure"] = {"cause": LOST}
        elif DISK_FULL in reason:
            # Its last words: a record found no room either, and has some now.
            content["failure"] = {"cause": DISK}
        content = job.attempt.add_to(content)
        try:
            with hold_run(job.paths):
                return ExperimentResult(job, write_failed_record(job.paths, content), log)
        except DialsumError as error:
            cause = describe_unwritten(error)
            if cause == DISK_FULL:
                how = reason if lost else explain_end(end, None)[1]
                content["reason"] = f"{cause} of {shown(job.paths.folder)}: {how}"
            record = Record(job.paths.result, content)
            return ExperimentResult(job, record, log, unwritten=cause)

    def _read_own(self, job: Job) -> Record | None:
        """Return the record that a run of this batch wrote; None where it left none, or a damaged
        one."""
        with suppress(RunError):
            own = read_record(job.paths.result)
            return own if own.value("batch") == self.plan.batch_id else None
        return None

    def _prepare_retry(self, run: _Running, came: ExperimentResult) -> Job | None:
        """Decide about a retry, and move what the failed attempt left out of its way."""
        if self.interrupts.wanted or came.unwritten:
            return None
        try:
            retry, said = plan_retry(run.job, came.record)
            self.screen.say(*(f"  {line}" for line in said))
            if retry is None:
                return None
            self._hand_over(run)
            if self.interrupts.wanted:
                return None
            if full := find_full_disk(retry, came.log):
                self.screen.say(f"  no retry: {full}")
                return None
            with hold_run(retry.paths):
                kept = archive_previous(retry.paths)
        except DialsumError as error:
            self.screen.say(f"  no retry: {error}")
            return None
        if kept is None:
            return None
        self.screen.say(
            f"  the failed attempt's files now stand in {shown(kept)}",
            *(f"  retry: {change.describe_whole()}" for change in retry.attempt.changes),
        )
        attempt = retry.attempt.point_back(kept, log=came.log, folder=retry.paths.folder)
        return replace(retry, attempt=attempt)

    def _hand_over(self, run: _Running) -> None:
        """Wait after an experiment until its cards are free for the next one; say how they are."""
        if run in self.ended:
            self.ended.remove(run)
        if self.cluster is not None:
            return  # the node did so
        settings = run.job.config.batch
        free, note = wait_until_free(
            run.use_before,
            group=(run.child.pid if run.child else 0) or 0,
            timeout_seconds=settings.free_timeout_seconds,
            cooldown=settings.cooldown,
            sleep=self._sleep,
            read_use=lambda: self._ask_use(run.cards),
        )
        if note:
            self.screen.say(note)
        if not free:
            self.result.problems.append(f"after {run.job.label}: {note}")
            self.ledger.tell(self.plan, "card", note, number=run.job.number)
        self.say_cards()

    def say_cards(self, *, none: str = "") -> None:
        """Say how the cards are; none: what is said where there is none."""
        try:
            lines = [gpu.describe() for gpu in nvidia_gpus()]
        except DialsumError as error:
            lines = [f"warning: {error}"]
        if lines or none:
            self.screen.say(*(lines or [none]))

    def _wait_for_strangers(self, run: _Running) -> None:
        """Wait a while for whoever else is on the cards that an experiment is about to take."""
        if not run.cards and len(self.running) > 1:
            return  # the others that run are ours
        config = run.job.config
        if config.general.device in ("cpu", "mps"):
            return
        try:
            left = wait_for_strangers(
                timeout_seconds=config.batch.free_timeout_seconds,
                sleep=self._sleep,
                find=lambda: find_strangers(run.cards, count=config.batch.gpus_per_experiment),
                say=self.screen.say,
            )
        except DialsumError as error:
            left = f"warning: {error}"
        if left:
            self.screen.say(left)
            self.result.problems.append(f"before {run.job.label}: {left}")
            self.ledger.tell(self.plan, "card", left, number=run.job.number)

    def _ask_use(self, cards: Collection[str]) -> CardUse:
        """Ask who uses the cards, or some of them; a driver that fails then is said: the next run
        meets it too."""
        try:
            return read_card_use(cards)
        except DialsumError as error:
            self.screen.say(f"warning: {error}")
            return NO_USE

    def write(self) -> None:
        """Write the batch's files; that they cannot be written ends no batch, but is said and turns
        up at its end, unless a later attempt succeeds."""
        self.result.unwritten.clear()
        causes = write_batch_files(self.result)
        self.ledger.write_waiting()
        if self.ledger.unwritten:
            causes[self.ledger.path] = describe_unwritten(self.ledger.unwritten)
        note_unwritten(self.result, causes, self.screen)


def note_unwritten(result: BatchResult, causes: dict[Path, str], screen: Screen) -> None:
    """Keep what could not be written for the closing lines; say each cause once in a batch."""
    result.unwritten |= causes
    for cause, line in group_unwritten(causes).items():
        if cause not in result.warned:
            result.warned.add(cause)
            screen.say(f"warning: {line}")


def plan_retry(job: Job, record: Record) -> tuple[Job | None, list[str]]:
    """Choose what follows a failed attempt, in the order of batch.retry.

    After full memory, lr_half is left out, and stays for an attempt that meets NaN.

    Args:
        record: of the attempt that ended.

    Returns:
        The next attempt, None where there is none; and why entries were left out, or why there is
        no retry: nothing where none was asked.

    Raises:
        ConfigError: the changed values do not fit together.
    """
    left = job.config.batch.retry
    if record.status != "failed" or not (left or job.attempt.number > 1):
        return None, []
    cause = record.value("failure.cause")
    if cause not in CAUSE_WORDS:
        return None, ["no retry: batch.retry is for NaN and full memory"]
    # Before training nothing that is halved takes memory; after it a night would be thrown away,
    # and nothing of it makes writing summaries smaller.
    if record.value("failure.stage") != "train":
        failure = say_failure(record.content)
        return None, [f"no retry: {failure} outside of training, which batch.retry does not mend"]
    batch, accumulation = (
        None if (used := record.number(f"training.{key}")) is None else int(used)
        for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    said: list[str] = []
    for place, by in enumerate(left):
        if cause != NAN and by == "lr_half":
            said.append("lr_half is left out: half the learning rate takes no less memory")
            continue
        try:
            changes = list_changes(by, job.config, batch=batch, accumulation=accumulation)
        except NoHalfError as error:
            said.append(f"{by} is left out: {error}")
            continue
        source = state_changes(changes, left=[*left[:place], *left[place + 1 :]])
        attempt = job.attempt.follow(changes, record.content)
        changed = job.loaded.changed(source)
        return replace(job, loaded=changed, attempt=attempt, resume=False), said
    said.append(f"nothing of batch.retry is left after the {ordinal(job.attempt.number)} attempt")
    return None, said

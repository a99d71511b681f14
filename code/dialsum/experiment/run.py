"""One experiment from config to record: how it begins and how it ends, whatever happens between.

Must not know other experiments. Everything is checked before the run's folder is touched; from then
on the run ends with a record.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dialsum.atomic import dump_json
from dialsum.config.read import dump_yaml
from dialsum.config.rules_schedule import find_length_problems
from dialsum.config.schema import Config
from dialsum.data.splits import Splits
from dialsum.errors import ProblemsError, UnfitError
from dialsum.experiment.choices import Choices, choose
from dialsum.experiment.environment import describe_environment
from dialsum.experiment.job import Job
from dialsum.experiment.outcome import Outcome, explain_failure, explain_foreseen
from dialsum.experiment.output import copy_output
from dialsum.experiment.prepare import check_checkpoint, read_splits
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.experiment.stages import Context, run_stages
from dialsum.experiment.stop_signals import StopSignals, listen_for_stop_signals
from dialsum.machine.devices import list_devices, use_one_gpu
from dialsum.models.load import quiet_libraries
from dialsum.paths import in_project, shown
from dialsum.record.archive import archive_previous
from dialsum.train.progress import Progress
from dialsum.train.tracking import WandbRun


def run_experiment(job: Job) -> dict[str, Any]:
    """Run one experiment and return its record, as it stands in result.json.

    Raises:
        UnfitError: data, machine or checkpoint are not fit; nothing was written.
        KeyboardInterrupt: interrupted; the record says so.
    """
    config = job.loaded.config
    card = use_one_gpu()
    if card is not None:
        print(f"CUDA_VISIBLE_DEVICES={card.value} ({card.why}); set it yourself to take another")
    quiet_libraries()
    splits = read_splits(config)
    _refuse_other_data(job, splits)
    check_checkpoint(config)
    _refuse_wrong_length(config, splits)
    choices = choose(config)
    point = _find_point(job, splits)
    with listen_for_stop_signals() as signals:
        outcome = _open_record(job, splits, point)
        tensorboard = job.paths.tensorboard if config.tracking.tensorboard else None
        progress = Progress(job.paths.metrics, tensorboard=tensorboard)
        with copy_output(job.paths.train_log):
            run = _Run(job, splits, choices, outcome, progress, signals, point)
            return run.go()


@dataclass
class _Run:
    """A run whose record is open: from here on it ends with that record, whatever happens."""

    job: Job
    splits: Splits
    choices: Choices
    outcome: Outcome
    progress: Progress
    signals: StopSignals
    point: ResumePoint | None
    tracker: WandbRun | None = None

    def go(self) -> dict[str, Any]:
        """Run the stages and write the record, whatever ends them."""
        status, reason = "success", None
        try:
            try:
                self.signals.let_go()
                self._run_stages()
            finally:
                # Another signal, between here and the record, would cost the record.
                self.signals.hold()
        except KeyboardInterrupt:
            self.signals.hold()
            status, reason = "interrupted", "interrupted by Ctrl-C or a signal"
            raise
        except Exception as error:
            # The edge of one experiment: whatever went wrong is recorded.
            folder = self.job.paths.folder
            status, reason = "failed", explain_failure(error, folder=folder)
            self.outcome.add_failure(error, self.progress)
            if explain_foreseen(error, folder=folder) is None:
                traceback.print_exc()
        finally:
            record = self._close(status, reason)
        return record

    def _run_stages(self) -> None:
        job, config = self.job, self.job.loaded.config
        if self.point is not None:
            for note in self.point.notes:
                self.progress.warn(note)
            self.progress.event("resume", step=self.point.step)
            print(f"going on after step {self.point.step}, from {self.point.checkpoint.name}")
        self.tracker = WandbRun(
            config.tracking,
            name=job.loaded.name,
            group=job.batch,
            config=config.model_dump(mode="json"),
            folder=job.paths.folder,
        )
        self.progress.add_listener(self.tracker)
        print(self.tracker.describe(), flush=True)
        run_stages(
            Context(
                loaded=job.loaded,
                paths=job.paths,
                splits=self.splits,
                choices=self.choices,
                outcome=self.outcome,
                progress=self.progress,
                resume=None if self.point is None else self.point.checkpoint,
            )
        )

    def _close(self, status: str, reason: str | None) -> dict[str, Any]:
        outcome = self.outcome
        if self.tracker is not None:
            outcome.parts["tracking"] = self.tracker.record
        if status != "success":
            outcome.drop_cut_off_checkpoints()
        record = outcome.finish(status, reason=reason)
        self.progress.close()
        _say_end(record, outcome.paths.result)
        # The record stands: what a network may hold up from here on can be cut off.
        self.signals.let_go()
        if self.tracker is not None:
            scores = outcome.parts.get("evaluation", {}).get("dev", {})
            numbers = {key: value for key, value in scores.items() if isinstance(value, float)}
            self.tracker.finish(numbers, exit_code=0 if status == "success" else 1)
        return record


def _refuse_other_data(job: Job, splits: Splits) -> None:
    """Refuse files that changed since the batch checked them: what was checked is what runs."""
    changed = [
        shown(split.path)
        for split in splits.present
        if job.data_sha256.get(split.kind, split.sha256) != split.sha256
    ]
    if changed:
        raise UnfitError(
            f"{', '.join(changed)}: changed since the batch was started, so this experiment would "
            "not be comparable with those before it; give the rows back, or start a batch anew"
        )


def _refuse_wrong_length(config: Config, splits: Splits) -> None:
    problems, notes = find_length_problems(config, train_rows=len(splits.train.rows))
    if problems:
        raise ProblemsError(problems)
    for note in notes:
        print(note)


def _find_point(job: Job, splits: Splits) -> ResumePoint | None:
    if not job.resume:
        return None
    return find_resume_point(
        job.paths, config_sha256=job.loaded.sha256, data_sha256=splits.train.sha256
    )


def _open_record(job: Job, splits: Splits, point: ResumePoint | None) -> Outcome:
    """Move an older run aside, or open it again, and write what is known before loading."""
    started = datetime.now().astimezone()
    loaded, paths = job.loaded, job.paths
    environment = describe_environment(
        started=started,
        paths=paths,
        seed=loaded.config.training.seed,
        devices=[device.to_record() for device in list_devices()],
    )
    first = {
        paths.environment: dump_json(environment),
        paths.resolved_config: dump_yaml(loaded.config, remarks=job.attempt.remarks()),
    }
    if point is not None:
        reopen_run(paths, point, first=first)
    elif (moved := archive_previous(paths, first=first)) is not None:
        print(f"the earlier run of {loaded.name} now stands in {shown(moved)}")
    head: dict[str, Any] = {
        "experiment": loaded.name,
        "label": loaded.config.general.label or loaded.name,
        "kind": job.kind,
        "batch": job.batch,
        "config_sha256": loaded.sha256,
    }
    if point is not None:
        head["resumed_after_step"] = point.step
    outcome = Outcome(paths=paths, started=started, head=head, attempt=job.attempt)
    outcome.add(
        "data",
        rows={split.kind: len(split.rows) for split in splits.present},
        sha256=splits.sha256,
        files={split.kind: in_project(split.path) for split in splits.present},
    )
    return outcome


def _say_end(record: dict[str, Any], path: Path) -> None:
    ending = (
        f"finished in {record['duration_seconds']:.0f} s"
        if record["status"] == "success"
        else f"{record['status']}: {record['reason']}"
    )
    print(f"{ending}; record: {shown(path)}", flush=True)

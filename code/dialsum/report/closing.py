"""The closing text of a batch: table, checks, where things lie, and what to do next.

Must not print or write: lines out, for the screen and for experiment_summary.txt alike."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dialsum.attempts import KILLED, list_overrides
from dialsum.batch.options import DEMO_DATA, BatchOptions
from dialsum.batch.plan import BatchPlan, PlannedExperiment
from dialsum.batch.progress import format_duration
from dialsum.batch.result import DISK_FULL, BatchOutcome, Outcome, word_causes
from dialsum.errors import EXIT_OK
from dialsum.paths import PROJECT_ROOT, shown
from dialsum.record import Record
from dialsum.report.tables import (
    format_ranking,
    group_records,
    is_ranked,
    points_above_floor,
    whitespace_number,
)
from dialsum.train.checkpoints import find_sealed_checkpoint

LEAST_ROUGE1 = 20.0
"""ROUGE-1 on whitespace tokens over which a run of the real checkpoints is worth keeping."""
GIB = 2**30
VERDICT_WIDTH = len("not checked")


def format_verdict(verdict: str, said: str) -> str:
    """Return one closing line: the verdict in a column of its own, then what it is about."""
    return f"  {verdict:<{VERDICT_WIDTH}}  {said}"


@dataclass(frozen=True)
class Check:
    """One closing check.

    Attributes:
        title: what was asked.
        passed: None where it could not be asked.
        text: what was found.
        informs: it only tells something, and there is nothing to pass.
    """

    title: str
    passed: bool | None
    text: str
    informs: bool = False

    def line(self) -> str:
        """Return the check as a line."""
        verdict = {True: "yes", False: "NO", None: "not checked"}[self.passed]
        return format_verdict("note" if self.informs else verdict, f"{self.title}: {self.text}")


def make_checks(outcome: BatchOutcome) -> list[Check]:
    """Return the closing checks of a batch."""
    scored = [record for record in outcome.records if is_ranked(record)]
    return [
        _check_finished(outcome),
        *([_describe_stopping(scored)] if scored else []),
        _check_memory(outcome.outcomes),
        _check_floor(scored),
        _check_rouge1(scored),
        *(
            _check_bounds(scored, kind)
            for kind in ("minimum", "ideal")
            if _have_bounds(scored, kind)
        ),
        _check_nan(outcome.records),
    ]


def _check_finished(outcome: BatchOutcome) -> Check:
    planned = len(outcome.plan.experiments)
    succeeded = sum(record.succeeded for record in outcome.records)
    others = [
        f"{record.label} {record.status}" for record in outcome.records if not record.succeeded
    ]
    others += [f"{experiment.label} not started" for experiment in outcome.not_started]
    return Check(
        "all finished", succeeded == planned, f"{succeeded} of {planned}" + _in_brackets(others)
    )


def _describe_stopping(records: Sequence[Record]) -> Check:
    early = [
        f"{record.label} at step {record.value('training.steps')}"
        for record in records
        if record.value("training.stopped_early")
    ]
    whole = len(records) - len(early)
    return Check(
        "stopped early",
        None,
        f"{len(early)} of {len(records)}{_in_brackets(early)}, {whole} trained to the last step",
        informs=True,
    )


def _check_memory(outcomes: Sequence[Outcome]) -> Check:
    peaks = [
        (peak, outcome)
        for outcome in outcomes
        if (peak := outcome.record.number("training.peak_memory_bytes.device")) is not None
    ]
    if not peaks:
        limits = {outcome.experiment.config.batch.memory_limit_gib for outcome in outcomes}
        within = f"within {max(limits):g} GiB of GPU memory" if limits else "within GPU memory"
        return Check(within, None, "not measured on CPU")
    over = [
        outcome.record.label
        for peak, outcome in peaks
        if peak > outcome.experiment.config.batch.memory_limit_gib * GIB
    ]
    most, where = max(peaks, key=lambda pair: pair[0])
    limit = where.experiment.config.batch.memory_limit_gib
    return Check(
        f"within {limit:g} GiB of GPU memory",
        not over,
        f"most {most / GIB:.1f} GiB ({where.record.label})"
        + (f"; over it: {', '.join(over)}" if over else ""),
    )


def _check_floor(records: Sequence[Record]) -> Check:
    gains = [
        (points, record.label)
        for record in records
        if (points := points_above_floor(record)) is not None
    ]
    if not gains:
        return Check("above the constant sentence", None, "no floor is recorded")
    under = [f"{label} {points:+.2f}" for points, label in gains if not points > 0]
    return Check(
        "above the constant sentence",
        not under,
        f"{len(gains) - len(under)} of {len(gains)}{_in_brackets(under)}",
    )


def _check_rouge1(records: Sequence[Record]) -> Check:
    values = [
        (value, record.label)
        for record in records
        if (value := whitespace_number(record, "rouge1")) is not None
    ]
    title = f"ROUGE-1 over {LEAST_ROUGE1:g} (whitespace tokens)"
    if not values:
        return Check(title, None, "not scored on that scale")
    under = [f"{label} {value:.2f}" for value, label in values if not value > LEAST_ROUGE1]
    return Check(
        title, not under, f"{len(values) - len(under)} of {len(values)}{_in_brackets(under)}"
    )


def _have_bounds(records: Sequence[Record], kind: str) -> bool:
    return any(record.value(f"evaluation.target.{kind}") is not None for record in records)


def _check_bounds(records: Sequence[Record], kind: str) -> Check:
    """Hold runs against the minimum or the ideal, on the scale that it was stated on."""
    asked = [
        (record, bounds)
        for record in records
        if (bounds := record.value(f"evaluation.target.{kind}"))
    ]
    met = [record.label for record, bounds in asked if bounds.get("met")]
    first = asked[0][0]
    wanted = "/".join(
        f"{first.value(f'evaluation.target.{kind}.{key}') or '–'}"
        for key in ("rouge1", "rouge2", "rougeL")
    )
    scale = first.value("evaluation.target.tokenizer")
    return Check(
        f"{kind} R1/R2/RL {wanted} ({scale} tokens)",
        len(met) == len(asked),
        f"met by {len(met)} of {len(asked)}{_in_brackets(met)}",
    )


def _check_nan(records: Sequence[Record]) -> Check:
    counted = [
        (record, count)
        for record in records
        if (count := record.number("training.nan_events")) is not None
    ]
    bad = [f"{record.label} {count:.0f} times" for record, count in counted if count > 0]
    bad += [
        f"{record.label} {entry['nan_events']} times in attempt {entry['number']}"
        for record in records
        for entry in record.content.get("attempts", [])[:-1]
        if entry.get("nan_events")
    ]
    bad += [
        f"{record.label} in its scores"
        for record in records
        if (score := record.number("evaluation.dev.rouge_mean")) is not None and math.isnan(score)
    ]
    if not counted and not bad:
        return Check("no NaN", None, "no run came far enough to say")
    runs = "1 run" if len(counted) == 1 else f"{len(counted)} runs"
    return Check("no NaN", not bad, ", ".join(bad) if bad else f"none in {runs}")


def _in_brackets(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


RUNNER = PROJECT_ROOT / "code" / "auto_experiment_runner.py"
COLLECT = PROJECT_ROOT / "scripts" / "collect_results.py"
SEVEN = PROJECT_ROOT / "run_main_7_experiments.sh"
EXPERIMENTS = PROJECT_ROOT / "config" / "experiments"
KIND_WORDS = {
    "full": "as configured",
    "one_epoch": "one epoch each: scores near the constant sentence are expected",
    "demo": "demo, tiny models from scratch: their scores say nothing about the real checkpoints",
}
SUBMISSION_WORDS = {
    "full": "the best run's summaries, for submission",
    "one_epoch": "what a submission looks like (after one epoch: a sample of the form alone)",
    "demo": "what a submission looks like (by a tiny model: a sample of the form alone)",
}


def format_closing(outcome: BatchOutcome) -> list[str]:
    """Return the closing text of a finished or interrupted batch."""
    names = {
        one.experiment.name: f"{one.experiment.number} {one.experiment.label}"
        for one in outcome.outcomes
    }
    table = format_ranking(outcome.records, names=names) or ["no experiment was started"]
    not_started = [f"  {one.number} {one.label}" for one in outcome.not_started]
    return [
        f"Batch {outcome.plan.batch_id} ({KIND_WORDS[outcome.plan.kind]}), "
        f"{_how_it_ended(outcome)}",
        "",
        *table,
        *(["", "Not started", *not_started] if not_started else []),
        "",
        "Checks",
        *(check.line() for check in make_checks(outcome)),
        *(format_verdict("NO", problem) for problem in outcome.problems),
        *(
            format_verdict("NO", f"everything is recorded: {line}")
            for line in word_causes(outcome.all_unwritten).values()
        ),
        "",
        "Files",
        *_list_files(outcome),
        "",
        "Next",
        *(f"  {line}" for line in suggest_next(outcome)),
    ]


def _how_it_ended(outcome: BatchOutcome) -> str:
    end = outcome.finished_at
    took = (
        ""
        if end is None
        else f" after {format_duration((end - outcome.plan.started_at).total_seconds())}"
    )
    if outcome.interrupted:
        return f"interrupted{took}"
    return f"{'all succeeded' if outcome.exit_status == EXIT_OK else 'NOT all succeeded'}{took}"


def _list_files(outcome: BatchOutcome) -> list[str]:
    paths = outcome.plan.paths
    started = outcome.plan.started_at
    files = [
        ("runs", paths.runs),
        ("models", paths.models),
        ("this batch", paths.results(started)),
        ("all latest runs", paths.summary),
        ("logs", paths.logs(started)),
    ]
    return [
        f"  {title:<16} {shown(path)}" for title, path in files if path not in outcome.unwritten
    ]


def suggest_next(outcome: BatchOutcome) -> list[str]:
    """Return what a person would do now, each as a sentence with its command or file."""
    lines = _suggest_for_unfinished(outcome)
    best = _best(outcome)
    if best is not None:
        lines += _suggest_for_best(outcome, best)
    lines += _suggest_stages(outcome)
    if outcome.plan.kind == "demo":
        lines.append(_suggest_real_run(outcome.plan))
    lines.append(f"every run so far in one CSV: {_format_collect(outcome.plan.options)}")
    return lines


def _suggest_real_run(plan: BatchPlan) -> str:
    """Name the command that trains the real checkpoints of what a demo tried.

    The demo's --set and --seed are left out: they were given for tiny models.
    """
    options = plan.options
    own_data = options.data_dir is not None and options.data_folder != DEMO_DATA
    real = replace(
        options,
        demo=False,
        one_epoch=False,
        overrides=(),
        seed=None,
        data_dir=options.data_dir if own_data else None,
    )
    only = f" --only {shlex.quote(options.only)}" if options.only else ""
    command = (
        f"bash {shlex.quote(_in_command(SEVEN))}{only}{_format_options(real)}"
        if _are_the_seven(options.configs)
        else format_command(plan.experiments, real)
    )
    data = "" if own_data else "put train.csv, dev.csv, test.csv into data/, then "
    several = "s" if len(plan.experiments) > 1 else ""
    return f"the real checkpoint{several}, on a 24 GB GPU: {data}{command}"


def _are_the_seven(configs: Sequence[Path]) -> bool:
    """Say whether these are the files that the script runs; it alone lists them."""
    text = SEVEN.read_text(encoding="utf-8") if SEVEN.is_file() else ""
    names = text.partition("experiments=(\n")[2].partition("\n)")[0].split()
    return [path.resolve() for path in configs] == [EXPERIMENTS / f"{name}.yaml" for name in names]


def _format_collect(options: BatchOptions) -> str:
    words = [_python(), _in_command(COLLECT), "--output", "results_comparison.csv"]
    # Runs in a folder of their own are in no other.
    root = options.runs_dir or options.output_dir
    words += ["--root", str(root)] if root else []
    return shlex.join(words)


def _suggest_for_unfinished(outcome: BatchOutcome) -> list[str]:
    failed = [one.experiment for one in outcome.outcomes if not one.record.succeeded]
    full = [path for path, cause in outcome.all_unwritten.items() if cause == DISK_FULL]
    lines = [f"free space on the disk of {shown(full[0].parent)}"] if full else []
    # On a full disk a log may be empty.
    told = [one for one in failed if one.log.is_file() and one.log.stat().st_size]
    if not outcome.interrupted:
        lines += [f"{one.label}: read why in {shown(one.log)}" for one in told]
    again = [*failed, *outcome.not_started]
    cut_off = [
        one.experiment
        for one in outcome.outcomes
        if one.record.status == "interrupted" or one.record.value("failure.cause") == KILLED
    ]
    for one in cut_off:
        if whole := find_sealed_checkpoint(one.paths.checkpoints):
            trainer = [_in_command(Path(word)) for word in one.trainer]
            command = shlex.join([*trainer, "--job", _in_command(one.job_file), "--resume"])
            lines.append(f"go on with {one.label} after {whole.name}: {command}")
    if again:
        what = (
            "start again what is missing, each from its beginning"
            if outcome.interrupted
            else "run what is missing"
        )
        lines.append(f"{what}: {format_command(again, outcome.plan.options)}")
    return lines


def _best(outcome: BatchOutcome) -> Record | None:
    groups = group_records(outcome.records)
    return groups[0].records[0] if len(groups) == 1 else None


def _suggest_for_best(outcome: BatchOutcome, best: Record) -> list[str]:
    experiment = next(one.experiment for one in outcome.outcomes if one.record is best)
    submission = best.artifact("submission")
    lines = (
        []
        if submission is None
        else [f"{SUBMISSION_WORDS[outcome.plan.kind]}: {shown(submission)}"]
    )
    options = outcome.plan.options
    planned = next(one for one in outcome.plan.experiments if one.number == experiment.number)
    changed = list_overrides(best.content, rungs=planned.config.batch.retry)
    again = replace(options, overrides=(*options.overrides, *changed))
    return [*lines, f"repeat the best run: {format_command([experiment], again)}"]


def _suggest_stages(outcome: BatchOutcome) -> list[str]:
    """Name the experiment that an experiment names as its next, unless this batch held it."""
    names = {experiment.name for experiment in outcome.plan.experiments}
    lines = []
    for one in outcome.outcomes:
        follower = one.experiment.config.general.next
        if one.record.succeeded and follower and follower not in names:
            path = one.experiment.loaded.path.with_name(f"{follower}.yaml")
            lines.append(
                f"after {one.experiment.label} comes {follower}: "
                f"{_format_runner([path], outcome.plan.options)}"
            )
    return lines


def format_command(experiments: Sequence[PlannedExperiment], options: BatchOptions) -> str:
    """Return the command that runs these experiments as this batch did."""
    return _format_runner([experiment.loaded.path for experiment in experiments], options)


def _format_runner(configs: Sequence[Path], options: BatchOptions) -> str:
    words = [_python(), _in_command(RUNNER), "--config", *map(_in_command, configs)]
    return shlex.join(words) + _format_options(options)


def _format_options(options: BatchOptions) -> str:
    """Return the options that a command of this batch repeats, each after a space."""
    words = ["--demo"] if options.demo else []
    words += ["--one-epoch"] if options.one_epoch else []
    places = {
        "--data-dir": options.data_dir,
        "--output-dir": options.output_dir,
        "--runs-dir": options.runs_dir,
        "--log-dir": options.log_dir,
    }
    for flag, path in places.items():
        words += [] if path is None else [flag, str(path)]
    words += [] if options.seed is None else ["--seed", str(options.seed)]
    for override in options.overrides:
        words += ["--set", override]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _python() -> str:
    return _in_command(Path(sys.executable))


def _in_command(path: Path) -> str:
    """Return a path as a command needs it: it must work from the folder in which it was printed."""
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(path)

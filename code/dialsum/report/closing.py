"""What a batch says at its end: table, checks, samples, where things lie, and what to do next.

Must not print or write: lines out, for the screen and for experiment_summary.txt alike.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dialsum.batch.plan import KIND_WORDS, BatchPlan
from dialsum.batch.result import DISK_FULL, BatchResult, ExperimentResult, group_unwritten
from dialsum.cli import BatchOptions
from dialsum.data.submission import PREDICTION_COLUMNS
from dialsum.data.tables import read_rows
from dialsum.errors import DataError
from dialsum.experiment.job import Job
from dialsum.paths import PROJECT_ROOT, in_command, shown
from dialsum.record import Record
from dialsum.report.tables import (
    ABSENT,
    RANKED_BY,
    format_ranking,
    group_records,
    is_ranked,
    points_above_floor,
    whitespace_number,
)
from dialsum.text import align, cut_to_width, format_duration
from dialsum.train.checkpoints import find_sealed_checkpoint

PYTHON = Path(sys.executable)
RUNNER = PROJECT_ROOT / "code" / "auto_experiment_runner.py"
COLLECT = PROJECT_ROOT / "scripts" / "collect_results.py"
SUBMISSION_WORDS = {
    "full": "the best run's summaries, for submission",
    "rehearsal": "what a submission looks like (after two steps: a sample of the form alone)",
    "one_epoch": "what a submission looks like (after one epoch: a sample of the form alone)",
    "demo": "what a submission looks like (by a tiny model: a sample of the form alone)",
}
ENDS = {
    "interrupted": "interrupted",
    "success": "all succeeded",
    "failed": "NOT all succeeded",
    "running": "not ended",
}
TIME_PARTS = ("start", "training", "evaluation", "writing", "rest")
BOUND_PARTS = ("training", "evaluation", "writing")
LEAST_ROUGE1 = 20.0
"""ROUGE-1 on whitespace tokens over which a run of the real checkpoints is worth keeping."""
GIB = 2**30
VERDICTS = {True: "yes", False: "NO", None: "not checked"}
SAMPLE_WIDTH = 100
SAMPLE_TURNS = 3
LABEL = 15
SAMPLED = {"well": 0.1, "middling": 0.5, "badly": 0.9}
"""Where the samples stand among the dev rows, best score first."""


def format_closing(result: BatchResult, *, width: int | None = None) -> list[str]:
    """Return the closing text of a finished or interrupted batch.

    Args:
        width: columns of the terminal, which its tables are to fit; None: of any width.
    """
    numbered = [_number(one) for one in result.experiments]
    rehearsed = result.plan.options.rehearse
    table = [] if rehearsed else format_ranking(numbered, width=width)
    table = table or ([] if result.experiments else ["no experiment was started"])
    not_started = [f"  {one.number} {one.label}" for one in result.not_started]
    plan, paths = result.plan, result.plan.paths
    files = {
        "runs": paths.runs,
        "models": paths.models,
        "this batch": paths.results(plan.started_at),
        "all latest runs": paths.summary,
        "logs": paths.logs(plan.started_at),
    }
    best, end, took = _find_best(result), result.finished_at, ""
    if end is not None:
        took = f" after {format_duration((end - plan.started_at).total_seconds())}"
    return [
        f"Batch {plan.batch_id} ({KIND_WORDS[plan.sort]}), {ENDS[result.status]}{took}",
        "",
        *table,
        *format_times(numbered, width=width),
        *(["", "Not started", *not_started] if not_started else []),
        "",
        "Checks",
        *(_check_rehearsal(result) if rehearsed else make_checks(result)),
        *(_check(False, problem) for problem in result.problems),
        *(
            _check(False, f"everything is recorded: {line}")
            for line in group_unwritten(result.all_unwritten).values()
        ),
        *(
            []
            if best is None or rehearsed
            else format_samples(best, width=min(width or SAMPLE_WIDTH, SAMPLE_WIDTH))
        ),
        "",
        "Files",
        *(f"  {k:<16} {shown(path)}" for k, path in files.items() if path not in result.unwritten),
        "",
        "Next",
        *(f"  {line}" for line in suggest_next(result)),
    ]


def format_times(records: Sequence[Record], *, width: int | None = None) -> list[str]:
    """Return a table of what the time of runs went into, one by one and in all; nothing where no
    record tells.

    Where the card's peaks are known (experiment/bound.py), training, evaluation and writing have
    beside them how many times the least they took, and `least` is that of the three together.
    """
    told = []
    for record in records:
        spent = [record.number(f"time.{part}") or 0.0 for part in TIME_PARTS]
        least = [record.number(f"time.least.{part}") or 0.0 for part in BOUND_PARTS]
        told += [(record.label, spent, least)] if any(spent) else []
    if not told:
        return []
    if len(told) > 1:
        _, spent_by_run, least_by_run = zip(*told, strict=True)
        bounds = [sum(one) for one in zip(*least_by_run, strict=True)]
        all_known = all(map(any, least_by_run))
        sums = [sum(one) for one in zip(*spent_by_run, strict=True)]
        told.append(("all runs", sums, bounds if all_known else [0.0] * len(BOUND_PARTS)))
    rows = [[label, *_show_times(spent, least)] for label, spent, least in told]
    head = ["", *TIME_PARTS, "in all", "least", "multiple"]
    known = any(row[-1] != ABSENT for row in rows)
    shown_rows = [row if known else row[:-2] for row in [head, *rows]]
    return ["", "Where the time went", *align(shown_rows, left=[0], width=width)]


def _show_times(spent: Sequence[float], least: Sequence[float]) -> list[str]:
    """Return the cells of a run's parts, of all together, of the least, and of the multiple."""
    bounds = dict(zip(BOUND_PARTS, least, strict=True))
    cells = []
    for part, seconds in zip(TIME_PARTS, spent, strict=True):
        bound = bounds.get(part)
        cells.append(format_duration(seconds) + (f" x{seconds / bound:.1f}" if bound else ""))
    whole, in_all = sum(least), sum(spent)
    multiple = [format_duration(whole), f"{in_all / whole:.1f}"] if whole else [ABSENT, ABSENT]
    return [*cells, format_duration(in_all), *multiple]


def _check_rehearsal(result: BatchResult) -> list[str]:
    """Return a line for each experiment: whether it went the whole way; scores say nothing here."""
    lines = []
    for one in result.experiments:
        record, name = one.record, f"{one.job.number} {one.job.label}"
        way = "two steps on the longest rows, evaluated, saved, gone on in a new process, written"
        if record.succeeded and one.job.resume:
            peak = record.number("training.peak_memory_bytes.device")
            memory = "" if peak is None else f", at most {peak / GIB:.1f} GiB of GPU memory"
            tensors, forecast = (
                record.number(f"training.peak_memory_bytes.{name}")
                for name in ("tensors", "forecast")
            )
            if tensors and forecast:
                error = 100 * (forecast / tensors - 1)
                memory += f" (tensors {tensors / GIB:.1f}, their forecast {error:+.1f} %)"
            lines.append(_check(True, f"{name}: {way}{memory}"))
        else:
            lines.append(_check(False, f"{name}: {record.value('reason') or 'not gone on with'}"))
    return lines


def _number(one: ExperimentResult) -> Record:
    """Return a record that is called by its experiment's number and label."""
    label = f"{one.job.number} {one.job.label}"
    return Record(one.record.path, {**one.record.content, "label": label})


def _find_best(result: BatchResult) -> ExperimentResult | None:
    """Return the best run; None where there is none, or where not all can be ranked together."""
    groups = group_records(result.records)
    if len(groups) != 1:
        return None
    return next(one for one in result.experiments if one.record is groups[0].records[0])


def _check(passed: bool | None, said: str, *, verdict: str | None = None) -> str:
    """Return one closing line: the verdict in a column of its own, then what it is about."""
    return f"  {verdict or VERDICTS[passed]:<11}  {said}"


def _bracket(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def make_checks(result: BatchResult) -> list[str]:
    """Return the closing checks of a batch: one line each, with a verdict that is never better than
    what was measured."""
    records = result.records
    scored = [record for record in records if is_ranked(record)]
    planned = len(result.plan.jobs)
    others = [f"{one.label} {one.status}" for one in records if not one.succeeded]
    others += [f"{one.label} not started" for one in result.not_started]
    finished = sum(record.succeeded for record in records)
    early = [
        f"{record.label} at step {record.value('training.steps')}"
        for record in scored
        if record.value("training.stopped_early")
    ]
    stopped = (
        f"stopped early: {len(early)} of {len(scored)}{_bracket(early)}, "
        f"{len(scored) - len(early)} trained to the last step"
    )
    gains = {record.label: points_above_floor(record) for record in scored}
    rouge1 = {record.label: whitespace_number(record, "rouge1") for record in scored}
    least = f"ROUGE-1 over {LEAST_ROUGE1:g} (whitespace tokens)"
    # Each on the scale that it was stated on; nothing where none was stated.
    bounds = []
    for kind in ("minimum", "ideal"):
        key = f"evaluation.target.{kind}"
        if asked := [record for record in scored if record.value(key)]:
            met = [record.label for record in asked if record.value(f"{key}.met")]
            figures = (asked[0].value(f"{key}.{one}") for one in ("rouge1", "rouge2", "rougeL"))
            wanted = "/".join(f"{figure or '–'}" for figure in figures)
            title = f"{kind} R1/R2/RL {wanted} ({asked[0].value('evaluation.target.tokenizer')}"
            said = f"{title} tokens): met by {len(met)} of {len(asked)}{_bracket(met)}"
            bounds.append(_check(len(met) == len(asked), said))
    counts = {one.label: one.number("training.nan_events") for one in records}
    counted = {label: count for label, count in counts.items() if count is not None}
    bad = [f"{label} {count:.0f} times" for label, count in counted.items() if count > 0]
    for record in records:
        bad += [
            f"{record.label} {entry['nan_events']} times in attempt {entry['number']}"
            for entry in record.content.get("attempts", [])[:-1]
            if entry.get("nan_events")
        ]
        if math.isnan(record.number(f"evaluation.dev.{RANKED_BY}") or 0.0):
            bad.append(f"{record.label} in its scores")
    runs = "1 run" if len(counted) == 1 else f"{len(counted)} runs"
    no_nan = _check(not bad, f"no NaN: {', '.join(bad) if bad else f'none in {runs}'}")
    if not counted and not bad:
        no_nan = _check(None, "no NaN: no run came far enough to say")
    return [
        _check(finished == planned, f"all finished: {finished} of {planned}{_bracket(others)}"),
        *([_check(None, stopped, verdict="note")] if scored else []),
        _check_memory(result.experiments),
        _check_over(0, gains, "above the constant sentence", "no floor is recorded", form="+.2f"),
        _check_over(LEAST_ROUGE1, rouge1, least, "not scored on that scale", form=".2f"),
        *bounds,
        no_nan,
    ]


def _check_over(
    bound: float, values: dict[str, float | None], title: str, lacking: str, *, form: str
) -> str:
    """Check that the values that are known, label to value, are above a bound."""
    known = {label: value for label, value in values.items() if value is not None}
    if not known:
        return _check(None, f"{title}: {lacking}")
    under = [f"{label} {value:{form}}" for label, value in known.items() if not value > bound]
    return _check(not under, f"{title}: {len(known) - len(under)} of {len(known)}{_bracket(under)}")


def _check_memory(outcomes: Sequence[ExperimentResult]) -> str:
    peaks = [
        (peak, one.record.label, one.job.config.batch.memory_limit_gib)
        for one in outcomes
        if (peak := one.record.number("training.peak_memory_bytes.device")) is not None
    ]
    if not peaks:
        limits = [one.job.config.batch.memory_limit_gib for one in outcomes]
        within = f"within {max(limits):g} GiB of GPU memory" if limits else "within GPU memory"
        return _check(None, f"{within}: not measured on CPU")
    over = [label for peak, label, limit in peaks if peak > limit * GIB]
    most, label, limit = max(peaks)
    said = f"within {limit:g} GiB of GPU memory: most {most / GIB:.1f} GiB ({label})"
    return _check(not over, said + (f"; over it: {', '.join(over)}" if over else ""))


def format_samples(best: ExperimentResult, *, width: int = SAMPLE_WIDTH) -> list[str]:
    """Return three dev rows beside what a run wrote for them; nothing where their file is gone.

    Args:
        best: the run. Its rows are those that it scored well, middling and badly on, where its
            record has each row's score; else they lie evenly over the file.
        width: columns that a line may take.
    """
    predictions = best.record.artifact("predictions_dev")
    try:
        found = read_rows(predictions, required=PREDICTION_COLUMNS) if predictions else []
    except DataError:
        return []  # moved or changed since
    scores = [float(x) for x in best.record.value(f"evaluation.dev.per_row.{RANKED_BY}") or ()]
    scored = len(scores) == len(found)
    order = sorted(range(len(found)), key=lambda at: -scores[at] if scored else at)
    chosen = {order[int(share * len(order))]: how for how, share in SAMPLED.items() if order}
    lines = ["", f"Samples of dev rows, written by {best.record.label}"] if chosen else []
    for at, how in chosen.items():
        values = found[at].values
        first, *rest = values["dialogue"].splitlines() or [""]
        cells = [("dialogue", first), *(("", turn) for turn in rest[: SAMPLE_TURNS - 1])]
        cells = [(name, cut_to_width(turn, width - 15)) for name, turn in cells]
        cells += [("", "…")] if len(rest) >= SAMPLE_TURNS else []
        cells += [("reference", values["reference"]), ("summary", values["summary"] or "(empty)")]
        score = f", scored {how}: mean {scores[at]:.2f}" if scored else ""
        lines.append(f"  {values['fname']}{score}")
        for name, text in cells:
            head, *more = align([(text,)], left=[0], width=width - LABEL) or [""]
            lines.append(f"    {name:<{LABEL - 4}}{head}".rstrip())
            lines += [" " * LABEL + part for part in more]
    return lines


def suggest_next(result: BatchResult) -> list[str]:
    """Return what a person would do now, each as a sentence with its command or file."""
    plan, options = result.plan, result.plan.options
    failed = [one for one in result.experiments if not one.record.succeeded]
    full = [path for path, cause in result.all_unwritten.items() if cause == DISK_FULL]
    lines = [f"free space on the disk of {shown(full[0].parent)}"] if full else []
    if not result.interrupted:
        lines += [
            f"{one.job.label}: read why in {shown(one.log)}"
            for one in failed
            if one.log.is_file() and one.log.stat().st_size  # on a full disk it may be empty
        ]
    command = _format_batch(options)
    cut_off = [one for one in failed if one.record.cut_off]
    if cut_off or result.not_started:
        places = [
            f"{one.job.label} after {whole.name}"
            for one in cut_off
            if (whole := find_sealed_checkpoint(one.job.paths.checkpoints))
        ]
        where = f" ({', '.join(places)})" if places else ""
        lines.append(f"go on where it was cut off{where}: {command} --resume")
    if len(failed) > len(cut_off):
        lines.append(f"run what failed again: {command} --retry-failed")
    if options.rehearse and result.all_succeeded:
        lines.append(f"as rehearsed: {_format_batch(replace(options, rehearse=False))}")
    elif (best := _find_best(result)) is not None:
        if (submission := best.record.artifact("submission")) is not None:
            lines.append(f"{SUBMISSION_WORDS[plan.sort]}: {shown(submission)}")
        lines.append(f"repeat the best run: {_format_job(plan, best.job)}")
    held = {experiment.name for experiment in plan.jobs}
    for one in result.experiments:
        follower = one.job.config.general.next
        if one.record.succeeded and follower and follower not in held:
            command = _format_runner([one.job.loaded.path.with_name(f"{follower}.yaml")], options)
            lines.append(f"after {one.job.label} comes {follower}: {command}")
    if plan.kind == "demo":
        data_dir = options.data_dir if plan.own_data else None
        real = replace(options, demo=False, one_epoch=False, rehearse=False, data_dir=data_dir)
        command = _format_batch(real)
        data = "" if plan.own_data else "put train.csv, dev.csv, test.csv into data/, then "
        several = "s" if len(plan.jobs) > 1 else ""
        kept = " (leave out what --set meant for tiny models)" if options.overrides else ""
        lines.append(f"the real checkpoint{several}, on a 24 GB GPU{kept}: {data}{command}")
    collect = [in_command(PYTHON), in_command(COLLECT), "--output", "results_comparison.csv"]
    # Runs in a folder of their own are in no other.
    root = options.runs_dir or options.output_dir
    collect += ["--root", str(root)] if root else []
    return [*lines, f"every run so far in one CSV: {shlex.join(collect)}"]


def _format_job(plan: BatchPlan, job: Job) -> str:
    trainer = [in_command(Path(word)) for word in plan.trainer]
    return shlex.join([*trainer, "--job", in_command(job.paths.job)])


def _format_batch(options: BatchOptions) -> str:
    """Return the command of a whole batch."""
    if options.script:
        by_shell = options.script.endswith(".sh")
        command = f"bash {shlex.quote(options.script)}" if by_shell else options.script
        return f"{command}{options.only_words}{options.command_line}"
    return _format_runner(options.configs, options) + options.only_words


def _format_runner(configs: Sequence[Path], options: BatchOptions) -> str:
    words = [in_command(PYTHON), in_command(RUNNER), "--config", *map(in_command, configs)]
    return shlex.join(words) + options.command_line

"""Runs side by side: what was set otherwise, what came of it, and which aims of the plan were met.

The plan is that of the LLM phases (docs/llm.md): `before`, `phase1`, `phase2`, `phase3`; other runs
are shown without aims. Reads records and what stands beside them; must not write.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import yaml

from dialsum.errors import UnfitError
from dialsum.files import read_regular
from dialsum.record import Record
from dialsum.report.summaries import flatten
from dialsum.report.tables import ABSENT, compare_with_best, group_records, two_decimals
from dialsum.score.show import describe_verdict
from dialsum.text import align, format_duration, shorten

BEFORE, FIRST, SECOND, THIRD = "before", "phase1", "phase2", "phase3"
PLAN = (BEFORE, FIRST, SECOND, THIRD)
ALONE = "finetune_config"
"""Phase 1 by its other name."""
UNTOLD = ("general", "tracking", "batch", "data.cache_dir")
"""Settings that change no score."""
LONGEST_SETTING = 28
MOST_GRAD_NORM = 1.5
MOST_FOREIGN = {FIRST: 3.0, SECOND: 1.0}
LEAST = {"rouge1": 35.0, "rougeL": 30.0, "rouge_sum": 70.0}
AIMS_ON = "mecab"
TESTED = {"the mean": "rouge_mean", "ROUGE-1": "rouge1", "ROUGE-L": "rougeL"}
LEAST_TIME_SAVED = 0.40
YES, NO, UNKNOWN = "yes", "NO", "?"


def compare_runs(records: Sequence[Record], *, width: int | None = None) -> list[str]:
    """Return the table of some runs.

    Args:
        records: in the order of its columns; failed ones too.
        width: columns of the terminal; None: of any width.

    Raises:
        UnfitError: fewer than two runs, or none that has a score.
    """
    groups = group_records(records)
    if len(records) < 2 or not groups:
        raise UnfitError(
            f"{len(records)} run(s), {sum(len(one.records) for one in groups)} with a score: two "
            "are needed to compare; run the phases first: python scripts/llm_finetuning.py --phase "
            "all"
        )
    heads = [record.label for record in records]
    settings = find_differences([_read_settings(record) for record in records])
    left = range(len(records) + 1)
    lines = ["Settings that differ"]
    rows = [[key, *(_show(value) for value in values)] for key, values in settings.items()]
    lines += align([["", *heads], *rows], left=left, width=width)
    facts = {record.path: _measure(record) for record in records}
    names = list(dict.fromkeys(name for one in facts.values() for name in one))
    rows = [[name, *(facts[record.path].get(name, ABSENT) for record in records)] for name in names]
    lines += ["", "What came of it", *align([["", *heads], *rows], left=(0,), width=width)]
    if len(groups) > 1:
        lines.append("scored by different recipes or on different rows: not to be compared")
    else:
        lines += [f"signature  {groups[0].signature}", "", *_say_differences(groups[0].records)]
    by_name = {
        FIRST if record.name == ALONE else record.name: record
        for record in records
        if record.succeeded
    }
    if not set(PLAN) & set(by_name):
        return lines
    aims = list(check_aims(by_name))
    demo = any(record.value("kind") == "demo" for record in records)
    lines += ["", "Aims of the plan" + " (for the real checkpoint; a demo misses most)" * demo]
    lines += align([[f"  {verdict}", said] for verdict, said in aims], left=(0, 1), width=width)
    advice = give_advice(by_name)
    return [*lines, *([""] if advice else []), *advice]


def find_differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys under which some runs have other values, with each one's."""
    keys = dict.fromkeys(key for one in settings for key in one)
    found = {key: [one.get(key) for one in settings] for key in keys}
    return {key: values for key, values in found.items() if any(one != values[0] for one in values)}


def _read_settings(record: Record) -> dict[str, Any]:
    path = record.artifact("resolved_config")
    try:
        said = yaml.safe_load(read_regular(path)) if path else {}
    except (OSError, yaml.YAMLError):
        return {}
    return {
        key: value
        for key, value in flatten(said or {}).items()
        if not key.startswith(tuple(f"{name}." for name in UNTOLD)) and key not in UNTOLD
    }


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(" ".join(str(text).split()), limit=LONGEST_SETTING)


def _measure(record: Record) -> dict[str, str]:
    """Return what is shown of a run, by name."""
    found = {"status": record.status}
    for name, key in (
        ("ROUGE-1", "rouge1"),
        ("ROUGE-2", "rouge2"),
        ("ROUGE-L", "rougeL"),
        ("mean", "rouge_mean"),
        ("sum", "rouge_sum"),
    ):
        value = record.number(f"evaluation.dev.{key}")
        ends = record.value(f"evaluation.dev.confidence.{key}")
        if value is not None and ends:
            found[name] = f"{value:.2f} ({float(ends[0]):.2f}-{float(ends[1]):.2f})"
    scores = {
        "constant's sum": _sum_floor(record),
        "mean, tags=1": record.number("evaluation.dev.tags_one.rouge_mean"),
        "constant's": record.number("evaluation.dev.tags_one.floors.constant.rouge_mean"),
        "foreign script, % of rows": record.number("evaluation.dev.foreign_script_rate"),
        "largest gradient norm": record.number("training.max_grad_norm"),
    }
    found |= {name: f"{value:.2f}" for name, value in scores.items() if value is not None}
    if losses := read_losses(record):
        found["loss by epoch"] = " ".join(f"{loss:.3f}" for loss in losses)
    if (seconds := seconds_per_epoch(record)) is not None:
        found["time of an epoch"] = format_duration(seconds)
    padding = record.number("training.padding_share.value")
    if padding is not None:
        found["real tokens"] = f"{100 * (1 - padding):.1f} %"
    return found


def _sum_floor(record: Record) -> float | None:
    parts = [
        record.number(f"evaluation.dev.floors.constant.{key}")
        for key in ("rouge1", "rouge2", "rougeL")
    ]
    return None if None in parts else sum(one for one in parts if one is not None)


def read_losses(record: Record) -> list[float]:
    """Return the mean training loss of each epoch that was logged; each line tells the mean of the
    steps since the line before."""
    path = record.artifact("metrics")
    try:
        lines = read_regular(path).decode("utf-8").splitlines() if path else []
        events = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []
    # A resumed run takes steps again after its last checkpoint: the later line counts.
    steps: dict[int, tuple[float, float]] = {}
    for event in events:
        if event.get("event") == "train" and isinstance(event.get("loss"), float):
            steps[int(event["step"])] = (float(event.get("epoch", 0.0)), event["loss"])
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for before, step in pairwise([0, *sorted(steps)]):
        epoch, loss = steps[step]
        held = sums[max(0, -int(-epoch // 1) - 1)]
        held[0], held[1] = held[0] + loss * (step - before), held[1] + step - before
    return [total / count for _, (total, count) in sorted(sums.items())]


def seconds_per_epoch(record: Record) -> float | None:
    """Return what an epoch's training took, evaluations left out."""
    seconds, epochs = record.number("time.training"), record.number("training.epochs")
    return seconds / epochs if seconds is not None and epochs else None


def _say_differences(records: Sequence[Record]) -> list[str]:
    """Say of the best run's lead over each other whether it is real, by each score; the sum is
    three times the mean."""
    return [
        f"{records[int(one.first)].label} leads {records[int(one.second)].label} by "
        f"{one.points:.2f} points of {what} ({one.low:.2f} to {one.high:.2f}): "
        f"{describe_verdict(asdict(one))}"
        for what, score in TESTED.items()
        for one in compare_with_best(records, score=score)
    ]


def check_aims(runs: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Return each aim of the plan with whether it was met.

    Args:
        runs: successful ones by their names in PLAN; one that is absent leaves its aims unknown.
    """
    aims: list[tuple[str, str]] = []

    def add(met: bool | None, said: str) -> None:
        aims.append((_name_verdict(met), said))

    for name in (FIRST, SECOND, THIRD):
        run = runs.get(name)
        if run is None:
            add(None, f"{name}: not run")
            continue
        norm = run.number("training.max_grad_norm")
        add(
            None if norm is None else norm < MOST_GRAD_NORM,
            f"{name}: gradient norm under {MOST_GRAD_NORM:g} ({two_decimals(norm)})",
        )
        losses = read_losses(run)
        falls = all(later < before for before, later in pairwise(losses))
        said = " ".join(f"{loss:.3f}" for loss in losses) or "none was logged"
        add(falls if len(losses) > 1 else None, f"{name}: loss falls in each epoch ({said})")
        # The aims were stated on this scale.
        on_mecab = f"tok:{AIMS_ON}" in str(run.signature)
        floor = {"rouge_sum": f", constant text {two_decimals(_sum_floor(run))}"}
        for key, least in LEAST.items():
            value = run.number(f"evaluation.dev.{key}")
            add(
                value > least if value is not None and on_mecab else None,
                f"{name}: {key} over {least:g} ({two_decimals(value)}{floor.get(key, '')})",
            )
        if (most := MOST_FOREIGN.get(name)) is not None:
            rate = run.number("evaluation.dev.foreign_script_rate")
            add(
                None if rate is None else rate < most,
                f"{name}: foreign script in under {most:g} % of rows ({two_decimals(rate)} %)",
            )
    pair = runs.get(BEFORE), runs.get(FIRST)
    before, first = (
        run.number("evaluation.dev.foreign_script_rate") if run else None for run in pair
    )
    halved = None
    if before is not None and first is not None and _did_the_same(*pair):
        halved = first <= before / 2
    add(
        halved,
        f"{FIRST}: half as many rows with foreign script as {BEFORE} ({two_decimals(first)} and "
        f"{two_decimals(before)} %)",
    )
    aims += _check_packing(runs)
    return aims


def _did_the_same(*runs: Record | None) -> bool:
    """Say whether runs started from one checkpoint and had the same rows, so that time and scores
    of one say something about the other."""
    work = [
        [run.value(key) for key in ("model.checkpoint", "data.sha256", "data.rows")]
        for run in runs
        if run is not None
    ]
    return len(work) == len(runs) and all(one == work[0] for one in work)


def _name_verdict(met: bool | None) -> str:
    return UNKNOWN if met is None else YES if met else NO


def _check_packing(runs: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Return whether packing saves time at no lower score."""
    second, third = runs.get(SECOND), runs.get(THIRD)
    if second is None or third is None or not _did_the_same(second, third):
        return [(UNKNOWN, f"{THIRD}: less time than {SECOND} at the same score")]
    slow, fast = seconds_per_epoch(second), seconds_per_epoch(third)
    saved = 1 - fast / slow if slow and fast is not None else None
    said = ABSENT
    if saved is not None:
        said = f"{100 * abs(saved):.0f} % {'less' if saved >= 0 else 'more'}"
    met = None if saved is None else saved >= LEAST_TIME_SAVED
    packed = third.value("training.packing")
    aims = [
        (
            _name_verdict(met),
            f"{THIRD}: an epoch in {LEAST_TIME_SAVED:.0%} less time than {SECOND} ({said}; "
            f"packing {'on' if packed else 'off'})",
        )
    ]
    comparable = len(group_records([second, third])) == 1
    tests = compare_with_best([second, third]) if comparable else []
    kept = not any(one.real and int(one.second) == 1 for one in tests) if tests else None
    return [*aims, (_name_verdict(kept), f"{THIRD}: no lower score than {SECOND} (paired test)")]


def give_advice(runs: Mapping[str, Record]) -> list[str]:
    """Return what the plan says to do about what was seen."""
    advice = []
    spikes = [
        name
        for name in (FIRST, SECOND, THIRD)
        if name in runs and (runs[name].number("training.max_grad_norm") or 0) >= MOST_GRAD_NORM
    ]
    if spikes:
        rates = {_read_settings(runs[name]).get("training.learning_rate") for name in spikes}
        halves = ", ".join(f"{rate / 2:g}" for rate in sorted(filter(None, rates)))
        advice.append(
            f"gradients spike in {', '.join(spikes)}: try half the rate, --set "
            f"training.learning_rate={halves}"
        )
    low = [
        name
        for name in (SECOND, THIRD)
        if name in runs
        and (total := runs[name].number("evaluation.dev.rouge_sum")) is not None
        and total < LEAST["rouge_sum"]
    ]
    if low:
        advice.append(
            f"the sum is under {LEAST['rouge_sum']:g} in {', '.join(low)}: read the prompt and the "
            f"worst rows (scripts/score.py), or submit {FIRST}"
        )
    return advice

"""The closing checks of a batch: one line each, with a verdict that is never better than what was
measured.

Must not know files: the outcome of a batch in, lines out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dialsum.batch.outcome import BatchOutcome, Outcome
from dialsum.record import Record
from dialsum.report.ranking import is_ranked, points_above_floor, whitespace_number

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

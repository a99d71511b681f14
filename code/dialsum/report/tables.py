"""Which runs may be ranked together, and their tables: a batch's closing one, the overview of all.

Must not read or write files, nor know a batch's plan: records in, lines out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dialsum.attempts import say_attempts
from dialsum.batch.progress import format_duration
from dialsum.record import Record
from dialsum.score.show import describe_verdict
from dialsum.score.statistics import Difference, compare_systems
from dialsum.text_table import align

RANKED_BY = "rouge_mean"


@dataclass(frozen=True)
class RankedGroup:
    """Runs that may be compared: scored by one recipe on the same dev rows.

    Attributes:
        signature: the recipe.
        dev_sha256: of the dev file, None where no record says it.
        dev_rows: how many rows were scored, None where no record says it.
        records: best first.
    """

    signature: str
    dev_sha256: str | None
    dev_rows: int | None
    records: tuple[Record, ...]


def group_records(records: Iterable[Record]) -> list[RankedGroup]:
    """Return the successful, scored runs in groups that may be ranked, the largest group first."""
    groups: dict[tuple[str, str | None, int | None], list[Record]] = {}
    for record in records:
        if is_ranked(record):
            rows = record.number("evaluation.dev.rows")
            key = (
                str(record.signature),
                record.value("data.sha256.dev"),
                None if rows is None else int(rows),
            )
            groups.setdefault(key, []).append(record)
    ranked = [
        RankedGroup(*key, tuple(sorted(found, key=_best_first))) for key, found in groups.items()
    ]
    return sorted(ranked, key=lambda group: -len(group.records))


def name_differences(groups: Sequence[RankedGroup]) -> tuple[list[str], list[str]]:
    """Say what parts rankings: the recipe, the dev data, the kind of run.

    Returns:
        For each group, what it has where they differ; then what all have in common.
    """
    facts = [
        {"signature": group.signature, "data": _describe_data(group), "kind": _kinds(group)}
        for group in groups
    ]
    common = {key for key in facts[0] if len({one[key] for one in facts}) == 1} if facts else set()
    own = ["; ".join(one[key] for key in one if key not in common) for one in facts]
    return own, [f"{key:<9}  {facts[0][key]}" for key in sorted(common, reverse=True)]


def _describe_data(group: RankedGroup) -> str:
    rows = "dev rows" if group.dev_rows is None else f"{group.dev_rows:,} dev rows"
    files = sorted({str(name) for one in group.records if (name := one.value("data.files.dev"))})
    of = f" of {' and '.join(files)}" if files else ""
    return f"{rows}{of} (sha256 {(group.dev_sha256 or 'unknown')[:12]})"


def _kinds(group: RankedGroup) -> str:
    return " and ".join(sorted({str(one.value("kind") or "unknown") for one in group.records}))


def is_ranked(record: Record) -> bool:
    """Tell whether a run succeeded and has scores."""
    return (
        record.succeeded
        and record.signature is not None
        and record.number(f"evaluation.dev.{RANKED_BY}") is not None
    )


def _best_first(record: Record) -> tuple[bool, float, str]:
    score = record.number(f"evaluation.dev.{RANKED_BY}")
    if score is None or math.isnan(score):
        return (True, 0.0, record.name)
    return (False, -score, record.name)


def points_above_floor(record: Record, *, scale: str = "") -> float | None:
    """Return the points of rouge_mean between a run and its constant sentence, below 0 if under it;
    None if unknown.

    Args:
        scale: `tags_one` or `whitespace`; empty for the run's own.
    """
    place = f"evaluation.dev.{scale}." if scale else "evaluation.dev."
    score, floor = (
        record.number(f"{place}rouge_mean"),
        record.number(f"{place}floors.constant.rouge_mean"),
    )
    return None if score is None or floor is None else score - floor


def compare_with_best(records: Sequence[Record], *, scale: str = "") -> list[Difference]:
    """Say of each run of a group whether the best one's lead over it is real.

    Args:
        records: of one RankedGroup.
        scale: `tags_one`; empty for the runs' own.

    Returns:
        One entry for each run but the best, `first` and `second` being the runs' places in records;
        empty where fewer than two runs have their rows' scores, equally many.
    """
    import numpy as np

    place = f"evaluation.dev.{scale}." if scale else "evaluation.dev."
    found = [record.value(f"{place}per_row.{RANKED_BY}") for record in records]
    scores = {
        str(at): np.array(values, dtype=np.float64)
        for at, values in enumerate(found)
        if isinstance(values, list)
    }
    if len(scores) < 2 or len({len(values) for values in scores.values()}) > 1:
        return []
    return compare_systems(scores, best_only=True)


def whitespace_number(record: Record, key: str) -> float | None:
    """Return a dev score on whitespace tokens, 0-100: beside the run's own scale, or that scale
    itself."""
    beside = record.number(f"evaluation.dev.whitespace.{key}")
    if (
        beside is None
        and "|tok:whitespace" in (record.signature or "")
        and "|tags:split" in (record.signature or "")
    ):
        return record.number(f"evaluation.dev.{key}")
    return beside


ABSENT = "-"
NAME_COLUMN = 1


def format_ranking(
    records: Sequence[Record], *, names: Mapping[str, str] | None = None
) -> list[str]:
    """Return the whole closing table.

    Args:
        records: runs of any status; those scored by different recipes or on different rows are
            ranked apart.
        names: experiment to what stands in the table; labels where absent.
    """
    shown = names or {}
    groups = group_records(records)
    lines: list[str] = []
    if len(groups) > 1:
        lines += [
            f"{len(groups)} rankings: scores of different recipes, or on different dev rows, "
            "say nothing about each other",
            "",
        ]
    own, _ = name_differences(groups)
    for number, (group, what) in enumerate(zip(groups, own, strict=True), start=1):
        lines += [f"Ranking {number}: {what}"] if len(groups) > 1 else []
        lines += [*_format_group(group, shown), ""]
    lines += _format_failures([record for record in records if not is_ranked(record)], shown)
    return lines[:-1] if lines and not lines[-1] else lines


def _format_group(group: RankedGroup, names: Mapping[str, str]) -> list[str]:
    rows = "dev rows" if group.dev_rows is None else f"{group.dev_rows:,} dev rows"
    stated = any(set(_all_targets(record)) != {ABSENT} for record in group.records)
    targets = ", and the targets, set on whitespace tokens" if stated else ""
    return [
        f"Ranking by the mean of ROUGE-1, -2 and -L (F1, 0-100) on {rows}, best first",
        *_main_table(group.records, names),
        *(
            f"attempts   {_name(record, names)}: {line}"
            for record in group.records
            for line in say_attempts(record.content)
        ),
        f"signature  {group.signature}",
        "constant   one text said to every dialogue: the best that a search over the training "
        "summaries found",
        "lead-2     the dialogue's first two turns",
        *(
            ["NOT        not above the constant text"]
            if any(
                points is not None and points <= 0
                for one in group.records
                for points in (points_above_floor(one), points_above_floor(one, scale="tags_one"))
            )
            else []
        ),
        "",
        *_verdicts(group.records, names),
        "The same runs on other scales (compare within a column only)" + targets,
        *_scales_table(group.records, names),
        *_scale_signatures(group.records[0]),
    ]


def _verdicts(records: Sequence[Record], names: Mapping[str, str]) -> list[str]:
    """Say which leads of the best run are real, with tags as morphemes and as one token."""
    rows = [["scale", "the lead of", "over", "points", "95 % interval", "p", ""]]
    for scale, title in (("", "ranking's"), ("tags_one", "tags=1")):
        for one in compare_with_best(records, scale=scale):
            first, second = (_name(records[int(at)], names) for at in (one.first, one.second))
            rows.append(
                [
                    title,
                    first,
                    second,
                    f"{one.points:.2f}",
                    f"{one.low:.2f} - {one.high:.2f}",
                    f"{one.p_holm:.4f}",
                    describe_verdict(real=one.real, more_rows=one.more_rows),
                ]
            )
    if len(rows) == 1:
        return []
    return [
        "Is the lead of the best real?",
        *align(rows, left=[0, 1, 2, 6]),
        "REAL: in under 5 % of cases would equally good runs differ so on these rows (paired test, "
        "Holm's correction)",
        "A test over rows does not see what another seed would change",
        "",
    ]


def _main_table(records: Sequence[Record], names: Mapping[str, str]) -> list[str]:
    rows = [
        [
            "#",
            "experiment",
            "R1",
            "R2",
            "RL",
            "mean",
            "95 % interval",
            "constant",
            "lead-2",
            "over const.",
            "time",
        ]
    ]
    for rank, record in enumerate(records, start=1):
        rows.append(
            [
                str(rank),
                _name(record, names),
                *(
                    _score(record, f"evaluation.dev.{key}")
                    for key in ("rouge1", "rouge2", "rougeL", "rouge_mean")
                ),
                _interval(record),
                _score(record, "evaluation.dev.floors.constant.rouge_mean"),
                _score(record, "evaluation.dev.floors.lead2.rouge_mean"),
                _above(points_above_floor(record)),
                _time(record),
            ]
        )
    return align(_drop_absent(rows), left=[NAME_COLUMN])


def _scales_table(records: Sequence[Record], names: Mapping[str, str]) -> list[str]:
    head = [
        "#",
        "experiment",
        "tags=1 mean",
        "over const.",
        "ws R1",
        "ws R2",
        "ws RL",
        "target R1",
        "minimum",
        "ideal",
    ]
    rows = [head]
    for rank, record in enumerate(records, start=1):
        rows.append(
            [
                str(rank),
                _name(record, names),
                _score(record, "evaluation.dev.tags_one.rouge_mean"),
                _above(points_above_floor(record, scale="tags_one")),
                *(
                    _two_decimals(whitespace_number(record, key))
                    for key in ("rouge1", "rouge2", "rougeL")
                ),
                *_all_targets(record),
            ]
        )
    return align(_drop_absent(rows), left=[NAME_COLUMN])


def _drop_absent(rows: list[list[str]]) -> list[list[str]]:
    """Leave out the columns in which no run has anything."""
    kept = [
        place for place, cells in enumerate(zip(*rows[1:], strict=True)) if set(cells) != {ABSENT}
    ]
    return [[row[place] for place in kept] for row in rows]


def _scale_signatures(record: Record) -> list[str]:
    scales = (("tags=1   ", "tags_one"), ("ws       ", "whitespace"))
    return [
        f"{title}  {signature}"
        for title, key in scales
        if (signature := record.value(f"evaluation.dev.{key}.signature"))
    ]


def _format_failures(records: Sequence[Record], names: Mapping[str, str]) -> list[str]:
    if not records:
        return []
    lines = ["Without a score"]
    for record in records:
        why = record.value("reason") or (
            "no dev scores are recorded" if record.succeeded else "no reason is recorded"
        )
        lines.append(f"  {_name(record, names)}: {record.status} after {_time(record)}: {why}")
        lines += [f"    {line}" for line in say_attempts(record.content)]
    return lines


def _name(record: Record, names: Mapping[str, str]) -> str:
    return names.get(record.name, record.label)


def _score(record: Record, dotted: str) -> str:
    return _two_decimals(record.number(dotted))


def _two_decimals(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _interval(record: Record) -> str:
    ends = record.value("evaluation.dev.confidence.rouge_mean")
    return f"{float(ends[0]):.2f} - {float(ends[1]):.2f}" if ends else ABSENT


def _above(points: float | None) -> str:
    return ABSENT if points is None else f"{points:+.2f}" + ("" if points > 0 else " NOT")


def _time(record: Record) -> str:
    seconds = record.number("duration_seconds")
    return ABSENT if seconds is None else format_duration(seconds)


def _all_targets(record: Record) -> tuple[str, str, str]:
    return _target(record), _bounds(record, "minimum"), _bounds(record, "ideal")


def _target(record: Record) -> str:
    expected = record.value("evaluation.target.expected.rouge1")
    if expected is None:
        return ABSENT
    return (
        f"{expected[0]:g}-{expected[1]:g} "
        f"{yes_or_no(record.value('evaluation.target.expected.met'))}"
    )


def _bounds(record: Record, kind: str) -> str:
    met = record.value(f"evaluation.target.{kind}.met")
    return ABSENT if met is None else yes_or_no(met)


def yes_or_no(met: object) -> str:
    """Return how `met` is said in a column."""
    return "met" if met else "no"


SHOWN_SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")


def rank_records(records: Iterable[Record]) -> dict[Path, dict[str, int]]:
    """Return each ranked record's place: which ranking (from 1; recipes and dev data differ
    between) and rank in it."""
    return {
        record.path: {"ranking": number, "rank": rank}
        for number, group in enumerate(group_records(records), start=1)
        for rank, record in enumerate(group.records, start=1)
    }


def sort_records(records: Sequence[Record]) -> list[Record]:
    """Return runs by ranking and rank, then those without a score by their start."""
    ranked = [record for group in group_records(records) for record in group.records]
    return ranked + sorted(
        (record for record in records if not is_ranked(record)), key=lambda one: one.started_at
    )


def format_overview(records: Sequence[Record]) -> list[str]:
    """Return a short table of all runs in the CSV's order, each ranking under what parts it from
    the others."""
    ranks = rank_records(records)
    rows = [["#", "experiment", "kind", "started", "status", "R1", "R2", "RL", "mean"]]
    for record in sort_records(records):
        scores = [record.number(f"evaluation.dev.{key}") for key in SHOWN_SCORES]
        rows.append(
            [
                str(ranks[record.path]["rank"]) if record.path in ranks else "-",
                record.label,
                str(record.value("kind") or "-"),
                f"{record.started_at:%Y-%m-%d %H:%M}",
                record.status,
                *("-" if score is None else f"{score:.2f}" for score in scores),
            ]
        )
    lines = align(rows, left=[1, 2, 3, 4])
    parted, body = lines[:1], iter(lines[1:])
    groups = group_records(records)
    own, common = name_differences(groups)
    for number, (group, what) in enumerate(zip(groups, own, strict=True), start=1):
        parted += ["", f"ranking {number}: {what}"] if len(groups) > 1 else []
        parted += [next(body) for _ in group.records]
    unranked = list(body)
    parted += ["", "without a score", *unranked] if unranked else []
    if len(groups) > 1:
        parted += ["", "scores of two rankings say nothing about each other"]
    return [*parted, *([""] if common else []), *common]

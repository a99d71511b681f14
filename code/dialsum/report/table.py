"""The closing table: runs best first, each with interval and floors, then the other scales and
targets, then failures.

Must not read files or know a batch's plan: records in, lines out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dialsum.batch.progress import format_duration
from dialsum.record import Record
from dialsum.record.attempts import say_attempts
from dialsum.report.ranking import (
    RankedGroup,
    compare_with_best,
    group_records,
    is_ranked,
    name_differences,
    points_above_floor,
    whitespace_number,
)
from dialsum.score.show import describe_verdict
from dialsum.text_table import align

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

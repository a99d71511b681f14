"""Which runs may be ranked together, and their tables: a batch's closing one, the overview of all.

Must not read or write files, nor know a batch's plan: records in, lines out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING

from dialsum.experiment.attempt import say_attempts
from dialsum.record import Record
from dialsum.score.api import BESIDE
from dialsum.score.show import (
    FLOORS,
    FLOORS_SHOWN,
    LEAST_READING,
    MORE_ROWS,
    WHAT_BESIDE,
    describe_verdict,
    reads,
    say_stability,
)
from dialsum.score.statistics import Difference, compare_systems, count_wins
from dialsum.text import align, format_duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSENT = "-"
RANKED_BY = "rouge_mean"
SCORES = {"R1": "rouge1", "R2": "rouge2", "RL": "rougeL", "mean": RANKED_BY}
"""Columns of scores, and where they stand in `evaluation.dev`."""
TARGETS = {"target R1": "expected", "minimum": "minimum", "ideal": "ideal"}
"""Columns of targets, and where they stand in `evaluation.target`."""


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

    @property
    def data(self) -> str:
        """The dev data in words."""
        names = sorted({str(x) for one in self.records if (x := one.value("data.files.dev"))})
        of = f" of {' and '.join(names)}" if names else ""
        return f"{self.count_rows()}{of} (sha256 {(self.dev_sha256 or 'unknown')[:12]})"

    def count_rows(self) -> str:
        """Return `499 dev rows`."""
        return "dev rows" if self.dev_rows is None else f"{self.dev_rows:,} dev rows"


def is_ranked(record: Record) -> bool:
    """Tell whether a run succeeded and has scores."""
    return (
        record.succeeded
        and record.signature is not None
        and record.number(f"evaluation.dev.{RANKED_BY}") is not None
    )


def group_records(records: Iterable[Record]) -> list[RankedGroup]:
    """Return the successful, scored runs in groups that may be ranked, the largest group first."""
    groups: dict[tuple[str, str | None, int | None], list[Record]] = {}
    for record in filter(is_ranked, records):
        rows = record.number("evaluation.dev.rows")
        count = None if rows is None else int(rows)
        key = (str(record.signature), record.value("data.sha256.dev"), count)
        groups.setdefault(key, []).append(record)
    ranked = [
        RankedGroup(*key, tuple(sorted(found, key=_best_first))) for key, found in groups.items()
    ]
    return sorted(ranked, key=lambda group: -len(group.records))


def _best_first(record: Record) -> tuple[bool, float, str]:
    score = record.number(f"evaluation.dev.{RANKED_BY}") or 0.0
    return (math.isnan(score), 0.0 if math.isnan(score) else -score, record.name)


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
    others = [record for record in records if not is_ranked(record)]
    return ranked + sorted(others, key=lambda record: record.started_at)


def _name_differences(groups: Sequence[RankedGroup]) -> tuple[list[str], list[str]]:
    """Say what parts rankings: the recipe, the dev data, the kind of run.

    Returns:
        For each group, what it has where they differ; then what all have in common.
    """
    kinds = [{str(one.value("kind") or "unknown") for one in group.records} for group in groups]
    facts = [
        {"signature": group.signature, "data": group.data, "kind": " and ".join(sorted(kind))}
        for group, kind in zip(groups, kinds, strict=True)
    ]
    common = {key for key in facts[0] if len({one[key] for one in facts}) == 1} if facts else set()
    own = ["; ".join(one[key] for key in one if key not in common) for one in facts]
    return own, [f"{key:<9}  {facts[0][key]}" for key in sorted(common, reverse=True)]


def points_above_floor(record: Record, *, scale: str = "") -> float | None:
    """Return the points of rouge_mean between a run and its constant sentence, below 0 if under it;
    None if unknown.

    Args:
        scale: `tags_one.` or `whitespace.`; empty for the run's own.
    """
    score = record.number(f"evaluation.dev.{scale}rouge_mean")
    floor = record.number(f"evaluation.dev.{scale}floors.constant.rouge_mean")
    return None if score is None or floor is None else score - floor


def compare_with_best(
    records: Sequence[Record], *, scale: str = "", score: str = RANKED_BY
) -> list[Difference]:
    """Say of each run of a group whether the best one's lead over it is real.

    Args:
        records: of one RankedGroup.
        scale: `tags_one.`; empty for the runs' own.
        score: one of SCORES' values, by which the best one is the best.

    Returns:
        One entry for each run but the best, `first` and `second` being the runs' places in records;
        empty where fewer than two runs have their rows' scores, equally many.
    """
    return compare_systems(_read_rows(records, scale=scale, score=score), best_only=True)


def _read_rows(
    records: Sequence[Record], *, scale: str = "", score: str = RANKED_BY
) -> dict[str, NDArray[np.float64]]:
    """Return the rows' scores of the runs of a group, by their places in it; empty where fewer
    than two have them, equally many."""
    import numpy as np

    found = [record.value(f"evaluation.dev.{scale}per_row.{score}") for record in records]
    scores = {
        str(at): np.array(values, dtype=np.float64)
        for at, values in enumerate(found)
        if isinstance(values, list)
    }
    few = len(scores) < 2 or len({len(values) for values in scores.values()}) > 1
    return {} if few else scores


def whitespace_number(record: Record, key: str) -> float | None:
    """Return a dev score on whitespace tokens, 0-100: beside the run's own scale, or that scale
    itself."""
    beside = record.number(f"evaluation.dev.whitespace.{key}")
    own = {"tok:whitespace", "tags:split"} <= set((record.signature or "").split("|"))
    return record.number(f"evaluation.dev.{key}") if beside is None and own else beside


def format_ranking(records: Sequence[Record], *, width: int | None = None) -> list[str]:
    """Return the whole closing table.

    Args:
        records: runs of any status; those scored by different recipes or on different rows are
            ranked apart.
        width: columns of the terminal; None: of any width.
    """
    groups = group_records(records)
    lines: list[str] = []
    if len(groups) > 1:
        lines += [
            f"{len(groups)} rankings: scores of different recipes, or on different dev rows, "
            "say nothing about each other",
            "",
        ]
    own, _ = _name_differences(groups)
    for number, (group, what) in enumerate(zip(groups, own, strict=True), start=1):
        lines += [f"Ranking {number}: {what}"] if len(groups) > 1 else []
        lines += [*_format_group(group, width), ""]
    unranked = [record for record in records if not is_ranked(record)]
    lines += ["Without a score"] if unranked else []
    for record in unranked:
        why = record.value("reason") or (
            "no dev scores are recorded" if record.succeeded else "no reason is recorded"
        )
        lines.append(f"  {record.label}: {record.status} after {_time(record)}: {why}")
        lines += [f"    {line}" for line in say_attempts(record.content)]
    return lines[:-1] if lines and not lines[-1] else lines


def _format_group(group: RankedGroup, width: int | None) -> list[str]:
    records = group.records
    targets = any(_met(one, kind) != ABSENT for kind in TARGETS.values() for one in records)
    gains = [points_above_floor(one, scale=scale) for one in records for scale in ("", "tags_one.")]
    best = records[0]
    return [
        f"Ranking by the mean of ROUGE-1, -2 and -L (F1, 0-100) on {group.count_rows()}, "
        "best first",
        *_lay_out(records, _ranking_cells, width, beside=_floor_rows(records)),
        *(
            f"attempts   {record.label}: {line}"
            for record in records
            for line in say_attempts(record.content)
        ),
        f"signature  {group.signature}",
        "constant   one text said to every dialogue: the best that a search over the training "
        "summaries found",
        "lead-2     the dialogue's first two turns",
        *(
            ["NOT        not above the constant text"]
            if any(points is not None and points <= 0 for points in gains)
            else []
        ),
        *_say_beside(records),
        *_say_stability(records),
        *(
            [
                "reads      by how much the dev loss is lower with a row's own dialogue than with "
                "another row's",
                f"           NOT: under {LEAST_READING}, it writes without reading, whatever its "
                "score",
            ]
            if any(_reading(record) != ABSENT for record in records)
            else []
        ),
        "",
        *_verdicts(records, width),
        "The same runs on other scales (compare within a column only)"
        + (", and the targets, which are on ws" if targets else ""),
        *_lay_out(records, _scale_cells, width),
        *(
            f"{title:<9}  {signature}"
            for title, key in (("tags=1", "tags_one"), ("ws", "whitespace"))
            if (signature := best.value(f"evaluation.dev.{key}.signature"))
        ),
    ]


def _say_beside(records: Sequence[Record]) -> list[str]:
    """Say what the scores beside ROUGE are, and where they put the runs in another order."""
    said = []
    for key, what in WHAT_BESIDE.items():
        found = [
            (record.number(f"evaluation.dev.{key}.{BESIDE[key]}"), record) for record in records
        ]
        known = [(value, record) for value, record in found if value is not None]
        if not known:
            continue
        said.append(f"{key:<9}  {what}")
        recipes = {record.value(f"evaluation.dev.{key}.signature") for _, record in known}
        order = sorted(known, key=lambda one: -one[0])
        if len(recipes) > 1:
            said.append("           taken by several recipes: not to be compared")
        elif order != known:
            places = ", ".join(f"#{records.index(record) + 1}" for _, record in order)
            said.append(f"           by {key} the order is another: {places}")
    return said


def _say_stability(records: Sequence[Record]) -> list[str]:
    """Say in how many random halves of the rows the best run stays the best."""
    scores = _read_rows(records)
    if not scores:
        return []
    wins = {f"#{int(at) + 1}": won for at, won in count_wins(scores).items()}
    first, *rest = wrap(say_stability(wins), 89)
    return [f"halves     {first}", *(f"           {line}" for line in rest)]


def _verdicts(records: Sequence[Record], width: int | None) -> list[str]:
    """Say which leads of the best run are real, with tags as morphemes and as one token."""
    rows = [
        [
            title,
            records[int(one.first)].label,
            records[int(one.second)].label,
            f"{one.points:.2f}",
            f"{one.low:.2f} - {one.high:.2f}",
            f"{one.p_holm:.4f}",
            describe_verdict(asdict(one)),
        ]
        for scale, title in (("", "ranking's"), ("tags_one.", "tags=1"))
        for one in compare_with_best(records, scale=scale)
    ]
    if not rows:
        return []
    head = ["scale", "the lead of", "over", "points", "95 % interval", "p", ""]
    return [
        "Is the lead of the best real?",
        *align([head, *rows], left=[0, 1, 2, 6], width=width),
        "REAL: in under 5 % of cases would equally good runs differ so on these rows (paired test,",
        "Holm's correction). A test over rows does not see what another seed would change.",
        *wrap(MORE_ROWS, 98),
        "",
    ]


def _lay_out(
    records: Sequence[Record],
    cells_of: Callable[[Record], dict[str, str]],
    width: int | None,
    *,
    beside: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> list[str]:
    """Return the table of a ranking, without the columns in which no run has anything.

    Args:
        beside: what stands below the runs, without a rank: its name, and what it has of a column.
    """
    cells = [cells_of(record) for record in records]
    kept = [head for head in cells[0] if any(own[head] != ABSENT for own in cells)]
    rows = [
        [str(rank), record.label, *(own[head] for head in kept)]
        for rank, (record, own) in enumerate(zip(records, cells, strict=True), start=1)
    ]
    rows += [["", name, *(own.get(head, "") for head in kept)] for name, own in beside.items()]
    return align([["#", "experiment", *kept], *rows], left=[1], width=width)


def _floor_rows(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """Return the scores of what needs no model, as the first run has them that has any."""
    found = {}
    record = next((one for one in records if one.value("evaluation.dev.floors")), records[0])
    for floor in FLOORS_SHOWN:
        cells = {head: _score(record, f"floors.{floor}.{key}") for head, key in SCORES.items()}
        cells["content"] = _score(record, f"content.floors.{floor}")
        if any(cell != ABSENT for cell in cells.values()):
            found[f"({FLOORS[floor]})"] = cells
    return found


def _ranking_cells(record: Record) -> dict[str, str]:
    ends = record.value("evaluation.dev.confidence.rouge_mean")
    return {
        **{head: _score(record, key) for head, key in SCORES.items()},
        "content": _score(record, f"content.{BESIDE['content']}"),
        "95 % interval": f"{float(ends[0]):.2f} - {float(ends[1]):.2f}" if ends else ABSENT,
        "over const.": _above(record),
        "reads": _reading(record),
        "time": _time(record),
    }


def _scale_cells(record: Record) -> dict[str, str]:
    return {
        "tags=1 mean": _score(record, "tags_one.rouge_mean"),
        "over const.": _above(record, "tags_one."),
        "meaning": _score(record, f"meaning.{BESIDE['meaning']}"),
        **{
            f"ws {head}": two_decimals(whitespace_number(record, SCORES[head]))
            for head in ("R1", "R2", "RL")
        },
        **{head: _met(record, kind) for head, kind in TARGETS.items()},
    }


def two_decimals(value: float | None) -> str:
    """Return `12.30`, or what stands for nothing."""
    return ABSENT if value is None else f"{value:.2f}"


def _score(record: Record, key: str) -> str:
    return two_decimals(record.number(f"evaluation.dev.{key}"))


def _above(record: Record, scale: str = "") -> str:
    points = points_above_floor(record, scale=scale)
    return ABSENT if points is None else f"{points:+.2f}" + ("" if points > 0 else " NOT")


def _reading(record: Record) -> str:
    reading = record.value("evaluation.reading")
    if not reading:
        return ABSENT
    return f"{reading['foreign'] - reading['own']:.2f}" if reads(reading) else "NOT"


def _time(record: Record) -> str:
    seconds = record.number("duration_seconds")
    return ABSENT if seconds is None else format_duration(seconds)


def _met(record: Record, kind: str) -> str:
    target = record.value(f"evaluation.target.{kind}")
    if not target:
        return ABSENT
    low_high = "{:g}-{:g} ".format(*target["rouge1"]) if kind == "expected" else ""
    return low_high + ("met" if target.get("met") else "no")


def format_overview(records: Sequence[Record]) -> list[str]:
    """Return a short table of all runs in the CSV's order, each ranking under what parts it from
    the others."""
    ranks = rank_records(records)
    rows = [
        [
            str(ranks[record.path]["rank"]) if record.path in ranks else ABSENT,
            record.label,
            str(record.value("kind") or ABSENT),
            f"{record.started_at:%Y-%m-%d %H:%M}",
            record.status,
            *(_score(record, key) for key in SCORES.values()),
        ]
        for record in sort_records(records)
    ]
    head = ["#", "experiment", "kind", "started", "status", *SCORES]
    first, *rest = align([head, *rows], left=[1, 2, 3, 4])
    lines, body = [first], iter(rest)
    groups = group_records(records)
    own, common = _name_differences(groups)
    for number, (group, what) in enumerate(zip(groups, own, strict=True), start=1):
        lines += ["", f"ranking {number}: {what}"] if len(groups) > 1 else []
        lines += [next(body) for _ in group.records]
    unranked = list(body)
    lines += ["", "without a score", *unranked] if unranked else []
    if len(groups) > 1:
        lines += ["", "scores of two rankings say nothing about each other"]
    return [*lines, *([""] if common else []), *common]

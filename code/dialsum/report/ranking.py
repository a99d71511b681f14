"""Which runs may be ranked together, and in which order.

Must not know how a ranking is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dialsum.record import Record
from dialsum.score.statistics import Difference, compare_systems

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

"""Every run's record as one CSV: one row a run, one column a value.

Must not know a batch: it looks at records alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dialsum.atomic import to_plain, write_table_for_people
from dialsum.reading import refuse_foreign
from dialsum.record import Record
from dialsum.report.ranking import group_records, is_ranked, name_differences
from dialsum.report.summaries import rank_records, relative, without_rows
from dialsum.text_table import align

SHOWN_SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")
FIRST_COLUMNS = (
    "ranking",
    "rank",
    "experiment",
    "label",
    "status",
    "kind",
    "batch",
    "started_at",
    "duration_seconds",
    "evaluation.dev.rouge1",
    "evaluation.dev.rouge2",
    "evaluation.dev.rougeL",
    "evaluation.dev.rouge_mean",
    "evaluation.dev.floors.constant.rouge_mean",
    "evaluation.dev.signature",
    "evaluation.dev.rows",
    "data.files.dev",
    "data.sha256.dev",
    "reason",
    "record",
)
"""What people look at first; all other values follow in the order of the records."""


def write_comparison(records: Sequence[Record], path: Path) -> None:
    """Write the CSV: runs of one recipe and dev set together, best first; those without a score
    last, by their start. An older one at its place is replaced.

    Raises:
        UnfitError: another file than an older comparison stands there.
        DiskFullError, RunError: it cannot be written.
    """
    refuse_foreign(path, is_ours=_is_comparison)
    ranks = rank_records(records)
    rows = [
        {
            **ranks.get(record.path, {}),
            **flatten(without_rows(record.content)),
            "record": relative(record.path, path.parent),
        }
        for record in sort_records(records)
    ]
    present = list(dict.fromkeys(key for row in rows for key in row))
    columns = [key for key in FIRST_COLUMNS if key in present or not rows]
    columns += [key for key in present if key not in columns]
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    write_table_for_people(path, columns, cells)


def _is_comparison(head: bytes) -> bool:
    names = head.decode("utf-8-sig", "replace").partition("\n")[0].strip().split(",")
    return {"experiment", "status", "started_at", "record"} <= set(names)


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


def flatten(content: dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _cell(value: Any) -> object:
    """Return a value as it stands in a cell: empty where there is none, JSON where it is a list or
    a truth value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, bool)):
        return json.dumps(to_plain(value), ensure_ascii=False)
    return value

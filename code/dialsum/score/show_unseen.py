"""Lays out what ROUGE does not see, and the means of slices.

Must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialsum.text_table import align

EXAMPLES = 2
LONGEST_EXAMPLE = 20


def format_unseen(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of what ROUGE does not see, systems side by side with the references.

    Args:
        blocks: name of each system to its record.
    """
    first = next(iter(blocks.values())).get("unseen")
    if not first:
        return []
    table = [["what ROUGE does not see", *blocks, "references", "unit"]]
    if len(blocks) == 1:
        table[0].append("for instance")
    for key, measure in first.items():
        values = [block["unseen"].get(key, {}).get("value") for block in blocks.values()]
        if all(value is None for value in values):
            continue
        row = [f"  {measure['title']}", *map(_short, values), _short(measure.get("references"))]
        row.append(_unit(measure, first))
        if len(blocks) == 1:
            row.append(", ".join(_example(one) for one in measure["worst"][:EXAMPLES]))
        table.append(row)
    left = (0, len(table[0]) - 1) if len(blocks) > 1 else (0, len(blocks) + 2, len(blocks) + 3)
    return ["", *align(table, left=left)]


def _unit(measure: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    rows, measured = measures["empty"]["rows_measured"], measure["rows_measured"]
    return str(measure["unit"]) + (f", {measured} rows" if measured < rows else "")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _example(row: Mapping[str, Any]) -> str:
    what = row["what"]
    if len(what) > LONGEST_EXAMPLE:
        what = f"{what[:LONGEST_EXAMPLE]}…"
    return f"{row['name']} ({what})" if what else str(row["name"])


def format_slices(block: Mapping[str, Any]) -> list[str]:
    """Return the table of slices: rouge_mean of the asked scale where it acts."""
    slices = block.get("slices")
    if not slices:
        return []
    table = [["mean by slice", "rows", "mean", "95 % interval", "constant"]]
    by = ""
    for one in slices:
        if one["by"] != by:
            by = one["by"]
            table.append([f"{by}", "", "", "", ""])
        low, high = one["confidence"]
        table.append(
            [
                f"  {one['value']}",
                f"{one['rows']}{' few' if one['few'] else ''}",
                f"{one['rouge_mean']:.2f}",
                f"{low:.2f} - {high:.2f}",
                f"{one['constant']:.2f}" if "constant" in one else "",
            ]
        )
    few = any(one["few"] for one in slices)
    said = ["few: under 20 rows, which say little"] if few else []
    return ["", *align(table, left=(0,)), *said]

"""Aligns cells to columns; Korean letters take two.

Must not know what the cells mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from dialsum.config.problems import display_width, pad

GAP = "  "


def align(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Return one line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row.
        left: places of the columns that stand to the left; all others to the right.
    """
    if not rows:
        return []
    widths = [max(display_width(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        GAP.join(
            pad(cell, width) if place in left else " " * (width - display_width(cell)) + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

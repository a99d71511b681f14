"""Aligns cells to columns; Korean letters take two.

Must not know what the cells mean.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from dialsum.printable import visible

GAP = "  "


def display_width(text: str) -> int:
    """Return the columns that text takes on a terminal: two for each Korean character."""
    plain = unicodedata.normalize("NFC", text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in plain)


def pad(text: str, width: int) -> str:
    """Fill text with spaces up to width columns."""
    return text + " " * max(0, width - display_width(text))


def align(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Return one line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row; what does not show on one line becomes an escape.
        left: places of the columns that stand to the left; all others to the right.
    """
    if not rows:
        return []
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(display_width(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        GAP.join(
            pad(cell, width) if place in left else " " * (width - display_width(cell)) + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

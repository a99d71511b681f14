"""Aligns cells to columns; Korean letters take two.

Must not know what the cells mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dialsum.printable import visible

UNBOUNDED = 10_000
"""Columns of a line that nothing has to fit."""


def align(
    rows: Sequence[Sequence[str]], *, left: Collection[int], width: int | None = None
) -> list[str]:
    """Return one line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row; what does not show on one line becomes an escape.
        left: places of the columns that stand to the left; all others to the right.
        width: columns that a line may take; cells go on in further lines where it is too narrow.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for place in range(len(rows[0])):
        table.add_column(justify="left" if place in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console = Console(width=width or UNBOUNDED, color_system=None)
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]

"""Aligns cells to columns; Korean letters take two.

Must not know what the cells mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dialsum.printable import visible

GAP = 2


def align(
    rows: Sequence[Sequence[str]], *, left: Collection[int], width: int | None = None
) -> list[str]:
    """Return one line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row; what does not show on one line becomes an escape.
        left: places of the columns that stand to the left; all others to the right.
        width: columns that a line may take; cells go on in further lines where it is too narrow.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return []
    rows = [[visible(cell) for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    words = [
        max(cell_len(word) for cell in column for word in [*cell.split(), ""]) for column in columns
    ]
    while width is not None and sum(widths) + GAP * (len(widths) - 1) > width:
        # A word is broken only where no cell can go on at a space.
        wide = [at for at, own in enumerate(widths) if own > words[at]]
        wide = wide or [at for at, own in enumerate(widths) if own > 2]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    for at, own in enumerate(widths):
        table.add_column(justify="left" if at in left else "right", overflow="fold", width=own)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=sum(widths) + GAP * len(widths), color_system=None)
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]

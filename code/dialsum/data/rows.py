"""What a row and a split are, and how messages name them.

Must not know files, cleaning or checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["train", "dev", "test"]

REQUIRED_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "train": ("fname", "dialogue", "summary"),
    "dev": ("fname", "dialogue", "summary"),
    "test": ("fname", "dialogue"),
}
UNFIT_DATA = "the data is not fit; nothing was started:"
"""First line of a list of problems. It has no count: one line may stand for many rows."""

OPTIONS: dict[Kind, str] = {"train": "--train-data", "dev": "--val-data", "test": "--test-data"}
"""The option of trainer.py that names each file."""


@dataclass(frozen=True)
class Dialogue:
    """One row.

    Args:
        fname: the row's name, as it stands in the file.
        dialogue: cleaned; one turn a line.
        summary: cleaned; None in a test split.
        topic: as it stands in the file; None where there is none.
        row: 1-based data row of its file.
        line: 1-based line of its file on which the row starts; 0 where it comes from no file.
    """

    fname: str
    dialogue: str
    summary: str | None
    topic: str | None
    row: int
    line: int = 0


@dataclass(frozen=True)
class Split:
    """The rows of one file.

    Args:
        kind: what they are for.
        path: where they were read.
        rows: in the file's order, the first max_rows of them.
        sha256: of the file's bytes, hexadecimal.
        notes: sentences for the user: what was cleaned, what looks odd, what is not used.
    """

    kind: Kind
    path: Path
    rows: list[Dialogue]
    sha256: str
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)


def say_row(row: Dialogue) -> str:
    """Name a row within its file: row, line and fname."""
    return f"row {row.row} (line {row.line}, fname {row.fname!r})"


def name_rows(rows: Sequence[Dialogue]) -> list[str]:
    """Return each row's fname; where several train rows have one, with the row's place."""
    counts = Counter(row.fname for row in rows)
    return [row.fname if counts[row.fname] == 1 else f"{row.fname} (row {row.row})" for row in rows]


def say_first(places: Sequence[str], *, limit: int) -> str:
    """List the first places, and how many more there are: `row 3 (…), row 9 (…) and 4 more`."""
    rest = len(places) - limit
    return ", ".join(places[:limit]) + (f" and {rest:,} more" if rest > 0 else "")

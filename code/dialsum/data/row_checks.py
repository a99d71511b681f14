"""What one file may hold: reasons to refuse it, and oddities that the user is told of.

Must not know how rows are read, nor other files (split_checks.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dialsum.data.rows import Dialogue, say_first, say_row
from dialsum.data.tables import SHOWN_PROBLEMS, TableRow

NO_TEXT = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""What programs write for a cell that has no value, in lower case."""

SHOWN_ODDITIES = 3

_TAG = re.compile(r"#\w+#")


def find_problems(rows: Sequence[Dialogue], table: Sequence[TableRow], *, path: Path) -> list[str]:
    """Return every reason to refuse the file, each kind with its first rows and their count.

    Args:
        rows: as cleaned.
        table: the same rows as they stand in the file.
    """
    pairs = list(zip(rows, table, strict=True))
    kinds = [
        [_say_empty(row, "fname", "", path) for row in rows if not row.fname.strip()],
        [
            _say_empty(row, "dialogue", cells.values["dialogue"], path)
            for row, cells in pairs
            if _has_no_text(row.dialogue)
        ],
        [
            _say_empty(row, "summary", cells.values["summary"], path)
            for row, cells in pairs
            if row.summary is not None and _has_no_text(row.summary)
        ],
        _find_doubled_names(rows, path),
    ]
    return [problem for found in kinds for problem in _shorten_kind(found, path)]


def note_oddities(rows: Sequence[Dialogue], path: Path) -> list[str]:
    """Say what is no reason to refuse a file but may be a mistake, one sentence a kind."""
    first: dict[str, Dialogue] = {}
    doubled = [
        f"{say_row(row)} = row {earlier.row}"
        for row in rows
        if (earlier := first.setdefault(row.dialogue, row)) is not row
    ]
    untagged = [say_row(row) for row in rows if not _TAG.search(row.dialogue)]
    damaged = [say_row(row) for row in rows if "\ufffd" in row.dialogue + (row.summary or "")]
    sentences: list[tuple[list[str], Callable[[str], str]]] = [
        (doubled, lambda some: f"repeat the dialogue of an earlier row: {some}"),
        (untagged, lambda some: f"have no speaker tag (#Person1#: …) in the dialogue: {some}"),
        (damaged, lambda some: f"hold U+FFFD, characters lost in an earlier conversion: {some}"),
    ]
    return [
        f"{path}: {len(found):,} of {len(rows):,} rows "
        + say(say_first(found, limit=SHOWN_ODDITIES))
        for found, say in sentences
        if found
    ]


def _has_no_text(text: str) -> bool:
    return not text or text.lower() in NO_TEXT


def _say_empty(row: Dialogue, column: str, cell: str, path: Path) -> str:
    name = f", fname {row.fname!r}" if column != "fname" else ""
    shown = cell if len(cell) <= 30 else cell[:29] + "…"
    found = f"holds only {shown!r}, which says nothing" if cell else "is empty"
    return f"{path}:{row.line}  row {row.row}{name}: {column} {found}; fill it or take the row out"


def _find_doubled_names(rows: Iterable[Dialogue], path: Path) -> list[str]:
    first: dict[str, Dialogue] = {}
    problems = []
    for row in rows:
        if not row.fname.strip():
            continue
        earlier = first.setdefault(row.fname, row)
        if earlier is not row:
            problems.append(
                f"{path}:{row.line}  row {row.row}: fname {row.fname!r} is that of "
                f"row {earlier.row} (line {earlier.line}) already; every row needs its own"
            )
    return problems


def _shorten_kind(problems: Sequence[str], path: Path) -> list[str]:
    rest = len(problems) - SHOWN_PROBLEMS
    more = [f"{path}: … and {rest:,} more rows like these"] if rest > 0 else []
    return [*problems[:SHOWN_PROBLEMS], *more]

"""What one file may hold: reasons to refuse it, and oddities that the user is told of.

Must not know how rows are read, nor other files (split_checks.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dialsum.data.cleaning import has_literal_end
from dialsum.data.rows import Dialogue, Kind, say_first, say_row
from dialsum.data.tables import SHOWN_PROBLEMS, TableRow
from dialsum.data.tags import TURN_START, has_tag
from dialsum.printable import FILLERS

NO_TEXT = frozenset(
    {
        "nan",
        "-nan",
        "nat",
        "na",
        "n/a",
        "n.a",
        "none",
        "null",
        "nil",
        "undefined",
        "\\n",
        "tbd",
        "無",
        "ㅡ",
        "비어있음",
        "비어 있음",
    }
)
"""What programs and people write for a cell that has no value, in lower case; `\\N` is MySQL's."""

MOST_WITHOUT_TEXT = 0.01
"""Share of train rows without text that are left out; of more, something made them so."""

SHOWN_ODDITIES = 3

# `#NAME?`, `#REF!`, `#DIV/0!`, `#이름?` of spreadsheets, with the three that have another end.
_NOTHING = re.compile("(?:해당|내용|요약|값|데이터)?(?: ?사항)? ?없음")
_CELL_ERROR = re.compile(r"#[\w/ ]+[?!]|#N/A(?: N/A)?|#GETTING_DATA|Err:\d+", re.IGNORECASE)


def has_no_text(text: str) -> bool:
    """Say whether a text says nothing: empty, a word or an error in the place of a value (`NaN`,
    `#NAME?`), or marks alone (`-`, `…`), in every line. A speaker before a colon does not count."""
    rest = text
    while rest:
        line, _, rest = rest.partition("\n")
        if not _says_nothing(line):
            return False
    return True


def _says_nothing(line: str) -> bool:
    start = TURN_START.match(line)
    said = line[start.end() if start else 0 :].strip()
    word = said.lower().strip(" .\"'()[]<>")
    if word in NO_TEXT or _NOTHING.fullmatch(word) or _CELL_ERROR.fullmatch(said):
        return True
    # Letters, digits, and symbols such as emoji, but for those that nobody sees.
    return not any(
        (unicodedata.category(char)[0] in "LN" or unicodedata.category(char) == "So")
        and char not in FILLERS
        for char in said
    )


def leave_out_empty(rows: Sequence[Dialogue], path: Path) -> tuple[list[Dialogue], list[str]]:
    """Leave out train rows without a dialogue or a summary, where they are few enough.

    Returns:
        The other rows, and a sentence on those left out; all rows where there are more than
        MOST_WITHOUT_TEXT, which find_problems then refuses.
    """
    empty = [row for row in rows if _lacks_text(row)]
    if not empty or len(empty) > MOST_WITHOUT_TEXT * len(rows):
        return list(rows), []
    places = [
        f"{say_row(row)}: {(row.summary if has_no_text(row.summary or '') else row.dialogue)!r:.30}"
        for row in empty
    ]
    note = (
        f"{path}: {len(empty):,} of {len(rows):,} rows are left out, as their dialogue or summary "
        f"is empty or says nothing: {say_first(places, limit=SHOWN_ODDITIES)}"
    )
    return [row for row in rows if not _lacks_text(row)], [note]


def _lacks_text(row: Dialogue) -> bool:
    return has_no_text(row.dialogue) or (row.summary is not None and has_no_text(row.summary))


def find_problems(
    rows: Sequence[Dialogue], table: Sequence[TableRow], *, kind: Kind, path: Path
) -> list[str]:
    """Return every reason to refuse the file, each kind with its first rows and their count.

    Args:
        rows: as cleaned; some may be left out.
        table: all rows as they stand in the file.
        kind: a train row's name decides nothing, so that several may have one.
    """
    pairs = [(row, table[row.row - 1]) for row in rows]
    kinds = [
        [_say_empty(row, "fname", "", path) for row in rows if not row.fname.strip()],
        [
            _say_empty(row, "dialogue", cells.values["dialogue"], path)
            for row, cells in pairs
            if has_no_text(row.dialogue)
        ],
        [
            _say_empty(row, "summary", cells.values["summary"], path)
            for row, cells in pairs
            if row.summary is not None and has_no_text(row.summary)
        ],
        _find_doubled_names(rows, path) if kind != "train" else [],
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
    untagged = [say_row(row) for row in rows if not has_tag(row.dialogue)]
    literal = [
        say_row(row)
        for row in rows
        if has_literal_end(row.dialogue) or has_literal_end(row.summary or "")
    ]
    names: dict[str, Dialogue] = {}
    renamed = [
        f"{say_row(row)} = row {earlier.row}"
        for row in rows
        if (earlier := names.setdefault(row.fname, row)) is not row
    ]
    damaged = [say_row(row) for row in rows if "\ufffd" in row.dialogue + (row.summary or "")]
    sentences: list[tuple[list[str], Callable[[str], str]]] = [
        (doubled, lambda some: f"repeat the dialogue of an earlier row: {some}"),
        (untagged, lambda some: f"have no speaker tag (#Person1#: …) in the dialogue: {some}"),
        (
            renamed,
            lambda some: (
                f"repeat the fname of an earlier row, which decides nothing in "
                f"train (augmented data has such rows): {some}"
            ),
        ),
        (
            literal,
            lambda some: (
                "hold \\n or \\r as text, kept so: it is a line break only where a "
                f"turn's start follows one, or in a file that writes its line breaks so: {some}"
            ),
        ),
        (damaged, lambda some: f"hold U+FFFD, characters lost in an earlier conversion: {some}"),
    ]
    return [
        f"{path}: {len(found):,} of {len(rows):,} rows "
        + say(say_first(found, limit=SHOWN_ODDITIES))
        for found, say in sentences
        if found
    ]


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

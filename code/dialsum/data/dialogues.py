"""Dialogues and summaries as the program sees them: read from CSV, cleaned, checked, counted.

One file at a time; splits.py reads the three of an experiment. Must not know tokens or models.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dialsum.data.cleaning import STEP_MEANINGS, clean_dialogue, clean_summary
from dialsum.data.row_checks import find_problems, note_oddities
from dialsum.data.rows import (
    OPTIONS,
    REQUIRED_COLUMNS,
    UNFIT_DATA,
    Dialogue,
    Kind,
    Split,
    say_first,
)
from dialsum.data.split_checks import check_splits
from dialsum.data.tables import TableRow, read_table
from dialsum.data.text_files import read_file_bytes
from dialsum.errors import DataError

__all__ = ["Dialogue", "Kind", "Split", "check_splits", "load_split"]


def load_split(path: Path, *, kind: Kind, max_rows: int | None = None) -> Split:
    """Read, clean and check one file.

    Args:
        path: a CSV file with the columns of REQUIRED_COLUMNS; `topic` is kept, others are noted
            and left.
        kind: a test split has no summaries; such a column is left, too.
        max_rows: keep the first rows only. The whole file is checked all the same.

    Raises:
        DataError: every problem of the file, each kind with its first rows and their count.
    """
    _check_place(path, kind)
    table = read_table(path, required=REQUIRED_COLUMNS[kind])
    rows, changes = _clean_rows(table, kind)
    problems = find_problems(rows, table, path=path)
    if problems:
        raise DataError(problems, summary=UNFIT_DATA)
    notes = [
        *_note_changes(changes, path, len(rows)),
        *note_oddities(rows, path),
        *_note_unused(table[0], kind, path),
    ]
    if max_rows is not None and max_rows < len(rows):
        notes.append(f"{path}: the first {max_rows:,} of {len(rows):,} rows are used, as asked")
    digest = hashlib.sha256(read_file_bytes(path)).hexdigest()
    return Split(kind=kind, path=path, rows=rows[:max_rows], sha256=digest, notes=notes)


def _check_place(path: Path, kind: Kind) -> None:
    """Refuse what is no file, naming the CSV files that are there; permissions are the reader's."""
    way_out = f"give another place with --data-dir DIR or {OPTIONS[kind]} FILE"
    if kind == "test":
        way_out += ", or do without a submission: --set data.test_file=null"
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        there = f"the folder holds {_name_csvs(folder)}"
        found = there if folder.is_dir() else f"nor a folder {folder}"
        raise DataError([f"{path}: no such file; {found}; {way_out}"]) from None
    except OSError:
        return
    if stat.S_ISDIR(mode):
        problem = f"{path}: is a folder, not a CSV file; it holds {_name_csvs(path)}; {way_out}"
        raise DataError([problem])


def _name_csvs(folder: Path) -> str:
    try:
        names = sorted(other.name for other in folder.iterdir() if other.suffix.lower() == ".csv")
    except OSError as error:
        return f"files that cannot be listed ({error.strerror or error})"
    return say_first(names, limit=8) if names else "no CSV file"


def _clean_rows(
    table: Sequence[TableRow], kind: Kind
) -> tuple[list[Dialogue], Counter[tuple[str, str]]]:
    """Return the rows and, for each cleaning step and column, the number of changed cells."""
    rows: list[Dialogue] = []
    changes: Counter[tuple[str, str]] = Counter()
    for row in table:
        dialogue, dialogue_steps = clean_dialogue(row.values["dialogue"])
        changes.update((step, "dialogue") for step in dialogue_steps)
        summary: str | None = None
        if kind != "test":
            summary, summary_steps = clean_summary(row.values["summary"])
            changes.update((step, "summary") for step in summary_steps)
        rows.append(
            Dialogue(
                fname=row.values["fname"],
                dialogue=dialogue,
                summary=summary,
                topic=row.values.get("topic") or None,
                row=row.number,
                line=row.line,
            )
        )
    return rows, changes


def _note_changes(changes: Counter[tuple[str, str]], path: Path, total: int) -> list[str]:
    return [
        f"{path}: {column} of {changes[step, column]:,} of {total:,} rows: {meaning}"
        for step, meaning in STEP_MEANINGS.items()
        for column in ("dialogue", "summary")
        if changes[step, column]
    ]


def _note_unused(row: TableRow, kind: Kind, path: Path) -> list[str]:
    used = {*REQUIRED_COLUMNS[kind], "topic"}
    unused = [repr(name) for name in row.values if name not in used]
    if not unused:
        return []
    return [f"{path}: column{'s' if len(unused) > 1 else ''} {', '.join(unused)} not used"]

"""Dialogues and summaries as the program sees them: read, cleaned, checked, counted.

One file at a time; splits.py reads the three of an experiment. Must not know tokens or models.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dialsum.data import aihub
from dialsum.data.cleaning import STEP_MEANINGS, clean_dialogue, clean_summary, writes_literal_ends
from dialsum.data.row_checks import find_problems, has_no_text, leave_out_empty, note_oddities
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
from dialsum.data.tables import DATA_ENDINGS, TableRow, name_some, read_rows
from dialsum.data.text_files import read_file_bytes
from dialsum.errors import DataError

__all__ = ["Dialogue", "Kind", "Split", "check_splits", "load_split"]


def load_split(path: Path, *, kind: Kind, max_rows: int | None = None) -> Split:
    """Read, clean and check one file.

    Args:
        path: CSV or JSON Lines with the columns of REQUIRED_COLUMNS; `topic` is kept, others are
            noted and left.
        kind: a test split has no summaries; such a column is left, too.
        max_rows: keep the first rows only. The whole file is checked all the same.

    Raises:
        DataError: every problem of the file, each kind with its first rows and their count.
    """
    _check_place(path, kind)
    table = read_rows(path, required=REQUIRED_COLUMNS[kind])
    rows, changes = _clean_rows(table, kind)
    changed = _note_changes(changes, path, len(rows))
    left_out: list[str] = []
    if kind == "train":
        rows, left_out = leave_out_empty(rows, path)
    problems = find_problems(rows, table, kind=kind, path=path)
    if problems:
        raise DataError(problems, summary=UNFIT_DATA)
    notes = [*left_out, *changed, *note_oddities(rows, path), *_note_unused(table[0], kind, path)]
    if max_rows is not None and max_rows < len(rows):
        notes.append(f"{path}: the first {max_rows:,} of {len(rows):,} rows are used, as asked")
    digest = hashlib.sha256(read_file_bytes(path)).hexdigest()
    return Split(kind=kind, path=path, rows=rows[:max_rows], sha256=digest, notes=notes)


def _check_place(path: Path, kind: Kind) -> None:
    """Refuse what is no file, naming the data files there; permissions are the reader's."""
    way_out = f"give another place with --data-dir DIR or {OPTIONS[kind]} FILE"
    if kind == "test":
        way_out += ", or do without a submission: --set data.test_file=null"
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        there = f"the folder holds {_name_tables(folder)}"
        found = there if folder.is_dir() else f"nor a folder {folder}"
        raise DataError([f"{path}: no such file; {found}; {way_out}"]) from None
    except OSError:
        return
    if stat.S_ISDIR(mode):
        problem = f"{path}: is a folder, not a data file; it holds {_name_tables(path)}; {way_out}"
        raise DataError([problem])


def _name_tables(folder: Path) -> str:
    try:
        files = sorted(other.name for other in folder.iterdir())
    except OSError as error:
        return f"files that cannot be listed ({error.strerror or error})"
    names = [name for name in files if name.lower().endswith(DATA_ENDINGS)]
    if names:
        return say_first(names, limit=8)
    json = any(name.lower().endswith(".json") for name in files)
    hint = f" (dialogues of AI-Hub, .json: {aihub.COMMAND} '{folder}' --output NAME.csv)"
    return "no CSV or JSON Lines file" + (hint if json else "")


def _clean_rows(
    table: Sequence[TableRow], kind: Kind
) -> tuple[list[Dialogue], Counter[tuple[str, str]]]:
    """Return the rows and, for each cleaning step and column, the number of changed cells."""
    rows: list[Dialogue] = []
    changes: Counter[tuple[str, str]] = Counter()
    literal = writes_literal_ends(row.values["dialogue"] for row in table)
    for row in table:
        dialogue, dialogue_steps = clean_dialogue(row.values["dialogue"], literal_ends=literal)
        changes.update((step, "dialogue") for step in dialogue_steps)
        summary: str | None = None
        if kind != "test":
            summary, summary_steps = clean_summary(row.values["summary"], literal_ends=literal)
            changes.update((step, "summary") for step in summary_steps)
        rows.append(
            Dialogue(
                fname=row.values["fname"],
                dialogue=dialogue,
                summary=summary,
                topic=None if has_no_text(topic := row.values.get("topic", "")) else topic,
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
    unused = [name for name in row.values if name not in used]
    if not unused:
        return []
    return [f"{path}: column{'s' if len(unused) > 1 else ''} {name_some(unused)} not used"]

"""Files of predictions and references to aligned rows; ids are compared before any score.

Must not know how scores are made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dialsum.data.cleaning import MOST_WITHOUT_TEXT, has_no_text
from dialsum.data.tables import TableRow, hint_at_names, read_rows
from dialsum.errors import DataError, raise_problems
from dialsum.files import write_table_for_people
from dialsum.score.rows import Rows
from dialsum.text import name_some, shorten

REFERENCE_COLUMN = re.compile(r"summary\d*")
MOST_SHARED = 0.1
"""Share of the references that may stand among the train summaries by chance, 0-1."""


@dataclass
class References:
    """What one or several reference files say about each id.

    Attributes:
        path: of the first file.
        summaries: id to its references, in the order of files and columns.
        dialogues, topics: id to dialogue and to topic, where a file has that column.
        numbered: the files have no ids; they are `1`, `2` … in the order of the rows.
        columns: what the files call fname, dialogue, summary and topic, where not so.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    summaries: dict[str, list[str]] = field(default_factory=dict)
    dialogues: dict[str, str] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    numbered: bool = False


def read_references(
    paths: Sequence[Path],
    *,
    dialogues: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> References:
    """Read one or several reference files, each with `summary`, `summary1` … or all of these.

    Args:
        dialogues: a file with one for every row, instead of the references' own.
        columns: what the files call fname, dialogue, summary and topic, where not so; further files
            may be without dialogue and topic.

    Raises:
        DataError: as read_rows; no such column; empty references; files with different ids; a
            dialogue that is empty or missing.
    """
    table = References(paths[0], columns or {})
    for path in paths:
        optional = {"dialogue"} if dialogues else set()
        optional |= set() if path is paths[0] else {"dialogue", "topic"}
        asked = [name for name in table.columns if name not in optional]
        rows, names, numbered = _read_named(path, "fname", *asked, columns=table.columns)
        keys = {key for row in rows for key in row.values if REFERENCE_COLUMN.fullmatch(key)}
        summaries = sorted(keys, key=lambda name: int(name[7:] or 0))
        if not summaries:
            found = name_some(list(rows[0].values), limit=20)
            lacks = f"{path}:1  no column 'summary' (or 'summary1' …) in the header, which has"
            with hint_at_names({}, option="--columns ", example="fname=NAME,summary=NAME"):
                raise DataError([f"{lacks} {found}"])
        for column in summaries:
            _check_filled(rows, column, path)
        if table.summaries:
            if numbered != table.numbered:
                raise DataError([f"{paths[0]} and {path}: one has fname and the other has not"])
            _check_same_ids(table, names, path)
        table.numbered = numbered
        for name, row in zip(names, rows, strict=True):
            table.summaries.setdefault(name, []).extend(row.values[column] for column in summaries)
            if dialogue := row.values.get("dialogue", "").strip():
                table.dialogues.setdefault(name, dialogue)
            topics = (row.values.get(key, "").strip() for key in ("topic", "topic1"))
            if topic := next(filter(None, topics), None):
                table.topics.setdefault(name, topic)
    if dialogues is None:
        return table
    rows, names, _ = _read_named(dialogues, "fname", "dialogue", columns=table.columns)
    _check_filled(rows, "dialogue", dialogues)
    table.dialogues = {name: row.values["dialogue"] for name, row in zip(names, rows, strict=True)}
    if missing := [name for name in table.summaries if name not in table.dialogues]:
        count = f"{len(missing)} of {len(table.summaries)} predictions have no dialogue there"
        raise DataError([f"{dialogues}: {count}: {name_some(missing)}"])
    return table


def read_predictions(path: Path, references: References) -> Rows:
    """Read predictions, and return them in the order of their references.

    Ids must be the same; where one side has none, rows count by their order. Empty summaries stay
    (they score 0). The columns may be fname and
    summary, as a run writes them, or have the references' own names.

    Raises:
        DataError: as read_rows; an empty or doubled fname; other ids, or another number of rows.
    """
    columns = references.columns
    if columns:
        there = {key for row in read_rows(path, required=()) for key in row.values}
        columns = {o: own for o, own in columns.items() if o not in there and own in there}
    rows, names, numbered = _read_named(path, "fname", "summary", columns=columns)
    ids = list(references.summaries)
    if not (numbered or references.numbered):
        _check_same_ids(references, names, path)
    elif len(rows) != len(ids):
        counts = f"{path} has {len(rows)} rows and {references.path} {len(ids)}"
        matched = "without fname on both sides they are matched by their order"
        raise DataError([f"{counts}; {matched}, and must be equally many"])
    else:
        names = ids
    texts = {name: row.values["summary"] for name, row in zip(names, rows, strict=True)}
    return Rows(
        predictions=[texts[name] for name in ids],
        references=list(references.summaries.values()),
        dialogues=[references.dialogues.get(name, "") for name in ids]
        if references.dialogues
        else None,
        topics=[references.topics.get(name, "") for name in ids] if references.topics else None,
        names=[f"row {name}" for name in ids] if references.numbered else ids,
    )


def is_rows_table(head: bytes) -> bool:
    """Say whether a file's first bytes are those of a table of write_rows."""
    first = head.partition(b"\n")[0]
    return first.startswith(b"fname,") and b"rouge_mean" in first


def write_rows(path: Path, names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> None:
    """Write a CSV of every row's figures; what a row has not is empty (errors as write_bytes).

    Args:
        names: the rows' ids.
        columns: title to the rows' values.
    """
    values = zip(*columns.values(), strict=True)
    write_table_for_people(
        path,
        ["fname", *columns],
        (
            [name, *("" if number != number else f"{number:.4f}" for number in row)]
            for name, row in zip(names, values, strict=True)
        ),
    )


def read_train_summaries(path: Path, references: References) -> list[str]:
    """Read the summaries that a constant is chosen from.

    Args:
        path: a file with the column summary.
        references: that will be reported on; train rows must not be among them.

    Raises:
        DataError: as read_rows; more empty summaries than training would leave out; a reference
            that stands in this file under the same fname.
    """
    columns, scored = references.columns, references.summaries
    read = _read_renamed(path, "summary", *columns.keys() & {"fname"}, columns=columns)
    rows = [row for row in read if not has_no_text(row.values["summary"])]
    if len(read) - len(rows) > MOST_WITHOUT_TEXT * len(read):
        _check_filled(read, "summary", path)
    shared = [
        name
        for row in rows
        if row.values["summary"] in scored.get(name := row.values.get("fname", ""), ())
    ]
    texts = [row.values["summary"] for row in rows]
    known = set(texts)
    copied = [name for name, references in scored.items() if known.intersection(references)]
    problem = ""
    if shared:
        problem = (
            f"{len(shared)} of {len(rows)} rows are references that are scored on "
            f"({name_some(shared)})"
        )
    elif len(copied) > MOST_SHARED * len(scored):
        problem = (
            f"{len(copied)} of {len(scored)} references stand in it word for word, under whatever "
            f"fname ({name_some(copied)})"
        )
    if problem:
        raise DataError(
            [f"{path}: {problem}; a constant chosen on them is no floor: give other rows"]
        )
    return texts


def _read_renamed(
    path: Path, *required: str, columns: Mapping[str, str], nameless: bool = False
) -> list[TableRow]:
    """Return the rows under our names of their columns; what has one of these by chance is left."""
    asked = [columns.get(name, name) for name in dict.fromkeys(required)]
    with hint_at_names(columns, option="--columns ", example="fname=NAME,summary=NAME"):
        rows = read_rows(path, required=asked, nameless=nameless)
    ours = {own: name for name, own in columns.items()}
    return [
        replace(
            row,
            values={
                ours.get(key, key): value
                for key, value in row.values.items()
                if key in ours or REFERENCE_COLUMN.sub("summary", key) not in columns
            },
        )
        for row in rows
    ]


def _read_named(
    path: Path, *required: str, columns: Mapping[str, str]
) -> tuple[list[TableRow], list[str], bool]:
    """Return the rows, their ids, and whether these are but numbers, since the file has none."""
    rows = _read_renamed(path, *required, columns=columns, nameless=True)
    if not any("fname" in row.values for row in rows):
        return rows, [str(row.number) for row in rows], True
    nameless = [row for row in rows if "fname" not in row.values]
    raise_problems([f"{path}:{row.line}  row {row.number}: no fname" for row in nameless])
    _check_filled(rows, "fname", path)
    names = [row.values["fname"] for row in rows]
    first: dict[str, int] = {}
    raise_problems(
        [
            f"{path}:{row.line}  row {row.number}: fname {shorten(name)!r} stands already on line "
            f"{first[name]}; every fname must be there once"
            for name, row in zip(names, rows, strict=True)
            if first.setdefault(name, row.line) != row.line
        ]
    )
    return rows, names, False


def _check_filled(rows: Sequence[TableRow], column: str, path: Path) -> None:
    problems = []
    for row in rows:
        cell = row.values.get(column, "")
        # Any name is a name.
        if not cell.strip() or (column != "fname" and has_no_text(cell)):
            found = f"holds only {cell!r}, which says nothing" if cell.strip() else "is empty"
            problems.append(f"{path}:{row.line}  row {row.number}: {column} {found}")
    raise_problems(problems)


def _check_same_ids(references: References, names: Sequence[str], path: Path) -> None:
    """Refuse other ids than the references': how many are missing on which side, with some."""
    ids, first = references.summaries, references.path
    there = set(names)
    missing = [name for name in ids if name not in there]
    extra = [name for name in names if name not in ids]
    problems = []
    if missing:
        count = f"{len(missing)} of {len(ids)} ids of {first} are missing"
        problems.append(f"{path}: {count}: {name_some(missing)}")
    if extra:
        count = "1 id" if len(extra) == 1 else f"{len(extra)} ids"
        problems.append(f"{path}: {count} that {first} does not have: {name_some(extra)}")
    if len(missing) == len(ids):
        problems.append(
            "not one id is in both: of a run, predictions_dev.csv is of the dev rows, "
            "submission.csv of the test rows"
        )
    counts = f"{first} ({len(ids)} rows) and {path} ({len(names)} rows)"
    raise_problems(problems, summary=f"{counts} must have the same fname values:")

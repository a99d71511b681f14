"""Files of predictions and references to aligned rows; ids are compared before any score.

Must not know how scores are made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dialsum.data.checks import MOST_WITHOUT_TEXT, has_no_text
from dialsum.data.tables import TableRow, check_unique, name_some, raise_problems, read_rows
from dialsum.errors import DataError
from dialsum.score.rows import Rows

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
    """

    path: Path
    summaries: dict[str, list[str]] = field(default_factory=dict)
    dialogues: dict[str, str] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    numbered: bool = False


def read_references(paths: Sequence[Path]) -> References:
    """Read one or several reference files, each with `summary`, `summary1` … or all of these.

    Raises:
        DataError: as read_rows; no such column; empty references; files with different ids.
    """
    table = References(paths[0])
    for path in paths:
        rows, names, numbered = _read_named(path, "fname")
        keys = {key for row in rows for key in row.values if REFERENCE_COLUMN.fullmatch(key)}
        columns = sorted(keys, key=lambda name: int(name[7:] or 0))
        if not columns:
            found = name_some(list(rows[0].values), limit=20)
            problem = f"{path}:1  no column 'summary' (or 'summary1' …) in the header, which has"
            raise DataError([f"{problem} {found}"])
        for column in columns:
            _check_filled(rows, column, path)
        if table.summaries:
            if numbered != table.numbered:
                raise DataError([f"{paths[0]} and {path}: one has fname and the other has not"])
            _check_same_ids(table, names, path)
        table.numbered = numbered
        for name, row in zip(names, rows, strict=True):
            table.summaries.setdefault(name, []).extend(row.values[column] for column in columns)
            if dialogue := row.values.get("dialogue", "").strip():
                table.dialogues.setdefault(name, dialogue)
            topics = (row.values.get(key, "").strip() for key in ("topic", "topic1"))
            if topic := next(filter(None, topics), None):
                table.topics.setdefault(name, topic)
    return table


def read_predictions(path: Path, references: References) -> Rows:
    """Read predictions, and return them in the order of their references.

    Ids must be the same; where one side has none, rows count by their order. Empty summaries stay
    (they score 0). Dialogues are taken where no row lacks one.

    Raises:
        DataError: as read_rows; an empty or doubled fname; other ids, or another number of rows.
    """
    rows, names, numbered = _read_named(path, "fname", "summary")
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
    has_all = references.dialogues.keys() >= references.summaries.keys()
    return Rows(
        predictions=[texts[name] for name in ids],
        references=list(references.summaries.values()),
        dialogues=[references.dialogues[name] for name in ids] if has_all else None,
        topics=[references.topics.get(name, "") for name in ids] if references.topics else None,
        names=[f"row {name}" for name in ids] if references.numbered else ids,
    )


def read_dialogues(path: Path, references: References) -> dict[str, str]:
    """Read fname to dialogue for every reference.

    Raises:
        DataError: as read_rows; an empty or doubled fname; an empty dialogue; one that is missing.
    """
    rows, names, _ = _read_named(path, "fname", "dialogue")
    _check_filled(rows, "dialogue", path)
    found = {name: row.values["dialogue"] for name, row in zip(names, rows, strict=True)}
    if missing := [name for name in references.summaries if name not in found]:
        count = f"{len(missing)} of {len(references.summaries)} predictions have no dialogue there"
        raise DataError([f"{path}: {count}: {name_some(missing)}"])
    return found


def read_train_summaries(path: Path, *, scored: Mapping[str, Sequence[str]]) -> list[str]:
    """Read the summaries that a constant is chosen from.

    Args:
        path: a file with the column summary.
        scored: fname to references that will be reported on; train rows must not be among them.

    Raises:
        DataError: as read_rows; more empty summaries than training would leave out; a reference
            that stands in this file under the same fname.
    """
    read = read_rows(path, required=("summary",))
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


def _read_named(path: Path, *required: str) -> tuple[list[TableRow], list[str], bool]:
    """Return the rows, their ids, and whether these are but numbers, since the file has none."""
    rows = read_rows(path, required=required, nameless=True)
    if not any("fname" in row.values for row in rows):
        return rows, [str(row.number) for row in rows], True
    nameless = [row for row in rows if "fname" not in row.values]
    raise_problems([f"{path}:{row.line}  row {row.number}: no fname" for row in nameless])
    _check_filled(rows, "fname", path)
    check_unique(rows, "fname", path=path)
    return rows, [row.values["fname"] for row in rows], False


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

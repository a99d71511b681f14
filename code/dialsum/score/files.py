"""Files of predictions and references to aligned rows; ids are compared before any score.

Must not know how scores are made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
class ReferenceTable:
    """What one or several reference files say about each id.

    Attributes:
        summaries: id to its references, in the order of files and columns.
        dialogues, topics: id to dialogue and to topic, where a file has that column.
        numbered: the files have no ids; they are `1`, `2` … in the order of the rows.
    """

    summaries: dict[str, list[str]] = field(default_factory=dict)
    dialogues: dict[str, str] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    numbered: bool = False


def _name_rows(rows: Sequence[TableRow], path: Path) -> tuple[list[str], bool]:
    """Return the rows' ids, and whether they are but numbers, since the file has none."""
    if not any("fname" in row.values for row in rows):
        return [str(row.number) for row in rows], True
    nameless = [row for row in rows if "fname" not in row.values]
    raise_problems([f"{path}:{row.line}  row {row.number}: no fname" for row in nameless])
    _check_filled(rows, "fname", path)
    check_unique(rows, "fname", path=path)
    return [row.values["fname"] for row in rows], False


def read_predictions(path: Path, references: ReferenceTable, *, against: str) -> dict[str, str]:
    """Read id to summary, in the order of the file; empty summaries stay (they score 0).

    Args:
        references: what they are for; ids must be the same. Where one side has none, rows count by
            their order.
        against: how messages name the references.

    Raises:
        DataError: as read_rows; an empty or doubled fname; other ids, or another number of rows.
    """
    rows = read_rows(path, required=("fname", "summary"), nameless=True)
    names, numbered = _name_rows(rows, path)
    if numbered or references.numbered:
        if len(rows) != len(references.summaries):
            raise DataError(
                [
                    f"{path} has {len(rows)} rows and {against} {len(references.summaries)}; "
                    "without fname on both sides they are matched by their order, and must be "
                    "equally many"
                ]
            )
        names = list(references.summaries)
    else:
        check_same_ids(references.summaries, names, left=against, right=str(path))
    return {name: row.values["summary"] for name, row in zip(names, rows, strict=True)}


def read_references(paths: Sequence[Path]) -> ReferenceTable:
    """Read one or several reference files, each with `summary`, `summary1` … or all of these.

    Raises:
        DataError: as read_rows; no such column; empty references; files with different ids.
    """
    table = ReferenceTable()
    for path in paths:
        rows = read_rows(path, required=("fname",), nameless=True)
        names, numbered = _name_rows(rows, path)
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
            check_same_ids(table.summaries, names, left=str(paths[0]), right=str(path))
        table.numbered = numbered
        _add_references(table, rows, names, columns)
    return table


def _add_references(
    table: ReferenceTable, rows: Sequence[TableRow], names: Sequence[str], columns: Sequence[str]
) -> None:
    for name, row in zip(names, rows, strict=True):
        table.summaries.setdefault(name, []).extend(row.values[column] for column in columns)
        for into, keys in ((table.dialogues, ("dialogue",)), (table.topics, ("topic", "topic1"))):
            found = next((value for key in keys if (value := row.values.get(key, "").strip())), "")
            if found:
                into.setdefault(name, found)


def align_rows(
    predictions: Mapping[str, str], references: ReferenceTable, dialogues: Sequence[str] | None
) -> Rows:
    """Return the rows in the order of the references.

    Args:
        dialogues: in that order; None: there are none.
    """
    names = list(references.summaries)
    return Rows(
        predictions=[predictions[name] for name in names],
        references=[references.summaries[name] for name in names],
        dialogues=dialogues,
        topics=[references.topics.get(name, "") for name in names] if references.topics else None,
        names=[f"row {name}" for name in names] if references.numbered else names,
    )


def read_dialogues(path: Path) -> dict[str, str]:
    """Read fname to dialogue.

    Raises:
        DataError: as read_rows; an empty or doubled fname; an empty dialogue.
    """
    rows = read_rows(path, required=("fname", "dialogue"), nameless=True)
    names, _ = _name_rows(rows, path)
    _check_filled(rows, "dialogue", path)
    return {name: row.values["dialogue"] for name, row in zip(names, rows, strict=True)}


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
    if shared:
        problem = (
            f"{path}: {len(shared)} of {len(rows)} rows are references that are scored on "
            f"({name_some(shared)}); a constant chosen on them is no floor: give other rows"
        )
        raise DataError([problem])
    texts = {row.values["summary"] for row in rows}
    copied = [name for name, references in scored.items() if texts & set(references)]
    if len(copied) > MOST_SHARED * len(scored):
        raise DataError(
            [
                f"{path}: {len(copied)} of {len(scored)} references stand in it word for word, "
                f"under whatever fname ({name_some(copied)}); a constant chosen on them is no "
                "floor: give other rows"
            ]
        )
    return [row.values["summary"] for row in rows]


def check_same_ids(
    left_ids: Mapping[str, object], right_ids: Sequence[str], *, left: str, right: str
) -> None:
    """Refuse two sets of ids that differ.

    Raises:
        DataError: how many are missing on which side, with a few names.
    """
    right_set = set(right_ids)
    missing = [name for name in left_ids if name not in right_set]
    extra = [name for name in right_ids if name not in left_ids]
    problems = []
    if missing:
        count = f"{len(missing)} of {len(left_ids)} ids of {left} are missing"
        problems.append(f"{right}: {count}: {name_some(missing)}")
    if extra:
        ids = "1 id" if len(extra) == 1 else f"{len(extra)} ids"
        problems.append(f"{right}: {ids} that {left} does not have: {name_some(extra)}")
    if problems and len(missing) == len(left_ids):
        problems.append(
            "not one id is in both: of a run, predictions_dev.csv is of the dev rows, "
            "submission.csv of the test rows"
        )
    counts = f"{left} ({len(left_ids)} rows) and {right} ({len(right_ids)} rows)"
    raise_problems(problems, summary=f"{counts} must have the same fname values:")


def pick_dialogues(
    names: Collection[str], dialogues: Mapping[str, str], *, source: Path | None
) -> list[str] | None:
    """Return the dialogues in the order of names; None where the references lack some.

    Args:
        names: the ids that are scored.
        dialogues: fname to dialogue.
        source: the file that was asked for, or None where they came with the references.

    Raises:
        DataError: a file that was asked for lacks some.
    """
    missing = [name for name in names if name not in dialogues]
    if missing and source is not None:
        count = f"{len(missing)} of {len(names)} predictions have no dialogue there"
        raise DataError([f"{source}: {count}: {name_some(missing)}"])
    return None if missing else [dialogues[name] for name in names]


def _check_filled(rows: Sequence[TableRow], column: str, path: Path) -> None:
    problems = []
    for row in rows:
        cell = row.values.get(column, "")
        # Any name is a name.
        if not cell.strip() or (column != "fname" and has_no_text(cell)):
            found = f"holds only {cell!r}, which says nothing" if cell.strip() else "is empty"
            problems.append(f"{path}:{row.line}  row {row.number}: {column} {found}")
    raise_problems(problems)

"""Prediction and reference tables to aligned texts: ids and counts are compared before any score.

Must not know how scores are made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dialsum.data.tables import TableRow, check_unique, name_some, raise_problems, read_table
from dialsum.errors import DataError

REFERENCE_COLUMN = re.compile(r"summary\d*")


@dataclass(frozen=True)
class ReferenceTable:
    """What one or several reference files say about each id.

    Attributes:
        summaries: fname to its references, in the order of files and columns.
        dialogues: fname to dialogue; empty where no file has that column.
    """

    summaries: dict[str, list[str]]
    dialogues: dict[str, str]


def read_predictions(path: Path) -> dict[str, str]:
    """Read fname to summary, in the order of the file; empty summaries stay (they score 0).

    Raises:
        DataError: as read_table; an empty or doubled fname.
    """
    rows = read_table(path, required=("fname", "summary"))
    _check_names(rows, path)
    return {row.values["fname"]: row.values["summary"] for row in rows}


def read_references(paths: Sequence[Path]) -> ReferenceTable:
    """Read one or several reference files, each with `summary`, `summary1` … or all of these.

    Raises:
        DataError: as read_table; no such column; empty references; files with different ids.
    """
    summaries: dict[str, list[str]] = {}
    dialogues: dict[str, str] = {}
    for path in paths:
        rows = read_table(path, required=("fname",))
        _check_names(rows, path)
        columns = sorted(
            filter(REFERENCE_COLUMN.fullmatch, rows[0].values), key=lambda name: int(name[7:] or 0)
        )
        if not columns:
            found = name_some(list(rows[0].values), limit=20)
            problem = f"{path}:1  no column 'summary' (or 'summary1' …) in the header, which has"
            raise DataError([f"{problem} {found}"])
        for column in columns:
            _check_filled(rows, column, path)
        names = [row.values["fname"] for row in rows]
        if summaries:
            check_same_ids(summaries, names, left=str(paths[0]), right=str(path))
        for name, row in zip(names, rows, strict=True):
            summaries.setdefault(name, []).extend(row.values[column] for column in columns)
            if row.values.get("dialogue", "").strip():
                dialogues.setdefault(name, row.values["dialogue"])
    return ReferenceTable(summaries, dialogues)


def read_dialogues(path: Path) -> dict[str, str]:
    """Read fname to dialogue.

    Raises:
        DataError: as read_table; an empty or doubled fname; an empty dialogue.
    """
    rows = read_table(path, required=("fname", "dialogue"))
    _check_names(rows, path)
    _check_filled(rows, "dialogue", path)
    return {row.values["fname"]: row.values["dialogue"] for row in rows}


def read_train_summaries(path: Path, *, scored: Mapping[str, Sequence[str]]) -> list[str]:
    """Read the summaries that a constant is chosen from.

    Args:
        path: a file with the column summary.
        scored: fname to references that will be reported on; train rows must not be among them.

    Raises:
        DataError: as read_table; an empty summary; a reference that stands in this file under the
            same fname.
    """
    rows = read_table(path, required=("summary",))
    _check_filled(rows, "summary", path)
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
        problems.append(f"{right}: {len(extra)} ids that {left} does not have: {name_some(extra)}")
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


def _check_names(rows: Sequence[TableRow], path: Path) -> None:
    _check_filled(rows, "fname", path)
    check_unique(rows, "fname", path=path)


def _check_filled(rows: Sequence[TableRow], column: str, path: Path) -> None:
    empty = [row for row in rows if not row.values[column].strip()]
    raise_problems([f"{path}:{row.line}  row {row.number}: {column} is empty" for row in empty])

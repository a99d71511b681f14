"""The files that a run predicts: the competition's submission, and the dev predictions.

Must not know models or scores; the summaries are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dialsum.atomic import write_csv
from dialsum.data.rows import Dialogue
from dialsum.data.tables import SHOWN_PROBLEMS, read_table
from dialsum.errors import DataError, RunError


def write_submission(path: Path, test_rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write the competition's form: an unnamed index from 0, fname, summary, in test order.

    Empty summaries are written as they are: hours of training are not to be lost over one of them,
    and check_submission names them.

    Raises:
        RunError: as many summaries as rows are needed.
        DiskFullError, RunError: the file cannot be written.
    """
    _check_count(path, test_rows, summaries)
    write_csv(
        path,
        ["", "fname", "summary"],
        [
            [index, row.fname, summary]
            for index, (row, summary) in enumerate(zip(test_rows, summaries, strict=True))
        ],
    )


def write_predictions(path: Path, rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write predictions as fname, summary, in the order of rows (errors as write_submission)."""
    _check_count(path, rows, summaries)
    write_csv(
        path,
        ["fname", "summary"],
        [[row.fname, summary] for row, summary in zip(rows, summaries, strict=True)],
    )


def check_submission(path: Path, test_rows: Sequence[Dialogue]) -> None:
    """Hold a submission against the test file: every id once and in order, no empty summary.

    Raises:
        RunError: each problem with its line, the first of each kind; or it is no readable table.
    """
    try:
        table = read_table(path, required=("fname", "summary"))
    except DataError as error:
        raise RunError(f"the submission is not fit to hand in:\n  {error.problems[0]}") from error
    expected = [row.fname for row in test_rows]
    found = [row.values["fname"] for row in table]
    missing = sorted(set(expected) - set(found), key=expected.index)
    seen: set[str] = set()
    doubled, unknown, empty = [], [], []
    for row in table:
        place, name = f"{path}:{row.line}  row {row.number}", row.values["fname"]
        if name in seen:
            doubled.append(f"{place}: fname {name!r} stands already in an earlier row")
        elif name not in expected:
            unknown.append(f"{place}: fname {name!r} is not in the test file")
        seen.add(name)
        if not row.values["summary"].strip():
            empty.append(f"{place}: the summary of {name!r} is empty")
    absent = [f"{path}: no row for fname {name!r} of the test file" for name in missing]
    problems = [line for kind in (absent, doubled, unknown, empty) for line in _shorten(kind, path)]
    if not (absent or doubled or unknown) and found != expected:
        number = next(
            place for place, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b
        )
        problems.append(
            f"{path}:{table[number].line}  row {number + 1}: fname {found[number]!r} stands where "
            f"the test file has {expected[number]!r}; the order must be that of the test file"
        )
    if problems:
        raise RunError(
            "\n".join(
                ["the submission is not fit to hand in:", *(f"  {line}" for line in problems)]
            )
        )


def _check_count(path: Path, rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    if len(rows) != len(summaries):
        raise RunError(
            f"{path}: {len(summaries)} summaries for {len(rows)} rows; nothing was written. "
            "Every row needs one, in the order of the rows"
        )


def _shorten(problems: Sequence[str], path: Path) -> list[str]:
    rest = len(problems) - SHOWN_PROBLEMS
    more = [f"{path}: … and {rest:,} more like these"] if rest > 0 else []
    return [*problems[:SHOWN_PROBLEMS], *more]

"""The files that a run predicts: the competition's submission, and the dev predictions.

Must not know models or scores; the summaries are given.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from dialsum.data.checks import Remarks, has_no_text, remark_on_summaries
from dialsum.data.rows import Dialogue
from dialsum.data.tables import TableRow, name_some, parse_table, shorten_kind
from dialsum.errors import DataError, RunError
from dialsum.files import read_text_file, shorten, write_csv

HEADER = ["", "fname", "summary"]
PREDICTION_COLUMNS = ("fname", "summary", "dialogue", "reference")


def write_submission(path: Path, test_rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write the competition's form: an unnamed index from 0, fname, summary, in test order.

    Summaries are composed (NFC) and stand on one line each. Empty ones are written as they are:
    hours of training are not to be lost over one of them, and check_submission names them.

    Raises:
        RunError: as many summaries as rows are needed.
        DiskFullError, RunError: the file cannot be written.
    """
    _check_count(path, test_rows, summaries)
    write_csv(
        path,
        HEADER,
        [
            [index, row.fname, one_line(summary)]
            for index, (row, summary) in enumerate(zip(test_rows, summaries, strict=True))
        ],
    )


def one_line(summary: str) -> str:
    """Return a summary composed (NFC) and on one line."""
    return " ".join(unicodedata.normalize("NFC", summary).split())


def write_predictions(path: Path, rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write predictions, each beside its dialogue and reference, in the order of rows.

    Raises:
        DiskFullError, RunError: as write_submission.
    """
    _check_count(path, rows, summaries)
    write_csv(
        path,
        PREDICTION_COLUMNS,
        [
            [row.fname, summary, row.dialogue, row.summary]
            for row, summary in zip(rows, summaries, strict=True)
        ],
    )


def check_submission(
    path: Path, test_rows: Sequence[Dialogue], *, known: Collection[str] = ()
) -> Remarks:
    """Refuse a submission whose form is not right (arguments as inspect_submission).

    Returns:
        What is to be said of the summaries, which is the caller's to judge.

    Raises:
        RunError: each problem of the form.
    """
    problems, remarks = inspect_submission(path, test_rows, known=known)
    if problems:
        raise RunError(say_unfit(path, problems))
    return remarks


def inspect_submission(
    path: Path, test_rows: Sequence[Dialogue], *, known: Collection[str] = ()
) -> tuple[list[str], Remarks]:
    """Hold a submission against the test file.

    Its form has to be right: header, index, every id once and in order, no empty summary, one line
    each, composed Unicode.

    Args:
        known: tags that train has (tags.loose_tags).

    Returns:
        The problems of the form with their lines, the first of each kind, and what is to be said of
        what stands in the summaries.
    """
    try:
        text = read_text_file(path)
        table = parse_table(text, path, required=("fname", "summary"))
    except DataError as error:
        return list(error.problems), Remarks([], [])
    problems = _find_header_problems(text, path)
    problems += [
        line
        for kind in _find_row_problems(table, test_rows, path)
        for line in shorten_kind(kind, path)
    ]
    dialogues = {row.fname: row.dialogue for row in test_rows}
    summaries = {row.values["fname"]: row.values["summary"] for row in table}
    return problems, remark_on_summaries(summaries, dialogues, known=known)


def say_unfit(path: Path, problems: Sequence[str]) -> str:
    """Return one text of all that is wrong with a submission, its path said once.

    Args:
        problems: those of its form, which begin with the path; those of its summaries.
    """
    lines = []
    for problem in problems:
        rest = problem.removeprefix(f"{path}:")
        has_line = rest != problem and rest[:1].isdecimal()
        lines.append(f"  line {rest}" if has_line else f"  {rest.lstrip()}")
    return "\n".join([f"{path} is not fit to hand in:", *lines])


def _find_header_problems(text: str, path: Path) -> list[str]:
    """Say what is wrong with the columns, which are the index, fname and summary, and with the
    index, which counts the rows from 0."""
    lines = io.StringIO(text, newline="")
    header, *rows = [cells for cells in csv.reader(lines) if cells]
    if header != HEADER:
        return [
            f"{path}:1  the first line is {shorten(','.join(header))!r} and must be "
            "',fname,summary': before fname stands an index without a name that counts the rows "
            "from 0 (pandas writes it unless told index=False)"
        ]
    wrong = [number for number, cells in enumerate(rows) if cells[0].strip() != str(number)]
    if not wrong:
        return []
    found = rows[wrong[0]][0]
    return [
        f"{path}: row {wrong[0] + 1} has the index {found!r} where {wrong[0]} belongs"
        + (f", and {len(wrong) - 1:,} more rows have a wrong one" if len(wrong) > 1 else "")
    ]


def _find_row_problems(
    table: Sequence[TableRow], test_rows: Sequence[Dialogue], path: Path
) -> list[list[str]]:
    """Return the problems of ids, order and cells, by kind."""
    expected = [row.fname for row in test_rows]
    places = set(expected)
    found = [row.values["fname"] for row in table]
    seen: set[str] = set()
    doubled, unknown, empty, broken, decomposed = [], [], [], [], []
    for row in table:
        place, name = f"{path}:{row.line}  row {row.number}", row.values["fname"]
        summary = row.values["summary"]
        if name in seen:
            doubled.append(f"{place}: fname {name!r} stands already in an earlier row")
        elif name not in places:
            unknown.append((place, name))
        seen.add(name)
        if has_no_text(summary):
            holds = f"holds only {summary!r}, which says nothing" if summary.strip() else "is empty"
            empty.append(f"{place}: the summary of {name!r} {holds}")
        if "\n" in summary or "\r" in summary:
            broken.append(f"{place}: the summary of {name!r} has a line break")
        if not unicodedata.is_normalized("NFC", summary):
            decomposed.append(
                f"{place}: the summary of {name!r} is not composed; unicodedata.normalize('NFC', "
                "text) composes it"
            )
    lacking = [name for name in expected if name not in seen]
    absent = [f"{path}: no row for fname {name!r} of the test file" for name in lacking[:1]]
    if len(lacking) > 1:
        count = f"{len(lacking):,} of {len(expected):,} fnames of the test file"
        absent = [f"{path}: no row for {count}: {name_some(lacking)}"]
    foreign = [f"{place}: fname {name!r} is not in the test file" for place, name in unknown[:1]]
    if len(unknown) > 1:
        names = name_some([name for _, name in unknown])
        foreign = [
            f"{unknown[0][0]}: the first of {len(unknown):,} rows whose fname is not in the "
            f"test file: {names}"
        ]
    misplaced = []
    if not (lacking or doubled or unknown) and found != expected:
        number = next(
            place for place, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b
        )
        misplaced.append(
            f"{path}:{table[number].line}  row {number + 1}: fname {found[number]!r} stands where "
            f"the test file has {expected[number]!r}; the order must be that of the test file"
        )
    return [absent, doubled, foreign, misplaced, empty, broken, decomposed]


def _check_count(path: Path, rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    if len(rows) != len(summaries):
        raise RunError(
            f"{path}: {len(summaries)} summaries for {len(rows)} rows; nothing was written. "
            "Every row needs one, in the order of the rows"
        )

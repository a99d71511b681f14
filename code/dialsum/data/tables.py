"""Reads a table whole and strictly: CSV, cells parted by tabs (.tsv), JSON Lines, or one summary a
line; every row by its line.

Must not know what a dialogue or a summary is: it hands out cells as they stand in the file. What
the cells mean, and which of them may be empty, is for the callers.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dialsum.errors import DataError, raise_problems
from dialsum.files import read_text_file
from dialsum.text import SURROGATE, name_some, shorten

JSON_LINES = (".jsonl", ".ndjson")
PLAIN_LINES = (".txt",)
TABBED = (".tsv", ".tab")
DATA_ENDINGS = (".csv", *JSON_LINES)
TEXT_KEYS = re.compile(r"fname|dialogue|summary\d*")
"""Columns whose values are text: a list or an object there is a mistake."""
MAX_CELL_CHARS = 16 * 1024 * 1024
AIHUB_COMMAND = ".venv/bin/python scripts/convert_aihub.py"
_AIHUB_KEY = re.compile(r'"(?:dialogueInfo|participantsInfo|participantID)"\s*:')
_LACKS_COLUMN = re.compile(r"\bno (?:column|key) '([^']+)'|none of the columns '")
# Excel and pandas write an index as a first column with an empty name; pandas reads that back as
# "Unnamed: 0".
UNNAMED = re.compile(r"(Unnamed: \d+)?")


@dataclass(frozen=True)
class TableRow:
    """One data row of a CSV file, its cells untouched.

    Attributes:
        number: 1-based position among the data rows.
        line: 1-based line of the file on which the row starts (a row with line breaks in a cell
            spans several).
        values: column name to cell text; every column of the header is there, unnamed ones are not.
    """

    number: int
    line: int
    values: dict[str, str]


def read_rows(
    path: Path, *, required: Sequence[str], nameless: bool = False, content: bytes | None = None
) -> list[TableRow]:
    """Read a table of any of the three kinds, told by the name's ending.

    Args:
        required: columns that it must have; a text file has `summary` alone.
        nameless: do without `fname` in JSON Lines and text files.
        content: the file's bytes, where they were read already.

    Raises:
        DataError: no such file, other encoding (cp949 and UTF-16 are named), NUL bytes, AI-Hub's
            own form; errors of parse_table; a line that is no JSON object, or that lacks a key.
    """
    text, ending = read_text_file(path, content), path.suffix.lower()
    if re.match(r"\s*[{\[]", text) and _AIHUB_KEY.search(text, 0, 64 * 1024):
        made = f"make a table of them: {AIHUB_COMMAND} '{path}' --output NAME.csv"
        raise DataError([f"{path}: holds dialogues as AI-Hub hands them out; {made}"])
    if ending == ".json":
        raise DataError([f"{path}: give one JSON object a line, in a file that ends in .jsonl"])
    if ending not in (*JSON_LINES, *PLAIN_LINES):
        delimiter = "\t" if ending in TABBED else ","
        return parse_table(text, path, required=required, delimiter=delimiter)
    if not text:
        raise DataError([f"{path}: is empty"])
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if nameless:
        required = [name for name in required if name != "fname"]
    if ending in JSON_LINES:
        return _read_json_lines(lines, path, required=required)
    lacking = [name for name in required if name != "summary"]
    if lacking:
        raise DataError([f"{path}: a text file holds one summary a line and no {lacking[0]}"])
    return [TableRow(row, row, {"summary": line}) for row, line in enumerate(lines, start=1)]


@contextmanager
def hint_at_names(asked: Mapping[str, str], *, option: str, example: str) -> Iterator[None]:
    """Say of a column that a file lacks which names were asked for, or how others are read.

    Args:
        asked: our names of columns to the file's own, where these are others.
        option: by which a user gives these, up to our name.
        example: what may follow it; {lacking} is the column that the file lacks.
    """
    try:
        yield
    except DataError as error:
        found = _LACKS_COLUMN.search(str(error))
        if found is None:
            raise
        example = example.format(lacking=found[1] or "dialogue")
        hint = f"columns under other names, the same in every file, are read with {option}{example}"
        if asked:
            told = ", ".join(f"{own!r} for {ours}" for ours, own in asked.items())
            hint = f"{option.removeprefix('--set ').strip(' .')} asks for {told}"
        *first, last = error.problems
        head, *_ = str(error).splitlines()
        raise DataError([*first, f"{last}; {hint}"], summary=head) from None


def _read_json_lines(
    lines: Sequence[str], path: Path, *, required: Sequence[str]
) -> list[TableRow]:
    rows: list[TableRow] = []
    problems: list[str] = []
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            problems.append(f'{path}:{line}  is no JSON ({{"fname": …}} on one line): {error}')
            continue
        if not isinstance(found, dict):
            # Not quoted: what is no table may be anything, secrets too.
            problems.append(f'{path}:{line}  is no JSON object ({{"fname": …}})')
            continue
        values = {key: "" if value is None else str(value) for key, value in found.items()}
        odd = [key for key, value in found.items() if isinstance(value, (list, dict))]
        read = [key for key in odd if TEXT_KEYS.fullmatch(key) or key in required]
        if read:
            sort = "a list" if isinstance(found[read[0]], list) else "an object"
            problems.append(f"{path}:{line}  {read[0]!r} is no text but {sort}")
        if any(SURROGATE.search(value) for value in values.values()):
            problems.append(f"{path}:{line}  holds half a character (a lone \\ud800 or the like)")
        lacking = [name for name in required if name not in values]
        if lacking:
            keys = name_some(values, limit=20) if values else "none"
            problems.append(f"{path}:{line}  no key {lacking[0]!r}; its keys are {keys}")
        rows.append(TableRow(len(rows) + 1, line, values))
    raise_problems(problems)
    if not rows:
        raise DataError([f"{path}: has no row"])
    return rows


def parse_table(
    text: str, path: Path, *, required: Sequence[str], delimiter: str = ","
) -> list[TableRow]:
    """Take the text of a CSV file with a header apart.

    Args:
        required: column names that the header must have; others are kept too.
        delimiter: what stands between two cells.

    Raises:
        DataError: a missing or doubled column, rows that are longer or shorter than the header
            (each by its line), or no data row at all.
    """
    if re.match(r"\s*(\{\s*[\"}]|\[\s*[{\[])", text):
        problem = (
            f"{path}: is JSON, not CSV; rows as one JSON object a line stand in a file that ends "
            "in .jsonl: rename it if that is what it holds, else write it as CSV"
        )
        raise DataError([problem])
    records = split_records(text, path, delimiter=delimiter)
    if not records:
        raise DataError([f"{path}: is empty; expected a header with {name_some(required)}"])
    header = [name.strip() for name in records[0][1]]
    _check_header(header, required, path)
    if len(records) == 1:
        raise DataError([f"{path}: has a header but no data row"])
    named = [(place, name) for place, name in enumerate(header) if not UNNAMED.fullmatch(name)]
    nameless = [place for place in range(1, len(header)) if UNNAMED.fullmatch(header[place])]
    rows, problems = [], []
    for number, (line, cells) in enumerate(records[1:], start=1):
        if len(cells) != len(header):
            problems.append(
                f"{path}:{line}  {len(cells)} cells where the header has {len(header)}; quote a "
                "cell that holds a comma or a line break (row starts "
                f"{shorten(cells[0], limit=30)!r})"
            )
            continue
        problems += [
            f"{path}:{line}  cell {place + 1} ({shorten(cells[place], limit=30)!r}) stands under a "
            "column without a name; name it, or quote the cell before it"
            for place in nameless
            if cells[place].strip()
        ]
        rows.append(TableRow(number, line, {name: cells[place] for place, name in named}))
    raise_problems(problems)
    return rows


def split_records(text: str, path: Path, *, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Split CSV text into (first line, cells); blank lines are no rows."""
    # csv's limit is one for the process; a long dialogue may pass its 128 KiB, so it is lifted for
    # this call alone.
    old_limit = csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    records: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if cells:
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        said = str(error)
        if "unexpected end of data" in said:
            said = (
                'its quotation mark (") is never closed; close it, or double one in the text ("")'
            )
        elif "expected after" in said:
            said = 'a quotation mark (") stands inside of a quoted cell; double it ("")'
        problem = f"{path}:{line}  the row that starts here is no valid CSV: {said}"
        raise DataError([problem]) from error
    finally:
        csv.field_size_limit(old_limit)
    return records


def _check_header(header: Sequence[str], required: Sequence[str], path: Path) -> None:
    named = [name for name in header if not UNNAMED.fullmatch(name)]
    doubled = sorted({name for name in named if named.count(name) > 1})
    guesses = {name: _guess_column(name, named) for name in required if name not in named}
    if required and named and len(guesses) == len(required) and not any(guesses.values()):
        # Not quoted: what is no table may be anything, secrets too.
        problem = (
            f"{path}:1  the first line has none of the columns {name_some(required)}: this is "
            "another file, or one without a header; give the right one, or write the header"
        )
        raise DataError([problem])
    problems = [
        f"{path}:1  column {shorten(name)!r} stands twice in the header" for name in doubled
    ]
    found = name_some(named, limit=20) if named else "no names"
    problems += [
        f"{path}:1  no column {name!r} in the header, which has {found}{guess}"
        for name, guess in guesses.items()
    ]
    raise_problems(problems)


def _guess_column(name: str, named: Sequence[str]) -> str:
    for mark, word in (("\t", "tabs"), (";", "semicolons"), ("|", "bars")):
        if len(named) == 1 and mark in named[0]:
            return f"; its columns are separated by {word}: save it with commas"
    by_lower = {other.lower(): other for other in named}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[near[0]]!r}? Rename it to {name!r}" if near else ""

"""The files that a run predicts: the competition's submission, and the dev predictions.

Must not know models or scores; the summaries are given.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from dialsum.data.cleaning import has_no_text
from dialsum.data.rows import Dialogue
from dialsum.data.tables import TableRow, parse_table, split_records
from dialsum.data.tags import SPEAKER, TURN_START, find_tags, has_broken_tag
from dialsum.errors import DataError, RunError, shorten_kind
from dialsum.files import read_text_file, write_csv
from dialsum.text import name_some, shorten

HEADER = ["", "fname", "summary"]
PREDICTION_COLUMNS = ("fname", "summary", "dialogue", "reference")


def write_submission(path: Path, test_rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write the competition's form: an unnamed index from 0, fname, summary, in test order.

    Summaries are composed (NFC) and stand on one line each. Empty ones are written as they are:
    hours of training are not to be lost over one of them, and check_submission names them.

    Raises:
        DiskFullError, RunError: the file cannot be written.
    """
    pairs = enumerate(zip(test_rows, summaries, strict=True))
    rows = ([index, row.fname, one_line(summary)] for index, (row, summary) in pairs)
    write_csv(path, HEADER, rows)


def one_line(summary: str) -> str:
    """Return a summary composed (NFC) and on one line."""
    return " ".join(unicodedata.normalize("NFC", summary).split())


def write_predictions(path: Path, rows: Sequence[Dialogue], summaries: Sequence[str]) -> None:
    """Write predictions, each beside its dialogue and reference, in the order of rows.

    Raises:
        DiskFullError, RunError: the file cannot be written.
    """
    pairs = zip(rows, summaries, strict=True)
    cells = ([row.fname, summary, row.dialogue, row.summary] for row, summary in pairs)
    write_csv(path, PREDICTION_COLUMNS, cells)


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

    Its form has to be right: header, index if any, every id once and in order, no empty summary,
    one line each, composed Unicode.

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
    header, *records = (cells for _, cells in split_records(text, path))
    wrong = [number for number, cells in enumerate(records) if cells[0].strip() != str(number)]
    problems, odd = [], []
    if header[1:] == HEADER[1:] and header[0]:
        odd.append(
            f"the index before fname is called {shorten(header[0])!r}; the sample's has no name"
        )
    if header == HEADER[1:]:
        odd.append(
            "no index stands before fname: such files were handed in, too, but the competition's "
            "sample has one without a name that counts the rows from 0 (pandas writes it unless "
            "told index=False)"
        )
    elif header[1:] != HEADER[1:]:
        problems.append(
            f"{path}:1  the first line is {shorten(','.join(header))!r} and must be "
            "',fname,summary' or 'fname,summary'"
        )
    elif wrong:
        more = f", and {len(wrong) - 1:,} more rows have a wrong one" if len(wrong) > 1 else ""
        problems.append(
            f"{path}: row {wrong[0] + 1} has the index {records[wrong[0]][0]!r} where {wrong[0]} "
            f"belongs{more}"
        )
    problems += _find_wrong_names(table, test_rows, path)
    empty, broken, decomposed = [], [], []
    for row in table:
        summary = row.values["summary"]
        place = f"{path}:{row.line}  row {row.number}: the summary of {row.values['fname']!r}"
        if has_no_text(summary):
            holds = f"holds only {summary!r}, which says nothing" if summary.strip() else "is empty"
            empty.append(f"{place} {holds}")
        if "\n" in summary or "\r" in summary:
            broken.append(f"{place} has a line break")
        if not unicodedata.is_normalized("NFC", summary):
            normalise = "unicodedata.normalize('NFC', text)"
            decomposed.append(f"{place} is not composed; {normalise} composes it")
    problems += [*shorten_kind(empty), *shorten_kind(broken), *shorten_kind(decomposed)]
    dialogues = {row.fname: row.dialogue for row in test_rows}
    summaries = {row.values["fname"]: row.values["summary"] for row in table}
    remarks = remark_on_summaries(summaries, dialogues, known=known)
    return problems, replace(remarks, oddities=[*odd, *remarks.oddities])


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


def _find_wrong_names(
    table: Sequence[TableRow], test_rows: Sequence[Dialogue], path: Path
) -> list[str]:
    """Say which ids lack, stand twice, are another file's, or stand elsewhere."""
    expected = [row.fname for row in test_rows]
    found: dict[str, TableRow] = {}  # each name once, with its first row
    for row in table:
        found.setdefault(row.values["fname"], row)
    problems = []
    if lacking := [name for name in expected if name not in found]:
        count = f"{len(lacking):,} of {len(expected):,} fnames of the test file"
        problems.append(f"{path}: no row for {count}: {name_some(lacking)}")
    problems += shorten_kind(
        [
            f"{path}:{row.line}  row {row.number}: fname {name!r} stands already in an earlier row"
            for row in table
            if found[name := row.values["fname"]] is not row
        ]
    )
    places = set(expected)
    if unknown := [name for name in found if name not in places]:
        first, *more = unknown
        nor = f", nor are {len(more):,} more: {name_some(more)}" if more else ""
        place = f"{path}:{found[first].line}  row {found[first].number}"
        problems.append(f"{place}: fname {first!r} is not in the test file{nor}")
    if problems:
        return problems
    return [
        f"{path}:{row.line}  row {row.number}: fname {row.values['fname']!r} stands where the test "
        f"file has {name!r}; the order must be that of the test file"
        for row, name in zip(table, expected, strict=True)
        if row.values["fname"] != name
    ][:1]


def fill_empty(summaries: Sequence[str], rows: Sequence[Dialogue]) -> tuple[list[str], int]:
    """Put the first utterance where a test summary says nothing: no cell may be empty.

    Returns:
        The summaries, and how many were filled; the record and a warning say that number.
    """
    filled, count = [], 0
    for summary, row in zip(summaries, rows, strict=True):
        if not has_no_text(summary):
            filled.append(summary)
            continue
        count += 1
        lines = row.dialogue.strip().split("\n")
        said = (line.split(":", 1)[-1].strip() or line for line in lines)
        filled.append(next((text for text in said if not has_no_text(text)), lines[0]))
    return filled, count


SPECIAL = re.compile(
    r"</?(?:s|pad|unk|mask|usr|sys|eos|bos|sep|cls|start_of_turn|end_of_turn|unused\d+|extra_id_\d+)>"
    r"|<\|[^|<>]*\|>|\[(?:PAD|SEP|CLS|MASK|UNK|BOS|EOS)\]|\u2581|\ufffd"
)
"""Special tokens of the usual families, a word mark of theirs, and what is left of half a
character."""
INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
SAME = 3
LONG, SHORT = 3.0, 0.25
"""Times the median length beyond which a summary is an outlier."""


@dataclass(frozen=True)
class Remarks:
    """Sentences with the names of the rows.

    Attributes:
        faults: what no summary should hold: special tokens, broken tags.
        oddities: what is worth a look: tags that a dialogue has not, lengths far from the others'.
    """

    faults: list[str]
    oddities: list[str]


def remark_on_summaries(
    summaries: Mapping[str, str], dialogues: Mapping[str, str], *, known: Collection[str] = ()
) -> Remarks:
    """Look for what is wrong or odd.

    Args:
        summaries: name to text.
        dialogues: name to the dialogue that it summarises; tags are looked at only where there is
            one.
        known: tags that train has, in whatever spelling (tags.loose_tags): right in any summary.
    """
    leftover = {
        name: found.group() for name, text in summaries.items() if (found := SPECIAL.search(text))
    }
    pairs = [(name, text, dialogues[name]) for name, text in summaries.items() if name in dialogues]
    strange = {
        name: unknown
        for name, text, source in pairs
        if (unknown := {*find_tags(text)} - {*find_tags(source)})
    }
    tokens = ", ".join(sorted(set(leftover.values())))
    tags = ", ".join(sorted(set().union(*strange.values()))[:5])
    equal = Counter(text.strip() for text in summaries.values())
    usual = median(map(len, summaries.values())) if summaries else 0.0

    def names(is_odd: Callable[[str], object]) -> list[str]:
        return [name for name, text in summaries.items() if is_odd(text)]

    def say_all(found: Mapping[str, Collection[str]]) -> list[str]:
        said = []
        for what, odd in found.items():
            verb, _, rest = what.partition(" ")
            one = f"1 summary {'is' if verb == 'are' else f'{verb}s'} {rest}"
            count = one if len(odd) == 1 else f"{len(odd):,} summaries {what}"
            said += [f"{count}: {name_some(odd)}"] if odd else []
        return said

    return Remarks(
        faults=say_all(
            {
                f"hold special tokens ({tokens})": leftover,
                "hold characters that nobody sees (U+200B, U+FEFF …)": names(INVISIBLE.search),
                "hold a broken tag (#Person1, Person1, a lone #)": [
                    name
                    for name, text, source in pairs
                    if has_broken_tag(text, source=source, known=known)
                ],
            }
        ),
        oddities=say_all(
            {
                f"name tags that their dialogues have not ({tags})": strange,
                "begin as a turn does (#Person1#:)": names(
                    lambda text: (start := TURN_START.match(text)) and SPEAKER.fullmatch(start[1])
                ),
                "are word for word the same as two others or more": names(
                    lambda text: text.strip() and equal[text.strip()] >= SAME
                ),
                f"are over {LONG:g} times as long as the median of {usual:.0f} characters": names(
                    lambda text: len(text) > LONG * usual
                ),
                f"are under {SHORT:g} of the median of {usual:.0f} characters": names(
                    lambda text: len(text) < SHORT * usual
                ),
            }
        ),
    )

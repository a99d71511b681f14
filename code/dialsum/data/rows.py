"""The rows of an experiment: files read, cleaned, checked, and held against each other.

Must not know tokens or models.
"""

from __future__ import annotations

import hashlib
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dialsum.data import aihub
from dialsum.data.checks import MOST_WITHOUT_TEXT, has_no_text
from dialsum.data.cleaning import (
    STEP_MEANINGS,
    clean_dialogue,
    clean_summary,
    has_literal_end,
    writes_literal_ends,
)
from dialsum.data.tables import DATA_ENDINGS, SHOWN_PROBLEMS, TableRow, name_some, read_rows
from dialsum.data.tags import has_tag
from dialsum.errors import DataError
from dialsum.files import read_file_bytes

Kind = Literal["train", "dev", "test"]

REQUIRED_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "train": ("fname", "dialogue", "summary"),
    "dev": ("fname", "dialogue", "summary"),
    "test": ("fname", "dialogue"),
}
UNFIT_DATA = "the data is not fit; nothing was started:"
"""First line of a list of problems. It has no count: one line may stand for many rows."""

OPTIONS: dict[Kind, str] = {"train": "--train-data", "dev": "--val-data", "test": "--test-data"}
"""The option of trainer.py that names each file."""


@dataclass(frozen=True)
class Dialogue:
    """One row.

    Args:
        fname: the row's name, as it stands in the file.
        dialogue: cleaned; one turn a line.
        summary: cleaned; None in a test split.
        topic: as it stands in the file; None where there is none.
        row: 1-based data row of its file.
        line: 1-based line of its file on which the row starts; 0 where it comes from no file.
    """

    fname: str
    dialogue: str
    summary: str | None
    topic: str | None
    row: int
    line: int = 0


@dataclass(frozen=True)
class Split:
    """The rows of one file.

    Args:
        kind: what they are for.
        path: where they were read.
        rows: in the file's order, the first max_rows of them.
        sha256: of the file's bytes, hexadecimal.
        notes: sentences for the user: what was cleaned, what looks odd, what is not used.
    """

    kind: Kind
    path: Path
    rows: list[Dialogue]
    sha256: str
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)


def say_row(row: Dialogue) -> str:
    """Name a row within its file: row, line and fname."""
    return f"row {row.row} (line {row.line}, fname {row.fname!r})"


def name_rows(rows: Sequence[Dialogue]) -> list[str]:
    """Return each row's fname; where several train rows have one, with the row's place."""
    counts = Counter(row.fname for row in rows)
    return [row.fname if counts[row.fname] == 1 else f"{row.fname} (row {row.row})" for row in rows]


def say_first(places: Sequence[str], *, limit: int) -> str:
    """List the first places, and how many more there are: `row 3 (…), row 9 (…) and 4 more`."""
    rest = len(places) - limit
    return ", ".join(places[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


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


SHOWN_ODDITIES = 3


def leave_out_empty(rows: Sequence[Dialogue], path: Path) -> tuple[list[Dialogue], list[str]]:
    """Leave out train rows without a dialogue or a summary, where they are few enough.

    Returns:
        The other rows, and a sentence on those left out; all rows where there are more than
        MOST_WITHOUT_TEXT, which find_problems then refuses.
    """
    empty = [row for row in rows if _lacks_text(row)]
    if not empty or len(empty) > MOST_WITHOUT_TEXT * len(rows):
        return list(rows), []
    places = [
        f"{say_row(row)}: {(row.summary if has_no_text(row.summary or '') else row.dialogue)!r:.30}"
        for row in empty
    ]
    note = (
        f"{path}: {len(empty):,} of {len(rows):,} rows are left out, as their dialogue or summary "
        f"is empty or says nothing: {say_first(places, limit=SHOWN_ODDITIES)}"
    )
    return [row for row in rows if not _lacks_text(row)], [note]


def _lacks_text(row: Dialogue) -> bool:
    return has_no_text(row.dialogue) or (row.summary is not None and has_no_text(row.summary))


def find_problems(
    rows: Sequence[Dialogue], table: Sequence[TableRow], *, kind: Kind, path: Path
) -> list[str]:
    """Return every reason to refuse the file, each kind with its first rows and their count.

    Args:
        rows: as cleaned; some may be left out.
        table: all rows as they stand in the file.
        kind: a train row's name decides nothing, so that several may have one.
    """
    pairs = [(row, table[row.row - 1]) for row in rows]
    kinds = [
        [_say_empty(row, "fname", "", path) for row in rows if not row.fname.strip()],
        [
            _say_empty(row, "dialogue", cells.values["dialogue"], path)
            for row, cells in pairs
            if has_no_text(row.dialogue)
        ],
        [
            _say_empty(row, "summary", cells.values["summary"], path)
            for row, cells in pairs
            if row.summary is not None and has_no_text(row.summary)
        ],
        _find_doubled_names(rows, path) if kind != "train" else [],
    ]
    return [problem for found in kinds for problem in _shorten_kind(found, path)]


def note_oddities(rows: Sequence[Dialogue], path: Path) -> list[str]:
    """Say what is no reason to refuse a file but may be a mistake, one sentence a kind."""
    first: dict[str, Dialogue] = {}
    doubled = [
        f"{say_row(row)} = row {earlier.row}"
        for row in rows
        if (earlier := first.setdefault(row.dialogue, row)) is not row
    ]
    untagged = [say_row(row) for row in rows if not has_tag(row.dialogue)]
    literal = [
        say_row(row)
        for row in rows
        if has_literal_end(row.dialogue) or has_literal_end(row.summary or "")
    ]
    names: dict[str, Dialogue] = {}
    renamed = [
        f"{say_row(row)} = row {earlier.row}"
        for row in rows
        if (earlier := names.setdefault(row.fname, row)) is not row
    ]
    damaged = [say_row(row) for row in rows if "\ufffd" in row.dialogue + (row.summary or "")]
    sentences: list[tuple[list[str], Callable[[str], str]]] = [
        (doubled, lambda some: f"repeat the dialogue of an earlier row: {some}"),
        (untagged, lambda some: f"have no speaker tag (#Person1#: …) in the dialogue: {some}"),
        (
            renamed,
            lambda some: (
                f"repeat the fname of an earlier row, which decides nothing in "
                f"train (augmented data has such rows): {some}"
            ),
        ),
        (
            literal,
            lambda some: (
                "hold \\n or \\r as text, kept so: it is a line break only where a "
                f"turn's start follows one, or in a file that writes its line breaks so: {some}"
            ),
        ),
        (damaged, lambda some: f"hold U+FFFD, characters lost in an earlier conversion: {some}"),
    ]
    return [
        f"{path}: {len(found):,} of {len(rows):,} rows "
        + say(say_first(found, limit=SHOWN_ODDITIES))
        for found, say in sentences
        if found
    ]


def _say_empty(row: Dialogue, column: str, cell: str, path: Path) -> str:
    name = f", fname {row.fname!r}" if column != "fname" else ""
    shown = cell if len(cell) <= 30 else cell[:29] + "…"
    found = f"holds only {shown!r}, which says nothing" if cell else "is empty"
    return f"{path}:{row.line}  row {row.row}{name}: {column} {found}; fill it or take the row out"


def _find_doubled_names(rows: Iterable[Dialogue], path: Path) -> list[str]:
    first: dict[str, Dialogue] = {}
    problems = []
    for row in rows:
        if not row.fname.strip():
            continue
        earlier = first.setdefault(row.fname, row)
        if earlier is not row:
            problems.append(
                f"{path}:{row.line}  row {row.row}: fname {row.fname!r} is that of "
                f"row {earlier.row} (line {earlier.line}) already; every row needs its own"
            )
    return problems


def _shorten_kind(problems: Sequence[str], path: Path) -> list[str]:
    rest = len(problems) - SHOWN_PROBLEMS
    more = [f"{path}: … and {rest:,} more rows like these"] if rest > 0 else []
    return [*problems[:SHOWN_PROBLEMS], *more]


@dataclass(frozen=True)
class Splits:
    """The data of one experiment.

    Args:
        train, dev, test: the three files; test is None where nothing is to be predicted.
        notes: what the user should know of them, of each file and of the files together.
    """

    train: Split
    dev: Split
    test: Split | None
    notes: list[str]

    @property
    def present(self) -> list[Split]:
        """The splits that there are."""
        return [split for split in (self.train, self.dev, self.test) if split is not None]

    @property
    def sha256(self) -> dict[str, str]:
        """Hash of what the rows of each file say."""
        return {split.kind: split.sha256 for split in self.present}


def load_splits(
    train: Path,
    dev: Path,
    *,
    test: Path | None,
    max_train_rows: int | None = None,
    max_dev_rows: int | None = None,
    max_test_rows: int | None = None,
) -> Splits:
    """Read, clean and check the files of one experiment.

    Args:
        test: None where no submission is wanted.
        max_train_rows, max_dev_rows, max_test_rows: keep the first rows only.

    Raises:
        DataError: every problem of every file; if each is fit by itself, those between them.
    """
    asked: list[tuple[Kind, Path, int | None]] = [
        ("train", train, max_train_rows),
        ("dev", dev, max_dev_rows),
    ]
    if test is not None:
        asked.append(("test", test, max_test_rows))
    read: dict[Kind, Split] = {}
    problems: list[str] = []
    for kind, path, max_rows in asked:
        try:
            read[kind] = load_split(path, kind=kind, max_rows=max_rows)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems, summary=UNFIT_DATA)
    between = check_splits(read["train"], read["dev"], read.get("test"))
    notes = [note for split in read.values() for note in split.notes]
    return Splits(read["train"], read["dev"], read.get("test"), notes=[*notes, *between])


SHOWN_PAIRS = (
    5  # rows of two files that say the same: a few to look at, then the file's source is mended
)


def check_splits(train: Split, dev: Split, test: Split | None) -> list[str]:
    """Refuse dev rows that stand in train; return notes on test rows that stand in train or dev.

    Two dialogues are the same when they differ in spaces, case and width of characters only. A
    repeated test dialogue is nobody's score here, so it is said and no more.

    Raises:
        DataError: the first such rows of both files, and how to mend it.
    """
    if train.sha256 == dev.sha256:
        raise DataError(
            [
                f"{dev.path}: holds the same bytes as {train.path}; a score on rows that "
                f"were trained on says nothing; give other rows with {OPTIONS['dev']} FILE"
            ]
        )
    in_train = _first_by_text(train)
    pairs = _find_pairs(dev, in_train)
    if pairs:
        raise DataError(
            [
                f"{dev.path}: {len(pairs):,} of {len(dev):,} dialogues stand in {train.path} too: "
                f"{_say_pairs(pairs)}; a score on rows that were trained on says nothing; "
                f"take them out of {train.path}, or choose other dev rows with "
                f"{OPTIONS['dev']} FILE"
            ]
        )
    if test is None:
        return []
    return [*_note_pairs(test, in_train, train), *_note_pairs(test, _first_by_text(dev), dev)]


def _note_pairs(test: Split, known: dict[str, Dialogue], other: Split) -> list[str]:
    pairs = _find_pairs(test, known)
    if not pairs:
        return []
    return [
        f"{test.path}: {len(pairs):,} of {len(test):,} dialogues stand in {other.path} too: "
        f"{_say_pairs(pairs)}; their summaries will look better than the model is"
    ]


def _say_pairs(pairs: list[tuple[Dialogue, Dialogue]]) -> str:
    return say_first(
        [f"{say_row(row)} = {say_row(twin)} there" for row, twin in pairs], limit=SHOWN_PAIRS
    )


def _find_pairs(split: Split, known: dict[str, Dialogue]) -> list[tuple[Dialogue, Dialogue]]:
    return [
        (row, twin)
        for row in split.rows
        if (twin := known.get(_normalise(row.dialogue))) is not None
    ]


def _first_by_text(split: Split) -> dict[str, Dialogue]:
    first: dict[str, Dialogue] = {}
    for row in split.rows:
        first.setdefault(_normalise(row.dialogue), row)
    return first


def _normalise(dialogue: str) -> str:
    # Cleaned text has no other white space.
    bare = unicodedata.normalize("NFKC", dialogue).replace(" ", "").replace("\n", "")
    return bare.casefold()

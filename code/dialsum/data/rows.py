"""The rows of an experiment: files read, cleaned, checked, and held against each other.

Must not know tokens or models.
"""

from __future__ import annotations

import hashlib
import random
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dialsum.config.schema import Columns, Data
from dialsum.data.cleaning import (
    MOST_WITHOUT_TEXT,
    STEP_MEANINGS,
    clean_dialogue,
    clean_summary,
    has_literal_end,
    has_no_text,
    writes_literal_ends,
)
from dialsum.data.tables import AIHUB_COMMAND, DATA_ENDINGS, TableRow, hint_at_names, read_rows
from dialsum.data.tags import has_tag
from dialsum.errors import DataError, UnfitError, shorten_kind
from dialsum.files import read_file_bytes
from dialsum.paths import project_path
from dialsum.text import name_some, say_first, shorten

Kind = Literal["train", "dev", "test"]

REQUIRED_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "train": ("fname", "dialogue", "summary"),
    "dev": ("fname", "dialogue", "summary"),
    "test": ("fname", "dialogue"),
}
ABOUT = ("topic", "subject_keyword")
"""Columns that say what a dialogue is about; they may be absent."""
UNFIT_DATA = "the data is not fit; nothing was started:"
"""First line of a list of problems. It has no count: one line may stand for many rows."""

"""The option of trainer.py that names each file."""

SHOWN_ODDITIES = 3
SHOWN_PAIRS = 5  # rows of two files that say the same: then the file's source is mended


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
        subject_keyword: the first entry of its column; None where there is none.
    """

    fname: str
    dialogue: str
    summary: str | None
    topic: str | None
    row: int
    line: int = 0
    subject_keyword: str | None = None


@dataclass(frozen=True)
class Split:
    """The rows of one file, or a part of them.

    Args:
        kind: what they are for.
        path: where they were read.
        rows: in the file's order, the first max_rows of them.
        sha256: of the file's bytes, hexadecimal; of a part, with what it was drawn by.
        notes: sentences for the user: what was cleaned, what looks odd, what is not used.
    """

    kind: Kind
    path: Path
    rows: list[Dialogue]
    sha256: str
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def summaries(self) -> list[str]:
        """The summary of each row; empty ones in a test split."""
        return [row.summary or "" for row in self.rows]

    def take(self, rows: int | None, *, longest: bool = False) -> Split:
        """Return the first rows or those of the longest dialogues, in the file's order, and say so;
        all where none are asked for."""
        if rows is None or rows >= len(self):
            return self
        places: Iterable[int] = range(len(self))
        if longest:
            places = sorted(places, key=lambda at: -len(self.rows[at].dialogue))
        kept = [self.rows[at] for at in sorted([*places][:rows])]
        which = "longest" if longest else "first"
        note = f"{self.path}: the {which} {rows:,} of {len(self):,} rows are used, as asked"
        return replace(self, rows=kept, notes=[*self.notes, note])


@dataclass(frozen=True)
class Splits:
    """The data of one experiment.

    Args:
        test: None where nothing is to be predicted.
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
        """Hash of what the rows of each split say."""
        return {split.kind: split.sha256 for split in self.present}


def say_row(row: Dialogue) -> str:
    """Name a row within its file: row, line and fname."""
    return f"row {row.row} (line {row.line}, fname {row.fname!r})"


def name_rows(rows: Sequence[Dialogue]) -> list[str]:
    """Return each row's fname; where several train rows have one, with the row's place."""
    counts = Counter(row.fname for row in rows)
    return [row.fname if counts[row.fname] == 1 else f"{row.fname} (row {row.row})" for row in rows]


def name_data(asked: Data, *, seed: int) -> str:
    """Name what read_data reads: where a share of the training rows is held out, the seed chooses
    it."""
    return f"{asked.model_dump_json()} {seed if asked.dev_share else ''}"


def read_data(asked: Data, *, seed: int, overlapping: bool = False) -> Splits:
    """Read and check the files that a config's data section names (errors as load_splits).

    Args:
        overlapping: as of load_splits.
    """
    folder = project_path(asked.data_dir)
    dev, test = (folder / name if name else None for name in (asked.dev_file, asked.test_file))
    return load_splits(
        folder / asked.train_file, dev, test=test, asked=asked, seed=seed, overlapping=overlapping
    )


def load_splits(
    train: Path,
    dev: Path | None,
    *,
    test: Path | None,
    asked: Data | None = None,
    seed: int = 0,
    overlapping: bool = False,
) -> Splits:
    """Read, clean and check the files of one experiment.

    Args:
        dev: None where dev rows are drawn from the train file's.
        test: None where no submission is wanted.
        asked: the names of columns, the most rows of each split, the share of the drawn dev rows.
        seed: of the drawing.
        overlapping: what is wrong between the files is passed over; never to train on.

    Raises:
        DataError: every problem of every file; if each is fit by itself, those between them.
    """
    asked = asked or Data()
    read: dict[Kind, Split] = {}
    problems: list[str] = []
    paths: dict[Kind, Path | None] = {"train": train, "dev": dev, "test": test}
    for kind, path in paths.items():
        try:
            if path is not None:
                read[kind] = load_split(path, kind=kind, columns=asked.columns)
            elif kind == "dev" and "train" in read:
                share = asked.dev_share or 0.0
                read["train"], read["dev"] = _draw_dev(read["train"], share, seed)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems, summary=UNFIT_DATA)
    longest = asked.max_rows_are == "longest"
    read = {
        kind: split.take(getattr(asked, f"max_{kind}_rows"), longest=longest)
        for kind, split in read.items()
    }
    between = [] if overlapping else check_splits(read["train"], read["dev"], read.get("test"))
    notes = [note for split in read.values() for note in split.notes]
    return Splits(read["train"], read["dev"], read.get("test"), notes=[*notes, *between])


def read_columns(text: str) -> dict[str, str]:
    """Read `fname=id,summary=target` as data.columns: our names to the files' own, where others.

    Raises:
        UnfitError: it is no such list.
    """
    if not text:
        return {}
    usual = Columns().model_dump()
    named = [pair.partition("=")[::2] for pair in text.split(",")]
    columns = {ours.strip(): own.strip() for ours, own in named}
    if not (columns.keys() <= usual.keys() and all(columns.values())):
        raise UnfitError(
            f"--columns {text!r}: write {', '.join(f'{ours}=NAME' for ours in usual)}, or some of "
            "these"
        )
    if len(columns) < len(named) or len(set((usual | columns).values())) < len(usual):
        raise UnfitError(f"--columns {text!r} names one column twice")
    return {ours: own for ours, own in columns.items() if own != usual[ours]}


def load_split(
    path: Path, *, kind: Kind, columns: Columns | None = None, option: str = "--set data.columns."
) -> Split:
    """Read, clean and check one file.

    Args:
        path: CSV or JSON Lines with the columns of REQUIRED_COLUMNS; those of ABOUT are kept,
            others are noted and left.
        kind: a test split has no summaries; such a column is left, too.
        columns: the file's own names of these columns.
        option: by which a user gives these, up to the column.

    Raises:
        DataError: every problem of the file, each kind with its first rows and their count.
    """
    _check_place(path, kind, option)
    content = read_file_bytes(path)
    table, unused = _read_columns(path, content, kind, columns or Columns(), option)
    rows, changed = _clean_rows(table, kind, path)
    empty = [
        (row, column)
        for column in ("dialogue", "summary")
        for row in rows
        if (text := getattr(row, column)) is not None and has_no_text(text)
    ]
    left_out: list[str] = []
    lacking = {row.row: f"{say_row(row)}: {getattr(row, column)!r:.30}" for row, column in empty}
    if kind == "train" and 0 < len(lacking) <= MOST_WITHOUT_TEXT * len(rows):
        left_out = [
            f"{path}: {len(lacking):,} of {len(rows):,} rows are left out, as their dialogue or "
            "summary is empty or says nothing: "
            + say_first([lacking[row] for row in sorted(lacking)], limit=SHOWN_ODDITIES)
        ]
        rows, empty = [row for row in rows if row.row not in lacking], []

    def say_empty(row: Dialogue, column: str) -> str:
        name = f", fname {row.fname!r}" if column != "fname" else ""
        cell = table[row.row - 1].values[column] if column != "fname" else ""
        found = (
            f"holds only {shorten(cell, limit=30)!r}, which says nothing" if cell else "is empty"
        )
        place = f"{path}:{row.line}  row {row.row}{name}"
        return f"{place}: {column} {found}; fill it or take the row out"

    kinds = [
        [say_empty(row, "fname") for row in rows if not row.fname.strip()],
        *([say_empty(*one) for one in empty if one[1] == name] for name in ("dialogue", "summary")),
        [
            f"{path}:{row.line}  row {row.row}: fname {row.fname!r} is that of row {earlier.row} "
            f"(line {earlier.line}) already; every row needs its own"
            for row, earlier in _find_repeated(rows, "fname")
            if kind != "train" and row.fname.strip()  # a train row's name decides nothing
        ],
    ]
    if problems := [problem for found in kinds for problem in shorten_kind(found)]:
        raise DataError(problems, summary=UNFIT_DATA)
    notes = [*left_out, *changed, *_note_oddities(rows, path), *unused]
    return Split(kind, path, rows, sha256=hashlib.sha256(content).hexdigest(), notes=notes)


def _read_columns(
    path: Path, content: bytes, kind: Kind, columns: Columns, option: str
) -> tuple[list[TableRow], list[str]]:
    """Return a table under our names of its columns, and a note on those that are not used."""
    usual = Columns().model_dump()
    names: dict[str, str] = {
        ours: own
        for ours, own in columns.model_dump().items()
        if ours in REQUIRED_COLUMNS[kind] or ours in ABOUT
    }
    required = [own for ours, own in names.items() if ours not in ABOUT]
    if kind != "test":
        required += [names[ours] for ours in ABOUT if names[ours] != usual[ours]]
    others = {ours: own for ours, own in names.items() if own != usual[ours]}
    with hint_at_names(others, option=option, example="{lacking}=NAME"):
        table = read_rows(path, required=required, content=content)
    unused = [name for name in table[0].values if name not in names.values()]
    note = f"{path}: column{'s' if len(unused) > 1 else ''} {name_some(unused)} not used"
    renamed = [
        replace(row, values={o: row.values[own] for o, own in names.items() if own in row.values})
        for row in table
    ]
    return renamed, [note] if unused else []


def _draw_dev(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Draw dev rows from train rows; rows of one dialogue stay together.

    A name that several rows have marks variants of one row, which must not be parted: those rows
    stay in train. Dev rows need names of their own, too.
    """
    names = Counter(row.fname for row in train.rows)
    dialogues: dict[str, list[Dialogue]] = {}
    for row in train.rows:
        dialogues.setdefault(_normalise(row.dialogue), []).append(row)
    free = [rows for rows in dialogues.values() if all(names[row.fname] == 1 for row in rows)]
    random.Random(seed).shuffle(free)
    wanted = max(1, round(share * len(train)))
    drawn: set[int] = set()
    for rows in free:
        if len(drawn) < wanted:
            drawn.update(row.row for row in rows)
    if len(drawn) < wanted or len(drawn) == len(train):
        raise DataError(
            [
                f"{train.path}: data.dev_share {share:g} asks for {wanted:,} of {len(train):,} rows"
                f" as dev rows, but {sum(map(len, free)):,} can be drawn (dialogues of which each "
                "row has an fname of its own), and some must stay to train on; give a dev file "
                "with data.dev_file"
            ]
        )

    def part(kind: Kind) -> Split:
        rows = [row for row in train.rows if (row.row in drawn) == (kind == "dev")]
        digest = hashlib.sha256(f"{train.sha256} {kind} {share} {seed}".encode()).hexdigest()
        return replace(train, kind=kind, rows=rows, sha256=digest, notes=[])

    note = (
        f"{train.path}: {len(drawn):,} of {len(train):,} rows are dev rows (data.dev_share "
        f"{share:g}), drawn by dialogue with training.seed {seed}"
    )
    return replace(part("train"), notes=[*train.notes, note]), part("dev")


def _check_place(path: Path, kind: Kind, option: str) -> None:
    """Refuse what is no file, naming the data files there; permissions are the reader's."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return
        problem = f"is a folder, not a data file; it holds {_name_tables(path)}"
    except (FileNotFoundError, NotADirectoryError):
        problem = f"no such file; nor a folder {path.parent}"
        if path.parent.is_dir():
            problem = f"no such file; the folder holds {_name_tables(path.parent)}"
    except OSError:
        return
    way_out = f"give another place with --set data.data_dir=DIR or --set data.{kind}_file=FILE"
    if kind == "test":
        way_out += ", or do without a submission: --set data.test_file=null"
    if kind == "dev":
        way_out += ", or hold out train rows: --set data.dev_file=null --set data.dev_share=0.05"
    # Where files are named on the command line, so are others.
    raise DataError([f"{path}: {problem}" + f"; {way_out}" * option.startswith("--set ")])


def _name_tables(folder: Path) -> str:
    try:
        files = sorted(other.name for other in folder.iterdir())
    except OSError as error:
        return f"files that cannot be listed ({error.strerror or error})"
    names = [name for name in files if name.lower().endswith(DATA_ENDINGS)]
    if names:
        return say_first(names, limit=8)
    json = any(name.lower().endswith(".json") for name in files)
    hint = f" (dialogues of AI-Hub, .json: {AIHUB_COMMAND} '{folder}' --output NAME.csv)"
    return "no CSV or JSON Lines file" + (hint if json else "")


def _clean_rows(
    table: Sequence[TableRow], kind: Kind, path: Path
) -> tuple[list[Dialogue], list[str]]:
    """Return the rows, and how many cells of each column each cleaning step changed."""
    rows: list[Dialogue] = []
    changes: Counter[tuple[str, str]] = Counter()
    literal = writes_literal_ends(row.values["dialogue"] for row in table)
    for row in table:
        dialogue, steps = clean_dialogue(row.values["dialogue"], literal_ends=literal)
        changes.update((step, "dialogue") for step in steps)
        summary: str | None = None
        if kind != "test":
            summary, steps = clean_summary(row.values["summary"], literal_ends=literal)
            changes.update((step, "summary") for step in steps)
        topic = row.values.get("topic", "")
        topic_or_none = None if has_no_text(topic) else topic
        name, keywords = row.values["fname"], row.values.get("subject_keyword", "")
        first = keywords.strip("[] ").split(",")[0].strip("'\" ")
        keyword = None if has_no_text(first) else first
        rows.append(Dialogue(name, dialogue, summary, topic_or_none, row.number, row.line, keyword))
    return rows, [
        f"{path}: {column} of {changes[step, column]:,} of {len(rows):,} rows: {meaning}"
        for step, meaning in STEP_MEANINGS.items()
        for column in ("dialogue", "summary")
        if changes[step, column]
    ]


def _note_oddities(rows: Sequence[Dialogue], path: Path) -> list[str]:
    """Say what is no reason to refuse a file but may be a mistake, one sentence a kind."""

    def say_repeated(column: str) -> list[str]:
        found = _find_repeated(rows, column)
        return [f"{say_row(row)} = row {earlier.row}" for row, earlier in found]

    found: dict[str, list[str]] = {
        "repeat the dialogue of an earlier row: ": say_repeated("dialogue"),
        "have no speaker tag (#Person1#: …) in the dialogue: ": [
            say_row(row) for row in rows if not has_tag(row.dialogue)
        ],
        "repeat the fname of an earlier row, which decides nothing in train (augmented data has "
        "such rows): ": say_repeated("fname"),
        "hold \\n or \\r as text, kept so: it is a line break only where a turn's start follows "
        "one, or in a file that writes its line breaks so: ": [
            say_row(row)
            for row in rows
            if has_literal_end(row.dialogue) or has_literal_end(row.summary or "")
        ],
        "hold U+FFFD, characters lost in an earlier conversion: ": [
            say_row(row) for row in rows if "\ufffd" in row.dialogue + (row.summary or "")
        ],
    }
    return [
        f"{path}: {len(places):,} of {len(rows):,} rows {what}"
        + say_first(places, limit=SHOWN_ODDITIES)
        for what, places in found.items()
        if places
    ]


def _find_repeated(rows: Sequence[Dialogue], column: str) -> list[tuple[Dialogue, Dialogue]]:
    """Return the rows of which an earlier one holds the same, with the first of these."""
    first: dict[str, Dialogue] = {}
    pairs = [(row, first.setdefault(getattr(row, column), row)) for row in rows]
    return [(row, earlier) for row, earlier in pairs if row is not earlier]


def check_splits(train: Split, dev: Split, test: Split | None) -> list[str]:
    """Refuse dev rows that stand in train; return notes on test rows that stand in train or dev.

    Two dialogues are the same when they differ in spaces, case and width of characters only. A
    repeated test dialogue is nobody's score here, so it is said and no more.

    Raises:
        DataError: the first such rows of both files, and how to mend it.
    """
    splits = [train, dev, *([test] if test else [])]
    texts = {split.kind: [_normalise(row.dialogue) for row in split.rows] for split in splits}

    def say_shared(split: Split, other: Split) -> str:
        """Name the rows whose dialogues stand in another split, too, if any do."""
        known = dict(zip(reversed(texts[other.kind]), reversed(other.rows), strict=True))
        pairs = [
            f"{say_row(row)} = {say_row(known[text])} there"
            for row, text in zip(split.rows, texts[split.kind], strict=True)
            if text in known
        ]
        count = f"{len(pairs):,} of {len(split):,} dialogues stand in {other.path} too: "
        return f"{split.path}: {count}{say_first(pairs, limit=SHOWN_PAIRS)}" if pairs else ""

    if shared := say_shared(dev, train):
        raise DataError(
            [
                f"{shared}; a score on rows that were trained on says nothing; take them out of "
                f"{train.path}, or choose other dev rows with --set data.dev_file=FILE"
            ]
        )
    found = [] if test is None else [say_shared(test, train), say_shared(test, dev)]
    return [
        f"{shared}; their summaries will look better than the model is"
        for shared in found
        if shared
    ]


def _normalise(dialogue: str) -> str:
    # Cleaned text has no other white space.
    bare = unicodedata.normalize("NFKC", dialogue).replace(" ", "").replace("\n", "")
    return bare.casefold()

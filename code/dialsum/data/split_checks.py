"""What the files of one experiment may not share.

Must not know how rows are read, nor what one file may hold (row_checks.py).
"""

from __future__ import annotations

import unicodedata

from dialsum.data.rows import OPTIONS, Dialogue, Split, say_first, say_row
from dialsum.errors import DataError

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

"""Rows that are nearly those of another split: copies with a name or a few words changed.

A dev score on such rows says how well a model remembers. Must not decide what follows from it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dialsum.data.rows import Dialogue, Split, Splits, say_row
from dialsum.data.tags import without_tags
from dialsum.text import say_first

SHINGLE = 12
"""Characters of one piece; speaker tags, spaces and marks are left out before."""
NEAR_SHARE = 0.8
"""Share of a dialogue's pieces that another holds, from which the two count as nearly the same."""
SHOWN_PAIRS = 3


@dataclass(frozen=True)
class NearPair:
    """A row, and the row of another split that is nearly the same; share: of its pieces, 0-1."""

    row: Dialogue
    other: Dialogue
    share: float


def find_near_pairs(split: Split, other: Split) -> list[NearPair]:
    """Return the rows of a split that are nearly rows of another one, the nearest of each.

    The measure is containment (Broder 1997): which share of a dialogue's shingles the other has.
    Each shingle of the smaller split is looked up once, so that 12,457 rows take seconds.
    """
    places: dict[int, list[int]] = {}
    sizes = []
    for at, row in enumerate(split.rows):
        shingles = _shingles(row.dialogue)
        sizes.append(len(shingles))
        for one in shingles:
            places.setdefault(one, []).append(at)
    best: dict[int, tuple[float, Dialogue]] = {}
    for row in other.rows:
        shared = Counter(at for one in _shingles(row.dialogue) for at in places.get(one, ()))
        for at, count in shared.items():
            share = count / sizes[at]
            if share >= NEAR_SHARE and share > best.get(at, (0.0, row))[0]:
                best[at] = share, row
    return [NearPair(split.rows[at], row, share) for at, (share, row) in sorted(best.items())]


def describe_leakage(splits: Splits) -> list[str]:
    """Return a sentence for each two splits that share rows which are nearly the same."""
    train, dev, test = splits.train, splits.dev, splits.test
    said = []
    pairs: Sequence[tuple[Split | None, Split]] = ((dev, train), (test, train), (test, dev))
    for split, other in pairs:
        if split is None or not (found := find_near_pairs(split, other)):
            continue
        shown = [f"{say_row(one.row)} ~ {say_row(one.other)} ({one.share:.0%})" for one in found]
        said.append(
            f"{split.path}: {len(found):,} of {len(split):,} dialogues are nearly dialogues of "
            f"{other.path}: {say_first(shown, limit=SHOWN_PAIRS)}; scores on them say how well a "
            "model remembers"
        )
    return said


def _shingles(dialogue: str) -> set[int]:
    text = unicodedata.normalize("NFKC", without_tags(dialogue)).casefold()
    bare = "".join(char for char in text if char.isalnum())
    return {hash(bare[at : at + SHINGLE]) for at in range(max(1, len(bare) - SHINGLE + 1))}

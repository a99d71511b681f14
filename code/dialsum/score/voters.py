"""Many texts scored against the same few, all at once.

Must not know what the texts are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialsum.score.rouge import TOKEN_BITS, read_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Numbered = tuple[NDArray[np.int64], NDArray[np.uint64]]
    """Rows, and grams with their occurrence."""

OCCURRENCE_BITS = 20


class Voters:
    """Texts that candidates are scored against.

    ROUGE clips the count of a token to the smaller one, which is the number of (token, how many of
    it came before) pairs that both texts have.

    Args:
        texts: tokens of each (see PreparedText).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        self._texts = list(texts)
        self._lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        self._sides = [_Occurrences(grams, rows=len(texts)) for grams in _count_grams(texts)]

    def rate(self, texts: Sequence[str], *, own_places: bool = False) -> NDArray[np.float64]:
        """Return each text's mean over the voters of ROUGE-1, -2 and -L F1, as a fraction.

        Args:
            own_places: the first texts are the voters themselves, which do not vote for themselves.
        """
        import numpy as np
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist

        lcs = cdist(list(texts), self._texts, scorer=LCSseq.similarity, dtype=np.int32)
        without, sums = self._grams_f1(texts)
        f1 = (without + 2 * lcs / sums) / 3
        votes = np.full(len(texts), float(len(self._texts)))
        if own_places:
            own = np.arange(min(len(texts), len(self._texts)))
            f1[own, own] = 0.0
            votes[own] -= 1
        means: NDArray[np.float64] = f1.sum(axis=1) / np.maximum(votes, 1)
        return means

    def promising(self, texts: Sequence[str], *, count: int) -> list[int]:
        """Return the places of the texts with the best ROUGE-1 and -2, best first."""
        import numpy as np

        rates = self._grams_f1(texts)[0].sum(axis=1)
        return [int(place) for place in np.argsort(-rates, kind="stable")[:count]]

    def _grams_f1(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sum of ROUGE-1 and -2 F1, and both texts' tokens together: [texts, voters]."""
        import numpy as np

        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        sums = np.maximum(lengths[:, None] + self._lengths, 1)
        pairs = np.maximum(lengths - 1, 0)[:, None] + np.maximum(self._lengths - 1, 0)
        ones, twos = (
            side.overlaps(grams, rows=len(texts))
            for side, grams in zip(self._sides, _count_grams(texts), strict=True)
        )
        return 2.0 * ones / sums + 2.0 * twos / np.maximum(pairs, 1), sums


class _Occurrences:
    """Which of some multisets have a gram, occurrence by occurrence.

    Sums of their few rows, not a product of matrices: BLAS waits for its threads longer than these
    sums take.
    """

    def __init__(self, grams: _Numbered, *, rows: int) -> None:
        import numpy as np

        row, key = grams
        self._known, place = np.unique(key, return_inverse=True)
        self._has = np.zeros((len(self._known) + 1, rows), dtype=np.float32)
        self._has[place, row] = 1

    def overlaps(self, grams: _Numbered, *, rows: int) -> NDArray[np.float32]:
        """Return how much each multiset shares with each of these: [multisets, these]."""
        import numpy as np

        row, key = grams
        found = np.zeros((rows, self._has.shape[1]), dtype=np.float32)
        if not len(key):
            return found
        place = np.searchsorted(self._known, key)
        # The row after the last gram is empty: of grams that none of these has.
        known = place < len(self._known)
        known[known] = self._known[place[known]] == key[known]
        present, starts = np.unique(row, return_index=True)
        found[present] = np.add.reduceat(
            self._has[np.where(known, place, len(self._known))], starts, axis=0
        )
        return found


def _count_grams(texts: Sequence[str]) -> tuple[_Numbered, _Numbered]:
    """Return the tokens of all texts and their pairs, each with its row and its occurrence."""
    import numpy as np

    ids, rows = read_ids(texts)
    inside = rows[1:] == rows[:-1]
    pairs = (ids[:-1] << np.uint64(TOKEN_BITS)) | ids[1:]
    return _number(rows, ids), _number(rows[1:][inside], pairs[inside])


def _number(rows: NDArray[np.uint64], grams: NDArray[np.uint64]) -> _Numbered:
    """Tell equal grams of a row apart by how many came before."""
    import numpy as np

    order = np.lexsort((grams, rows))
    rows, grams = rows[order], grams[order]
    begins = np.ones(len(grams), dtype=bool)
    begins[1:] = (rows[1:] != rows[:-1]) | (grams[1:] != grams[:-1])
    places = np.arange(len(grams))
    before = places - np.maximum.accumulate(np.where(begins, places, 0))
    keys = (grams << np.uint64(OCCURRENCE_BITS)) | before.astype(np.uint64)
    return rows.astype(np.int64), keys

"""The strongest single sentence for all rows that a search on the train summaries finds.

A floor is only honest when it is hard to beat. Must not see the references that are reported on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dialsum.errors import DataError
from dialsum.score.rouge import PreparedText, TextPreparer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES = 600
"""Train summaries that stand for election, drawn by seed."""
VOTERS = 150
"""Train summaries that each candidate is scored against."""
STARTS = 2
"""The best candidates, which are then changed word by word."""
WORDS = 16
"""The most frequent words of the train summaries, and as many tokens, that a change may put in."""
MOST_CHANGES = 40
LEAST_GAIN = 1e-6


def choose_constant(
    train_summaries: Sequence[str], preparer: TextPreparer, *, seed: int = 0
) -> str:
    """Choose the one text that does best as a summary of everything, on this scale.

    The candidates with the best mean against the voters (themselves not counted) go on to a second
    step: a word is taken out, put in or exchanged, the best change of all first, as long as one
    raises the mean.

    Raises:
        DataError: no summary, or none that is not blank.
    """
    texts = sorted({summary.strip() for summary in train_summaries} - {""})
    if not texts:
        problem = f"none of {len(train_summaries)} train summaries has text"
        raise DataError([f"{problem}; the constant floor needs one"])
    sample = random.Random(seed).sample(texts, min(CANDIDATES, len(texts)))
    prepared = preparer.prepare_all(sample)
    voters = Voters(prepared[:VOTERS])
    rates = voters.rate(prepared, own_places=True)
    best = sorted(range(len(sample)), key=lambda place: (-rates[place], place))[:STARTS]
    pieces = _frequent_pieces(sample, preparer)
    climbed = [_climb(sample[place], pieces, voters, preparer) for place in best]
    return max(climbed)[1]


def _frequent_pieces(texts: Sequence[str], preparer: TextPreparer) -> list[str]:
    """Return the words, and the tokens of this scale, that most texts have."""
    words = Counter(word for text in texts for word in set(text.split()))
    tokens = Counter(token for text in texts for token in set(preparer.tokeniser(text)))
    # Equal counts by the alphabet: the choice must not depend on the order of the summaries.
    most = [
        sorted(counts, key=lambda piece: (-counts[piece], piece))[:WORDS]
        for counts in (words, tokens)
    ]
    return list(dict.fromkeys([*most[0], *most[1]]))


def _climb(
    text: str, pieces: Sequence[str], voters: Voters, preparer: TextPreparer
) -> tuple[float, str]:
    """Return the best mean that changes of single words lead to, and its text."""
    words = tuple(text.split())
    best = float(voters.rate([preparer.prepare(" ".join(words))])[0])
    for _ in range(MOST_CHANGES):
        changed = list(dict.fromkeys(_changes(words, pieces)))
        if not changed:
            break
        rates = voters.rate([preparer.prepare(" ".join(one)) for one in changed])
        place = int(rates.argmax())
        if rates[place] <= best + LEAST_GAIN:
            break
        best, words = float(rates[place]), changed[place]
    return best, " ".join(words)


def _changes(words: tuple[str, ...], pieces: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for place in range(len(words)):
        if len(words) > 1:
            yield words[:place] + words[place + 1 :]
        for piece in pieces:
            yield (*words[:place], piece, *words[place + 1 :])
    for place in range(len(words) + 1):
        for piece in pieces:
            yield (*words[:place], piece, *words[place:])


class Voters:
    """Texts that candidates are scored against, all at once.

    ROUGE clips the count of a token to the smaller one, which is the number of (token, occurrence)
    pairs that both texts have: a product of matrices of zeros and ones.
    """

    def __init__(self, texts: Sequence[PreparedText]) -> None:
        self._tokens = [text.tokens for text in texts]
        self._sides = [_Occurrences(list(map(grams, self._tokens))) for grams in (_ones, _twos)]

    def rate(self, texts: Sequence[PreparedText], *, own_places: bool = False) -> NDArray[np.float64]:
        """Return each text's mean over the voters of ROUGE-1, -2 and -L F1, as a fraction.

        Args:
            own_places: the first texts are the voters themselves, which do not vote for themselves.
        """
        import numpy as np
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist

        tokens = [text.tokens for text in texts]
        lcs = cdist(tokens, self._tokens, scorer=LCSseq.similarity, dtype=np.int32)
        lengths, own_lengths = (
            np.fromiter(map(len, side), np.float64) for side in (tokens, self._tokens)
        )
        sums = lengths[:, None] + own_lengths
        ones, twos = (
            side.overlaps(list(map(grams, tokens)))
            for side, grams in zip(self._sides, (_ones, _twos), strict=True)
        )
        both = np.maximum(lengths - 1, 0)[:, None] + np.maximum(own_lengths - 1, 0)
        f1 = (
            2 * (ones + lcs) / np.maximum(sums, 1) + 2 * twos / np.maximum(both, 1)
        ) / 3
        votes = np.full(len(texts), float(len(self._tokens)))
        if own_places:
            own = np.arange(min(len(texts), len(self._tokens)))
            f1[own, own] = 0.0
            votes[own] -= 1
        means: NDArray[np.float64] = f1.sum(axis=1) / np.maximum(votes, 1)
        return means


class _Occurrences:
    """Multisets as rows of zeros and ones over (gram, how many of it came before)."""

    def __init__(self, multisets: Sequence[Iterable[Hashable]]) -> None:
        self._places: dict[Hashable, int] = {}
        counted = [list(_number_occurrences(grams)) for grams in multisets]
        for one in counted:
            for key in one:
                self._places.setdefault(key, len(self._places))
        self._matrix = self._fill(counted)

    def _fill(self, counted: Sequence[Sequence[Hashable]]) -> NDArray[np.float32]:
        import numpy as np

        matrix = np.zeros((len(counted), len(self._places)), dtype=np.float32)
        for row, keys in enumerate(counted):
            matrix[row, [self._places[key] for key in keys if key in self._places]] = 1.0
        return matrix

    def overlaps(self, multisets: Sequence[Iterable[Hashable]]) -> NDArray[np.float32]:
        """Return how much each multiset shares with each of these: [multisets, these]."""
        counted = [list(_number_occurrences(grams)) for grams in multisets]
        product: NDArray[np.float32] = self._fill(counted) @ self._matrix.T
        return product


def _ones(tokens: str) -> Iterable[Hashable]:
    return tokens


def _twos(tokens: str) -> Iterable[Hashable]:
    return pairwise(tokens)


def _number_occurrences(grams: Iterable[Hashable]) -> Iterable[Hashable]:
    seen: Counter[Hashable] = Counter()
    for gram in grams:
        yield gram, seen[gram]
        seen[gram] += 1

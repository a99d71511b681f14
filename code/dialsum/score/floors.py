"""What a summary earns without thought: the first turns, the longest, one text for all rows.

A floor is only honest when it is hard to beat: the one text is the strongest that a search on the
train summaries finds, and need not be a sentence. Must not see the references that are reported on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dialsum.data.cleaning import split_lines
from dialsum.data.tags import TURN_START
from dialsum.errors import DataError
from dialsum.score.rouge import TextPreparer, read_grams
from dialsum.score.tokenise import Tokeniser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dialsum.score.rouge import Grams

LEADS = (1, 2, 3)
BLOCK_ROWS = 1024
CANDIDATES = 600
"""Train summaries that may become the constant, drawn by seed."""
VOTERS = 100
"""Train summaries that each candidate is scored against."""
PIECES = 24
"""The most frequent words of the train summaries, and as many tokens, that a change may put in."""
FINALISTS = 16
"""Changes whose longest common subsequences are looked at; the rest of the score chooses them."""
MOST_CHANGES = 40
LEAST_GAIN = 1e-6
OCCURRENCE_BITS = 20


def split_turns(dialogue: str) -> list[str]:
    """Return what is said in each turn, without `#Person1#: ` before it.

    A line without a speaker goes on with the turn before it; where no line has one, each is a turn.
    """
    lines = split_lines(dialogue)
    if not any(TURN_START.match(line) for line in lines):
        return lines
    turns: list[str] = []
    for line in lines:
        speaker = TURN_START.match(line)
        if speaker is None and turns:
            turns[-1] += " " + line
        else:
            turns.append(line[speaker.end() :] if speaker else line)
    return turns


def lead(dialogue: str, turns: int) -> str:
    """Return what is said in the first turns; a shorter dialogue gives all of it."""
    return " ".join(turn for turn in split_turns(dialogue)[:turns] if turn)


def longest_utterance(dialogue: str) -> str:
    """Return the turn with the most characters, the first of several."""
    return max(split_turns(dialogue), key=len, default="")


def other_summaries(summaries: Sequence[str]) -> list[str]:
    """Return for each row the summary of another row, drawn by a fixed seed; each is used once.

    In a long file it is one of the thousand around it, whose morphemes are at hand.

    Args:
        summaries: two or more.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    others = [""] * len(summaries)
    starts = [*range(0, max(len(summaries) - 1, 1), BLOCK_ROWS), len(summaries)]
    for start, stop in pairwise(starts):
        order = start + generator.permutation(stop - start)
        for place, row in enumerate(order):
            others[int(row)] = summaries[int(order[place - 1])]
    return others


def choose_constant(train_summaries: Sequence[str], tokeniser: Tokeniser, *, seed: int = 0) -> str:
    """Choose the one text that does best as a summary of everything, on this scale.

    The candidate with the best mean against the voters (themselves not counted) goes on to a second
    step: a piece is taken out, put in, exchanged or moved, the best change of all first, as long as
    one raises the mean.

    Raises:
        DataError: no summary, or none that is not blank.
    """
    texts = sorted({summary.strip() for summary in train_summaries} - {""})
    if not texts:
        problem = f"none of {len(train_summaries)} train summaries has text"
        raise DataError([f"{problem}; the constant floor needs one"])
    preparer = TextPreparer(tokeniser)
    sample = random.Random(seed).sample(texts, min(CANDIDATES, len(texts)))
    tokens = [preparer.prepare(text).tokens for text in sample]
    voters = Voters(tokens[:VOTERS])
    rates = voters.rate(tokens, own_places=True)
    pieces = _frequent_pieces(sample, tokeniser)
    return _climb(sample[int(rates.argmax())], pieces, voters, preparer)


def _frequent_pieces(texts: Sequence[str], tokeniser: Tokeniser) -> list[str]:
    """Return the words, and the tokens of this scale, that most texts have."""
    words = Counter(word for text in texts for word in set(text.split()))
    tokens = Counter(token for text in texts for token in set(tokeniser(text)))
    # Equal counts by the alphabet: the choice must not depend on the order of the summaries.
    most = [
        piece
        for counts in (words, tokens)
        for _, piece in sorted((-count, piece) for piece, count in counts.items())[:PIECES]
    ]
    return list(dict.fromkeys(most))


def _climb(text: str, pieces: Sequence[str], voters: Voters, preparer: TextPreparer) -> str:
    """Return the text with the best mean that changes of single pieces lead to.

    Changes are compared by the tokens of their pieces, each taken by itself; the first of them that
    is better as a whole text, too, is made.
    """
    words = tuple(text.split())
    alone = {word: preparer.prepare(word).tokens for word in (*words, *pieces)}

    def rate(one: tuple[str, ...]) -> float:
        return float(voters.rate([preparer.prepare(" ".join(one)).tokens])[0])

    best = rate(words)
    for _ in range(MOST_CHANGES):
        changed = list(dict.fromkeys(_changes(words, pieces)))
        if not changed:
            break
        tokens = ["".join(alone[word] for word in one) for one in changed]
        promising = voters.promising(tokens, count=FINALISTS)
        rates = voters.rate([tokens[place] for place in promising])
        in_order = [changed[promising[at]] for at in (-rates).argsort(kind="stable")]
        better = next((one for one in in_order if rate(one) > best + LEAST_GAIN), None)
        if better is None:
            break
        best, words = rate(better), better
    return " ".join(words)


def _changes(words: tuple[str, ...], pieces: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for place in range(len(words)):
        if len(words) > 1:
            yield words[:place] + words[place + 1 :]
        for piece in pieces:
            yield (*words[:place], piece, *words[place + 1 :])
    for place in range(len(words) + 1):
        for piece in pieces:
            yield (*words[:place], piece, *words[place:])
    for place, word in enumerate(words):
        rest = words[:place] + words[place + 1 :]
        for other in range(len(words)):
            yield (*rest[:other], word, *rest[other:])


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
        self._sides = []
        for grams in read_grams(texts):
            row, key = _tell_apart(*grams)
            known, place = np.unique(key, return_inverse=True)
            has = np.zeros((len(known) + 1, len(texts)), dtype=np.float32)
            has[place, row] = 1
            self._sides.append((known, has))

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
        rates = self._grams_f1(texts)[0].sum(axis=1)
        return [int(place) for place in (-rates).argsort(kind="stable")[:count]]

    def _grams_f1(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sum of ROUGE-1 and -2 F1, and both texts' tokens together: [texts, voters]."""
        import numpy as np

        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        sums = np.maximum(lengths[:, None] + self._lengths, 1)
        pairs = np.maximum(lengths - 1, 0)[:, None] + np.maximum(self._lengths - 1, 0)
        ones, twos = (
            _count_shared(grams, *side, rows=len(texts))
            for side, grams in zip(self._sides, read_grams(texts), strict=True)
        )
        return 2.0 * ones / sums + 2.0 * twos / np.maximum(pairs, 1), sums


def _count_shared(
    grams: Grams, known: NDArray[np.uint64], has: NDArray[np.float32], *, rows: int
) -> NDArray[np.float32]:
    """Return how many grams each text shares with each voter: [texts, voters].

    Sums of a few rows, not a product of matrices: BLAS waits for its threads longer than these sums
    take.

    Args:
        known: the voters' grams, ascending.
        has: 1 where a voter has it, with a last row of zeros: [known + 1, voters].
    """
    import numpy as np

    row, key = _tell_apart(*grams)
    found = np.zeros((rows, has.shape[1]), dtype=np.float32)
    if len(key):
        place = np.searchsorted(known, key)
        there = place < len(known)
        there[there] = known[place[there]] == key[there]
        present, starts = np.unique(row, return_index=True)
        shared = has[np.where(there, place, len(known))]
        found[present] = np.add.reduceat(shared, starts, axis=0)
    return found


def _tell_apart(
    rows: NDArray[np.uint64], grams: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
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

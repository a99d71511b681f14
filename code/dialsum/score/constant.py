"""The strongest single text for all rows that a search on the train summaries finds.

A floor is only honest when it is hard to beat: the text need not be a sentence. Must not see the
references that are reported on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from dialsum.errors import DataError
from dialsum.score.rouge import TextPreparer
from dialsum.score.voters import Voters

CANDIDATES = 600
"""Train summaries that stand for election, drawn by seed."""
VOTERS = 100
"""Train summaries that each candidate is scored against."""
PIECES = 24
"""The most frequent words of the train summaries, and as many tokens, that a change may put in."""
FINALISTS = 16
"""Changes whose longest common subsequences are looked at; the rest of the score chooses them."""
MOST_CHANGES = 40
LEAST_GAIN = 1e-6


def choose_constant(
    train_summaries: Sequence[str], preparer: TextPreparer, *, seed: int = 0
) -> str:
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
    sample = random.Random(seed).sample(texts, min(CANDIDATES, len(texts)))
    tokens = [preparer.prepare(text).tokens for text in sample]
    voters = Voters(tokens[:VOTERS])
    rates = voters.rate(tokens, own_places=True)
    return _climb(sample[int(rates.argmax())], _frequent_pieces(sample, preparer), voters, preparer)


def _frequent_pieces(texts: Sequence[str], preparer: TextPreparer) -> list[str]:
    """Return the words, and the tokens of this scale, that most texts have."""
    words = Counter(word for text in texts for word in set(text.split()))
    tokens = Counter(token for text in texts for token in set(preparer.tokeniser(text)))
    # Equal counts by the alphabet: the choice must not depend on the order of the summaries.
    most = [
        sorted(counts, key=lambda piece: (-counts[piece], piece))[:PIECES]
        for counts in (words, tokens)
    ]
    return list(dict.fromkeys([*most[0], *most[1]]))


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

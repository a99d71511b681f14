"""ROUGE-1, -2, -L and -Lsum on token lists, row by row; equal to the package rouge_score.

Must not know how tokens are made, nor files. Several references are averaged, as the competition
does (rouge_score's own score_multi takes the best one instead).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dialsum.errors import UnfitError
from dialsum.score.tokenise import Tokeniser, split_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
Overlap = tuple[int, int, int]  # matched units, units of the prediction, units of the reference


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A text made ready for being compared often.

    Attributes:
        tokens: token ids in order.
        unigrams, bigrams: multisets as sets, the k-th occurrence of x being (x, k): their overlap,
            which ROUGE clips to the smaller count, is then a set intersection.
        lines: token ids of each line; one entry where the text is a single line.
    """

    tokens: list[int]
    unigrams: frozenset[Hashable]
    bigrams: frozenset[Hashable]
    lines: tuple[list[int], ...]


@dataclass
class TextPreparer:
    """Tokenises texts and numbers their tokens; texts are comparable only within one preparer.

    Attributes:
        tokeniser: cuts the text.
        ids: token to number, growing.
    """

    tokeniser: Tokeniser
    ids: dict[str, int] = field(default_factory=dict)

    def prepare(self, text: str) -> PreparedText:
        """Tokenise one text, whole and by lines."""
        tokens = self._number(text)
        lines = split_lines(text)
        return PreparedText(
            tokens,
            _count(tokens),
            _count(itertools.pairwise(tokens)),
            tuple(self._number(line) for line in lines) if len(lines) > 1 else (tokens,),
        )

    def _number(self, text: str) -> list[int]:
        return [self.ids.setdefault(token, len(self.ids)) for token in self.tokeniser(text)]


def _count(grams: Iterable[Hashable]) -> frozenset[Hashable]:
    return frozenset((gram, k) for gram, count in Counter(grams).items() for k in range(count))


def score_pair(prediction: PreparedText, reference: PreparedText) -> list[float]:
    """Return precision, recall and F1 of each of METRICS, flat, as fractions 0-1."""
    lcs = _lcs_length()(prediction.tokens, reference.tokens)
    of_tokens = (lcs, len(prediction.tokens), len(reference.tokens))
    single = len(prediction.lines) == 1 and len(reference.lines) == 1
    overlaps: tuple[Overlap, ...] = (
        _overlap(prediction.unigrams, reference.unigrams),
        _overlap(prediction.bigrams, reference.bigrams),
        of_tokens,
        of_tokens if single else _lines_overlap(prediction.lines, reference.lines),
    )
    return [value for overlap in overlaps for value in _rates(*overlap)]


def mean_f1(prediction: PreparedText, reference: PreparedText) -> float:
    """Return the mean of ROUGE-1, -2 and -L F1 as a fraction: the competition's score."""
    one, two = prediction.unigrams, prediction.bigrams
    lcs = _lcs_length()(prediction.tokens, reference.tokens)
    return (
        2 * len(one & reference.unigrams) / ((len(one) + len(reference.unigrams)) or 1)
        + 2 * len(two & reference.bigrams) / ((len(two) + len(reference.bigrams)) or 1)
        + 2 * lcs / ((len(prediction.tokens) + len(reference.tokens)) or 1)
    ) / 3


def score_rows(
    predictions: Sequence[PreparedText], references: Sequence[Sequence[PreparedText]]
) -> NDArray[np.float64]:
    """Score every prediction against the references of its row, which are averaged.

    Returns:
        [rows, len(METRICS), 3]: precision, recall and F1 on the scale 0-100.
    """
    import numpy as np

    rows = [
        np.mean([score_pair(prediction, reference) for reference in row], axis=0)
        for prediction, row in zip(predictions, references, strict=True)
    ]
    return 100.0 * np.array(rows, dtype=np.float64).reshape(len(rows), len(METRICS), 3)


def _overlap(prediction: frozenset[Hashable], reference: frozenset[Hashable]) -> Overlap:
    return len(prediction & reference), len(prediction), len(reference)


def _rates(matched: int, predicted: int, expected: int) -> tuple[float, float, float]:
    if not matched:
        return 0.0, 0.0, 0.0
    return matched / predicted, matched / expected, 2 * matched / (predicted + expected)


@functools.cache
def _lcs_length() -> Callable[[Sequence[Hashable], Sequence[Hashable]], int]:
    """Return rapidfuzz's bit-parallel length of the longest common subsequence."""
    try:
        from rapidfuzz.distance import LCSseq
    except ImportError as error:
        raise UnfitError(
            f"scores need the package rapidfuzz ({error}): "
            "python -m pip install -r requirements.txt"
        ) from error
    return LCSseq.similarity


def _lines_overlap(prediction: Sequence[list[int]], reference: Sequence[list[int]]) -> Overlap:
    """Count the union of each reference line's LCS with all predicted lines.

    Lin (2004), "ROUGE: a Package for Automatic Evaluation of Summaries", section 3.2; each token
    counts as often as both texts have it, as in ROUGE 1.5.5 and in rouge_score.
    """
    left_prediction = Counter(token for line in prediction for token in line)
    left_reference = Counter(token for line in reference for token in line)
    predicted, expected = left_prediction.total(), left_reference.total()
    matched = 0
    for line in reference:
        union = sorted(set().union(*(_lcs_places(line, other) for other in prediction)))
        for token in (line[place] for place in union):
            if left_prediction[token] > 0 and left_reference[token] > 0:
                matched += 1
                left_prediction[token] -= 1
                left_reference[token] -= 1
    return matched, predicted, expected


def _lcs_places(reference: Sequence[int], prediction: Sequence[int]) -> set[int]:
    """Return the places in reference of one longest common subsequence.

    There may be several; the walk back prefers a step in the reference on equal lengths, as
    rouge_score does, since another choice gives another union.
    """
    rows, columns = len(reference), len(prediction)
    table = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i, token in enumerate(reference, start=1):
        above, row = table[i - 1], table[i]
        for j, other in enumerate(prediction, start=1):
            row[j] = above[j - 1] + 1 if token == other else max(above[j], row[j - 1])
    places: set[int] = set()
    i, j = rows, columns
    while i > 0 and j > 0:
        if reference[i - 1] == prediction[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places

"""ROUGE-1, -2, -L and -Lsum of many pairs of texts at once; equal to the package rouge_score. And
the recipe of a score as one line: only equal recipes may stand in one ranking.

Must not know how tokens are made, nor files. A token is one character of a string here: rapidfuzz
then compares two texts without hashing a token, and numpy reads thousands of texts as one array.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dialsum.errors import DataError, UnfitError
from dialsum.score.tokenise import Tokeniser, load_tokeniser, split_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Grams = tuple[NDArray[np.uint64], NDArray[np.uint64]]
    """The place of each gram's text, and the gram's number."""

VERSION = "1"
"""Of all that the other fields do not name; raise it when the same input scores otherwise."""
AGGREGATES = ("mean", "max")
"""How the scores of several references become one: their mean, as the competition does, or the
best, as rouge_score's score_multi does."""
METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
FIRST = 0x10000
"""The character of token 0: from here on none is a surrogate."""
TOKEN_BITS = 20
"""Of a token's number: beyond FIRST + 2²⁰ there are no characters, and chr() refuses."""


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A text made ready for being compared often.

    Attributes:
        tokens: one character for each token, in order.
        lines: the same of each line; one entry where the text is a single line.
    """

    tokens: str
    lines: tuple[str, ...]


class Numbers(dict[str, str]):
    """Token to the character that stands for it; a new one gets the next."""

    def __missing__(self, token: str) -> str:
        """Number a token that was not seen before."""
        self[token] = character = chr(FIRST + len(self))
        return character


@dataclass
class TextPreparer:
    """Tokenises texts and numbers their tokens; texts are comparable only within one preparer.

    Attributes:
        tokeniser: cuts the text.
        known: the tokens of all texts so far.
    """

    tokeniser: Tokeniser
    known: Numbers = field(default_factory=Numbers)

    def prepare(self, text: str) -> PreparedText:
        """Tokenise one text, whole and by lines."""
        tokens = self._number(text)
        lines = split_lines(text)
        if len(lines) < 2:
            return PreparedText(tokens, (tokens,))
        return PreparedText(tokens, tuple(self._number(line) for line in lines))

    def prepare_all(self, texts: Sequence[str]) -> list[PreparedText]:
        """Tokenise many texts, equal ones once."""
        prepared = {text: self.prepare(text) for text in dict.fromkeys(texts)}
        return [prepared[text] for text in texts]

    def _number(self, text: str) -> str:
        return "".join(map(self.known.__getitem__, self.tokeniser(text)))


def score_pairs(
    predictions: Sequence[PreparedText], references: Sequence[PreparedText]
) -> NDArray[np.float64]:
    """Score each prediction against the reference at its place.

    Lin (2004), "ROUGE: a Package for Automatic Evaluation of Summaries".

    Returns:
        [pairs, len(METRICS), 3]: precision, recall and F1 as fractions 0-1.
    """
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cpdist

    left, right = ([one.tokens for one in texts] for texts in (predictions, references))
    rows = len(left)
    tokens = [np.fromiter(map(len, texts), np.int64, rows) for texts in (left, right)]
    pairs = [np.maximum(lengths - 1, 0) for lengths in tokens]
    lcs = cpdist(left, right, scorer=LCSseq.similarity, dtype=np.int64)
    ones, twos = zip(read_grams(left), read_grams(right), strict=True)
    by_lines = [lcs.copy(), *(lengths.copy() for lengths in tokens)]
    for place, (one, other) in enumerate(zip(predictions, references, strict=True)):
        if len(one.lines) > 1 or len(other.lines) > 1:
            for column, value in zip(by_lines, _lines_overlap(one.lines, other.lines), strict=True):
                column[place] = value
    counts = [
        (_matched(*ones, row_bit=TOKEN_BITS, rows=rows), *tokens),
        (_matched(*twos, row_bit=2 * TOKEN_BITS, rows=rows), *pairs),
        (lcs, *tokens),
        by_lines,
    ]
    # Precision, recall and F1, 0 where nothing matches.
    rates = [
        (
            matched / np.maximum(predicted, 1),
            matched / np.maximum(expected, 1),
            2 * matched / np.maximum(predicted + expected, 1),
        )
        for matched, predicted, expected in counts
    ]
    return np.array(rates).transpose(2, 0, 1)


def score_rows(
    predictions: Sequence[PreparedText],
    references: Sequence[Sequence[PreparedText]],
    *,
    aggregate: str = "mean",
) -> NDArray[np.float64]:
    """Score every prediction against all references of its row.

    Args:
        references: the first of every row, the second of every row, and so on.
        aggregate: mean of the references' scores, or max: those of the one with the best F1.

    Returns:
        [rows, len(METRICS), 3]: precision, recall and F1 on the scale 0-100.
    """
    import numpy as np

    by_reference = np.stack([score_pairs(predictions, column) for column in references])
    if aggregate == "mean":
        rates = by_reference.mean(axis=0)
    else:
        best = by_reference[..., 2].argmax(axis=0)
        rates = np.take_along_axis(by_reference, best[None, ..., None], axis=0)[0]
    scaled: NDArray[np.float64] = 100.0 * rates
    return scaled


def read_grams(texts: Sequence[str]) -> tuple[Grams, Grams]:
    """Return the tokens of all texts, and each two in a row: the place of the text, the number."""
    import numpy as np

    data = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4")
    ids = data.astype(np.uint64) - np.uint64(FIRST)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    inside = rows[1:] == rows[:-1]
    pairs = (ids[:-1] << np.uint64(TOKEN_BITS)) | ids[1:]
    return (rows, ids), (rows[1:][inside], pairs[inside])


def _matched(left: Grams, right: Grams, *, row_bit: int, rows: int) -> NDArray[np.int64]:
    """Count, text by text, the grams that both sides have, clipped to the smaller count."""
    import numpy as np

    keys = [(of << np.uint64(row_bit)) | grams for of, grams in (left, right)]
    one = np.uint64(1)
    both = np.concatenate([keys[0] << one, (keys[1] << one) | one])
    if not len(both):
        return np.zeros(rows, dtype=np.int64)
    both.sort(kind="stable")  # four times as fast on what is in the order of rows already
    grams = both >> one
    starts = np.flatnonzero(np.concatenate([[True], grams[1:] != grams[:-1]]))
    of_right = np.add.reduceat((both & one).astype(np.int64), starts)
    of_left = np.diff(starts, append=len(grams)) - of_right
    row = (grams[starts] >> np.uint64(row_bit)).astype(np.int64)
    shared = np.minimum(of_left, of_right)
    return np.bincount(row, weights=shared, minlength=rows).astype(np.int64)


def _lines_overlap(prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int, int]:
    """Count the union of each reference line's LCS with all predicted lines.

    Lin (2004), section 3.2; each token counts as often as both texts have it, as in ROUGE 1.5.5.
    There may be several longest common subsequences, and another choice gives another union: it is
    rouge_score's own.

    Returns:
        Matched tokens, tokens of the prediction, tokens of the reference.
    """
    from rouge_score.rouge_scorer import _union_lcs

    predicted, expected = Counter("".join(prediction)), Counter("".join(reference))
    union = Counter(token for line in reference for token in _union_lcs(line, list(prediction)))
    matched = (union & predicted).total()
    return matched, predicted.total(), expected.total()


def make_signature(tokenizer: str, tags: str, *, references: int, aggregate: str = "mean") -> str:
    """Return what is done to get a score; two scores are comparable only where these are equal.

    Args:
        tokenizer, tags: as load_tokeniser takes them.
        references: how many each row has.
        aggregate: one of AGGREGATES; of a single reference both are the same.

    Raises:
        UnfitError: an unknown tokenizer, treatment of tags or aggregate, or a missing library.
    """
    if aggregate not in AGGREGATES:
        raise UnfitError(
            f"aggregate {aggregate!r} is unknown; choose one of {', '.join(AGGREGATES)}"
        )
    tokeniser = load_tokeniser(tokenizer, tags=tags)
    several = f",{aggregate}" if references > 1 else ""
    return (
        f"rouge|tok:{tokeniser.label}|refs:{references}{several}|tags:{tags}"
        f"|case:{tokeniser.case}|nfc|v{VERSION}"
    )


def require_same_signature(signatures: Mapping[str, str]) -> None:
    """Refuse to compare scores that were made by different recipes.

    Args:
        signatures: name of what was scored (an experiment, a file) to its signature.

    Raises:
        DataError: one line per recipe, with who has it and which fields differ from the first.
    """
    groups: dict[str, list[str]] = {}
    for name, signature in signatures.items():
        groups.setdefault(signature, []).append(name)
    if len(groups) < 2:
        return
    first = next(iter(groups)).split("|")
    problems = []
    for text, names in groups.items():
        differing = ", ".join(field for field in text.split("|") if field not in first)
        problems.append(
            f"{', '.join(names)}: {text}" + (f"  (differs in {differing})" if differing else "")
        )
    raise DataError(
        problems,
        summary=f"scores with {len(groups)} different signatures cannot be ranked together; "
        "score the predictions again with one tokenizer and treatment of tags:",
    )

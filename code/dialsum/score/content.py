"""Content: which of a reference's nouns, verbs, adjectives and numbers a prediction has, rare ones
counting more. A text that suits every dialogue has next to none of them.

The form is left out: particles, endings, order, and the tags, of which nearly every summary has the
same. So it is blind to who did it, to negation, and to synonyms. Must not know ROUGE's scales.
"""

from __future__ import annotations

import csv
import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from dialsum.data.tags import join_particles, tag_spans
from dialsum.paths import PROJECT_ROOT
from dialsum.score.numbers import NATIVE_ONES
from dialsum.score.rouge import KEPT_TEXTS, analyse, normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = "1"
KINDS = frozenset(["NNG", "NNP", "NR", "SN", "VV", "VA", "XR", "SL", "SH"])
"""Nouns, numbers, verbs and adjectives, roots, Latin words, Han; without bound nouns, pronouns and
auxiliary verbs (mecab's VX), which say little."""
SHIPPED = "sample"
Content = Mapping[str, int]
"""Stem to how often a text has it."""


@dataclass(frozen=True)
class Weights:
    """What each stem counts: ln((N + 1) / (n + 1)) where n of N summaries have it (Sparck Jones
    1972, "A statistical interpretation of term specificity").

    Attributes:
        of_stem: of those that were seen; unseen: of any other.
        source: whose summaries these were, for the signature.
    """

    of_stem: Mapping[str, float]
    unseen: float
    source: str

    def weigh(self, content: Content) -> float:
        """Return the weight of a text's content."""
        return sum(self.of_stem.get(stem, self.unseen) * count for stem, count in content.items())


@functools.lru_cache(maxsize=KEPT_TEXTS)
def find_content(text: str) -> Content:
    """Return the stems of a text's content; a number in words of its own is the same in digits."""
    text = join_particles(normalise(text))
    tags = tag_spans(text)
    found: Counter[str] = Counter()
    for (start, end), kind, stem in zip(*analyse(text), strict=True):
        if kind == "MM" and stem in NATIVE_ONES:
            stem, kind = str(NATIVE_ONES[stem]), "SN"
        if kind.partition("+")[0] not in KINDS:
            continue
        if not any(start < high and low < end for low, high in tags):
            found[stem.lower()] += 1
    return found


def learn_weights(summaries: Iterable[str], *, source: str) -> Weights:
    """Return the weights by how many of some summaries have each stem."""
    texts, having = list(summaries), Counter[str]()
    for text in texts:
        having.update(find_content(text).keys())
    most = math.log(len(texts) + 1)
    weights = {stem: most - math.log(own + 1) for stem, own in having.items()}
    return Weights(weights, most, source)


@functools.cache
def shipped_weights() -> Weights:
    """Return the weights by the project's own sample, where no train summaries are known."""
    with (PROJECT_ROOT / "data" / "sample" / "train.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        return learn_weights([row["summary"] for row in csv.DictReader(file)], source=SHIPPED)


def score_content(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    weights: Weights,
    aggregate: str = "mean",
) -> NDArray[np.float64]:
    """Return the F1 (0-100) of the rows' content: [rows]; 0 where a side has none.

    Args:
        references: the first of every row, the second of every row, and so on.
        aggregate: mean or max of the references' scores.
    """
    import numpy as np

    ours = [find_content(text) for text in predictions]
    sizes = [weights.weigh(content) for content in ours]
    columns = []
    for texts in references:
        column = []
        for content, size, text in zip(ours, sizes, texts, strict=True):
            theirs = find_content(text)
            both = {
                stem: min(count, theirs[stem]) for stem, count in content.items() if stem in theirs
            }
            whole = size + weights.weigh(theirs)
            column.append(200.0 * weights.weigh(both) / whole if whole else 0.0)
        columns.append(column)
    scores = np.array(columns, dtype=np.float64)
    found: NDArray[np.float64] = scores.mean(axis=0) if aggregate == "mean" else scores.max(axis=0)
    return found


def sign_content(weights: Weights, *, references: int, aggregate: str) -> str:
    """Return what is done to get a content score."""
    several = f",{aggregate}" if references > 1 else ""
    parts = version("python-mecab-ko"), version("python-mecab-ko-dic")
    return (
        f"content|tok:mecab-ko-{parts[0]}/dic-{parts[1]}|refs:{references}{several}"
        f"|idf:{weights.source}|v{VERSION}"
    )

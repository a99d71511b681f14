"""The look of a summary: how long, how repetitive, how much copied, whether it ends.

Must not know scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dialsum.score.morphemes import load_mecab
from dialsum.score.scripts import has_hangul
from dialsum.score.tokenise import normalise

GRAM = 3
CLOSING = "\"'”’」』)]}>» "
ENDS = ".!?…。！？"
SENTENCE_ENDS = ("EF", "ETN")
"""Kinds of the last morpheme of a sentence: a final ending, or a noun made of a verb (함)."""
FINAL_SYLLABLES = "다요죠까함됨임음"
"""Where no full stop follows, mecab takes these for connective endings and for nouns."""


def repeated_share(tokens: Sequence[str]) -> float:
    """Return which share of the three-token sequences stood in the text before, 0-1."""
    grams = _grams(tokens)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def copied_share(tokens: Sequence[str], source: Sequence[str]) -> float:
    """Return which share of the three-token sequences stand in the source as well, 0-1."""
    grams, known = _grams(tokens), set(_grams(source))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def most_repeated(tokens: Sequence[str]) -> str:
    """Return the three-token sequence that comes most often, as text."""
    grams = _grams(tokens)
    return " ".join(Counter(grams).most_common(1)[0][0]) if grams else ""


def _grams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[shift:] for shift in range(GRAM)), strict=False))


def is_unfinished(text: str) -> bool:
    """Say whether a text stops before its sentence does; an empty one does not.

    A full stop, question or exclamation mark ends a sentence, in quotes or brackets too; without
    one, a Korean text must end in a final ending (`간다`) or a noun made of a verb (`함`).
    """
    text = normalise(text)
    bare = text.rstrip(CLOSING)
    if not bare or bare[-1] in ENDS or bare[-1] in FINAL_SYLLABLES:
        return False
    if not has_hangul(bare[-1]):
        return True
    kinds = load_mecab().analyse(text).kinds
    at = next((kind for kind in reversed(kinds) if not kind.startswith("S")), "")
    return not any(end in at.split("+")[-1] for end in SENTENCE_ENDS)

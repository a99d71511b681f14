"""Counts predictions in another script, which lost multilingual models fall into.

Must not know scores.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

# A letter is at home when its Unicode name says so: HANGUL SYLLABLE …, FULLWIDTH LATIN …, but not
# CJK or CYRILLIC.
HOME_SCRIPTS = ("HANGUL", "LATIN")
# Letters by category, but used with every script: units (µ, Ω, ℓ), ª, ʼ.
COMMON = {"MICRO SIGN", "OHM SIGN", "KELVIN SIGN", "ANGSTROM SIGN", "SCRIPT SMALL L"}
COMMON_BEGINNINGS = ("MODIFIER LETTER", "MASCULINE ORDINAL", "FEMININE ORDINAL")


def foreign_script_rate(predictions: Sequence[str]) -> float:
    """Return the percentage of predictions with a letter neither Hangul nor Latin.

    Cyrillic, Arabic, Thai, Kana and Han count; digits, punctuation, symbols and emoji do not.
    """
    if not predictions:
        return 0.0
    return 100.0 * sum(any(map(_is_foreign, set(text))) for text in predictions) / len(predictions)


@functools.lru_cache(maxsize=65536)
def _is_foreign(char: str) -> bool:
    if not unicodedata.category(char).startswith("L"):
        return False
    name = unicodedata.name(char, "")
    at_home = any(script in name.split() for script in HOME_SCRIPTS)
    return not (at_home or name in COMMON or name.startswith(COMMON_BEGINNINGS))

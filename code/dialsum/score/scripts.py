"""Letters of scripts that a summary has no reason for, which lost multilingual models fall into.

Must not know scores.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from dialsum.data.tags import without_tags

SCRIPTS = ("latin", "vietnamese", "han", "kana", "cyrillic", "thai", "other")
# A letter's Unicode name begins with its script, or has it after FULLWIDTH, HALFWIDTH …
NAMED = (
    ("HANGUL", "home"),
    ("CJK", "han"),
    ("HIRAGANA", "kana"),
    ("KATAKANA", "kana"),
    ("CYRILLIC", "cyrillic"),
    ("THAI", "thai"),
    ("LATIN", "home"),
)
# What Vietnamese adds to French: ă đ ơ ư, and all letters with two marks or a dot below.
VIETNAMESE = frozenset("ăđơưĂĐƠƯ") | {chr(code) for code in range(0x1EA0, 0x1EFA)}
# Letters by category, but used with every script: units (µ, Ω, ℓ), ª, ʼ.
COMMON = {"MICRO SIGN", "OHM SIGN", "KELVIN SIGN", "ANGSTROM SIGN", "SCRIPT SMALL L"}
COMMON_BEGINNINGS = ("MODIFIER LETTER", "MASCULINE ORDINAL", "FEMININE ORDINAL")
LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,}")


def find_foreign(text: str, source: str | None = None) -> dict[str, list[str]]:
    """Return what of a text is in a foreign script, by script; Latin in whole words.

    Args:
        text: a prediction; its tags do not count.
        source: the dialogue. What stands there is not foreign. Latin words are looked at only where
            there is a source and it is Korean.

    Returns:
        Script of SCRIPTS to what was found, in order and each once; no empty lists.
    """
    found: dict[str, list[str]] = {}
    text = unicodedata.normalize("NFC", without_tags(text))
    known = "" if source is None else unicodedata.normalize("NFC", source)
    # Most texts are Hangul, ASCII and punctuation; a set of their letters is quickly gone through.
    for letter in dict.fromkeys(text):
        script = script_of(letter)
        if script != "home" and letter not in known:
            found.setdefault(script, []).append(letter)
    if known and has_hangul(known):
        lower = known.lower()
        words = dict.fromkeys(
            word
            for word in LATIN_WORD.findall(text)
            if word.lower() not in lower and not VIETNAMESE & set(word)
        )
        if words:
            found["latin"] = list(words)
    return found


def has_hangul(text: str) -> bool:
    """Say whether a text has a Hangul syllable."""
    return any("가" <= char <= "힣" for char in text)


@functools.lru_cache(maxsize=65536)
def script_of(char: str) -> str:
    """Return a letter's script of SCRIPTS; `home` for Hangul, Latin, and all that is no letter."""
    if not unicodedata.category(char).startswith("L"):
        return "home"
    if char in VIETNAMESE:
        return "vietnamese"
    name = unicodedata.name(char, "")
    if name in COMMON or name.startswith(COMMON_BEGINNINGS):
        return "home"
    words = name.replace("-", " ").split()
    return next((script for word, script in NAMED if word in words), "other")

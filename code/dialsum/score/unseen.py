"""What ROUGE does not see, row by row: the table of measures, and how each is taken.

Must not know scores, nor how figures are shown.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dialsum.data.tags import SPEAKER, without_tags
from dialsum.score.facts import KINDS, agreed_facts, count_facts, find_facts, find_lacking
from dialsum.score.tokenise import has_hangul, load_mecab, normalise

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


def find_speakers(text: str) -> set[int]:
    """Return the numbers of the speakers whose tags stand in a text."""
    return {int(number) for number in SPEAKER.findall(text)}


def find_unknown_speakers(text: str, source: str) -> list[str]:
    """Return the speaker tags of a text that its dialogue has not, each once."""
    known = find_speakers(source)
    return list(
        dict.fromkeys(
            match.group() for match in SPEAKER.finditer(text) if int(match.group(1)) not in known
        )
    )


def exchange_speakers(text: str, source: str) -> str:
    """Give each speaker of a text the tag of the next one, the last one that of the first.

    Args:
        source: the dialogue, or whatever tells who takes part; #Person1# and #Person2# always do.
    """
    after = successors(text, source)
    return SPEAKER.sub(lambda match: after.get(match.group(), match.group()), text)


def successors(text: str, source: str) -> dict[str, str]:
    """Return for each speaker's tag of a text or its source the one it is exchanged for."""
    speakers = sorted(find_speakers(source) | find_speakers(text) | {1, 2})
    tags = [f"#Person{number}#" for number in speakers]
    return dict(zip(tags, [*tags[1:], tags[0]], strict=True))


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


NOT_APPLICABLE = float("nan")
Cut = Callable[[str], list[str]]


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        title: how a table calls it.
        unit: of the figure, and of a row's value.
        worst: which rows are listed: those with the highest values, the lowest, or those furthest
            from 1.
        limit: rows at least as bad as this are listed and no others.
        needs_dialogue: it cannot be taken without.
    """

    title: str
    unit: str
    worst: Literal["high", "low", "far"] = "high"
    limit: float = 1e-9
    needs_dialogue: bool = False


ROWS, FACTS = "% of rows", "% of facts"
MEASURES: dict[str, Measure] = {
    "empty": Measure("empty", ROWS),
    "foreign_script": Measure("foreign script", ROWS),
    "speakers_unknown": Measure("speakers not in the dialogue", ROWS, needs_dialogue=True),
    "speaker_exchange": Measure(
        "score lost when speakers are exchanged", "points", worst="low", limit=-1e-9
    ),
    **{
        f"{kind}_unsupported": Measure(f"{kind} not in the dialogue", ROWS, needs_dialogue=True)
        for kind in KINDS
    },
    **{f"{kind}_missed": Measure(f"{kind} of the reference missed", FACTS) for kind in KINDS},
    "length_ratio": Measure("length over the reference's", "times", worst="far", limit=1.5),
    "repetition": Measure("repeated 3-grams", "% of 3-grams"),
    "copied": Measure("3-grams copied", "% of 3-grams", limit=50.0, needs_dialogue=True),
    "unfinished": Measure("no end of sentence", ROWS),
    "chrf": Measure("chrF2", "0-100", worst="low", limit=100.0),
}


def measure_row(
    prediction: str, references: Sequence[str], dialogue: str | None, *, cut: Cut
) -> dict[str, float]:
    """Take every measure of one row but those that are scores.

    Args:
        cut: text to tokens, with each tag one token.

    Returns:
        Key of MEASURES to value in its unit; NaN where a row has nothing to measure. What needs a
        dialogue is left out where there is none.
    """
    tokens = cut(prediction)
    lengths = [len(cut(reference)) for reference in references]
    expected = agreed_facts(references)
    missed = find_lacking(expected, prediction)
    empty = not prediction.strip()
    values = {
        "empty": 100.0 * empty,
        "foreign_script": 100.0 * bool(find_foreign(prediction, dialogue)),
        **{
            f"{kind}_missed": 100.0 * len(missed[kind]) / count
            if (count := count_facts(expected, kind))
            else NOT_APPLICABLE
            for kind in KINDS
        },
        "length_ratio": len(tokens) * len(lengths) / (sum(lengths) or 1),
        "repetition": 100.0 * repeated_share(tokens),
        "unfinished": NOT_APPLICABLE if empty else 100.0 * is_unfinished(prediction),
    }
    if dialogue is None:
        return values
    unsupported = find_lacking(find_facts(prediction), dialogue)
    return values | {
        "speakers_unknown": 100.0 * bool(find_unknown_speakers(prediction, dialogue)),
        **{f"{kind}_unsupported": 100.0 * bool(unsupported[kind]) for kind in KINDS},
        "copied": 100.0 * copied_share(tokens, cut(dialogue)),
    }


def explain_row(
    key: str, prediction: str, references: Sequence[str], dialogue: str | None, *, cut: Cut
) -> str:
    """Return what in a row is behind its value, in a few words; empty where the text says it."""
    if key == "foreign_script":
        found = find_foreign(prediction, dialogue)
        return "; ".join(f"{script} {' '.join(what)}" for script, what in found.items())
    if key == "speakers_unknown":
        return " ".join(find_unknown_speakers(prediction, dialogue or ""))
    kind, _, verdict = key.rpartition("_")
    if verdict == "unsupported":
        return ", ".join(find_lacking(find_facts(prediction), dialogue or "")[kind])
    if verdict == "missed":
        return ", ".join(find_lacking(agreed_facts(references), prediction)[kind])
    if key == "repetition":
        return most_repeated(cut(prediction))
    if key == "unfinished":
        return f"… {normalise(prediction)[-20:]}"
    return ""

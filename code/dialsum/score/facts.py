"""What a summary states that can be looked up: names, numbers, times and masks.

A fact of a prediction that its dialogue lacks is unsupported; one of the reference that the
prediction lacks is missed. No model decides: numbers, times and masks count as found rather once
too often, so that not all that is wrong is reported; a name counts as lacking where it stands in
another script. Must not know scores.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialsum.data.tags import SPEAKER_IN_ANY_CASE, find_tags, tag_spans, without_tags
from dialsum.score.morphemes import load_mecab
from dialsum.score.numerals import (
    ENGLISH,
    native_value,
    numbers_in_digits,
    numbers_in_words,
    sino_value,
)
from dialsum.score.scripts import has_hangul
from dialsum.score.tokenise import normalise

KINDS = ("names", "numbers", "times", "masks")
HOUR_WORDS = "열두|열한|열|한|두|세|네|다섯|여섯|일곱|여덟|아홉"
NO_HOUR = "간|작|절|장|기|대|각|험|계|청|도|선|스|설|민|중|행|급|합|점"
"""What makes another word of 시: 시간, 시작, 시험 …"""
SINO_MINUTES = "[일이삼사오육칠팔구십]{1,3}"
CLOCK = re.compile(
    rf"(?P<hour>(?<!\d)\d{{1,2}}|(?<![가-힣])(?:{HOUR_WORDS}))\s?시(?!{NO_HOUR})"
    rf"(?:\s?(?P<minute>\d{{1,2}}|{SINO_MINUTES})\s?분|\s?(?P<half>반))?"
    r"|(?<!\d)(?P<hour2>\d{1,2}):(?P<minute2>\d{2})(?!\d)"
    r"|\b(?P<hour3>\d{1,2}|" + "|".join(list(ENGLISH)[1:13]) + r")\s?"
    r"(?:o['’]clock|[ap]\.?m\b)|(?P<twelve>정오|자정)",
    re.IGNORECASE | re.ASCII,
)
WEEKDAY = re.compile(
    r"[월화수목금토일]요일|\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day", re.IGNORECASE | re.ASCII
)
AFTER_NAMES = ("J", "VCP", "XSN", "NNP", "S", "NNB", "NNG")
"""What may follow a name without a space: particles, the copula, 님, other nouns, marks."""
GAP = "#"
"""Stands where a tag or time was: what follows begins no word, it may be a particle."""
SENTENCE_START = re.compile(r"(?:^|[.!?:\n]\s*|[\"'“‘(]\s*)$")


@dataclass(frozen=True)
class Facts:
    """What a text states.

    Attributes:
        names: as they stand in the text.
        numbers: value to spelling, those in digits.
        times: `7:30`, twelve hours, or a weekday.
        masks: tags that stand for no speaker.
    """

    names: frozenset[str]
    numbers: dict[float, str]
    times: frozenset[str]
    masks: frozenset[str]


def find_facts(text: str) -> Facts:
    """Return the facts of a text (spelling as it is, composed)."""
    text = normalise(text)
    return replace(_find_all_but_names(text), names=_find_names(text))


@functools.lru_cache(maxsize=1 << 10)
def _find_all_but_names(text: str) -> Facts:
    bare = without_tags(text, GAP)
    return Facts(
        names=frozenset(),
        numbers=numbers_in_digits(CLOCK.sub(GAP, bare)),
        times=frozenset(_find_times(bare)),
        masks=frozenset(
            tag for tag in find_tags(text) if SPEAKER_IN_ANY_CASE.fullmatch(tag) is None
        ),
    )


def find_lacking(stated: Facts, text: str) -> dict[str, list[str]]:
    """Return which facts a text lacks, by kind, as they were spelt.

    A name is there where its letters are, in any case; a number where its value is, in digits or in
    words.
    """
    text = normalise(text)
    lower, facts = text.lower(), _find_all_but_names(text)
    values: set[float] = set()
    if any(value not in facts.numbers for value in stated.numbers):
        # An hour may be repeated as a bare number, and a number be part of an hour.
        values = numbers_in_words(without_tags(text, GAP).lower()) | set(numbers_in_digits(lower))
    return {
        "names": sorted(name for name in stated.names if name.lower() not in lower),
        "numbers": [
            spelt
            for value, spelt in stated.numbers.items()
            if value not in facts.numbers and value not in values
        ],
        "times": sorted(stated.times - facts.times),
        "masks": sorted(stated.masks - facts.masks),
    }


def agreed_facts(references: Sequence[str]) -> Facts:
    """Return the facts that all references of a row state: what a summary ought to say."""
    first = find_facts(references[0])
    lacking = [find_lacking(first, other) for other in references[1:]]
    gone = {kind: {fact for one in lacking for fact in one[kind]} for kind in KINDS}
    return Facts(
        names=first.names - gone["names"],
        numbers={
            value: spelt for value, spelt in first.numbers.items() if spelt not in gone["numbers"]
        },
        times=first.times - gone["times"],
        masks=first.masks - gone["masks"],
    )


def count_facts(facts: Facts, kind: str) -> int:
    """Return how many facts of a kind there are."""
    return len(getattr(facts, kind))


@functools.lru_cache(maxsize=1 << 10)
def _find_names(text: str) -> frozenset[str]:
    """Return proper nouns of two syllables or more, and Latin words with a capital inside of a
    sentence.

    A proper noun begins a word and ends it, but for particles and the like: mecab takes pieces of
    words that it does not know (알`립니`다, `패셔`너블) for names.
    """
    tags = tag_spans(text)
    analysis = load_mecab().analyse(text)
    korean = has_hangul(text)
    names: list[tuple[int, int]] = []
    following = [*zip(analysis.spans[1:], analysis.kinds[1:], strict=True), ((-1, -1), "")]
    for (start, end), kind, (after, its_kind) in zip(
        analysis.spans, analysis.kinds, following[: len(analysis.spans)], strict=True
    ):
        proper = "NNP" in kind or (
            kind == "SL"
            and text[start].isupper()
            and (korean or SENTENCE_START.search(text[:start]) is None)
        )
        if not proper or any(start < high and low < end for low, high in tags):
            continue
        inside = after[0] == end and not its_kind.startswith(AFTER_NAMES)
        goes_on = bool(names) and names[-1][1] == start
        if inside or (start and text[start - 1].isalpha() and not goes_on):
            continue
        if goes_on:
            names[-1] = (names[-1][0], end)
        else:
            names.append((start, end))
    return frozenset(text[start:end] for start, end in names if end - start > 1)


def _find_times(text: str) -> list[str]:
    found = [day.group().lower() for day in WEEKDAY.finditer(text)]
    for match in CLOCK.finditer(text):
        if match["twelve"]:
            found.append("12:00")
            continue
        hour = _hour(match["hour"] or match["hour2"] or match["hour3"])
        minute = 30 if match["half"] else _minute(match["minute"] or match["minute2"] or "0")
        if hour <= 24 and minute < 60:
            found.append(f"{hour % 12 or 12}:{minute:02}")
    return found


def _hour(word: str) -> int:
    if word.isdecimal():
        return int(word)
    return ENGLISH[word.lower()] if word.isascii() else native_value(word)


def _minute(word: str) -> int:
    return int(sino_value(word))

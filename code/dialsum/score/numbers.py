"""Numbers and times of a text, in digits and in words, Korean and English: their values.

Must not know tags, nor what the values are held against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SINO_DIGITS = {"영": 0} | {char: value for value, char in enumerate("공일이삼사오육칠팔구")}
SINO_UNITS = {"십": 10, "백": 100, "천": 1000}
SINO_GROUPS = {"만": 10**4, "억": 10**8, "조": 10**12}
_TENS = "열 스물 서른 마흔 쉰 예순 일흔 여든 아흔"
NATIVE_TENS = {"스무": 20} | {word: 10 * ten for ten, word in enumerate(_TENS.split(), start=1)}
_ONES = ("하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉", "한 두 세 네")
NATIVE_ONES = {word: one for words in _ONES for one, word in enumerate(words.split(), start=1)}
NATIVE = re.compile(
    f"(?P<tens>{'|'.join(NATIVE_TENS)})?(?P<ones>{'|'.join(NATIVE_ONES)})?", re.ASCII
)
COUNTERS = "년월일분원층번호인개살세시명달주배점장잔권병대곳쌍채박퍼킬미센그위유파엔"
NATIVE_COUNTERS = COUNTERS + "마가사블팀칸벌켤송줄통봉불"
"""First letters of what is counted; a lone syllable is a number only before one."""
_ENGLISH_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety hundred"
ENGLISH = {
    **{word: one for one, word in enumerate(_ENGLISH_ONES.split())},
    **{word: 10 * ten for ten, word in enumerate(_ENGLISH_TENS.split(), start=2)},
}
ENGLISH_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


def _sino_pattern(digit: str, *, last: str) -> re.Pattern[str]:
    """Return the pattern of a Sino-Korean number: groups and units, each smaller than the one
    before, a space at most between them.

    Args:
        digit: what stands before a unit or group.
        last: the same, or less of it, at the number's end.
    """
    units = f"[{''.join((*SINO_UNITS, *SINO_GROUPS))}]"
    # A lone 만 or 천 after a space begins a word as well (만족, 천사).
    gap = rf"(?:\ (?={units}+(?:\ ?[{COUNTERS}]|[^가-힣]|\Z)))?"
    small = "".join(rf"(?:\ ?{digit}{gap}{unit}|{gap}{unit})?" for unit in reversed(SINO_UNITS))
    groups = "".join(
        rf"(?:{small}(?:\ ?{digit}{gap}|{gap}){group})?" for group in reversed(SINO_GROUPS)
    )
    starts = rf"(?=[\d{''.join(SINO_DIGITS)}]|{units})"
    return re.compile(rf"{starts}{groups}{small}(?:{last}(?!{gap}{units}))?", re.ASCII)


_FIGURES = r"(?>\d[\d,]*(?:\.\d+)?)"
_DIGITS = rf"[{''.join(SINO_DIGITS)}]+"
IN_FIGURES = _sino_pattern(rf"(?:{_FIGURES}|{_DIGITS})", last=rf"\ ?{_FIGURES}")
IN_WORDS = _sino_pattern(_DIGITS, last=_DIGITS)
FIGURES = re.compile(_FIGURES, re.ASCII)
TOKEN = re.compile(rf"{_FIGURES}|[가-힣]", re.ASCII)
GOES_ON = re.compile(r"\ ?[십백천만억조원]")


def numbers_in_digits(text: str) -> dict[float, str]:
    """Return the numbers that have figures, value to spelling: 3만 5천 is 35,000, 만 2천 12,000."""
    found: dict[float, str] = {}
    for spelt in _find_in_figures(text):
        found.setdefault(sino_value(spelt), spelt.rstrip(", "))
    return found


def _find_in_figures(text: str) -> Iterator[str]:
    place = 0
    while match := IN_FIGURES.search(text, place):
        first = FIGURES.search(match.group())
        if first and first.start() and not _is_one_number(text, match.start(), first.end()):
            match = IN_FIGURES.match(text, match.start() + first.start()) or match
        place = max(match.end(), match.start() + 1)
        if first:
            yield match.group()


def _is_one_number(text: str, start: int, length: int) -> bool:
    """Say whether a word and the figures after it are one number: the word begins there, and the
    figures go on in a unit or in 원. 책만 2천 원 has a particle, and 만 19세 is an age."""
    before = text[start - 1 : start]
    return not (before.isalnum() or before == "#") and bool(GOES_ON.match(text, start + length))


def numbers_in_words(text: str) -> set[float]:
    """Return the values of all that may be a number in words; rather one too many than too few."""
    found = {
        float(ENGLISH[word])
        for word in map(str.lower, ENGLISH_WORD.findall(text))
        if word in ENGLISH
    }
    for match in IN_WORDS.finditer(text):
        if len(match.group()) > 1 or text[match.end() :].lstrip()[:1] in set(COUNTERS):
            # 책만 오천 원: what looks like a part of it may be a particle.
            parts = [part for part in match.group().split() if len(part) > 1]
            found |= {sino_value(spelt) for spelt in (match.group(), *parts)}
    for match in NATIVE.finditer(text):
        if match.group() and (
            len(match.group()) > 1 or text[match.end() :].lstrip()[:1] in set(NATIVE_COUNTERS)
        ):
            found.add(float(native_value(match.group())))
    return found


def sino_value(number: str) -> float:
    """Return the value of a Sino-Korean number (`삼백이십`, `이공이오`, `3만 2천`)."""
    total = group = digit = 0.0
    for token in TOKEN.findall(number):
        if token in SINO_DIGITS:
            digit = digit * 10 + SINO_DIGITS[token]
        elif token in SINO_UNITS:
            group, digit = group + (digit or 1) * SINO_UNITS[token], 0
        elif token in SINO_GROUPS:
            total, group, digit = total + ((group + digit) or 1) * SINO_GROUPS[token], 0, 0
        else:
            digit = float(token.replace(",", ""))
    return total + group + digit


def native_value(word: str) -> int:
    """Return the value of a native Korean number (`스물다섯`)."""
    match = NATIVE.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is no native Korean number")
    return NATIVE_TENS.get(match["tens"] or "", 0) + NATIVE_ONES.get(match["ones"] or "", 0)


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


def find_times(text: str) -> list[str]:
    """Return the times of a text: `7:30` of twelve hours, or a weekday."""
    found = [day.group().lower() for day in WEEKDAY.finditer(text)]
    for match in CLOCK.finditer(text):
        if match["twelve"]:
            found.append("12:00")
            continue
        word = match["hour"] or match["hour2"] or match["hour3"]
        if word.isdecimal():
            hour = int(word)
        else:
            hour = ENGLISH[word.lower()] if word.isascii() else native_value(word)
        minute = 30 if match["half"] else sino_value(match["minute"] or match["minute2"] or "0")
        if hour <= 24 and minute < 60:
            found.append(f"{hour % 12 or 12}:{minute:02.0f}")
    return found

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
DAY_COUNTS = {
    word: value
    for value, word in enumerate(
        ["하루", "이틀", "사흘", "나흘", "닷새", "엿새", "이레", "여드레", "아흐레", "열흘"],
        start=1,
    )
} | {"보름": 15}
DAYS_COUNTED = re.compile(
    rf"(?<![가-힣])(?:{'|'.join(word for word, value in DAY_COUNTS.items() if value > 1)})"
)
TOGETHER = {"혼자": 1, "둘이": 2, "셋이": 3, "넷이": 4}
MONTHS = {"유월": 6, "시월": 10}
SHORT_NATIVE = {"석": 3, "서": 3, "넉": 4, "너": 4}
SHORT_COUNTED = re.compile(r"(?<![가-힣])(석|서|넉|너)(?= (?:달|장|잔|대|말|되))")
PEOPLE = ("명", "사람", "분")
COUNTED = re.compile(
    rf"(?<![가-힣])(?P<word>(?:{'|'.join(NATIVE_TENS)})?(?:{'|'.join(NATIVE_ONES)}))"
    r" ?(?P<counter>시간|달|번|개|마리|살|주|권|장|잔|병|가지|곳|박|명|사람|켤레|벌|송이|통"
    r"|(?<= )(?:대|배|분))"
)
HOUR_AND_HALF = re.compile(rf"(\d+|{'|'.join(NATIVE_ONES)}) ?시간 ?반")
_UNITS = (
    "달러 불 dollars dollar $|원 won ₩|위안 위안화 yuan rmb ¥|유로 euros euro €|엔 yen|"
    "파운드 pounds pound £|% 퍼센트 프로 percent|킬로미터 km|킬로그램 kg|미터 m|센티미터 센티 cm|"
    "마일 miles mile|"
    "시간 hours hour|분 minutes minute|초 seconds|일 days day|주 weeks week|개월 달 months month|"
    "년 years year|살 세|명 사람|층 floor|도"
)
UNIT_NAMES = {word: words.split()[0] for words in _UNITS.split("|") for word in words.split()}
_SIGNS = r"[$₩¥€£]"
_WORDS = "|".join(
    re.escape(word)
    for word in sorted(UNIT_NAMES, key=len, reverse=True)
    if not re.match(_SIGNS, word)
)
WITH_UNIT = re.compile(
    rf"(?<![\d#])(?:(?P<before>{_SIGNS}) ?)?(?P<figures>\d[\d,]*(?:\.\d+)?(?: ?[십백천만억]+)?)"
    rf"(?: ?(?P<unit>{_WORDS})(?![a-z]))?",
    re.IGNORECASE | re.ASCII,
)
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
    for table in (DAY_COUNTS, TOGETHER, MONTHS):
        found |= {float(value) for word, value in table.items() if word in text}
    found |= {float(SHORT_NATIVE[match[1]]) for match in SHORT_COUNTED.finditer(text)}
    for match in HOUR_AND_HALF.finditer(text):
        hours = native_value(match[1]) if match[1] in NATIVE_ONES else sino_value(match[1])
        found |= {hours + 0.5, 60 * hours + 30, 30.0}
    for match in NATIVE.finditer(text):
        if match.group() and (
            len(match.group()) > 1 or text[match.end() :].lstrip()[:1] in set(NATIVE_COUNTERS)
        ):
            found.add(float(native_value(match.group())))
    return found


def numbers_counted(text: str) -> dict[float, str]:
    """Return the numbers in words that surely are some: native ones from two on before what is
    counted, and counts of days; value to spelling. Two people are left out: that is everybody."""
    found: dict[float, str] = {}
    for match in COUNTED.finditer(text):
        value = native_value(match["word"])
        if value > 1 and not (value == 2 and match["counter"] in PEOPLE):
            found.setdefault(float(value), match.group())
    for match in SHORT_COUNTED.finditer(text):
        found.setdefault(float(SHORT_NATIVE[match[1]]), match.group())
    for match in DAYS_COUNTED.finditer(text):
        found.setdefault(float(DAY_COUNTS[match.group()]), match.group())
    return found


def numbers_with_units(text: str) -> dict[tuple[float, str], str]:
    """Return the numbers in figures that have a unit, value and unit to spelling; a unit has one
    name, however it is written (`달러`, `$`, `dollars`)."""
    found: dict[tuple[float, str], str] = {}
    for match in WITH_UNIT.finditer(text):
        written = (match["before"] or match["unit"] or "").lower()
        if not written:
            continue
        value = sino_value(match["figures"])
        found.setdefault((value, UNIT_NAMES[written]), match.group().strip())
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
WEEKDAYS = dict(
    zip(("mon", "tues", "wednes", "thurs", "fri", "satur", "sun"), "월화수목금토일", strict=True)
)
WEEKDAY = re.compile(
    rf"([{''.join(WEEKDAYS.values())}])요일|\b({'|'.join(WEEKDAYS)})day", re.IGNORECASE | re.ASCII
)
STATED = {
    "오전": re.compile(r"오전|(?<=\d) ?a\.?m\b", re.IGNORECASE | re.ASCII),
    "오후": re.compile(r"오후|(?<=\d) ?p\.?m\b", re.IGNORECASE | re.ASCII),
    "그저께": re.compile("그저께|그제(?!서)"),
    "어제": re.compile("어제|어젯밤"),
    "오늘": re.compile("오늘"),
    "내일": re.compile("내일(?!모레)"),
    "모레": re.compile("모레"),
    "지난주": re.compile("지난 ?주(?!말)"),
    "이번 주": re.compile("이번 ?주(?!말)"),
    "다음 주": re.compile("다음 ?주(?!말)"),
    "지난달": re.compile("지난 ?달"),
    "이번 달": re.compile("이번 ?달"),
    "다음 달": re.compile("다음 ?달"),
    "작년": re.compile("작년|지난해"),
    "올해": re.compile("올해"),
    "내년": re.compile("내년"),
}
"""Words of a time that a summary takes from its dialogue."""
IMPLIED = {
    "오전": re.compile(r"아침|새벽|오늘 일찍|morning|\ba\.?m\b", re.IGNORECASE | re.ASCII),
    "오후": re.compile(
        r"저녁|밤|점심|낮|afternoon|evening|night|noon|\bp\.?m\b|(?<!\d)(?:1[3-9]|2[0-3])(?:시|:\d)",
        re.IGNORECASE | re.ASCII,
    ),
    "그저께": re.compile("이틀 전|day before yesterday", re.IGNORECASE),
    "어제": re.compile("간밤|전날|하루 전|yesterday|last night", re.IGNORECASE),
    "오늘": re.compile(
        r"지금|이따|방금|금일|today|tonight|\bnow\b|this (?:morning|afternoon|evening)",
        re.IGNORECASE,
    ),
    "내일": re.compile("다음 ?날|익일|이튿날|tomorrow", re.IGNORECASE),
    "모레": re.compile("이틀 (?:뒤|후)|day after tomorrow", re.IGNORECASE),
    "지난주": re.compile("일주일 전|last week", re.IGNORECASE),
    "이번 주": re.compile("금주|주중|this week", re.IGNORECASE),
    "다음 주": re.compile("일주일 (?:뒤|후)|next week", re.IGNORECASE),
    "지난달": re.compile("한 달 전|last month", re.IGNORECASE),
    "이번 달": re.compile("this month", re.IGNORECASE),
    "다음 달": re.compile("한 달 (?:뒤|후)|next month", re.IGNORECASE),
    "작년": re.compile("일 년 전|1년 전|last year", re.IGNORECASE),
    "올해": re.compile("금년|이번 ?해|this year", re.IGNORECASE),
    "내년": re.compile("다음 ?해|next year", re.IGNORECASE),
}
"""What of a dialogue may be told in these words as well."""


def find_times(text: str) -> list[str]:
    """Return the times of a text: `7:30` of twelve hours, a weekday, or one of STATED."""
    found = [f"{day[1] or WEEKDAYS[day[2].lower()]}요일" for day in WEEKDAY.finditer(text)]
    found += [name for name, pattern in STATED.items() if pattern.search(text)]
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


def imply_times(text: str) -> list[str]:
    """Return which of STATED a dialogue may be told by, besides those that find_times gives."""
    return [name for name, pattern in IMPLIED.items() if pattern.search(text)]

"""Numbers in text, by value: in digits, in Korean words of both kinds, in English words.

Must not know dialogues or summaries.
"""

from __future__ import annotations

import re

_PART = r"\d[\d,]*(?:\.\d+)?"
PART = re.compile(rf"({_PART})\s?([십백천만억조]*)", re.ASCII)
DIGITS = re.compile(rf"(?:{_PART}\s?[십백천만억조]+\s?)*{_PART}(?:\s?[십백천만억조]+)?"
                    rf"|(?:{_PART}\s?[십백천만억조]+\s?)+", re.ASCII)  # fmt: skip
SINO_DIGITS = {"영": 0, "공": 0, "일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "칠": 7,
               "팔": 8, "구": 9}  # fmt: skip
SINO_UNITS = {"십": 10, "백": 100, "천": 1000}
SINO_GROUPS = {"만": 10**4, "억": 10**8, "조": 10**12}
SINO = re.compile(f"[{''.join((*SINO_DIGITS, *SINO_UNITS, *SINO_GROUPS))}]{{1,16}}")
NATIVE_TENS = {"열": 10, "스물": 20, "스무": 20, "서른": 30, "마흔": 40, "쉰": 50, "예순": 60,
               "일흔": 70, "여든": 80, "아흔": 90}  # fmt: skip
NATIVE_ONES = {"하나": 1, "한": 1, "둘": 2, "두": 2, "셋": 3, "세": 3, "넷": 4, "네": 4,
               "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9}  # fmt: skip
NATIVE = re.compile(
    f"(?P<tens>{'|'.join(NATIVE_TENS)})?(?P<ones>{'|'.join(NATIVE_ONES)})?", re.ASCII
)
COUNTERS = "년월일분원층번호인개살세시명달주배점장잔권병대곳쌍채박퍼킬미센그위유파엔"
NATIVE_COUNTERS = COUNTERS + "마가사블팀칸벌켤송줄통봉불"
"""First letters of what is counted; a lone syllable is a number only before one."""
ENGLISH = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100,
}  # fmt: skip
ENGLISH_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


def numbers_in_digits(text: str) -> dict[float, str]:
    """Return the numbers that are written in digits, value to spelling: 3만 5천 is 35,000."""
    found: dict[float, str] = {}
    for match in DIGITS.finditer(text):
        total = 0.0
        for part in PART.finditer(match.group()):
            value = float(part[1].replace(",", ""))
            for unit in part[2]:
                value *= (SINO_UNITS | SINO_GROUPS)[unit]
            total += value
        found.setdefault(total, match.group().rstrip(", "))
    return found


def numbers_in_words(text: str) -> set[float]:
    """Return the values of all that may be a number in words; rather one too many than too few."""
    found = {float(ENGLISH[word]) for word in map(str.lower, ENGLISH_WORD.findall(text))
             if word in ENGLISH}  # fmt: skip
    for match in SINO.finditer(text):
        if len(match.group()) > 1 or text[match.end() :].lstrip()[:1] in set(COUNTERS):
            found.add(float(sino_value(match.group())))
    for match in NATIVE.finditer(text):
        if match.group() and (
            len(match.group()) > 1 or text[match.end() :].lstrip()[:1] in set(NATIVE_COUNTERS)
        ):
            found.add(float(native_value(match.group())))
    return found


def sino_value(word: str) -> int:
    """Return the value of a Sino-Korean number (`삼백이십`, `이공이오`)."""
    total = group = digit = 0
    for char in word:
        if char in SINO_DIGITS:
            digit = digit * 10 + SINO_DIGITS[char]
        elif char in SINO_UNITS:
            group, digit = group + (digit or 1) * SINO_UNITS[char], 0
        else:
            total, group, digit = total + ((group + digit) or 1) * SINO_GROUPS[char], 0, 0
    return total + group + digit


def native_value(word: str) -> int:
    """Return the value of a native Korean number (`스물다섯`)."""
    match = NATIVE.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is no native Korean number")
    return NATIVE_TENS.get(match["tens"] or "", 0) + NATIVE_ONES.get(match["ones"] or "", 0)

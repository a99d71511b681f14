"""Names, numbers, times and masks: what is found in a text, and what another lacks."""

from __future__ import annotations

import pytest

from dialsum.score.facts import (
    find_facts,
    find_lacking,
    native_value,
    numbers_in_digits,
    numbers_in_words,
    sino_value,
)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("십", 10),
        ("이십오", 25),
        ("삼백이", 302),
        ("만", 10000),
        ("오만삼천", 53000),
        ("일억", 10**8),
        ("이공이오", 2025),
    ],
)
def test_sino_korean_numbers(word: str, value: int) -> None:
    assert sino_value(word) == value


@pytest.mark.parametrize(
    ("word", "value"), [("하나", 1), ("열", 10), ("열두", 12), ("스물다섯", 25), ("스무", 20)]
)
def test_native_korean_numbers(word: str, value: int) -> None:
    assert native_value(word) == value


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10,000원을 냈다", [10000]),
        ("3만 원", [30000]),
        ("2.5배, 100%", [2.5, 100]),
        ("1,2번", [12]),
        ("없다", []),
        ("끝 12.", [12]),
        ("3만 2천원과 1만 2천", [32000, 12000]),
        ("만 2천 원이다", [12000]),
        ("(만2천원)", [12000]),
        ("2억 3천만 원", [230_000_000]),
        ("1조 2천억", [1_200_000_000_000]),
        ("2.5만", [25000]),
        ("이만 5천 원", [25000]),
        ("5만 이천 원", [52000]),
        ("천 5백 원", [1500]),
        ("만 500원", [10500]),
        ("백 2십", [120]),
        ("10만 2백 5", [100_205]),
        # Two numbers, not their sum.
        ("2만 3만 원", [20000, 30000]),
        ("2천 5천", [2000, 5000]),
        ("3 2천", [3, 2000]),
        ("1만, 2천", [10000, 2000]),
        # A particle, an age, and words that begin as numbers do.
        ("책만 2천 원", [2000]),
        ("#만 2천 원", [2000]),
        ("만 19세", [19]),
        ("백 20명", [20]),
        ("3만이 든다", [30000]),
        ("3만 이 사람", [30000]),
        ("3만 천사", [30000]),
        ("10 만족", [10]),
        ("30 조각", [30]),
        ("10 만원", [100_000]),
        ("이 3명", [3]),
    ],
)
def test_numbers_in_digits(text: str, values: list[float]) -> None:
    assert list(numbers_in_digits(text)) == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("세 명", 3),
        ("이십 분", 20),
        ("스물다섯 살", 25),
        ("twenty people", 20),
        ("천오백 원", 1500),
        ("만 오천 원", 15000),
        ("책만 오천 원", 5000),
        ("만 원", 10000),
        ("이천만 삼천 원", 20_003_000),
    ],
)
def test_numbers_in_words(text: str, value: float) -> None:
    assert value in numbers_in_words(text)


def test_a_lone_syllable_is_no_number_without_something_counted() -> None:
    assert numbers_in_words("이 사람은 한국에 간다") == set()


FACTS = [
    ("오후 3시 30분에 만난다", "times", {"3:30"}),
    ("세 시 반에", "times", {"3:30"}),
    ("15:20에 금요일", "times", {"3:20", "금요일"}),
    ("3시간 동안 시험을 본다", "times", set()),
    ("간단한 시험이다", "times", set()),
    ("at seven o'clock on Friday", "times", {"7:00", "friday"}),
    ("#PhoneNumber#로 #Person1#에게", "masks", {"#PhoneNumber#"}),
    ("#Person1#은 서울에 간다", "names", {"서울"}),
    ("#Person1#은 Ruby와 간다", "names", {"Ruby"}),
    ("The man meets Ruby.", "names", {"Ruby"}),
    # mecab takes pieces of words that it does not know for names.
    ("그에게 알립니다.", "names", set()),
    ("패셔너블한 옷이다.", "names", set()),
    ("", "names", set()),
]


@pytest.mark.parametrize(("text", "kind", "expected"), FACTS)
def test_facts(text: str, kind: str, expected: set[str]) -> None:
    assert set(getattr(find_facts(text), kind)) == expected


@pytest.mark.parametrize(
    ("summary", "dialogue", "kind", "lacking"),
    [
        ("5명이 간다", "다섯 명이 가요", "numbers", []),
        ("5명이 간다", "여섯 명이 가요", "numbers", ["5"]),
        ("3만 원이다", "30,000원이에요", "numbers", []),
        ("3시에 만난다", "오후 세 시에 봐요", "times", []),
        ("3시에 만난다", "네 시에 봐요", "times", ["3:00"]),
        ("만 2천 원이다", "2천 원이에요", "numbers", ["만 2천"]),
        ("2천 원이다", "만 2천 원이에요", "numbers", ["2천"]),
        ("#Person1#만 2천 원을 낸다", "2천 원이에요", "numbers", []),
        ("서울에 간다", "서울역이요", "names", []),
        ("서울에 간다", "부산이요", "names", ["서울"]),
        ("#Email#로", "#PhoneNumber#로요", "masks", ["#Email#"]),
    ],
)
def test_what_a_dialogue_lacks(summary: str, dialogue: str, kind: str, lacking: list[str]) -> None:
    assert find_lacking(find_facts(summary), dialogue)[kind] == lacking


@pytest.mark.parametrize(
    ("summary", "dialogue"),
    [
        ("35,000원이다", "3만 5천 원이요"),
        ("3만 5천 원이다", "35,000원이요"),
        ("1억 2천만 원", "120,000,000원"),
        ("만 5천 원", "만 오천 원이요"),
        ("15,000원", "만 오천 원이요"),
        ("5천 원", "책만 오천 원"),
        ("2마리가 있다", "두 마리요"),
        ("2가지다", "두 가지요"),
        ("4사람이 간다", "네 사람이요"),
        ("3블록 간다", "세 블록이요"),
        ("1000위안", "천 위안이요"),
    ],
)
def test_numbers_in_other_words_are_supported(summary: str, dialogue: str) -> None:
    assert find_lacking(find_facts(summary), dialogue)["numbers"] == []


def test_noon_is_twelve_and_masks_are_no_speakers() -> None:
    assert find_lacking(find_facts("12시에 만난다"), "정오에 봐요")["times"] == []
    assert find_facts("#PERSON1#은 #PersonName#을").masks == frozenset({"#PersonName#"})

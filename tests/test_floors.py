"""The floors: what a constant and the first two turns earn, chosen without the references."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from dialsum.score.foreign import foreign_script_rate

from dialsum.errors import DataError
from dialsum.score.api import score_all_scales
from dialsum.score.floors import choose_constant, lead_two
from dialsum.score.rouge import TextPreparer
from dialsum.score.tokenise import load_tokeniser

LEADS = [
    ("", ""),
    (" \n ", ""),
    ("#Person1#:", ""),
    ("안녕", "안녕"),
    ("#Person1#: 안녕", "안녕"),
    ("#Person1#: 안녕\n#Person2#: 응\n#Person1#: 가자", "안녕 응"),
    ("#Person1#: 안녕\r\n#Person2#: 응\r\n#Person1#: 가자", "안녕 응"),
    ("#Person1#: 안녕<br>#Person2#: 응<br/>#Person1#: 가자", "안녕 응"),
    ("#Person1#: 안녕\\n#Person2#: 응\\n#Person1#: 가자", "안녕 응"),
    ("#Person1# : 안녕\n\n#Person2#：응\n#Person1#:가자", "안녕 응"),
    (
        "#Person1#: 안녕\n오랜만이야\n#Person2#: 응\n그래\n#Person1#: 가자",
        "안녕 오랜만이야 응 그래",
    ),
    (
        "#Person1#: 내 번호는 #PhoneNumber#: 꼭 전화해\n#Person2#: 응",
        "내 번호는 #PhoneNumber#: 꼭 전화해 응",
    ),
    ("첫 줄\n둘째 줄\n셋째 줄", "첫 줄 둘째 줄"),
]


@pytest.mark.parametrize(("dialogue", "lead"), LEADS)
def test_lead_two(dialogue: str, lead: str) -> None:
    assert lead_two(dialogue) == lead


def preparer(tokenizer: str = "whitespace", tags: str = "split") -> TextPreparer:
    return TextPreparer(load_tokeniser(tokenizer, tags=tags))


@pytest.mark.parametrize("summaries", [[], ["", "  "]])
def test_a_constant_needs_text(summaries: list[str]) -> None:
    with pytest.raises(DataError, match="train summaries has text"):
        choose_constant(summaries, preparer())


@pytest.mark.parametrize(
    ("summaries", "constant"),
    [
        (["하나 둘"], "하나 둘"),
        (["하나 둘", "하나 둘"], "하나 둘"),
        (["가 나 다 라", "가 나 다 마", "가 나 다 바", "사 아 자 차"], "가 나 다"),
    ],
)
def test_the_constant_is_what_summaries_share(summaries: list[str], constant: str) -> None:
    assert choose_constant(summaries, preparer()) == constant


def test_the_constant_depends_on_the_seed_alone() -> None:
    deeds = ("묻는다", "말한다", "권한다", "알린다")
    summaries = [f"#Person1#은 {number}번을 {deed}." for number in range(100) for deed in deeds]
    first = choose_constant(summaries, preparer("mecab"), seed=3)
    assert choose_constant(list(reversed(summaries)), preparer("mecab"), seed=3) == first


def read_korean(shared_dir: Path) -> tuple[list[dict[str, str]], list[str]]:
    tables = []
    for name in ("dev.csv", "train.csv"):
        with (shared_dir / "data" / "ko" / name).open(encoding="utf-8-sig", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables[0], [row["summary"] for row in tables[1]]


def test_floors_of_the_real_data_are_as_high_as_is_known(shared_dir: Path) -> None:
    """With one reference and split tags a constant earns about 36, two turns about 15."""
    dev, train = read_korean(shared_dir)
    references = [row["summary"] for row in dev]
    block = score_all_scales(
        references,
        [[text] for text in references],
        train_summaries=train,
        dialogues=[row["dialogue"] for row in dev],
    )
    assert block["rouge_mean"] == 100.0
    assert 34 < block["floors"]["constant"]["rouge_mean"] < 38
    assert 13 < block["floors"]["lead2"]["rouge_mean"] < 17
    assert 22 < block["tags_one"]["floors"]["constant"]["rouge_mean"] < 26
    assert block["whitespace"]["floors"]["constant"]["rouge_mean"] < 10


FOREIGN = [
    ([], 0.0),
    ([""], 0.0),
    (["#Person1#은 café에서 10,000원을 냈다! (약 3 km, 5 µm, 2 ℓ) 😀 ㅋㅋ ① ½ ㈜"], 0.0),
    (["Ｆｕｌｌ ｗｉｄｔｈ", "ﾡ"], 0.0),
    (["안녕", "привет"], 50.0),
    (["그는 ь"], 100.0),
    (["مرحبا", "สวัสดี", "こんにちは", "漢字", "α", "안녕"], 500 / 6),
]


@pytest.mark.parametrize(("texts", "percent"), FOREIGN)
def test_foreign_script_rate(texts: list[str], percent: float) -> None:
    assert foreign_script_rate(texts) == pytest.approx(percent)

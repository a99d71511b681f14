"""The floors: what a constant and the first two turns earn, chosen without the references."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.errors import DataError
from dialsum.score.api import (
    choose_constant,
    lead,
    other_summaries,
    score_report,
    score_texts,
    split_turns,
)
from dialsum.score.files import read_references
from dialsum.score.rouge import load_tokeniser
from dialsum.score.rows import Rows

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
    ("#Person1#: C:\\new를 봐\n#손님#: 응\n#Person1#: 네", "C:\\new를 봐 응"),
]


@pytest.mark.parametrize(("dialogue", "expected"), LEADS)
def test_lead_two(dialogue: str, expected: str) -> None:
    assert lead(split_turns(dialogue), 2) == expected


def test_leads_and_the_longest() -> None:
    dialogue = "#Person1#: 네\n#Person2#: 어디 가요?\n#Person1#: 집"
    same = Rows(["네"] * 2, [["네"]] * 2, [dialogue, "네"])
    for name, text in {"lead1": "네", "lead3": "네 어디 가요? 집", "longest": "어디 가요?"}.items():
        alone = score_texts([text, "네"], [["네"]] * 2).rouge_mean
        assert score_report(same)["floors"][name]["rouge_mean"] == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("rows", [2, 3, 50, 1024, 1025, 1026, 2049])
def test_another_row_s_summary_is_never_its_own(rows: int) -> None:
    summaries = [f"요약 {row}" for row in range(rows)]
    others = other_summaries(summaries)
    assert sorted(others) == sorted(summaries)
    assert all(one != other for one, other in zip(summaries, others, strict=True))
    assert other_summaries(summaries) == others


@pytest.mark.parametrize("summaries", [[], ["", "  "]])
def test_a_constant_needs_text(summaries: list[str]) -> None:
    with pytest.raises(DataError, match="train summaries has text"):
        choose_constant(summaries, load_tokeniser("whitespace"))


@pytest.mark.parametrize(
    ("summaries", "constant"),
    [
        (["하나 둘"], "하나 둘"),
        (["하나 둘", "하나 둘"], "하나 둘"),
        (["가 나 다 라", "가 나 다 마", "가 나 다 바", "사 아 자 차"], "가 나 다"),
    ],
)
def test_the_constant_is_what_summaries_share(summaries: list[str], constant: str) -> None:
    assert choose_constant(summaries, load_tokeniser("whitespace")) == constant


def test_the_constant_depends_on_the_seed_alone() -> None:
    deeds = ("묻는다", "말한다", "권한다", "알린다")
    summaries = [f"#Person1#은 {number}번을 {deed}." for number in range(100) for deed in deeds]
    first = choose_constant(summaries, load_tokeniser("mecab"), seed=3)
    assert choose_constant(list(reversed(summaries)), load_tokeniser("mecab"), seed=3) == first


def test_floors_of_the_real_data_are_as_high_as_is_known(shared_dir: Path) -> None:
    """With one reference and split tags a constant earns about 37, two turns about 15."""
    dev, train = (
        read_references([shared_dir / f"data/ko/{name}.csv"]) for name in ("dev", "train")
    )
    references = list(dev.summaries.values())
    rows = Rows([text for (text,) in references], references, list(dev.dialogues.values()))
    block = score_report(rows, train_summaries=[text for (text,) in train.summaries.values()])
    assert block["rouge_mean"] == 100.0
    assert 36 < block["floors"]["constant"]["rouge_mean"] < 39
    assert 13 < block["floors"]["lead2"]["rouge_mean"] < 17
    assert 26 < block["tags_one"]["floors"]["constant"]["rouge_mean"] < 30
    assert 8 < block["whitespace"]["floors"]["constant"]["rouge_mean"] < 12


def test_the_search_does_not_stop_at_the_first_text(repository: Path) -> None:
    """On the sample the best whole summary has 34, and a search that gives up early 36."""
    references = read_references([repository / "data" / "sample" / "dev.csv"])
    texts = list(references.summaries.values())
    train = read_references([repository / "data" / "sample" / "train.csv"]).summaries
    constant = choose_constant([text for (text,) in train.values()], load_tokeniser("mecab"))
    assert score_texts([constant] * len(texts), texts).rouge_mean > 40.5

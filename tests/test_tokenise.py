"""What each tokeniser makes of text, tags, particles and Unicode forms."""

from __future__ import annotations

import csv
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import mecab
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialsum.data.tags import find_tags
from dialsum.errors import UnfitError
from dialsum.score import rouge as tokenise
from dialsum.score.rouge import (
    TAG_TREATMENTS,
    TOKENIZERS,
    analyse,
    load_tokeniser,
    normalise,
    split_lines,
)

CASES = [
    # tokenizer, tags, text, tokens
    ("mecab", "split", "", []),
    ("mecab", "one", "", []),
    ("mecab", "removed", "#Person1#", []),
    ("whitespace", "split", " \n\t ", []),
    ("char", "removed", "#Person1# #Person2#", []),
    ("english", "split", "안녕하세요.", []),
    ("mecab", "split", "#Person1#은 갔다.", ["#", "Person", "1", "#", "은", "갔", "다", "."]),
    ("mecab", "one", "#Person1#은 갔다.", ["#Person1#", "은", "갔", "다", "."]),
    ("mecab", "removed", "#Person1#은 갔다.", ["은", "갔", "다", "."]),
    ("mecab", "split", "#PhoneNumber#로 전화", ["#", "PhoneNumber", "#", "로", "전화"]),
    ("mecab", "one", "#PhoneNumber#로 전화", ["#PhoneNumber#", "로", "전화"]),
    # Morphemes that reach over a tag's edge: mecab takes `.#`, `##` and `#!?` as one.
    ("mecab", "one", "끝.#Person1#", ["끝", ".", "#Person1#"]),
    ("mecab", "one", "#Person1##Person2#", ["#Person1#", "#Person2#"]),
    ("mecab", "one", "##Person2#!?", ["#", "#Person2#", "!?"]),
    ("mecab", "one", "#Person1 은", ["#", "Person", "1", "은"]),
    ("mecab", "one", "#@이름#은 #@시스템#사진#을", ["#@이름#", "은", "#@시스템#사진#", "을"]),
    ("mecab", "removed", "#고객명#은 갔다.", ["은", "갔", "다", "."]),
    ("whitespace", "one", "#맛집#카페#여행 #고객명#께", ["#맛집#카페#여행", "#고객명#", "께"]),
    ("kiwi", "one", "#Person1#은 갔다.", ["#Person1#", "은", "가", "었", "다", "."]),
    ("kiwi", "removed", "#Person1#은 갔다.", ["은", "가", "었", "다", "."]),
    ("whitespace", "split", "#Person1#은  #Person2#에게", ["#Person1#은", "#Person2#에게"]),
    ("whitespace", "one", "#Person1#은  #Person2#에게", ["#Person1#", "은", "#Person2#", "에게"]),
    ("whitespace", "removed", "#Person1#은 간다", ["은", "간다"]),
    ("char", "split", "#Ab#은 집", ["#", "A", "b", "#", "은", "집"]),
    ("char", "one", "#Ab#은 집", ["#Ab#", "은", "집"]),
    ("english", "split", "#Person1#'s friends met.", ["person1", "s", "friend", "met"]),
    ("english", "one", "#Person1#'s friends met.", ["#person1#", "s", "friend", "met"]),
    ("english", "removed", "#Person1#'s friends met.", ["s", "friend", "met"]),
]


@pytest.mark.parametrize(("tokenizer", "tags", "text", "tokens"), CASES)
def test_tokens(tokenizer: str, tags: str, text: str, tokens: list[str]) -> None:
    assert load_tokeniser(tokenizer, tags=tags)(text) == tokens


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("tags", TAG_TREATMENTS)
def test_unicode_form_and_white_space_do_not_count(tokenizer: str, tags: str) -> None:
    tokeniser = load_tokeniser(tokenizer, tags=tags)
    text = "#Person1#은 카페에서 café 커피를 마신다."
    messy = "\u3000" + unicodedata.normalize("NFD", text).replace(" ", " \r\n\u00a0")
    assert tokeniser(messy) == tokeniser(text) != []


def test_nul_does_not_end_the_text() -> None:
    assert load_tokeniser("mecab")("병원\0약국") == load_tokeniser("mecab")("병원 약국")


def test_white_space_and_lines() -> None:
    for text, folded in [("", ""), (" \n", ""), ("a\r\nb", "a b"), ("\u1112\u1161\u11ab", "한")]:
        assert normalise(text) == folded
    for text, lines in [("", []), ("\n \n", []), ("a", ["a"]), ("a\r\n\rb\nc\n", ["a", "b", "c"])]:
        assert split_lines(text) == lines


KOREAN = st.text(alphabet='가나다은는에게 #@Person12.,!?("😀Aé한', max_size=40)


@given(KOREAN)
def test_mecab_loses_no_character_under_any_treatment_of_tags(text: str) -> None:
    bare = normalise(text).replace(" ", "")
    assert "".join(load_tokeniser("mecab")(text)) == bare
    tokens = load_tokeniser("mecab", tags="one")(text)
    assert "".join(tokens) == bare
    remaining = iter(tokens)
    assert all(tag in remaining for tag in find_tags(normalise(text)))


@given(KOREAN)
@settings(deadline=None)
def test_removed_is_one_without_the_tags(text: str) -> None:
    for name in TOKENIZERS:
        tokens = Counter(load_tokeniser(name, tags="one")(text))
        tags = find_tags(normalise(text))
        tokens.subtract(tag.lower() if name == "english" else tag for tag in tags)
        assert +tokens == Counter(load_tokeniser(name, tags="removed")(text))
        assert min(tokens.values(), default=0) >= 0


def test_mecab_keeps_the_morphemes_that_the_library_gives(shared_dir: Path) -> None:
    with (shared_dir / "data/ko/dev.csv").open(encoding="utf-8-sig", newline="") as file:
        texts = [normalise(row["summary"]) for row in csv.DictReader(file)]
    analyser, tokeniser = mecab.MeCab(), load_tokeniser("mecab")
    for text in texts:
        theirs, (spans, kinds, _) = analyser.parse(text), analyse(text)
        assert tokeniser(text) == [one.surface for one in theirs]
        assert list(zip(spans, kinds, strict=True)) == [(one.span, one.pos) for one in theirs]


@pytest.mark.parametrize(("name", "tags"), [("", "split"), ("Mecab", "split"), ("mecab", "keep")])
def test_unknown_names_are_refused_with_the_known_ones(name: str, tags: str) -> None:
    with pytest.raises(UnfitError, match=r"mecab, kiwi, whitespace, char|split, one, removed"):
        load_tokeniser(name, tags=tags)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("mecab", "mecab", "python-mecab-ko"),
        ("english", "rouge_score", "rouge-score"),
        ("kiwi", "kiwipiepy", "kiwipiepy"),
    ],
)
def test_a_missing_library_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    for load in (tokenise._load_mecab, tokenise._load_kiwi, tokenise._load_english):
        load.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    file = r"requirements(-kiwi)?\.txt"
    with pytest.raises(UnfitError, match=rf"{package}.*pip install -r {file}"):
        load_tokeniser(name)


def test_labels_carry_versions() -> None:
    for name, pattern in {
        "mecab": r"mecab-ko-\d[\w.]*/dic-\d[\w.]*",
        "kiwi": r"kiwi-\d[\w.]*/model-\d[\w.]*",
        "whitespace": "whitespace",
        "char": "char",
        "english": r"rouge_score-\d[\w.]*-porter",
    }.items():
        tokeniser = load_tokeniser(name)
        assert re.fullmatch(pattern, tokeniser.label)
        assert tokeniser.case == ("lower" if name == "english" else "kept")

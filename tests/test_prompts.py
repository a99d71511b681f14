"""What the model reads, and which words of the data are tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.data.prompts import STANDARD_DIALOGUE_TOKENS, build_input, find_dialogue_tokens
from dialsum.data.rows import load_splits


@pytest.mark.parametrize(
    ("prefix", "dialogue", "text"),
    [
        ("", "", ""),
        ("", "#Person1#: 네", "#Person1#: 네"),
        ("요약: ", "#Person1#: 네\n#Person2#: 응", "요약: #Person1#: 네\n#Person2#: 응"),
    ],
)
def test_prefix_stands_before_the_dialogue(prefix: str, dialogue: str, text: str) -> None:
    assert build_input(prefix, dialogue) == text


def test_standard_tokens_are_seven_speakers_and_nine_masks() -> None:
    assert len(STANDARD_DIALOGUE_TOKENS) == len(set(STANDARD_DIALOGUE_TOKENS)) == 7 + 9
    assert {"#Person1#", "#Person7#", "#SSN#"} <= set(STANDARD_DIALOGUE_TOKENS)


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [
        ([], []),
        (["", ""], []),
        (["#Person1#: 네"], []),
        (["#Person1#: 네", "#Person1#은 답한다."], ["#Person1#"]),
        (["#Person1#: a\n#Person1#: b"], []),
        (["#Person2#: 네 #Person1#", "#Person1#과 #Person2#는"], ["#Person1#", "#Person2#"]),
        (["#손님#: 네", "#손님#이 온다"], ["#손님#"]),
        (["번호는 #계좌_번호2#입니다"] * 2, ["#계좌_번호2#"]),
        (["#1 번 #2"] * 2, []),
        (["#1#번"] * 2, []),
        (["##"] * 2, []),
        (["#Person 1#: 네"] * 2, []),
        (["#맛집#카페#여행"] * 2, []),
        (["#맛집 #카페 #여행"] * 2, []),
        (["#Person1##Person2#"] * 2, ["#Person1#", "#Person2#"]),
        (["#@이름#이 #@시스템#사진#을"] * 2, ["#@시스템#사진#", "#@이름#"]),
        (["#food#cafe#travel"] * 2, []),
        (["C#과 F#을"] * 2, []),
        ([f"#{'a' * 31}#"] * 2, []),
    ],
)
def test_finds_tags_and_no_hashtags(texts: list[str], tokens: list[str]) -> None:
    assert find_dialogue_tokens(texts) == tokens


def test_order_of_texts_does_not_matter() -> None:
    texts = ["#B# #A#", "#C# #A#", "#B# #C#"]
    assert find_dialogue_tokens(texts) == find_dialogue_tokens(texts[::-1]) == ["#A#", "#B#", "#C#"]


def test_tags_of_the_real_data_are_standard_ones(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ko"
    rows = load_splits(folder / "train.csv", folder / "dev.csv", test=None).train.rows
    found = find_dialogue_tokens(text for row in rows for text in (row.dialogue, row.summary or ""))
    assert {"#Person1#", "#Person2#", "#PhoneNumber#"} <= set(found)
    assert set(found) <= set(STANDARD_DIALOGUE_TOKENS)

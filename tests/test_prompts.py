"""What the model reads, and which words of the data are tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS, find_dialogue_tokens
from dialsum.data.rows import load_splits


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [
        ([], []),
        (["", ""], []),
        (["#Person1#: 네"], []),
        (["#Person1#: 네", "#Person1#은 답한다."], ["#Person1#"]),
        (["#Person1#: a\n#Person1#: b"], []),
        (["#Person2#: 네 #Person1#", "#Person1#과 #Person2#는"], ["#Person1#", "#Person2#"]),
        (["#손님#: 네", "#손님#이 #Person1##Person2#"] * 2, ["#Person1#", "#Person2#", "#손님#"]),
        (["#맛집#카페#여행", "C#과 F#을 #1#번 #Person 1#"] * 2, []),  # more in test_tags.py
        (["#B# #A#", "#C# #A#", "#B# #C#"], ["#A#", "#B#", "#C#"]),
    ],
)
def test_finds_tags_that_come_again(texts: list[str], tokens: list[str]) -> None:
    assert find_dialogue_tokens(texts) == find_dialogue_tokens(texts[::-1]) == tokens


def test_tags_of_the_real_data_are_standard_ones(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ko"
    rows = load_splits(folder / "train.csv", folder / "dev.csv", test=None).train.rows
    found = find_dialogue_tokens(text for row in rows for text in (row.dialogue, row.summary or ""))
    assert {"#Person1#", "#Person2#", "#PhoneNumber#"} <= set(found)
    assert set(found) <= set(STANDARD_DIALOGUE_TOKENS)

"""The grammar of tags: what is one, what is none, and when one is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dialsum.data.submission import remark_on_summaries
from dialsum.data.tags import find_tags, has_broken_tag, loose_tags, tag_spans, without_tags
from dialsum.score.api import lead, split_turns
from dialsum.score.unseen import find_facts, find_foreign

REPOSITORY = Path(__file__).resolve().parent.parent

TAGS = [
    ("", []),
    ("#", []),
    ("##", []),
    ("#1#번", []),
    ("#1 번 #2", []),
    ("#Person1#", ["#Person1#"]),
    ("#Person1##Person2#", ["#Person1#", "#Person2#"]),
    ("#Person1#과#Person2#", ["#Person1#", "#Person2#"]),
    # An odd mark beside a tag that begins with a capital takes nothing from it.
    ("#Person1#은 #Person2", ["#Person1#"]),
    ("#Person1#Person2#", ["#Person1#"]),
    ("#SSN#와 #DateOfBirth#", ["#SSN#", "#DateOfBirth#"]),
    ("#person1#은", ["#person1#"]),
    ("#고객명#님, #계좌_번호2#로", ["#고객명#", "#계좌_번호2#"]),
    ("(#고객명#)", ["#고객명#"]),
    ("#고객명#님#주소#", ["#고객명#", "#주소#"]),
    ("#@이름#", ["#@이름#"]),
    ("#@이름#이랑#@이름#이", ["#@이름#", "#@이름#"]),
    ("#@이름#과#고객명#은", ["#@이름#", "#고객명#"]),
    ("#@이름##@계정#", ["#@이름#", "#@계정#"]),
    ("#@시스템#사진#", ["#@시스템#사진#"]),
    ("#@시스템#사진##@시스템#동영상#", ["#@시스템#사진#", "#@시스템#동영상#"]),
    ("#@URL#을 #@이모티콘#", ["#@URL#", "#@이모티콘#"]),
    ("#맛집#카페#여행", []),
    ("#맛집 #카페 #여행", []),
    ("#food#cafe#travel", []),
    ("C#과 F#을", []),
    (f"#{'가' * 30}#", [f"#{'가' * 30}#"]),
    (f"#{'가' * 31}#", []),
]


@pytest.mark.parametrize(("text", "tags"), TAGS)
def test_finds_tags(text: str, tags: list[str]) -> None:
    assert find_tags(text) == tags
    assert [text[start:end] for start, end in tag_spans(text)] == tags
    assert without_tags(text, "").count("#") == text.count("#") - "".join(tags).count("#")


BROKEN = [
    # summary, its dialogue, is it broken
    ("", "", False),
    ("#Person1#은 간다.", "#Person1#: 네", False),
    ("#Person1은 간다.", "#Person1#: 네", True),
    ("Person1은 간다.", "#Person1#: 네", True),
    ("#person1#은 간다.", "#Person1#: 네", True),
    ("# Person1#은 간다.", "#Person1#: 네", True),
    ("#Person1 #은 간다.", "#Person1#: 네", True),
    ("#Person1#은 # 간다.", "#Person1#: 네", True),
    ("#@이름#은 #@시스템#사진#을 보낸다.", "#Person1#: 네", False),
    ("#@이름은 간다.", "#Person1#: #@이름#", True),
    ("#고객명#은 #주소#로 간다.", "#고객명#: 네", False),
    ("#고객명은 간다.", "#고객명#: 네", True),
    ("#1호차#는 간다.", "#1호차#: 네", False),
    ("#1호차#는 간다.", "#Person1#: 네", True),
    ("#담당 직원#은 간다.", "#담당 직원#: 네", False),
    ("Person1은 간다.", "Person1: 네", False),
    ("#Person1#은 간다.", "Person1: 네", False),
    ("#Person1은 간다.", "Person1: 네", True),
    ("#person1#은 간다.", "#person1#: 네", False),
    ("#맛집#카페#여행을 올린다.", "#Person1#: #맛집#카페#여행을 올려", False),
    ("C#을 배운다.", "#Person1#: C#과 F#", False),
    ("C#을 배운다.", "#Person1#: 씨샵", True),
    ("# 버튼을 누르라고 한다.", "#Person1#: # 버튼을 누르세요.", False),
    ("우물정(#)자를 누른다.", "#Person1#: 우물정(#)자요.", False),
    ("우물정(#)자를 누른다.", "#Person1#: 우물정자요.", True),
    ("# Person1#은 # 버튼을 누른다.", "#Person1#: # 버튼을 누르세요.", True),
    ("#Person1은 # 버튼을 누른다.", "#Person1#: # 버튼을 누르세요.", True),
    ("#101호다.", "#Person1#: #101호예요.", False),
    ("#101호다.", "#Person1#: #101호입니다.", False),
    ("#1을 고른다.", "#Person1#: #1이요", False),
    ("#102호다.", "#Person1#: #101호예요.", True),
    ("#고객은 간다.", "#고객#: #101호예요.", True),
    ("#Person1은 간다.", "#Person1#: #Party로 와", True),
]


@pytest.mark.parametrize(("summary", "dialogue", "broken"), BROKEN)
def test_a_tag_that_its_dialogue_has_is_not_broken(
    summary: str, dialogue: str, broken: bool
) -> None:
    assert has_broken_tag(summary, source=dialogue) == broken
    faults = remark_on_summaries({"a": summary}, {"a": dialogue}).faults
    assert any("broken tag" in fault for fault in faults) == broken


def test_a_tag_that_train_has_is_not_broken() -> None:
    assert has_broken_tag("#1호차#는 간다.")
    assert not has_broken_tag("#1호차#는 간다.", known=["#1호차#"])
    assert not remark_on_summaries({"a": "#1호차#"}, {"a": ""}, known=["#1호차#"]).faults
    written = "#고객 A#은 #@소속 기관#에 C#을 # #맛집#카페#여행에 올린다."
    known = loose_tags(f"#Person1#: 네\n{written}")
    for tag in ("#고객 A#", "#@소속 기관#", "C#", "#맛집#카페#여행에"):
        assert has_broken_tag(f"{tag} 간다.") and not has_broken_tag(f"{tag} 간다.", known=known)
    for broken in ("#", "#Person1", "#고객", "#@소속"):
        assert has_broken_tag(f"{broken} 간다.", known=known)


def test_korean_tags_count_as_others_in_scores() -> None:
    assert set(find_facts("#고객명#이 #@시스템#사진#을 보낸다.")["masks"]) == {
        "#고객명#",
        "#@시스템#사진#",
    }
    assert lead(split_turns("#고객#: 안녕\n#@상담사#: 네"), 2) == "안녕 네"
    assert find_foreign("#@URL#을 보낸다.", "#Person1#: 네") == {}


def test_no_other_module_has_a_pattern_of_tags() -> None:
    pattern = re.compile(r"""r?f?["'][^"'\n]*#(?:\\w|\(|\[|@)[^"'|\n]*#""")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (REPOSITORY / "code" / "dialsum").rglob("*.py")
        if path.name != "tags.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []

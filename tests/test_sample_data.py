"""The sample data: what the script makes is what is committed, and it has the form of real data."""

from __future__ import annotations

import csv
import importlib
import re
import statistics
import sys
import unicodedata
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "data" / "sample"
FILES = {
    "train.csv": (600, ["fname", "dialogue", "summary", "topic"]),
    "dev.csv": (80, ["fname", "dialogue", "summary", "topic"]),
    "test.csv": (80, ["fname", "dialogue"]),
    "test_references.csv": (80, ["fname", "summary", "topic"]),
}
MASKS = {
    "#PhoneNumber#",
    "#Address#",
    "#Email#",
    "#CardNumber#",
    "#PassportNumber#",
    "#PersonName#",
    "#DateOfBirth#",
    "#CarNumber#",
}
TURN = re.compile(r"#Person([1-4])#: \S.*")
LONGEST_COPY = 0.3
"""Share of a summary that may stand word for word, in one piece, in its dialogue."""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as a module, with its folder on the path as when it is run."""
    folder = str(REPOSITORY / "scripts")
    sys.path.insert(0, folder)
    yield importlib.import_module("make_sample_data")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def grammar(script: ModuleType) -> ModuleType:
    """The language of the scenes."""
    assert script.SCENES.is_dir()
    return importlib.import_module("sample_scenes.grammar")


@pytest.fixture(scope="module")
def scenes(script: ModuleType) -> dict[str, Any]:
    """Every situation by name."""
    found, _ = script.read_scenes(script.SCENES)
    return dict(found)


def read(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows() -> list[dict[str, str]]:
    """Every row with dialogue, summary and topic; test joined to its references by fname."""
    references = {row["fname"]: row for row in read("test_references.csv")}
    tests = [row | references[row["fname"]] for row in read("test.csv")]
    return [*read("train.csv"), *read("dev.csv"), *tests]


def speakers(dialogue: str) -> set[str]:
    return set(re.findall(r"^#Person(\d)#:", dialogue, flags=re.MULTILINE))


def sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.?!])\s", text) if part.strip()]


def longest_copy(summary: str, dialogue: str) -> float:
    match = SequenceMatcher(None, summary, dialogue, autojunk=False).find_longest_match()
    return match.size / len(summary)


def ends_in_vowel(value: str) -> bool:
    return (ord(value[-1]) - 0xAC00) % 28 == 0


def test_committed_files_are_what_the_script_makes(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--output-dir", str(tmp_path)]) == 0
    for name in FILES:
        assert (SAMPLE / name).read_bytes() == (tmp_path / name).read_bytes(), (
            f"{name} differs: run python scripts/make_sample_data.py and commit data/sample"
        )


def test_another_seed_gives_other_rows(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--output-dir", str(tmp_path), "--seed", "8"]) == 0
    assert (SAMPLE / "train.csv").read_bytes() != (tmp_path / "train.csv").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_rows_columns_and_names(name: str) -> None:
    count, columns = FILES[name]
    found = read(name)
    assert len(found) == count
    assert list(found[0]) == columns
    split = name.split(".")[0].removesuffix("_references")
    assert [row["fname"] for row in found] == [f"sample_{split}_{n}" for n in range(count)]
    assert all(value for row in found for value in row.values())


def test_every_line_is_a_turn_of_the_next_or_a_known_speaker() -> None:
    for row in rows():
        lines = row["dialogue"].split("\n")
        numbers = []
        for line in lines:
            match = TURN.fullmatch(line)
            assert match, f"{row['fname']}: not a turn: {line!r}"
            numbers.append(int(match[1]))
        assert list(dict.fromkeys(numbers)) == list(range(1, max(numbers) + 1)), row["fname"]
        assert all(a != b for a, b in pairwise(numbers)), row["fname"]


def test_lengths_are_like_real_data() -> None:
    train = read("train.csv")
    dialogues = [len(row["dialogue"]) for row in train]
    summaries = [len(row["summary"]) for row in train]
    assert 380 <= statistics.mean(dialogues) <= 430
    assert 78 <= statistics.mean(summaries) <= 92
    assert 150 <= min(dialogues) < 200 and 600 < max(dialogues) <= 900
    assert max(summaries) <= 160


def test_there_are_many_situations_and_every_split_has_them_all(
    script: ModuleType, scenes: dict[str, Any]
) -> None:
    assert len(scenes) >= 36
    assert all(len(scene["outcomes"]) >= 2 for scene in scenes.values())
    _, vocabulary = script.read_scenes(script.SCENES)
    splits = script.make_splits(scenes, vocabulary, seed=7)
    for split, samples in splits.items():
        assert {sample.scene for sample in samples} == set(scenes), split


def test_two_to_four_speakers() -> None:
    counts = [len(speakers(row["dialogue"])) for row in rows()]
    assert set(counts) == {2, 3, 4}
    assert 0.6 < counts.count(2) / len(counts) < 0.95


def test_masks_are_present_and_no_other_tag_is() -> None:
    found = {
        tag
        for row in rows()
        for tag in re.findall(r"#\w+?#", row["dialogue"] + row["summary"])
        if not tag.startswith("#Person") or tag == "#PersonName#"
    }
    assert found == MASKS
    assert any("#PhoneNumber#" in row["summary"] for row in rows())


def test_summary_names_only_speakers_of_its_dialogue() -> None:
    for row in rows():
        named = set(re.findall(r"#Person(\d)#", row["summary"]))
        assert named <= speakers(row["dialogue"]), row["fname"]


def test_summary_is_no_copy_of_its_dialogue() -> None:
    for row in rows():
        assert len(row["summary"]) < len(row["dialogue"]), row["fname"]
        turns = {part for line in row["dialogue"].split("\n") for part in sentences(line[11:])}
        assert not turns & set(sentences(row["summary"])), row["fname"]
        assert longest_copy(row["summary"], row["dialogue"]) <= LONGEST_COPY, row["fname"]


def test_text_is_clean_and_of_one_style() -> None:
    for row in rows():
        for text in (row["dialogue"], row["summary"], row["topic"]):
            assert unicodedata.is_normalized("NFC", text), row["fname"]
            assert not re.search(r"[{}()|]|[ \t]{2}|\s\n|\n\s|\r|\s[.,?!]|[.,?!]{2}", text), row
            assert text == text.strip(), row["fname"]
        told = sentences(row["summary"])
        assert all(part.endswith("다.") for part in told), row["summary"]
        assert len({part.endswith("니다.") for part in told}) == 1, row["summary"]


def test_particles_after_tags() -> None:
    wrong = re.compile(
        r"#Person[13]#(?:는|가|를|와)\b|#Person[24]#(?:은|이|을|과)\b|#Person[124]#으로\b|#Person3#로\b"
    )
    for row in rows():
        assert not wrong.search(row["dialogue"] + row["summary"]), row["summary"]


def test_particles_after_slot_values(script: ModuleType, scenes: dict[str, Any]) -> None:
    _, vocabulary = script.read_scenes(script.SCENES)
    own = [values for scene in scenes.values() for values in scene["slots"].values()]
    lists = [*vocabulary.values(), *(values for values in own if isinstance(values, list))]
    values = {value for entries in lists for value in entries if isinstance(value, str)}
    wrong = []
    after_consonant = "은|을|과|으로|이(?:라고|라도|라면|야|나|랑|에요|었어요?|고|네요?|면)"
    for after_vowel, particles in ((True, after_consonant), (False, "는|를|와|라고|야|예요|랑")):
        group = "|".join(re.escape(v) for v in values if ends_in_vowel(v) == after_vowel)
        wrong.append(rf"(?:{group})(?:{particles})")
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(wrong)})(?!\w)")
    assert pattern.search("새 청소기을 샀다.") and pattern.search("이어폰를 샀다.")
    for row in rows():
        assert not pattern.search(row["dialogue"] + "\n" + row["summary"]), row["fname"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"opening": ["어서 오세요."]}, "not a turn"),
        ({"opening": ["c: {gone:을} 샀어요."]}, "gone"),
        ({"opening": ["c: {thing:처음} 샀어요."]}, "unknown particle"),
        ({"opening": ["c: {thing:이가} 샀어요."]}, "unknown particle"),
        ({"slots": {"thing": "gone"}}, "no vocabulary 'gone'"),
        ({}, "only 1 different rows of 5"),
    ],
)
def test_an_unfit_scene_is_refused_with_its_reason(
    script: ModuleType, grammar: ModuleType, change: dict[str, Any], said: str
) -> None:
    long_turn = "c: {thing:을} 샀어요. " + "아주 긴 이야기예요. " * 20
    scene = {
        "topics": ["구매"],
        "slots": {"thing": ["가방"]},
        "opening": [long_turn],
        "outcomes": {"end": {"then": "s: 네.", "summary": "{c:은} {thing:을} 산다. " * 3}},
    } | change
    with pytest.raises(grammar.SceneError, match=re.escape(said)):
        script.make_scene_rows("shop", scene, {}, rows=5, seed=1)

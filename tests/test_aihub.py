"""AI-Hub's dialogue summaries: converted by one command, named where they are given as data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.rows import load_split
from dialsum.errors import DataError
from dialsum.score.files import read_references

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "convert_aihub.py"


def item(name: str, *turns: tuple[str, str], summary: str | None = "둘이 말한다.") -> Any:
    """Return one dialogue in AI-Hub's form."""
    body: dict[str, Any] = {
        "dialogue": [
            {
                "utteranceID": f"U{number}",
                "turnID": f"T{number}",
                "participantID": who,
                "date": "2020-11-03",
                "time": "16:39:00",
                "utterance": said,
            }
            for number, (who, said) in enumerate(turns, start=1)
        ]
    }
    if summary is not None:
        body["summary"] = summary
    info = {"numberOfParticipants": 2, "topic": "상거래(쇼핑)", "dialogueID": name}
    people = [{"age": "20대", "gender": "여성", "participantID": who} for who in ("P01", "P02")]
    return {"header": {"dialogueInfo": info, "participantsInfo": people}, "body": body}


FIRST = item(
    "a1",
    ("P02", "#@이름#아 봐 #@시스템#사진#"),
    ("P01", "오,\n예쁘다"),
    ("P02", "그치"),
    summary="P02가 #@이름#에게 사진을 보인다. P03은 없다.",
)
SECOND = item("a2", ("P01", "네"), ("P02", "응"))


def write(path: Path, *items: Any, **layout: Any) -> Path:
    """Write dialogues as AI-Hub's files are."""
    text = json.dumps({"numberOfItems": len(items), "data": items}, ensure_ascii=False, **layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def convert(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=False
    )


def test_a_folder_becomes_train_rows(tmp_path: Path) -> None:
    write(tmp_path / "in" / "[라벨]쇼핑" / "a.json", FIRST)
    write(tmp_path / "in" / "b.json", SECOND, indent=1)
    output = tmp_path / "train.csv"
    done = convert(tmp_path / "in", "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 dialogues with fname, dialogue, summary, topic" in done.stdout
    rows = {row.fname: row for row in load_split(output, kind="train").rows}
    assert rows["a1"].dialogue == (
        "#Person1#: #@이름#아 봐 #@시스템#사진#\n#Person2#: 오, 예쁘다\n#Person1#: 그치"
    )
    assert rows["a1"].summary == "#Person1#가 #@이름#에게 사진을 보인다. P03은 없다."
    assert rows["a2"].dialogue == "#Person1#: 네\n#Person2#: 응"
    assert rows["a2"].topic == "상거래(쇼핑)"
    again = convert(tmp_path / "in", "--output", output)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_without_summaries_it_becomes_test_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", item("a1", ("P01", "네"), summary=None))
    assert convert(path, "--output", tmp_path / "test.csv").returncode == 0
    assert load_split(tmp_path / "test.csv", kind="test").rows[0].fname == "a1"


def test_json_lines_are_read_one_by_one(tmp_path: Path) -> None:
    lines = [json.dumps(one, ensure_ascii=False) for one in (FIRST, {"data": [SECOND]})]
    path = tmp_path / "train.jsonl"
    path.write_text("\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"convert_aihub\.py '.*train\.jsonl' --output NAME\.csv"):
        load_split(path, kind="train")
    done = convert(path, "--output", tmp_path / "train.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row.fname for row in load_split(tmp_path / "train.csv", kind="train").rows] == [
        "a1",
        "a2",
    ]
    path.write_text(lines[0] + "\n{oops\n", encoding="utf-8")
    said = convert(path, "--output", tmp_path / "x.csv").stderr
    assert "is no JSON: Expecting property name" in said and "line 2 column 2" in said


def test_what_macos_leaves_beside_files_is_no_data(tmp_path: Path) -> None:
    write(tmp_path / ".in" / "c.json", SECOND)
    for name in ("._c.json", "__MACOSX/c.json", "__MACOSX/x/._c.json", ".ipynb_checkpoints/c.json"):
        place = tmp_path / ".in" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X")
    done = convert(tmp_path / ".in", "--output", tmp_path / "train.csv")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / ".in" / "c.json").unlink()
    assert (
        "a folder without a .json file"
        in convert(tmp_path / ".in", "--output", tmp_path / "x.csv").stderr
    )


BAD: list[tuple[str, list[str]]] = [
    ("", ["is no JSON"]),
    ("[]", ["holds no dialogue"]),
    ("3", ["a.json: dialogue 1 is not in AI-Hub's form"]),
    ('{"data": [{"header": {}}]}', ["dialogue 1", "it lacks 'dialogueInfo'"]),
    (json.dumps({"data": [FIRST, item("b", ("P01", "네"), summary=None)]}), ["no summary", "'b'"]),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_not_in_this_form_is_refused(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    done = convert(tmp_path / "a.json", "--output", tmp_path / "x.csv")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("name", ["train.json", "train.jsonl", "train.csv"])
@pytest.mark.parametrize("indent", [None, 2])
def test_given_as_data_it_is_refused_with_the_command(
    name: str, indent: int | None, tmp_path: Path
) -> None:
    path = write(tmp_path / name, FIRST, SECOND, indent=indent)
    for read in (lambda: load_split(path, kind="train"), lambda: read_references([path])):
        with pytest.raises(DataError, match=r"scripts/convert_aihub\.py '.*' --output NAME\.csv"):
            read()
    if name == "train.json":
        with pytest.raises(DataError, match=r"scripts/convert_aihub\.py"):
            load_split(tmp_path / "train.csv", kind="train")

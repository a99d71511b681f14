"""Dialogues at the CSV border: what is refused, by row, line and fname; what is cleaned or odd."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.schema import Columns, Data
from dialsum.data.rows import (
    Kind,
    Splits,
    check_splits,
    load_split,
    load_splits,
    name_rows,
    read_data,
)
from dialsum.errors import EXIT_UNFIT, DataError
from dialsum.experiment.predict import read_inputs

HEADER = ("fname", "dialogue", "summary")
GOOD = (
    ("train_0", "#Person1#: 안녕?\n#Person2#: 그래.", "인사한다."),
    ("train_1", "#Person1#: 몇 시야?\n#Person2#: 두 시.", "시간을 묻는다."),
)


def make_csv(rows: Sequence[Sequence[str]], *, header: Sequence[str] = HEADER) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([header, *rows])
    return buffer.getvalue().encode("utf-8")


def write_rows(
    path: Path, rows: Sequence[Sequence[str]], *, header: Sequence[str] = HEADER
) -> Path:
    path.write_bytes(make_csv(rows, header=header))
    return path


def with_cell(row: int, column: str, text: str) -> bytes:
    """Return the good rows as CSV with one cell replaced."""
    rows = [list(cells) for cells in GOOD]
    rows[row][HEADER.index(column)] = text
    return make_csv(rows)


NO_SUMMARY = make_csv([row[:2] for row in GOOD], header=HEADER[:2])
NO_DIALOGUE = make_csv([row[:1] for row in GOOD], header=HEADER[:1])
MISNAMED = make_csv(GOOD, header=("fname", "dialogue", "summery"))
REFUSED: list[tuple[Kind, bytes, list[str]]] = [
    ("train", make_csv([]), ["no data row"]),
    ("train", MISNAMED, [":1", "no column 'summary'", "mean 'summery'", "--set data.columns."]),
    ("train", NO_SUMMARY, [":1", "no column 'summary'"]),
    ("test", NO_DIALOGUE, [":1", "no column 'dialogue'"]),
    (
        "train",
        with_cell(1, "dialogue", ""),
        [":4  row 2, fname 'train_1': dialogue is empty", "take the row out"],
    ),
    (
        "test",
        with_cell(0, "dialogue", " \n "),
        [":2  row 1, fname 'train_0': dialogue holds only ' \\n '"],
    ),
    ("train", with_cell(0, "dialogue", "#Person1#: "), ["row 1", "only '#Person1#: '", "nothing"]),
    ("dev", with_cell(1, "summary", ""), [":4  row 2, fname 'train_1': summary is empty"]),
    ("dev", with_cell(1, "summary", "NaN"), ["row 2", "summary holds only 'NaN'"]),
    ("dev", with_cell(0, "summary", "\u200b"), ["row 1", "summary holds only '\\u200b'"]),
    ("train", with_cell(1, "fname", ""), [":4  row 2: fname is empty"]),
    (
        "dev",
        with_cell(1, "fname", "train_0"),
        [":4  row 2: fname 'train_0' is that of row 1 (line 2) already"],
    ),
]


@pytest.mark.parametrize(("kind", "content", "words"), REFUSED)
def test_refuses_with_place_and_way_out(
    tmp_path: Path, kind: Kind, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_split(path, kind=kind)
    assert caught.value.exit_code == EXIT_UNFIT
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_every_kind_of_problem_of_a_file_is_shown_with_its_count(tmp_path: Path) -> None:
    rows = [(f"r{number}", "", "") for number in range(1, 16)] + [
        ("r1", "#Person1#: 네", "답한다.")
    ]
    with pytest.raises(DataError) as caught:
        load_split(write_rows(tmp_path / "dev.csv", rows), kind="dev")
    text = str(caught.value)
    assert text.count("dialogue is empty") == text.count("summary is empty") == 10
    assert text.count("and 5 more like these") == 2
    assert "row 16: fname 'r1' is that of row 1" in text


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("dev", "no.csv", ["no such file", "the folder holds x.csv", "data.dev_file=FILE"]),
        ("dev", "absent/dev.csv", ["no such file", "nor a folder", "data.data_dir=DIR"]),
        ("dev", "x.csv/dev.csv", ["no such file", "nor a folder"]),
        ("dev", "folder", ["is a folder", "it holds inner.csv", "data.dev_file=FILE"]),
        ("dev", "n" * 300 + ".csv", ["cannot be read", "name too long"]),
        ("test", "test.csv", ["no such file", "do without", "--set data.test_file=null"]),
    ],
)
def test_says_what_stands_where_the_file_should(
    tmp_path: Path, kind: Kind, name: str, words: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for place in ("x.csv", "folder/inner.csv"):
        write_rows(tmp_path / place, GOOD)
    with pytest.raises(DataError) as caught:
        load_split(tmp_path / name, kind=kind)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a Linux file that reads never")
def test_refuses_a_file_that_cannot_be_read() -> None:
    with pytest.raises(DataError, match="cannot be read: Input/output error"):
        load_split(Path("/proc/self/mem"), kind="train")


def test_problems_of_all_three_files_are_shown_at_once(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.csv", GOOD, header=("fname", "dialogue", "summery"))
    dev = tmp_path / "dev.csv"
    test = write_rows(tmp_path / "test.csv", [("t0", "")], header=HEADER[:2])
    with pytest.raises(DataError) as caught:
        load_splits(train, dev, test=test)
    first, second, third = caught.value.problems
    assert first.startswith(f"{train}:1") and "did you mean 'summery'" in first
    assert second.startswith(f"{dev}: no such file")
    assert third.startswith(f"{test}:2  row 1")


def test_reads_rows_as_they_stand(tmp_path: Path) -> None:
    content = make_csv([(*GOOD[0], "인사"), (*GOOD[1], "")], header=(*HEADER, "topic"))
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + content)
    split = load_split(path, kind="train")
    assert [(row.fname, row.dialogue, row.summary) for row in split.rows] == list(GOOD)
    assert [(row.topic, row.row, row.line) for row in split.rows] == [("인사", 1, 2), (None, 2, 4)]
    assert split.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (split.kind, split.path, len(split), split.notes) == ("train", path, 2, [])


NOTES: list[tuple[list[tuple[str, str, str]], list[str]]] = [
    (
        [("a", "#Person1#: 네\r#Person2#: 응", "가"), ("b", "#Person1#: 가<br>나", "나")],
        [
            "dialogue of 1 of 2 rows: a line break written as text",
            "dialogue of 1 of 2 rows: another line end",
        ],
    ),
    (
        [("a", "#Person1#: 네 \n#Person2#: 응", "가 "), ("b", "#Person1#: 가 ", "나")],
        ["dialogue of 2 of 2 rows: spaces at the", "summary of 1 of 2 rows: spaces at the start"],
    ),
    (
        [("a", "안녕", "가"), ("b", "#Person1# 네", "나")],
        ["1 of 2 rows have no speaker tag (#Person1#: …) in the dialogue: row 1 (line 2, fname 'a"],
    ),
    (
        [("a", "#Person1#: 네", "가"), ("b", "#Person1#: 네", "나")],
        ["1 of 2 rows repeat the dialogue of an earlier row: row 2 (line 3, fname 'b') = row 1"],
    ),
    (
        [("a", "#Person1#: \ufffd네", "가"), ("b", "#Person1#: 응", "\ufffd")],
        ["2 of 2 rows hold U+"],
    ),
    (
        [(str(number), f"안녕 {number}", "가") for number in range(9)],
        ["row 2 (line 3, fname '1'), row 3 (line 4, fname '2') and 6 more"],
    ),
]


@pytest.mark.parametrize(("rows", "words"), NOTES)
def test_says_what_was_cleaned_and_what_is_odd(
    tmp_path: Path, rows: list[tuple[str, str, str]], words: list[str]
) -> None:
    path = write_rows(tmp_path / "train.csv", rows)
    for note, word in zip(load_split(path, kind="train").notes, words, strict=True):
        assert note.startswith(f"{path}: ")
        assert word in note


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "test.csv", [(*GOOD[0], "x")], header=(*HEADER, "score"))
    split = load_split(path, kind="test")
    assert split.notes == [f"{path}: columns 'summary', 'score' not used"]
    assert split.rows[0].summary is None


@pytest.mark.parametrize(("max_rows", "kept"), [(None, 2), (1, 1), (2, 2), (5, 2)])
def test_max_rows_keeps_the_first_and_says_so(
    tmp_path: Path, max_rows: int | None, kept: int
) -> None:
    path = write_rows(tmp_path / "train.csv", GOOD)
    split = load_split(path, kind="train").take(max_rows)
    assert [row.row for row in split.rows] == list(range(1, kept + 1))
    assert any("first 1 of 2 rows" in note for note in split.notes) == (kept < 2)


@pytest.mark.parametrize(
    "dialogue",
    [
        "#Person1#: 몇 시야?\n#Person2#: 두 시.",
        "#Person1#:  몇 시야? \r\n\r\n#Person2#: 두시.",
        "＃person1＃： 몇 시야？\n#PERSON2#: 두 시.",
    ],
)
def test_refuses_dev_rows_that_stand_in_train(tmp_path: Path, dialogue: str) -> None:
    train = write_rows(tmp_path / "train.csv", GOOD)
    dev = write_rows(
        tmp_path / "dev.csv", [("d0", "#Person1#: 다른 말", "다름"), ("d1", dialogue, "x")]
    )
    with pytest.raises(DataError) as caught:
        load_splits(train, dev, test=None)
    text = str(caught.value)
    assert f"{dev}: 1 of 2 dialogues stand in {train} too" in text
    assert "row 2 (line 3, fname 'd1') = row 2 (line 4, fname 'train_1') there" in text
    assert "take them out" in text


def test_names_the_first_of_many_dev_rows_in_train(tmp_path: Path) -> None:
    rows = [(f"r{number}", f"#Person1#: {number}번", "답") for number in range(9)]
    train = load_split(write_rows(tmp_path / "train.csv", [*rows, *rows]), kind="train")
    dev = load_split(write_rows(tmp_path / "dev.csv", rows[::-1]), kind="dev")
    said = r"9 of 9 dialogues .*: row 1 .* = row 9 \(line 10, .* and 4 more; a score"
    with pytest.raises(DataError, match=said):
        check_splits(train, dev, None)
    with pytest.raises(DataError, match="9 of 9 dialogues"):
        load_splits(dev.path, dev.path, test=None)


def test_test_rows_in_train_or_dev_are_said_and_accepted(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.csv", GOOD[:1])
    dev = write_rows(tmp_path / "dev.csv", GOOD[1:])
    test = write_rows(tmp_path / "test.csv", [row[:2] for row in GOOD], header=HEADER[:2])
    notes = load_splits(train, dev, test=test).notes
    assert len(notes) == 2
    assert f"{test}: 1 of 2 dialogues stand in {train} too: row 1" in notes[0]
    assert f"{test}: 1 of 2 dialogues stand in {dev} too: row 2" in notes[1]


@pytest.mark.parametrize("folder", ["data/ko", None], ids=["real", "sample"])
def test_data_at_hand_loads_whole(
    repository: Path, request: pytest.FixtureRequest, folder: str | None
) -> None:
    if folder is None:
        place, rows = repository / "data" / "sample", (600, 80, 80)
    else:
        place, rows = request.getfixturevalue("shared_dir") / folder, (2065, 200, 200)
    splits = load_splits(place / "train.csv", place / "dev.csv", test=place / "test.csv")
    assert splits.test is not None
    assert (len(splits.train), len(splits.dev), len(splits.test)) == rows
    assert not any("stand in" in note or "no speaker tag" in note for note in splits.notes)


P1, P2 = "#Person1#: 안녕?", "#Person2#: C:\\new\\report를 봐."
LITERAL: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]] = [
    # (dialogue, summary) as written, the same as read
    ([(f"{P1}\n{P2}", "C:\\new를 본다.")], [(f"{P1}\n{P2}", "C:\\new를 본다.")]),
    ([(P2, "본다.")], [(P2, "본다.")]),
    ([("A: see C:\\notes now", "C:\\r")], [("A: see C:\\notes now", "C:\\r")]),
    (
        [("#Person1#: 네\\n음\\n#Person2#: 응", "둘은\\n만난다.")],
        [("#Person1#: 네\n음\n#Person2#: 응", "둘은 만난다.")],
    ),
    (
        [("#Person1#: 네\\r\\n #고객명#: 응\\r#@이름#: 네", "a")],
        [("#Person1#: 네\n#고객명#: 응\n#@이름#: 네", "a")],
    ),
    ([("A: hi\\nB: ho", "a\\nb")], [("A: hi\nB: ho", "a b")]),
    (
        [("철수: 네\\n상담사 1: 응", "a\\nb"), ("user: a\\nbot: b\\nuser: c", "a")],
        [("철수: 네\n상담사 1: 응", "a b"), ("user: a\nbot: b\nuser: c", "a")],
    ),
    *(
        ([(said, "C:\\new를 봐."), ("A: 네 B: 응", "\\n다")],) * 2
        for said in (
            "A: 로그는 C:\\runs\\new 폴더에 있어 B: 그래? 알았어.",
            "철수: 경로는 C:\\new folder: 거기 있어",
            "철수: 경로는 C:\\new: 거기 있어",
            "철수: D:\\runs\\Reports\\n1: 거기 있어",
            "철수: \\\\server\\n1: 거기 있어",
            "철수: docs\\new: 거기 있어",
        )
    ),
    (
        [("A: 네\\nB: 응", "a"), ("A: C:\\new에 있어 B: 응", "C:\\new를 본다.")],
        [("A: 네\nB: 응", "a"), ("A: C:\\new에 있어 B: 응", "C:\\new를 본다.")],
    ),
    (
        [("#Person1#: 네\\n#Person2#: 응", "a"), (f"{P1}\n{P2}", "\\n을 쓴다.")],
        [("#Person1#: 네\n#Person2#: 응", "a"), (f"{P1}\n{P2}", "\\n을 쓴다.")],
    ),
    ([(f"{P1}<br>{P2}", "a<BR/>b")], [(f"{P1}\n{P2}", "a b")]),
]


@pytest.mark.parametrize(("written", "read"), LITERAL)
def test_a_literal_line_end_is_one_where_the_file_shows_it(
    written: list[tuple[str, str]], read: list[tuple[str, str]], tmp_path: Path
) -> None:
    rows = [(f"r{number}", *cells) for number, cells in enumerate(written)]
    split = load_split(write_rows(tmp_path / "train.csv", rows), kind="train")
    assert [(row.dialogue, row.summary) for row in split.rows] == read
    kept = any("\\" in text for cells in read for text in cells)
    assert any("as text, kept so" in note for note in split.notes) == kept


SAYS_NOTHING = [
    # Spreadsheets, programs, people, marks, what nobody sees.
    *("#NAME?", "#N/A", "#N/A N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!"),
    *("#이름?", "#####", "Err:502"),
    *("NA", "N/A", "NaN", "-nan", "NaT", "null", "None", "<NA>", "(null)", "\\N", "undefined"),
    *("없음", "없음.", "N.A.", "[NA]", "내용 없음", "해당사항 없음", "(비어 있음)", "ㅡ", "無"),
    *("-", "--", "–", "…", "?", ".", "_", " - ", "#", "''"),
    *("\u3164", "\uffa0", "\u2800 \u1160."),
]


@pytest.mark.parametrize("cell", SAYS_NOTHING)
@pytest.mark.parametrize("column", ["dialogue", "summary"])
def test_a_cell_that_says_nothing_is_an_empty_one(cell: str, column: str, tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_bytes(with_cell(1, column, cell))
    with pytest.raises(DataError, match=f"row 2, fname 'train_1': {column} holds only"):
        load_split(tmp_path / "dev.csv", kind="dev")
    if column == "dialogue":  # whoever says it, in a turn of several
        (tmp_path / "dev.csv").write_bytes(with_cell(0, column, f"#Person1#: …\n#Person2#: {cell}"))
        with pytest.raises(DataError, match="says nothing"):
            load_split(tmp_path / "dev.csv", kind="dev")


@pytest.mark.parametrize(
    "cell", ["네", "0", "#Person1#", "#고객명#", "👍", "ㅋㅋ", "null은 값.", "Non", "#1!은 뭐지?"]
)
def test_a_short_cell_that_says_something_stays(cell: str, tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_bytes(with_cell(1, "summary", cell))
    assert load_split(tmp_path / "dev.csv", kind="dev").rows[1].summary == cell


@pytest.mark.parametrize(("empty", "fits"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_few_train_rows_without_text_are_left_out_and_said(
    empty: int, fits: bool, tmp_path: Path
) -> None:
    rows = [[f"r{number}", f"#Person1#: {number}번", "답한다."] for number in range(200)]
    for number in range(empty):
        rows[50 + number][1 + number % 2] = "#NAME?"
    path = write_rows(tmp_path / "train.csv", rows)
    if not fits:
        with pytest.raises(DataError, match="row 53, fname 'r52': dialogue holds only '#NAME"):
            load_split(path, kind="train")
        return
    split = load_split(path, kind="train")
    assert [row.row for row in split.rows] == [n for n in range(1, 201) if not 50 < n <= 50 + empty]
    said = [note for note in split.notes if "left out" in note]
    assert len(said) == bool(empty)
    assert all(f"{empty} of 200 rows" in note and "row 51 (line 52" in note for note in said)
    if empty:
        with pytest.raises(DataError, match="row 51"):
            load_split(path, kind="dev")


def test_train_rows_may_repeat_a_name_and_it_is_said(tmp_path: Path) -> None:
    rows = [*GOOD, ("train_0", "#Person1#: 안녕하세요?\n#Person2#: 네.", "서로 인사한다.")]
    path = write_rows(tmp_path / "rows.csv", rows)
    split = load_split(path, kind="train")
    (note,) = [note for note in split.notes if "fname" in note and "repeat" in note]
    assert "1 of 3 rows" in note
    assert "= row 1" in note
    assert name_rows(split.rows) == ["train_0 (row 1)", "train_1", "train_0 (row 3)"]
    kinds: tuple[Kind, ...] = ("dev", "test")
    for kind in kinds:
        with pytest.raises(DataError, match="is that of row 1"):
            load_split(path, kind=kind)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "ROWS.JSONL"])
def test_json_lines_are_read_as_csv_is(name: str, tmp_path: Path) -> None:
    rows = [(*GOOD[0], "인사"), (*GOOD[1], "")]
    header = (*HEADER, "topic")
    lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rows]
    (tmp_path / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    kinds: tuple[Kind, ...] = ("train", "dev", "test")
    for kind in kinds:
        found = load_split(tmp_path / name, kind=kind)
        same = load_split(write_rows(tmp_path / "x.csv", rows, header=header), kind=kind)
        assert [replace(row, line=0) for row in found.rows] == [
            replace(row, line=0) for row in same.rows
        ]
        assert [row.line for row in found.rows] == [1, 2]


OTHER_NAMES = Columns(fname="id", dialogue="text", summary="target")


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("kind", ["train", "dev", "test"])
def test_columns_may_have_other_names(kind: Kind, ending: str, tmp_path: Path) -> None:
    path, header = tmp_path / f"rows{ending}", ("target", "text", "dialogue", "id")
    cells = [(row[2], row[1], "another dialogue", row[0]) for row in GOOD]
    if ending == ".csv":
        write_rows(path, cells, header=header)
    else:
        objects = [json.dumps(dict(zip(header, row, strict=True))) for row in cells]
        path.write_text("\n".join(objects), encoding="utf-8")
    split = load_split(path, kind=kind, columns=OTHER_NAMES)
    summaries = [None, None] if kind == "test" else [row[2] for row in GOOD]
    assert [(row.fname, row.dialogue) for row in split.rows] == [row[:2] for row in GOOD]
    assert [row.summary for row in split.rows] == summaries
    unused = "columns 'target', 'dialogue'" if kind == "test" else "column 'dialogue'"
    assert f"{unused} not used" in split.notes[-1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns(dialogue="text"), ["no column 'text'", "'text' for dialogue"]),
        (Columns(fname="i", dialogue="t", summary="s"), ["none of the columns 'i', 't', 's'"]),
        (Columns(topic="subject"), ["no column 'subject'", "'subject' for topic"]),
    ],
)
def test_a_named_column_that_is_absent_is_refused(
    columns: Columns, said: list[str], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "train.csv", GOOD)
    with pytest.raises(DataError) as caught:
        load_split(path, kind="train", columns=columns)
    for part in (*said, f"{path}:1 ", "; data.columns asks for"):
        assert part in str(caught.value)


@pytest.mark.parametrize("names", [("id", "text", "target"), HEADER], ids=["run's", "usual"])
@pytest.mark.parametrize("references", [True, False])
def test_what_is_to_be_summarised_may_have_the_columns_of_the_run(
    references: bool, names: tuple[str, ...], tmp_path: Path
) -> None:
    width = 3 if references else 2
    path = write_rows(tmp_path / "x.csv", [row[:width] for row in GOOD], header=names[:width])
    found = read_inputs(str(path), columns=OTHER_NAMES)
    assert [(row.fname, row.dialogue) for row in found.rows] == [row[:2] for row in GOOD]
    assert [row.summary for row in found.rows] == [row[2] if references else None for row in GOOD]
    assert found.has_summaries is references


def test_a_list_under_a_named_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": "a", "text": ["#Person1#: 네"], "target": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="'text' is no text but a list"):
        load_split(path, kind="train", columns=OTHER_NAMES)


def draw(path: Path, *, share: float = 0.2, seed: int = 1, **changes: Any) -> Splits:
    """Load a train file of which a share is dev rows."""
    asked = Data(dev_file=None, dev_share=share, **changes)
    return load_splits(path, None, test=None, asked=asked, seed=seed)


def test_dev_rows_are_drawn_by_dialogue_from_the_seed(tmp_path: Path) -> None:
    # Every dialogue stands twice, the second time in other spaces.
    cells = [
        (f"d_{row}", f"#Person1#: 말{' ' * (row % 2)} {row // 2}", f"요약 {row}.")
        for row in range(100)
    ]
    path = write_rows(tmp_path / "train.csv", cells)
    splits = draw(path)
    drawn = [row.row for row in splits.dev.rows]
    assert (len(drawn), len(splits.train)) == (20, 80)
    assert drawn == sorted(drawn)
    assert {(row - 1) // 2 for row in drawn}.isdisjoint(
        (row.row - 1) // 2 for row in splits.train.rows
    )
    assert [row.row for row in draw(path).dev.rows] == drawn
    assert draw(path).sha256 == splits.sha256
    other = draw(path, seed=2)
    assert [row.row for row in other.dev.rows] != drawn
    assert len({*splits.sha256.values(), *other.sha256.values()}) == 4
    assert any("20 of 100 rows are dev rows (data.dev_share 0.2)" in note for note in splits.notes)
    few = draw(path, max_dev_rows=3, max_train_rows=7)
    assert (len(few.dev), len(few.train)) == (3, 7)


def test_rows_that_share_an_fname_are_not_parted(tmp_path: Path) -> None:
    # Augmented rows: other words under the name of the row that they were made of.
    cells = [(f"d_{row // 2}", f"#Person1#: 말 {row}", "요약.") for row in range(40)]
    cells += [(f"own_{row}", f"#Person1#: 글 {row}", "요약.") for row in range(10)]
    path = write_rows(tmp_path / "train.csv", cells)
    assert {row.fname[:4] for row in draw(path).dev.rows} == {"own_"}
    with pytest.raises(DataError, match=r"asks for 25 of 50 rows .* but 10 can be drawn"):
        draw(path, share=0.5)


def test_a_share_leaves_rows_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="some must stay to train on"):
        draw(write_rows(tmp_path / "train.csv", GOOD[:1]))
    assert len(draw(write_rows(tmp_path / "train.csv", GOOD)).dev) == 1


def test_a_data_section_is_read_as_it_says(tmp_path: Path) -> None:
    cells = [(f"a_{row}", f"#Person1#: 말 {row}", "요약.", "놀이") for row in range(10)]
    write_rows(tmp_path / "t.csv", cells, header=("id", "text", "target", "topic"))
    asked = Data(
        data_dir=str(tmp_path),
        train_file="t.csv",
        dev_file=None,
        dev_share=0.3,
        test_file="t.csv",
        max_test_rows=2,
        columns=OTHER_NAMES,
    )
    splits = read_data(asked, seed=5)
    assert [(split.kind, len(split)) for split in splits.present] == [
        ("train", 7),
        ("dev", 3),
        ("test", 2),
    ]
    assert {row.topic for row in splits.dev.rows} == {"놀이"}

"""The submission's form, and what makes one unfit to hand in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dialsum.data.rows import Dialogue
from dialsum.data.submission import (
    check_submission,
    inspect_submission,
    say_unfit,
    write_predictions,
    write_submission,
)
from dialsum.errors import EXIT_FAILED, RunError

ROWS = [
    Dialogue(
        fname=f"test_{number}", dialogue="#Person1#: 네", summary=None, topic=None, row=number + 1
    )
    for number in range(3)
]


def test_submission_has_the_competition_s_form(tmp_path: Path) -> None:
    path = tmp_path / "run" / "submission.csv"
    write_submission(path, ROWS, ["\u1112\u1161\u11ab  글", '"둘", 그리고', " 셋\r\n넷 "])
    assert path.read_text(encoding="utf-8") == (
        ',fname,summary\n0,test_0,한 글\n1,test_1,"""둘"", 그리고"\n2,test_2,셋 넷\n'
    )
    check_submission(path, ROWS)


def test_predictions_stand_beside_dialogue_and_reference(tmp_path: Path) -> None:
    path = tmp_path / "predictions_dev.csv"
    write_predictions(path, ROWS[:2], ["하나", ""])
    assert path.read_text(encoding="utf-8") == (
        "fname,summary,dialogue,reference\ntest_0,하나,#Person1#: 네,\ntest_1,,#Person1#: 네,\n"
    )


TOP = ",fname,summary\n"
UNFIT = [
    ("", ["is empty"]),
    ("fname,text\ntest_0,a\n", ["no column 'summary'"]),
    (f"{TOP}0,test_0,a\n1,test_2,c\n", ["no row for 1 of 3 fnames of the test file: 'test_1'"]),
    (
        f"{TOP}0,test_0,a\n1,test_1,b\n2,test_2,c\n3,test_9,d\n",
        ["line 5  row 4: fname 'test_9' is not in the test file"],
    ),
    (
        f"{TOP}0,test_0,a\n1,test_1,b\n2,test_1,c\n",
        ["line 4  row 3: fname 'test_1' stands already", "no row for 1 of 3 fnames", "'test_2'"],
    ),
    (
        f"{TOP}0,test_0,a\n1,test_2,c\n2,test_1,b\n",
        ["line 3  row 2: fname 'test_2' stands where the test file has 'test_1'"],
    ),
    (
        "summary,fname\na,test_0\nb,test_1\nc,test_2\n",
        ["line 1  the first line is 'summary,fname' and must be ',fname,summary' or 'fname,sum"],
    ),
    (
        ",fname,summary,x\n0,test_0,a,1\n1,test_1,b,1\n2,test_2,c,1\n",
        ["line 1  the first line is ',fname,summary,x'"],
    ),
    (
        f"{TOP}1,test_0,a\n2,test_1,b\n3,test_2,c\n",
        ["row 1 has the index '1' where 0 belongs, and 2 more"],
    ),
    (
        f'{TOP}0,test_0,"a\nb"\n1,test_1,b\n2,test_2,c\n',
        ["line 2  row 1: the summary of 'test_0' has a line break"],
    ),
    (
        f"{TOP}0,test_0,\u1112\u1161\u11ab\n1,test_1,b\n2,test_2,c\n",
        ["line 2  row 1: the summary of 'test_0' is not composed; unicodedata.normalize('NFC'"],
    ),
    (f"{TOP}0,test_0,a\n1,test_1,\n2,test_2,c\n", ["line 3  row 2: the summary of 'test_1' is em"]),
    (f"{TOP}0,test_0,a\n1,test_1,-\n2,test_2,c\n", ["of 'test_1' holds only '-', which says"]),
]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("fname,summary\ntest_0,a\ntest_1,b\ntest_2,c\n", "no index stands before fname"),
        ("id,fname,summary\n0,test_0,a\n1,test_1,b\n2,test_2,c\n", "is called 'id'"),
    ],
)
def test_another_index_is_odd_and_no_fault(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(content, encoding="utf-8")
    assert said in check_submission(path, ROWS).oddities[0]


@pytest.mark.parametrize(("content", "words"), UNFIT)
def test_unfit_submission_is_named_by_row(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        check_submission(path, ROWS)
    assert caught.value.exit_code == EXIT_FAILED
    head, *lines = str(caught.value).splitlines()
    assert head == f"{path} is not fit to hand in:" and lines
    assert str(path) not in "".join(lines)
    for word in words:
        assert word in str(caught.value)


def test_another_file_s_ids_are_said_once_and_its_tags_not_judged(tmp_path: Path) -> None:
    rows = [Dialogue(f"t{number}", "d", None, None, row=number + 1) for number in range(30)]
    others = [replace(row, fname=f"dev_{row.fname}") for row in rows]
    path = tmp_path / "submission.csv"
    write_submission(path, others, [f"#Email#로 {number}을 묻는다." for number in range(30)])
    problems, remarks = inspect_submission(path, rows)
    assert (remarks.faults, remarks.oddities) == ([], [])
    assert say_unfit(path, problems).splitlines() == [
        f"{path} is not fit to hand in:",
        "  no row for 30 of 30 fnames of the test file: 't0', 't1', 't2', 't3', 't4' and 25 more",
        "  line 2  row 1: fname 'dev_t0' is not in the test file, nor are 29 more: 'dev_t1', "
        "'dev_t2', 'dev_t3', 'dev_t4', 'dev_t5' and 24 more",
    ]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    """An empty summary is written, and then named."""
    rows = [Dialogue(f"t{number}", "d", None, None, row=number + 1) for number in range(30)]
    path = tmp_path / "submission.csv"
    write_submission(path, rows, [" "] * 30)
    with pytest.raises(RunError) as caught:
        check_submission(path, rows)
    assert str(caught.value).count("is empty") == 10
    assert "and 20 more like these" in str(caught.value)


REMARKS = [
    (["a</s>", "b", "c"], ["1 summary holds special tokens (</s>): 'test_0'"], 0),
    (["<pad>a", "b▁c", "c"], ["2 summaries hold special tokens (<pad>, ▁)"], 0),
    (
        ["#Person1은 간다", "b", "c"],
        ["1 summary holds a broken tag (#Person1, Person1, a lone #): 'test_0'"],
        0,
    ),
    (["a<|endoftext|>", "[PAD]b", "<sep>c"], ["3 summaries hold special tokens"], 0),
    (["a\u200b", "b", "c"], ["1 summary holds characters that nobody sees"], 0),
    (["#person1#은", "#Person1#은", "#PERSON2#"], ["2 summaries hold a broken tag"], 0),
    (["# Person1 # 은", "#PhoneNumber #", "c"], ["2 summaries hold a broken tag"], 0),
    (["Person1은 간다", "#Person1#은", "c"], ["1 summary holds a broken tag"], 0),
    (["#Person1#: 네", "b" * 9, "c" * 9], ["1 summary begins as a turn does"], 1),
    (["같다", "같다", " 같다"], ["3 summaries are word for word the same"], 1),
    (
        ["#Person2#", "b" * 9, "c" * 9],
        ["1 summary names tags that their dialogues have not (#Person2#)"],
        1,
    ),
    (["a" * 40, "b" * 10, "c" * 10], ["1 summary is over 3 times as long as the median of 10"], 1),
    (["a" * 2, "b" * 10, "c" * 10], ["1 summary is under 0.25 of the median"], 1),
    (["#Person1#은 간다", "#Person1#도 간다", "#Person1#"], [], 1),
]


@pytest.mark.parametrize(("summaries", "words", "odd"), REMARKS)
def test_what_a_model_wrote_is_told(
    tmp_path: Path, summaries: list[str], words: list[str], odd: int
) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, ROWS, summaries)
    found = check_submission(path, ROWS)
    remarks = (found.faults, found.oddities)[odd]
    assert not (odd and found.faults)
    for word, remark in zip(words, remarks, strict=True):
        assert word in remark

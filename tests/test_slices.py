"""Slices: which rows fall into which, and that few rows are marked as few."""

from __future__ import annotations

from dialsum.score.api import score_report
from dialsum.score.rows import Rows, slice_rows


def make_rows(lengths: list[int], *, topics: list[str] | None = None) -> Rows:
    """Return rows whose dialogues have so many turns, the first speaker in all."""
    dialogues = [
        "\n".join(f"#Person{1 + turn % (2 + row % 2)}#: 네" for turn in range(turns))
        for row, turns in enumerate(lengths)
    ]
    texts = [f"둘은 {row}번 만난다." for row in range(len(lengths))]
    return Rows(texts, [[text] for text in texts], dialogues, topics)


def test_every_row_is_in_one_slice_of_each_kind() -> None:
    topics = ["병원"] * 30 + ["식당"] * 5 + ["", "길"] * 32 + [""]
    rows = make_rows(list(range(3, 103)), topics=topics)
    slices = slice_rows(rows)
    for by in ("topic", "speakers", "length"):
        places = sorted(int(row) for one in slices if one.by == by for row in one.places)
        assert places == list(range(100)), by
    named = {(one.by, one.value): len(one.places) for one in slices}
    assert named["topic", "길"] == 32
    assert named["topic", "병원"] == 30
    assert named["topic", "식당"] == 5
    assert named["topic", "no topic"] == 33
    assert named["speakers", "2"] == named["speakers", "3"] == 50
    assert [len(one.places) for one in slices if one.by == "length"] == [25, 25, 25, 25]
    assert [one.value for one in slices if one.few] == ["식당"]
    twenty = slice_rows(make_rows(list(range(3, 83))))
    assert {len(one.places) for one in twenty if one.by == "length"} == {20}
    assert not any(one.few for one in twenty)


def test_kinds_that_tell_nothing_are_left_out() -> None:
    assert slice_rows(Rows(["a"], [["a"]])) == []
    rows = make_rows([4] * 6, topics=[f"주제 {row}" for row in range(6)])
    # Each topic has one row, all dialogues are of like length; the numbers of speakers differ.
    assert {one.by for one in slice_rows(rows)} == {"speakers"}


def test_slices_have_their_own_means() -> None:
    rows = make_rows(list(range(3, 43)))
    worse = Rows(["그렇다."] * 20 + list(rows.predictions[20:]), rows.references, rows.dialogues)
    slices = score_report(worse)["slices"]
    by_length = [one for one in slices if one["by"] == "length"]
    assert [one["rows"] for one in by_length] == [10, 10, 10, 10]
    assert all(one["few"] for one in by_length)
    assert by_length[0]["rouge_mean"] < 30 < by_length[3]["rouge_mean"] == 100.0
    low, high = by_length[1]["confidence"]
    assert low <= by_length[1]["rouge_mean"] <= high

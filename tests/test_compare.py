"""Comparisons: what is called real, how often wrongly, and what would settle the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dialsum.errors import DataError
from dialsum.score.api import BESIDE, compare_reports, score_report
from dialsum.score.rows import Rows
from dialsum.score.show import describe_verdict, format_comparison, format_scores
from dialsum.score.statistics import (
    ALPHA,
    compare_systems,
    holm,
    percentile_intervals,
    randomisation_p,
    rows_to_settle,
)

PREDICTIONS = {
    "good.csv": ["#Person1#은 역에 간다.", "둘은 저녁을 먹는다.", "그는 인사한다."] * 8,
    "bad.csv": ["그렇다.", "아니다.", "그렇지 않다."] * 8,
}
REFERENCES = [["#Person1#은 역으로 간다."], ["둘은 점심을 먹는다."], ["그는 인사했다."]] * 8


def reports(**more: list[str]) -> dict[str, dict[str, Any]]:
    return {
        name: score_report(Rows(texts, REFERENCES)) for name, texts in (PREDICTIONS | more).items()
    }


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([], []),
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.001], [0.02, 0.002]),
    ],
)
def test_holm(p: list[float], corrected: list[float]) -> None:
    assert holm(p) == pytest.approx(corrected)


def test_the_test_s_false_positives_are_its_alpha() -> None:
    """Two systems that are equally good, 400 times over: about 5 % are called different."""
    generator = np.random.default_rng(3)
    gaps = generator.standard_t(4, size=(60, 400)) * generator.uniform(1, 20, size=(60, 1))
    found = np.mean(np.array(randomisation_p(gaps, trials=2000)) <= ALPHA)
    # 400 trials of a chance of 5 %: three standard deviations are 3.3 %.
    assert 0.02 < found < 0.085


@pytest.mark.parametrize("rows", [[[5.0]], [[7.0]] * 9])
def test_an_interval_without_spread_is_a_point(rows: list[list[float]]) -> None:
    assert percentile_intervals(np.array(rows))[0].tolist() == pytest.approx(rows[0] * 2)


def test_the_interval_is_that_of_the_normal_law_for_many_rows() -> None:
    rows = np.random.default_rng(1).normal(40.0, 10.0, size=(400, 2))
    half = 1.96 * rows.std(axis=0) / np.sqrt(400)
    ends = percentile_intervals(rows)
    assert ends[:, 0] == pytest.approx(rows.mean(axis=0) - half, abs=0.15)
    assert ends[:, 1] == pytest.approx(rows.mean(axis=0) + half, abs=0.15)
    assert np.array_equal(ends, percentile_intervals(rows))
    # The same rows are drawn in each column.
    assert percentile_intervals(rows[:, :1] * [1.0, 3.0])[1] == pytest.approx(3 * ends[0])


def test_the_interval_covers_the_truth_at_its_rate() -> None:
    """400 samples of 80 rows of a skewed law whose mean is known."""
    generator = np.random.default_rng(5)
    rows = generator.beta(1.5, 3.0, size=(80, 400)) * 100
    ends = percentile_intervals(rows)
    truth = 100 * 1.5 / 4.5
    covered = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert 0.91 < covered < 0.98


def test_p_is_that_of_all_sign_changes() -> None:
    gaps = np.array([3.0, 1.0, 2.0, 5.0, -1.0, 4.0])
    signs = np.array([[1 if row >> bit & 1 else -1 for bit in range(6)] for row in range(64)])
    exact = np.mean(np.abs(signs @ gaps) >= abs(gaps.sum()))
    (found,) = randomisation_p(gaps[:, None], trials=20_000)
    assert found == pytest.approx(exact, abs=0.01)


def test_equal_systems_are_never_called_different() -> None:
    scores = np.random.default_rng(0).normal(40, 9, 50)
    (found,) = compare_systems({"a": scores, "b": scores.copy()})
    assert (found.p, found.real, found.more_rows, found.points) == (1.0, False, None, 0.0)


def test_rows_to_settle_do_settle_in_four_of_five() -> None:
    generator = np.random.default_rng(1)
    few = generator.normal(0.6, 5.0, 100_000)
    needed = rows_to_settle(few)
    assert needed is not None
    samples = generator.normal(0.6, 5.0, (needed, 300))
    found = np.mean(np.array(randomisation_p(samples, trials=999)) <= ALPHA)
    assert 0.72 < found < 0.88


def test_more_rows_are_those_of_the_corrected_level() -> None:
    generator = np.random.default_rng(2)
    scores = {name: generator.normal(40, 5, 50) for name in "abc"}
    found = compare_systems(scores)
    assert len(found) == 3
    for one in found:
        needed = rows_to_settle(scores[one.first] - scores[one.second], alpha=ALPHA / 3)
        assert not one.real and needed is not None
        assert one.more_rows == max(needed - 50, 1)


def test_a_clear_difference_is_real_and_a_small_one_is_not() -> None:
    near = [*PREDICTIONS["good.csv"][:-1], "아니다."]
    blocks = reports(near=near)
    found = compare_reports(blocks)
    by_pair = {
        (one["first"], one["second"]): one for one in found["scales"]["asked"]["differences"]
    }
    assert by_pair["good.csv", "bad.csv"]["real"]
    small = by_pair["good.csv", "near"]
    assert not small["real"]
    assert small["more_rows"] > 0
    assert list(found["scales"]) == ["asked", "tags_one"]
    text = format_comparison(found, blocks)
    assert "good.csv is ahead of bad.csv by" in text
    beside = [key for key in BESIDE if key in found]
    assert text.count(": REAL") == 4 + 2 * len(beside)
    assert text.startswith("Best on the scale asked for: good.csv.")
    assert "NOT SETTLED whether it is better than near" in text
    assert "more rows would tell" in text
    assert "equally good systems" in text


def test_a_system_that_is_behind_the_constant_is_told_so() -> None:
    train = ["#Person1#은 역에 간다.", "그는 인사한다.", "둘은 점심을 먹는다."]
    blocks = {
        name: score_report(Rows(texts, REFERENCES), train_summaries=train)
        for name, texts in (("bad.csv", PREDICTIONS["bad.csv"]), ("worse.csv", ["뭐?"] * 24))
    }
    found = blocks["bad.csv"]["against_constant"]
    assert found["low"] < found["points"] < found["high"] < 0 and found["real"]
    assert "bad.csv is BEHIND the constant text by" in format_scores(
        blocks["bad.csv"], name="bad.csv"
    )
    text = format_comparison(compare_reports(blocks), blocks)
    assert "But it is not shown to beat one constant text for all rows." in text


def test_only_the_same_can_be_compared() -> None:
    one = score_report(Rows(["x"], [["x"]]))
    with pytest.raises(DataError, match="two predictions"):
        compare_reports({"a": one})
    two = score_report(Rows(["x", "y"], [["x"], ["y"]]))
    with pytest.raises(DataError, match="a 1, b 2"):
        compare_reports({"a": one, "b": two})
    with pytest.raises(DataError, match="same references"):
        compare_reports({"a": one, "b": score_report(Rows(["x"], [["z"]]))})
    other = score_report(Rows(["x"], [["x"]]), tokenizer="char")
    with pytest.raises(DataError, match="different signatures"):
        compare_reports({"a": one, "b": other})


@pytest.mark.parametrize(
    ("points", "low", "high", "real", "rows", "said"),
    [
        (3.0, 1.0, 5.0, True, 499, "REAL"),
        (0.03, 0.01, 0.05, True, 499, "REAL, but tiny"),
        (0.1, -0.2, 0.4, False, 499, "LEVEL: they differ by less than 0.5 points"),
        (0.1, -0.2, 0.4, False, 3, "NOT SETTLED: 3 rows say little"),
        (0.1, -0.2, 0.6, False, 499, "NOT SETTLED: about 51 more rows would tell"),
    ],
)
def test_a_verdict_says_how_large_a_difference_is(
    points: float, low: float, high: float, real: bool, rows: int, said: str
) -> None:
    found = {"points": points, "low": low, "high": high, "real": real, "rows": rows}
    assert describe_verdict(found | {"more_rows": None if real else 51}) == said


def test_one_row_has_no_interval() -> None:
    rows = Rows(["표를 샀다"], [["표를 샀다"]], ["#Person1#: 표 주세요"])
    block = score_report(rows)
    assert "rouge_mean" not in block["confidence"] and "f1" not in block["content"]["confidence"]
    assert "nan" not in format_scores(block)

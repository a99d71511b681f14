"""The door of scoring: what is refused, what a record holds, signatures and intervals."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dialsum.errors import DataError
from dialsum.files import dump_json
from dialsum.score.api import FLOOR_SCORES, FLOORS, SCORES, score_report, score_texts
from dialsum.score.rouge import METRICS
from dialsum.score.rows import Rows
from dialsum.score.show import format_scores
from dialsum.score.signature import Signature, require_same_signature
from dialsum.score.statistics import bootstrap_means, percentile_intervals

REFUSED: list[tuple[Any, Any, str]] = [
    ([], [], "nothing to score"),
    ([], [["a"]], "0 predictions, but references for 1 rows"),
    (["a", "b"], [["a"]], "2 predictions, but references for 1 rows"),
    (["a"], [[]], "row 1: 0 references"),
    (["a", "b"], [["a"], ["a", "b"]], "row 2: 2 references where row 1 has 1"),
    (["a"], [[" \n"]], "row 1: a reference is empty"),
    (["a"], ["abc"], "row 1: the references are 'abc', not a list"),
    ([None], [["a"]], "row 1: the prediction is None"),
    ([float("nan")], [["a"]], "row 1: the prediction is nan"),
]


@pytest.mark.parametrize(("predictions", "references", "words"), REFUSED)
def test_refuses_rows_that_cannot_be_scored(predictions: Any, references: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        score_texts(predictions, references)
    with pytest.raises(DataError, match=words):
        score_report(Rows(predictions, references))


def test_refuses_dialogues_of_another_count() -> None:
    with pytest.raises(DataError, match="0 dialogues for 1 predictions"):
        score_report(Rows(["a"], [["a"]], dialogues=[]))


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace", "char", "english"])
@pytest.mark.parametrize("empty", ["", " \n", "\0"])
def test_an_empty_prediction_scores_zero(tokenizer: str, empty: str) -> None:
    score = score_texts([empty, "go home"], [["go home"], ["go home"]], tokenizer=tokenizer)
    assert score.per_row["rouge_mean"].tolist() == pytest.approx([0.0, 100.0])
    assert score.rouge_mean == pytest.approx(50.0)


def test_sum_and_mean_are_of_rouge_1_2_and_l() -> None:
    score = score_texts(["a b x"], [["a b c d"]], tokenizer="whitespace")
    assert score.rouge_sum == pytest.approx(score.rouge1 + score.rouge2 + score.rougeL)
    assert score.rouge_mean == pytest.approx(score.rouge_sum / 3)


PREDICTIONS = ["#Person1#은 역에 간다.", "둘은 저녁을 먹는다.", "привет"]
REFERENCES = [["#Person1#은 역으로 간다."], ["둘은 점심을 먹는다."], ["#Person2#는 인사한다."]]
TRAIN = ["#Person1#은 #Person2#에게 말한다.", "#Person1#은 말한다.", "둘은 말한다."]
DIALOGUES = ["#Person1#: 역에 가요.\n#Person2#: 네."] * 3
ROWS = Rows(PREDICTIONS, REFERENCES, DIALOGUES)


def test_the_record_has_every_scale_with_floors() -> None:
    block = score_report(ROWS, train_summaries=TRAIN)
    for scale in (block, block["tags_one"], block["whitespace"]):
        assert set(SCORES) < set(scale)
        assert scale["rows"] == 3
        assert set(scale["floors"]) == set(FLOORS)
        assert set(scale["floors"]["constant"]) == {"text", *FLOOR_SCORES}
        assert set(scale["floors"]["lead2"]) == set(FLOOR_SCORES)
        assert set(scale["precision"]) == set(scale["recall"]) == set(METRICS)
        low, high = scale["confidence"]["rouge_mean"]
        assert low <= scale["rouge_mean"] <= high
    assert block["foreign_script_rate"] == pytest.approx(100 / 3, abs=1e-3)
    assert "|tags:split|" in block["signature"] and "|tags:one|" in block["tags_one"]["signature"]
    assert "|tok:whitespace|" in block["whitespace"]["signature"]
    assert json.loads(dump_json(block)) == block
    assert score_report(ROWS, train_summaries=TRAIN) == block


@pytest.mark.parametrize(
    ("tokenizer", "tags", "beside"),
    [
        ("mecab", "split", {"tags_one", "whitespace"}),
        ("mecab", "one", {"whitespace"}),
        ("whitespace", "split", {"tags_one"}),
        ("whitespace", "one", {"whitespace"}),
        ("char", "removed", {"tags_one", "whitespace"}),
    ],
)
def test_no_scale_stands_twice(tokenizer: str, tags: str, beside: set[str]) -> None:
    block = score_report(Rows(PREDICTIONS, REFERENCES), tokenizer=tokenizer, tags=tags)
    assert {"tags_one", "whitespace"} & set(block) == beside
    assert set(block["floors"]) == {"random"}
    signatures = [block["signature"], *(block[name]["signature"] for name in beside)]
    assert len(set(signatures)) == len(signatures)


def test_the_text_shows_scores_with_recipe_interval_and_floors() -> None:
    block = score_report(ROWS, train_summaries=TRAIN)
    text = format_scores(block, name="ours")
    for scale in (block, block["tags_one"], block["whitespace"]):
        low, high = scale["confidence"]["rouge_mean"]
        assert scale["signature"] in text
        assert f"{low:.2f} - {high:.2f}" in text
        assert f"constant: {scale['floors']['constant']['text']}" in text
    rows = [line for line in text.splitlines() if line.startswith(("  ours   ", "  lead-2"))]
    assert len(rows) == 6
    assert rows[0].split()[1] == f"{block['rouge1']:.2f}"


def test_signature_text() -> None:
    assert str(Signature("mecab-ko-1/dic-2", "split", 3, "kept", "mean")) == (
        "rouge|tok:mecab-ko-1/dic-2|refs:3,mean|tags:split|case:kept|nfc|v1"
    )
    assert "|refs:2,max|" in str(Signature("char", "split", 2, "kept", "max"))
    # Of one reference the mean and the best are the same recipe.
    assert str(Signature("char", "one", 1, "kept", "max")) == (
        "rouge|tok:char|refs:1|tags:one|case:kept|nfc|v1"
    )


@pytest.mark.parametrize(
    "signatures",
    [
        {},
        {"a": "x"},
        {"a": Signature("char", "one", 1, "kept"), "b": str(Signature("char", "one", 1, "kept"))},
    ],
)
def test_equal_signatures_may_be_ranked(signatures: dict[str, Signature | str]) -> None:
    require_same_signature(signatures)


def test_different_signatures_may_not_be_ranked() -> None:
    one, other = Signature("char", "split", 1, "kept"), Signature("char", "one", 1, "kept")
    with pytest.raises(
        DataError,
        match=r"2 different signatures[\s\S]*run 1, run 3: [\s\S]*run 2: .*differs in tags:one",
    ):
        require_same_signature({"run 1": one, "run 2": other, "run 3": str(one)})


@pytest.mark.parametrize(("rows", "low", "high"), [([[5.0]], 5.0, 5.0), ([[7.0]] * 9, 7.0, 7.0)])
def test_an_interval_without_spread_is_a_point(
    rows: list[list[float]], low: float, high: float
) -> None:
    assert percentile_intervals(np.array(rows))[0].tolist() == pytest.approx([low, high])


def test_the_interval_is_that_of_the_normal_law_for_many_rows() -> None:
    rows = np.random.default_rng(1).normal(40.0, 10.0, size=(400, 2))
    half = 1.96 * rows.std(axis=0) / np.sqrt(400)
    ends = percentile_intervals(rows)
    assert ends[:, 0] == pytest.approx(rows.mean(axis=0) - half, abs=0.15)
    assert ends[:, 1] == pytest.approx(rows.mean(axis=0) + half, abs=0.15)
    assert np.array_equal(ends, percentile_intervals(rows))


def test_resamples_draw_the_same_rows_in_each_column() -> None:
    rows = np.arange(30.0).reshape(30, 1) * [1.0, 3.0]
    means = bootstrap_means(rows, resamples=250)
    assert means.shape == (250, 2)
    assert means[:, 1] == pytest.approx(3 * means[:, 0])


def test_scoring_imports_nothing_heavy() -> None:
    code = (
        "import sys, dialsum.score.api, dialsum.score.files, dialsum.score.show;"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'mecab', 'nltk', 'rapidfuzz'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_chunks_and_processors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(PREDICTIONS * 9, REFERENCES * 9, DIALOGUES * 9)
    whole = score_report(rows, train_summaries=TRAIN)
    monkeypatch.setattr("dialsum.score.api.CHUNK_ROWS", 5)
    assert score_report(rows, train_summaries=TRAIN) == whole
    monkeypatch.setattr("dialsum.score.api.MANY_ROWS", 5)
    assert score_report(rows, train_summaries=TRAIN) == whole


def test_the_ceiling_is_what_people_reach() -> None:
    references = [
        ["둘은 점심을 먹는다.", "그들은 점심을 함께 먹는다."],
        ["#Person1#은 길을 묻는다.", "#Person1#은 역으로 가는 길을 묻는다."],
        ["그는 환불을 원한다.", "손님이 환불을 원한다."],
    ]
    block = score_report(Rows(PREDICTIONS, references), train_summaries=TRAIN)
    human = block["ceiling"]["human"]
    each = [
        score_texts([row[own] for row in references], [[row[1 - own]] for row in references])
        for own in (0, 1)
    ]
    assert human["rouge_mean"] == pytest.approx(sum(one.rouge_mean for one in each) / 2, abs=1e-3)
    corrected = block["corrected"]
    floor = max(one["rouge_mean"] for one in block["floors"].values())
    assert corrected["ceiling"] == "human"
    assert corrected["rouge_mean"] == pytest.approx(
        100 * (block["rouge_mean"] - floor) / (human["rouge_mean"] - floor), abs=0.01
    )
    assert "ceiling" not in score_report(Rows(PREDICTIONS, REFERENCES))


def test_the_best_floor_is_no_achievement() -> None:
    block = score_report(ROWS, train_summaries=TRAIN)
    text = block["floors"]["constant"]["text"]
    again = score_report(Rows([text] * 3, REFERENCES), train_summaries=TRAIN)
    assert again["corrected"]["rouge_mean"] <= 0.0

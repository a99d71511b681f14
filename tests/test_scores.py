"""The door of scoring: what is refused, what a record holds, what holds of any text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialsum.errors import DataError, UnfitError
from dialsum.files import dump_json
from dialsum.score.api import (
    BESIDE,
    FLOOR_SCORES,
    FLOORS,
    SCORES,
    rank_by_likeness,
    score_report,
    score_texts,
)
from dialsum.score.rouge import METRICS, make_signature, require_same_signature
from dialsum.score.rows import Rows, slice_rows
from dialsum.score.show import format_scores

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


def test_refuses_other_counts_and_unknown_recipes() -> None:
    with pytest.raises(DataError, match="0 dialogues for 1 predictions"):
        score_report(Rows(["a"], [["a"]], dialogues=[]))
    with pytest.raises(UnfitError, match=r"aggregate 'sum' is unknown.*mean, max"):
        score_texts(["a"], [["a"]], aggregate="sum")


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace", "char", "english"])
@pytest.mark.parametrize("empty", ["", " \n", "\0"])
def test_an_empty_prediction_scores_zero(tokenizer: str, empty: str) -> None:
    score = score_texts([empty, "go home"], [["go home"], ["go home"]], tokenizer=tokenizer)
    assert score.rates[:, 0, 2].tolist() == pytest.approx([0.0, 100.0])
    assert score.rouge_mean == pytest.approx(50.0)


def test_the_text_most_like_all_comes_first_and_an_empty_one_last() -> None:
    texts = ["", "비가 와요", "#Person1#은 환불을 원한다", "#Person1#은 환불을 바로 원한다", "환불"]
    order = rank_by_likeness(texts, tokenizer="mecab")
    assert order[0] == 2
    assert set(order[-2:]) == {0, 1}
    assert rank_by_likeness(["", ""], tokenizer="mecab") == [0, 1]
    # A tag alone is one token of both, however many morphemes it would be cut into.
    tagged = ["#Person1#은 울었다", "#Person1#", "은 울었다", "울었다"]
    assert rank_by_likeness(tagged, tokenizer="whitespace")[0] == 0


def test_sum_and_mean_are_of_rouge_1_2_and_l() -> None:
    score = score_texts(["a b x"], [["a b c d"]], tokenizer="whitespace")
    assert score.rouge_sum == pytest.approx(score.rouge1 + score.rouge2 + score.rougeL)
    assert score.rouge_mean == pytest.approx(score.rouge_sum / 3)
    assert score.intervals()["rouge_sum"] == pytest.approx((score.rouge_sum, score.rouge_sum))


PREDICTIONS = ["#Person1#은 역에 간다.", "둘은 저녁을 먹는다.", "привет"]
REFERENCES = [["#Person1#은 역으로 간다."], ["둘은 점심을 먹는다."], ["#Person2#는 인사한다."]]
TRAIN = ["#Person1#은 #Person2#에게 말한다.", "#Person1#은 말한다.", "둘은 말한다."]
DIALOGUES = ["#Person1#: 역에 가요.\n#Person2#: 네."] * 3
ROWS = Rows(PREDICTIONS, REFERENCES, DIALOGUES)


def test_the_record_and_its_text_have_every_scale_with_recipe_interval_and_floors() -> None:
    block = score_report(ROWS, train_summaries=TRAIN)
    text = format_scores(block, name="ours")
    for scale in (block, block["tags_one"], block["whitespace"]):
        assert set(SCORES) < set(scale)
        assert scale["rows"] == 3
        assert set(scale["floors"]) == set(FLOORS)
        assert set(scale["floors"]["constant"]) == {"text", *FLOOR_SCORES}
        assert set(scale["floors"]["lead2"]) == set(FLOOR_SCORES)
        assert set(scale["precision"]) == set(scale["recall"]) == set(METRICS)
        low, high = scale["confidence"]["rouge_mean"]
        assert low <= scale["rouge_mean"] <= high
        assert scale["signature"] in text
        assert f"{low:.2f} - {high:.2f}" in text
        assert f"constant: {scale['floors']['constant']['text']}" in text
    assert block["foreign_script_rate"] == pytest.approx(100 / 3, abs=1e-3)
    assert "|tags:split|" in block["signature"] and "|tags:one|" in block["tags_one"]["signature"]
    assert "|tok:whitespace|" in block["whitespace"]["signature"]
    assert json.loads(dump_json(block)) == block
    assert score_report(ROWS, train_summaries=TRAIN) == block
    rows = [line for line in text.splitlines() if line.startswith(("  ours   ", "  lead-2"))]
    beside = [key for key in BESIDE if key in block]
    assert len(rows) == 6 + 2 * len(beside)
    assert rows[0].split()[1] == f"{block['rouge1']:.2f}"


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


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(PREDICTIONS * 9, REFERENCES * 9, DIALOGUES * 9)
    whole = score_report(rows, train_summaries=TRAIN)
    alone = score_texts(rows.predictions, rows.references).rates.tolist()
    monkeypatch.setattr("dialsum.score.api.CHUNK_ROWS", 5)
    assert score_report(rows, train_summaries=TRAIN) == whole
    assert score_texts(rows.predictions, rows.references).rates.tolist() == alone


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
    slices = slice_rows(make_rows(list(range(3, 103)), topics=topics))
    for kind in ("topic", "speakers", "length"):
        places = sorted(int(row) for by, _, rows in slices if by == kind for row in rows)
        assert places == list(range(100)), kind
    named = [(value, len(rows)) for by, value, rows in slices if by != "length"]
    topic_rows = [("길", 32), ("병원", 30), ("식당", 5), ("no topic", 33)]
    assert named == [*topic_rows, ("2", 50), ("3", 50)]
    assert [len(rows) for by, _, rows in slices if by == "length"] == [25, 25, 25, 25]


def test_kinds_of_slices_that_tell_nothing_are_left_out() -> None:
    assert slice_rows(Rows(["a"], [["a"]])) == []
    rows = make_rows([4] * 6, topics=[f"주제 {row}" for row in range(6)])
    # Each topic has one row, all dialogues are of like length; the numbers of speakers differ.
    assert {by for by, *_ in slice_rows(rows)} == {"speakers"}


def test_slices_have_their_own_means_and_few_rows_are_marked() -> None:
    rows = make_rows(list(range(3, 43)))
    worse = Rows(["그렇다."] * 20 + list(rows.predictions[20:]), rows.references, rows.dialogues)
    block = score_report(worse)
    by_length = [one for one in block["slices"] if one["by"] == "length"]
    assert [one["rows"] for one in by_length] == [10, 10, 10, 10]
    assert by_length[0]["rouge_mean"] < 30 < by_length[3]["rouge_mean"] == 100.0
    low, high = by_length[1]["confidence"]
    assert low <= by_length[1]["rouge_mean"] <= high
    few = {(one["by"], one["rows"]): one["few"] for one in block["slices"]}
    assert few == {("speakers", 20): False, ("length", 10): True}
    assert "10 few" in format_scores(block) and "few: under 20 rows" in format_scores(block)


def test_signatures() -> None:
    versions = r"mecab-ko-\d[\w.]*/dic-\d[\w.]*"
    found = make_signature("mecab", "split", references=3, aggregate="mean")
    tokenizer = found.split("|")[1].removeprefix("tok:")
    assert re.fullmatch(versions, tokenizer)
    assert found == f"rouge|tok:{tokenizer}|refs:3,mean|tags:split|case:kept|nfc|v1"
    assert "|refs:2,max|" in make_signature("char", "split", references=2, aggregate="max")
    # Of one reference the mean and the best are the same recipe.
    one = "rouge|tok:char|refs:1|tags:one|case:kept|nfc|v1"
    assert make_signature("char", "one", references=1, aggregate="max") == one
    other = one.replace("tags:one", "tags:split")
    for equal in ({}, {"a": one}, {"a": one, "b": one}):
        require_same_signature(equal)
    with pytest.raises(
        DataError,
        match=r"2 different signatures[\s\S]*run 1, run 3: [\s\S]*run 2: .*differs in tags:one",
    ):
        require_same_signature({"run 1": other, "run 2": one, "run 3": other})


def test_scoring_imports_nothing_heavy() -> None:
    code = (
        "import sys, dialsum.score.api, dialsum.score.files, dialsum.score.show;"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'mecab', 'nltk', 'rapidfuzz'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TOKENIZERS = ["mecab", "whitespace", "char", "english"]
WORDS = st.sampled_from(
    ["#Person1#은", "간다.", "역에", "3시에", "Go", "\n", " ", "가", "café", "漢"]
)
KOREAN = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
ANY = st.text(st.characters(codec="utf-8"), max_size=40)
REFERENCE = (KOREAN | ANY).filter(lambda text: bool(text.strip()))
FEW = settings(max_examples=60, deadline=None)


@given(ANY | KOREAN, REFERENCE, st.sampled_from(TOKENIZERS))
@FEW
def test_what_holds_of_any_pair(prediction: str, reference: str, tokenizer: str) -> None:
    """Between 0 and 100; exchanging both exchanges precision and recall; NFD is NFC."""
    there = score_texts([prediction], [[reference]], tokenizer=tokenizer)
    assert 0.0 <= there.rates.min() <= there.rates.max() <= 100.0
    one, other = (unicodedata.normalize("NFD", text) for text in (prediction, reference))
    apart = score_texts([one], [[other]], tokenizer=tokenizer)
    assert [getattr(there, name) for name in SCORES] == [getattr(apart, name) for name in SCORES]
    if prediction.strip():
        back = score_texts([reference], [[prediction]], tokenizer=tokenizer)
        # Lsum takes the union of the reference's lines: it is not symmetric for several lines.
        assert there.rates[0, :3, 0].tolist() == back.rates[0, :3, 1].tolist()
        assert there.rates[0, :3, 2].tolist() == pytest.approx(back.rates[0, :3, 2].tolist())


@given(KOREAN.filter(str.strip), st.sampled_from(["mecab", "whitespace", "char"]))
@FEW
def test_identical_texts_score_100(text: str, tokenizer: str) -> None:
    found = score_texts([text], [[text]], tokenizer=tokenizer)
    assert found.rouge1 == found.rougeL == found.rougeLsum == pytest.approx(100.0)


@given(st.lists(st.tuples(KOREAN, KOREAN.filter(str.strip)), min_size=2, max_size=6), st.randoms())
@FEW
def test_the_order_of_rows_does_not_count(rows: list[tuple[str, str]], random: Any) -> None:
    shuffled = rows[:]
    random.shuffle(shuffled)
    first, second = (
        score_texts([one for one, _ in some], [[other] for _, other in some])
        for some in (rows, shuffled)
    )
    for name in SCORES:
        assert getattr(first, name) == pytest.approx(getattr(second, name))


@given(KOREAN, st.lists(KOREAN.filter(str.strip), min_size=2, max_size=4))
@FEW
def test_another_reference_never_lowers_the_best(prediction: str, references: list[str]) -> None:
    fewer = score_texts([prediction], [references[:-1]], aggregate="max")
    more = score_texts([prediction], [references], aggregate="max")
    for name in METRICS:
        assert getattr(more, name) >= getattr(fewer, name) - 1e-9


@given(ANY | KOREAN, REFERENCE, ANY)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_breaks_the_report(prediction: str, reference: str, dialogue: str) -> None:
    block = score_report(Rows([prediction], [[reference]], [dialogue]))
    assert 0.0 <= block["rouge_mean"] <= 100.0
    assert 0.0 <= block["unseen"]["chrf"]["value"] <= 100.0

"""Our ROUGE against two packages on the same tokens, and against counts done by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from korouge_score import rouge_scorer as korouge_scorer
from rouge_score import rouge_scorer

from dialsum.score.api import Voters, other_summaries, score_texts
from dialsum.score.rouge import (
    METRICS,
    TAG_TREATMENTS,
    TextPreparer,
    Tokeniser,
    load_tokeniser,
    score_pairs,
)

TINY = 1e-9

# prediction, reference, F1 of rouge1, rouge2, rougeL, rougeLsum on whitespace, by hand
BY_HAND = [
    ("", "a", (0, 0, 0, 0)),
    ("a", "b", (0, 0, 0, 0)),
    ("a", "a", (1, 0, 1, 1)),
    ("a b", "a b", (1, 1, 1, 1)),
    ("a a a a", "a", (2 / 5, 0, 2 / 5, 2 / 5)),
    ("b a", "a b", (1, 0, 1 / 2, 1 / 2)),
    ("a b c d", "a c b d", (1, 0, 3 / 4, 3 / 4)),
    ("a b\nc d", "c d\na b", (1, 2 / 3, 1 / 2, 1)),
    ("a b c", "a b\n\nc", (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("prediction", "reference", "expected"), BY_HAND)
def test_f1_by_hand(prediction: str, reference: str, expected: tuple[float, ...]) -> None:
    score = score_texts([prediction], [[reference]], tokenizer="whitespace")
    assert [getattr(score, name) for name in METRICS] == pytest.approx([100 * f for f in expected])


class _Given:
    """Hands our tokens to other packages."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self.tokenize = tokeniser


def assert_equal_to_rouge_score(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
) -> None:
    tokeniser = _Given(load_tokeniser(tokenizer, tags=tags))
    theirs = rouge_scorer.RougeScorer(METRICS, tokenizer=tokeniser)
    ours = score_texts(predictions, [[text] for text in references], tokenizer=tokenizer, tags=tags)
    rows = [theirs.score(*pair) for pair in zip(references, predictions, strict=True)]
    expected = 100 * np.array([[row[name] for name in METRICS] for row in rows])
    np.testing.assert_allclose(ours.rates, expected, rtol=0, atol=TINY)


PREDICTIONS = [
    "#Person1#은 #Person2#에게 길을 묻는다.",
    "민수는 환불을 원한다.\n점원은 #CardNumber#를 확인한다.",
    "\n\n그는 간다\n",
    "",
    "!",
    "The friends are meeting. They met.",
]
REFERENCES = [
    "#Person2#는 #Person1#에게 역까지 가는 길을 알려 준다.",
    "점원은 카드를 확인하고\n민수에게 환불해 준다.",
    "그는\r\n간다",
    "아무 말도 없다.",
    "안녕",
    "#Person1# meets friends\nand they talk.",
]


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace", "char", "english"])
@pytest.mark.parametrize("tags", TAG_TREATMENTS)
def test_equal_to_rouge_score_on_samples(tokenizer: str, tags: str) -> None:
    assert_equal_to_rouge_score(PREDICTIONS, REFERENCES, tokenizer=tokenizer, tags=tags)


LINES = st.text(alphabet="abcd \n", max_size=30)


@given(LINES, LINES.filter(str.strip))
@settings(max_examples=300)
def test_equal_to_rouge_score_on_any_lines(prediction: str, reference: str) -> None:
    assert_equal_to_rouge_score([prediction], [reference], tokenizer="whitespace")


def read_summaries(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["fname"]: row["summary"] for row in csv.DictReader(file)}


def read_korean(shared_dir: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the predictions of a system for the dev rows, and their references."""
    folder = shared_dir / "data" / "ko"
    references = read_summaries(folder / "dev.csv")
    predictions = read_summaries(folder / "predictions" / f"gemma270m_lora_{name}.csv")
    return [predictions[name] for name in references], list(references.values())


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace", "english"])
@pytest.mark.parametrize("tags", TAG_TREATMENTS)
@pytest.mark.parametrize("name", ["greedy", "beam4_norepeat4"])
def test_equal_to_rouge_score_on_korean_predictions(
    shared_dir: Path, name: str, tokenizer: str, tags: str
) -> None:
    assert_equal_to_rouge_score(*read_korean(shared_dir, name), tokenizer=tokenizer, tags=tags)


@pytest.mark.parametrize("name", ["train.csv", "test_references.csv"])
def test_equal_to_rouge_score_on_all_korean_summaries(shared_dir: Path, name: str) -> None:
    """Each row's summary in another row's place, since no system has predicted these rows."""
    summaries = list(read_summaries(shared_dir / "data" / "ko" / name).values())
    assert_equal_to_rouge_score(other_summaries(summaries), summaries)


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace"])
def test_equal_to_another_korean_rouge(shared_dir: Path, tokenizer: str) -> None:
    """korouge-score on the same morphemes. Left to itself it counts what stands between spaces, as
    our whitespace scale does, but in lower case (#person1#)."""
    predictions, references = read_korean(shared_dir, "greedy")
    own = _Given(load_tokeniser("mecab")) if tokenizer == "mecab" else None
    theirs = korouge_scorer.RougeScorer(list(METRICS[:3]), use_stemmer=False, tokenizer=own)
    if own is None:
        predictions, references = (
            [text.lower() for text in of] for of in (predictions, references)
        )
    ours = score_texts(predictions, [[text] for text in references], tokenizer=tokenizer)
    rows = [theirs.score(*pair) for pair in zip(references, predictions, strict=True)]
    expected = [[100 * row[name].fmeasure for name in METRICS[:3]] for row in rows]
    np.testing.assert_allclose(ours.rates[:, :3, 2], expected, rtol=0, atol=TINY)


def test_english_is_that_of_rouge_score_and_gives_the_published_scores(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "en"
    predictions = (folder / "bart_large_test_output.txt").read_text(encoding="utf-8").split("\n")
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    columns = [[row[f"summary{number}"] for row in rows] for number in (1, 2, 3)]
    assert_equal_to_rouge_score(predictions, columns[0], tokenizer="english")
    alone = [
        score_texts(predictions, [[text] for text in column], tokenizer="english")
        for column in columns
    ]
    found = [round(getattr(alone[0], name), 2) for name in ("rouge1", "rouge2", "rougeL")]
    assert found == [45.91, 21.32, 38.71]
    # Several references are averaged, or the best counts, as in score_multi.
    references = list(zip(*columns, strict=True))
    mean, best = (
        score_texts(predictions, references, tokenizer="english", aggregate=aggregate)
        for aggregate in ("mean", "max")
    )
    assert "|refs:3,mean|" in mean.signature and "|refs:3,max|" in best.signature
    theirs = rouge_scorer.RougeScorer(METRICS, use_stemmer=True)
    multi = [theirs.score_multi(*pair) for pair in zip(references, predictions, strict=True)]
    for name in METRICS:
        assert getattr(mean, name) == pytest.approx(
            sum(getattr(score, name) for score in alone) / 3, abs=TINY
        )
    # Precision and recall are of either where two references have the same F1.
    expected = [[100 * row[name].fmeasure for name in METRICS] for row in multi]
    np.testing.assert_allclose(best.rates[..., 2], expected, rtol=0, atol=TINY)


def test_many_pairs_at_once_are_as_each_alone() -> None:
    texts = ["", "a", "a a b", "a b a b c", "c\nb a", "b c a a a\na b"]
    preparer = TextPreparer(load_tokeniser("whitespace"))
    prepared = [preparer.prepare(text) for text in texts]
    pairs = [(one, other) for one in prepared for other in prepared]
    alone = [score_pairs([one], [other])[0].tolist() for one, other in pairs]
    assert score_pairs(*zip(*pairs, strict=True)).tolist() == alone


def longest_by_table(left: Sequence[str], right: Sequence[str]) -> int:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


TOKENS = st.text(alphabet="abcdef", max_size=150)


@given(TOKENS, TOKENS)
@settings(max_examples=100, deadline=None)
def test_lcs_equals_the_plain_table(left: str, right: str) -> None:
    preparer = TextPreparer(load_tokeniser("char"))
    precision = score_pairs([preparer.prepare(left)], [preparer.prepare(right)])[0, 2, 0]
    assert precision * len(left) == pytest.approx(longest_by_table(left, right))


@given(st.lists(LINES, min_size=1, max_size=5), st.lists(LINES, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_voters_rate_as_scores_do(texts: list[str], voters: list[str]) -> None:
    """The floors' search counts in its own way; it must be the same count."""
    preparer = TextPreparer(load_tokeniser("whitespace"))
    ones, others = ([preparer.prepare(text) for text in side] for side in (texts, voters))
    found = Voters([other.tokens for other in others]).rate([one.tokens for one in ones])
    expected = [score_pairs([one] * len(others), others)[:, :3, 2].mean() for one in ones]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    # A voter does not vote for itself.
    same = [ones[0].tokens] * 2
    expected = Voters(same[:1]).rate(same[:1])
    assert Voters(same).rate(same, own_places=True).tolist() == pytest.approx([*expected] * 2)

"""Our ROUGE against two packages on the same tokens, and against counts done by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from korouge_score import rouge_scorer as korouge_scorer
from rouge_score import rouge_scorer

from dialsum.score.api import score_texts
from dialsum.score.floors import Voters, other_summaries
from dialsum.score.rouge import METRICS, TextPreparer, score_pairs
from dialsum.score.tokenise import TAG_TREATMENTS, Tokeniser, load_tokeniser

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
    """Hands our tokens to rouge_score."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self.tokenize = tokeniser


def assert_equal_to_rouge_score(
    predictions: Sequence[str], references: Sequence[str], *, tokenizer: str, tags: str
) -> None:
    theirs = rouge_scorer.RougeScorer(
        METRICS, tokenizer=_Given(load_tokeniser(tokenizer, tags=tags))
    )
    ours = score_texts(predictions, [[text] for text in references], tokenizer=tokenizer, tags=tags)
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for name, expected in theirs.score(reference, prediction).items():
            found = [ours.precision[name][row], ours.recall[name][row], ours.per_row[name][row]]
            assert found == pytest.approx([100 * value for value in expected], abs=TINY), (
                row,
                name,
            )


SAMPLES = [
    (
        "#Person1#은 #Person2#에게 길을 묻는다.",
        "#Person2#는 #Person1#에게 역까지 가는 길을 알려 준다.",
    ),
    (
        "민수는 환불을 원한다.\n점원은 #CardNumber#를 확인한다.",
        "점원은 카드를 확인하고\n민수에게 환불해 준다.",
    ),
    ("\n\n그는 간다\n", "그는\r\n간다"),
    ("", "아무 말도 없다."),
    ("!", "안녕"),
    ("The friends are meeting. They met.", "#Person1# meets friends\nand they talk."),
]


@pytest.mark.parametrize("tokenizer", ["mecab", "whitespace", "char", "english"])
@pytest.mark.parametrize("tags", TAG_TREATMENTS)
def test_equal_to_rouge_score_on_samples(tokenizer: str, tags: str) -> None:
    predictions, references = zip(*SAMPLES, strict=True)
    assert_equal_to_rouge_score(predictions, references, tokenizer=tokenizer, tags=tags)


LINES = st.text(alphabet="abcd \n", max_size=30)


@given(LINES, LINES.filter(str.strip))
@settings(max_examples=300)
def test_equal_to_rouge_score_on_any_lines(prediction: str, reference: str) -> None:
    assert_equal_to_rouge_score([prediction], [reference], tokenizer="whitespace", tags="split")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("tokenizer", "tags"),
    [
        ("mecab", "split"),
        ("mecab", "one"),
        ("mecab", "removed"),
        ("whitespace", "split"),
        ("english", "split"),
    ],
)
def test_equal_to_rouge_score_on_korean_predictions(
    shared_dir: Path, tokenizer: str, tags: str
) -> None:
    folder = shared_dir / "data" / "ko"
    references = {row["fname"]: row["summary"] for row in read_csv(folder / "dev.csv")}
    for path in sorted((folder / "predictions").glob("*.csv")):
        predictions = {row["fname"]: row["summary"] for row in read_csv(path)}
        assert_equal_to_rouge_score(
            [predictions[name] for name in references],
            list(references.values()),
            tokenizer=tokenizer,
            tags=tags,
        )


@pytest.mark.parametrize("name", ["train.csv", "test_references.csv"])
def test_equal_to_rouge_score_on_all_korean_summaries(shared_dir: Path, name: str) -> None:
    """Each row's summary in another row's place, since no system has predicted these rows."""
    summaries = [row["summary"] for row in read_csv(shared_dir / "data" / "ko" / name)]
    assert_equal_to_rouge_score(
        other_summaries(summaries), summaries, tokenizer="mecab", tags="split"
    )


def read_english(shared_dir: Path) -> tuple[list[str], list[dict[str, str]]]:
    folder = shared_dir / "data" / "en"
    predictions = (folder / "bart_large_test_output.txt").read_text(encoding="utf-8").split("\n")
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return predictions, [json.loads(line) for line in lines]


def test_english_gives_the_published_scores(shared_dir: Path) -> None:
    predictions, rows = read_english(shared_dir)
    score = score_texts(predictions, [[row["summary1"]] for row in rows], tokenizer="english")
    found = (round(score.rouge1, 2), round(score.rouge2, 2), round(score.rougeL, 2))
    assert found == (45.91, 21.32, 38.71)


def test_equal_to_rouge_score_on_english_predictions(shared_dir: Path) -> None:
    predictions, rows = read_english(shared_dir)
    first = [row["summary1"] for row in rows]
    assert_equal_to_rouge_score(predictions, first, tokenizer="english", tags="split")


def test_several_references_are_averaged_not_maximised(shared_dir: Path) -> None:
    predictions, rows = read_english(shared_dir)
    together = score_texts(
        predictions, [[row[f"summary{n}"] for n in (1, 2, 3)] for row in rows], tokenizer="english"
    )
    alone = [
        score_texts(predictions, [[row[f"summary{n}"]] for row in rows], tokenizer="english")
        for n in (1, 2, 3)
    ]
    for name in METRICS:
        mean = sum(getattr(score, name) for score in alone) / 3
        assert getattr(together, name) == pytest.approx(mean, abs=TINY)
    assert "|refs:3,mean|" in together.signature


def test_the_best_reference_is_that_of_rouge_score(shared_dir: Path) -> None:
    predictions, rows = read_english(shared_dir)
    references = [[row[f"summary{n}"] for n in (1, 2, 3)] for row in rows]
    ours = score_texts(predictions, references, tokenizer="english", aggregate="max")
    theirs = rouge_scorer.RougeScorer(METRICS, use_stemmer=True)
    for row, (prediction, texts) in enumerate(zip(predictions, references, strict=True)):
        for name, expected in theirs.score_multi(texts, prediction).items():
            # Precision and recall are of either where two references have the same F1.
            assert ours.per_row[name][row] == pytest.approx(100 * expected.fmeasure, abs=TINY)
    assert "|refs:3,max|" in ours.signature


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


def test_equal_to_another_korean_rouge(shared_dir: Path) -> None:
    """korouge-score on the same morphemes. Left to itself it counts what stands between spaces, as
    our whitespace scale does, but in lower case (#person1#)."""
    folder = shared_dir / "data" / "ko"
    references = {row["fname"]: row["summary"] for row in read_csv(folder / "dev.csv")}
    path = folder / "predictions" / "gemma270m_lora_greedy.csv"
    predictions = {row["fname"]: row["summary"] for row in read_csv(path)}
    pairs = [(predictions[name], text) for name, text in references.items()]
    lower = [(one.lower(), other.lower()) for one, other in pairs]
    mecab = korouge_scorer.RougeScorer(METRICS[:3], tokenizer=_Given(load_tokeniser("mecab")))
    own = korouge_scorer.RougeScorer(METRICS[:3], use_stemmer=False)
    for theirs, tokenizer, texts in ((mecab, "mecab", pairs), (own, "whitespace", lower)):
        ours = score_texts(
            [one for one, _ in texts], [[other] for _, other in texts], tokenizer=tokenizer
        )
        for row, (prediction, reference) in enumerate(pairs):
            for name, expected in theirs.score(reference, prediction).items():
                assert ours.per_row[name][row] == pytest.approx(100 * expected.fmeasure, abs=TINY)

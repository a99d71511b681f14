"""Our ROUGE against korouge-score, a Korean ROUGE of other people."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from korouge_score import rouge_scorer

from dialsum.score.api import score_texts
from dialsum.score.tokenise import load_tokeniser

METRICS = ["rouge1", "rouge2", "rougeL"]


class _Given:
    def __init__(self) -> None:
        self.tokenize = load_tokeniser("mecab")


def read_pairs(shared_dir: Path) -> tuple[list[str], list[str]]:
    folder = shared_dir / "data" / "ko"

    def read(path: Path) -> dict[str, str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["fname"]: row["summary"] for row in csv.DictReader(file)}

    references = read(folder / "dev.csv")
    predictions = read(folder / "predictions" / "gemma270m_lora_greedy.csv")
    return [predictions[name] for name in references], list(references.values())


def test_equal_on_the_same_morphemes(shared_dir: Path) -> None:
    predictions, references = read_pairs(shared_dir)
    theirs = rouge_scorer.RougeScorer(METRICS, tokenizer=_Given())
    ours = score_texts(predictions, [[text] for text in references])
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for name, expected in theirs.score(reference, prediction).items():
            assert ours.per_row[name][row] == pytest.approx(100 * expected.fmeasure, abs=1e-9)


def test_its_own_tokens_are_words_in_lower_case(shared_dir: Path) -> None:
    """Left to itself it counts what stands between spaces, as our whitespace scale does, but in
    lower case (#person1#)."""
    predictions, references = read_pairs(shared_dir)
    theirs = rouge_scorer.RougeScorer(METRICS, use_stemmer=False)
    ours = score_texts(
        [text.lower() for text in predictions],
        [[text.lower()] for text in references],
        tokenizer="whitespace",
    )
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        for name, expected in theirs.score(reference, prediction).items():
            assert ours.per_row[name][row] == pytest.approx(100 * expected.fmeasure, abs=1e-9)

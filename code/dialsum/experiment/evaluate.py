"""The second half of an experiment: dev scores beside floors and targets, and the submission.

Must not train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dialsum.config.schema import Config, Target
from dialsum.data.dialogues import Dialogue
from dialsum.data.row_checks import has_no_text
from dialsum.score.api import score_report, score_texts
from dialsum.score.rows import Rows

TRAINING_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_mean", "rouge_sum")


def make_dev_scorer(
    config: Config, rows: Sequence[Dialogue]
) -> Callable[[Sequence[str]], dict[str, float]]:
    """Return the function that scores predictions of these dev rows on the experiment's scale."""
    references = [[row.summary or ""] for row in rows]

    def score(predictions: Sequence[str]) -> dict[str, float]:
        found = score_texts(predictions, references, tokenizer=config.evaluation.tokenizer)
        return {name: round(float(getattr(found, name)), 4) for name in TRAINING_SCORES}

    return score


def evaluate_dev(
    config: Config,
    *,
    dev: Sequence[Dialogue],
    train: Sequence[Dialogue],
    predictions: Sequence[str],
    num_beams: int,
) -> dict[str, Any]:
    """Score dev predictions on all scales, with floors and confidence, and against the targets.

    Args:
        num_beams: of the search that wrote the predictions.

    Returns:
        The `evaluation` block of result.json.
    """
    rows = Rows(
        predictions=predictions,
        references=[[row.summary or ""] for row in dev],
        dialogues=[row.dialogue for row in dev],
        names=[row.fname for row in dev],
        topics=[row.topic or "" for row in dev] if any(row.topic for row in dev) else None,
    )
    block = score_report(
        rows,
        tokenizer=config.evaluation.tokenizer,
        train_summaries=[row.summary or "" for row in train],
    )
    scale = block if config.evaluation.tokenizer == "whitespace" else block["whitespace"]
    scores = _scores_on(config, block, scale)
    block["num_beams"] = num_beams
    return {"dev": block, **check_target(config.evaluation.target, scores=scores)}


def _scores_on(
    config: Config, block: dict[str, Any], whitespace: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the scores on the scale that the targets were stated on; None where not computed."""
    wanted = config.evaluation.target.tokenizer
    if wanted == "whitespace":
        return whitespace
    return block if wanted == config.evaluation.tokenizer else None


def check_target(target: Target, *, scores: dict[str, Any] | None) -> dict[str, Any]:
    """Say whether scores on the target's scale reach what was expected, wanted, hoped for.

    Returns:
        {"target": {...}} with `met` beside each, or {} where there is no target or no score on its
        scale.
    """
    if scores is None or not (target.rouge1 or target.minimum or target.ideal):
        return {}
    record: dict[str, Any] = {
        "tokenizer": target.tokenizer,
        "signature": scores["signature"],
        "rouge1": scores["rouge1"],
        "rouge2": scores["rouge2"],
        "rougeL": scores["rougeL"],
    }
    if target.rouge1:
        met = scores["rouge1"] >= target.rouge1[0]
        record["expected"] = {"rouge1": target.rouge1, "met": met}
    for name in ("minimum", "ideal"):
        wanted: dict[Any, float] = getattr(target, name)
        if wanted:
            met = all(scores[key] >= least for key, least in wanted.items())
            record[name] = {**wanted, "met": met}
    return {"target": record}


def fill_empty(summaries: Sequence[str], rows: Sequence[Dialogue]) -> tuple[list[str], int]:
    """Put the first utterance where a test summary says nothing: no cell may be empty.

    Returns:
        The summaries, and how many were filled; the record and a warning say that number.
    """
    filled, count = [], 0
    for summary, row in zip(summaries, rows, strict=True):
        if not has_no_text(summary):
            filled.append(summary)
            continue
        count += 1
        lines = row.dialogue.strip().split("\n")
        said = (line.split(":", 1)[-1].strip() or line for line in lines)
        filled.append(next((text for text in said if not has_no_text(text)), lines[0]))
    return filled, count

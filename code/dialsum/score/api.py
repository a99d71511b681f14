"""The door of scoring: aligned texts in, scores with signature, floors, interval and all else out.

    score_texts(predictions, references)                one scale, quickly, as during training
    score_report(Rows(predictions, references, …))      everything that a record carries
    compare_reports({"a": report, "b": report})         which differences are real

Must not know files, models, or which run the texts come from.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dialsum.errors import DataError, UnfitError
from dialsum.score.chunks import Scale, Task, take_figures
from dialsum.score.compare import ALPHA, TRIALS, compare_systems
from dialsum.score.constant import choose_constant
from dialsum.score.floors import other_summaries
from dialsum.score.report import (
    DECIMALS,
    SCORES,
    add_exchange,
    all_scores,
    describe_scale,
    describe_slices,
    describe_unseen,
    intervals,
)
from dialsum.score.rouge import METRICS, TextPreparer
from dialsum.score.rows import Rows
from dialsum.score.signature import AGGREGATES, Signature, require_same_signature
from dialsum.score.tokenise import load_tokeniser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OWN = "asked"
BESIDE = {"tags_one": (None, "one"), "whitespace": ("whitespace", "split")}
"""Scales that stand beside the asked one: tokenizer (None: the asked one) and tags."""


@dataclass(frozen=True, eq=False)
class Score:
    """A corpus score (0-100, mean of the rows' F1) with all that is needed to judge and compare it.

    Attributes:
        rouge_mean: mean of ROUGE-1, -2 and -L; rouge_sum: their sum.
        per_row: F1 of each of SCORES, [rows] each, in the order of the predictions.
        precision, recall: of each of METRICS, [rows] each.
    """

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float
    rouge_mean: float
    rouge_sum: float
    signature: Signature
    rows: int
    per_row: Mapping[str, NDArray[np.float64]]
    precision: Mapping[str, NDArray[np.float64]]
    recall: Mapping[str, NDArray[np.float64]]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each of SCORES; seeded."""
        return intervals(self.per_row)


def score_texts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
    aggregate: str = "mean",
) -> Score:
    """Score predictions against their rows' references on one scale.

    Args:
        predictions: one text a row; an empty one scores 0.
        references: the row's reference summaries, equally many in each row.
        tokenizer: mecab, kiwi, whitespace, char or english.
        tags: split, one or removed: what is done with #Person1# and masks.
        aggregate: mean or max of the references' scores.

    Raises:
        DataError: no rows, unequal counts, an empty reference, something that is no text.
        UnfitError: an unknown tokenizer, or one whose library is missing.
    """
    rows = Rows(predictions, references)
    rows.check()
    signature = make_signature(tokenizer, tags, references=len(references[0]), aggregate=aggregate)
    task = Task(rows, {OWN: Scale(tokenizer, tags)}, aggregate)
    table = take_figures(task).run[OWN]
    f1 = all_scores(table[..., 2])
    return Score(
        **{name: float(f1[name].mean()) for name in SCORES},
        signature=signature,
        rows=len(predictions),
        per_row=f1,
        precision={name: table[:, place, 0] for place, name in enumerate(METRICS)},
        recall={name: table[:, place, 1] for place, name in enumerate(METRICS)},
    )


def score_report(
    rows: Rows,
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
    aggregate: str = "mean",
    train_summaries: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score on the asked scale and, beside it, with tags as one token and on whitespace.

    Args:
        rows: what is scored; dialogues add leads and the longest utterance as floors, and what a
            prediction says that its dialogue does not.
        tokenizer, tags, aggregate: as score_texts.
        train_summaries: what the constant floor is chosen from; never the references that are
            scored on. Without it there is no `constant` among the floors.

    Returns:
        The block of the asked scale (see describe_scale) with `tags_one` and `whitespace` (the same
        on those scales; left out where it would be the asked scale again), `foreign_script_rate`
        (percent of the rows), `unseen` (see describe_unseen) and `slices`.

    Raises:
        DataError, UnfitError: as score_texts.
    """
    rows.check()
    rows = rows.composed()
    scales = _choose_scales(tokenizer, tags, train_summaries)
    signatures = {
        name: make_signature(
            scale.tokenizer, scale.tags, references=len(rows.references[0]), aggregate=aggregate
        )
        for name, scale in scales.items()
    }
    first = [texts[0] for texts in rows.references]
    others = other_summaries(first) if len(rows) > 1 else None
    figures = take_figures(Task(rows, scales, aggregate, others, measured=True))
    add_exchange(figures, "tags_one" if "tags_one" in scales else OWN)
    blocks = {
        name: describe_scale(figures, name, scale=scale, signature=signatures[name])
        for name, scale in scales.items()
    }
    block: dict[str, Any] = blocks.pop(OWN) | blocks
    block["references_sha256"] = rows.references_sha256()
    block["unseen"] = describe_unseen(figures, rows)
    block["foreign_script_rate"] = block["unseen"]["foreign_script"]["value"]
    slices = describe_slices(figures, OWN, rows)
    return {**block, **({"slices": slices} if slices else {})}


def compare_reports(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say which of several systems' differences in rouge_mean are real, on the asked scale and with
    tags as one token.

    Args:
        blocks: name to score_report of the same rows in the same order.

    Returns:
        `alpha`, `trials`, `rows`, and `scales`: for each its signature, each system's mean with
        interval, best first, and the differences of every two (see Difference).

    Raises:
        DataError: fewer than two systems; other recipes, or another number of rows.
    """
    if len(blocks) < 2:
        raise DataError(["a comparison needs two predictions or more"])
    require_same_signature({name: str(block["signature"]) for name, block in blocks.items()})
    counts = {name: int(block["rows"]) for name, block in blocks.items()}
    if len({block["references_sha256"] for block in blocks.values()}) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(
            [
                "only systems with the same references in the same order can be compared; rows: "
                f"{found}"
            ]
        )
    scales = {OWN: blocks}
    if all("tags_one" in block for block in blocks.values()):
        scales["tags_one"] = {name: block["tags_one"] for name, block in blocks.items()}
    return {
        "alpha": ALPHA,
        "trials": TRIALS,
        "rows": next(iter(counts.values())),
        "scales": {key: _compare_scale(of_scale) for key, of_scale in scales.items()},
    }


def _compare_scale(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    import numpy as np

    ranked = sorted(blocks, key=lambda name: -float(blocks[name]["rouge_mean"]))
    scores = {name: np.array(blocks[name]["per_row"]["rouge_mean"]) for name in ranked}
    return {
        "signature": blocks[ranked[0]]["signature"],
        "systems": {
            name: {
                "rouge_mean": blocks[name]["rouge_mean"],
                "confidence": blocks[name]["confidence"]["rouge_mean"],
            }
            for name in ranked
        },
        "differences": [
            {
                key: round(value, DECIMALS) if isinstance(value, float) else value
                for key, value in asdict(one).items()
                if value is not None
            }
            for one in compare_systems(scores)
        ],
    }


def make_signature(tokenizer: str, tags: str, *, references: int, aggregate: str) -> Signature:
    """Return the recipe of a scale.

    Raises:
        UnfitError: an unknown tokenizer, treatment of tags or aggregate, or a missing library.
    """
    if aggregate not in AGGREGATES:
        raise UnfitError(
            f"aggregate {aggregate!r} is unknown; choose one of {', '.join(AGGREGATES)}"
        )
    tokeniser = load_tokeniser(tokenizer, tags=tags)
    return Signature(tokeniser.label, tags, references, tokeniser.case, aggregate)


def _choose_scales(
    tokenizer: str, tags: str, train_summaries: Sequence[str] | None
) -> dict[str, Scale]:
    """Return the asked scale and those beside it, each with the constant chosen on it."""
    wanted = {OWN: (tokenizer, tags)}
    for name, (other, treatment) in BESIDE.items():
        if (pair := (other or tokenizer, treatment)) not in wanted.values():
            wanted[name] = pair
    return {
        name: Scale(
            *pair,
            full=name != "whitespace",
            constant=None
            if train_summaries is None
            else _choose_constant(*pair, tuple(train_summaries)),
        )
        for name, pair in wanted.items()
    }


@functools.lru_cache(maxsize=8)
def _choose_constant(tokenizer: str, tags: str, train_summaries: tuple[str, ...]) -> str:
    """Choose a scale's constant, once for all systems that are compared."""
    return choose_constant(train_summaries, TextPreparer(load_tokeniser(tokenizer, tags=tags)))

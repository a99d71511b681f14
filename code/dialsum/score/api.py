"""The door of scoring: aligned texts in, scores with signature, interval and floors out.

Must not know files, models, or which run the texts come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dialsum.data.tables import raise_problems
from dialsum.errors import DataError
from dialsum.score.confidence import LEVEL_PERCENT, RESAMPLES, SEED, percentile_intervals
from dialsum.score.floors import choose_constant, lead_two
from dialsum.score.foreign import foreign_script_rate
from dialsum.score.rouge import METRICS, PreparedText, TextPreparer, score_rows
from dialsum.score.signature import Signature
from dialsum.score.tokenise import load_tokeniser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORES = (*METRICS, "rouge_mean", "rouge_sum")
FLOOR_SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")
DECIMALS = 4  # in records; the last one is far below what a row more or less changes


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
        import numpy as np

        ends = percentile_intervals(np.stack([self.per_row[name] for name in SCORES], axis=1))
        return {
            name: (float(low), float(high)) for name, (low, high) in zip(SCORES, ends, strict=True)
        }

    def to_record(self) -> dict[str, Any]:
        """Return scores, signature, rows and intervals as they stand in a run's record."""
        scores = {name: round(float(getattr(self, name)), DECIMALS) for name in SCORES}
        ends = {
            name: [round(low, DECIMALS), round(high, DECIMALS)]
            for name, (low, high) in self.intervals().items()
        }
        confidence = {
            "level_percent": LEVEL_PERCENT,
            "method": "percentile bootstrap over rows",
            "resamples": RESAMPLES,
            "seed": SEED,
            **ends,
        }
        return {
            **scores,
            "signature": str(self.signature),
            "rows": self.rows,
            "confidence": confidence,
        }


def score_texts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
) -> Score:
    """Score predictions against their rows' references on one scale.

    Args:
        predictions: one text a row; an empty one scores 0.
        references: the row's reference summaries, equally many in each row; their scores are
            averaged.
        tokenizer: mecab, whitespace, char or english.
        tags: split, one or removed: what is done with #Person1# and masks.

    Raises:
        DataError: no rows, unequal counts, an empty reference, something that is no text.
        UnfitError: an unknown tokenizer, or one whose library is missing.
    """
    check_rows(predictions, references)
    return _Scale(tokenizer, tags, references).score(predictions)


def score_all_scales(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
    train_summaries: Sequence[str] | None = None,
    dialogues: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score on the asked scale and, beside it, with tags as one token and on whitespace.

    Args:
        predictions, references, tokenizer, tags: as score_texts.
        train_summaries: what the constant floor is chosen from; never the references that are
            scored on. Without it there is no `constant` among the floors.
        dialogues: one a row, for the floor `lead2`. Without it there is none.

    Returns:
        Score.to_record() of the asked scale with `floors`, `tags_one` and `whitespace` (the same on
        those scales; left out where it would be the asked scale again) and `foreign_script_rate`
        (percent of the predictions).

    Raises:
        DataError, UnfitError: as score_texts; also dialogues of another count.
    """
    check_rows(predictions, references)
    if dialogues is not None and len(dialogues) != len(predictions):
        counts = f"{len(dialogues)} dialogues for {len(predictions)} predictions"
        raise DataError([f"{counts}; the lead-2 floor needs one for each"])
    leads = None if dialogues is None else [lead_two(dialogue) for dialogue in dialogues]

    def score_scale(tokenizer: str, tags: str) -> dict[str, Any]:
        scale = _Scale(tokenizer, tags, references)
        floors = _score_floors(scale, train_summaries, leads, rows=len(predictions))
        return {**scale.score(predictions).to_record(), **({"floors": floors} if floors else {})}

    block = score_scale(tokenizer, tags)
    if tags != "one":
        block["tags_one"] = score_scale(tokenizer, "one")
    if (tokenizer, tags) != ("whitespace", "split"):
        block["whitespace"] = score_scale("whitespace", "split")
    block["foreign_script_rate"] = round(foreign_script_rate(predictions), DECIMALS)
    return block


def check_rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse rows that cannot be scored.

    Raises:
        DataError: no rows; unequal counts; rows with no, empty, or unequally many references;
            values that are no text.
    """
    if len(predictions) == 0 and len(references) == 0:
        raise DataError(["there is nothing to score: 0 predictions and 0 references"])
    if len(predictions) != len(references):
        counts = f"{len(predictions)} predictions, but references for {len(references)} rows"
        raise DataError([f"{counts}; give one prediction for each row"])
    expected = len(references[0])
    problems = []
    for row, (prediction, texts) in enumerate(zip(predictions, references, strict=True), start=1):
        if not isinstance(prediction, str):
            problems.append(f"row {row}: the prediction is {prediction!r}, not text")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            problems.append(f"row {row}: the references are {texts!r}, not a list of texts")
        elif not texts or len(texts) != expected:
            problems.append(
                f"row {row}: {len(texts)} references where row 1 has {expected}; every row needs "
                "one or more, and equally many"
            )
        elif any(not text.strip() for text in texts):
            problems.append(f"row {row}: a reference is empty; every reference needs text")
    raise_problems(problems)


class _Scale:
    """A tokeniser and treatment of tags, with the references tokenised once for all."""

    def __init__(self, tokenizer: str, tags: str, references: Sequence[Sequence[str]]) -> None:
        tokeniser = load_tokeniser(tokenizer, tags=tags)
        self.signature = Signature(tokeniser.label, tags, len(references[0]), tokeniser.case)
        self.preparer = TextPreparer(tokeniser)
        self._references = [[self.preparer.prepare(text) for text in texts] for texts in references]

    def score(self, texts: Sequence[str]) -> Score:
        prepared: dict[str, PreparedText] = {
            text: self.preparer.prepare(text) for text in dict.fromkeys(texts)
        }
        table = score_rows([prepared[text] for text in texts], self._references)
        f1 = {name: table[:, place, 2] for place, name in enumerate(METRICS)}
        f1["rouge_sum"] = f1["rouge1"] + f1["rouge2"] + f1["rougeL"]
        f1["rouge_mean"] = f1["rouge_sum"] / 3.0
        return Score(
            **{name: float(f1[name].mean()) for name in SCORES},
            signature=self.signature,
            rows=len(texts),
            per_row=f1,
            precision={name: table[:, place, 0] for place, name in enumerate(METRICS)},
            recall={name: table[:, place, 1] for place, name in enumerate(METRICS)},
        )


def _score_floors(
    scale: _Scale, train_summaries: Sequence[str] | None, leads: Sequence[str] | None, *, rows: int
) -> dict[str, Any]:
    floors: dict[str, Any] = {}
    if train_summaries is not None:
        text = choose_constant(train_summaries, scale.preparer)
        floors["constant"] = {"text": text, **_brief(scale.score([text] * rows))}
    if leads is not None:
        floors["lead2"] = _brief(scale.score(leads))
    return floors


def _brief(score: Score) -> dict[str, float]:
    return {name: round(float(getattr(score, name)), DECIMALS) for name in FLOOR_SCORES}

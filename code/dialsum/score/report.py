"""Figures to a record: scores with floors, ceiling and interval, what they do not see, slices.

Must not score or measure anything itself, nor lay anything out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dialsum.score.chunks import EXCHANGED, RUN, Figures, Scale
from dialsum.score.compare import compare_systems
from dialsum.score.confidence import LEVEL_PERCENT, RESAMPLES, SEED, percentile_intervals
from dialsum.score.measures import MEASURES, explain_row
from dialsum.score.rouge import METRICS
from dialsum.score.rows import Rows
from dialsum.score.signature import Signature
from dialsum.score.slices import slice_rows
from dialsum.score.tokenise import load_tokeniser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORES = (*METRICS, "rouge_mean", "rouge_sum")
FLOOR_SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")
FLOORS = ("constant", "lead1", "lead2", "lead3", "longest", "random")
DECIMALS = 4
"""In records; the last one is far below what a row more or less changes."""
WORST_ROWS = 5


def all_scores(f1: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.float64]]:
    """Return the rows' F1 of each of SCORES from those of METRICS: [rows, METRICS] to [rows]."""
    found = {name: f1[:, place].astype("float64") for place, name in enumerate(METRICS)}
    found["rouge_sum"] = found["rouge1"] + found["rouge2"] + found["rougeL"]
    found["rouge_mean"] = found["rouge_sum"] / 3.0
    return found


def intervals(per_row: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[float, float]]:
    """Return the seeded 95 % bootstrap interval of each score's mean."""
    import numpy as np

    ends = percentile_intervals(np.stack([per_row[name] for name in SCORES], axis=1))
    return {name: (float(low), float(high)) for name, (low, high) in zip(SCORES, ends, strict=True)}


def describe_scale(
    figures: Figures, name: str, *, scale: Scale, signature: Signature
) -> dict[str, Any]:
    """Return the block of one scale.

    Returns:
        Scores, signature, rows, precision and recall, confidence; floors and ceiling where there
        are any, and with floors `corrected`: (score - floor) / (ceiling or 100 - floor) in percent,
        0 for the best floor, 100 for the ceiling; on the full scales `per_row`, by which runs can
        be compared, and with a constant `against_constant`: points of rouge_mean over it, their
        interval, p, and whether it is real.
    """
    per_row = all_scores(figures.run[name][..., 2])
    block: dict[str, Any] = {
        **{key: _mean(values) for key, values in per_row.items()},
        "signature": str(signature),
        "rows": len(figures.run[name]),
        "precision": _of_metrics(figures.run[name][..., 0]),
        "recall": _of_metrics(figures.run[name][..., 1]),
        "confidence": describe_confidence(per_row),
    }
    floors: dict[str, dict[str, Any]] = {
        floor: _brief(f1) for floor in FLOORS if (f1 := figures.f1[name].get(floor)) is not None
    }
    if "constant" in floors:
        floors["constant"] = {"text": scale.constant or "", **floors["constant"]}
    human = figures.f1[name].get("human")
    if human is not None:
        block["ceiling"] = {"human": _brief(human)}
    if floors:
        block["floors"] = floors
        block["corrected"] = correct_for_chance(block)
    if scale.full:
        block["per_row"] = {
            "rouge_mean": [round(value, DECIMALS) for value in per_row["rouge_mean"].tolist()]
        }
    if "constant" in floors and scale.full:
        block["against_constant"] = _against_constant(figures, name)
    return block


def _against_constant(figures: Figures, name: str) -> dict[str, Any]:
    """Say by how much the predictions are ahead of the constant, and whether that is real."""
    f1 = figures.f1[name]
    run, constant = mean_f1(f1[RUN]), mean_f1(f1["constant"])
    (found,) = compare_systems({RUN: run, "constant": constant})
    sign = 1.0 if found.first == RUN else -1.0
    low, high = sorted((sign * found.low, sign * found.high))
    points = {"points": sign * found.points, "low": low, "high": high, "p": found.p}
    more = {} if found.more_rows is None else {"more_rows": found.more_rows}
    rounded = {key: round(value, DECIMALS) for key, value in points.items()}
    return {**rounded, "real": found.real, **more}


def correct_for_chance(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores on the way from the best floor (0) to the ceiling (100), percent.

    Args:
        block: scores with `floors`, and `ceiling` where two references or more tell it.
    """
    floor = max(block["floors"], key=lambda name: float(block["floors"][name]["rouge_mean"]))
    lowest = block["floors"][floor]
    highest = block.get("ceiling", {}).get("human", dict.fromkeys(FLOOR_SCORES, 100.0))
    corrected = {
        key: round(100.0 * (block[key] - lowest[key]) / (highest[key] - lowest[key]), DECIMALS)
        for key in FLOOR_SCORES
        if highest[key] > lowest[key]
    }
    return {"floor": floor, "ceiling": "human" if "ceiling" in block else "100", **corrected}


def describe_confidence(per_row: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return each score's interval with how it was made."""
    ends = {
        name: [round(low, DECIMALS), round(high, DECIMALS)]
        for name, (low, high) in intervals(per_row).items()
    }
    method = "percentile bootstrap over rows"
    return {
        "level_percent": LEVEL_PERCENT,
        "method": method,
        "resamples": RESAMPLES,
        "seed": SEED,
        **ends,
    }


def add_exchange(figures: Figures, name: str) -> None:
    """Take what the predictions lose when their speakers are exchanged as one more measure.

    Args:
        name: a scale with tags as one token.
    """
    import numpy as np

    f1 = figures.f1[name]
    lost = mean_f1(f1[RUN]) - mean_f1(f1[EXCHANGED])
    figures.measures["speaker_exchange"] = lost.astype(np.float32)


def describe_unseen(figures: Figures, rows: Rows) -> dict[str, Any]:
    """Return each measure: its figure, the same of the references, and its worst rows."""
    cut = load_tokeniser("mecab", tags="one")
    found: dict[str, Any] = {}
    for key, measure in MEASURES.items():
        values = figures.measures.get(key)
        if values is None:
            continue
        listed = [
            {
                "name": rows.name(row),
                "value": round(float(values[row]), 2),
                "what": explain_row(
                    key,
                    rows.predictions[row],
                    rows.references[row],
                    None if rows.dialogues is None else rows.dialogues[row],
                    cut=cut,
                ),
                "text": rows.predictions[row],
            }
            for row in _worst(values, key)
        ]
        found[key] = {
            "title": measure.title,
            "unit": measure.unit,
            **_figure("value", values),
            **_figure("references", figures.of_references.get(key)),
            "rows_measured": int((values == values).sum()),
            "worst": listed,
        }
    return found


def _figure(name: str, values: NDArray[np.float32] | None) -> dict[str, float]:
    import numpy as np

    if values is None or np.isnan(values).all():
        return {}
    return {name: round(float(np.nanmean(values.astype(np.float64))), DECIMALS)}


def _worst(values: NDArray[np.float32], key: str) -> list[int]:
    import numpy as np

    measure = MEASURES[key]
    if measure.worst == "far":
        with np.errstate(divide="ignore"):
            badness, limit = np.abs(np.log(values)), float(np.log(measure.limit))
        # Empty ones have a measure of their own.
        badness = np.where(np.isinf(badness), 0.0, badness)
    else:
        sign = 1.0 if measure.worst == "high" else -1.0
        badness, limit = sign * values, sign * measure.limit
    badness = np.where(np.isnan(badness), -np.inf, badness)
    order = np.argsort(-badness, kind="stable")[:WORST_ROWS]
    return [int(row) for row in order if badness[row] >= limit]


def describe_slices(figures: Figures, name: str, rows: Rows) -> list[dict[str, Any]]:
    """Return rouge_mean of each slice of the rows, with interval and constant where known."""
    run = mean_f1(figures.f1[name][RUN])
    constant = figures.f1[name].get("constant")
    floor = None if constant is None else mean_f1(constant)
    blocks = []
    for one in slice_rows(rows):
        low, high = percentile_intervals(run[one.places][:, None])[0]
        blocks.append(
            {
                "by": one.by,
                "value": one.value,
                "rows": len(one.places),
                "few": one.few,
                "rouge_mean": _mean(run[one.places]),
                "confidence": [round(float(low), DECIMALS), round(float(high), DECIMALS)],
                **({} if floor is None else {"constant": _mean(floor[one.places])}),
            }
        )
    return blocks


def mean_f1(f1: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return rouge_mean of each row: [rows, METRICS] to [rows]."""
    return all_scores(f1)["rouge_mean"]


def _brief(f1: NDArray[np.floating[Any]]) -> dict[str, float]:
    scores = all_scores(f1)
    return {key: _mean(scores[key]) for key in FLOOR_SCORES}


def _mean(values: NDArray[np.float64]) -> float:
    return round(float(values.mean()), DECIMALS)


def _of_metrics(values: NDArray[np.float64]) -> dict[str, float]:
    return {name: _mean(values[:, place]) for place, name in enumerate(METRICS)}

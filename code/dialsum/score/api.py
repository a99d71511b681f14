"""The door of scoring: aligned texts in, scores with signature, floors, interval and all else out.

    score_texts(predictions, references)                one scale, quickly, as during training
    score_report(Rows(predictions, references, …))      everything that a record carries
    compare_reports({"a": report, "b": report})         which differences are real

Must not know files, models, or which run the texts come from.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dialsum.errors import DataError, UnfitError
from dialsum.machine.driver import usable_cores
from dialsum.score.floors import LEADS, choose_constant, lead, longest_utterance, other_summaries
from dialsum.score.rouge import METRICS, PreparedText, TextPreparer, score_rows
from dialsum.score.rows import Rows, slice_rows
from dialsum.score.signature import AGGREGATES, Signature, require_same_signature
from dialsum.score.statistics import (
    ALPHA,
    LEVEL_PERCENT,
    RESAMPLES,
    SEED,
    TRIALS,
    compare_systems,
    percentile_intervals,
)
from dialsum.score.tokenise import load_tokeniser
from dialsum.score.unseen import MEASURES, explain_row, measure_row, successors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 4_000_000
MANY_ROWS = 20_000
"""Rows from which on starting more processes pays: each loads its libraries anew."""
RUN, EXCHANGED = "run", "exchanged"


@dataclass(frozen=True)
class Scale:
    """A way of counting.

    Args:
        tokenizer, tags: as load_tokeniser takes them.
        constant: the constant summary on this scale; None: no floor of that kind.
        full: rows are kept for comparisons, and a constant is tested against.
    """

    tokenizer: str
    tags: str
    constant: str | None = None
    full: bool = False


@dataclass(frozen=True)
class Task:
    """Some rows with all that is to be taken of them.

    Args:
        others: the summary of another row, for each row; None: no such floor.
        scales: by the name that they have in a report.
        measured: what ROUGE does not see is taken, too.
    """

    rows: Rows
    scales: Mapping[str, Scale]
    aggregate: str = "mean"
    others: Sequence[str] | None = None
    measured: bool = False


@dataclass
class Figures:
    """What was taken, row by row.

    Attributes:
        run: precision, recall and F1 of the predictions by scale: [rows, METRICS, 3], 0-100.
        f1: F1 of everything that was scored, by scale and system: [rows, METRICS].
        measures, of_references: values of MEASURES of the predictions, and of the first reference
            in their place: [rows].
    """

    run: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    f1: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    measures: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    of_references: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def take_figures(task: Task) -> Figures:
    """Score and measure all rows, chunk by chunk, on several processors where there are many."""
    chunks = list(_split(task))
    workers = min(usable_cores(), len(chunks))
    if workers < 2 or len(task.rows) < MANY_ROWS:
        return _join([_take(chunk) for chunk in chunks])
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return _join(list(pool.map(_take, chunks)))
    except BrokenProcessPool:
        # A script that calls this without `if __name__ == "__main__":` cannot start processes.
        warnings.warn(
            "scoring in one process: others could not be started. In a script, call it under "
            "if __name__ == '__main__':",
            stacklevel=2,
        )
        return _join([_take(chunk) for chunk in chunks])


def _split(task: Task) -> Iterable[Task]:
    rows = task.rows
    start, characters = 0, 0
    for row in range(len(rows)):
        size = len(rows.predictions[row]) + sum(map(len, rows.references[row]))
        size += 0 if rows.dialogues is None else len(rows.dialogues[row])
        full = row - start >= CHUNK_ROWS or characters + size > CHUNK_CHARACTERS
        if full and row > start:
            yield _cut_out(task, start, row)
            start, characters = row, 0
        characters += size
    yield _cut_out(task, start, len(rows))


def _cut_out(task: Task, start: int, stop: int) -> Task:
    rows = task.rows
    part = Rows(
        rows.predictions[start:stop],
        rows.references[start:stop],
        None if rows.dialogues is None else rows.dialogues[start:stop],
    )
    others = None if task.others is None else task.others[start:stop]
    return replace(task, rows=part, others=others)


def _take(task: Task) -> Figures:
    figures = Figures()
    for name, scale in task.scales.items():
        _score_scale(task, name, scale, figures)
    if task.measured:
        _measure(task, figures)
    return figures


def _score_scale(task: Task, name: str, scale: Scale, figures: Figures) -> None:
    import numpy as np

    rows = task.rows
    preparer = TextPreparer(load_tokeniser(scale.tokenizer, tags=scale.tags))
    columns = [preparer.prepare_all(texts) for texts in zip(*rows.references, strict=True)]
    references = list(zip(*columns, strict=True))

    def score(
        texts: Sequence[PreparedText], against: Sequence[Sequence[PreparedText]]
    ) -> NDArray[np.float64]:
        return score_rows(texts, against, aggregate=task.aggregate)

    predictions = preparer.prepare_all(rows.predictions)
    figures.run[name] = score(predictions, references)
    found = {RUN: figures.run[name][..., 2]}
    if scale.tags == "one":
        found[EXCHANGED] = score(_exchange(predictions, rows, preparer), references)[..., 2]
    for system, texts in _floor_texts(task, scale):
        found[system] = score(preparer.prepare_all(texts), references)[..., 2]
    if len(columns) > 1:
        found["human"] = np.mean(
            [
                score(own, list(zip(*columns[:place], *columns[place + 1 :], strict=True)))[..., 2]
                for place, own in enumerate(columns)
            ],
            axis=0,
        )
    figures.f1[name] = {system: values.astype(np.float32) for system, values in found.items()}


def _floor_texts(task: Task, scale: Scale) -> Iterable[tuple[str, Sequence[str]]]:
    rows = task.rows
    if scale.constant is not None:
        yield "constant", [scale.constant] * len(rows)
    if rows.dialogues is not None:
        for turns in LEADS:
            yield f"lead{turns}", [lead(dialogue, turns) for dialogue in rows.dialogues]
        yield "longest", [longest_utterance(dialogue) for dialogue in rows.dialogues]
    if task.others is not None:
        yield "random", task.others


def _exchange(
    predictions: Sequence[PreparedText], rows: Rows, preparer: TextPreparer
) -> list[PreparedText]:
    """Exchange the speakers of predictions whose tags are one token each."""
    sources = rows.dialogues or [" ".join(texts) for texts in rows.references]
    known, exchanged = preparer.known, []
    spell = str if preparer.tokeniser.case == "kept" else str.lower
    for prepared, text, source in zip(predictions, rows.predictions, sources, strict=True):
        pairs = successors(text, source).items()
        after = {ord(known[spell(tag)]): known[spell(other)] for tag, other in pairs}
        lines = tuple(line.translate(after) for line in prepared.lines)
        exchanged.append(PreparedText(prepared.tokens.translate(after), lines))
    return exchanged


def _measure(task: Task, figures: Figures) -> None:
    import numpy as np
    from sacrebleu.metrics.chrf import CHRF

    rows = task.rows
    # A row's reference is cut for its own figures, and for those of the prediction.
    cut = functools.lru_cache(maxsize=8)(load_tokeniser("mecab", tags="one"))
    dialogues: Sequence[str | None] = rows.dialogues or [None] * len(rows)
    chrf = CHRF()
    taken: list[dict[str, float]] = []
    beside: list[dict[str, float]] = []
    for prediction, references, dialogue in zip(
        rows.predictions, rows.references, dialogues, strict=True
    ):
        values = measure_row(prediction, references, dialogue, cut=cut)
        values["chrf"] = chrf.sentence_score(prediction, list(references)).score
        taken.append(values)
        beside.append(measure_row(references[0], references, dialogue, cut=cut))
    for values_of, into in ((taken, figures.measures), (beside, figures.of_references)):
        for key in MEASURES:
            if key in values_of[0]:
                into[key] = np.array([values[key] for values in values_of], dtype=np.float32)


def _join(parts: Sequence[Figures]) -> Figures:
    import numpy as np

    first = parts[0]
    if len(parts) == 1:
        return first
    return Figures(
        run={name: np.concatenate([part.run[name] for part in parts]) for name in first.run},
        f1={
            name: {
                system: np.concatenate([part.f1[name][system] for part in parts])
                for system in systems
            }
            for name, systems in first.f1.items()
        },
        measures={
            key: np.concatenate([part.measures[key] for part in parts]) for key in first.measures
        },
        of_references={
            key: np.concatenate([part.of_references[key] for part in parts])
            for key in first.of_references
        },
    )


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

"""The door of scoring: aligned texts in, scores with signature, floors, interval and all else out.

    score_texts(predictions, references)                one scale, quickly, as during training
    score_report(Rows(predictions, references, …))      everything that a record carries
    compare_reports({"a": report, "b": report})         which differences are real

Every row is scored and measured once, thousands at a time; the record is made of these figures.
Must not know files, models, or which run the texts come from.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dialsum.data.cleaning import split_lines
from dialsum.data.tags import TURN_START, loose_tags
from dialsum.errors import DataError
from dialsum.score.content import (
    Weights,
    learn_weights,
    score_content,
    shipped_weights,
    sign_content,
)
from dialsum.score.form import find_faults, mend
from dialsum.score.meaning import is_installed, score_meaning, sign_meaning
from dialsum.score.rouge import (
    METRICS,
    PreparedText,
    TextPreparer,
    Tokeniser,
    load_tokeniser,
    make_signature,
    read_grams,
    require_same_signature,
    score_rows,
)
from dialsum.score.rows import FEW_ROWS, Rows, slice_rows
from dialsum.score.statistics import (
    ALPHA,
    LEVEL_PERCENT,
    RESAMPLES,
    SEED,
    TRIALS,
    compare_systems,
    count_wins,
    percentile_intervals,
)
from dialsum.score.unseen import (
    MEASURES,
    count_distinct,
    describe_unseen,
    find_shared,
    measure_rows,
    successors,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dialsum.score.rouge import Grams

    Figures = dict[tuple[str, str], NDArray[Any]]

SCORES = (*METRICS, "rouge_mean", "rouge_sum")
FLOOR_SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")
FLOORS = ("constant", "lead1", "lead2", "lead3", "longest", "random")
OF_DIALOGUES = ("lead1", "lead2", "lead3", "longest")
DECIMALS = 4
"""In records; the last one is far below what a row more or less changes."""
CHUNK_ROWS = 2048
"""Rows that are scored at once, in bounded memory."""
LEADS = (1, 2, 3)
BESIDE = {"content": "f1", "meaning": "cosine"}
"""Scores that are no ROUGE, by what their blocks call them."""
FLOORS_BESIDE = ("constant", "lead2", "random")
BLOCK_ROWS = 1024
MOST_MEANING_ROWS = 10_000
"""Sentence vectors of more would take longer than all else together."""
CANDIDATES = 600
"""Train summaries that may become the constant, drawn by seed."""
VOTERS = 100
"""Train summaries that each candidate is scored against."""
PIECES = 24
"""The most frequent words of the train summaries, and as many tokens, that a change may put in."""
FINALISTS = 16
"""Changes whose longest common subsequences are looked at; the rest of the score chooses them."""
STARTS = 5
MOST_CHANGES = 40
LEAST_GAIN = 1e-6
OCCURRENCE_BITS = 20


@dataclass(frozen=True, eq=False)
class Score:
    """A corpus score (0-100, mean of the rows' F1) with all that is needed to judge and compare it.

    Attributes:
        rouge_mean: mean of ROUGE-1, -2 and -L; rouge_sum: their sum.
        signature: the recipe.
        rates: precision, recall and F1 of each row, [rows, METRICS, 3].
    """

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float
    rouge_mean: float
    rouge_sum: float
    signature: str
    rates: NDArray[np.float64]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each of SCORES; seeded."""
        return _intervals(_all_scores(self.rates[..., 2]))


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
    import numpy as np

    rows = Rows(predictions, references)
    rows.check()
    signature = make_signature(tokenizer, tags, references=len(references[0]), aggregate=aggregate)
    chunks = []
    for chunk in _split_rows(rows):
        preparer = TextPreparer(load_tokeniser(tokenizer, tags=tags))
        columns = [preparer.prepare_all(texts) for texts in zip(*chunk.references, strict=True)]
        ours = preparer.prepare_all(chunk.predictions)
        chunks.append(score_rows(ours, columns, aggregate=aggregate))
    rates = np.concatenate(chunks)
    means = {name: float(values.mean()) for name, values in _all_scores(rates[..., 2]).items()}
    return Score(**means, signature=signature, rates=rates)


def rank_by_likeness(texts: Sequence[str], *, tokenizer: str) -> list[int]:
    """Return the places of texts, first that of the one which is most like all of them.

    Minimum Bayes risk over draws of one model: each draw is held to all as references, by the mean
    of ROUGE-1, -2 and -L with tags as one token (Eikema and Aziz 2022, equation 4).

    Args:
        tokenizer: as of score_texts.
    """
    prepared = TextPreparer(load_tokeniser(tokenizer, tags="one")).prepare_all(texts)
    rates = score_rows(prepared, [[one] * len(prepared) for one in prepared])
    likeness = _all_scores(rates[..., 2])["rouge_mean"]
    return sorted(range(len(texts)), key=lambda place: -likeness[place])


def score_means(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str
) -> dict[str, float]:
    """Return the means of score_texts, 0-100, to four digits: what a dev set is measured by."""
    found = score_texts(predictions, references, tokenizer=tokenizer)
    return {name: round(float(getattr(found, name)), 4) for name in SCORES}


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
        train_summaries: what the constant floor is chosen from, and content weighed by; never the
            references that are scored on. Without it there is no `constant` among the floors.

    Returns:
        As describe_rows.

    Raises:
        DataError, UnfitError: as score_texts.
    """
    return describe_rows(
        measure(
            rows,
            tokenizer=tokenizer,
            tags=tags,
            aggregate=aggregate,
            train_summaries=train_summaries,
        )
    )


@dataclass(frozen=True, eq=False)
class Measured:
    """Every figure of every row, from which records and tables of rows are made.

    Attributes:
        rows: in composed Unicode.
        figures: as _take_all gives them, of all rows.
        signatures: of each scale, `asked` first, and of those of BESIDE that were taken.
        constants: each scale's constant text, where train summaries are known.
        faults: which faults of form each prediction has.
    """

    rows: Rows
    figures: Figures
    signatures: Mapping[str, str]
    constants: Mapping[str, str]
    faults: Sequence[Sequence[str]]

    @property
    def scales(self) -> list[str]:
        """The scales that were scored on."""
        return [name for name in self.signatures if name not in BESIDE]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return every measure of the predictions, 0-100 or in its own unit: [rows], NaN where a
        row has nothing to measure."""
        found: dict[str, NDArray[Any]] = {}
        for scale in self.scales:
            scores = _all_scores(self.figures[scale, "run"])
            beside = "" if scale == "asked" else f"{scale}."
            found |= {f"{beside}{name}": scores[name] for name in FLOOR_SCORES}
        found |= {name: self.figures[name, "run"] for name in BESIDE if name in self.signatures}
        return found | {
            key: self.figures["value", key] for key in MEASURES if ("value", key) in self.figures
        }


def measure(
    rows: Rows,
    *,
    tokenizer: str = "mecab",
    tags: str = "split",
    aggregate: str = "mean",
    train_summaries: Sequence[str] | None = None,
) -> Measured:
    """Take every figure of every row; arguments and errors as of score_report."""
    import numpy as np

    rows.check()
    rows = rows.composed()
    scales = {"asked": (tokenizer, tags)}
    for name, scale in (("tags_one", (tokenizer, "one")), ("whitespace", ("whitespace", "split"))):
        if scale not in scales.values():
            scales[name] = scale
    count = len(rows.references[0])
    signatures = {
        name: make_signature(*scale, references=count, aggregate=aggregate)
        for name, scale in scales.items()
    }
    constants, weights = {}, shipped_weights()
    if train_summaries is not None:
        train = tuple(train_summaries)
        constants = {name: _choose_constant(*scale, train) for name, scale in scales.items()}
        weights = _learn_weights(train)
    signatures["content"] = sign_content(weights, references=count, aggregate=aggregate)
    if is_installed() and len(rows) <= MOST_MEANING_ROWS:
        signatures["meaning"] = sign_meaning(references=count, aggregate=aggregate)
    firsts = [texts[0] for texts in rows.references]
    others = other_summaries(firsts) if len(rows) > 1 else None
    sources = rows.dialogues or [""] * len(rows)
    known = {tag for texts in rows.references for text in texts for tag in loose_tags(text)}
    faults = [
        find_faults(text, source=source, known=known)
        for text, source in zip(rows.predictions, sources, strict=True)
    ]
    taken = [
        _take_all(
            chunk,
            None if others is None else others[at * CHUNK_ROWS :][: len(chunk)],
            scales=scales,
            aggregate=aggregate,
            constants=constants,
            beside=_score_beside(weights, signatures, aggregate=aggregate),
            mended=any(faults),
        )
        for at, chunk in enumerate(_split_rows(rows))
    ]
    figures = {key: np.concatenate([one[key] for one in taken]) for key in taken[0]}
    with_tags = "tags_one" if "tags_one" in scales else "asked"
    run, exchanged = (_mean_f1(figures[with_tags, system]) for system in ("run", "exchanged"))
    figures["value", "speaker_exchange"] = (run - exchanged).astype("float32")
    if ("what", "speaker_fit") in figures:
        # Two signals of exchanged speakers: each says what the other one found.
        exchanges, fits = figures["value", "speaker_exchange"], figures["value", "speaker_fit"]
        figures["what", "speaker_exchange"] = np.where(fits < 0, "another's words, too", "")
        gains = np.where(exchanges < 0, "exchange gains; ", "").astype(object)
        figures["what", "speaker_fit"] = gains + figures["what", "speaker_fit"]
    figures["value", "shared"], figures["what", "shared"] = find_shared(rows.predictions)
    figures["reference", "shared"] = find_shared(firsts)[0]
    return Measured(rows, figures, signatures, constants, faults)


def describe_rows(measured: Measured) -> dict[str, Any]:
    """Return the record of what was measured.

    Returns:
        The block of the asked scale (see _describe_scale) with `tags_one` and `whitespace` (the
        same on those scales; left out where it would be the asked scale again), each of BESIDE
        (see _describe_beside), `form` (where there are faults of it), `foreign_script_rate` and
        `distinct_share` (percent of the rows), `unseen` (see describe_unseen) and `slices`.
    """
    rows, figures = measured.rows, measured.figures

    def of(name: str) -> dict[str, NDArray[Any]]:
        return {system: values for (scale, system), values in figures.items() if scale == name}

    blocks = {
        name: _describe_scale(
            of(name),
            signature=measured.signatures[name],
            constant=measured.constants.get(name),
            full=name != "whitespace",
        )
        for name in measured.scales
    }
    block: dict[str, Any] = blocks.pop("asked") | blocks
    for name, score in BESIDE.items():
        if signature := measured.signatures.get(name):
            block[name] = _describe_beside(of(name), score=score, signature=signature)
    if any(measured.faults):
        block["form"] = {
            "rows": sum(map(bool, measured.faults)),
            "faults": dict(Counter(fault for own in measured.faults for fault in own)),
            "rouge_mean_without": {
                name: _mean(_mean_f1(figures[name, "mended"])) for name in measured.scales
            },
        }
    block["references_sha256"] = rows.references_sha256()
    block["unseen"] = describe_unseen(figures, rows)
    block["distinct_share"] = round(100.0 * count_distinct(rows.predictions) / len(rows), 2)
    block["foreign_script_rate"] = block["unseen"]["foreign_script"]["value"]
    slices = _describe_slices(figures["asked", "run"], figures.get(("asked", "constant")), rows)
    return {**block, **({"slices": slices} if slices else {})}


def compare_reports(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say which of several systems' differences in rouge_mean are real, on the asked scale and with
    tags as one token.

    Args:
        blocks: name to score_report of the same rows in the same order.

    Returns:
        `alpha`, `trials`, `rows`, and `scales`: for each its signature, each system's mean with
        interval, best first, the differences of every two (see Difference), and `stability` (see
        count_wins). Each of BESIDE likewise, where all have it by the same recipe.

    Raises:
        DataError: fewer than two systems; other recipes, or another number of rows.
    """
    if len(blocks) < 2:
        raise DataError(["a comparison needs two predictions or more"])
    require_same_signature({name: block["signature"] for name, block in blocks.items()})
    if len({block["references_sha256"] for block in blocks.values()}) > 1:
        found = ", ".join(f"{name} {block['rows']}" for name, block in blocks.items())
        only = "only systems with the same references in the same order can be compared; rows: "
        raise DataError([only + found])
    scales = {"asked": blocks}
    if all("tags_one" in block for block in blocks.values()):
        scales["tags_one"] = {name: block["tags_one"] for name, block in blocks.items()}
    compared = {key: _compare(scale, "rouge_mean") for key, scale in scales.items()}
    rows = next(iter(blocks.values()))["rows"]
    told: dict[str, Any] = {"alpha": ALPHA, "trials": TRIALS, "rows": rows}
    for key, score in BESIDE.items():
        beside = {name: block[key] for name, block in blocks.items() if key in block}
        if len(beside) == len(blocks) and len({one["signature"] for one in beside.values()}) == 1:
            told[key] = _compare(beside, score)
    return {**told, "scales": compared}


def _compare(blocks: Mapping[str, Mapping[str, Any]], score: str) -> dict[str, Any]:
    import numpy as np

    ranked = sorted(blocks, key=lambda name: -float(blocks[name][score]))
    scores = {name: np.array(blocks[name]["per_row"][score]) for name in ranked}
    return {
        "signature": blocks[ranked[0]]["signature"],
        "systems": {
            name: {score: blocks[name][score], "confidence": blocks[name]["confidence"].get(score)}
            for name in ranked
        },
        "differences": [_round(asdict(one)) for one in compare_systems(scores)],
        "stability": count_wins(scores),
    }


def _round(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, DECIMALS) if isinstance(value, float) else value
        for key, value in found.items()
        if value is not None
    }


@functools.lru_cache(maxsize=8)
def _choose_constant(tokenizer: str, tags: str, train_summaries: tuple[str, ...]) -> str:
    """Choose a scale's constant, once for all systems that are compared."""
    return choose_constant(train_summaries, load_tokeniser(tokenizer, tags=tags))


@functools.lru_cache(maxsize=8)
def _learn_weights(train_summaries: tuple[str, ...]) -> Weights:
    return learn_weights(train_summaries, source=f"train,{len(train_summaries)}")


def _split_rows(rows: Rows) -> Iterator[Rows]:
    for at in range(0, len(rows), CHUNK_ROWS):
        part = slice(at, at + CHUNK_ROWS)
        dialogues = rows.dialogues and rows.dialogues[part]
        yield Rows(rows.predictions[part], rows.references[part], dialogues)


def _take_all(
    rows: Rows,
    others: Sequence[str] | None,
    *,
    scales: Mapping[str, tuple[str, str]],
    aggregate: str,
    constants: Mapping[str, str],
    beside: Mapping[str, Callable[..., NDArray[np.float64]]],
    mended: bool,
) -> Figures:
    """Score the rows and their floors on every scale, and take all measures.

    Args:
        others: the summary of another row, for each row.
        beside: what gives each of BESIDE, from texts and references.
        mended: score the predictions without their faults of form, too.

    Returns:
        What measure_rows gives, and by scale: `rates` as score_rows gives them, and F1 of `run`,
        of `exchanged` (speakers; where tags are one token), of `mended`, of each floor and of
        `human`, where there are several references: [rows, METRICS]. By each of BESIDE the
        score of the run, of FLOORS_BESIDE and of `human`: [rows].
    """
    import numpy as np

    figures: Figures = {}
    floors: dict[str, Sequence[str]] = {} if others is None else {"random": others}
    if rows.dialogues is not None:
        turns = [split_turns(dialogue) for dialogue in rows.dialogues]
        for count in LEADS:
            floors[f"lead{count}"] = [lead(said, count) for said in turns]
        floors["longest"] = [max(said, key=len, default="") for said in turns]
    without = [mend(text) for text in rows.predictions] if mended else []
    lacking = np.array([dialogue == "" for dialogue in rows.dialogues or [""] * len(rows)])
    for name, (tokenizer, tags) in scales.items():
        preparer = TextPreparer(load_tokeniser(tokenizer, tags=tags))
        columns = [preparer.prepare_all(texts) for texts in zip(*rows.references, strict=True)]
        predictions = preparer.prepare_all(rows.predictions)
        score = functools.partial(score_rows, aggregate=aggregate)
        figures[name, "rates"] = score(predictions, columns)
        found = {"run": figures[name, "rates"][..., 2]}
        if tags == "one":
            exchanged = _exchange_speakers(predictions, rows, preparer)
            found["exchanged"] = score(exchanged, columns)[..., 2]
        if mended:
            found["mended"] = score(preparer.prepare_all(without), columns)[..., 2]
        if name in constants:
            floors["constant"] = [constants[name]] * len(rows)
        for floor, texts in floors.items():
            found[floor] = score(preparer.prepare_all(texts), columns)[..., 2]
            if floor in OF_DIALOGUES:
                found[floor][lacking] = np.nan
        if len(columns) > 1:
            found["human"] = _score_among(columns, score)[..., 2]
        figures |= {(name, system): f1.astype(np.float32) for system, f1 in found.items()}
    references = list(zip(*rows.references, strict=True))
    if "asked" in constants:
        floors["constant"] = [constants["asked"]] * len(rows)
    systems = {floor: floors[floor] for floor in FLOORS_BESIDE if floor in floors}
    for name, give in beside.items():
        for system, texts in {"run": rows.predictions, **systems}.items():
            figures[name, system] = give(texts, references)
            if system in OF_DIALOGUES:
                figures[name, system][lacking] = np.nan
        if len(references) > 1:
            figures[name, "human"] = _score_among(references, give)
    # Last: between single rows' measures mecab's dictionary would leave the processor's cache.
    return figures | measure_rows(rows)


def _score_among(
    columns: Sequence[Any], score: Callable[..., NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the mean over the references of each one's scores against the others."""
    import numpy as np

    each = [
        score(own, [*columns[:place], *columns[place + 1 :]]) for place, own in enumerate(columns)
    ]
    found: NDArray[np.float64] = np.mean(each, axis=0)
    return found


def _exchange_speakers(
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


def _describe_scale(
    figures: Mapping[str, NDArray[Any]], *, signature: str, constant: str | None, full: bool
) -> dict[str, Any]:
    """Return the block of one scale.

    Args:
        figures: of this scale, as _take_all gives them.
        full: rows are kept for comparisons, and the constant is tested against.

    Returns:
        Scores, signature, rows, precision and recall, confidence; floors and ceiling where there
        are any, and with floors `corrected`: (score - floor) / (ceiling or 100 - floor) in percent,
        0 for the best floor, 100 for the ceiling; on the full scales `per_row`, by which runs can
        be compared, and with a constant `against_constant`: points of rouge_mean over it, their
        interval, p, and whether it is real.
    """
    rates = figures["rates"]
    per_row = _all_scores(rates[..., 2])
    ends = {
        name: [round(low, DECIMALS), round(high, DECIMALS)]
        for name, (low, high) in (_intervals(per_row) if len(rates) > 1 else {}).items()
    }
    block: dict[str, Any] = {
        **{key: _mean(values) for key, values in per_row.items()},
        "signature": signature,
        "rows": len(rates),
        "precision": {name: _mean(rates[:, place, 0]) for place, name in enumerate(METRICS)},
        "recall": {name: _mean(rates[:, place, 1]) for place, name in enumerate(METRICS)},
        "confidence": {
            "level_percent": LEVEL_PERCENT,
            "method": "percentile bootstrap over rows",
            "resamples": RESAMPLES,
            "seed": SEED,
            **ends,
        },
    }
    floors: dict[str, dict[str, Any]] = {
        floor: _brief(figures[floor]) for floor in FLOORS if floor in figures
    }
    if constant is not None:
        floors["constant"] = {"text": constant, **floors["constant"]}
    if "human" in figures:
        block["ceiling"] = {"human": _brief(figures["human"])}
    if floors:
        block["floors"] = floors
        block["corrected"] = _correct_for_chance(block)
    if full:
        block["per_row"] = {
            name: [round(value, DECIMALS) for value in per_row[name].tolist()]
            for name in FLOOR_SCORES
        }
    if full and constant is not None:
        block["against_constant"] = _against_constant(figures["run"], figures["constant"])
    return block


def _score_beside(
    weights: Weights, taken: Collection[str], *, aggregate: str
) -> dict[str, Callable[..., NDArray[np.float64]]]:
    """Return what gives each of BESIDE that is among those taken."""
    found: dict[str, Callable[..., NDArray[np.float64]]] = {
        "content": functools.partial(score_content, weights=weights, aggregate=aggregate),
        "meaning": functools.partial(score_meaning, aggregate=aggregate),
    }
    return {name: give for name, give in found.items() if name in taken}


def _describe_beside(
    figures: Mapping[str, NDArray[Any]], *, score: str, signature: str
) -> dict[str, Any]:
    """Return the block of one of BESIDE: the score with its interval, of floors and ceiling, and of
    each row."""
    run, ends = figures["run"], _interval(figures["run"])
    floors = {floor: _mean(figures[floor]) for floor in FLOORS_BESIDE if floor in figures}
    return {
        score: _mean(run),
        "signature": signature,
        "confidence": {} if ends is None else {score: ends},
        **({"floors": floors} if floors else {}),
        **({"ceiling": {"human": _mean(figures["human"])}} if "human" in figures else {}),
        "per_row": {score: [round(value, DECIMALS) for value in run.tolist()]},
    }


def _against_constant(run: NDArray[np.float32], constant: NDArray[np.float32]) -> dict[str, Any]:
    """Say by how much the predictions are ahead of the constant, and whether that is real."""
    (found,) = compare_systems({"run": _mean_f1(run), "constant": _mean_f1(constant)})
    sign = 1.0 if found.first == "run" else -1.0
    low, high = sorted((sign * found.low, sign * found.high))
    points = {"points": sign * found.points, "low": low, "high": high, "p": found.p}
    verdict = {"real": found.real, "rows": found.rows, "more_rows": found.more_rows}
    return _round({**points, **verdict})


def _correct_for_chance(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores on the way from the best floor (0) to the ceiling (100), percent."""
    floor = max(block["floors"], key=lambda name: float(block["floors"][name]["rouge_mean"]))
    lowest = block["floors"][floor]
    highest = block.get("ceiling", {}).get("human", dict.fromkeys(FLOOR_SCORES, 100.0))
    corrected = {
        key: round(100.0 * (block[key] - lowest[key]) / (highest[key] - lowest[key]), DECIMALS)
        for key in FLOOR_SCORES
        if highest[key] > lowest[key]
    }
    return {"floor": floor, "ceiling": "human" if "ceiling" in block else "100", **corrected}


def _describe_slices(
    run: NDArray[np.float32], constant: NDArray[np.float32] | None, rows: Rows
) -> list[dict[str, Any]]:
    """Return rouge_mean of each slice of the rows, with interval and constant where known."""
    means = _mean_f1(run)
    floor = None if constant is None else _mean_f1(constant)
    blocks = []
    for by, value, places in slice_rows(rows):
        ends = _interval(means[places])
        blocks.append(
            {
                "by": by,
                "value": value,
                "rows": len(places),
                "few": len(places) < FEW_ROWS,
                "rouge_mean": _mean(means[places]),
                **({} if ends is None else {"confidence": ends}),
                **({} if floor is None else {"constant": _mean(floor[places])}),
            }
        )
    return blocks


def _all_scores(f1: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return the rows' F1 of each of SCORES from those of METRICS: [rows, METRICS] to [rows]."""
    found = {name: f1[:, place].astype("float64") for place, name in enumerate(METRICS)}
    found["rouge_sum"] = found["rouge1"] + found["rouge2"] + found["rougeL"]
    found["rouge_mean"] = found["rouge_sum"] / 3.0
    return found


def _mean_f1(f1: NDArray[Any]) -> NDArray[np.float64]:
    return _all_scores(f1)["rouge_mean"]


def _intervals(per_row: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[float, float]]:
    import numpy as np

    ends = percentile_intervals(np.stack([per_row[name] for name in SCORES], axis=1))
    return {name: (float(low), float(high)) for name, (low, high) in zip(SCORES, ends, strict=True)}


def _interval(values: NDArray[Any]) -> list[float] | None:
    """Return the interval of the rows' mean, as a record has it; None of a single row."""
    if len(values) < 2:
        return None
    return [round(float(end), DECIMALS) for end in percentile_intervals(values[:, None])[0]]


def _brief(f1: NDArray[Any]) -> dict[str, float]:
    scores = _all_scores(f1)
    return {key: _mean(scores[key]) for key in FLOOR_SCORES}


def _mean(values: NDArray[np.float64]) -> float:
    import numpy as np

    # NaN where a floor has no dialogue to be taken from.
    return round(float(np.nanmean(values)), DECIMALS)


def split_turns(dialogue: str) -> list[str]:
    """Return what is said in each turn, without `#Person1#: ` before it.

    A line without a speaker goes on with the turn before it; where no line has one, each is a turn.
    """
    lines = split_lines(dialogue)
    if not any(TURN_START.match(line) for line in lines):
        return lines
    turns: list[str] = []
    for line in lines:
        speaker = TURN_START.match(line)
        if speaker is None and turns:
            turns[-1] += " " + line
        else:
            turns.append(line[speaker.end() :] if speaker else line)
    return turns


def lead(turns: Sequence[str], count: int) -> str:
    """Return what is said in the first turns; fewer give all of them."""
    return " ".join(turn for turn in turns[:count] if turn)


def other_summaries(summaries: Sequence[str]) -> list[str]:
    """Return for each row the summary of another row, drawn by a fixed seed; each is used once.

    In a long file it is one of the thousand around it, whose morphemes are at hand.

    Args:
        summaries: two or more.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    others = [""] * len(summaries)
    starts = [*range(0, max(len(summaries) - 1, 1), BLOCK_ROWS), len(summaries)]
    for start, stop in pairwise(starts):
        order = start + generator.permutation(stop - start)
        for place, row in enumerate(order):
            others[int(row)] = summaries[int(order[place - 1])]
    return others


def choose_constant(train_summaries: Sequence[str], tokeniser: Tokeniser, *, seed: int = 0) -> str:
    """Choose the one text that does best as a summary of everything, on this scale.

    A floor is only honest when it is hard to beat, so it need not be a sentence. It must not see
    the references that are reported on.

    The candidate with the best mean against the voters (themselves not counted), and others of
    the best third, go on to a second step: a piece is taken out, put in, exchanged or moved,
    the best change of all first, as long as one raises the mean. Of where they end, the text with
    the best mean against all candidates is chosen: each start finds another local optimum.

    Raises:
        DataError: no summary, or none that is not blank.
    """
    texts = sorted({summary.strip() for summary in train_summaries} - {""})
    if not texts:
        problem = f"none of {len(train_summaries)} train summaries has text"
        raise DataError([f"{problem}; the constant floor needs one"])
    preparer = TextPreparer(tokeniser)
    sample = random.Random(seed).sample(texts, min(CANDIDATES, len(texts)))
    tokens = [preparer.prepare(text).tokens for text in sample]
    voters = Voters(tokens[:VOTERS])
    rates = voters.rate(tokens, own_places=True)
    pieces = _frequent_pieces(sample, tokeniser)
    order = (-rates).argsort(kind="stable")
    starts = {int(order[at * len(order) // (3 * STARTS)]) for at in range(STARTS)}
    found = list(
        dict.fromkeys(_climb(sample[start], pieces, voters, preparer) for start in sorted(starts))
    )
    rates = Voters(tokens).rate([preparer.prepare(text).tokens for text in found])
    return found[int(rates.argmax())]


def _frequent_pieces(texts: Sequence[str], tokeniser: Tokeniser) -> list[str]:
    """Return the words, and the tokens of this scale, that most texts have."""
    words = Counter(word for text in texts for word in set(text.split()))
    tokens = Counter(token for text in texts for token in set(tokeniser(text)))
    # Equal counts by the alphabet: the choice must not depend on the order of the summaries.
    most = [
        piece
        for counts in (words, tokens)
        for _, piece in sorted((-count, piece) for piece, count in counts.items())[:PIECES]
    ]
    return list(dict.fromkeys(most))


def _climb(text: str, pieces: Sequence[str], voters: Voters, preparer: TextPreparer) -> str:
    """Return the text with the best mean that changes of single pieces lead to.

    Changes are compared by the tokens of their pieces, each taken by itself; the first of them that
    is better as a whole text, too, is made.
    """
    words = tuple(text.split())
    alone = {word: preparer.prepare(word).tokens for word in (*words, *pieces)}

    def rate(one: tuple[str, ...]) -> float:
        return float(voters.rate([preparer.prepare(" ".join(one)).tokens])[0])

    best = rate(words)
    for _ in range(MOST_CHANGES):
        changed = list(dict.fromkeys(_changes(words, pieces)))
        if not changed:
            break
        tokens = ["".join(alone[word] for word in one) for one in changed]
        promising = voters.promising(tokens, count=FINALISTS)
        rates = voters.rate([tokens[place] for place in promising])
        in_order = [changed[promising[at]] for at in (-rates).argsort(kind="stable")]
        better = next((one for one in in_order if rate(one) > best + LEAST_GAIN), None)
        if better is None:
            break
        best, words = rate(better), better
    return " ".join(words)


def _changes(words: tuple[str, ...], pieces: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for place in range(len(words)):
        if len(words) > 1:
            yield words[:place] + words[place + 1 :]
        for piece in pieces:
            yield (*words[:place], piece, *words[place + 1 :])
    for place in range(len(words) + 1):
        for piece in pieces:
            yield (*words[:place], piece, *words[place:])
    for place, word in enumerate(words):
        rest = words[:place] + words[place + 1 :]
        for other in range(len(words)):
            yield (*rest[:other], word, *rest[other:])


class Voters:
    """Texts that candidates are scored against.

    ROUGE clips the count of a token to the smaller one, which is the number of (token, how many of
    it came before) pairs that both texts have.

    Args:
        texts: tokens of each (see PreparedText).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        self._texts = list(texts)
        self._lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        self._sides = []
        for grams in read_grams(texts):
            row, key = _tell_apart(*grams)
            known, place = np.unique(key, return_inverse=True)
            has = np.zeros((len(known) + 1, len(texts)), dtype=np.float32)
            has[place, row] = 1
            self._sides.append((known, has))

    def rate(self, texts: Sequence[str], *, own_places: bool = False) -> NDArray[np.float64]:
        """Return each text's mean over the voters of ROUGE-1, -2 and -L F1, as a fraction.

        Args:
            own_places: the first texts are the voters themselves, which do not vote for themselves.
        """
        import numpy as np
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist

        lcs = cdist(list(texts), self._texts, scorer=LCSseq.similarity, dtype=np.int32)
        without, sums = self._grams_f1(texts)
        f1 = (without + 2 * lcs / sums) / 3
        votes = np.full(len(texts), float(len(self._texts)))
        if own_places:
            own = np.arange(min(len(texts), len(self._texts)))
            f1[own, own] = 0.0
            votes[own] -= 1
        means: NDArray[np.float64] = f1.sum(axis=1) / np.maximum(votes, 1)
        return means

    def promising(self, texts: Sequence[str], *, count: int) -> list[int]:
        """Return the places of the texts with the best ROUGE-1 and -2, best first."""
        rates = self._grams_f1(texts)[0].sum(axis=1)
        return [int(place) for place in (-rates).argsort(kind="stable")[:count]]

    def _grams_f1(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sum of ROUGE-1 and -2 F1, and both texts' tokens together: [texts, voters]."""
        import numpy as np

        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        sums = np.maximum(lengths[:, None] + self._lengths, 1)
        pairs = np.maximum(lengths - 1, 0)[:, None] + np.maximum(self._lengths - 1, 0)
        ones, twos = (
            _count_shared(grams, *side, rows=len(texts))
            for side, grams in zip(self._sides, read_grams(texts), strict=True)
        )
        return 2.0 * ones / sums + 2.0 * twos / np.maximum(pairs, 1), sums


def _count_shared(
    grams: Grams, known: NDArray[np.uint64], has: NDArray[np.float32], *, rows: int
) -> NDArray[np.float32]:
    """Return how many grams each text shares with each voter: [texts, voters].

    Sums of a few rows, not a product of matrices: BLAS waits for its threads longer than these sums
    take.

    Args:
        known: the voters' grams, ascending.
        has: 1 where a voter has it, with a last row of zeros: [known + 1, voters].
    """
    import numpy as np

    row, key = _tell_apart(*grams)
    found = np.zeros((rows, has.shape[1]), dtype=np.float32)
    if len(key):
        place = np.searchsorted(known, key)
        there = place < len(known)
        there[there] = known[place[there]] == key[there]
        present, starts = np.unique(row, return_index=True)
        shared = has[np.where(there, place, len(known))]
        found[present] = np.add.reduceat(shared, starts, axis=0)
    return found


def _tell_apart(
    rows: NDArray[np.uint64], grams: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Tell equal grams of a row apart by how many came before."""
    import numpy as np

    order = np.lexsort((grams, rows))
    rows, grams = rows[order], grams[order]
    begins = np.ones(len(grams), dtype=bool)
    begins[1:] = (rows[1:] != rows[:-1]) | (grams[1:] != grams[:-1])
    places = np.arange(len(grams))
    before = places - np.maximum.accumulate(np.where(begins, places, 0))
    keys = (grams << np.uint64(OCCURRENCE_BITS)) | before.astype(np.uint64)
    return rows.astype(np.int64), keys

"""Scores and measures of some rows at once: what the report is made of, in bounded memory.

Rows do not depend on each other, so a long file goes through in chunks, on several processors.
Must not know how figures are put together.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dialsum.machine.host import usable_cores
from dialsum.score.floors import LEADS, lead, longest_utterance
from dialsum.score.measures import MEASURES, measure_row
from dialsum.score.rouge import PreparedText, TextPreparer, score_rows
from dialsum.score.rows import Rows
from dialsum.score.speakers import successors
from dialsum.score.tokenise import load_tokeniser

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

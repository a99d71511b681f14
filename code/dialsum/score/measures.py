"""What ROUGE does not see, row by row: the table of measures, and how each is taken.

Must not know scores, nor how figures are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dialsum.score.facts import KINDS, agreed_facts, count_facts, find_facts, find_lacking
from dialsum.score.form import copied_share, is_unfinished, most_repeated, repeated_share
from dialsum.score.scripts import find_foreign
from dialsum.score.speakers import find_unknown_speakers
from dialsum.score.tokenise import normalise

NOT_APPLICABLE = float("nan")
Cut = Callable[[str], list[str]]


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        title: how a table calls it.
        unit: of the figure, and of a row's value.
        worst: which rows are listed: those with the highest values, the lowest, or those furthest
            from 1.
        limit: rows at least as bad as this are listed and no others.
        needs_dialogue: it cannot be taken without.
    """

    title: str
    unit: str
    worst: Literal["high", "low", "far"] = "high"
    limit: float = 1e-9
    needs_dialogue: bool = False


ROWS, FACTS = "% of rows", "% of facts"
MEASURES: dict[str, Measure] = {
    "empty": Measure("empty", ROWS),
    "foreign_script": Measure("foreign script", ROWS),
    "speakers_unknown": Measure("speakers not in the dialogue", ROWS, needs_dialogue=True),
    "speaker_exchange": Measure(
        "score lost when speakers are exchanged", "points", worst="low", limit=-1e-9
    ),
    **{
        f"{kind}_unsupported": Measure(f"{kind} not in the dialogue", ROWS, needs_dialogue=True)
        for kind in KINDS
    },
    **{f"{kind}_missed": Measure(f"{kind} of the reference missed", FACTS) for kind in KINDS},
    "length_ratio": Measure("length over the reference's", "times", worst="far", limit=1.5),
    "repetition": Measure("repeated 3-grams", "% of 3-grams"),
    "copied": Measure("3-grams copied", "% of 3-grams", limit=50.0, needs_dialogue=True),
    "unfinished": Measure("no end of sentence", ROWS),
    "chrf": Measure("chrF2", "0-100", worst="low", limit=100.0),
}


def measure_row(
    prediction: str, references: Sequence[str], dialogue: str | None, *, cut: Cut
) -> dict[str, float]:
    """Take every measure of one row but those that are scores.

    Args:
        cut: text to tokens, with each tag one token.

    Returns:
        Key of MEASURES to value in its unit; NaN where a row has nothing to measure. What needs a
        dialogue is left out where there is none.
    """
    tokens = cut(prediction)
    lengths = [len(cut(reference)) for reference in references]
    expected = agreed_facts(references)
    missed = find_lacking(expected, prediction)
    empty = not prediction.strip()
    values = {
        "empty": 100.0 * empty,
        "foreign_script": 100.0 * bool(find_foreign(prediction, dialogue)),
        **{
            f"{kind}_missed": 100.0 * len(missed[kind]) / count
            if (count := count_facts(expected, kind))
            else NOT_APPLICABLE
            for kind in KINDS
        },
        "length_ratio": len(tokens) * len(lengths) / (sum(lengths) or 1),
        "repetition": 100.0 * repeated_share(tokens),
        "unfinished": NOT_APPLICABLE if empty else 100.0 * is_unfinished(prediction),
    }
    if dialogue is None:
        return values
    unsupported = find_lacking(find_facts(prediction), dialogue)
    return values | {
        "speakers_unknown": 100.0 * bool(find_unknown_speakers(prediction, dialogue)),
        **{f"{kind}_unsupported": 100.0 * bool(unsupported[kind]) for kind in KINDS},
        "copied": 100.0 * copied_share(tokens, cut(dialogue)),
    }


def explain_row(
    key: str, prediction: str, references: Sequence[str], dialogue: str | None, *, cut: Cut
) -> str:
    """Return what in a row is behind its value, in a few words; empty where the text says it."""
    if key == "foreign_script":
        found = find_foreign(prediction, dialogue)
        return "; ".join(f"{script} {' '.join(what)}" for script, what in found.items())
    if key == "speakers_unknown":
        return " ".join(find_unknown_speakers(prediction, dialogue or ""))
    kind, _, verdict = key.rpartition("_")
    if verdict == "unsupported":
        return ", ".join(find_lacking(find_facts(prediction), dialogue or "")[kind])
    if verdict == "missed":
        return ", ".join(find_lacking(agreed_facts(references), prediction)[kind])
    if key == "repetition":
        return most_repeated(cut(prediction))
    if key == "unfinished":
        return f"… {normalise(prediction)[-20:]}"
    return ""

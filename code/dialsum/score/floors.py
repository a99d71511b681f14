"""The scores of having learnt nothing: one sentence for all, and the first two turns.

Must not see the references that are reported on: the constant is chosen among and against train
summaries alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from dialsum.errors import DataError
from dialsum.score.rouge import PreparedText, TextPreparer, mean_f1

CANDIDATES = 300  # train summaries that stand for election, drawn by seed
VOTERS = 150  # train summaries that each candidate is scored against
FINALISTS = 3  # candidates that are tried with fewer words

# Raw files have turns parted by <br> or by a backslash and an n, too.
TURN_BREAK = re.compile(r"\r\n|\r|\n|<br\s*/?>|\\n", re.IGNORECASE)
SPEAKER = re.compile(r"\s*#[A-Za-z][A-Za-z0-9_]*#\s*[:：]\s*")


def choose_constant(
    train_summaries: Sequence[str], preparer: TextPreparer, *, seed: int = 0
) -> str:
    """Choose the one text that does best as a summary of everything, on this scale.

    The candidates with the best mean against the voters (themselves not counted) go on to a second
    step: words are taken out of each, the most harmful first, as long as that raises its mean. A
    floor is only honest when it is hard to beat, and the second step adds 2 to 3 points to it.

    Raises:
        DataError: no summary, or none that is not blank.
    """
    texts = sorted({summary.strip() for summary in train_summaries} - {""})
    if not texts:
        problem = f"none of {len(train_summaries)} train summaries has text"
        raise DataError([f"{problem}; the constant floor needs one"])
    sample = random.Random(seed).sample(texts, min(CANDIDATES, len(texts)))
    prepared = [preparer.prepare(text) for text in sample]
    voters = prepared[:VOTERS]

    def rate(text: PreparedText) -> float:
        return _mean([mean_f1(text, voter) for voter in voters if voter is not text])

    ranked = sorted(range(len(sample)), key=lambda place: rate(prepared[place]), reverse=True)
    trimmed = [_take_words_out(sample[place], voters, preparer) for place in ranked[:FINALISTS]]
    return max(trimmed)[1]


def _take_words_out(
    text: str, voters: Sequence[PreparedText], preparer: TextPreparer
) -> tuple[float, str]:
    """Return the best mean and the words left; a voter that is the text itself counts here."""

    def rate(words: Sequence[str]) -> float:
        prepared = preparer.prepare(" ".join(words))
        return _mean([mean_f1(prepared, voter) for voter in voters])

    words = text.split()
    best = rate(words)
    while len(words) > 1:
        shorter = [words[:place] + words[place + 1 :] for place in range(len(words))]
        rates = [rate(candidate) for candidate in shorter]
        if max(rates) <= best:
            break
        best = max(rates)
        words = shorter[rates.index(best)]
    return best, " ".join(words)


def lead_two(dialogue: str) -> str:
    """Return what is said in the first two turns, without `#Person1#: ` before it.

    A line without a speaker goes on with the turn before it. A dialogue of one turn gives that
    turn.
    """
    lines = [line.strip() for line in TURN_BREAK.split(dialogue) if line.strip()]
    if not any(SPEAKER.match(line) for line in lines):
        return " ".join(lines[:2])
    turns: list[str] = []
    for line in lines:
        speaker = SPEAKER.match(line)
        if speaker is None and turns:
            turns[-1] += " " + line
        elif len(turns) == 2:
            break
        else:
            turns.append(line[speaker.end() :] if speaker else line)
    return " ".join(turn for turn in turns if turn)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

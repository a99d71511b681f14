"""What a reader of the dialogue alone could write without thinking: its first turns, its longest.

Must not see a reference, nor know how these texts are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dialsum.data.cleaning import split_lines
from dialsum.data.tags import TURN_START

LEADS = (1, 2, 3)
BLOCK_ROWS = 1024


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


def lead(dialogue: str, turns: int) -> str:
    """Return what is said in the first turns; a shorter dialogue gives all of it."""
    return " ".join(turn for turn in split_turns(dialogue)[:turns] if turn)


def longest_utterance(dialogue: str) -> str:
    """Return the turn with the most characters, the first of several."""
    return max(split_turns(dialogue), key=len, default="")


def other_summaries(summaries: Sequence[str], *, seed: int = 0) -> list[str]:
    """Return for each row the summary of another row, drawn by seed; each is used once.

    In a long file it is one of the thousand around it, whose morphemes are at hand.

    Args:
        summaries: two or more.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    others = [""] * len(summaries)
    starts = [*range(0, max(len(summaries) - 1, 1), BLOCK_ROWS), len(summaries)]
    for start, stop in pairwise(starts):
        order = start + generator.permutation(stop - start)
        for place, row in enumerate(order):
            others[int(row)] = summaries[int(order[place - 1])]
    return others

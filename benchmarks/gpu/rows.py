"""Rows of token ids as long as real ones, drawn from a seed: no data at hand is needed.

Must not know models or tokenizers. Lengths are log-normal. The medians and spreads that the files
of config/architectures hold were fitted to 2,065 dialogues in the competition's form (403
characters in the mean, summaries of 85) as mT5's and KoBART's own tokenizers cut them. What a row
says does not matter to speed or memory; inputs and targets are drawn apart from one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dialsum.data.encode import Counts, EncodedSplit, TokenIds

LEAST = 8
"""Tokens of the shortest row."""
SPECIAL_PIECES = 8
"""Ids below this are never drawn: padding, end and their like come first in a vocabulary."""


def draw_rows(
    count: int,
    *,
    input_length: tuple[float, float],
    target_length: tuple[float, float],
    most: tuple[int, int],
    pieces: int,
    end: int,
    seed: int,
) -> EncodedSplit:
    """Return rows with targets; both end in the end token.

    Args:
        input_length, target_length: median, and standard deviation of the logarithm.
        most: longest input and target in tokens; longer ones are cut.
        pieces: ids are below this.
        end: id of the end token.
    """
    draw = np.random.default_rng(seed)
    inputs = draw_lengths(draw, count, length=input_length, most=most[0])
    targets = draw_lengths(draw, count, length=target_length, most=most[1])
    return EncodedSplit(
        inputs=_fill(draw, inputs, pieces=pieces, end=end),
        targets=_fill(draw, targets, pieces=pieces, end=end),
        counts=Counts(),
    )


def draw_lengths(
    draw: np.random.Generator, count: int, *, length: tuple[float, float], most: int
) -> NDArray[np.int64]:
    """Return so many lengths in tokens, from LEAST to most."""
    median, spread = length
    drawn = np.rint(draw.lognormal(np.log(median), spread, size=count))
    return np.clip(drawn, min(LEAST, most), most).astype(np.int64)


def _fill(
    draw: np.random.Generator, lengths: NDArray[np.int64], *, pieces: int, end: int
) -> TokenIds:
    return [
        np.append(draw.integers(SPECIAL_PIECES, pieces, size=length - 1), end).astype(np.int32)
        for length in lengths
    ]


def count_tokens(rows: EncodedSplit, steps: Sequence[Sequence[Sequence[int]]]) -> int:
    """Return the input and target tokens, padding not counted, of some optimizer steps.

    Args:
        steps: the rows of each pass of each step.
    """
    chosen = [int(row) for step in steps for rows_of_pass in step for row in rows_of_pass]
    return int(rows.input_lengths[chosen].sum() + rows.target_lengths[chosen].sum())

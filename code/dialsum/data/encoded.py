"""What encoded rows are: the ids of a split, what was cut to make them, and where they came from.

Must not know how they are made (encode.py) or kept (encode_cache.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialsum.data.ragged import TokenRows


@dataclass(frozen=True)
class Counts:
    """What was cut and what the vocabulary lacks, in a whole split.

    Args:
        truncated_inputs, truncated_targets: rows that were longer.
        left_out_turns: turns of the dialogues of which nothing was kept.
        inputs_cut_inside: dialogues of which a turn was cut inside.
        left_out_input_tokens, left_out_target_tokens: tokens that were cut.
        unknown_inputs, unknown_targets: rows with at least one piece that the vocabulary lacks.
    """

    truncated_inputs: int = 0
    left_out_turns: int = 0
    inputs_cut_inside: int = 0
    left_out_input_tokens: int = 0
    unknown_inputs: int = 0
    truncated_targets: int = 0
    left_out_target_tokens: int = 0
    unknown_targets: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        more = asdict(other)
        return Counts(**{name: count + more[name] for name, count in asdict(self).items()})


@dataclass(frozen=True)
class CacheUse:
    """Where an encoded split came from.

    Args:
        key: stands for rows, tokenizer and settings.
        how: read from the cache, made and kept there, or made and not kept.
    """

    key: str
    how: str


@dataclass(frozen=True)
class EncodedSplit:
    """One split as token ids.

    Args:
        inputs: end token included where the tokenizer gives one, at most encoder_max_len long.
        targets: the same for the summaries, always with an end token, at most decoder_max_len
            long; None without summaries.
        counts: of the whole split, whatever part of it this is.
        cache: None where none was asked for.
    """

    inputs: TokenRows
    targets: TokenRows | None
    counts: Counts
    cache: CacheUse | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_lengths(self) -> NDArray[np.int32]:
        """Tokens of each input, int32, [rows]."""
        return self.inputs.lengths

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target, int32, [rows]; zeros without summaries."""
        if self.targets is None:
            return np.zeros(len(self), dtype=np.int32)
        return self.targets.lengths

    def first(self, rows: int) -> EncodedSplit:
        """Return the first rows; the counts stay those of the whole split."""
        targets = None if self.targets is None else self.targets[:rows]
        return replace(self, inputs=self.inputs[:rows], targets=targets)

    def describe(self) -> str:
        """Say in one line how many rows there are, how long, what was cut, and if it was read."""
        counts = self.counts
        cut = f"{counts.truncated_inputs} inputs"
        if counts.truncated_inputs:
            inside = counts.inputs_cut_inside
            cut += f" ({counts.left_out_turns} turns left out, {inside} cut inside a turn)"
        if self.targets is not None:
            cut += f", {counts.truncated_targets} targets"
        source = f"; {self.cache.how} (cache {self.cache.key[:8]})" if self.cache else ""
        return f"{len(self):,} rows, longest input {self.inputs.longest} tokens; cut: {cut}{source}"

    def to_record(self) -> dict[str, Any]:
        """Return the counts as they stand in result.json."""
        record: dict[str, Any] = {
            "rows": len(self),
            "longest_input_tokens": self.inputs.longest,
            **asdict(self.counts),
        }
        if self.targets is None:
            record = {name: value for name, value in record.items() if "target" not in name}
        else:
            record["longest_target_tokens"] = self.targets.longest
        if self.cache is not None:
            record["cache"] = asdict(self.cache)
        return record

"""Dialogues and summaries as token ids: prefix, truncation that keeps the end token, and counts.

Must not know models or training; the tokenizer is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dialsum.data.dialogues import Dialogue
from dialsum.data.prompts import build_input


@dataclass(frozen=True)
class EncodedSplit:
    """One split as token ids.

    Args:
        inputs: one list of ids a row, end token included, at most encoder_max_len long.
        targets: the same for the summaries, at most decoder_max_len long; None without summaries.
        truncated_inputs, truncated_targets: rows that were longer.
        unknown_inputs, unknown_targets: rows with at least one piece that the vocabulary lacks.
    """

    inputs: list[list[int]]
    targets: list[list[int]] | None
    truncated_inputs: int
    truncated_targets: int
    unknown_inputs: int
    unknown_targets: int

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, rows: int) -> EncodedSplit:
        """Return the first rows; the counts stay those of the whole split."""
        return replace(
            self, inputs=self.inputs[:rows],
            targets=None if self.targets is None else self.targets[:rows],
        )

    def to_record(self) -> dict[str, int]:
        """Return the counts as they stand in result.json."""
        record = {
            "rows": len(self), "truncated_inputs": self.truncated_inputs,
            "unknown_inputs": self.unknown_inputs,
            "longest_input_tokens": max(map(len, self.inputs), default=0),
        }
        if self.targets is not None:
            record |= {
                "truncated_targets": self.truncated_targets,
                "unknown_targets": self.unknown_targets,
                "longest_target_tokens": max(map(len, self.targets), default=0),
            }
        return record


def encode_rows(
    rows: Sequence[Dialogue], tokenizer: Any, *, prefix: str, encoder_max_len: int,
    decoder_max_len: int,
) -> EncodedSplit:
    """Encode a split; every input and target ends in the tokenizer's end token where that has one.

    KoBART's tokenizer adds no end token by itself: a target without one teaches the model never to
    stop, so it is added to targets always. Inputs get what the checkpoint's tokenizer gives them,
    as in its pre-training.
    """
    inputs, cut_inputs, unknown_inputs = _encode(
        [build_input(prefix, row.dialogue) for row in rows], tokenizer,
        max_length=encoder_max_len, force_end=False,
    )
    summaries = [row.summary for row in rows if row.summary is not None]
    if len(summaries) != len(rows):
        return EncodedSplit(inputs, None, cut_inputs, 0, unknown_inputs, 0)
    targets, cut_targets, unknown_targets = _encode(
        summaries, tokenizer, max_length=decoder_max_len, force_end=True
    )
    return EncodedSplit(inputs, targets, cut_inputs, cut_targets, unknown_inputs, unknown_targets)


def _encode(
    texts: Sequence[str], tokenizer: Any, *, max_length: int, force_end: bool
) -> tuple[list[list[int]], int, int]:
    """Return ids, the number of texts cut, and the number with an unknown piece."""
    end = tokenizer.eos_token_id
    rows: list[list[int]] = []
    if texts:
        rows = tokenizer([fold_spaces(text) for text in texts])["input_ids"]
    unknown = sum(tokenizer.unk_token_id in ids for ids in rows)
    encoded, cut = [], 0
    for ids in rows:
        ends = force_end or (bool(ids) and ids[-1] == end)
        body = ids[:-1] if ids and ids[-1] == end else ids
        room = max_length - int(ends)
        cut += len(body) > room
        encoded.append(body[:room] + [end] * int(ends))
    return encoded, cut, unknown


def fold_spaces(text: str) -> str:
    """Fold runs of white space to one space, line ends kept: a tokenizer may keep each of them."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))

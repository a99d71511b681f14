"""Rows as forward passes: padded tensors, their loss, and what halves, counts or leaves out rows.

A task is what the loop learns from: it alone knows what a row is. Must not know optimizers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dialsum.data.encode import EncodedSplit
from dialsum.train.batches import BatchShape, Rows, Step, find_heaviest, plan_random, plan_steps
from dialsum.train.head_loss import IGNORED, summary_loss

Batch = dict[str, Any]
"""A forward pass: input_ids, attention_mask [rows, input], labels [rows, target] with IGNORED where
nothing counts, and under ROWS the place of each row in its split [rows]."""
ROWS = "rows"


@dataclass
class SummaryTask(torch.utils.data.Dataset[Batch]):
    """Dialogues and their summaries, for encoder-decoder models.

    Args:
        encoded: rows with targets.
        names: fname of each of them, for reports.
        sha256: hash of what the rows say.
        shape: what bounds a pass and a step.
        pad_token_id: what inputs are filled up with.
        by_length: rows of like length go together; else they are drawn at random.
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016).
        multiple: input widths are rounded up to a multiple of this, at most to the position limit.
        position_limit: widest input that the model takes; None: any.
    """

    encoded: EncodedSplit
    names: Sequence[str]
    sha256: str
    shape: BatchShape
    seed: int
    pad_token_id: int
    by_length: bool = True
    label_smoothing: float = 0.0
    multiple: int = 1
    position_limit: int | None = None

    def __len__(self) -> int:
        return len(self.encoded)

    def steps(self, epoch: int) -> list[Step]:
        """Return an epoch's optimizer steps. Seed and epoch alone decide them, so that they are the
        same again after a run went on from a checkpoint.
        """
        inputs, targets = self.encoded.input_lengths, self.encoded.target_lengths
        if self.by_length:
            return plan_steps(inputs, targets, shape=self.shape, seed=self.seed, epoch=epoch)
        return plan_random(inputs, shape=self.shape, seed=self.seed, epoch=epoch)

    def find_heaviest(self, epochs: int) -> list[Rows]:
        """Return the passes of all epochs that take most memory: by tokens, by attention."""
        inputs, targets = self.encoded.input_lengths, self.encoded.target_lengths
        return find_heaviest(map(self.steps, range(epochs)), inputs, targets)

    def __getitem__(self, rows: Rows | Sequence[int]) -> Batch:
        if self.encoded.targets is None:
            raise ValueError("rows without summaries cannot be learned from")
        inputs = [self.encoded.inputs[int(row)] for row in rows]
        targets = [self.encoded.targets[int(row)] for row in rows]
        width = -(-max(map(len, inputs)) // self.multiple) * self.multiple
        width = width if self.position_limit is None else min(width, self.position_limit)
        return {
            "input_ids": _fill(inputs, width, self.pad_token_id),
            "attention_mask": _fill([[1] * len(ids) for ids in inputs], width, 0),
            "labels": _fill(targets, max(map(len, targets)), IGNORED),
            ROWS: torch.as_tensor([int(row) for row in rows]),
        }

    def loss(self, model: Any, batch: Batch, *, count: int | None) -> torch.Tensor:
        """Return the loss of a pass, with its graph: its sum over target tokens, divided by count.

        Args:
            count: target tokens of the whole optimizer step; None: of this pass.
        """
        return summary_loss(model, batch, count=count, label_smoothing=self.label_smoothing)


def _fill(lists: Sequence[Sequence[int]], width: int, value: int) -> torch.Tensor:
    filled = torch.full((len(lists), width), value, dtype=torch.long)
    for index, ids in enumerate(lists):
        filled[index, : len(ids)] = torch.as_tensor(ids)
    return filled


def take_rows(batch: Batch, places: Sequence[int]) -> Batch:
    """Return a pass of some of a pass's rows, as narrow as those allow."""
    part = {key: value[list(places)] for key, value in batch.items()}
    width = int(part["attention_mask"].sum(dim=1).max())
    out = int((part["labels"] != IGNORED).sum(dim=1).max())
    return part | {
        "input_ids": part["input_ids"][:, :width],
        "attention_mask": part["attention_mask"][:, :width],
        "labels": part["labels"][:, :out],
    }


def halve(batch: Batch) -> list[Batch]:
    """Return a pass of two rows or more as two passes."""
    rows, middle = len(batch[ROWS]), len(batch[ROWS]) // 2
    return [take_rows(batch, range(middle)), take_rows(batch, range(middle, rows))]


def leave_out(passes: Sequence[Batch], rows: Collection[int]) -> list[Batch]:
    """Return passes without some rows of the split."""
    if not rows:
        return list(passes)
    kept = [
        (batch, [at for at, row in enumerate(batch[ROWS].tolist()) if row not in rows])
        for batch in passes
    ]
    return [
        batch if len(places) == len(batch[ROWS]) else take_rows(batch, places)
        for batch, places in kept
        if places
    ]


def rows_of(passes: Sequence[Batch]) -> list[int]:
    """Return the rows of passes, by their place in the split."""
    return [row for batch in passes for row in batch[ROWS].tolist()]


def count_positions(batch: Batch) -> int:
    """Return the input and target positions of a pass, padding too."""
    return int(batch["input_ids"].numel() + batch["labels"].numel())


def count_targets(passes: Sequence[Batch]) -> int:
    """Return the target tokens of passes, padding not counted."""
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in passes)


def count_tokens(passes: Sequence[Batch]) -> int:
    """Return the input and target tokens of passes, padding not counted."""
    inputs = sum(int(batch["attention_mask"].sum()) for batch in passes)
    return inputs + count_targets(passes)

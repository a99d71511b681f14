"""Optimizer steps as tensors: padded, labelled, with the rows that they are made of.

Must not know models, nor how rows are chosen (batches.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from dialsum.data.encode import EncodedSplit
from dialsum.train.batches import (
    BatchShape,
    Rows,
    Step,
    plan_random,
    plan_token_budget,
    share_of,
)
from dialsum.train.loss import IGNORED

ROWS = "rows"
"""Key of a batch that names its rows, by their place in the split."""


@dataclass
class StepOrder:
    """The steps of each epoch, for a DataLoader's batch_sampler.

    The order is drawn from seed and epoch alone, so that it is the same whatever prepares the
    batches, and again after a run went on from a checkpoint.

    Args:
        encoded: the training rows.
        shape: what bounds a pass and a step.
        by_length: rows of like length go together; else they are drawn at random.
        rank, world: which of how many devices this is.
    """

    encoded: EncodedSplit
    shape: BatchShape
    seed: int
    by_length: bool = True
    rank: int = 0
    world: int = 1
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def steps(self, epoch: int) -> list[Step]:
        """Return an epoch's steps, this device's part of them."""
        inputs, targets = self.encoded.input_lengths, self.encoded.target_lengths
        if self.by_length:
            steps = plan_token_budget(
                inputs, targets, shape=self.shape, seed=self.seed, epoch=epoch, world=self.world
            )
        else:
            steps = plan_random(
                inputs, shape=self.shape, seed=self.seed, epoch=epoch, world=self.world
            )
        if self.world == 1:
            return steps
        return share_of(steps, inputs, rank=self.rank, world=self.world)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps(self.epoch))

    def __len__(self) -> int:
        return self.shape.count_steps(len(self.encoded), world=self.world)


class PassDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Forward passes as padded batches, by the rows that they hold.

    Args:
        encoded: rows with targets.
        pad_token_id: what inputs are filled up with; labels with -100.
        multiple: input widths are rounded up to a multiple of this, at most to the position limit.
        limit: widest input that the model takes; None: any.

    Raises:
        ValueError: the rows have no targets.
    """

    def __init__(
        self, encoded: EncodedSplit, *, pad_token_id: int, multiple: int = 1,
        limit: int | None = None,
    ) -> None:
        if encoded.targets is None:
            raise ValueError("rows without summaries cannot be trained on")
        self.encoded, self.pad_token_id = encoded, pad_token_id
        self._targets = encoded.targets
        self.multiple, self.limit = multiple, limit

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, rows: Rows | Sequence[int]) -> dict[str, Any]:
        """Return input_ids, attention_mask [rows, input], labels [rows, target] and rows [rows]."""
        inputs = [self.encoded.inputs[int(row)] for row in rows]
        targets = [self._targets[int(row)] for row in rows]
        width = -(-max(map(len, inputs)) // self.multiple) * self.multiple
        width = width if self.limit is None else min(width, self.limit)
        return {
            "input_ids": _fill(inputs, width, self.pad_token_id),
            "attention_mask": _fill([[1] * len(ids) for ids in inputs], width, 0),
            "labels": _fill(targets, max(map(len, targets)), IGNORED),
            ROWS: torch.as_tensor([int(row) for row in rows]),
        }


def _fill(lists: Sequence[Sequence[int]], width: int, value: int) -> torch.Tensor:
    filled = torch.full((len(lists), width), value, dtype=torch.long)
    for index, ids in enumerate(lists):
        filled[index, : len(ids)] = torch.as_tensor(ids)
    return filled


class StepLoader(DataLoader[Any]):
    """A DataLoader that yields one optimizer step at a time, as the list of its passes."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the trainer calls this before each."""
        order: Any = self.batch_sampler
        order.set_epoch(epoch)


def make_loader(
    dataset: PassDataset, order: StepOrder, *, num_workers: int, pin_memory: bool
) -> StepLoader:
    """Return the loader of the training steps.

    A generator of its own keeps it from drawing on the global random state: dropout is then the
    same whatever the number of workers.
    """
    sampler: Any = order  # its batches are lists of passes, not of rows
    return StepLoader(
        dataset, batch_sampler=sampler, collate_fn=list, num_workers=num_workers,
        pin_memory=pin_memory, generator=torch.Generator().manual_seed(order.seed),
    )


def split_pass(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a batch as two of half the rows, each as narrow as its rows allow.

    Raises:
        ValueError: a single row cannot be halved.
    """
    count = len(batch["input_ids"])
    if count < 2:
        raise ValueError("a pass of one row cannot be halved")
    middle = count // 2
    halves = []
    for part in (slice(0, middle), slice(middle, count)):
        half = {key: value[part] for key, value in batch.items()}
        width = int(half["attention_mask"].sum(dim=1).max())
        out = int((half["labels"] != IGNORED).sum(dim=1).max())
        halves.append({
            **half, "input_ids": half["input_ids"][:, :width],
            "attention_mask": half["attention_mask"][:, :width], "labels": half["labels"][:, :out],
        })
    return halves


def count_positions(batch: dict[str, Any]) -> int:
    """Return the input and target positions of a batch, padding too."""
    return int(batch["input_ids"].numel() + batch["labels"].numel())


def count_targets(step: Sequence[dict[str, Any]]) -> int:
    """Return the target tokens of a step, padding not counted."""
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in step)

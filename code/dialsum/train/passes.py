"""Rows as forward passes: what halves, counts or leaves out rows, and how small passes must be.

Must not know where rows come from, nor optimizers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from dialsum.errors import FullMemoryError, first_line
from dialsum.train.loss import IGNORED

Batch = dict[str, Any]
"""A forward pass: input_ids, attention_mask [rows, input], labels [rows, target] with IGNORED where
nothing counts, and under ROWS the place of each row in its split [rows]."""
ROWS = "rows"


@dataclass(frozen=True)
class Machine:
    """What was chosen for this machine.

    Args:
        precision: of the computation: fp32, bf16 or fp16.
        tf32: TensorFloat-32 matrix products.
        gradient_checkpointing: recompute activations.
        num_workers: processes that prepare passes.
    """

    device: torch.device
    precision: str = "fp32"
    tf32: bool = False
    gradient_checkpointing: bool = False
    num_workers: int = 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a forward pass computes."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def place(self, batch: Batch) -> Batch:
        """Return a pass on the device, without the names of its rows."""
        return {
            key: value.to(self.device, non_blocking=True)
            for key, value in batch.items()
            if key != ROWS
        }


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


@dataclass
class PassLimit:
    """The most positions that a pass may have; lowered each time that memory runs out.

    The rows of a step stay the same: smaller passes are only more of them.

    Args:
        positions: input and target positions, padding too; None: no limit yet.
        retries: how often it was lowered.
    """

    positions: int | None = None
    retries: int = 0

    def fit(self, passes: Sequence[Batch]) -> list[Batch]:
        """Return the passes with those beyond the limit halved until they fit."""
        fitting: list[Batch] = []
        for batch in passes:
            fits = self.positions is None or count_positions(batch) <= self.positions
            if fits or len(batch["input_ids"]) == 1:
                fitting.append(batch)
            else:
                fitting += self.fit(halve(batch))
        return fitting

    def lower(self, batch: Batch, error: str) -> str:
        """Take note that memory ran out in this pass, and say so in words.

        Args:
            batch: the pass in which it happened.
            error: the library's own words.

        Raises:
            FullMemoryError: the pass has one row: nothing is left to halve.
        """
        rows, positions = len(batch["input_ids"]), count_positions(batch)
        if rows == 1:
            raise FullMemoryError(
                f"memory was full with a single row of {batch['input_ids'].shape[1]} input tokens "
                f"({error}). Set training.gradient_checkpointing: true, lower "
                "tokenizer.encoder_max_len, or use qlora.load_in_4bit"
            )
        self.positions = positions // 2
        self.retries += 1
        return (
            f"memory was full in a pass of {rows} rows x {batch['input_ids'].shape[1]} input tokens"
            f" ({error}); from now on passes have at most {self.positions} positions, with more of "
            "them to a step: the effective batch size stays"
        )


def words_of(error: BaseException) -> str:
    """Return the start of a library's out-of-memory text, without advice on its settings."""
    text = first_line(error)
    return text.split(". ")[0][:160]

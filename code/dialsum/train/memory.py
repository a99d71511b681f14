"""Memory that runs out inside a step: go on with smaller passes.

Must not know the loop, nor what a step computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dialsum.errors import FullMemoryError, first_line
from dialsum.train.passes import Batch, count_positions, halve


def allocate_states(optimizer: Any) -> list[Any]:
    """Return tensors as large as the states that an optimizer makes in its first step.

    AdamW has two of each weight that learns, those of bitsandbytes in 8 bits if it is large and no
    embedding. Adafactor's rows and columns are too small to count. None for weights that have
    states already, as in a run that goes on.

    Args:
        optimizer: a torch optimizer, or one of bitsandbytes.
    """
    import torch

    if "adam" not in type(optimizer).__name__.lower():
        return []
    return [
        torch.empty_like(
            weight, requires_grad=False, dtype=_state_type(optimizer, at, place, weight)
        )
        for at, group in enumerate(optimizer.param_groups)
        for place, weight in enumerate(group["params"])
        if weight.requires_grad and not optimizer.state.get(weight)
        for _state in range(2)
    ]


def _state_type(optimizer: Any, group: int, place: int, weight: Any) -> Any:
    """Return the type of a weight's states to come."""
    import torch

    if not hasattr(optimizer, "get_config"):
        return weight.dtype
    optimizer.check_overrides()
    asked = optimizer.get_config(group, place, optimizer.param_groups[group])
    small = asked["optim_bits"] != 8 or weight.numel() < asked["min_8bit_size"]
    return torch.float32 if small else torch.uint8


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

"""One optimizer step's gradients: its passes one by one, again with smaller ones if memory is full.

Must not know the optimizer, nor the library's trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dialsum.train.memory import PassLimit, free_memory, is_out_of_memory, words_of
from dialsum.train.progress import Progress

PassLoss = Callable[[dict[str, Any], int | None], torch.Tensor]
"""The loss of a pass: its sum over target tokens, divided by the count given (None: its own)."""


@dataclass
class StepRunner:
    """Runs the passes of a step forward and backward.

    Args:
        loss: of one pass, with its graph.
        backward: takes that loss; scales it where float16 needs it.
        limit: how large a pass may be.
        passes: the passes of the last step, as they were run.
    """

    loss: PassLoss
    backward: Callable[[torch.Tensor], None]
    limit: PassLimit
    progress: Progress
    device: torch.device
    passes: list[dict[str, Any]] = field(default_factory=list)
    _random_state: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(
        self, model: torch.nn.Module, passes: Sequence[dict[str, Any]], *, count: int, step: int
    ) -> torch.Tensor:
        """Add up the gradients of a step and return its loss, without a graph.

        Args:
            count: target tokens of the whole step.
            step: its number, for messages.

        Raises:
            FullMemoryError: memory was full with a single row.
        """
        self.progress.step = step
        self._random_state = read_random_state(self.device)
        while True:
            self.passes = self.limit.fit(passes)
            loss = self._accumulate(model, self.passes, count, step)
            if loss is not None:
                return loss
            self.rewind()

    def rewind(self) -> None:
        """Set the random state back to the beginning of the last step: dropout comes again."""
        set_random_state(self._random_state, self.device)

    def rehearse(
        self, model: torch.nn.Module, batch: dict[str, Any], *, beside: Sequence[torch.Tensor]
    ) -> None:
        """Run a pass and forget it, so that memory runs out now or not at all.

        Neither gradients nor random state remain.

        Args:
            beside: what will be in memory as well, and is only held here.

        Raises:
            FullMemoryError: memory was full with a single row.
        """
        self.run(model, [batch], count=1, step=0)
        model.zero_grad(set_to_none=True)
        self.rewind()
        del beside

    def _accumulate(
        self, model: torch.nn.Module, passes: Sequence[dict[str, Any]], count: int, step: int
    ) -> torch.Tensor | None:
        """Return the loss, gradients added; None after memory ran out and was freed."""
        total = torch.zeros((), device=self.device)
        failed: tuple[dict[str, Any], str] | None = None
        for batch in passes:
            try:
                loss = self.loss(batch, count)
                self.backward(loss)
                total += loss.detach()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = batch, words_of(error)
                break
        if failed is None:
            return total
        # Outside of the handler: the error would hold on to the tensors of the pass.
        model.zero_grad(set_to_none=True)
        free_memory(self.device)
        text = self.limit.lower(*failed)
        self.progress.event(
            "memory_retry", step=step, positions=self.limit.positions, message=text
        )
        self.progress.warn(text if step == 0 else f"step {step}: {text}")
        return None


def read_random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the random state of the CPU and of the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the random state back to what read_random_state returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)

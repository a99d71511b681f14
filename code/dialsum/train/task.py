"""What is learned from and measured on: dialogues and their summaries, for encoder-decoder models.

A task alone knows what a row is. Must not know the loop, nor how a summary is scored (it is handed
a function).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dialsum.data.encode import EncodedSplit
from dialsum.generate import GenerationSettings, generate
from dialsum.machine.memory import free_memory, is_out_of_memory
from dialsum.train.batches import BatchShape, Rows, Step, find_heaviest, plan_random, plan_steps
from dialsum.train.loss import IGNORED, summary_loss
from dialsum.train.passes import ROWS, Batch, Machine, PassLimit, count_targets, words_of

Scorer = Callable[[Sequence[str]], dict[str, float]]
"""Predictions of the evaluated dev rows to scores, 0-100, as metric_for_best_model names them."""


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


def _fill(lists: Sequence[Any], width: int, value: int) -> torch.Tensor:
    filled = np.full((len(lists), width), value, dtype=np.int64)
    for row, ids in zip(filled, lists, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(filled)


@dataclass
class DevSet:
    """What an evaluation during training needs; called with a model, it measures it.

    Args:
        task: the dev rows that are evaluated, without label smoothing.
        tokenizer: turns token ids back into text.
        score: scores their predictions.
        settings: the search used for them.
        batch_size: rows per pass and per generation batch.
        limit: of a pass; lowered where memory runs out.
    """

    task: SummaryTask
    tokenizer: Any
    score: Scorer
    settings: GenerationSettings
    batch_size: int
    machine: Machine
    limit: PassLimit = field(default_factory=PassLimit)

    def __call__(self, model: Any) -> dict[str, float]:
        """Return the mean loss per target token, and the scores of the summaries written."""
        was_training = model.training
        model.eval()
        loss = self._mean_loss(model)
        written = generate(
            model,
            self.tokenizer,
            self.task.encoded.inputs,
            settings=self.settings,
            batch_size=self.batch_size,
        )
        model.train(was_training)
        return {"loss": loss, **self.score([best.text for best, *_ in written])}

    def _mean_loss(self, model: Any) -> float:
        order = sorted(range(len(self.task)), key=lambda row: len(self.task.encoded.inputs[row]))
        waiting = [
            self.task[order[start : start + self.batch_size]]
            for start in range(0, len(order), self.batch_size)
        ]
        total, count = 0.0, count_targets(waiting)
        while waiting:
            batch, *rest = self.limit.fit(waiting[:1])
            failed = None
            try:
                with torch.no_grad(), self.machine.autocast():
                    total += float(self.task.loss(model, self.machine.place(batch), count=1))
                waiting[:1] = rest
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = words_of(error)
            if failed is not None:
                free_memory()
                print(f"in the dev loss, {self.limit.lower(batch, failed)}", flush=True)
        return total / max(count, 1)

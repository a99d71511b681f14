"""Evaluation during training: the dev rows' loss, and the scores of the summaries written for them.

Must not know the loop, nor how a summary is scored (it is handed a function).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dialsum.generate import GenerationSettings, generate_summaries
from dialsum.machine.memory import free_memory, is_out_of_memory
from dialsum.train.loop import Machine
from dialsum.train.memory import PassLimit, words_of
from dialsum.train.passes import SummaryTask, count_targets

Scorer = Callable[[Sequence[str]], dict[str, float]]
"""Predictions of the evaluated dev rows to scores, 0-100, as metric_for_best_model names them."""


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
        summaries = generate_summaries(
            model,
            self.tokenizer,
            self.task.encoded.inputs,
            settings=self.settings,
            batch_size=self.batch_size,
        )
        model.train(was_training)
        return {"loss": loss, **self.score(summaries)}

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

"""Evaluation during training: the dev rows' loss, and the scores of the summaries written for them.

Must not know the trainer, nor how a summary is scored (it is handed a function).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dialsum.data.encode import EncodedSplit
from dialsum.model.generate import GenerationSettings, generate_summaries

Scorer = Callable[[Sequence[str]], dict[str, float]]
"""Predictions of the evaluated dev rows to scores, 0-100, as metric_for_best_model names them."""


@dataclass(frozen=True)
class DevSet:
    """What an evaluation during training needs.

    Args:
        encoded: the dev rows that are evaluated.
        tokenizer: turns token ids back into text.
        score: scores their predictions.
        settings: the search used for them.
        batch_size: rows per generation batch.
    """

    encoded: EncodedSplit
    tokenizer: Any
    score: Scorer
    settings: GenerationSettings
    batch_size: int


def write_and_score(model: Any, dev: DevSet) -> dict[str, float]:
    """Return the scores of the summaries that the model writes for the dev rows."""
    return dev.score(generate_summaries(
        model, dev.tokenizer, dev.encoded.inputs, settings=dev.settings, batch_size=dev.batch_size
    ))


def dev_loss(model: Any, dev: DevSet, *, prepare: Callable[[Any], Any]) -> float:
    """Return the mean loss per target token of the dev rows, without label smoothing.

    Args:
        prepare: moves a batch to the model's device.
    """
    import torch

    from dialsum.train.head_loss import sum_summary_loss
    from dialsum.train.loader import ROWS, PassDataset
    from dialsum.train.loss import IGNORED

    rows = PassDataset(dev.encoded, pad_token_id=dev.tokenizer.pad_token_id)
    order = sorted(range(len(rows)), key=lambda row: len(dev.encoded.inputs[row]))
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(order), dev.batch_size):
            batch = rows[order[start : start + dev.batch_size]]
            batch.pop(ROWS)
            total += float(sum_summary_loss(model, prepare(batch), label_smoothing=0.0))
            count += int((batch["labels"] != IGNORED).sum())
    model.train(was_training)
    return total / max(count, 1)

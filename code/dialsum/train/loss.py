"""The one training loss: mean cross-entropy over all target tokens of an optimizer step.

Must not know the trainer. transformers 5 averages each forward pass of an encoder-decoder model by
itself and then sums over the accumulation, so that batch 2 x 4 has four times the gradient of batch
8 x 1. Dividing the sum of token losses by the step's token count makes both the same.
"""

from __future__ import annotations

from typing import Any

IGNORED = -100


def make_loss(label_smoothing: float) -> Any:
    """Return a `compute_loss_func` for transformers' Trainer.

    The function takes outputs with `logits` [batch, length, vocabulary], labels [batch, length]
    with -100 where nothing counts, and num_items_in_batch, the target tokens of the whole step; it
    computes in float32.

    Args:
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016); the
            trainer's own option would be bypassed by this function, so it is applied here.
    """
    def compute_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        total = sum_token_losses(logits, labels, label_smoothing=label_smoothing)
        count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / count

    return compute_loss


def sum_token_losses(logits: Any, labels: Any, *, label_smoothing: float = 0.0) -> Any:
    """Return the summed cross-entropy, in float32.

    Args:
        logits: [batch, length, vocabulary].
        labels: [batch, length], -100 where nothing counts.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1).to(logits.device),
        ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum",
    )

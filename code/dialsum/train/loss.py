"""The one training loss: mean cross-entropy over all target tokens of an optimizer step.

Must not know the trainer. transformers 5 averages each forward pass of an encoder-decoder model by
itself and then sums over the accumulation, so that batch 2 x 4 has four times the gradient of batch
8 x 1. Dividing the sum of token losses by the step's token count makes both the same.
"""

from __future__ import annotations

from typing import Any

IGNORED = -100


def pass_loss(
    model: Any, inputs: dict[str, Any], *, count: int | None, label_smoothing: float
) -> Any:
    """Return the loss of one forward pass: its sum over target tokens, divided by count.

    Args:
        inputs: input_ids, attention_mask [batch, input], labels [batch, target] with -100 where
            nothing counts.
        count: target tokens of the whole optimizer step; None: of this pass.
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016).
    """
    labels = inputs["labels"]
    rest = {key: value for key, value in inputs.items() if key != "labels"}
    decoder = model.prepare_decoder_input_ids_from_labels(labels=labels)
    logits = model(**rest, decoder_input_ids=decoder).logits
    total = sum_token_losses(logits, labels, label_smoothing=label_smoothing)
    return total / (int((labels != IGNORED).sum()) if count is None else count)


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

"""The plain loss, which the training's own is compared with: summed, smoothed, in float32."""

from __future__ import annotations

from typing import Any

import pytest

from dialsum.train.loss import IGNORED, sum_token_losses

pytestmark = pytest.mark.training


def labels_of(*rows: list[int]) -> Any:
    """Return labels padded to one length."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_torch_s_own_over_the_tokens_that_count(smoothing: float) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(1)
    labels = labels_of([3, 1, 4, 1], [5], [])
    logits = torch.randn(*labels.shape, 11)
    expected = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
    )
    assert torch.allclose(sum_token_losses(logits, labels, label_smoothing=smoothing), 5 * expected)


def test_label_smoothing_is_that_of_the_trainer_s_own_smoother() -> None:
    import torch
    from transformers.trainer_pt_utils import LabelSmoother

    torch.manual_seed(1)
    labels = labels_of([3, 1, 4, 1], [5])
    outputs = {"logits": torch.randn(*labels.shape, 11)}
    own = LabelSmoother(epsilon=0.2)(outputs, labels)
    smooth, plain = (
        sum_token_losses(outputs["logits"], labels, label_smoothing=share) / 5
        for share in (0.2, 0.0)
    )
    assert torch.allclose(smooth, own)
    assert not torch.allclose(plain, own)


def test_the_loss_is_computed_in_float32() -> None:
    import torch

    torch.manual_seed(1)
    labels = labels_of([3, 1], [5, 2])
    logits = 20 * torch.randn(*labels.shape, 1000)
    exact = sum_token_losses(logits.bfloat16().float(), labels)
    assert sum_token_losses(logits.bfloat16(), labels).dtype == torch.float32
    assert torch.allclose(sum_token_losses(logits.bfloat16(), labels), exact)

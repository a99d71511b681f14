"""An adapter put into the weights of its base, and what proves that the model stays the same.

Merging adds an adapter to the weight of its layer. Where that weight is also another layer's (the
input embeddings of encoder and decoder, a tied head), the other layer gets it too: measured on
small tied models with adapters on embeddings and head, logits move by 1 to 12 times their spread,
and nothing says so. So every merge is held against what the model said before.

Must not know files (experiment/merging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialsum.errors import RunError

TOLERANCE = 1e-3
"""Largest difference of two logits that counts as rounding, as a share of their standard deviation.
Merging in float32 moves them by about 1e-6 of it."""
TokenRow = tuple[Sequence[int], Sequence[int]]
"""Token ids of an input and of its target."""


def compute_logits(model: Any, rows: Sequence[TokenRow]) -> list[Any]:
    """Return the logits of each row, [target length, vocabulary], in float32 on the CPU.

    Each row goes alone, without padding.
    """
    import torch

    model.eval()
    found = []
    with torch.inference_mode():
        for source, target in rows:
            inputs = torch.tensor([list(source)], device=model.device)
            labels = torch.tensor([list(target)], device=model.device)
            found.append(model(input_ids=inputs, labels=labels).logits[0].float().cpu())
    return found


def measure_shift(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Return the largest difference of two answers, in standard deviations of the first."""
    import torch

    spread = float(torch.cat([row.flatten() for row in before]).std())
    largest = max(
        float((one - other).abs().max()) for one, other in zip(before, after, strict=True)
    )
    return largest / spread if largest == largest else float("inf")


def require_same(before: Sequence[Any], after: Sequence[Any], *, what: str, advice: str) -> float:
    """Return the shift between two answers of what must be one model.

    Args:
        what: what was done between them, as the message says it.
        advice: what the user can do.

    Raises:
        RunError: the shift is above rounding; with the figure.
    """
    shift = measure_shift(before, after)
    if shift > TOLERANCE:
        raise RunError(
            f"{what} would change the model: on {len(before)} rows its logits move by up to "
            f"{shift:.2g} standard deviations ({TOLERANCE:g} is rounding); nothing was written. "
            f"{advice}"
        )
    return shift


def merge_into_base(adapted: Any, *, untie: bool) -> Any:
    """Return the base of an adapted float model with the adapter in its weights.

    Args:
        untie: first give embeddings of encoder and decoder and the head a weight of their own each;
            those that come out of the merge alike share one again.
    """
    base = adapted.get_base_model()
    places = _embedding_places(base)
    if untie:
        _untie(places)
    merged = adapted.merge_and_unload(safe_merge=True)
    if untie:
        _tie_what_is_alike(merged)
    return merged


def _embedding_places(model: Any) -> dict[str, Any]:
    """Return the layers that may share one weight, by name, their adapters taken off."""
    inner = model.model if hasattr(model, "model") else model
    layers = {
        "shared": inner.shared,
        "encoder": inner.encoder.embed_tokens,
        "decoder": inner.decoder.embed_tokens,
        "head": model.lm_head,
    }
    return {name: _innermost(layer) for name, layer in layers.items()}


def _innermost(layer: Any) -> Any:
    while hasattr(layer, "base_layer") or hasattr(layer, "original_module"):
        layer = layer.base_layer if hasattr(layer, "base_layer") else layer.original_module
    return layer


def _untie(places: dict[str, Any]) -> None:
    import torch

    for name, layer in places.items():
        if name != "shared":
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)


def _tie_what_is_alike(merged: Any) -> None:
    """Let equal weights be one again; `shared` computes nothing and follows the encoder's."""
    import torch

    places = _embedding_places(merged)
    encoder = places["encoder"].weight
    places["shared"].weight = encoder
    for name in ("decoder", "head"):
        if torch.equal(places[name].weight, encoder):
            places[name].weight = encoder
    merged.config.tie_word_embeddings = places["head"].weight is encoder

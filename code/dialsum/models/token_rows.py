"""Rows of new tokens that learn by themselves, computed without copying the matrix they belong to.

PEFT's layer for them (made through `trainable_token_indices`) builds the whole embedding matrix
anew, with the learned rows in it, each time that it is used: for mT5's 250,112 x 768 three times
0.77 GB in a training step, their gradients besides, and once per token that is written. Here the
frozen matrix is used as it stands, and only what the learned rows change is put in place: some
positions of the embeddings, some columns of the logits. Parameters, their names and their files
stay PEFT's own. Must not know how adapters are added (adapters.py).
"""

from __future__ import annotations

from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch.nn.functional import embedding, linear


def compute_rows_in_place(model: torch.nn.Module) -> None:
    """Change how a PEFT model's token rows are computed; done again, it changes nothing.

    All else that PEFT does with them (saving, loading, merging, switching off) goes on as before.
    """
    for layer in model.modules():
        if isinstance(layer, TrainableTokensLayer):
            layer.__dict__["forward_adapters"] = MethodType(_compute_in_place, layer)


def _compute_in_place(
    tokens_layer: TrainableTokensLayer,
    x: torch.Tensor,
    active_adapters: list[str],
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Return embeddings [..., width] of token ids, or logits [..., vocabulary] of a width."""
    if tokens_layer.disable_adapters or tokens_layer.merged or not active_adapters:
        plain: torch.Tensor = TrainableTokensLayer.forward_adapters(
            tokens_layer, x, active_adapters, *args, **kwargs
        )
        return plain
    layer: Any = tokens_layer.base_layer
    result: torch.Tensor = layer(x)
    for name in active_adapters:
        rows = tokens_layer.trainable_tokens_delta[name].to(layer.weight)
        tokens = tuple(tokens_layer.token_indices[name])
        if isinstance(layer, torch.nn.Embedding):
            result = _put_rows(result, x, rows, tokens, layer=layer)
        else:
            result = _put_columns(result, x, rows, tokens, weight=layer.weight)
    return result


def _put_rows(
    found: torch.Tensor,
    ids: torch.Tensor,
    rows: torch.Tensor,
    tokens: tuple[int, ...],
    *,
    layer: torch.nn.Embedding,
) -> torch.Tensor:
    """Return the embeddings with the learned rows at the positions of their tokens.

    Args:
        found: the frozen layer's own, [..., width].
        ids: [...].
        rows: [tokens, width].
        layer: may scale its rows, as BART's can.
    """
    hits = ids.unsqueeze(-1) == _indices(tokens, ids.device)
    own = embedding(hits.int().argmax(-1), rows)
    scale = getattr(layer, "embed_scale", None)
    if scale is not None:
        own = own * scale
    return torch.where(hits.any(-1, keepdim=True), own, found)


def _put_columns(
    logits: torch.Tensor,
    hidden: torch.Tensor,
    rows: torch.Tensor,
    tokens: tuple[int, ...],
    *,
    weight: torch.Tensor,
) -> torch.Tensor:
    """Return the logits with those of the learned rows in the columns of their tokens.

    In place, since a linear layer's gradients need its inputs alone; where a hook made the logits a
    leaf or a view that learns, autograd forbids it.

    Args:
        logits: the frozen layer's own, [..., vocabulary].
        hidden: [..., width].
        rows: [tokens, width].
        weight: the frozen layer's, [vocabulary, width].
    """
    columns, own = _indices(tokens, logits.device), linear(hidden, rows)
    if logits.requires_grad and (logits.is_leaf or logits._is_view()):
        return logits.index_copy(-1, columns, own)
    if torch.is_grad_enabled():
        # Going backward, a copy into columns copies the gradient of all logits; a sum hands it on.
        logits = logits.index_add_(-1, columns, own - linear(hidden, weight[columns]))
    # The sum has been rounded.
    logits.detach().index_copy_(-1, columns, own.detach())
    return logits


@lru_cache(maxsize=16)
def _indices(tokens: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return token ids on a device; kept, since each copy there makes the program wait for it."""
    # Made while summaries are written, they could otherwise take no part in training.
    with torch.inference_mode(False):
        return torch.tensor(tokens, device=device)

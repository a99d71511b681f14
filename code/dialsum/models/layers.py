"""Layers of a network computed with fewer passes over memory than by the library that made them.

Parameters, their names and their files stay the library's own; results differ by rounding alone,
but for dropout, whose masks are drawn in another way.
Must not know how adapters are added (load.py).

PEFT's layer for rows of new tokens (`trainable_token_indices`) builds the whole embedding matrix
anew, with the learned rows in it, each time that it is used: for mT5's 250,112 x 768 three times
0.77 GB in a training step, their gradients besides, and once per token that is written. Here the
frozen matrix is used as it stands, and only what the learned rows change is put in place: some
positions of the embeddings, some columns of the logits.

PEFT's LoRA goes ten times over tensors as wide as the layer (copy, mask, two products with numbers,
a sum, and their gradients), and keeps the masked input and its mask for the backward pass. Here the
products are as narrow as the rank, the sum is part of the matrix product, and one byte a value is
kept. T5's GELU is nine operations that each keep what they read; torch has it as one.
"""

from __future__ import annotations

from functools import lru_cache
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, linear
from transformers.activations import GELUTanh, NewGELUActivation


def compute_faster(model: torch.nn.Module) -> None:
    """Change how a model's layers are computed; done again, it changes nothing.

    All else that PEFT does with them (saving, loading, merging, switching off) goes on as before,
    and a layer that is more than plain LoRA (DoRA, several adapters) computes as PEFT does.
    """
    for layer in list(model.modules()):
        if isinstance(layer, TrainableTokensLayer):
            layer.__dict__["forward_adapters"] = MethodType(_compute_in_place, layer)
        elif isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), torch.nn.Linear):
            layer.__dict__["forward"] = MethodType(_compute_lora, layer)
        for name, child in layer.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(layer, name, GELUTanh())


def _compute_lora(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return what a LoRA layer makes of [..., in]: [..., out]."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    plain = (
        len(names) == 1
        and not (args or kwargs or layer.disable_adapters or layer.merged)
        and names[0] not in layer.lora_variant
        and layer.lora_B[names[0]].bias is None
    )
    if not plain:
        computed: torch.Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return computed
    (name,) = names
    dropout = layer.lora_dropout[name]
    rate = float(dropout.p) if isinstance(dropout, torch.nn.Dropout) and dropout.training else 0.0
    added: torch.Tensor = _AddLowRank.apply(  # type: ignore[no-untyped-call]
        layer.base_layer(x),
        x,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        float(layer.scaling[name]),
        rate,
    )
    return added


class _AddLowRank(torch.autograd.Function):
    """Adds scale * dropout(x) down' up' to a layer's result, in its place where that may be."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        rate: float,
    ) -> torch.Tensor:
        """Return the sum.

        Args:
            result: [..., out], of the frozen layer, whose backward pass does not need it.
            x: [..., in].
            down, up: [rank, in] and [out, rank].
            rate: of dropout, below 1.
        """
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else down.dtype
        ctx.dtypes = x.dtype, down.dtype
        x, down, up = x.reshape(-1, x.shape[-1]).to(dtype), down.to(dtype), up.to(dtype)
        kept = _draw_kept(x, rate) if rate else None
        ctx.scale = scale / (1 - rate)
        low = linear(x if kept is None else torch.where(kept, x, 0.0), down)
        ctx.save_for_backward(x, kept, low, down, up)
        into, up = result.view(-1, result.shape[-1]), up.t()
        if result.dtype != dtype:
            added = torch.mm(low, up).mul_(ctx.scale)
            return (result + added.view_as(result)).to(result.dtype)
        if result._is_view() or (result.is_leaf and result.requires_grad):
            # As hooks leave it; autograd forbids to write there.
            return torch.addmm(into, low, up, alpha=ctx.scale).view_as(result)
        into.addmm_(low, up, alpha=ctx.scale)
        ctx.mark_dirty(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[Any, ...]:
        """Return the gradients of result, x, down and up."""
        x, kept, low, down, up = ctx.saved_tensors
        x_dtype, dtype = ctx.dtypes
        over = slope.reshape(-1, slope.shape[-1]).to(low.dtype)
        narrow = linear(over, up.t()).mul_(ctx.scale)
        of_up = torch.mm(over.t(), low).mul_(ctx.scale).to(dtype)
        of_down = torch.mm(narrow.t(), x if kept is None else torch.where(kept, x, 0.0)).to(dtype)
        of_x = None
        if ctx.needs_input_grad[1]:
            of_x = torch.mm(narrow, down)
            of_x = (of_x if kept is None else of_x.mul_(kept)).to(x_dtype)
            of_x = of_x.view(*slope.shape[:-1], -1)
        return slope, of_x, of_down, of_up, None, None


def _draw_kept(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Return which values of x stay under dropout, as booleans of its shape."""
    if x.device.type != "cpu":
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - rate)
    # A CPU draws one number at a time: four values share one, at a grain of 2**-16.
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return (drawn.view(torch.int16)[: x.numel()] >= round(rate * 2**16) - 2**15).view(x.shape)


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

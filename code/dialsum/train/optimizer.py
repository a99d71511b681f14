"""Optimizers by transformers' names, made as its trainer makes them.

Must not know the loop.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from dialsum.config.schema import Training

NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names of parameters without weight decay, as the library's trainer has them."""


def make_optimizer(model: Any, asked: Training) -> Any:
    """Return the optimizer of what learns; biases and norms do not decay."""
    from transformers.trainer_pt_utils import get_parameter_names

    decaying = set(get_parameter_names(model, [torch.nn.LayerNorm], [NO_DECAY.pattern]))
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    groups = [
        {
            "params": [one for name, one in named if name in decaying],
            "weight_decay": asked.weight_decay,
        },
        {"params": [one for name, one in named if name not in decaying], "weight_decay": 0.0},
    ]
    rate = asked.learning_rate
    if asked.optim == "adafactor":
        from transformers import Adafactor

        return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    if asked.optim in ("adamw_torch", "adamw_torch_fused"):
        # None lets torch choose; it never chooses fused.
        fused = True if asked.optim.endswith("fused") else None
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    from bitsandbytes import optim

    library: Any = optim  # untyped
    manager = library.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return library.AdamW(groups, lr=rate, optim_bits=8, is_paged=asked.optim.startswith("paged"))


def allocate_states(optimizer: Any) -> list[Any]:
    """Return tensors as large as the states that an optimizer makes in its first step.

    AdamW has two of each weight that learns, those of bitsandbytes in 8 bits if it is large and no
    embedding. Adafactor's rows and columns are too small to count. None for weights that have
    states already, as in a run that goes on.

    Args:
        optimizer: a torch optimizer, or one of bitsandbytes.
    """
    if "adam" not in type(optimizer).__name__.lower():
        return []
    return [
        torch.empty_like(
            weight, requires_grad=False, dtype=_state_type(optimizer, at, place, weight)
        )
        for at, group in enumerate(optimizer.param_groups)
        for place, weight in enumerate(group["params"])
        if weight.requires_grad and not optimizer.state.get(weight)
        for _state in range(2)
    ]


def _state_type(optimizer: Any, group: int, place: int, weight: Any) -> Any:
    """Return the type of a weight's states to come."""
    if not hasattr(optimizer, "get_config"):
        return weight.dtype
    optimizer.check_overrides()
    asked = optimizer.get_config(group, place, optimizer.param_groups[group])
    small = asked["optim_bits"] != 8 or weight.numel() < asked["min_8bit_size"]
    return torch.float32 if small else torch.uint8

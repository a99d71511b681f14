"""Weights outside the adapters that learn as well (qlora.train_embeddings): named, saved beside them, loaded again.

PEFT's own way, modules_to_save, copies each embedding and so cuts the tie between the input embeddings and the head;
a small model then has to learn every word twice. Here the weights themselves learn, and ties stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

EXTRA_FILE = "trained_base.safetensors"
ADAPTER_MARKS = ("lora_", "trainable_tokens_", "modules_to_save")


def train_embeddings_and_norms(model: Any, norms: tuple[str, ...]) -> None:
    """Let embeddings, head, positions and normalisation layers of an adapted model learn.

    Args:
        norms: last name components of the family's normalisation layers.
    """
    import torch

    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) or last in norms or last == "lm_head":
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)


def extra_parameters(model: Any) -> dict[str, Any]:
    """Return the learning parameters of a PEFT model that its adapter files do not hold; tied ones once."""
    if not hasattr(model, "peft_config"):
        return {}
    return {
        name: parameter for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(mark in name for mark in ADAPTER_MARKS)
    }


def save_extra(model: Any, folder: Path) -> None:
    """Write those parameters into folder; nothing is written where there are none."""
    from safetensors.torch import save_file

    extra = extra_parameters(model)
    if extra:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in extra.items()}
        save_file(tensors, str(folder / EXTRA_FILE))


def load_extra(model: Any, folder: Path) -> None:
    """Copy what save_extra wrote into folder back into model, where there is such a file."""
    import torch
    from safetensors.torch import load_file

    if not (folder / EXTRA_FILE).is_file():
        return
    tensors = load_file(str(folder / EXTRA_FILE))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

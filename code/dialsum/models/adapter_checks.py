"""What an adapter asks of the layers that it sits on: their size, and for DoRA their rows.

Must not know how adapters are added (adapt.py) nor how they learn (gradient_check.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from dialsum.errors import UnfitError


def describe_large_ranks(model: Any, targets: Sequence[str], *, rank: int) -> list[str]:
    """Name the layers that are smaller than the rank, with their sizes; [] if none is.

    The product of an adapter's factors never has a rank above the layer's own smaller side: what is
    asked beyond it costs memory and changes only the scale (alpha / r).

    Args:
        targets: last name components of layers with adapters.
    """
    import torch

    smaller: dict[tuple[int, int], set[str]] = defaultdict(set)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last not in targets or not isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            continue
        size = _size_of(module)
        if min(size) < rank:
            smaller[size].add(last)
    if not smaller:
        return []
    layers = "; ".join(
        f"{', '.join(sorted(names))} ({rows} x {columns})"
        for (rows, columns), names in sorted(smaller.items())
    )
    most = max(min(size) for size in smaller)
    return [
        f"qlora.lora_rank {rank} is above what some layers can hold: {layers}; "
        f"rank {most} does all that it does there"
    ]


def _size_of(module: Any) -> tuple[int, int]:
    """Return the outputs and inputs of a layer; a 4-bit weight itself has another shape."""
    if hasattr(module, "out_features"):
        return int(module.out_features), int(module.in_features)
    return int(module.num_embeddings), int(module.embedding_dim)


def refuse_rows_without_direction(adapted: Any) -> None:
    """Refuse DoRA on a layer with a row of zeros: length over length would be NaN from the start.

    Raises:
        UnfitError: with the layers and how many such rows each has.
    """
    found = [
        f"{name.partition('.lora_magnitude_vector')[0].removeprefix('base_model.model.')} "
        f"({int((lengths == 0).sum())} of {lengths.numel()})"
        for name, lengths in adapted.named_parameters()
        if "lora_magnitude_vector" in name and bool((lengths == 0).any())
    ]
    if found:
        raise UnfitError(
            f"qlora.use_dora: rows of zeros in {', '.join(found)} have no direction, and the loss "
            "would be NaN (in a head it is the padding token's row); take the layer out of "
            "qlora.target_modules, or set qlora.use_dora: false"
        )

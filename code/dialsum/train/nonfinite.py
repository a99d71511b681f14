"""NaN and infinity: where they first stood, and the way back to weights that were good.

Must not know the trainer, nor what is done about them (guard.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Loss = Callable[[dict[str, Any]], torch.Tensor]
"""The training loss of one pass, with its graph."""


@dataclass(frozen=True)
class Origin:
    """Where the first value that is not finite stands.

    Args:
        where: weights, forward, loss, gradients; or nowhere, when it did not come again.
        layer: the layer or parameter.
        rows: the rows of the pass in which it arose, by their place in the split.
    """

    where: str
    layer: str | None
    rows: list[int] = field(default_factory=list)


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Say whether no tensor holds NaN or infinity; one wait for the device."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    if not floating:
        return True
    norms = torch._foreach_norm(floating, ord=float("inf"))
    return bool(torch.isfinite(torch.stack([norm.float().cpu() for norm in norms])).all())


def learning(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: item for name, item in model.named_parameters() if item.requires_grad}


def find_origin(
    model: torch.nn.Module, passes: Sequence[dict[str, Any]], *, loss: Loss, rows_key: str
) -> Origin:
    """Run the passes of a step again, one by one, and say what first is not finite.

    Gradients of the model are lost. The caller restores the random state of the step before.
    """
    for name, parameter in learning(model).items():
        if not all_finite([parameter]):
            return Origin("weights", name, _rows(passes[0], rows_key) if len(passes) == 1 else [])
    for batch in passes:
        model.zero_grad(set_to_none=True)
        with _watch_forward(model) as seen:
            value = loss(batch)
        if seen:
            return Origin("forward", seen[0], _rows(batch, rows_key))
        if not all_finite([value]):
            return Origin("loss", None, _rows(batch, rows_key))
        value.backward()
        # Gradients arise from the last layer to the first.
        for name, parameter in reversed(list(learning(model).items())):
            if parameter.grad is not None and not all_finite([parameter.grad]):
                return Origin("gradients", name, _rows(batch, rows_key))
    return Origin("nowhere", None)


def _rows(batch: dict[str, Any], key: str) -> list[int]:
    return [int(row) for row in batch[key]]


@contextmanager
def _watch_forward(model: torch.nn.Module) -> Iterator[list[str]]:
    """Collect the names of layers whose output is not finite, in the order in which they end."""
    seen: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(_module: Any, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if not seen and isinstance(first, torch.Tensor) and not all_finite([first]):
                seen.append(name or type(model).__name__)
        return look

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class Snapshot:
    """The parameters that learn and the optimizer's state, in the machine's main memory."""

    def __init__(self, model: torch.nn.Module, optimizer: Any, *, step: int) -> None:
        self.step = step
        self._weights = {name: _copy(item) for name, item in learning(model).items()}
        self._optimizer = [
            {key: _copy(value) for key, value in optimizer.state.get(parameter, {}).items()}
            for parameter in _parameters(optimizer)
        ]

    def restore(self, model: torch.nn.Module, optimizer: Any) -> None:
        """Put weights and optimizer state back as they were."""
        with torch.no_grad():
            for name, parameter in learning(model).items():
                parameter.copy_(self._weights[name])
        for parameter, saved in zip(_parameters(optimizer), self._optimizer, strict=True):
            if not saved:
                optimizer.state.pop(parameter, None)
                continue
            for key, value in saved.items():
                current = optimizer.state[parameter][key]
                if isinstance(current, torch.Tensor) and current.shape == value.shape:
                    current.copy_(value)
                else:
                    optimizer.state[parameter][key] = value


def _parameters(optimizer: Any) -> list[torch.nn.Parameter]:
    return [item for group in optimizer.param_groups for item in group["params"]]


def _copy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to("cpu", copy=True)

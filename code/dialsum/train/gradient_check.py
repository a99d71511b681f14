"""Whether everything that should learn is reached by gradients, seen in the first two steps.

An adapter in a place that the network never computes with (`shared` of T5 and BART), or behind
recomputed blocks whose inputs need no gradient, trains to the end and learns nothing; no library
says so. Must not know the loop: it is called after a step's backward passes.
"""

from __future__ import annotations

from typing import Any

from dialsum.errors import RunError

STEPS = 2
PAIRS = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))
"""The two factors of an adapter on a linear layer and on an embedding, as PEFT calls them."""
SHOWN = 8


class GradientCheck:
    """Looks at the gradients of the first two steps, then at nothing more.

    Of an adapter both factors must show a gradient other than zero in one of the steps. One factor
    starts at zero, so that the other has no gradient before the first has moved (at a learning rate
    of 0, as in the first step of a warm-up, it does not): a factor is held to account only for
    steps in which its partner is not zero. Of all other parameters that learn, a gradient must have
    been computed at all: rows of new tokens that do not occur in two steps rightly have zeros.

    Args:
        model: what trains, adapted or not.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._seen: set[str] = set()
        self._owed: set[str] = set()
        self._steps = 0

    @property
    def done(self) -> bool:
        """Whether both steps were seen, so that calling again would do nothing."""
        return self._steps >= STEPS

    def after_backward(self) -> None:
        """Look at the gradients of one optimizer step, before they are clipped or cleared.

        Raises:
            RunError: the second step is seen and something that learns had no gradient in both.
        """
        if self.done:
            return
        self._steps += 1
        learning = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
        partners = {name: _partner_of(name) for name in learning}
        factors = [name for name, partner in partners.items() if partner in learning]
        alive = _find_nonzero({name: learning[name].detach() for name in factors})
        moved = _find_nonzero({name: learning[name].grad for name in factors})
        for name, parameter in learning.items():
            if name not in factors:
                self._owed.add(name)
                reached = parameter.grad is not None
            else:
                if partners[name] in alive:
                    self._owed.add(name)
                reached = name in moved
            if reached:
                self._seen.add(name)
        if self.done:
            self._judge()

    def _judge(self) -> None:
        without = sorted(self._owed - self._seen)
        if not without:
            return
        modules = sorted({_module_of(name) for name in without})
        more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
        raise RunError(
            f"{len(modules)} of the layers that should learn got no gradient in the first {STEPS} "
            f"steps and would stay as they are to the end: {', '.join(modules[:SHOWN])}{more}. "
            "Take them out of qlora.target_modules; where all layers are named, set "
            "training.gradient_checkpointing: false"
        )


def _partner_of(name: str) -> str | None:
    """Return the name of an adapter's other factor; None for what is no factor."""
    for first, second in PAIRS:
        for own, other in ((first, second), (second, first)):
            before, mark, after = name.rpartition(f".{own}.")
            if mark:
                return f"{before}.{other}.{after}"
    return None


def _find_nonzero(tensors: dict[str, Any]) -> set[str]:
    """Return the names of tensors with a value other than zero, NaN too; waits once for the GPU."""
    import torch

    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if not there:
        return set()
    largest = [torch.linalg.vector_norm(tensor.float(), torch.inf) for tensor in there.values()]
    return {
        name for name, value in zip(there, torch.stack(largest).tolist(), strict=True) if value != 0
    }


def _module_of(name: str) -> str:
    """Return the layer of a parameter as the checkpoint calls it."""
    layer = name.removeprefix("base_model.model.")
    for mark in (".lora_", ".trainable_tokens_", ".token_adapter"):
        layer = layer.partition(mark)[0]
    return layer.removesuffix(".weight").removesuffix(".bias")

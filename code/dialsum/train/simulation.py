"""What a program would hold in memory, found by running it on tensors without content.

torch's FakeTensorMode computes types and shapes and nothing else; on top of it every storage is
counted from where it is made to where it is let go. Where a GPU computes by another kernel than a
CPU, with other tensors to keep, an arithmetic stand-in takes its place: fused attention (keeps its
inputs, its result and one float32 per query, never the matrix of weights) and autocast's layer norm
(in float32). Must not know models or training.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import layer_norm, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Label = Callable[[torch.Tensor], str | None]
"""Names the sort of a new tensor; None leaves it to the stage at hand."""
DEQUANTISING = ("bitsandbytes::gemm_4bit",)
"""Products that write their weight out in full for as long as they compute, which no result
shows: 4-bit weights come out in the type of the input."""


@dataclass(eq=False, slots=True)
class Block:
    """One storage: its bytes, and what sort of tensor it serves."""

    nbytes: int
    sort: str


class Simulation(TorchDispatchMode):
    """Counts what is held while fake tensors are computed with.

    Every question that only content could answer gets one answer: numbers are 1 (so that a loss is
    finite), truths are as `truth` says, and every element of a mask counts.

    Args:
        label: names sorts of new tensors that their shapes tell.

    Attributes:
        stage: sort of tensors made from here on.
        held, peak: bytes, now and at most so far.
        paused: whether what comes next cannot be the peak.
        truth: what every question for a truth is answered.
    """

    def __init__(self, label: Label = lambda _: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.label, self.stage, self.paused, self.truth = label, "activations", False, False
        self.held = self.peak = 0
        self._blocks: dict[int, tuple[weakref.ref[Any], Block]] = {}
        self._log: list[tuple[Block, int]] = []
        self._peak_at = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute shapes, answer what content would, and count new storages."""
        name, kwargs = func._schema.name, kwargs or {}
        if name in ("aten::_local_scalar_dense", "aten::item"):
            kind = args[0].dtype
            return self.truth if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        if name == "aten::equal":
            return False
        if name == "aten::nonzero":
            found = args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        else:
            found = func(*args, **kwargs)
        if name in DEQUANTISING:
            self._pass(prod(args[2]) * args[0].element_size())
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor)
        return found

    def count(self, tensor: torch.Tensor) -> Block:
        """Take in a tensor's storage, and return its block."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._blocks.get(key)
        if known is not None and known[0]() is storage:
            return known[1]
        block = Block(storage.nbytes(), self.label(tensor) or self.stage)

        def let_go(ref: weakref.ref[Any], key: int = key, block: Block = block) -> None:
            if self._blocks.get(key, (None,))[0] is ref:
                del self._blocks[key]
            self.held -= block.nbytes
            self._log.append((block, -1))

        self._blocks[key] = weakref.ref(storage, let_go), block
        self._log.append((block, 1))
        self._take(block.nbytes)
        return block

    def sort(self, tensors: Iterable[torch.Tensor], name: str) -> int:
        """Call the storages of tensors by another name, and return their bytes."""
        blocks = {self.count(tensor) for tensor in tensors}
        for block in blocks:
            block.sort = name
        return sum(block.nbytes for block in blocks)

    def start(self) -> None:
        """Forget the peak so far."""
        self._log = [(block, 1) for _, block in self._blocks.values()]
        self.held = sum(block.nbytes for block, _ in self._log)
        self.peak, self._peak_at = self.held, len(self._log)

    def parts(self) -> dict[str, int]:
        """Return the bytes of each sort at the peak."""
        found: Counter[str] = Counter()
        for block, sign in self._log[: self._peak_at]:
            found[block.sort] += sign * block.nbytes
        found["working space"] += self.peak - sum(found.values())
        return {name: count for name, count in found.items() if count}

    def _take(self, nbytes: int) -> None:
        self.held += nbytes
        if self.held > self.peak and not self.paused:
            self.peak, self._peak_at = self.held, len(self._log)

    def _pass(self, nbytes: int) -> None:
        """Count what is held for a moment only."""
        self._take(nbytes)
        self.held -= nbytes


@contextmanager
def _standing_in(*, gpu: bool) -> Iterator[None]:
    """Put stand-ins in place of kernels that hold other tensors than what fake ones come down to.

    In torch's own places: what watches calls from outside misses those of a backward pass.

    Args:
        gpu: those of a GPU; a CPU's fused attention knows no dropout and no mask that learns.
    """

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, **rest: Any) -> Any:
        learned = attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled()
        if gpu or not (rest.get("dropout_p") or learned):
            return _attend(query, key, value, attn_mask)
        return scaled_dot_product_attention(query, key, value, attn_mask, **rest)

    def normalise(x: Any, shape: Any, *rest: Any, **named: Any) -> Any:
        if gpu and torch.is_autocast_enabled("cpu"):
            x, rest = x.float(), tuple(_to_float(one) for one in rest)
            named = {key: _to_float(one) for key, one in named.items()}
        return layer_norm(x, shape, *rest, **named)

    functional: Any = torch.nn.functional
    functional.scaled_dot_product_attention, functional.layer_norm = attend, normalise
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = scaled_dot_product_attention
        functional.layer_norm = layer_norm


def _to_float(value: Any) -> Any:
    low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None
) -> torch.Tensor:
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # The kernel adds its mask to the products.
        attn_mask = torch.where(attn_mask, 0.0, -torch.inf).to(query.dtype)
    attended: torch.Tensor = _Attention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    """Memory-efficient attention (Rabe & Staats 2021) as torch's CUDA kernel keeps it."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return a result, [batch, heads, queries, width]."""
        batch, heads, queries, _ = query.shape
        result = query.new_empty((batch, queries, heads, value.shape[-1])).transpose(1, 2)
        sums = query.new_empty((batch, heads, queries), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, result, sums)
        return result

    @staticmethod
    def backward(ctx: Any, _slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return gradients of the shapes of the inputs."""
        *inputs, _result, _sums = ctx.saved_tensors
        wanted = zip(inputs, ctx.needs_input_grad, strict=True)
        return tuple(torch.empty_like(one) if needed else None for one, needed in wanted)


@contextmanager
def _converting_in_place() -> Iterator[None]:
    """Let modules change type and device by new parameters: torch would swap fake tensors with
    what they become, which it refuses where anything looks at them."""

    def convert(
        module: torch.nn.Module, change: Callable[[Any], Any], recurse: bool = True
    ) -> torch.nn.Module:
        for one in module.modules() if recurse else [module]:
            for name, weight in one._parameters.items():
                if weight is not None and (changed := change(weight.data)) is not weight.data:
                    one._parameters[name] = torch.nn.Parameter(changed, weight.requires_grad)
            for name, content in one._buffers.items():
                one._buffers[name] = None if content is None else change(content)
        return module

    usual = torch.nn.Module._apply
    torch.nn.Module._apply = convert  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module._apply = usual  # type: ignore[method-assign]


@contextmanager
def simulate(label: Label = lambda _: None, *, as_on_gpu: bool) -> Iterator[Simulation]:
    """Run what is inside on tensors without content, all of which the program calls a CPU's.

    Args:
        label: as of Simulation.
        as_on_gpu: with the stand-ins for a GPU's kernels.
    """
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        simulation = stack.enter_context(Simulation(label))
        stack.enter_context(_converting_in_place())
        stack.enter_context(_standing_in(gpu=as_on_gpu))
        yield simulation

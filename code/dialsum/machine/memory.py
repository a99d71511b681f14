"""Memory: what an experiment takes of a device, what fits, and when a device is full.

Must not know the configuration: it is given plain values, and used for what the config leaves auto.
A device whose memory is unknown is taken for the smallest card of the profiles, and that is said.

Where the numbers come from. Nothing here was measured on a card. For the base-size checkpoints of
the experiments (mT5-base, T5 v1.1-base, KoBART) the tensors that autograd keeps for the backward
pass were counted from their published configurations with torch 2.13 and transformers 5.17: in bf16
autocast, with dropout, targets of 128 tokens at 512 input tokens and of 150 above, LoRA of rank 64
on every linear layer, attention with the kernel that needs most (math). Of models without an
encoder (GPT-2, Gemma 3 270M, Llama 3.2 3B, Qwen2.5 3B) it was counted in the same way, by
scripts/forecast.py's simulation of a card with compute capability 8.6, at rank 128. They are meant
as upper bounds. What other sizes need is scaled from these.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, replace

from dialsum.machine.devices import GIB, Choice, Precision

CARD_GIB: dict[int, float] = {8: 7.6, 12: 11.6, 16: 15.5, 24: 23.5, 40: 39.0, 80: 79.0}
"""Profiles: the GB that a card is sold with, and the least GiB that it shows (RTX 3090: 23.7)."""
SMALLEST = min(CARD_GIB)
RESERVE_SHARE = 0.10  # fragmentation, and rows whose summary is longer than the mean
CONTEXT_GIB = 0.7  # CUDA context and kernels

ROWS_PER_STEP = 24
"""Rows per optimizer step where the config leaves batch and accumulation open, as most of ours."""
MOST_EVAL_ROWS = 64

LENGTHS = (512, 768, 1024)
"""Input tokens of the three columns; a length takes the first column that is not shorter."""
TARGETS = (128, 150, 150)
"""Target tokens that ROW_GIB counts logits of, for each of LENGTHS."""
LOGIT_BYTES = 8

FIXED_GIB: dict[str, dict[str, float]] = {
    "lora": {"mt5": 4.0, "t5": 1.6, "bart": 0.8}
    | {"gpt2": 0.5, "kogpt2": 0.5, "llama": 5.7, "qwen": 6.4, "gemma": 1.0},
    "full": {"mt5": 9.8, "t5": 4.6, "bart": 2.1}
    | {"gpt2": 2.1, "kogpt2": 2.1, "llama": 53.9, "qwen": 51.7, "gemma": 4.5},
}
"""Weights, gradients and AdamW's two moments, whatever the batch. Full fine-tuning: 18 bytes a
parameter (fp32 weight, gradient and moments, bf16 copy). LoRA: a 4-bit base, embeddings and head in
fp32, adapters of rank 128 at 18 bytes; an 8-bit base takes 0.1 GiB more, one in bf16 0.3."""

_CHECKPOINTED = {
    "mt5": (0.49, 0.63, 0.73),
    "t5": (0.20, 0.30, 0.39),
    "bart": (0.11, 0.15, 0.18),
} | {
    "gpt2": (0.1, 0.15, 0.2),
    "kogpt2": (0.1, 0.15, 0.2),
    "llama": (0.6, 0.8, 1.0),
    "qwen": (0.6, 0.8, 1.0),
    "gemma": (0.4, 0.6, 0.7),
}
_DECODERS = {
    "gpt2": (0.39, 0.55, 0.68),
    "kogpt2": (0.39, 0.55, 0.68),
    "llama": (2.70, 3.94, 5.01),
    "qwen": (3.45, 4.99, 6.36),
    "gemma": (0.78, 1.06, 1.29),
}
ROW_GIB: dict[str, dict[str, tuple[float, float, float]]] = {
    "lora": {"mt5": (1.65, 2.65, 3.75), "t5": (1.37, 2.32, 3.41), "bart": (0.32, 0.45, 0.56)}
    | _DECODERS,
    "full": {"mt5": (1.47, 2.39, 3.41), "t5": (1.18, 2.05, 3.07), "bart": (0.20, 0.28, 0.34)}
    | _DECODERS,
    "lora+checkpointing": _CHECKPOINTED,
    "full+checkpointing": _CHECKPOINTED,
}
"""Activations of one row in GiB, a column for each of LENGTHS: the tensors counted, and 8 bytes for
each logit (copies and gradients of the loss); with gradient checkpointing also what is recomputed
of the largest block. Training in fp32 needs twice as much. Models without an encoder were counted
with adapters and without checkpointing: full fine-tuning keeps less, and what they keep with
checkpointing is rough."""

FULL_MEMORY_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "not enough memory",
    "could not create a primitive",
)
"""Words in the errors of CUDA, cuBLAS, MPS, the CPU's allocator and oneDNN."""


DEVICE_FAILURE_SIGNS = (
    "CUDA error",
    "CUDA driver",
    "no CUDA-capable",
    "CUDA unknown error",
    "NVML",
)
"""Words in the errors of a card that was lost, or of its driver."""


@dataclass(frozen=True)
class Size:
    """What the memory of a checkpoint depends on.

    Args:
        layers: of the encoder and of the decoder.
        vocabulary: rows of the embeddings.
    """

    parameters: int
    layers: tuple[int, int]
    width: int
    heads: int
    vocabulary: int

    def describe(self) -> str:
        """Return `582 million parameters`."""
        millions = self.parameters / 1e6
        return f"{millions:,.{0 if millions >= 10 else 1}f} million parameters"


BASE_SIZES: dict[str, Size] = {
    "mt5": Size(582_352_896, (12, 12), 768, 12, 250112),
    "t5": Size(275_530_752, (12, 12), 768, 12, 50358),
    "bart": Size(123_706_368, (6, 6), 768, 16, 30000),
    "gpt2": Size(124_318_464, (0, 12), 768, 12, 50257),
    "kogpt2": Size(125_042_688, (0, 12), 768, 12, 51200),
    "llama": Size(3_212_574_720, (0, 28), 3072, 24, 128256),
    "qwen": Size(3_085_623_296, (0, 36), 2048, 16, 151936),
    "gemma": Size(267_939_840, (0, 18), 640, 4, 262144),
}
"""The checkpoints of the tables above."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's memory, or the machine's, was full."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL_MEMORY_SIGNS)


def is_device_failure(error: BaseException) -> bool:
    """Say whether an error means that the GPU or its driver no longer works, whatever runs on it.

    A device-side assertion is a fault of what ran: an index beyond its table.
    """
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in DEVICE_FAILURE_SIGNS)
        and "device-side assert" not in text
    )


def free_memory() -> None:
    """Give back what this process no longer uses: garbage, and torch's cache on CUDA or MPS.

    It frees nothing in another process: a child's GPU memory comes back when the child is gone.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def describe_memory(memory_bytes: int | None) -> str:
    """Return what recommendations go by: `profile of 24 GB`, or what is taken for it."""
    if memory_bytes is None:
        return f"unknown memory, taken for {SMALLEST} GB"
    card = find_card(memory_bytes)
    return f"profile of {card} GB" if card else f"{memory_bytes / GIB:.1f} GiB"


def find_card(memory_bytes: int | None) -> int | None:
    """Return the largest profile, in GB, that so much memory serves; None below the smallest."""
    memory = CARD_GIB[SMALLEST] if memory_bytes is None else memory_bytes / GIB
    return max((size for size, least in CARD_GIB.items() if memory >= least), default=None)


@dataclass(frozen=True)
class TrainingMemory:
    """What training a checkpoint takes of a device's memory, and what that allows.

    Weights, gradients and moments go by the parameters; a row's logits by the vocabulary, the rest
    of its activations by the layers, and by width or heads, whichever is more; beyond the last
    column attention grows with the square of the length.

    Args:
        architecture: mt5, t5 or bart.
        max_input: input tokens of a row at most.
        device_bytes: all of the device's memory; None where it is unknown.
        lora: adapters on a frozen base; else every weight learns.
        checkpointing: activations are computed again.
        size: the checkpoint's; the base size of its family where it is unknown.
    """

    architecture: str
    max_input: int
    device_bytes: int | None
    lora: bool
    checkpointing: bool = False
    precision: Precision = "bf16"
    size: Size | None = None

    @property
    def room_gib(self) -> float:
        """What the device has for it: its profile's, so that cards of one kind agree."""
        card = find_card(self.device_bytes)
        memory = (self.device_bytes or 0) / GIB
        if card is not None and (self.device_bytes is None or card < max(CARD_GIB)):
            memory = CARD_GIB[card]
        return memory * (1 - RESERVE_SHARE)

    def estimate_gib(self, rows: int) -> float:
        """Return what passes of so many rows need; 0 gives what is needed whatever the batch."""
        base, way = BASE_SIZES[self.architecture], "lora" if self.lora else "full"
        size = self.size or base
        fixed = FIXED_GIB[way][self.architecture] * size.parameters / base.parameters
        longer = (column for column, length in enumerate(LENGTHS) if self.max_input <= length)
        column = next(longer, len(LENGTHS) - 1)
        logit = LOGIT_BYTES * TARGETS[column] / GIB
        activations = ROW_GIB[way + "+checkpointing" * self.checkpointing][self.architecture]
        rest = activations[column] - logit * base.vocabulary
        wider = max(size.width / base.width, size.heads / base.heads)
        row = rest * sum(size.layers) / sum(base.layers) * wider + logit * size.vocabulary
        row *= max(1.0, (self.max_input / LENGTHS[-1]) ** 2) * (
            2 if self.precision == "fp32" else 1
        )
        return CONTEXT_GIB + fixed + rows * row

    def count_fitting_rows(self) -> int:
        """Return the rows of a pass that fit; 0 for none."""
        fixed, one = self.estimate_gib(0), self.estimate_gib(1)
        return max(0, int((self.room_gib - fixed) / (one - fixed)))

    def needs_checkpointing(self, batch: int | None = None) -> Choice[bool]:
        """Choose it only where it is needed, since it makes steps about a third slower.

        Args:
            batch: rows per forward pass; None when that is open, too.
        """
        wanted = batch or 2  # one row a pass leaves a GPU idle; rather recompute
        needed = replace(self, checkpointing=False).estimate_gib(wanted)
        rows = f"{wanted} row{'s' if wanted > 1 else ''} of up to {self.max_input} tokens"
        return Choice(
            needed > self.room_gib,
            f"without it, {rows} in {self.precision} need about {needed:.1f} of "
            f"{self.room_gib:.1f} GiB (estimate)",
        )

    def choose_batch(self, rows_per_step: int = ROWS_PER_STEP) -> tuple[int, int, str]:
        """Return rows per forward pass, passes per optimizer step, and why.

        Args:
            rows_per_step: the product is exactly that.
        """
        fitting = self.count_fitting_rows()
        most = min(rows_per_step, max(fitting, 1))
        batch = max(rows for rows in range(1, most + 1) if rows_per_step % rows == 0)
        way = ("lora" if self.lora else "full") + "+checkpointing" * self.checkpointing
        what = self.architecture
        if self.size and self.size != BASE_SIZES[what]:
            what += f" of {self.size.describe()}"
        why = (
            f"{describe_memory(self.device_bytes)}, {what} ({way}, {self.precision}), up to "
            f"{self.max_input} tokens: about {self.estimate_gib(batch):.1f} GiB (estimate)"
        )
        if not fitting:
            why += "; it may not fit: use LoRA, gradient checkpointing or a shorter encoder_max_len"
        return batch, rows_per_step // batch, why

    def choose_eval_batch(self, num_beams: int, *, max_target: int = 150) -> int:
        """Choose the rows of a generation batch: a power of two up to 64 that fits beside training.

        Counted for each beam: keys and values of every decoder layer over input and output in fp32,
        and four copies of the logits; for each row: two copies of the encoder's attention weights.
        Weights and optimizer state stay in memory meanwhile.
        """
        size = self.size or BASE_SIZES[self.architecture]
        keys = size.layers[1] * 2 * size.width * (self.max_input + max_target) * 4
        beam = keys + size.vocabulary * 16
        row_gib = (num_beams * beam + 2 * size.heads * self.max_input**2 * 4) / GIB
        rows, room = 1, self.room_gib - self.estimate_gib(0)
        while rows < MOST_EVAL_ROWS and 2 * rows * row_gib <= room:
            rows *= 2
        return rows

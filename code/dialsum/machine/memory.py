"""Memory: what an experiment takes of a device, what fits, and when a device is full.

Must not know the configuration: it is given plain values, and used for what the config leaves auto.
A device whose memory is unknown is taken for the smallest card of the profiles, and that is said.

Where the numbers come from. Nothing here was measured on a card. For the base-size checkpoints of
the experiments (mT5-base, T5 v1.1-base, KoBART) the tensors that autograd keeps for the backward
pass were counted from their published configurations with torch 2.13 and transformers 5.17: in bf16
autocast, with dropout, targets of 128 tokens at 512 input tokens and of 150 above, LoRA of rank 64
on every linear layer, attention with the kernel that needs most (math). They are meant as upper
bounds. What other sizes need is scaled from these.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

from dialsum.machine.devices import GIB, Choice, Precision

CARD_GIB: dict[int, float] = {8: 7.6, 12: 11.6, 16: 15.5, 24: 23.5, 40: 39.0, 80: 79.0}
"""Profiles: the GB that a card is sold with, and the least GiB that it shows (RTX 3090: 23.7)."""
SMALLEST = min(CARD_GIB)
RESERVE_SHARE = 0.10  # fragmentation, and rows whose summary is longer than the mean
CONTEXT_GIB = 0.7  # CUDA context and kernels

EFFECTIVE_BATCH_SIZE = 24
"""Rows per optimizer step where the config leaves batch and accumulation open, as most of ours."""
MOST_EVAL_ROWS = 64

LENGTHS = (512, 768, 1024)
"""Input tokens of the three columns; a length takes the first column that is not shorter."""
TARGETS = (128, 150, 150)
"""Target tokens that ROW_GIB counts logits of, for each of LENGTHS."""
LOGIT_BYTES = 8

FIXED_GIB: dict[str, dict[str, float]] = {
    "lora": {"mt5": 4.0, "t5": 1.6, "bart": 0.8},
    "full": {"mt5": 9.8, "t5": 4.6, "bart": 2.1},
}
"""Weights, gradients and AdamW's two moments, whatever the batch. Full fine-tuning: 18 bytes a
parameter (fp32 weight, gradient and moments, bf16 copy). LoRA: a 4-bit base, embeddings and head in
fp32, adapters of rank 128 at 18 bytes; an 8-bit base takes 0.1 GiB more, one in bf16 0.3."""

_CHECKPOINTED = {"mt5": (0.49, 0.63, 0.73), "t5": (0.20, 0.30, 0.39), "bart": (0.11, 0.15, 0.18)}
ROW_GIB: dict[str, dict[str, tuple[float, float, float]]] = {
    "lora": {"mt5": (1.65, 2.65, 3.75), "t5": (1.37, 2.32, 3.41), "bart": (0.32, 0.45, 0.56)},
    "full": {"mt5": (1.47, 2.39, 3.41), "t5": (1.18, 2.05, 3.07), "bart": (0.20, 0.28, 0.34)},
    "lora+checkpointing": _CHECKPOINTED,
    "full+checkpointing": _CHECKPOINTED,
}
"""Activations of one row in GiB, a column for each of LENGTHS: the tensors counted, and 8 bytes for
each logit (copies and gradients of the loss); with gradient checkpointing also what is recomputed
of the largest block. Training in fp32 needs twice as much."""

FULL_MEMORY_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "not enough memory",
    "could not create a primitive",
)
"""Words in the errors of CUDA, cuBLAS, MPS, the CPU's allocator and oneDNN."""


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
}
"""The checkpoints of the tables above."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's memory, or the machine's, was full."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL_MEMORY_SIGNS)


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


def estimate_training_gib(
    architecture: str,
    encoder_max_len: int,
    *,
    batch: int,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
    size: Size | None = None,
) -> float:
    """Return the estimated memory of training a checkpoint, GiB.

    Weights, gradients and moments go by the parameters; a row's logits by the vocabulary, the rest
    of its activations by the layers, and by width or heads, whichever is more; beyond the last
    column attention grows with the square of the length.

    Args:
        architecture: mt5, t5 or bart.
        batch: rows per forward pass; 0 gives what is needed whatever the batch.
        size: the checkpoint's; the base size of its family where it is unknown.
    """
    base, way = BASE_SIZES[architecture], "lora" if lora else "full"
    size = size or base
    fixed = FIXED_GIB[way][architecture] * size.parameters / base.parameters
    longer = (column for column, length in enumerate(LENGTHS) if encoder_max_len <= length)
    column = next(longer, len(LENGTHS) - 1)
    logit = LOGIT_BYTES * TARGETS[column] / GIB
    activations = ROW_GIB[way + "+checkpointing" * checkpointing][architecture][column]
    rest = activations - logit * base.vocabulary
    wider = max(size.width / base.width, size.heads / base.heads)
    row = rest * sum(size.layers) / sum(base.layers) * wider + logit * size.vocabulary
    row *= max(1.0, (encoder_max_len / LENGTHS[-1]) ** 2) * (2 if precision == "fp32" else 1)
    return CONTEXT_GIB + fixed + batch * row


def recommend_checkpointing(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int | None,
    *,
    lora: bool,
    batch: int | None = None,
    precision: Precision = "bf16",
    size: Size | None = None,
) -> Choice[bool]:
    """Choose gradient checkpointing: only where needed, since it makes steps about a third slower.

    Args:
        memory_bytes: all of the device's; None where it is unknown.
        batch: rows per forward pass; None when that is open, too.
    """
    wanted = batch or 2  # one row a pass leaves a GPU idle; rather recompute
    needed = estimate_training_gib(
        architecture, encoder_max_len, batch=wanted, lora=lora, precision=precision, size=size
    )
    room = _room_gib(memory_bytes)
    rows = f"{wanted} row{'s' if wanted > 1 else ''} of up to {encoder_max_len} tokens"
    why = f"without it, {rows} in {precision} need about {needed:.1f} of {room:.1f} GiB (estimate)"
    return Choice(needed > room, why)


def count_fitting_rows(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int | None,
    *,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
    size: Size | None = None,
) -> int:
    """Return the rows of a pass that fit; 0 for none."""
    fixed, one = (
        estimate_training_gib(
            architecture,
            encoder_max_len,
            batch=batch,
            lora=lora,
            checkpointing=checkpointing,
            precision=precision,
            size=size,
        )
        for batch in (0, 1)
    )
    return max(0, int((_room_gib(memory_bytes) - fixed) / (one - fixed)))


def recommend_batch(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int | None,
    *,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
    effective_batch_size: int = EFFECTIVE_BATCH_SIZE,
    size: Size | None = None,
) -> tuple[int, int, str]:
    """Return rows per forward pass, passes per optimizer step, and why.

    Args:
        memory_bytes: all of the device's; None where it is unknown.
        effective_batch_size: rows per optimizer step wanted; the product is exactly that.
    """
    fitting = count_fitting_rows(
        architecture,
        encoder_max_len,
        memory_bytes,
        lora=lora,
        checkpointing=checkpointing,
        precision=precision,
        size=size,
    )
    most = min(effective_batch_size, max(fitting, 1))
    batch = max(rows for rows in range(1, most + 1) if effective_batch_size % rows == 0)
    needed = estimate_training_gib(
        architecture,
        encoder_max_len,
        batch=batch,
        lora=lora,
        checkpointing=checkpointing,
        precision=precision,
        size=size,
    )
    way = ("lora" if lora else "full") + "+checkpointing" * checkpointing
    other = size is not None and size != BASE_SIZES[architecture]
    what = f"{architecture} of {size.describe()}" if size and other else architecture
    why = (
        f"{describe_memory(memory_bytes)}, {what} ({way}, {precision}), up to {encoder_max_len} "
        f"tokens: about {needed:.1f} GiB (estimate)"
    )
    if not fitting:
        why += "; it may not fit: use LoRA, gradient checkpointing or a shorter encoder_max_len"
    return batch, effective_batch_size // batch, why


def recommend_accumulation(
    batch: int, *, effective_batch_size: int = EFFECTIVE_BATCH_SIZE
) -> Choice[int]:
    """Return the passes per optimizer step that come nearest to the rows wanted."""
    passes = max(1, round(effective_batch_size / batch))
    return Choice(
        passes, f"{batch} x {passes} = {batch * passes} rows a step, {effective_batch_size} wanted"
    )


def recommend_eval_batch(
    num_beams: int,
    encoder_max_len: int,
    memory_bytes: int | None,
    *,
    architecture: str,
    lora: bool,
    decoder_max_len: int = 150,
    size: Size | None = None,
) -> Choice[int]:
    """Choose the rows of a generation batch: a power of two up to 64 that fits beside training.

    Counted for each beam: keys and values of every decoder layer over input and output in fp32, and
    four copies of the logits; for each row: two copies of the encoder's attention weights. Weights
    and optimizer state stay in memory meanwhile.
    """
    size = size or BASE_SIZES[architecture]
    keys = size.layers[1] * 2 * size.width * (encoder_max_len + decoder_max_len) * 4
    beam = keys + size.vocabulary * 16
    row_gib = (num_beams * beam + 2 * size.heads * encoder_max_len**2 * 4) / GIB
    room = _room_gib(memory_bytes) - estimate_training_gib(
        architecture, encoder_max_len, batch=0, lora=lora, size=size
    )
    rows = 1
    while rows < MOST_EVAL_ROWS and 2 * rows * row_gib <= room:
        rows *= 2
    why = f"{rows} rows x {num_beams} beams need about {rows * row_gib:.1f} GiB"
    return Choice(rows, f"{why} of the {max(room, 0):.1f} beside the training state (estimate)")


def _room_gib(memory_bytes: int | None) -> float:
    """Return what a device has for training: its profile's, so that cards of one kind agree."""
    card = find_card(memory_bytes)
    memory = (memory_bytes or 0) / GIB
    if card is not None and (memory_bytes is None or card < max(CARD_GIB)):
        memory = CARD_GIB[card]
    return memory * (1 - RESERVE_SHARE)

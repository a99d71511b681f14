"""Device profiles: how much of an experiment fits a card, as plain data and the rules that read it.

Must not know the configuration: it is given plain values, and used for what the config leaves auto.

Where the numbers come from. Nothing here was measured on a card. For the base-size checkpoints of
the experiments (mT5-base, T5 v1.1-base, KoBART) the tensors that autograd keeps for the backward
pass were counted from their published configurations with torch 2.13 and transformers 5.17: in bf16
autocast, with dropout, targets of 128 tokens at 512 input tokens and of 150 above, LoRA of rank 64
on every linear layer, attention with the kernel that needs most (math). They are meant as upper
bounds. Larger checkpoints need more than this table says.
"""

from __future__ import annotations

from dialsum.device import Choice, Precision
from dialsum.gpu_driver import GIB

LENGTHS = (512, 768, 1024)
"""Input tokens of the three columns; a length takes the first column that is not shorter."""

EFFECTIVE_BATCH_SIZE = 24
"""Rows per optimizer step where the config leaves batch and accumulation open, as most of ours."""

CARD_GIB: dict[int, float] = {8: 7.6, 12: 11.6, 16: 15.5, 24: 23.5, 40: 39.0, 80: 79.0}
"""Profiles: the GB that a card is sold with, and the least GiB that it shows (RTX 3090: 23.7)."""

FIXED_GIB: dict[str, dict[str, float]] = {
    "lora": {"mt5": 4.0, "t5": 1.6, "bart": 0.8},
    "full": {"mt5": 9.8, "t5": 4.6, "bart": 2.1},
}
"""Weights, gradients and AdamW's two moments, whatever the batch. Full fine-tuning: 18 bytes a
parameter (fp32 weight, gradient and moments, bf16 copy). LoRA: a 4-bit base, embeddings and head in
fp32, adapters of rank 128 at 18 bytes."""

ROW_GIB: dict[str, dict[str, tuple[float, float, float]]] = {
    "lora": {"mt5": (1.65, 2.65, 3.75), "t5": (1.37, 2.32, 3.41), "bart": (0.32, 0.45, 0.56)},
    "lora+checkpointing": {
        "mt5": (0.49, 0.63, 0.73), "t5": (0.20, 0.30, 0.39), "bart": (0.11, 0.15, 0.18),
    },
    "full": {"mt5": (1.47, 2.39, 3.41), "t5": (1.18, 2.05, 3.07), "bart": (0.20, 0.28, 0.34)},
    "full+checkpointing": {
        "mt5": (0.49, 0.63, 0.73), "t5": (0.20, 0.30, 0.39), "bart": (0.11, 0.15, 0.18),
    },
}  # fmt: skip
"""Activations of one row in GiB, a column for each of LENGTHS: the tensors counted, and 8 bytes for
each logit (copies and gradients of the loss); with gradient checkpointing also what is recomputed
of the largest block. Training in fp32 needs twice as much."""

RESERVE_SHARE = 0.10  # fragmentation, and rows whose summary is longer than the mean
CONTEXT_GIB = 0.7  # CUDA context and kernels

ROWS: dict[int, dict[str, dict[str, tuple[int, int, int]]]] = {
    8: {
        "lora": {"mt5": (1, 0, 0), "t5": (3, 1, 1), "bart": (12, 8, 8)},
        "lora+checkpointing": {"mt5": (4, 3, 2), "t5": (12, 12, 8), "bart": (24, 24, 24)},
        "full": {"mt5": (0, 0, 0), "t5": (1, 0, 0), "bart": (12, 12, 8)},
        "full+checkpointing": {"mt5": (0, 0, 0), "t5": (6, 4, 3), "bart": (24, 24, 12)},
    },
    12: {
        "lora": {"mt5": (3, 2, 1), "t5": (4, 3, 2), "bart": (24, 12, 12)},
        "lora+checkpointing": {"mt5": (8, 8, 6), "t5": (24, 24, 12), "bart": (24, 24, 24)},
        "full": {"mt5": (0, 0, 0), "t5": (4, 2, 1), "bart": (24, 24, 12)},
        "full+checkpointing": {"mt5": (0, 0, 0), "t5": (24, 12, 12), "bart": (24, 24, 24)},
    },
    16: {
        "lora": {"mt5": (4, 3, 2), "t5": (8, 4, 3), "bart": (24, 24, 12)},
        "lora+checkpointing": {"mt5": (12, 12, 12), "t5": (24, 24, 24), "bart": (24, 24, 24)},
        "full": {"mt5": (2, 1, 1), "t5": (6, 4, 2), "bart": (24, 24, 24)},
        "full+checkpointing": {"mt5": (6, 4, 4), "t5": (24, 24, 12), "bart": (24, 24, 24)},
    },
    24: {
        "lora": {"mt5": (8, 6, 4), "t5": (12, 8, 4), "bart": (24, 24, 24)},
        "lora+checkpointing": {"mt5": (24, 24, 12), "t5": (24, 24, 24), "bart": (24, 24, 24)},
        "full": {"mt5": (6, 4, 3), "t5": (12, 6, 4), "bart": (24, 24, 24)},
        "full+checkpointing": {"mt5": (12, 12, 12), "t5": (24, 24, 24), "bart": (24, 24, 24)},
    },
    40: {
        "lora": {"mt5": (12, 8, 8), "t5": (12, 12, 8), "bart": (24, 24, 24)},
        "lora+checkpointing": {"mt5": (24, 24, 24), "t5": (24, 24, 24), "bart": (24, 24, 24)},
        "full": {"mt5": (12, 8, 6), "t5": (24, 12, 8), "bart": (24, 24, 24)},
        "full+checkpointing": {"mt5": (24, 24, 24), "t5": (24, 24, 24), "bart": (24, 24, 24)},
    },
    80: {
        "lora": {"mt5": (24, 24, 12), "t5": (24, 24, 12), "bart": (24, 24, 24)},
        "lora+checkpointing": {"mt5": (24, 24, 24), "t5": (24, 24, 24), "bart": (24, 24, 24)},
        "full": {"mt5": (24, 24, 12), "t5": (24, 24, 12), "bart": (24, 24, 24)},
        "full+checkpointing": {"mt5": (24, 24, 24), "t5": (24, 24, 24), "bart": (24, 24, 24)},
    },
}
"""Rows per forward pass by card, way of training, family and input length: the largest divisor of
24 whose estimate leaves a tenth of the card free; 0 where not one row does. Change what you
measured otherwise."""

DECODER_SHAPES: dict[str, tuple[int, int, int]] = {
    "mt5": (12, 12, 250112),
    "t5": (12, 12, 50358),
    "bart": (6, 16, 30000),
}
"""Decoder layers, attention heads and vocabulary of the base-size checkpoints, all of width 768."""

WIDTH = 768
MOST_EVAL_ROWS = 64


def find_card(memory_bytes: int) -> int | None:
    """Return the largest profile, in GB, that so much memory serves; None below the smallest."""
    return max(
        (size for size, least in CARD_GIB.items() if memory_bytes >= least * GIB), default=None
    )


def estimate_training_gib(
    architecture: str,
    encoder_max_len: int,
    *,
    batch: int,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
) -> float:
    """Return the estimated memory of training a base-size checkpoint, GiB.

    Args:
        architecture: mt5, t5 or bart.
        batch: rows per forward pass; 0 gives what is needed whatever the batch.
    """
    row = _row_gib(architecture, encoder_max_len, _name_way(lora, checkpointing), precision)
    return CONTEXT_GIB + FIXED_GIB["lora" if lora else "full"][architecture] + batch * row


def recommend_checkpointing(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int,
    *,
    lora: bool,
    batch: int | None = None,
    precision: Precision = "bf16",
) -> Choice[bool]:
    """Choose gradient checkpointing: only where needed, since it makes steps about a third slower.

    Args:
        memory_bytes: all of the device's.
        batch: rows per forward pass; None when that is open, too.
    """
    wanted = batch or 2  # one row a pass leaves a GPU idle; rather recompute
    needed = estimate_training_gib(
        architecture, encoder_max_len, batch=wanted, lora=lora, precision=precision
    )
    room = _room_gib(memory_bytes)
    rows = f"{wanted} row{'s' if wanted > 1 else ''} of up to {encoder_max_len} tokens"
    why = f"without it, {rows} in {precision} need about {needed:.1f} of {room:.1f} GiB (estimate)"
    return Choice(needed > room, why)


def count_fitting_rows(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int,
    *,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
) -> int:
    """Return the rows of a pass that fit, by the table, else by the estimate; 0 for none."""
    way = _name_way(lora, checkpointing)
    card = _find_table(encoder_max_len, memory_bytes, precision)
    if card is not None:
        return ROWS[card][way][architecture][_find_column(encoder_max_len)]
    fixed = estimate_training_gib(architecture, encoder_max_len, batch=0, lora=lora)
    free = max(0.0, _room_gib(memory_bytes) - fixed)
    return int(free / _row_gib(architecture, encoder_max_len, way, precision))


def recommend_batch(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int,
    *,
    lora: bool,
    checkpointing: bool = False,
    precision: Precision = "bf16",
    effective_batch_size: int = EFFECTIVE_BATCH_SIZE,
) -> tuple[int, int, str]:
    """Return rows per forward pass, passes per optimizer step, and why.

    Args:
        memory_bytes: all of the device's.
        effective_batch_size: rows per optimizer step wanted; the product is exactly that.
    """
    way = _name_way(lora, checkpointing)
    card = _find_table(encoder_max_len, memory_bytes, precision)
    rows = count_fitting_rows(
        architecture, encoder_max_len, memory_bytes,
        lora=lora, checkpointing=checkpointing, precision=precision,
    )  # fmt: skip
    batch = _largest_divisor(effective_batch_size, max(rows, 1))
    needed = estimate_training_gib(
        architecture, encoder_max_len,
        batch=batch, lora=lora, checkpointing=checkpointing, precision=precision,
    )  # fmt: skip
    source = f"profile of {card} GB" if card else f"{memory_bytes / GIB:.1f} GiB"
    why = (
        f"{source}, {architecture} ({way}, {precision}), up to {encoder_max_len} tokens: "
        f"about {needed:.1f} GiB (estimate)"
    )
    if not rows:
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
    memory_bytes: int,
    *,
    architecture: str,
    lora: bool,
    decoder_max_len: int = 150,
) -> Choice[int]:
    """Choose the rows of a generation batch: a power of two up to 64 that fits beside training.

    Counted for each beam: keys and values of every decoder layer over input and output in fp32, and
    four copies of the logits; for each row: two copies of the encoder's attention weights. Weights
    and optimizer state stay in memory meanwhile.
    """
    layers, heads, vocabulary = DECODER_SHAPES[architecture]
    beam = layers * 2 * WIDTH * (encoder_max_len + decoder_max_len) * 4 + vocabulary * 16
    row_gib = (num_beams * beam + 2 * heads * encoder_max_len**2 * 4) / GIB
    room = (
        _room_gib(memory_bytes) - CONTEXT_GIB - FIXED_GIB["lora" if lora else "full"][architecture]
    )
    rows = 1
    while rows < MOST_EVAL_ROWS and 2 * rows * row_gib <= room:
        rows *= 2
    why = f"{rows} rows x {num_beams} beams need about {rows * row_gib:.1f} GiB"
    return Choice(rows, f"{why} of the {max(room, 0):.1f} beside the training state (estimate)")


def _find_table(encoder_max_len: int, memory_bytes: int, precision: Precision) -> int | None:
    """Return the profile whose table answers; None where only the estimate can."""
    if precision == "fp32" or encoder_max_len > LENGTHS[-1]:
        return None
    return find_card(memory_bytes)


def _name_way(lora: bool, checkpointing: bool) -> str:
    return ("lora" if lora else "full") + ("+checkpointing" if checkpointing else "")


def _room_gib(memory_bytes: int) -> float:
    return memory_bytes / GIB * (1 - RESERVE_SHARE)


def _find_column(encoder_max_len: int) -> int:
    """Return the column of a length; the last one for all that are longer."""
    longer = (column for column, length in enumerate(LENGTHS) if encoder_max_len <= length)
    return next(longer, len(LENGTHS) - 1)


def _row_gib(architecture: str, encoder_max_len: int, way: str, precision: Precision) -> float:
    """Return the activations of one row; beyond the last column attention grows with the square."""
    stretch = max(1.0, (encoder_max_len / LENGTHS[-1]) ** 2)
    row = ROW_GIB[way][architecture][_find_column(encoder_max_len)]
    return row * stretch * (2 if precision == "fp32" else 1)


def _largest_divisor(number: int, most: int) -> int:
    return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)

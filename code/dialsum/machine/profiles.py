"""How much of an experiment fits a card: the rules that read the tables of device profiles.

Must not know the configuration: it is given plain values, and used for what the config leaves auto.
A device whose memory is unknown is taken for the smallest card of the tables, and that is said.
"""

from __future__ import annotations

from dialsum.machine.choice import Choice
from dialsum.machine.gpu_driver import GIB
from dialsum.machine.precision import Precision
from dialsum.machine.profile_tables import (
    BASE_SIZES,
    CARD_GIB,
    CONTEXT_GIB,
    EFFECTIVE_BATCH_SIZE,
    FIXED_GIB,
    LENGTHS,
    LOGIT_BYTES,
    MOST_EVAL_ROWS,
    RESERVE_SHARE,
    ROW_GIB,
    ROWS,
    TARGETS,
    Size,
)

SMALLEST = min(CARD_GIB)


def describe_memory(memory_bytes: int | None) -> str:
    """Return the memory that recommendations go by: `23.7 GiB`, or what is taken for it."""
    if memory_bytes is None:
        return f"unknown memory, taken for {SMALLEST} GB"
    return f"{memory_bytes / GIB:.1f} GiB"


def find_card(memory_bytes: int | None) -> int | None:
    """Return the largest profile, in GB, that so much memory serves; None below the smallest."""
    memory_bytes = _take_memory(memory_bytes)
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
    size: Size | None = None,
) -> float:
    """Return the estimated memory of training a checkpoint, GiB.

    Args:
        architecture: mt5, t5 or bart.
        batch: rows per forward pass; 0 gives what is needed whatever the batch.
        size: the checkpoint's; the base size of its family where it is unknown.
    """
    size = size or BASE_SIZES[architecture]
    row = _row_gib(architecture, encoder_max_len, _name_way(lora, checkpointing), precision, size)
    return CONTEXT_GIB + _fixed_gib(architecture, lora, size) + batch * row


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
    """Return the rows of a pass that fit, by the table, else by the estimate; 0 for none."""
    way = _name_way(lora, checkpointing)
    size = size or BASE_SIZES[architecture]
    card = _find_table(architecture, encoder_max_len, memory_bytes, precision, size)
    if card is not None:
        return ROWS[card][way][architecture][_find_column(encoder_max_len)]
    fixed = estimate_training_gib(architecture, encoder_max_len, batch=0, lora=lora, size=size)
    free = max(0.0, _room_gib(memory_bytes) - fixed)
    return int(free / _row_gib(architecture, encoder_max_len, way, precision, size))


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
    way = _name_way(lora, checkpointing)
    size = size or BASE_SIZES[architecture]
    card = _find_table(architecture, encoder_max_len, memory_bytes, precision, size)
    rows = count_fitting_rows(
        architecture,
        encoder_max_len,
        memory_bytes,
        lora=lora,
        checkpointing=checkpointing,
        precision=precision,
        size=size,
    )
    batch = _largest_divisor(effective_batch_size, max(rows, 1))
    needed = estimate_training_gib(
        architecture,
        encoder_max_len,
        batch=batch,
        lora=lora,
        checkpointing=checkpointing,
        precision=precision,
        size=size,
    )
    is_profile = card is not None and memory_bytes is not None
    source = f"profile of {card} GB" if is_profile else describe_memory(memory_bytes)
    what = (
        architecture
        if size == BASE_SIZES[architecture]
        else (f"{architecture} of {size.describe()}")
    )
    why = (
        f"{source}, {what} ({way}, {precision}), up to {encoder_max_len} tokens: "
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
    room = _room_gib(memory_bytes) - CONTEXT_GIB - _fixed_gib(architecture, lora, size)
    rows = 1
    while rows < MOST_EVAL_ROWS and 2 * rows * row_gib <= room:
        rows *= 2
    why = f"{rows} rows x {num_beams} beams need about {rows * row_gib:.1f} GiB"
    return Choice(rows, f"{why} of the {max(room, 0):.1f} beside the training state (estimate)")


def _take_memory(memory_bytes: int | None) -> int:
    return int(CARD_GIB[SMALLEST] * GIB) if memory_bytes is None else memory_bytes


def _find_table(
    architecture: str,
    encoder_max_len: int,
    memory_bytes: int | None,
    precision: Precision,
    size: Size,
) -> int | None:
    """Return the profile whose table answers; None where only the estimate can."""
    other = size != BASE_SIZES[architecture]
    if other or precision == "fp32" or encoder_max_len > LENGTHS[-1]:
        return None
    return find_card(memory_bytes)


def _name_way(lora: bool, checkpointing: bool) -> str:
    return ("lora" if lora else "full") + ("+checkpointing" if checkpointing else "")


def _room_gib(memory_bytes: int | None) -> float:
    return _take_memory(memory_bytes) / GIB * (1 - RESERVE_SHARE)


def _find_column(encoder_max_len: int) -> int:
    """Return the column of a length; the last one for all that are longer."""
    longer = (column for column, length in enumerate(LENGTHS) if encoder_max_len <= length)
    return next(longer, len(LENGTHS) - 1)


def _fixed_gib(architecture: str, lora: bool, size: Size) -> float:
    """Return weights, gradients and moments: in proportion to the parameters."""
    share = size.parameters / BASE_SIZES[architecture].parameters
    return FIXED_GIB["lora" if lora else "full"][architecture] * share


def _row_gib(
    architecture: str, encoder_max_len: int, way: str, precision: Precision, size: Size
) -> float:
    """Return the activations of one row; beyond the last column attention grows with the square.

    Logits go by the vocabulary; the rest by the layers, and by width or heads, whichever is more.
    """
    base, column = BASE_SIZES[architecture], _find_column(encoder_max_len)
    logit = LOGIT_BYTES * TARGETS[column] / GIB
    rest = ROW_GIB[way][architecture][column] - logit * base.vocabulary
    wider = max(size.width / base.width, size.heads / base.heads)
    row = rest * sum(size.layers) / sum(base.layers) * wider + logit * size.vocabulary
    stretch = max(1.0, (encoder_max_len / LENGTHS[-1]) ** 2)
    return row * stretch * (2 if precision == "fp32" else 1)


def _largest_divisor(number: int, most: int) -> int:
    return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)

"""The least time that a card could take for an experiment: what nothing can be faster than.

Must not import torch: the plan asks, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit
from dialsum.machine.flops import (
    Attention,
    Product,
    count_flops,
    count_writing,
    find_bandwidth,
    find_peak,
)
from dialsum.machine.memory import MOST_EVAL_ROWS, ROWS_PER_STEP
from dialsum.models.checkpoint import measure_attention, measure_products
from dialsum.models.families import get_family

CARD = "NVIDIA GeForce RTX 3090"
"""What is planned for where there is no card."""


@dataclass(frozen=True)
class Bound:
    """Least seconds of an experiment's parts on a card.

    Args:
        evaluation: of all evaluations during training.
        writing: of the summaries of dev and test.
    """

    training: float
    evaluation: float
    writing: float


def find_bound(
    config: Config,
    products: Sequence[Product],
    *,
    attention: Attention,
    encoded: Mapping[str, EncodedSplit],
    training_flops: float,
    steps: int,
    batch: int,
    card: str,
    product: str,
) -> Bound | None:
    """Return the bound of an experiment; None on a card whose peaks are not known.

    Summaries are taken to be as long as the references of dev.

    Args:
        products, attention: of its model.
        training_flops, steps: of its training.
        batch: rows that are written together.
        card: as the driver names it.
        product: in what matrices are multiplied: bf16, tf32 or fp32.
    """
    peak, bandwidth = find_peak(card, precision=product), find_bandwidth(card)
    if peak is None or bandwidth is None:
        return None
    cards = config.batch.gpus_per_experiment

    def write(rows: EncodedSplit, *, beams: int) -> float:
        """Return the seconds of writing rows' summaries."""
        usual = round(float(dev.target_lengths.mean()))
        lengths = (min(int(one) or usual, longest) for one in rows.target_lengths)
        flops, moved = count_writing(
            products,
            attention=attention,
            rows=list(zip(map(int, rows.input_lengths), lengths, strict=True)),
            batch=batch,
            beams=beams,
            weight_bytes=(config.qlora.bits or 16) / 8,
        )
        return max(flops / peak, moved / bandwidth) / cards

    dev = encoded["dev"]
    longest = config.generation.max_new_tokens or config.tokenizer.decoder_max_len
    measured = dev.first(min(len(dev), config.evaluation.training_max_rows or len(dev)))
    loss = count_flops(
        products,
        attention=attention,
        inputs=measured.input_lengths,
        targets=measured.target_lengths,
        backward=False,
    )
    each = loss / peak / cards + write(measured, beams=config.evaluation.training_num_beams)
    return Bound(
        training=training_flops / peak / cards,
        evaluation=each * math.ceil(steps / min(config.training.eval_steps, max(steps, 1))),
        writing=sum(
            write(encoded[kind], beams=config.generation.num_beams)
            for kind in ("dev", "test")
            if kind in encoded
        ),
    )


def plan_bound(
    config: Config, *, own: Mapping[str, Any], encoded: Mapping[str, EncodedSplit], card: str
) -> Bound | None:
    """Return the bound of an experiment that was not started, None also of one that is to run on a
    CPU: adapters' own matrices, below one in thirty, are left out.

    Args:
        own: its checkpoint's config.json.
        card: as of find_bound.

    Raises:
        UnfitError: config.json has no sizes.
    """
    if config.general.device in ("cpu", "mps"):
        return None
    asked, train, family = config.training, encoded["train"], get_family(config.model.architecture)
    passes, rows = asked.gradient_accumulation_steps, asked.per_device_train_batch_size
    rows_per_step = ROWS_PER_STEP if "auto" in (passes, rows) else int(passes) * int(rows)
    steps = asked.count_steps(train_rows=len(train))
    if steps is None:
        steps = math.ceil(asked.num_train_epochs * len(train) / rows_per_step)
    epochs = asked.num_train_epochs
    if asked.max_steps is not None:
        epochs = steps * rows_per_step / len(train)
    batch = asked.per_device_eval_batch_size
    products = measure_products(own, family=family, learns=not config.qlora.use_qlora)
    attention = measure_attention(own, family=family)
    once = count_flops(
        products, attention=attention, inputs=train.input_lengths, targets=train.target_lengths
    )
    return find_bound(
        config,
        products,
        attention=attention,
        encoded=encoded,
        training_flops=epochs * once,
        steps=steps,
        batch=MOST_EVAL_ROWS if batch == "auto" else batch,
        card=card,
        product="bf16" if asked.fp16 or asked.bf16 in (True, "auto") else "tf32",
    )

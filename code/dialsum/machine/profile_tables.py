"""What an experiment takes of a card, as plain data: profiles, memory by family and way, rows.

Must not know the rules that read it (profiles.py).

Where the numbers come from. Nothing here was measured on a card. For the base-size checkpoints of
the experiments (mT5-base, T5 v1.1-base, KoBART) the tensors that autograd keeps for the backward
pass were counted from their published configurations with torch 2.13 and transformers 5.17: in bf16
autocast, with dropout, targets of 128 tokens at 512 input tokens and of 150 above, LoRA of rank 64
on every linear layer, attention with the kernel that needs most (math). They are meant as upper
bounds. What other sizes need is scaled from these (profiles.py).
"""

from __future__ import annotations

from dataclasses import dataclass

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
fp32, adapters of rank 128 at 18 bytes; an 8-bit base takes 0.1 GiB more, one in bf16 0.3."""

ROW_GIB: dict[str, dict[str, tuple[float, float, float]]] = {
    "lora": {"mt5": (1.65, 2.65, 3.75), "t5": (1.37, 2.32, 3.41), "bart": (0.32, 0.45, 0.56)},
    "lora+checkpointing": {
        "mt5": (0.49, 0.63, 0.73),
        "t5": (0.20, 0.30, 0.39),
        "bart": (0.11, 0.15, 0.18),
    },
    "full": {"mt5": (1.47, 2.39, 3.41), "t5": (1.18, 2.05, 3.07), "bart": (0.20, 0.28, 0.34)},
    "full+checkpointing": {
        "mt5": (0.49, 0.63, 0.73),
        "t5": (0.20, 0.30, 0.39),
        "bart": (0.11, 0.15, 0.18),
    },
}
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

TARGETS = (128, 150, 150)
"""Target tokens that ROW_GIB counts logits of, for each of LENGTHS."""
LOGIT_BYTES = 8


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
        return (
            f"{millions:,.0f} million parameters"
            if millions >= 10
            else (f"{millions:.1f} million parameters")
        )


BASE_SIZES: dict[str, Size] = {
    "mt5": Size(582_352_896, (12, 12), 768, 12, 250112),
    "t5": Size(275_530_752, (12, 12), 768, 12, 50358),
    "bart": Size(123_706_368, (6, 6), 768, 16, 30000),
}
"""The checkpoints of the tables above."""

MOST_EVAL_ROWS = 64

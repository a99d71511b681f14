"""A checkpoint of mT5's kind from random weights, for the benchmarks: its vocabulary, any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 250_112
"""Rows of mT5's embeddings and head."""


def write_random_mt5(folder: Path, *, tokenizer: Path, width: int, d_ff: int, layers: int) -> None:
    """Write model and tokenizer.

    Args:
        tokenizer: folder of mT5's.
        width: d_model, a multiple of 64.
        layers: of encoder and decoder each.
    """
    import torch
    from transformers import MT5Config, MT5ForConditionalGeneration

    from dialsum.models.tokenizers import load_tokenizer

    torch.manual_seed(42)
    model = MT5ForConditionalGeneration(
        MT5Config(
            vocab_size=VOCABULARY,
            d_model=width,
            d_kv=64,
            num_heads=width // 64,
            d_ff=d_ff,
            num_layers=layers,
            num_decoder_layers=layers,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            dropout_rate=0.0,
        )
    )
    start_untied(model, std=width**-0.5)
    model.save_pretrained(folder)
    load_tokenizer(tokenizer).save_pretrained(folder)


def start_untied(model: Any, *, std: float) -> None:
    """Give T5 or mT5 a head of its own, and start it and the embeddings at random.

    T5's own initial embeddings have a standard deviation of 1, which makes logits of hundreds.

    Args:
        std: standard deviation of both; d_model**-0.5 suits a head that nothing scales.
    """
    import torch

    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys.pop("lm_head.weight", None)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), head):
            layer.weight.normal_(0.0, std)

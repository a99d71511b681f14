"""A tiny checkpoint of a family from random weights, written to a folder like any other checkpoint.

Must not know experiments: from the folder on, a tiny model goes the way of a real one.

Initial weights decide whether so small a model learns at all. With the library's own (T5 embeddings
of standard deviation 1, BART 0.02) all families stayed at the floor of a constant summary; with
d_model**-0.5 they learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import TinyModel
from dialsum.models.families import Family
from dialsum.models.load import start_untied

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def write_tiny_checkpoint(
    folder: Path,
    *,
    family: Family,
    size: TinyModel,
    tokenizer: PreTrainedTokenizerFast,
    position_limit: int,
    seed: int,
) -> None:
    """Write config, random weights (safetensors) and tokenizer of a tiny model.

    Args:
        position_limit: longest input in tokens, for families with absolute positions.
        seed: decides every weight.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    vocabulary = -(-len(tokenizer) // 8) * 8
    if family.name == "bart":
        config: Any = _bart_config(size, tokenizer, vocabulary, position_limit)
    else:
        config = _t5_config(family, size, tokenizer, vocabulary)
    model: PreTrainedModel = getattr(transformers, family.model_class)(config)
    if family.name == "bart":
        _initialise_bart(model)
    else:
        start_untied(model, std=size.init_std_scale * size.d_model**-0.5)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _t5_config(family: Family, size: TinyModel, tokenizer: Any, vocabulary: int) -> Any:
    import transformers

    config_class = {"mt5": transformers.MT5Config, "t5": transformers.T5Config}[family.name]
    config: Any = config_class(
        vocab_size=vocabulary,
        d_model=size.d_model,
        d_kv=size.d_model // size.heads,
        d_ff=size.d_ff,
        num_layers=size.layers,
        num_decoder_layers=size.layers,
        num_heads=size.heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=size.dropout,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return config


def _bart_config(size: TinyModel, tokenizer: Any, vocabulary: int, position_limit: int) -> Any:
    import transformers

    return transformers.BartConfig(
        vocab_size=vocabulary,
        d_model=size.d_model,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=size.d_ff,
        decoder_ffn_dim=size.d_ff,
        max_position_embeddings=position_limit,
        dropout=size.dropout,
        init_std=size.init_std_scale * size.d_model**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )


def _initialise_bart(model: Any) -> None:
    """Start BART's learned positions as sinusoids (Vaswani et al. 2017) of the embeddings' size.

    From random positions a model this small learns the training rows by heart and nothing that
    carries over; with sinusoids it can attend by distance from the first step, as T5's relative
    positions let it.
    """
    import math

    import torch

    with torch.no_grad():
        for stack in (model.model.encoder, model.model.decoder):
            weight = stack.embed_positions.weight
            count, width = weight.shape
            position = torch.arange(count, dtype=torch.float32)[:, None]
            rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
            waves = torch.cat([torch.sin(position * rate), torch.cos(position * rate)], dim=1)
            weight.copy_(waves * (model.config.init_std * math.sqrt(2.0)))

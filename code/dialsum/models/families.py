"""The one table of architecture families: what their layers are called and what they cannot do.

Must not load anything: importing this starts no torch. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dialsum.errors import UnfitError


@dataclass(frozen=True)
class Family:
    """One encoder-decoder architecture.

    Args:
        name: value of `model.architecture`, and of `model_type` in a checkpoint's config.json.
        model_class: class in transformers.
        linear: every linear layer of encoder and decoder blocks, by its own name.
        aliases: names of other families that mean layers of this one.
        norms: names of the normalisation layers.
        base: what the weights of the model without its head are prefixed with in the whole model.
        embeddings: places of the one matrix of input embeddings; a file need hold one of them.
        defaults: what the library takes for keys that a config.json leaves out.
        dropout: key in its config of the dropout that model.dropout sets.
        absent: pattern of weights that a file need not hold: they are built anew, the same.
        unused: pattern of weights that old files hold and no model reads any more.
        position_limit: key in its config that bounds the input, where positions are absolute.
    """

    name: str
    model_class: str
    linear: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    norms: tuple[str, ...]
    base: str
    embeddings: tuple[str, ...]
    defaults: dict[str, Any]
    dropout: str
    absent: str | None = None
    unused: str | None = None
    position_limit: str | None = None


HEAD_WEIGHT = "lm_head.weight"
"""The output layer's weight in every family; absent from a file where it is the embeddings'."""

T5_FAMILY = Family(
    name="t5",
    model_class="T5ForConditionalGeneration",
    linear=("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),
    aliases={
        "q_proj": ("q",),
        "k_proj": ("k",),
        "v_proj": ("v",),
        "out_proj": ("o",),
        "o_proj": ("o",),
        "wi": ("wi_0", "wi_1"),
        "fc1": ("wi", "wi_0", "wi_1"),
        "fc2": ("wo",),
        "shared": ("embed_tokens",),
    },
    norms=("layer_norm", "final_layer_norm"),
    base="transformer",
    embeddings=("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    defaults={
        "decoder_start_token_id": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "vocab_size": 32128,
        "d_model": 512,
        "d_ff": 2048,
        "d_kv": 64,
        "num_heads": 8,
        "num_layers": 6,
        "feed_forward_proj": "relu",
    },
    dropout="dropout_rate",
    unused=r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",
)
MT5_FAMILY = replace(
    T5_FAMILY,
    name="mt5",
    model_class="MT5ForConditionalGeneration",
    defaults=T5_FAMILY.defaults
    | {
        "decoder_start_token_id": 0,
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_heads": 6,
        "num_layers": 8,
        "feed_forward_proj": "gated-gelu",
    },
)
BART_FAMILY = Family(
    name="bart",
    model_class="BartForConditionalGeneration",
    linear=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    aliases={
        "q": ("q_proj",),
        "k": ("k_proj",),
        "v": ("v_proj",),
        "o": ("out_proj",),
        "o_proj": ("out_proj",),
        "wi": ("fc1",),
        "wi_0": ("fc1",),
        "wi_1": ("fc1",),
        "wo": ("fc2",),
        "shared": ("embed_tokens",),
    },
    norms=(
        "self_attn_layer_norm",
        "encoder_attn_layer_norm",
        "final_layer_norm",
        "layernorm_embedding",
    ),
    base="model",
    embeddings=(
        "model.shared.weight",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
    ),
    defaults={
        "decoder_start_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "vocab_size": 50265,
        "d_model": 1024,
        "max_position_embeddings": 1024,
        "encoder_layers": 12,
        "decoder_layers": 12,
        "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
    },
    dropout="dropout",
    absent=r"^final_logits_bias$",
    unused=r"(^|\.)((encoder|decoder)\.version|position_ids)$",
    position_limit="max_position_embeddings",
)
FAMILIES = {family.name: family for family in (MT5_FAMILY, T5_FAMILY, BART_FAMILY)}


def get_family(architecture: str) -> Family:
    """Return the family of a `model.architecture` value.

    Raises:
        UnfitError: no such family.
    """
    if architecture not in FAMILIES:
        raise UnfitError(
            f"model.architecture {architecture!r} is not supported; "
            f"choose from {', '.join(FAMILIES)}"
        )
    return FAMILIES[architecture]


def find_foreign_targets(asked: Iterable[str], *, family: Family) -> list[str]:
    """Return the asked LoRA targets that no model of this family can have."""
    known = {*family.linear, *family.aliases, "embed_tokens", "lm_head"}
    return [name for name in asked if name not in known]


def map_target_names(
    asked: Iterable[str], *, family: Family, present: set[str]
) -> tuple[list[str], list[str]]:
    """Map asked LoRA targets to layers that this very model has.

    Args:
        asked: names as the config has them.
        family: supplies the other families' spellings.
        present: last name components of the model's linear and embedding layers.

    Returns:
        The layers to adapt, sorted, and one note for each name that was mapped.

    Raises:
        UnfitError: a name matches nothing, with all such names and what there is.
    """
    targets: set[str] = set()
    notes: list[str] = []
    unknown: list[str] = []
    for name in asked:
        if name in present:
            targets.add(name)
        elif own := [alias for alias in family.aliases.get(name, ()) if alias in present]:
            targets.update(own)
            notes.append(f"qlora.target_modules: {name} is called {', '.join(own)} in this model")
        else:
            unknown.append(name)
    if unknown:
        raise UnfitError(
            f"qlora.target_modules: {', '.join(unknown)} match(es) no layer of this {family.name} "
            f"model; it has {', '.join(sorted(present))}. Name layers from these, or use auto."
        )
    return sorted(targets), notes

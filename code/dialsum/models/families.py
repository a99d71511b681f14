"""The one table of architecture families: what their layers are called and what they cannot do.

Must not load anything: importing this starts no torch. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from dialsum.config.schema import DECODER_ONLY
from dialsum.errors import UnfitError


@dataclass(frozen=True)
class Family:
    """One architecture: an encoder with a decoder, or a decoder alone.

    Args:
        name: value of `model.architecture`.
        model_classes: `model_type` of a checkpoint's config.json to the class in transformers.
        linear: every linear layer of its blocks, by its own name.
        aliases: names of other families that mean layers of this one.
        norms: names of the normalisation layers.
        base: what the weights of the model without its head are prefixed with in the whole model.
        embeddings: places of the one matrix of input embeddings; a file need hold one of them.
        defaults: what the library takes for keys that a config.json leaves out.
        dropout: keys in its config of the dropout that model.dropout sets.
        absent: pattern of weights that a file need not hold: they are built anew, the same.
        unused: pattern of weights that old files hold and no model reads any more.
        position_limit: key in its config that bounds what it reads, where positions end.
        chat: was trained on conversations, so that its checkpoint brings a template of them.
    """

    name: str
    model_classes: dict[str, str]
    linear: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    norms: tuple[str, ...]
    base: str
    embeddings: tuple[str, ...]
    defaults: dict[str, Any]
    dropout: tuple[str, ...]
    absent: str | None = None
    unused: str | None = None
    position_limit: str | None = None
    chat: bool = False

    @property
    def decoder_only(self) -> bool:
        """Whether it reads dialogue and summary as one text, and writes what follows a prompt."""
        return self.name in DECODER_ONLY

    @property
    def embedding(self) -> str:
        """The own name of its layer of input embeddings."""
        return self.embeddings[-1].split(".")[-2]


HEAD_BIAS = "final_logits_bias"
"""What BART adds to the logits, [1, vocabulary]; absent from some files."""
HEAD_WEIGHT = "lm_head.weight"
"""The output layer's weight in every family; absent from a file where it is the embeddings'."""

T5_FAMILY = Family(
    name="t5",
    model_classes={"t5": "T5ForConditionalGeneration"},
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
    dropout=("dropout_rate",),
    unused=r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",
)
MT5_FAMILY = replace(
    T5_FAMILY,
    name="mt5",
    model_classes={"mt5": "MT5ForConditionalGeneration"},
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
    model_classes={"bart": "BartForConditionalGeneration"},
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
    dropout=("dropout",),
    absent=rf"^{HEAD_BIAS}$",
    unused=r"(^|\.)((encoder|decoder)\.version|position_ids)$",
    position_limit="max_position_embeddings",
)
GPT2_FAMILY = Family(
    name="gpt2",
    model_classes={"gpt2": "GPT2LMHeadModel"},
    linear=("c_attn", "c_proj", "c_fc"),
    aliases={
        "q": ("c_attn",),
        "k": ("c_attn",),
        "v": ("c_attn",),
        "q_proj": ("c_attn",),
        "k_proj": ("c_attn",),
        "v_proj": ("c_attn",),
        "o": ("c_proj",),
        "o_proj": ("c_proj",),
        "out_proj": ("c_proj",),
        "fc1": ("c_fc",),
        "fc2": ("c_proj",),
        "up_proj": ("c_fc",),
        "down_proj": ("c_proj",),
        "embed_tokens": ("wte",),
        "shared": ("wte",),
    },
    norms=("ln_1", "ln_2", "ln_f"),
    base="transformer",
    embeddings=("transformer.wte.weight",),
    defaults={
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "eos_token_id": 50256,
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
    },
    dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    unused=r"(^|\.)attn\.(bias|masked_bias)$",
    position_limit="n_positions",
)
KOGPT2_FAMILY = replace(GPT2_FAMILY, name="kogpt2")
"""The network of GPT-2 with a vocabulary of Korean: what differs is the tokenizer."""
LLAMA_FAMILY = Family(
    name="llama",
    model_classes={"llama": "LlamaForCausalLM"},
    linear=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    aliases={
        "q": ("q_proj",),
        "k": ("k_proj",),
        "v": ("v_proj",),
        "o": ("o_proj",),
        "out_proj": ("o_proj",),
        "c_attn": ("q_proj", "k_proj", "v_proj"),
        "wi": ("gate_proj", "up_proj"),
        "wi_0": ("gate_proj",),
        "wi_1": ("up_proj",),
        "wo": ("down_proj",),
        "fc1": ("gate_proj", "up_proj"),
        "fc2": ("down_proj",),
        "shared": ("embed_tokens",),
        "wte": ("embed_tokens",),
    },
    norms=("input_layernorm", "post_attention_layernorm", "norm"),
    base="model",
    embeddings=("model.embed_tokens.weight",),
    defaults={
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "eos_token_id": 2,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    dropout=("attention_dropout",),
    unused=r"(^|\.)rotary_emb\.inv_freq$",
    position_limit="max_position_embeddings",
    chat=True,
)
QWEN_FAMILY = replace(
    LLAMA_FAMILY,
    name="qwen",
    model_classes={"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"},
    norms=(*LLAMA_FAMILY.norms, "q_norm", "k_norm"),
    defaults=LLAMA_FAMILY.defaults
    | {
        "eos_token_id": None,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "intermediate_size": 22016,
    },
)
GEMMA_FAMILY = replace(
    LLAMA_FAMILY,
    name="gemma",
    model_classes={"gemma3_text": "Gemma3ForCausalLM"},
    norms=(*QWEN_FAMILY.norms, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    defaults=LLAMA_FAMILY.defaults
    | {
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
)
FAMILIES = {
    family.name: family
    for family in (
        MT5_FAMILY,
        T5_FAMILY,
        BART_FAMILY,
        GPT2_FAMILY,
        KOGPT2_FAMILY,
        LLAMA_FAMILY,
        QWEN_FAMILY,
        GEMMA_FAMILY,
    )
}


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
    known = {*family.linear, *family.aliases, family.embedding, "lm_head"}
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

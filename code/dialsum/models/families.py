"""The one table of architecture families: what their layers are called and what they cannot do.

Must not load anything: importing this starts no torch. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dialsum.errors import UnfitError
from dialsum.machine.memory import Size


@dataclass(frozen=True)
class Family:
    """One encoder-decoder architecture.

    Args:
        name: value of `model.architecture`.
        model_type: `model_type` in a checkpoint's config.json.
        model_class: class in transformers.
        linear: every linear layer of encoder and decoder blocks, by its own name.
        attention: those of them in the attention.
        aliases: names of other families that mean layers of this one.
        norms: names of the normalisation layers.
        tiny_tokenizer: kind of tokenizer its checkpoints have: unigram or bpe.
        position_limit: key in its config that bounds the input, where positions are absolute.
        base: what the weights of the model without its head are prefixed with in the whole model.
        embeddings: places of the one matrix of input embeddings; a file need hold one of them.
        absent: pattern of weights that a file need not hold: they are built anew, the same.
        unused: pattern of weights that old files hold and no model reads any more.
        defaults: what the library takes for keys that a config.json leaves out.
    """

    name: str
    model_type: str
    model_class: str
    linear: tuple[str, ...]
    attention: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    norms: tuple[str, ...]
    tiny_tokenizer: str
    base: str
    embeddings: tuple[str, ...]
    defaults: dict[str, Any]
    absent: str | None = None
    unused: str | None = None
    position_limit: str | None = None


T5_LINEAR = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")
T5_ALIASES = {
    "q_proj": ("q",),
    "k_proj": ("k",),
    "v_proj": ("v",),
    "out_proj": ("o",),
    "o_proj": ("o",),
    "wi": ("wi_0", "wi_1"),
    "fc1": ("wi", "wi_0", "wi_1"),
    "fc2": ("wo",),
    "shared": ("embed_tokens",),
}
T5_NORMS = ("layer_norm", "final_layer_norm")
T5_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
T5_UNUSED = r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$"
MT5_DEFAULTS = {
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "vocab_size": 250112,
    "d_model": 512,
    "d_ff": 1024,
    "d_kv": 64,
    "num_heads": 6,
    "num_layers": 8,
    "feed_forward_proj": "gated-gelu",
}
T5_DEFAULTS = {
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
}
BART_DEFAULTS = {
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
}
HEAD = "lm_head.weight"
"""The output layer's weight in every family; absent from a file where it is the embeddings'."""

MAX_SIZE = 10**7
"""Beyond any layer, vocabulary or length that there is: the number was spoilt."""

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="mt5",
            model_type="mt5",
            model_class="MT5ForConditionalGeneration",
            linear=T5_LINEAR,
            attention=("q", "k", "v", "o"),
            aliases=T5_ALIASES,
            norms=T5_NORMS,
            tiny_tokenizer="unigram",
            base="transformer",
            embeddings=T5_EMBEDDINGS,
            unused=T5_UNUSED,
            defaults=MT5_DEFAULTS,
        ),
        Family(
            name="t5",
            model_type="t5",
            model_class="T5ForConditionalGeneration",
            linear=T5_LINEAR,
            attention=("q", "k", "v", "o"),
            aliases=T5_ALIASES,
            norms=T5_NORMS,
            tiny_tokenizer="unigram",
            base="transformer",
            embeddings=T5_EMBEDDINGS,
            unused=T5_UNUSED,
            defaults=T5_DEFAULTS,
        ),
        Family(
            name="bart",
            model_type="bart",
            model_class="BartForConditionalGeneration",
            linear=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
            attention=("q_proj", "k_proj", "v_proj", "out_proj"),
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
            tiny_tokenizer="bpe",
            position_limit="max_position_embeddings",
            base="model",
            embeddings=(
                "model.shared.weight",
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
            ),
            absent=r"^final_logits_bias$",
            unused=r"(^|\.)((encoder|decoder)\.version|position_ids)$",
            defaults=BART_DEFAULTS,
        ),
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


def measure_size(own: Mapping[str, Any], *, family: Family) -> Size:
    """Count a checkpoint's parameters and layers from its config.json.

    Biases and norms, below one in a hundred, are left out.

    Args:
        own: the content of its config.json; a key that is absent has the family's default.

    Raises:
        UnfitError: a size is no whole number from 1 to MAX_SIZE.
    """
    own = {**family.defaults, **own}

    def get(key: str) -> int:
        value = own[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
            raise UnfitError(f"its config.json says {key}: {str(value)[:20]}, which is no size")
        return value

    width, vocabulary = get("d_model"), get("vocab_size")
    if family.name == "bart":
        layers = get("encoder_layers"), get("decoder_layers")
        heads = max(get("encoder_attention_heads"), get("decoder_attention_heads"))
        attention = 4 * width * width
        forward = 2 * width * get("encoder_ffn_dim"), 2 * width * get("decoder_ffn_dim")
        positions = 2 * get("max_position_embeddings") * width
    else:
        first = get("num_layers")
        layers = (
            first,
            first if own.get("num_decoder_layers") is None else (get("num_decoder_layers")),
        )
        heads = get("num_heads")
        attention = 4 * width * heads * get("d_kv")
        gated = str(own["feed_forward_proj"]).startswith("gated")
        forward = ((3 if gated else 2) * width * get("d_ff"),) * 2
        positions = 0
    matrices = 2 if own.get("tie_word_embeddings") is False else 1
    parameters = (
        matrices * vocabulary * width
        + positions
        + layers[0] * (attention + forward[0])
        + layers[1] * (2 * attention + forward[1])
    )
    return Size(parameters, layers, width, heads, vocabulary)


def find_foreign_targets(asked: Iterable[str], *, family: Family) -> list[str]:
    """Return the asked LoRA targets that no model of this family can have."""
    known = {*family.linear, *family.aliases, "embed_tokens", "lm_head"}
    return [name for name in asked if name not in known]


def map_target_names(
    asked: list[str], *, family: Family, present: set[str]
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
            continue
        mapped = [alias for alias in family.aliases.get(name, ()) if alias in present]
        if mapped:
            targets.update(mapped)
            own = ", ".join(mapped)
            notes.append(f"qlora.target_modules: {name} is called {own} in this model")
        else:
            unknown.append(name)
    if unknown:
        raise UnfitError(
            f"qlora.target_modules: {', '.join(unknown)} match(es) no layer of this {family.name} "
            f"model; it has {', '.join(sorted(present))}. Name layers from these, or use auto."
        )
    return sorted(targets), notes

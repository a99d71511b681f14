"""Full-size architectures from config files of this repository, with random weights: no download.

Must not know experiments or devices. From its folder on, such a checkpoint goes the way of a real
one: its tokenizer is trained on the sample and filled up to the real number of pieces, so that
embeddings, head and the rows of new tokens have the sizes that they have with real weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialsum.machine.flops import Attention

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "config" / "architectures"
CLASSES = {
    "mt5": ("MT5Config", "MT5ForConditionalGeneration"),
    "t5": ("T5Config", "T5ForConditionalGeneration"),
    "bart": ("BartConfig", "BartForConditionalGeneration"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen": ("Qwen2Config", "Qwen2ForCausalLM"),
    "gemma": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
    "kogpt2": ("GPT2Config", "GPT2LMHeadModel"),
}
"""Configuration and model of each family in transformers."""
KINDS = {"mt5": "unigram", "t5": "unigram", "bart": "bpe", "llama": "bpe"}
"""Which kind of tokenizer is trained for each family."""
SMALL_PIECES = 1200
SMALL = {
    "mt5": {
        "d_model": 64,
        "d_kv": 32,
        "d_ff": 128,
        "num_heads": 2,
        "num_layers": 1,
        "num_decoder_layers": 1,
    },
    "bart": {
        "d_model": 64,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    },
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}
"""Sizes that replace those of a family where only the way is tried, not the speed."""
FILLER = "\ue000"
"""A character for private use: pieces that begin with it stand in no text."""


@dataclass(frozen=True)
class Architecture:
    """One network without weights.

    Args:
        name: the file's stem.
        family: key of CLASSES.
        pieces: of its tokenizer; the embeddings may have spare rows.
        input_length, target_length: median and standard deviation of the logarithm of the tokens
            of a dialogue and of a summary.
        config: values of the library's configuration class.
    """

    name: str
    family: str
    pieces: int
    input_length: tuple[float, float]
    target_length: tuple[float, float]
    config: dict[str, Any]

    @property
    def attention(self) -> Attention:
        """What its attention computes and keeps."""
        from dialsum.models.checkpoint import measure_attention
        from dialsum.models.families import get_family

        return measure_attention(self.config, family=get_family(self.family))


def read_architecture(name: str, *, small: bool = False) -> Architecture:
    """Read config/architectures/NAME.json.

    Args:
        small: with sizes at which a step takes milliseconds on any processor.
    """
    read = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    config, pieces, family = read["config"], int(read["pieces"]), read["family"]
    if small:
        spare = config["vocab_size"] - pieces
        sizes = SMALL["mt5" if family == "t5" else family]
        pieces = SMALL_PIECES
        config = config | sizes | {"vocab_size": pieces + spare}
    median, spread = read["lengths"]["input"]
    target_median, target_spread = read["lengths"]["target"]
    return Architecture(
        name=name,
        family=family,
        pieces=pieces,
        config=config,
        input_length=(median, spread),
        target_length=(target_median, target_spread),
    )


def make_model(architecture: Architecture, **ids: int | None) -> Any:
    """Return the network with random weights, its head tied or not as the real one's is.

    Args:
        ids: token ids that its configuration names, such as pad_token_id.
    """
    import transformers

    from random_mt5 import start_untied

    config_class, model_class = (
        getattr(transformers, name) for name in CLASSES[architecture.family]
    )
    model: Any = model_class(config_class(**{**architecture.config, **ids}))
    if architecture.family in ("mt5", "t5"):
        start_untied(model, std=architecture.config["d_model"] ** -0.5)
    return model


@cache
def _trained(kind: str) -> str:
    """Return a tokenizer trained on the sample, as JSON."""
    from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
    from dialsum.data.rows import load_split
    from small_tokenizers import train_tokenizer

    rows = load_split(REPOSITORY / "data" / "sample" / "train.csv", kind="train").rows
    texts = [text for row in rows for text in (row.dialogue, row.summary or "")]
    backend: Any = train_tokenizer(
        texts, kind=kind, vocab_size=1000, exclude=STANDARD_DIALOGUE_TOKENS
    ).backend_tokenizer
    return str(backend.to_str())


def make_tokenizer(family: str, *, pieces: int) -> Any:
    """Return a tokenizer with exactly so many pieces, of which the sample needs the first few."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from dialsum.models.tokenizers import SPECIAL_NAMES

    content = json.loads(_trained(KINDS[family]))
    vocabulary = content["model"]["vocab"]
    missing = range(len(vocabulary), pieces)
    if isinstance(vocabulary, dict):
        vocabulary |= {f"{FILLER}{piece}": piece for piece in missing}
    else:
        lowest = min(score for _, score in vocabulary)
        vocabulary += [[f"{FILLER}{piece}", lowest - 10.0] for piece in missing]
    backend = Tokenizer.from_str(json.dumps(content))
    known = backend.get_vocab()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        **{key: token for key, token in SPECIAL_NAMES.items() if token in known},
    )


def ensure_checkpoint(root: Path, name: str, *, small: bool = False, seed: int = 42) -> Path:
    """Return the folder of an architecture's checkpoint below root, written if it is not there."""
    import torch

    folder = root / name
    if folder.is_dir():
        return folder
    architecture = read_architecture(name, small=small)
    tokenizer = make_tokenizer(architecture.family, pieces=architecture.pieces)
    torch.manual_seed(seed)
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = {"pad_token_id": padding, "eos_token_id": end, "bos_token_id": tokenizer.bos_token_id}
    if architecture.family != "llama":
        ids["decoder_start_token_id"] = end if architecture.family == "bart" else padding
    if architecture.family == "bart":
        ids["forced_eos_token_id"] = None
    unfinished = root / f"{name}.unfinished"
    make_model(architecture, **ids).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
    return folder

"""Makes small real checkpoints, tokenizers and configs for the tests that load or train models.

Loads transformers only when a function is called. The weights are random; file formats, tying and
spare rows are those of the real checkpoints: mT5 and T5 v1.1 with a head of their own, T5 v1 and
BART with one tied to the embeddings.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config, Prompt
from dialsum.data.prompts import use_template
from dialsum.data.rows import load_splits
from dialsum.models.families import FAMILIES

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "data" / "sample"
SPARE_ROWS = 12
"""Rows of the embeddings beyond the tokenizer's pieces: mT5 has 250,112 for 250,100."""
KINDS = {"mt5": "unigram", "t5": "unigram", "t5_v1_1": "unigram", "bart": "bpe"}
"""Which kind of tokenizer each sort of checkpoint has."""
UNTIED = ("mt5", "t5_v1_1")

Checkpoints = Callable[..., Path]
"""Sort and weight file to the folder of a checkpoint, as the fixture `checkpoints` is."""


class Malicious:
    """What a pickle may hold: a command that runs when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def session_folder() -> Path:
    """Return a new folder that lasts as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="dialsum-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_checkpoint(architecture: str) -> Path:
    """Return the folder of the demo's checkpoint of an architecture."""
    from dialsum.models.tiny import make_tiny_checkpoints

    made = make_tiny_checkpoints(
        session_folder(), SAMPLE / "train.csv", architectures=[architecture]
    )
    return made[0]


def sample_texts() -> list[str]:
    """Return the dialogues and summaries of the sample's train rows."""
    rows = load_splits(SAMPLE / "train.csv", SAMPLE / "dev.csv", test=None).train.rows
    return [text for row in rows for text in (row.dialogue, row.summary or "")]


def train_sample_tokenizer(kind: str) -> Any:
    """Train a tokenizer on the sample, without any dialogue token added."""
    from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS

    # pytest's own path does not reach the processes that tests start.
    sys.path.append(str(SAMPLE.parent.parent / "benchmarks"))
    from small_tokenizers import train_tokenizer

    return train_tokenizer(
        sample_texts(), kind=kind, vocab_size=1000, exclude=STANDARD_DIALOGUE_TOKENS
    )


def write_checkpoint(
    folder: Path,
    sort: str,
    *,
    tokenizer: Any,
    width: int = 16,
    positions: int = 512,
    file: str = "safetensors",
) -> Path:
    """Write config.json, random weights and tokenizer as a hub checkpoint has them.

    Args:
        sort: mt5, t5, t5_v1_1 or bart.
        width: d_model; a multiple of 64 where 4-bit layers are to compute on a CPU.
        positions: longest input of BART.
        file: safetensors or pytorch_model.bin.
    """
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(7)
    model = make_model(sort, tokenizer=tokenizer, width=width, positions=positions)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    # On disk a tied weight stands once, under its first name.
    for name in list(state):
        if name != "lm_head.weight" and name.endswith("embed_tokens.weight"):
            del state[name]
    if sort not in UNTIED:
        state.pop("lm_head.weight")
    if file == "safetensors":
        save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")
    description = model.config.to_dict() | {"tie_word_embeddings": sort not in UNTIED}
    (folder / "config.json").write_text(json.dumps(description, default=str), encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder


def make_model(sort: str, *, tokenizer: Any, width: int, positions: int = 512) -> Any:
    """Return a model of one layer a stack with random weights, its head untied where theirs is."""
    import torch
    import transformers

    rows = len(tokenizer) + SPARE_ROWS
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if sort == "bart":
        return transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                vocab_size=rows,
                d_model=width,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=2 * width,
                decoder_ffn_dim=2 * width,
                max_position_embeddings=positions,
                init_std=0.1,
                decoder_start_token_id=tokenizer.eos_token_id,
                bos_token_id=tokenizer.bos_token_id,
                **ends,
            )
        ).eval()
    family = "MT5" if sort == "mt5" else "T5"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=rows,
        d_model=width,
        d_kv=width // 2,
        num_heads=2,
        d_ff=2 * width,
        num_layers=1,
        num_decoder_layers=1,
        decoder_start_token_id=tokenizer.pad_token_id,
        feed_forward_proj="relu" if sort == "t5" else "gated-gelu",
        tie_word_embeddings=sort not in UNTIED,
        **ends,
    )
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    if sort in UNTIED:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(rows, width))
    return model.eval()


def load_decoder(name: str) -> tuple[Any, Any]:
    """Return the demo's model without an encoder of an architecture, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from dialsum.models.load import forget_own_search
    from dialsum.models.tokenizers import load_tokenizer

    folder = tiny_checkpoint(name)
    tokenizer = load_tokenizer(folder)
    use_template(tokenizer, Prompt(), chat=FAMILIES[name].chat, source=name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    forget_own_search(model, pad=tokenizer.pad_token_id, end=tokenizer.eos_token_id)
    return model, tokenizer


def make_config(
    sort: str, checkpoint: Path | str, *, lengths: tuple[int, int] = (64, 32), **sections: Any
) -> Config:
    """Return a whole config for a checkpoint; sections add to or replace what stands here."""
    base: dict[str, Any] = {
        "model": {"architecture": sort.partition("_")[0], "checkpoint": str(checkpoint)},
        "tokenizer": {"encoder_max_len": lengths[0], "decoder_max_len": lengths[1]},
        "training": {
            "learning_rate": 1e-2,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "lr_scheduler_type": "constant",
            "eval_steps": 1,
        },
        "qlora": {"use_qlora": False, "load_in_4bit": False},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return Config.model_validate(base)


def read_weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint folder as they stand in its file."""
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if path.is_file():
        return load_file(str(path))
    state: dict[str, Any] = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return state

"""One side of benchmarks/train.py in its own process: the model, the rows, and both trainers."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bare_loop import make_bare_loop
from dialsum.machine.driver import peak_resident_bytes
from random_mt5 import write_random_mt5

REPOSITORY = Path(__file__).resolve().parent.parent
BATCH, ACCUMULATION = 6, 4
LENGTHS = (512, 128)


@dataclass(frozen=True)
class Side:
    """A way to train.

    Args:
        says: what it is, in the table.
        settings: configuration keys that differ from the project's own way.
        attention: the network's implementation of it; None: as loaded.
        compiled: encoder and decoder go through torch.compile.
        stock: trained by the library's own trainer.
    """

    says: str
    settings: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None
    compiled: bool = False
    stock: bool = False


SIDES = {
    "stock": Side("Seq2SeqTrainer, random batches", stock=True),
    "random": Side(
        "ours, random batches: what the head and learned rows give",
        {"training.train_sampling_strategy": "random"},
    ),
    "ours": Side("ours, token budget"),
    "trimmed-random": Side(
        "ours, random batches, vocabulary trimmed",
        {"tokenizer.trim_vocabulary": True, "training.train_sampling_strategy": "random"},
    ),
    "trimmed": Side("ours, token budget, vocabulary trimmed", {"tokenizer.trim_vocabulary": True}),
}
OPTIONS = {
    "eager": Side("ours, attention without SDPA", attention="eager"),
    "fused": Side("ours, fused AdamW", {"training.optim": "adamw_torch_fused"}),
    "adamw8bit": Side("ours, AdamW with 8-bit states", {"training.optim": "adamw_bnb_8bit"}),
    "compiled": Side("ours, torch.compile with dynamic shapes", compiled=True),
    "checkpointing": Side(
        "ours, gradient checkpointing", {"training.gradient_checkpointing": True}
    ),
}
ALL_SIDES = SIDES | OPTIONS


def write_checkpoint(asked: argparse.Namespace) -> dict[str, Any]:
    """Write a model of mT5's kind from random weights, as small or large as asked."""
    write_random_mt5(
        asked.folder / "checkpoint",
        tokenizer=asked.tokenizer,
        width=asked.d_model,
        d_ff=asked.d_model * 8 // 3,
        layers=asked.layers,
    )
    return {}


def make_config(asked: argparse.Namespace) -> Any:
    """Return the first experiment's values for this model and these rows."""
    from dialsum.config.load import load_config

    values = {
        "model.checkpoint": str(asked.folder / "checkpoint"),
        "data.data_dir": str(asked.data.resolve().parent),
        "data.train_file": asked.data.name,
        "data.max_train_rows": asked.steps * BATCH * ACCUMULATION,
        "data.cache_dir": None,
        "training.max_steps": asked.steps,
        "training.eval_steps": 10 * asked.steps,
        "training.logging_steps": 1,
        "training.warmup_steps": 0.1,
        "training.learning_rate": 1e-3,
        "training.gradient_checkpointing": False,
        "general.device": "cpu",
    } | ALL_SIDES[asked.side].settings
    return load_config(
        REPOSITORY / "config/experiments/01_mt5_xlsum_optimized_v2.yaml",
        overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()],
    ).config


def run_side(asked: argparse.Namespace) -> dict[str, Any]:
    """Train one side and return its figures."""
    import torch

    from dialsum.data.encode import EncodeSettings, encode_rows
    from dialsum.experiment.run import prepare_model, prepare_tokenizer, read_splits

    torch.set_num_threads(asked.threads)
    side, config = ALL_SIDES[asked.side], make_config(asked)
    splits = read_splits(config)
    tokens = prepare_tokenizer(config, splits, tiny_folder=asked.folder)
    model = prepare_model(
        config,
        tokens,
        device="cpu",
        dtype=torch.float32,
        gradient_checkpointing=bool(config.training.gradient_checkpointing),
    ).adapted.model
    if side.stock:
        use_peft_s_own_rows(model)
    if side.attention is not None:
        model.get_base_model().set_attn_implementation(side.attention)
    if side.compiled:
        base = model.get_base_model()  # whose parts the loss calls, not the whole
        base.get_encoder().compile(dynamic=True)
        base.get_decoder().compile(dynamic=True)
    settings = EncodeSettings(config.tokenizer.input_prefix, *LENGTHS)
    encoded = encode_rows(splits.train.rows, tokens.tokenizer, settings)
    real = int(encoded.input_lengths.sum() + encoded.target_lengths.sum())
    before = peak_resident_bytes()
    if side.stock:
        seconds, losses, positions = train_stock(model, tokens.tokenizer, encoded, asked=asked)
    else:
        seconds, losses, positions = train_ours(
            model, tokens.tokenizer, encoded, config=config, asked=asked
        )
    tail = losses[-max(1, len(losses) // 4) :]
    return {
        "seconds": seconds,
        "tokens": real,
        "tokens_per_second": real / seconds,
        "peak_bytes": peak_resident_bytes(),
        "loaded_bytes": before,
        "padding": 1 - real / positions,
        "first_loss": losses[0],
        "last_loss": sum(tail) / len(tail),
    }


def use_peft_s_own_rows(model: Any) -> None:
    """Let rows of new tokens be learned as PEFT does it: each pass copies the whole matrix."""
    for layer in model.modules():
        vars(layer).pop("forward_adapters", None)


def train_stock(
    model: Any, tokenizer: Any, encoded: Any, *, asked: argparse.Namespace
) -> tuple[float, list[float], int]:
    """Train by the library's own means; return seconds, losses, and positions computed."""
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from dialsum.train.loss import IGNORED, sum_token_losses

    positions = [0]
    collate = DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=IGNORED)

    def counting(rows: Any) -> Any:
        batch = collate(rows)
        positions[0] += batch["input_ids"].numel() + batch["labels"].numel()
        return batch

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return sum_token_losses(outputs.logits, labels) / num_items_in_batch

    rows = {
        "input_ids": [list(encoded.inputs[row]) for row in range(len(encoded))],
        "labels": [list(encoded.targets[row]) for row in range(len(encoded))],
    }
    trainer = Seq2SeqTrainer(
        model=model,
        train_dataset=Dataset.from_dict(rows),
        data_collator=counting,
        compute_loss_func=loss,
        args=Seq2SeqTrainingArguments(
            output_dir=str(asked.folder / "stock"),
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            max_steps=asked.steps,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=42,
            log_level="error",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return seconds, losses, positions[0]


def train_ours(
    model: Any, tokenizer: Any, encoded: Any, *, config: Any, asked: argparse.Namespace
) -> tuple[float, list[float], int]:
    """Train as trainer.py does, without the evaluation at the end."""
    import torch

    from dialsum.train.passes import Machine

    machine = Machine(
        torch.device("cpu"), gradient_checkpointing=bool(config.training.gradient_checkpointing)
    )
    folder = asked.folder / asked.side
    folder.mkdir()
    loop = make_bare_loop(
        model,
        tokenizer,
        encoded,
        config=config,
        machine=machine,
        batch=(BATCH, ACCUMULATION),
        folder=folder,
    )
    began = time.perf_counter()
    loop.run()
    seconds = time.perf_counter() - began
    losses = [line["loss"] for line in loop.state.log_history if "loss" in line]
    inputs, targets = encoded.input_lengths, encoded.target_lengths
    positions = sum(
        len(rows) * int(inputs[rows].max() + targets[rows].max())
        for step in loop.task.steps(0)
        for rows in step
    )
    return seconds, losses, positions

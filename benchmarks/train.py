"""Training as it is here beside the stock recipe: tokens per second, peak memory, padding, loss.

    python benchmarks/train.py --tokenizer FOLDER --data FILE

The first experiment's batch (6 x 4 rows, 512/128 tokens, LoRA r 48 on a 4-bit base, AdamW) on a
model of mT5's kind from random weights, with the 250,112 rows of mT5's vocabulary. Stock is
transformers' Seq2SeqTrainer with dynamic padding and rows drawn at random, PEFT and bitsandbytes as
their guides show them, its loss scaled right (compute_loss_func), so that both learn the same. The
other sides change one thing at a time. Every side sees the same rows as often, in a process of its
own, one after the other. FOLDER holds mT5's tokenizer, FILE rows as data/train.csv has them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import run_script

REPOSITORY = Path(__file__).resolve().parent.parent
VOCABULARY = 250_112
BATCH, ACCUMULATION = 6, 4
LENGTHS = (512, 128)
SIDES = {
    "stock": "Seq2SeqTrainer, random batches",
    "random": "ours, random batches: what the head alone gives",
    "ours": "ours, token budget",
    "trimmed": "ours, token budget, vocabulary trimmed",
}


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tokenizer", type=Path, required=True, metavar="FOLDER", help="mT5's tokenizer")
    add("--data", type=Path, default=REPOSITORY / "data/sample/train.csv", metavar="FILE",
        help="train rows (default: the sample's)")
    add("--steps", type=int, default=16, help="optimizer steps of 24 rows (default: 16)")
    add("--d-model", type=int, default=256, help="width of the model (default: 256)")
    add("--layers", type=int, default=4, help="layers of encoder and decoder (default: 4)")
    add("--threads", type=int, default=2, help="processor threads (default: 2)")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="what to compare")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    add("--side", choices=[*SIDES, "write"], help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def write_checkpoint(asked: argparse.Namespace) -> dict[str, Any]:
    """Write a model of mT5's kind from random weights, as small or large as asked."""
    import torch
    from transformers import MT5Config, MT5ForConditionalGeneration

    from dialsum.model.embeddings import untie_head
    from dialsum.model.tokenizers import load_tokenizer

    torch.manual_seed(42)
    width = asked.d_model
    model = MT5ForConditionalGeneration(MT5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=64, num_heads=width // 64, d_ff=width * 8 // 3,
        num_layers=asked.layers, num_decoder_layers=asked.layers, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        dropout_rate=0.0,
    ))
    untie_head(model)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        torch.nn.init.normal_(layer.weight, std=width**-0.5)
    model.save_pretrained(asked.folder / "checkpoint")
    load_tokenizer(asked.tokenizer).save_pretrained(asked.folder / "checkpoint")
    return {}


def make_config(asked: argparse.Namespace) -> Any:
    """Return the first experiment's values for this model and these rows."""
    from dialsum.config.read import load_config

    values = {
        "model.checkpoint": str(asked.folder / "checkpoint"),
        "data.data_dir": str(asked.data.resolve().parent), "data.train_file": asked.data.name,
        "data.max_train_rows": asked.steps * BATCH * ACCUMULATION, "data.cache_dir": None,
        "tokenizer.trim_vocabulary": asked.side == "trimmed",
        "training.max_steps": asked.steps, "training.eval_steps": 10 * asked.steps,
        "training.logging_steps": 1, "training.warmup_steps": 0.1, "training.learning_rate": 1e-3,
        "training.train_sampling_strategy": "random" if asked.side == "random" else "token_budget",
        "training.gradient_checkpointing": False, "general.device": "cpu",
    }
    return load_config(
        REPOSITORY / "config/experiments/01_mt5_xlsum_optimized_v2.yaml",
        overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()],
    ).config


def run_side(asked: argparse.Namespace) -> dict[str, Any]:
    """Train one side and return its figures."""
    import torch

    from dialsum.data.encode import encode_rows
    from dialsum.experiment.prepare import prepare_model, prepare_tokenizer, read_splits

    torch.set_num_threads(asked.threads)
    config = make_config(asked)
    splits = read_splits(config)
    tokens = prepare_tokenizer(config, splits, tiny_folder=asked.folder)
    model = prepare_model(
        config, tokens, device="cpu", dtype=torch.float32, gradient_checkpointing=False
    ).adapted.model
    encoded = encode_rows(
        splits.train.rows, tokens.tokenizer, prefix=config.tokenizer.input_prefix,
        encoder_max_len=LENGTHS[0], decoder_max_len=LENGTHS[1],
    )
    real = int(encoded.input_lengths.sum() + encoded.target_lengths.sum())
    before = _peak_bytes()
    if asked.side == "stock":
        seconds, losses, positions = train_stock(model, tokens.tokenizer, encoded, asked=asked)
    else:
        seconds, losses, positions = train_ours(model, tokens.tokenizer, encoded, config=config,
                                                asked=asked)
    tail = losses[-max(1, len(losses) // 4):]
    return {
        "seconds": seconds, "tokens": real, "tokens_per_second": real / seconds,
        "peak_bytes": _peak_bytes(), "loaded_bytes": before, "padding": 1 - real / positions,
        "first_loss": losses[0], "last_loss": sum(tail) / len(tail),
    }


def train_stock(
    model: Any, tokenizer: Any, encoded: Any, *, asked: argparse.Namespace
) -> tuple[float, list[float], int]:
    """Train by the library's own means; return seconds, losses, and positions computed."""
    from datasets import Dataset
    from transformers import (
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
    )
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
        model=model, train_dataset=Dataset.from_dict(rows), data_collator=counting,
        compute_loss_func=loss,
        args=Seq2SeqTrainingArguments(
            output_dir=str(asked.folder / "stock"), per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION, max_steps=asked.steps, learning_rate=1e-3,
            lr_scheduler_type="cosine", warmup_steps=0.1, logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=True, seed=42, log_level="error",
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
    from dialsum.model.generate import GenerationSettings
    from dialsum.train.arguments import TrainingPlan, make_arguments
    from dialsum.train.evaluation import DevSet
    from dialsum.train.fit import Material, Places, make_trainer, supervise
    from dialsum.train.progress import Progress

    plan = TrainingPlan(
        batch_size=BATCH, accumulation=ACCUMULATION, rows=len(encoded), bf16=False, fp16=False,
        tf32=False, gradient_checkpointing=False, num_workers=0, use_cpu=True,
    )
    folder = asked.folder / asked.side
    folder.mkdir()
    arguments = make_arguments(config, plan=plan, checkpoints=folder / "checkpoints")
    supervision = supervise(
        config, config_sha256="", plan=plan,
        material=Material(
            train=encoded, names=[""] * len(encoded), sha256="",
            dev=DevSet(
                encoded=encoded.first(1), tokenizer=tokenizer, score=lambda _: {}, batch_size=1,
                settings=GenerationSettings.from_config(config, exempt=(), bf16=False),
            ),
        ),
        places=Places(checkpoints=folder / "checkpoints", nan_report=folder / "nan.json"),
        progress=Progress(folder / "metrics.jsonl", tensorboard=None),
    )
    trainer = make_trainer(model, config=config, arguments=arguments, supervision=supervision)
    trainer.evaluate = lambda *_, **__: {"eval_rouge_mean": 0.0}
    trainer._save_checkpoint = lambda *_, **__: None
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    inputs, targets = encoded.input_lengths, encoded.target_lengths
    positions = sum(
        len(rows) * int(inputs[rows].max() + targets[rows].max())
        for step in supervision.order.steps(0) for rows in step
    )
    return seconds, losses, positions


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every side in a process of its own and return their figures."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("write", *asked.sides):
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder],
                stdout=subprocess.PIPE, text=True, check=True,
                env=os.environ | {
                    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(asked.threads),
                    "OMP_WAIT_POLICY": "PASSIVE",
                },
            )
            if side != "write":
                found[side] = json.loads(done.stdout.splitlines()[-1])
                show(side, found[side], found[asked.sides[0]])
    return found


def show(side: str, one: dict[str, Any], first: dict[str, Any]) -> None:
    """Print one side's line, with its ratios to the first."""
    print(
        f"{side:>8}  {one['tokens_per_second']:7.0f} tokens/s "
        f"x {one['tokens_per_second'] / first['tokens_per_second']:4.2f}  "
        f"peak {one['peak_bytes'] / 2**30:5.2f} GiB "
        f"x {one['peak_bytes'] / first['peak_bytes']:4.2f}  padding {100 * one['padding']:4.1f} %  "
        f"loss {one['first_loss']:.3f} -> {one['last_loss']:.3f}  {SIDES[side]}", flush=True,
    )


def say_bound(found: dict[str, dict[str, Any]]) -> None:
    """Print what leaving out padding alone could give, and how much of it was had."""
    if not {"random", "ours", "stock"} <= set(found):
        return
    none = 1 / (1 - found["stock"]["padding"])
    had = found["ours"]["tokens_per_second"] / found["random"]["tokens_per_second"]
    print(f"no padding at all would give x {none:.2f}; the token budget gives x {had:.2f} over "
          f"random batches of the same trainer: {100 * had / none:.0f} % of it")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the sides and return the exit status."""
    asked = make_parser().parse_args(arguments)
    if asked.side:
        print(json.dumps(write_checkpoint(asked) if asked.side == "write" else run_side(asked)))
        return 0
    print(f"mT5's kind, width {asked.d_model}, {asked.layers}+{asked.layers} layers, "
          f"{VOCABULARY:,} pieces, {asked.steps} steps of {BATCH} x {ACCUMULATION} rows, "
          f"{asked.threads} threads")
    found = measure(asked)
    say_bound(found)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_script(main)

"""One side of benchmarks/train.py in its own process: the model, the rows, and both trainers."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bare_loop import make_bare_loop
from dialsum.machine.devices import peak_resident_bytes
from random_mt5 import write_random_mt5

REPOSITORY = Path(__file__).resolve().parent.parent
BATCH, ACCUMULATION = 6, 4
LENGTHS = (512, 128)
DEV_ROWS = 100
LOOKS = 8
"""Times that the dev loss is measured within --seconds."""


@dataclass(frozen=True)
class Side:
    """A way to train.

    Args:
        says: what it is, in the table.
        settings: configuration keys that differ from the project's own way.
        attention: the network's implementation of it; None: as loaded.
        compiled: encoder and decoder go through torch.compile.
        plain: model and adapters are made by transformers and PEFT alone, rows of new tokens
            frozen, and trained by the library's trainer.
        stock: the project's model with PEFT's own rows of new tokens, the library's trainer.
        grouped: the library's trainer groups rows by length.
        trimmed: the vocabulary is cut to what the rows need (scripts/trim_vocabulary.py).
    """

    says: str
    settings: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None
    compiled: bool = False
    plain: bool = False
    stock: bool = False
    grouped: bool = False
    trimmed: bool = False


RANDOM = {"training.train_sampling_strategy": "random"}
SIDES = {
    "peer": Side("transformers + PEFT, new rows frozen, group_by_length", plain=True, grouped=True),
    "peer-random": Side("the same, random batches", plain=True),
    "stock": Side("Seq2SeqTrainer, PEFT's learned rows, random batches", stock=True),
    "random": Side("ours, random batches", RANDOM),
    "ours": Side("ours, token budget"),
    "trimmed": Side("ours, token budget, vocabulary trimmed", trimmed=True),
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


@dataclass
class Look:
    """The training's own time, and dev losses measured outside of it.

    Args:
        measure: returns the dev loss.
        until: seconds of training; None: by steps, without looks.
    """

    measure: Callable[[], float]
    until: float | None
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    began: float = 0.0
    aside: float = 0.0
    rehearsal: float = 0.0

    def after(self, step: int) -> bool:
        """Take a look where one is due; say whether the time is up."""
        spent = time.perf_counter() - self.began - self.aside
        if self.until is None or spent < self.until * (len(self.curve) + 1) / LOOKS:
            return False
        start = time.perf_counter()
        self.curve.append((round(spent, 1), step, self.measure()))
        self.aside += time.perf_counter() - start
        return spent >= self.until


def write_checkpoint(asked: argparse.Namespace) -> dict[str, Any]:
    """Write a model of mT5's kind from random weights, as small or large as asked."""
    write_random_mt5(
        asked.folder / "checkpoint",
        tokenizer=asked.tokenizer,
        width=asked.d_model,
        d_ff=asked.d_model * 8 // 3 // 64 * 64,  # whole blocks, as bitsandbytes packs them
        layers=asked.layers,
    )
    if any(ALL_SIDES[side].trimmed for side in asked.sides):
        from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
        from dialsum.data.rows import load_split
        from dialsum.models.trim import trim_checkpoint

        rows = load_split(asked.data, kind="train").rows
        texts = [text for row in rows for text in (f"요약: {row.dialogue}", row.summary or "")]
        tokens = list(STANDARD_DIALOGUE_TOKENS)
        trim_checkpoint(
            asked.folder / "checkpoint", asked.folder / "trimmed", texts=texts, new_tokens=tokens
        )
    return {}


def make_config(asked: argparse.Namespace) -> Any:
    """Return the first experiment's values for this model and these rows."""
    from dialsum.config.load import load_config

    timed = asked.seconds is not None
    folder = "trimmed" if ALL_SIDES[asked.side].trimmed else "checkpoint"
    values = {
        "model.checkpoint": str(asked.folder / folder),
        "data.data_dir": str(asked.data.resolve().parent),
        "data.train_file": asked.data.name,
        # All of them, as in a real run: of a few rows nobody can put like lengths together.
        "data.max_train_rows": None,
        "data.max_dev_rows": DEV_ROWS,
        "data.cache_dir": None,
        "training.max_steps": max(1, int(asked.seconds)) if timed else asked.steps,
        "training.eval_steps": 1 if timed else 10 * asked.steps,
        "training.early_stopping_patience": None,
        "training.logging_steps": 1,
        # A curve to be read at any time must not depend on where it was to end.
        "training.lr_scheduler_type": "constant_with_warmup" if timed else "cosine",
        "training.warmup_steps": 10 if timed else 0.1,
        "training.learning_rate": 1e-3,
        "training.gradient_checkpointing": False,
        "training.seed": asked.seed,
        "general.device": "cpu",
    } | ALL_SIDES[asked.side].settings
    return load_config(
        REPOSITORY / "config/experiments/01_mt5_xlsum_optimized_v2.yaml",
        overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()],
    ).config


def run_side(asked: argparse.Namespace) -> dict[str, Any]:
    """Train one side and return its figures."""
    import torch

    from dialsum.data.encode import dialogue_tokens, encode_rows
    from dialsum.data.rows import read_data
    from dialsum.models.load import (
        open_checkpoint,
        prepare_model,
        prepare_tokenizer,
        quiet_libraries,
    )

    quiet_libraries()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    side, config = ALL_SIDES[asked.side], make_config(asked)
    splits = read_data(config.data, seed=config.training.seed)
    checkpoint = open_checkpoint(config)
    tags = dialogue_tokens(config.tokenizer, splits.train.rows)
    tokens = prepare_tokenizer(checkpoint, config, tags=tags)
    if side.plain:
        model = load_plain(asked.folder / "checkpoint", tokens.tokenizer, config)
    else:
        model = prepare_model(
            checkpoint,
            config,
            tokens,
            device="cpu",
            dtype=torch.float32,
            gradient_checkpointing=bool(config.training.gradient_checkpointing),
        ).model
    if side.stock:
        use_peft_s_own_rows(model)
    if side.attention is not None:
        model.get_base_model().set_attn_implementation(side.attention)
    if side.compiled:
        base = model.get_base_model()  # whose parts the loss calls, not the whole
        base.get_encoder().compile(dynamic=True)
        base.get_decoder().compile(dynamic=True)
    lengths = dict(zip(("encoder_max_len", "decoder_max_len"), LENGTHS, strict=True))
    settings = config.tokenizer.model_copy(update=lengths)
    train, dev = (
        encode_rows(split.rows, tokens.tokenizer, settings) for split in (splits.train, splits.dev)
    )
    before = peak_resident_bytes()
    look = Look(lambda: measure_dev_loss(model, dev, tokens.tokenizer), asked.seconds)
    run = train_plainly if side.plain or side.stock else train_ours
    losses, passes = run(model, tokens.tokenizer, train, config=config, asked=asked, look=look)
    seconds = time.perf_counter() - look.began - look.aside
    real, positions = (sum(counts) for counts in zip(*passes, strict=True))
    tail = losses[-max(1, len(losses) // 4) :]
    return {
        "seconds": seconds,
        "steps": len(losses),
        "tokens_per_second": real / seconds,
        "peak_bytes": peak_resident_bytes(),
        "loaded_bytes": before,
        "rehearsal_seconds": look.rehearsal,
        "padding": 1 - real / positions,
        "first_loss": losses[0],
        "last_loss": sum(tail) / len(tail),
        "curve": look.curve,
    }


def load_plain(checkpoint: Path, tokenizer: Any, config: Any) -> Any:
    """Return what a plain script has: a 4-bit base, adapters on all linear layers, nothing else."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig

    from dialsum.models.load import compute_as_in_training

    model = AutoModelForSeq2SeqLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    # On some CPUs an evaluation would leave it learning wrongly; no GPU has that.
    compute_as_in_training(model)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    asked = config.qlora
    return get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=asked.lora_rank,
            lora_alpha=asked.lora_alpha,
            lora_dropout=asked.lora_dropout,
            target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
        ),
    )


def use_peft_s_own_rows(model: Any) -> None:
    """Let rows of new tokens be learned as PEFT does it: each pass copies the whole matrix."""
    for layer in model.modules():
        vars(layer).pop("forward_adapters", None)


def measure_dev_loss(model: Any, rows: Any, tokenizer: Any) -> float:
    """Return the mean loss per target token, without dropout; for every side the same."""
    import torch

    from dialsum.train.task import BatchShape, SummaryTask, count_targets

    task = SummaryTask(
        rows,
        names=[""] * len(rows),
        sha256="",
        shape=BatchShape(1, 1, max_input=1, max_target=1),
        seed=0,
        pad_token_id=tokenizer.pad_token_id,
    )
    order = sorted(range(len(rows)), key=lambda row: len(rows.inputs[row]))
    batches = [task[order[start : start + 10]] for start in range(0, len(order), 10)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        total = sum(float(task.loss(model, batch, count=1)) for batch in batches)
    model.train(was_training)
    return total / count_targets(batches)


def train_plainly(
    model: Any, tokenizer: Any, rows: Any, *, config: Any, asked: argparse.Namespace, look: Look
) -> tuple[list[float], list[tuple[int, int]]]:
    """Train by the library's own means; return losses, and tokens and positions of each pass."""
    import torch
    from datasets import Dataset
    from transformers import (
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )
    from transformers.trainer_callback import PrinterCallback

    passes: list[tuple[int, int]] = []
    collate = DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=-100)

    def counting(batch_rows: Any) -> Any:
        batch = collate(batch_rows)
        real = int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())
        passes.append((real, batch["input_ids"].numel() + batch["labels"].numel()))
        return batch

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        logits = outputs.logits.flatten(0, 1).float()
        summed = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum")
        return summed / num_items_in_batch

    class Looking(TrainerCallback):
        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= look.after(state.global_step)

    grouped = ALL_SIDES[asked.side].grouped
    schedule = config.training
    trainer = Seq2SeqTrainer(
        model=model,
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [list(rows.inputs[row]) for row in range(len(rows))],
                "labels": [list(rows.targets[row]) for row in range(len(rows))],
            }
        ),
        data_collator=counting,
        compute_loss_func=loss,
        callbacks=[Looking()],
        args=Seq2SeqTrainingArguments(
            output_dir=str(asked.folder / asked.side),
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            train_sampling_strategy="group_by_length" if grouped else "random",
            max_steps=schedule.max_steps,
            learning_rate=schedule.learning_rate,
            lr_scheduler_type=schedule.lr_scheduler_type,
            warmup_steps=schedule.warmup_steps,
            weight_decay=schedule.weight_decay,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=asked.seed,
            log_level="error",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    look.began = time.perf_counter()
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, passes[: len(losses) * ACCUMULATION]  # the loader makes one ahead


def train_ours(
    model: Any, tokenizer: Any, rows: Any, *, config: Any, asked: argparse.Namespace, look: Look
) -> tuple[list[float], list[tuple[int, int]]]:
    """Train as trainer.py does, without evaluations and checkpoints; returns as train_plainly."""
    import torch

    from dialsum.train.task import Machine

    machine = Machine(
        torch.device("cpu"), gradient_checkpointing=bool(config.training.gradient_checkpointing)
    )
    folder = asked.folder / asked.side
    folder.mkdir()
    loop = make_bare_loop(
        model,
        tokenizer,
        rows,
        config=config,
        machine=machine,
        batch=(BATCH, ACCUMULATION),
        folder=folder,
    )

    def after_step() -> bool:
        if look.after(loop.state.global_step):
            loop.places.stop.touch()
        return False

    rehearse = loop.rehearse

    def rehearse_aside() -> None:
        """Time the passes before the first step by themselves: four steps would bear as much of
        them as a night's."""
        start = time.perf_counter()
        rehearse()
        look.rehearsal = time.perf_counter() - start
        look.aside += look.rehearsal

    loop._evaluate, loop.rehearse = after_step, rehearse_aside
    look.began = time.perf_counter()
    loop.run()
    losses = [line["loss"] for line in loop.state.log_history if "loss" in line]
    inputs, targets = rows.input_lengths, rows.target_lengths
    steps: list[Any] = []
    for epoch in range(loop.state.num_train_epochs):
        steps += loop.task.steps(epoch) if len(steps) < len(losses) else []
    return losses, [
        (
            int((inputs[one] + targets[one]).sum()),
            len(one) * int(inputs[one].max() + targets[one].max()),
        )
        for step in steps[: len(losses)]
        for one in step
    ]

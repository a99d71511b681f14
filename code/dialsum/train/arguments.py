"""Config to transformers' training arguments: every key of the training section arrives.

Must not know models or data beyond their sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainingArguments


@dataclass(frozen=True)
class TrainingPlan:
    """The choices that are made when data and device are known.

    Args:
        batch_size, accumulation: rows per forward pass and forward passes per optimizer step.
        rows: training rows.
        bf16, fp16, tf32: precision in use.
        gradient_checkpointing: recompute activations.
        num_workers: processes that prepare batches.
        use_cpu: keep everything on the CPU even where there is a GPU.
    """

    batch_size: int
    accumulation: int
    rows: int
    bf16: bool
    fp16: bool
    tf32: bool
    gradient_checkpointing: bool
    num_workers: int
    use_cpu: bool

    @property
    def effective_batch_size(self) -> int:
        """Rows per optimizer step."""
        return self.batch_size * self.accumulation


def count_steps(config: Config, *, rows: int, batch_size: int, accumulation: int) -> int:
    """Return a run's optimizer steps: max_steps, else epochs over rows, partial steps counted."""
    if config.training.max_steps is not None:
        return config.training.max_steps
    batches = math.ceil(rows / batch_size)
    return math.ceil(config.training.num_train_epochs * math.ceil(batches / accumulation))


def evaluation_steps(config: Config, total_steps: int) -> tuple[int, int]:
    """Return the steps between evaluations and between checkpoints, within the run's length.

    A run shorter than eval_steps is evaluated once, at its end.
    """
    evaluate = min(config.training.eval_steps, total_steps)
    save = config.training.save_steps or config.training.eval_steps
    return evaluate, min(save, total_steps) if save % evaluate == 0 else evaluate


def make_arguments(
    config: Config, *, plan: TrainingPlan, checkpoints: Path
) -> Seq2SeqTrainingArguments:
    """Build the arguments of the trainer.

    Args:
        plan: what data and device decided.
        checkpoints: folder of the training checkpoints.
    """
    from transformers import Seq2SeqTrainingArguments

    asked = config.training
    total = count_steps(
        config, rows=plan.rows, batch_size=plan.batch_size, accumulation=plan.accumulation
    )
    evaluate, save = evaluation_steps(config, total)
    precision: dict[str, Any] = {"tf32": True} if plan.tf32 else {}
    if plan.gradient_checkpointing:
        precision["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    return Seq2SeqTrainingArguments(
        output_dir=str(checkpoints),
        # The loader hands out whole optimizer steps, the passes of which are ours to add up.
        per_device_train_batch_size=plan.batch_size, gradient_accumulation_steps=1,
        num_train_epochs=asked.num_train_epochs, max_steps=asked.max_steps or -1,
        learning_rate=asked.learning_rate, lr_scheduler_type=asked.lr_scheduler_type,
        lr_scheduler_kwargs=dict(asked.lr_scheduler_kwargs), warmup_steps=asked.warmup_steps,
        weight_decay=asked.weight_decay, max_grad_norm=asked.max_grad_norm, optim=asked.optim,
        label_smoothing_factor=0.0,  # our own loss smooths
        bf16=plan.bf16, fp16=plan.fp16, use_cpu=plan.use_cpu,
        gradient_checkpointing=plan.gradient_checkpointing,
        eval_strategy="steps", eval_steps=evaluate, save_strategy="steps", save_steps=save,
        save_total_limit=asked.save_total_limit, load_best_model_at_end=True,
        metric_for_best_model=f"eval_{asked.metric_for_best_model}",
        greater_is_better=asked.metric_for_best_model != "loss",
        logging_steps=asked.logging_steps, logging_first_step=True, logging_nan_inf_filter=False,
        dataloader_num_workers=plan.num_workers, dataloader_pin_memory=not plan.use_cpu,
        seed=asked.seed, data_seed=asked.seed,
        restore_callback_states_from_checkpoint=True,  # patience goes on counting
        report_to="none", disable_tqdm=True, log_level="error", **precision,
    )

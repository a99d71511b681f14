"""The fit: transformers' Seq2SeqTrainer with our loss, our evaluation, the best by dev ROUGE.

Must not know files beyond the checkpoint folder, nor how a summary is scored (it is handed a
function).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit
from dialsum.model.families import get_family
from dialsum.model.generate import GenerationSettings, generate_summaries
from dialsum.model.save import load_extra, save_weights
from dialsum.train.loss import IGNORED, make_loss, sum_token_losses
from dialsum.train.progress import Progress

if TYPE_CHECKING:
    from transformers import (
        PreTrainedTokenizerFast,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

Scorer = Callable[[Sequence[str]], dict[str, float]]
"""Predictions of the evaluated dev rows to scores, 0-100, as metric_for_best_model names them."""


@dataclass(frozen=True)
class DevSet:
    """What an evaluation during training needs.

    Args:
        encoded: the dev rows that are evaluated.
        score: scores their predictions.
        settings: the search used for them.
        batch_size: rows per generation batch.
    """

    encoded: EncodedSplit
    score: Scorer
    settings: GenerationSettings
    batch_size: int


@dataclass(frozen=True)
class FitResult:
    """What training came to."""

    steps: int
    epochs: float
    best_step: int
    best_metric: float
    stopped_early: bool
    seconds: float
    real_tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on, in and out, padding not counted, per second with evaluations."""
        return self.real_tokens / self.seconds if self.seconds else 0.0


def make_dataset(encoded: EncodedSplit) -> Any:
    """Return a split as a datasets.Dataset of input_ids and labels (Arrow: workers share it)."""
    from datasets import Dataset

    columns: dict[str, Any] = {"input_ids": encoded.inputs}
    if encoded.targets is not None:
        columns["labels"] = encoded.targets
    return Dataset.from_dict(columns)


def fit(
    model: Any, tokenizer: PreTrainedTokenizerFast, *, config: Config,
    arguments: Seq2SeqTrainingArguments, train: EncodedSplit, dev: DevSet, progress: Progress,
) -> FitResult:
    """Train to the end, or until early stopping, and leave the best checkpoint's weights."""
    from transformers import DataCollatorForSeq2Seq, EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback

    callbacks: list[TrainerCallback] = [_make_reporter(progress)]
    asked = config.training
    if asked.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(
            early_stopping_patience=asked.early_stopping_patience,
            early_stopping_threshold=asked.early_stopping_threshold,
        ))
    trainer = _make_trainer_class(tokenizer, dev=dev, progress=progress)(
        model=model, args=arguments, train_dataset=make_dataset(train),
        eval_dataset=make_dataset(dev.encoded),
        data_collator=DataCollatorForSeq2Seq(
            tokenizer, model=model, label_pad_token_id=IGNORED, pad_to_multiple_of=_padding(config),
        ),
        compute_loss_func=make_loss(asked.label_smoothing_factor),
        processing_class=tokenizer, callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    trainer.train()
    state = trainer.state
    return FitResult(
        steps=state.global_step, epochs=float(state.epoch or 0.0),
        best_step=state.best_global_step or state.global_step,
        best_metric=float(state.best_metric or 0.0),
        stopped_early=state.global_step < state.max_steps,
        seconds=time.monotonic() - started,
        real_tokens=round(_count_tokens(train) * float(state.epoch or 0.0)),
    )


def _padding(config: Config) -> int | None:
    """Return what batch widths are a multiple of: 8 suits tensor cores.

    Not where that could pass a length that is itself the position limit.
    """
    lengths = (config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len)
    relative = get_family(config.model.architecture).position_limit is None
    return 8 if relative or all(length % 8 == 0 for length in lengths) else None


def _count_tokens(encoded: EncodedSplit) -> int:
    return sum(map(len, encoded.inputs)) + sum(map(len, encoded.targets or []))


def _make_reporter(progress: Progress) -> TrainerCallback:
    """Return the callback that reports losses and evaluates at the very last step too."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        """Hand the trainer's logs on; make sure that the last step is evaluated and saved."""

        def on_log(self, *event: Any, logs: Any = None, **_: Any) -> None:
            _arguments, state, _control = event
            if logs and "loss" in logs:
                progress.train_step(state.global_step, state.max_steps, logs)

        def on_step_end(self, *event: Any, **_: Any) -> Any:
            _arguments, state, control = event
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True
            return control

    return Reporter()


def _make_trainer_class(
    tokenizer: PreTrainedTokenizerFast, *, dev: DevSet, progress: Progress
) -> type[Seq2SeqTrainer]:
    from transformers import Seq2SeqTrainer

    class SummaryTrainer(Seq2SeqTrainer):
        """Evaluates by writing summaries and scoring them; saves no pickle of weights."""

        def evaluate(
            self, *_: Any, metric_key_prefix: str = "eval", **__: Any
        ) -> dict[str, float]:
            started = time.monotonic()
            scores = _write_and_score(self, tokenizer, dev=dev)
            metrics = {f"{metric_key_prefix}_{key}": value for key, value in scores.items()}
            progress.evaluation(
                self.state.global_step, self.state.max_steps, epoch=float(self.state.epoch or 0),
                values={"eval_loss": scores.pop("loss"), **scores}, best=_is_best(self, metrics),
                seconds=time.monotonic() - started,
                rows=len(dev.encoded), num_beams=dev.settings.num_beams,
            )
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
            return metrics

        def _save(self, output_dir: str | None = None, *_: Any, **__: Any) -> None:
            folder = Path(output_dir or str(self.args.output_dir))
            save_weights(self.model, folder)
            tokenizer.save_pretrained(folder)

        def _load_best_model(self) -> None:
            super()._load_best_model()
            load_extra(self.model, Path(str(self.state.best_model_checkpoint)))

    return SummaryTrainer


def _write_and_score(
    trainer: Any, tokenizer: PreTrainedTokenizerFast, *, dev: DevSet
) -> dict[str, float]:
    """Return the dev rows' loss and the scores of the summaries that the model writes for them."""
    loss = _dev_loss(trainer)
    predictions = generate_summaries(
        trainer.model, tokenizer, dev.encoded.inputs,
        settings=dev.settings, batch_size=dev.batch_size,
    )
    return {"loss": loss, **dev.score(predictions)}


def _is_best(trainer: Any, metrics: dict[str, float]) -> bool:
    before, now = trainer.state.best_metric, metrics[str(trainer.args.metric_for_best_model)]
    if before is None:
        return True
    return bool(now > before if trainer.args.greater_is_better else now < before)


def _dev_loss(trainer: Any) -> float:
    """Return the mean loss per target token of the dev rows, without label smoothing."""
    import torch

    trainer.model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader():
            batch = trainer._prepare_inputs(batch)
            labels = batch.pop("labels")
            with trainer.compute_loss_context_manager():
                logits = trainer.model(**batch).logits
            total += float(sum_token_losses(logits, labels))
            count += int((labels != IGNORED).sum())
    trainer.model.train()
    return total / max(count, 1)

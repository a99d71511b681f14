"""The fit: everything that a training needs put together, run, and what it came to.

Must not know how a summary is scored, nor where records go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit
from dialsum.model.families import get_family
from dialsum.train.arguments import TrainingPlan, make_arguments
from dialsum.train.batches import BatchShape, padding_share, plan_random
from dialsum.train.evaluation import DevSet
from dialsum.train.progress import Progress

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainingArguments

    from dialsum.train.supervision import Supervision
    from dialsum.train.trainer import SummaryTrainer


@dataclass(frozen=True)
class Material:
    """What is learned from, and what is measured on.

    Args:
        train: the training rows, with targets.
        names: fname of each of them, for reports.
        sha256: hash of what the rows say.
        dev: the evaluations during training.
    """

    train: EncodedSplit
    names: Sequence[str]
    sha256: str
    dev: DevSet


@dataclass(frozen=True)
class Places:
    """Where a training writes.

    Args:
        checkpoints: folder of its checkpoints.
        nan_report: file for steps that are not finite; absent while there was none.
        resume: checkpoint that it goes on from; None: it begins.
    """

    checkpoints: Path
    nan_report: Path
    resume: Path | None = None


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Args:
        padding_share: share of all positions that were padding, 0-1; beside it what rows drawn at
            random in batches of the stated size would have had.
        positions_per_pass: limit that running out of memory set; None: it never did.
    """

    steps: int
    epochs: float
    best_step: int
    best_metric: float
    stopped_early: bool
    seconds: float
    real_tokens: int
    padding_share: float
    padding_share_random: float
    memory_retries: int
    positions_per_pass: int | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on, in and out, padding not counted, per second with evaluations."""
        return self.real_tokens / self.seconds if self.seconds else 0.0


def batch_shape(config: Config, plan: TrainingPlan) -> BatchShape:
    """Return what bounds passes and steps: the stated batch at the stated lengths."""
    return BatchShape(
        batch_size=plan.batch_size, accumulation=plan.accumulation,
        max_input=config.tokenizer.encoder_max_len, max_target=config.tokenizer.decoder_max_len,
    )


def fit(
    model: Any, *, config: Config, config_sha256: str, plan: TrainingPlan, material: Material,
    places: Places, progress: Progress,
) -> FitResult:
    """Train to the end, or until early stopping, and leave the best checkpoint's weights.

    Args:
        config_sha256: of the resolved config; only the same goes on from its checkpoints.

    Raises:
        RunError: steps that are not finite, or memory that is full, beyond what can be answered.
    """
    trainer = make_trainer(
        model, config=config, arguments=make_arguments(
            config, plan=plan, checkpoints=places.checkpoints
        ),
        supervision=supervise(
            config, config_sha256=config_sha256, plan=plan, material=material, places=places,
            progress=progress,
        ),
    )
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=None if places.resume is None else str(places.resume))
    return _sum_up(trainer, seconds=time.monotonic() - started)


def make_trainer(
    model: Any, *, config: Config, arguments: Seq2SeqTrainingArguments, supervision: Supervision
) -> SummaryTrainer:
    """Return the trainer of a model, with the callbacks that the config asks for."""
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    from dialsum.train.reporter import Reporter
    from dialsum.train.trainer import SummaryTrainer

    reporter = Reporter(supervision.progress)
    callbacks: list[TrainerCallback] = [reporter]
    asked = config.training
    if asked.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(
            early_stopping_patience=asked.early_stopping_patience,
            early_stopping_threshold=asked.early_stopping_threshold,
        ))
    trainer = SummaryTrainer(
        model, arguments=arguments, supervision=supervision, callbacks=callbacks
    )
    reporter.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def supervise(
    config: Config, *, config_sha256: str, plan: TrainingPlan, material: Material, places: Places,
    progress: Progress,
) -> Supervision:
    """Put together the order of the rows and everything that looks on."""
    from dialsum.train.guard import Guard
    from dialsum.train.loader import PassDataset, StepOrder
    from dialsum.train.memory import PassLimit
    from dialsum.train.supervision import Identity, Supervision
    from dialsum.train.watch import Watch

    asked = config.training
    absolute = get_family(config.model.architecture).position_limit is not None
    return Supervision(
        order=StepOrder(
            material.train, batch_shape(config, plan), seed=asked.seed,
            by_length=asked.train_sampling_strategy == "token_budget",
        ),
        dataset=PassDataset(
            material.train, pad_token_id=material.dev.tokenizer.pad_token_id,
            multiple=1 if plan.use_cpu else 8,
            limit=config.tokenizer.encoder_max_len if absolute else None,
        ),
        dev=material.dev,
        guard=Guard(
            policy=asked.on_nan, report=places.nan_report, names=material.names, progress=progress
        ),
        limit=PassLimit(), watch=Watch(), progress=progress,
        identity=Identity(config_sha256=config_sha256, data_sha256=material.sha256),
        label_smoothing=asked.label_smoothing_factor,
    )


def _sum_up(trainer: SummaryTrainer, *, seconds: float) -> FitResult:
    state, supervision = trainer.state, trainer.supervision
    order = supervision.order
    train = supervision.dataset.encoded
    inputs, targets = train.input_lengths, train.target_lengths
    epochs = float(state.epoch or 0.0)
    share_run_here = trainer.steps_run / state.global_step if state.global_step else 0.0
    tokens = int(inputs.sum() + targets.sum())
    multiple = supervision.dataset.multiple
    drawn = plan_random(inputs, shape=order.shape, seed=order.seed, epoch=0)
    return FitResult(
        steps=state.global_step, epochs=epochs,
        best_step=state.best_global_step or state.global_step,
        best_metric=float(state.best_metric or 0.0),
        stopped_early=state.global_step < state.max_steps, seconds=seconds,
        real_tokens=round(tokens * epochs * share_run_here),
        padding_share=padding_share(order.steps(0), inputs, targets, multiple=multiple),
        padding_share_random=padding_share(drawn, inputs, targets, multiple=multiple),
        memory_retries=supervision.limit.retries, positions_per_pass=supervision.limit.positions,
    )

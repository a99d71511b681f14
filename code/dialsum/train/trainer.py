"""transformers' trainer with whole optimizer steps: loss per token, guarded, scored by ROUGE.

The library's loop is kept: optimizer, schedule, callbacks, checkpoints. One batch of its loader is
here a whole optimizer step, a list of passes, so that passes may differ in size, be halved when
memory runs out, and be dropped together when one is not finite. Must not know files beyond the
checkpoint folder, nor how a summary is scored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from dialsum.model.gradient_check import GradientCheck
from dialsum.model.save import load_extra, save_weights
from dialsum.train.batches import heaviest_pass
from dialsum.train.checkpoints import find_damage, seal_checkpoint
from dialsum.train.evaluation import dev_loss, write_and_score
from dialsum.train.guard import BadStep
from dialsum.train.head_loss import summary_loss
from dialsum.train.loader import ROWS, StepLoader, count_targets, make_loader
from dialsum.train.memory import allocate_states
from dialsum.train.nonfinite import Origin, all_finite, find_origin, learning
from dialsum.train.step import StepRunner
from dialsum.train.supervision import Supervision
from dialsum.train.watch import Remark

MOST_OVERFLOWS = 20
"""Steps in a row whose gradients a scaler may find infinite: from its first scale, 2**16, down to 1
it needs 16. More are not its search but a fault."""


def has_lost_patience(callback: TrainerCallback) -> bool:
    """Say whether a callback is the one that stops early, and has decided to."""
    return isinstance(callback, EarlyStoppingCallback) and (
        callback.early_stopping_patience_counter >= callback.early_stopping_patience
    )


class SummaryTrainer(Seq2SeqTrainer):
    """Trains whole steps and evaluates by writing summaries and scoring them."""

    def __init__(
        self, model: Any, *, arguments: Seq2SeqTrainingArguments, supervision: Supervision,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.supervision = supervision
        super().__init__(
            model=model, args=arguments, train_dataset=supervision.dataset,
            eval_dataset=supervision.dataset, processing_class=supervision.dev.tokenizer,
            callbacks=callbacks,
        )
        self._runner = StepRunner(
            loss=self._pass_loss, backward=self.accelerator.backward, limit=supervision.limit,
            progress=supervision.progress, device=self.args.device,
        )
        self._network: Any = model
        self._gradients = GradientCheck(model)
        self._learning = learning(model)
        self.steps_run = 0
        self._step_loss = 0.0
        self._logged_before = torch.zeros(())
        self._undone, self._counted = 0, 0
        self._unlogged: dict[str, float] | None = None
        self._overflows = 0

    def get_train_dataloader(self) -> StepLoader:
        """Return the loader of whole steps; the library must not cut them up among devices."""
        return make_loader(
            self.supervision.dataset, self.supervision.order,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], *_: Any) -> Any:
        return sum(count_targets(step) for step in batch_samples)

    def floating_point_ops(self, *_: Any) -> int:
        """Return 0: the library's estimate takes no step of several passes, and nobody reads it."""
        return 0

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Add up the gradients of a step and return its loss."""
        model.train()
        if not self.steps_run:
            self._runner.rehearse(
                model, self._heaviest_pass(), beside=allocate_states(self.optimizer)
            )
        self.steps_run += 1
        self.supervision.guard.keep(self._network, self.optimizer, step=self.state.global_step)
        self._logged_before = self._tr_loss.clone()
        self._counted += 1
        loss: torch.Tensor = self._runner.run(
            model, inputs, count=num_items_in_batch, step=self.state.global_step + 1
        )
        self._gradients.after_backward()
        return loss

    def _pass_loss(self, batch: dict[str, Any], count: int | None) -> torch.Tensor:
        inputs = self._prepare_inputs({key: batch[key] for key in batch if key != ROWS})
        with self.accelerator.autocast():
            return summary_loss(
                self._network, inputs, count=count, label_smoothing=self.supervision.label_smoothing
            )

    def _heaviest_pass(self) -> dict[str, Any]:
        order, dataset = self.supervision.order, self.supervision.dataset
        encoded = dataset.encoded
        rows = heaviest_pass(
            order.steps(order.epoch), encoded.input_lengths, encoded.target_lengths
        )
        return dataset[rows]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float | None:
        """Return the gradient norm; None where the step was bad and has been undone."""
        parent: Any = super()
        found = parent._get_grad_norm(model, grad_norm=grad_norm)
        loss, norm = torch.stack([
            (self._tr_loss - self._logged_before).float().cpu(),
            torch.as_tensor(found).float().cpu(),
        ]).tolist()
        # With a scaler, infinite gradients are how it finds its scale; it skips such a step.
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        searching = self.accelerator.scaler is not None and self._overflows <= MOST_OVERFLOWS
        if math.isfinite(loss) and (math.isfinite(norm) or searching):
            self._step_loss = loss
            if math.isfinite(norm):
                step = self.state.global_step + 1
                self._tell(self.supervision.watch.step(step, loss=loss, grad_norm=norm))
            return float(norm)
        self._runner.rewind()
        origin = find_origin(
            self._network, self._runner.passes, rows_key=ROWS,
            loss=lambda batch: self._pass_loss(batch, None),
        )
        self._undo(loss, norm, origin)
        return None

    def check_weights(self) -> None:
        """Answer an optimizer step that left weights not finite; called right after it."""
        if all_finite(list(self._learning.values())):
            return
        name = next(name for name, item in self._learning.items() if not all_finite([item]))
        self._undo(self._step_loss, None, Origin("weights", name))

    def _undo(self, loss: float, grad_norm: float | None, origin: Origin) -> None:
        """Answer a bad step, and keep it out of the optimizer and out of the logged mean."""
        scaler = self.accelerator.scaler
        bad = BadStep(
            step=self.state.global_step + 1, epoch=float(self.state.epoch or 0),
            learning_rate=self._get_learning_rate(), loss=loss, grad_norm=grad_norm, origin=origin,
            step_rows=[int(row) for batch in self._runner.passes for row in batch[ROWS]],
            scaler_scale=None if scaler is None else scaler.get_scale(),
        )
        self.supervision.guard.answer(
            bad, model=self._network, optimizer=self.optimizer, scheduler=self.lr_scheduler
        )
        # Without gradients the optimizer leaves every weight as it is.
        self._network.zero_grad(set_to_none=True)
        self._tr_loss = self._logged_before
        self._undone += 1

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Log, the mean loss over those steps alone that were not undone; none where all were."""
        if "loss" in logs:
            good = self._counted - self._undone
            if good:
                logs["loss"] *= self._counted / good
            else:
                del logs["loss"]
            self._counted = self._undone = 0
        super().log(logs, *arguments, **options)

    def _tell(self, remarks: Sequence[Remark]) -> None:
        for remark in remarks:
            self.supervision.progress.remark(remark)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Write and score the dev rows' summaries; return loss and scores under the prefix."""
        started = time.monotonic()
        dev = self.supervision.dev
        with self.accelerator.autocast():
            loss = dev_loss(self._network, dev, prepare=self._prepare_inputs)
        scores = write_and_score(self._network, dev)
        metrics = {f"{metric_key_prefix}_loss": loss} | {
            f"{metric_key_prefix}_{key}": value for key, value in scores.items()
        }
        best = self._is_best(metrics)
        self.supervision.progress.evaluation(
            self.state.global_step, self.state.max_steps, epoch=float(self.state.epoch or 0),
            values={"eval_loss": loss, **scores}, best=best, seconds=time.monotonic() - started,
            rows=len(dev.encoded), num_beams=dev.settings.num_beams,
        )
        self._tell(self.supervision.watch.evaluation(
            self.state.global_step, dev_loss=loss, better=best
        ))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _is_best(self, metrics: dict[str, float]) -> bool:
        before, now = self.state.best_metric, metrics[str(self.args.metric_for_best_model)]
        if before is None:
            return True
        return bool(now > before if self.args.greater_is_better else now < before)

    def _save(self, output_dir: str | None = None, *_: Any, **__: Any) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        save_weights(self._network, folder)
        self.supervision.dev.tokenizer.save_pretrained(folder)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        super()._save_checkpoint(*arguments, **options)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        one = self.supervision
        one.guard.keep(self._network, self.optimizer, step=self.state.global_step, due=True)
        one.keep_memory(folder, unlogged={
            "loss": float(self._tr_loss), "counted": self._counted, "undone": self._undone,
            "steps": self.state.global_step - self._globalstep_last_logged,
        })
        seal_checkpoint(folder, **vars(one.identity))

    def _init_training_state(self, *arguments: Any) -> tuple[int, int]:
        parent: Any = super()
        begun: tuple[int, int] = parent._init_training_state(*arguments)
        self._find_best_again()
        if any(map(has_lost_patience, self.callback_handler.callbacks)):
            # The run had stopped here; without epochs to come only its best weights are loaded.
            epochs: int = arguments[2]
            return epochs, 0
        return begun

    def go_on_adding_up(self) -> None:
        """Take over the sum of losses that the run before this checkpoint had not yet logged."""
        if self._unlogged is None:
            return
        self._tr_loss = torch.tensor(self._unlogged["loss"], device=self.args.device)
        self._globalstep_last_logged -= int(self._unlogged["steps"])
        self._counted, self._undone = (int(self._unlogged[key]) for key in ("counted", "undone"))
        self._unlogged = None

    def _find_best_again(self) -> None:
        """Find the best checkpoint where the run stands now, or look for a new best one."""
        state = self.state
        if state.best_global_step is None:
            return
        best = Path(str(self.args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if find_damage(best) is None:
            state.best_model_checkpoint = str(best)
            return
        self.supervision.progress.warn(
            f"the best checkpoint so far, {best.name}, is gone or damaged: the best is chosen from "
            "here on"
        )
        state.best_model_checkpoint = state.best_metric = state.best_global_step = None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *arguments: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *arguments)
        folder = Path(resume_from_checkpoint)
        load_extra(self._network, folder)
        self._unlogged = self.supervision.take_memory(folder)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_extra(self._network, Path(str(self.state.best_model_checkpoint)))

"""The trainer's events: logs handed on, weights looked at after each step, the last one evaluated.

Must not know what is done about a bad step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dialsum.train.progress import Progress

if TYPE_CHECKING:
    from dialsum.train.trainer import SummaryTrainer


class Reporter(TrainerCallback):
    """Hands the trainer's logs on, looks at the weights after each step, evaluates the last one."""

    def __init__(self, progress: Progress) -> None:
        self.trainer: SummaryTrainer | None = None
        self._progress = progress

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Take up what the run before a checkpoint left."""
        if self.trainer is not None:
            self.trainer.go_on_adding_up()

    def on_log(self, *event: Any, logs: Any = None, **_: Any) -> None:
        """Report a line of loss."""
        _arguments, state, _control = event
        if logs and "loss" in logs:
            self._progress.train_step(state.global_step, state.max_steps, logs)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Make sure that the weights are still finite."""
        if self.trainer is not None:
            self.trainer.check_weights()

    def on_step_end(self, *event: Any, **_: Any) -> Any:
        """Evaluate and save at the very last step too."""
        _arguments, state, control = event
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control

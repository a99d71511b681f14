"""The training loop, for every family: read `Loop.run` first; optimizers stand at the end.

An optimizer step is a list of forward passes whose gradients add up to that of the mean loss over
all target tokens of the step. Passes may differ in size, are halved where memory is full, and are
dropped together where something is not finite. Evaluations choose the best weights; checkpoints
hold all that a run needs to go on bit for bit. Must not know what a row is, how a summary is
scored, nor where records go.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from transformers import get_scheduler, set_seed
from transformers.trainer_callback import TrainerState

from dialsum.config.schema import Training
from dialsum.errors import DiskFullError, RunError
from dialsum.lifeline import EVALUATION, SAVING, STEP, beat
from dialsum.machine.memory import free_memory, is_out_of_memory
from dialsum.models.save import load_weights, save_weights
from dialsum.paths import shown
from dialsum.text import show_bytes
from dialsum.train.checkpoints import STATE, TENSORS, Room, find_damage, prune, seal_checkpoint
from dialsum.train.guard import (
    BadStep,
    Fault,
    GradientCheck,
    Guard,
    all_finite,
    find_fault,
    learning,
)
from dialsum.train.parallel import Crew, add_up
from dialsum.train.progress import Progress, Watch
from dialsum.train.task import (
    Machine,
    Pass,
    PassLimit,
    RowIds,
    StepPlan,
    count_targets,
    count_tokens,
    leave_out,
    rows_of,
    words_of,
)

MOST_OVERFLOWS = 20
"""Steps in a row whose gradients a float16 scaler may find infinite: from its first scale, 2**16,
down to 1 it needs 16. More are not its search but a fault."""
MOST_LEFT_OUT = 0.01
"""Share of the rows that may be left out one by one for not being finite; three in any case."""

MOST_REASON_BYTES = 500
FILES_BYTES = 4 * 2**20
"""Of a checkpoint, beside its tensors: tokenizer, state, manifest."""


class Task(Protocol):
    """What is learned from."""

    names: Sequence[str]
    """Of every row, for reports."""
    sha256: str
    """Of what the rows say."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: RowIds | Sequence[int]) -> Pass:
        """Return a forward pass of rows, on the CPU."""

    def steps(self, epoch: int) -> list[StepPlan]:
        """Return an epoch's steps, the same for the same epoch, as many in each."""

    def find_heaviest(self, epochs: int) -> list[RowIds]:
        """Return the passes of all epochs that take most memory."""

    def loss(self, model: Any, batch: Pass, *, count: float | None) -> torch.Tensor:
        """Return the loss of a pass: its sum over target tokens over count (None: its own)."""

    def count(self, passes: Sequence[Pass]) -> float:
        """Return what the loss of a step of these passes is divided by."""


class Dev(Protocol):
    """What is measured on."""

    def __len__(self) -> int:
        """Return the rows."""

    def passes(self, *, foreign: bool = False) -> list[Pass]:
        """Return the forward passes of its loss, on the CPU; foreign: each row's summary behind
        the dialogue of another row."""

    def find_heaviest(self) -> list[Pass]:
        """Return those of them that take most memory."""

    def loss(self, model: Any, batch: Pass, *, count: float | None) -> torch.Tensor:
        """Return the loss of a pass: its sum over target tokens over count."""

    def score(self, model: Any) -> dict[str, float]:
        """Return the scores that metric_for_best_model may name."""


@dataclass(frozen=True)
class Places:
    """Where a training writes.

    Args:
        checkpoints: folder of its checkpoints.
        nan_report: file for steps that are not finite; absent while there was none.
        config_sha256: of the resolved config; only the same goes on from its checkpoints.
        resume: checkpoint that it goes on from; None: it begins.
        room: what may still be written there; None: nobody asks.
        stop: file whose presence asks it to end now, with the best weights so far; what stands in
            it is the reason. It is removed when it is followed.
    """

    checkpoints: Path
    nan_report: Path
    config_sha256: str
    resume: Path | None = None
    stop: Path | None = None
    room: Room | None = None


@dataclass(frozen=True)
class Trained:
    """What training came to, earlier parts of a resumed run included.

    Args:
        tokens: trained on, in and out, padding not counted.
        left_out: names of rows that were left out for not being finite.
        stop_reason: why somebody asked it to stop; None where nobody did.
    """

    steps: int
    epochs: float
    best_step: int
    best_metric: float
    stopped_early: bool
    seconds: float
    tokens: int
    memory_retries: int
    left_out: list[str]
    stop_reason: str | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on per second, evaluations and checkpoints included."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Loop:
    """One training, from its first step or from a checkpoint to its best weights.

    Args:
        model: on its device; what requires a gradient learns.
        dev: measures it.
        measured: rows and num_beams of that, for what is said of it.
        tokenizer: is saved beside the weights.
        asked: the config's training section; batch sizes are the task's matter.
        whole: keeps the wish to stop (KeyboardInterrupt) from cutting a block in two: it is raised
            where the block ends.
        crew: other processes that take a share of each step's passes.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        *,
        dev: Dev,
        measured: dict[str, int],
        tokenizer: Any,
        asked: Training,
        machine: Machine,
        places: Places,
        progress: Progress,
        whole: Callable[[], AbstractContextManager[Any]] = nullcontext,
        crew: Crew | None = None,
    ) -> None:
        set_seed(asked.seed)
        self.recomputes = machine.gradient_checkpointing
        set_up(model, machine)
        self.model, self.task, self.dev, self.measured = model, task, dev, measured
        self.tokenizer, self.asked, self.machine = tokenizer, asked, machine
        self.places, self.progress, self.whole, self.crew = places, progress, whole, crew
        self.per_epoch = len(task.steps(0))
        total = asked.max_steps or math.ceil(asked.num_train_epochs * self.per_epoch)
        self.learning = learning(model)
        self.optimizer = make_optimizer(model, asked)
        warmup = asked.warmup_steps
        self.scheduler = get_scheduler(
            asked.lr_scheduler_type,
            self.optimizer,
            num_warmup_steps=math.ceil(warmup if warmup >= 1 else total * warmup),
            num_training_steps=total,
            scheduler_specific_kwargs=dict(asked.lr_scheduler_kwargs),
        )
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "fp16")
        self.guard = Guard(asked.on_nan, places.nan_report, task.names, progress)
        self.limit, self.dev_limit = PassLimit(), PassLimit()
        self.watch, self.gradients = Watch(), GradientCheck(model)
        self.state = TrainerState(
            max_steps=total,
            num_train_epochs=math.ceil(total / self.per_epoch),
            logging_steps=asked.logging_steps,
            eval_steps=min(asked.eval_steps, total),
            save_steps=min(asked.save_steps or asked.eval_steps, total),
            epoch=0.0,
        )
        self.saved, self.between_steps = 0, True
        self.left_out: set[int] = set()
        self.best_loss = math.inf
        self.without_gain, self.overflows, self.tokens = 0, 0, 0
        self.unlogged: list[float] = []
        self.seconds, self._since = 0.0, time.monotonic()

    def run(self) -> Trained:
        """Train to the last step, or until early stopping, and leave the best weights in the model.

        Raises:
            NonFiniteError, FullMemoryError: beyond what can be answered.
            RunError: something that should learn gets no gradient, or no evaluation was finite.
            KeyboardInterrupt: somebody wants it to stop; a checkpoint holds all steps so far.
        """
        try:
            return self._run()
        except KeyboardInterrupt:
            if self.between_steps and self.state.global_step > self.saved:
                with self.whole():
                    self._save()
                    self.progress.event("interrupted", step=self.state.global_step)
            raise

    def measure_reading(self) -> dict[str, float] | None:
        """Return the dev loss of the model as it is with each row's own dialogue (`own`) and with
        another row's (`foreign`), of which a model that reads tells the difference; None of fewer
        than two rows.

        Raises:
            FullMemoryError: memory was full with a single row.
        """
        if len(self.dev) < 2:
            return None
        return {
            "own": self._measure_loss(self.dev.passes()),
            "foreign": self._measure_loss(self.dev.passes(foreign=True)),
        }

    def _run(self) -> Trained:
        random_state = None if self.places.resume is None else self._load(self.places.resume)
        state, stop_reason = self.state, None
        if self._is_due() and state.global_step not in self._evaluated_steps():
            # It was stopped between the step and its evaluation.
            self._evaluate()
            self._save()
        if state.global_step < state.max_steps and not self._is_out_of_patience():
            self.rehearse()
            if random_state is not None:
                set_random_state(random_state, self.machine.device)
            for passes in self._load_steps():
                beat(STEP)
                with self.whole():
                    self.between_steps = False
                    self.take_step(passes)
                    self.between_steps = True
                stop_reason = self._read_stop_request()
                last = state.global_step == state.max_steps or stop_reason is not None
                better = False
                if last or self._is_due():
                    better = self._evaluate()
                if better or last or state.global_step % state.save_steps == 0:
                    self._save()
                if stop_reason is not None or self._is_out_of_patience():
                    break
        elif state.best_global_step is None and self._evaluate():
            # The best checkpoint is gone, and no step is left that would choose another.
            self._save()
        self._load_best()
        return Trained(
            steps=state.global_step,
            epochs=state.epoch,
            best_step=int(state.best_global_step or 0),
            best_metric=float(state.best_metric or 0.0),
            stopped_early=state.global_step < state.max_steps,
            seconds=self._count_seconds(),
            tokens=self.tokens,
            memory_retries=self.limit.retries + self.dev_limit.retries,
            left_out=[self.task.names[row] for row in sorted(self.left_out)],
            stop_reason=stop_reason,
        )

    def _is_due(self) -> bool:
        """Say whether the weights are to be measured after the step at hand."""
        step = self.state.global_step
        return step > 0 and (step == self.state.max_steps or step % self.state.eval_steps == 0)

    def _evaluated_steps(self) -> set[int]:
        return {int(one["step"]) for one in self.state.log_history if "eval_loss" in one}

    def _load_steps(self) -> Iterator[list[Pass]]:
        """Give the passes of each step to come.

        A generator of its own keeps the loader from drawing on the global random state: dropout is
        the same whatever the number of workers.
        """
        first, last = self.state.global_step, self.state.max_steps
        order: Any = (
            self.task.steps(step // self.per_epoch)[step % self.per_epoch]
            for step in range(first, last)
        )
        return iter(
            DataLoader(
                self.task,  # type: ignore[arg-type]
                batch_sampler=order,
                collate_fn=list,
                num_workers=self.machine.num_workers,
                pin_memory=self.machine.device.type == "cuda",
                generator=torch.Generator().manual_seed(self.asked.seed),
            )
        )

    def rehearse(self) -> None:
        """Run the heaviest passes and forget them: memory runs out now or not at all."""
        random_state = read_random_state(self.machine.device)
        beside = allocate_states(self.optimizer)
        self.model.train()
        each = 1 if self.crew is None else self.crew.processes
        for rows in self.task.find_heaviest(self.state.num_train_epochs):
            self._add_up_gradients([self.task[rows]] * each, 1, random_state)
            self.optimizer.zero_grad(set_to_none=True)
        self._measure_loss(self.dev.find_heaviest())
        set_random_state(random_state, self.machine.device)
        del beside

    def take_step(self, passes: list[Pass]) -> None:
        """Take one optimizer step, or leave it out where it is not finite."""
        self.model.train()
        self.progress.step = step = self.state.global_step + 1
        self.guard.keep(self.model, self.optimizer, step=self.state.global_step)
        rate = self.scheduler.get_last_lr()[0]
        random_state = read_random_state(self.machine.device)
        taken, norm, scale = False, None, self.scaler.get_scale()
        while passes := leave_out(passes, self.left_out):
            total = self._add_up_gradients(passes, self.task.count(passes), random_state)
            self.gradients.after_backward()
            self.scaler.unscale_(self.optimizer)
            found = clip_grad_norm_(self.learning.values(), self.asked.max_grad_norm or math.inf)
            loss, norm = torch.stack([total.float(), found.float()]).tolist()
            taken = self._is_finite(loss, norm)
            if taken:
                self.scaler.step(self.optimizer)
            self.scaler.update()
            if taken:
                self.unlogged.append(loss)
                self.tokens += count_tokens(passes)
                break
            set_random_state(random_state, self.machine.device)
            fault = find_fault(self.model, passes, loss=self._loss_alone)
            again = self._answer(fault, loss=loss, norm=norm, rows=rows_of(passes))
            self.optimizer.zero_grad(set_to_none=True)
            if not again:
                self.optimizer.step()  # without gradients it changes nothing; schedules look for it
                break
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() >= scale or not taken:
            self.scheduler.step()
        self.state.global_step = step
        self.state.epoch = step / self.per_epoch
        if taken and norm is not None and math.isfinite(norm):
            self.progress.max_grad_norm = max(self.progress.max_grad_norm, norm)
            for remark in self.watch.step(step, loss=loss, grad_norm=norm):
                self.progress.remark(remark)
        if step == 1 or step % self.state.logging_steps == 0:
            self._log(rate, norm if taken else None)

    def _add_up_gradients(
        self, passes: Sequence[Pass], count: float, random_state: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Run passes forward and backward, all again in smaller ones where memory is full.

        Args:
            count: of the whole step, as the loss takes it.
            random_state: at its beginning, so that dropout comes again.

        Returns:
            The loss of the step, without a graph.

        Raises:
            FullMemoryError: memory was full with a single row.
        """
        while True:
            fitting, loss = self.limit.fit(passes), self.task.loss
            if self.crew is None:
                total, failed = add_up(
                    self.model,
                    fitting,
                    count=count,
                    loss=loss,
                    machine=self.machine,
                    scale=self.scaler.scale,
                )
            else:
                total, failed = self.crew.add_up(
                    fitting, count=count, loss=loss, scaler=self.scaler
                )
            if failed is None:
                return total
            self.optimizer.zero_grad(set_to_none=True)
            self._make_smaller(*failed)
            set_random_state(random_state, self.machine.device)

    def _measure_loss(self, passes: Sequence[Pass]) -> float:
        """Return the mean dev loss per target token; passes that memory does not hold are halved.

        Raises:
            FullMemoryError: memory was full with a single row.
        """
        waiting, total = list(passes), 0.0
        self.model.eval()
        while waiting:
            beat(EVALUATION)
            batch, *rest = self.dev_limit.fit(waiting[:1])
            failed = None
            try:
                with torch.no_grad(), self.machine.autocast():
                    total += float(self.dev.loss(self.model, self.machine.place(batch), count=1))
                waiting[:1] = rest
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = words_of(error)
            if failed is not None:
                self._make_smaller(batch, failed, learning=False)
        return total / max(count_targets(passes), 1)

    def _make_smaller(self, batch: Pass, words: str, *, learning: bool = True) -> None:
        """Give memory back, and let passes be smaller than one that it did not hold; where a single
        row was too much to learn from, compute activations again from now on.

        Raises:
            FullMemoryError: nothing is left that would take less.
        """
        free_memory()
        limit, step = self.limit if learning else self.dev_limit, self.progress.step
        if learning and len(rows_of([batch])) == 1 and not self.recomputes:
            said = limit.lift(batch, words)
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.recomputes = True
        else:
            said = limit.lower(batch, words, learning=learning)
        self.progress.event("memory_retry", step=step or 0, positions=limit.positions, message=said)
        self.progress.warn(said if step is None else f"step {step}: {said}")

    def _is_finite(self, loss: float, norm: float) -> bool:
        """Say whether a step is to be taken; with a scaler, infinite gradients are how it finds its
        scale, and it leaves such a step out by itself.
        """
        self.overflows = 0 if math.isfinite(norm) else self.overflows + 1
        searching = self.scaler.is_enabled() and self.overflows <= MOST_OVERFLOWS
        return math.isfinite(loss) and (math.isfinite(norm) or searching)

    def _loss_alone(self, batch: Pass) -> torch.Tensor:
        with self.machine.autocast():
            return self.task.loss(self.model, self.machine.place(batch), count=None)

    def _answer(self, fault: Fault, *, loss: float, norm: float | None, rows: list[int]) -> bool:
        """Answer a step that is not finite; say whether it is to be tried again without some rows.

        Rows that are not finite by themselves, where others are, are left out for good: going back
        and halving the rate would meet them again in each epoch.

        Args:
            rows: all of the step.
        """
        bad = BadStep(
            # Weights are found damaged at the step after the one that did it, or by an evaluation.
            step=self.state.global_step + (1 if rows else 0),
            epoch=self.state.epoch,
            learning_rate=self.scheduler.get_last_lr()[0],
            loss=loss,
            grad_norm=norm,
            fault=fault,
            step_rows=rows,
            scaler_scale=self.scaler.get_scale() if self.scaler.is_enabled() else None,
        )
        if self.asked.on_nan != "stop" and fault.where in ("forward", "loss", "gradients"):
            new = [row for row in fault.rows if row not in self.left_out]
            alone = [row for row in new if not self._is_finite_alone(row)]
            others = (*fault.rows, *rows, *range(len(self.task)))
            other = next((row for row in others if row not in alone), None)
            most = max(3, int(MOST_LEFT_OUT * len(self.task)))
            if (
                alone
                and len(self.left_out) + len(alone) <= most
                and other is not None
                and self._is_finite_alone(other)
            ):
                self.left_out.update(alone)
                self.guard.report_left_out(bad, alone)
                return True
        self.guard.answer(bad, model=self.model, optimizer=self.optimizer, scheduler=self.scheduler)
        return False

    def _is_finite_alone(self, row: int) -> bool:
        found = find_fault(self.model, [self.task[[row]]], loss=self._loss_alone)
        return found.where == "nowhere"

    def _check_weights(self) -> None:
        """Go back, or stop, where the weights themselves are not finite."""
        if all_finite(list(self.learning.values())):
            return
        name = next(name for name, one in self.learning.items() if not all_finite([one]))
        self._answer(Fault("weights", name), loss=math.nan, norm=None, rows=[])

    def _log(self, rate: float, norm: float | None) -> None:
        """Report the mean loss since the last line, over the steps that were taken."""
        logs = {"epoch": self.state.epoch, "learning_rate": rate}
        if norm is not None:
            logs["grad_norm"] = norm
        if self.unlogged:
            logs["loss"] = math.fsum(self.unlogged) / len(self.unlogged)
            self.unlogged = []
        self.state.log_history.append(logs | {"step": self.state.global_step})
        self.progress.train_step(self.state.global_step, self.state.max_steps, logs)

    def _evaluate(self) -> bool:
        """Measure on dev; say whether the weights are the best so far.

        Of two equal metrics the one with the smaller dev loss is the better.
        """
        self._check_weights()
        started = time.monotonic()
        values = {"loss": self._measure_loss(self.dev.passes()), **self.dev.score(self.model)}
        with self.whole():
            return self._judge(values, seconds=time.monotonic() - started)

    def _judge(self, values: dict[str, float], *, seconds: float) -> bool:
        """Take in what the weights were measured at; say whether they are the best so far."""
        state = self.state
        name = self.asked.metric_for_best_model
        metric, before = values[name], state.best_metric
        gain = (
            math.inf if before is None else (before - metric if name == "loss" else metric - before)
        )
        better = math.isfinite(metric) and (
            gain > 0 or (gain == 0 and values["loss"] < self.best_loss)
        )
        # NaN is no gain, whatever was best.
        gained = math.isfinite(metric) and gain > self.asked.early_stopping_threshold
        self.without_gain = 0 if gained or before is None else self.without_gain + 1
        if better:
            state.best_metric, state.best_global_step = metric, state.global_step
            self.best_loss = values["loss"]
        state.log_history.append(
            {f"eval_{key}": value for key, value in values.items()}
            | {"epoch": state.epoch, "step": state.global_step}
        )
        self.progress.evaluation(
            state.global_step,
            state.max_steps,
            epoch=state.epoch,
            values={"eval_loss" if key == "loss" else key: value for key, value in values.items()},
            best=better,
            seconds=seconds,
            **self.measured,
        )
        for remark in self.watch.evaluation(
            state.global_step, dev_loss=values["loss"], better=better
        ):
            self.progress.remark(remark)
        return better

    def _is_out_of_patience(self) -> bool:
        patience = self.asked.early_stopping_patience
        return patience is not None and self.without_gain >= patience

    def _read_stop_request(self) -> str | None:
        """Return why training is to end now; None where it is not."""
        if self.places.stop is None or not self.places.stop.is_file():
            return None
        with self.places.stop.open("rb") as file:
            text = file.read(MOST_REASON_BYTES).decode(errors="replace")
        reason = " ".join(text.split()) or "no reason was given"
        self.places.stop.unlink()
        self.progress.event("stop", step=self.state.global_step, message=reason)
        self.progress.warn(f"step {self.state.global_step}: asked to stop: {reason}")
        return reason

    def _save(self) -> None:
        """Write a checkpoint, seal it, only then remove older ones: the best and the last stay."""
        beat(SAVING)
        self._make_room()
        state = self.state
        folder = self.places.checkpoints / f"checkpoint-{state.global_step}"
        self.guard.keep(self.model, self.optimizer, step=state.global_step, due=True)
        save_weights(self.model, folder)
        self.tokenizer.save_pretrained(folder)
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": read_random_state(self.machine.device),
            },
            folder / TENSORS,
        )
        best = self.places.checkpoints / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = None if state.best_global_step is None else str(best)
        kept: Any = {
            "guard": self.guard.state_dict(),
            "watch": vars(self.watch),
            "progress": self.progress.state_dict(),
            "limit": vars(self.limit),
            "dev_limit": vars(self.dev_limit),
            "loop": {
                "left_out": sorted(self.left_out),
                "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
                "without_gain": self.without_gain,
                "overflows": self.overflows,
                "tokens": self.tokens,
                "unlogged": self.unlogged,
                "seconds": self._count_seconds(),
            },
        }
        state.stateful_callbacks = kept
        state.save_to_json(str(folder / STATE))
        seal_checkpoint(
            folder, config_sha256=self.places.config_sha256, data_sha256=self.task.sha256
        )
        prune(self.places.checkpoints, keep=best, limit=self.asked.save_total_limit)
        self.saved = state.global_step

    def _make_room(self) -> None:
        """Let older checkpoints go where the disk has no room for another.

        Raises:
            DiskFullError: even so it has none; the run goes on from the last one.
        """
        room, state = self.places.room, self.state
        if room is None:
            return
        states = [one for kept in self.optimizer.state.values() for one in kept.values()]
        tensors = [*self.learning.values(), *(one for one in states if hasattr(one, "nbytes"))]
        needed = sum(one.nbytes for one in tensors) + FILES_BYTES
        if room.left() >= needed:
            return
        what = "the disk" if room.budget_bytes is None else "batch.disk_budget_gb"
        best = self.places.checkpoints / f"checkpoint-{state.best_global_step}"
        if gone := prune(self.places.checkpoints, keep=best, limit=1):
            self.progress.warn(f"{what} is nearly used up: {', '.join(gone)} had to go")
        if (left := room.left()) < needed:
            last = f"the last one is of step {self.saved}" if self.saved else "none was saved yet"
            way = "Free space there"
            if room.budget_bytes is not None:
                way += " or raise it (--set batch.disk_budget_gb=GB)"
            raise DiskFullError(
                self.places.checkpoints,
                f"{what} leaves {show_bytes(max(left, 0))} in {shown(room.folder)}, and a "
                f"checkpoint takes about {show_bytes(needed)}: stopped at step "
                f"{state.global_step}, {last}. {way}, then go on with --resume",
            )

    def _load(self, folder: Path) -> dict[str, torch.Tensor]:
        """Take over all that a checkpoint holds; return its random state."""
        load_weights(self.model, folder)
        tensors = torch.load(folder / TENSORS, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scheduler.load_state_dict(tensors["scheduler"])
        self.scaler.load_state_dict(tensors["scaler"])
        self.state = state = TrainerState.load_from_json(str(folder / STATE))
        self.saved = state.global_step
        kept: Any = state.stateful_callbacks
        self.guard.load_state_dict(kept["guard"])
        self.watch = Watch(**kept["watch"])
        self.progress.load_state_dict(kept["progress"])
        self.limit, self.dev_limit = PassLimit(**kept["limit"]), PassLimit(**kept["dev_limit"])
        own = kept["loop"]
        self.left_out = set(own["left_out"])
        self.best_loss = math.inf if own["best_loss"] is None else own["best_loss"]
        self.without_gain, self.overflows = own["without_gain"], own["overflows"]
        self.tokens, self.unlogged, self.seconds = own["tokens"], own["unlogged"], own["seconds"]
        best = self.places.checkpoints / f"checkpoint-{state.best_global_step}"
        if state.best_global_step is not None and (damage := find_damage(best)):
            self.progress.warn(
                f"the best checkpoint so far, {best.name}, is gone or damaged ({damage}): the best "
                "is chosen from here on"
            )
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
            self.best_loss = math.inf
        random_state: dict[str, torch.Tensor] = tensors["random"]
        return random_state

    def _load_best(self) -> None:
        if self.state.best_global_step is None:
            raise RunError(
                f"no evaluation on dev gave a finite {self.asked.metric_for_best_model}, so there "
                "are no best weights; choose another training.metric_for_best_model or lower "
                "training.learning_rate"
            )
        load_weights(
            self.model, self.places.checkpoints / f"checkpoint-{self.state.best_global_step}"
        )

    def _count_seconds(self) -> float:
        return self.seconds + time.monotonic() - self._since


def set_up(model: Any, machine: Machine) -> None:
    """Let a model compute as was chosen for its machine."""
    if machine.tf32:
        torch.set_float32_matmul_precision("high")
    if machine.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def read_random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the random state of the CPU and of the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the random state back to what read_random_state returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names of parameters without weight decay, as the library's trainer has them."""


def make_optimizer(model: Any, asked: Training) -> Any:
    """Return the optimizer of what learns; biases and norms do not decay."""
    from transformers.trainer_pt_utils import get_parameter_names

    decaying = set(get_parameter_names(model, [torch.nn.LayerNorm], [NO_DECAY.pattern]))
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    groups = [
        {
            "params": [one for name, one in named if name in decaying],
            "weight_decay": asked.weight_decay,
        },
        {"params": [one for name, one in named if name not in decaying], "weight_decay": 0.0},
    ]
    rate = asked.learning_rate
    if asked.optim == "adafactor":
        from transformers import Adafactor

        return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    if asked.optim in ("adamw_torch", "adamw_torch_fused"):
        # None lets torch choose; it never chooses fused.
        fused = True if asked.optim.endswith("fused") else None
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    from bitsandbytes import optim

    library: Any = optim  # untyped
    manager = library.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return library.AdamW(groups, lr=rate, optim_bits=8, is_paged=asked.optim.startswith("paged"))


def allocate_states(optimizer: Any) -> list[Any]:
    """Return tensors as large as the states that an optimizer makes in its first step.

    AdamW has two of each weight that learns, those of bitsandbytes in 8 bits if it is large and no
    embedding. Adafactor's rows and columns are too small to count. None for weights that have
    states already, as in a run that goes on.

    Args:
        optimizer: a torch optimizer, or one of bitsandbytes.
    """
    if "adam" not in type(optimizer).__name__.lower():
        return []
    return [
        torch.empty_like(
            weight, requires_grad=False, dtype=_state_type(optimizer, at, place, weight)
        )
        for at, group in enumerate(optimizer.param_groups)
        for place, weight in enumerate(group["params"])
        if weight.requires_grad and not optimizer.state.get(weight)
        for _state in range(2)
    ]


def _state_type(optimizer: Any, group: int, place: int, weight: Any) -> Any:
    """Return the type of a weight's states to come."""
    if not hasattr(optimizer, "get_config"):
        return weight.dtype
    optimizer.check_overrides()
    asked = optimizer.get_config(group, place, optimizer.param_groups[group])
    small = asked["optim_bits"] != 8 or weight.numel() < asked["min_8bit_size"]
    return torch.float32 if small else torch.uint8

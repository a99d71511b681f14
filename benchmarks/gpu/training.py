"""One job on an encoder-decoder model: trained and evaluated by the project's own code, timed.

Must not know the tables that are made of the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bare_loop import make_bare_loop
from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit
from dialsum.experiment.choices import Choices
from dialsum.machine.flops import (
    count_flops,
    describe_speed,
    find_peak,
    find_products,
    name_product,
)
from gpu.architectures import Architecture
from gpu.card import Meter, read_clock
from gpu.jobs import Job, Settings
from gpu.rows import count_tokens, draw_rows

SEED = 42
SMALL_SHARE = 0.2
"""Length of rows where only the way is tried, as a share of the real ones."""


@dataclass
class Bench:
    """A job with all that was decided for it."""

    job: Job
    settings: Settings
    architecture: Architecture
    config: Config
    choices: Choices

    def measure(self) -> dict[str, Any]:
        """Load, train and evaluate; return what JSON is to hold."""
        from dialsum.data.encode import dialogue_tokens
        from dialsum.data.rows import read_data
        from dialsum.models.load import open_checkpoint, prepare_model, prepare_tokenizer

        choices = self.choices
        for line in choices.lines:
            print(f"  {line}")
        meter = Meter(choices.where)
        folder = Path(self.settings.folder) / "work" / self.job.name
        splits = read_data(self.config.data, seed=self.config.training.seed)
        checkpoint = open_checkpoint(self.config)
        tags = dialogue_tokens(self.config.tokenizer, splits.train.rows)
        tokens = prepare_tokenizer(checkpoint, self.config, tags=tags)
        model = prepare_model(
            checkpoint,
            self.config,
            tokens,
            device=choices.where.torch_name,
            dtype=choices.dtype,
            gradient_checkpointing=choices.machine.gradient_checkpointing,
        )
        total, trainable = model.count_parameters()
        loaded = meter.peak_gib()
        found = self._describe() | {
            "parameters": total,
            "parameters_trainable": trainable,
            "loader": model.loader["used"],
        }
        meter.reset()
        found |= self._train(model.model, tokens, folder=folder)
        peaks = {"load": loaded, "train": meter.peak_gib()}
        if self.job.capped:
            meter.reset()
            found["evaluation"] = self._evaluate(model.model, tokens)
            peaks["evaluate"] = meter.peak_gib()
        return found | {"peak_gib": peaks}

    def _describe(self) -> dict[str, Any]:
        choices, config = self.choices, self.config
        precision = choices.machine.precision
        return {
            "device": choices.where.name,
            "precision": precision,
            "tf32": choices.machine.tf32,
            "batch": choices.batch_size,
            "accumulation": choices.accumulation,
            "lengths": [config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len],
            "gradient_checkpointing": choices.machine.gradient_checkpointing,
            "estimate_gib": None
            if self.settings.small
            else replace(choices.memory, size=None).estimate_gib(choices.batch_size),
        }

    def _draw(self, count: int, *, end: int, seed: int) -> EncodedSplit:
        share = SMALL_SHARE if self.settings.small else 1.0
        own, asked = self.architecture, self.config.tokenizer
        return draw_rows(
            count,
            seed=seed,
            pieces=own.pieces,
            end=end,
            input_length=(share * own.input_length[0], own.input_length[1]),
            target_length=(share * own.target_length[0], own.target_length[1]),
            most=(asked.encoder_max_len, asked.decoder_max_len),
        )

    def _train(self, model: Any, tokens: Any, *, folder: Path) -> dict[str, Any]:
        from dialsum.train.task import padding_share

        choices, settings = self.choices, self.settings
        rows = self._draw(
            settings.steps * choices.batch_size * choices.accumulation,
            end=tokens.tokenizer.eos_token_id,
            seed=SEED,
        )
        loop = make_bare_loop(
            model,
            tokens.tokenizer,
            rows,
            config=self.config,
            machine=choices.machine,
            batch=(choices.batch_size, choices.accumulation),
            folder=folder,
        )
        ends = watch_steps(loop, choices.where)
        loop.run()
        losses = [line["loss"] for line in loop.state.log_history if "loss" in line]
        if loop.progress.nan_events:
            raise ArithmeticError(
                f"{loop.progress.nan_events} of {settings.steps} steps were not finite; "
                f"see {folder / 'nan_report.json'}"
            )
        steps = loop.task.steps(0)[settings.warm_up :]
        seconds = ends[-1] - ends[settings.warm_up - 1] if settings.warm_up else 0.0
        multiple = loop.task.multiple
        return {
            "steps": len(ends),
            "timed_steps": len(steps),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "memory_retries": loop.limit.retries,
            "padding_share": padding_share(
                steps, rows.input_lengths, rows.target_lengths, multiple=multiple
            ),
            **self._rate(model, rows, steps, seconds=seconds),
        }

    def _rate(
        self, model: Any, rows: EncodedSplit, steps: Any, *, seconds: float
    ) -> dict[str, Any]:
        """Return speed and use of the card over the timed steps."""
        if not seconds:
            return {}
        chosen = [int(row) for step in steps for one in step for row in one]
        flops = count_flops(
            find_products(model.named_modules()),
            attention=self.architecture.attention,
            inputs=rows.input_lengths[chosen],
            targets=rows.target_lengths[chosen],
        )
        precision = name_product(self.choices.machine.precision, tf32=self.choices.machine.tf32)
        return describe_speed(
            steps=len(steps),
            seconds=seconds,
            tokens=count_tokens(rows, steps),
            flops=flops,
            peak=find_peak(self.choices.where.name, precision=precision),
        )

    def _evaluate(self, model: Any, tokens: Any) -> dict[str, Any]:
        """Write summaries with the experiment's own beams; random weights write to the limit."""
        from dialsum.generate import GenerationSettings, generate

        tags = tokens.tokenizer.convert_tokens_to_ids(tokens.tags)
        search = GenerationSettings.from_config(self.config, exempt=tags, bf16=self.choices.bf16)
        end = tokens.tokenizer.eos_token_id
        rows = self._draw(self.settings.eval_rows, end=end, seed=SEED + 1)
        batch = self.choices.eval_batch_size(search.num_beams)
        began = read_clock(self.choices.where)
        written = generate(model, tokens.tokenizer, rows.inputs, settings=search, batch_size=batch)
        return {
            "rows": len(written),
            "num_beams": search.num_beams,
            "batch": batch,
            "max_new_tokens": search.max_new_tokens,
            "seconds": read_clock(self.choices.where) - began,
        }


def watch_steps(loop: Any, where: Any) -> list[float]:
    """Return a list that gets the time at which each optimizer step ends."""
    ends: list[float] = []
    take_step = loop.take_step

    def take_and_look(passes: Any) -> None:
        take_step(passes)
        ends.append(read_clock(where))

    loop.take_step = take_and_look
    return ends

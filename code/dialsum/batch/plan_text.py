"""The plan of a batch as text: who runs with what, and what the demo put in place of the real
values.

Must not print, nor decide anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dialsum.batch.plan import BatchPlan, expect_minutes
from dialsum.batch.screen import format_duration
from dialsum.config.schema import Config
from dialsum.config.yaml import show_value
from dialsum.experiment.job import Job
from dialsum.paths import shown
from dialsum.text_table import align

KIND_WORDS = {"full": "as configured", "one_epoch": "one epoch each", "demo": "demo on tiny models"}
WIDTH = 100
HIDDEN = ("general.expected_minutes", "evaluation.target.", "tracking.", "batch.slots")
"""Replaced keys, or beginnings of them, that say nothing of how the experiment learns."""


def describe_plan(plan: BatchPlan, *, width: int | None = None) -> list[str]:
    """Return the plan as lines.

    Args:
        width: columns of the terminal, which the table is to fit; None: of any width.
    """
    count, minutes = len(plan.jobs), []
    total, only = len(plan.options.configs), plan.options.only
    of_all = f" of {total} (--only {','.join(map(str, only))})" if only else ""
    head = ["", "experiment", "file", "tokens", "rows a step", "steps", "learns", "beams"]
    rows = []
    models: dict[str, list[str]] = {}
    retries: dict[str, list[str]] = {}
    for one in plan.jobs:
        config, number = one.config, str(one.number)
        steps = config.training.count_steps(train_rows=one.train_rows)
        minutes.append(expect_minutes(one))
        models.setdefault(_describe_model(config), []).append(number)
        if config.batch.retry:
            retries.setdefault(", then ".join(config.batch.retry), []).append(number)
        row = [
            number,
            one.label,
            one.loaded.path.name,
            f"{config.tokenizer.encoder_max_len}/{config.tokenizer.decoder_max_len}",
            _describe_batch(config),
            "?" if steps is None else f"{steps:,}",
            _describe_adapters(config),
            str(config.generation.num_beams),
            "" if minutes[-1] is None else format_duration(minutes[-1] * 60),
        ]
        rows.append(row)
    known = [value for value in minutes if value is not None]
    table = [[*head, "expected"], *rows] if known else [head, *(row[:-1] for row in rows)]
    return [
        f"{count} experiment{'s' if count != 1 else ''}{of_all}, {KIND_WORDS[plan.kind]}",
        f"results go to {shown(plan.paths.root)}",
        f"logs go to    {shown(plan.paths.logs(plan.started_at))}",
        "",
        *align(table, left=range(len(head) + 1), width=width),
        *([f"{plan.slots} at the same time (batch.slots)"] if plan.slots > 1 else []),
        *(
            [
                f"by the plan, not measured: {format_duration(sum(known) * 60)} in all on one RTX "
                "3090, evaluation and writing included"
            ]
            if known and len(known) == count
            else []
        ),
        *(
            f"{', '.join(numbers)} {'start' if len(numbers) > 1 else 'starts'} from {model}"
            for model, numbers in models.items()
        ),
        *(
            f"{', '.join(numbers)}: after NaN or full memory in training, retries with "
            f"{halvings} (batch.retry)"
            for halvings, numbers in retries.items()
        ),
    ]


def _describe_model(config: Config) -> str:
    """Return which network an experiment starts from."""
    folder = Path(config.model.checkpoint)
    return shown(folder) if folder.is_absolute() else config.model.checkpoint


def _describe_batch(config: Config) -> str:
    training = config.training
    batch, accumulation = (
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
    )
    rows = f"{batch} x {accumulation}"
    return rows if batch == "auto" or accumulation == "auto" else f"{rows} = {batch * accumulation}"


def _describe_adapters(config: Config) -> str:
    lora = config.qlora
    if not lora.use_qlora:
        return "all weights"
    sort = "DoRA" if lora.use_dora else "LoRA"
    bits = ", 4-bit" if lora.load_in_4bit else ", 8-bit" if lora.load_in_8bit else ""
    return f"{sort} r {lora.lora_rank}{bits}"


def describe_replaced(experiments: Sequence[Job]) -> list[str]:
    """Return what overlays replaced: what is the same in all experiments once, then the rest of
    each.

    Every line holds the original value beside the new one.
    """
    changes = [
        {
            one.key: f"{one.key.partition('.')[2]} {show_value(one.original)} -> "
            f"{show_value(one.value)}"
            for one in experiment.loaded.replaced
            if not one.key.startswith(HIDDEN)
        }
        for experiment in experiments
    ]
    if not any(changes):
        return []
    common = dict(set.intersection(*(set(own.items()) for own in changes)))
    lines = ["In place of the experiments' own values (original -> demo):"]
    lines += _wrap("all: ", [text for key, text in changes[0].items() if key in common])
    for experiment, own in zip(experiments, changes, strict=True):
        rest = [text for key, text in own.items() if key not in common]
        lines += _wrap(f"{experiment.number} {experiment.label}: ", rest)
    return lines


def _wrap(head: str, changes: Sequence[str]) -> list[str]:
    """Return changes as lines of bounded width, none where there are no changes."""
    lines = [f"  {head}"]
    for text in (*(f"{change}, " for change in changes[:-1]), *changes[-1:]):
        if len(lines[-1]) + len(text) > WIDTH:
            lines.append("    ")
        lines[-1] += text
    return [line.rstrip() for line in lines] if changes else []

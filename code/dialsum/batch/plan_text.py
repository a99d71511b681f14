"""The plan of a batch as text: who runs with what, and what the demo put in place of the real
values.

Must not print, nor decide anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialsum.batch.plan import BatchPlan, PlannedExperiment, expect_minutes
from dialsum.batch.screen import format_duration
from dialsum.config.load import Replaced
from dialsum.config.messages import show_value
from dialsum.config.schema import Config
from dialsum.paths import shown
from dialsum.text_table import align

KIND_WORDS = {"full": "as configured", "one_epoch": "one epoch each", "demo": "demo on tiny models"}
WIDTH = 100
HIDDEN = ("general.expected_minutes", "evaluation.target.", "tracking.")
"""Replaced keys, or beginnings of them, that say nothing of how the experiment learns."""


def describe_plan(plan: BatchPlan) -> list[str]:
    """Return the plan as lines."""
    count = len(plan.experiments)
    only = f" (--only {plan.options.only})" if plan.options.only else ""
    of_all = "" if count == plan.total else f" of {plan.total}{only}"
    head = f"{count} experiment{'s' if count != 1 else ''}{of_all}, {KIND_WORDS[plan.kind]}"
    lines = [
        head,
        f"results go to {shown(plan.paths.root)}",
        f"logs go to    {shown(plan.paths.logs(plan.started_at))}",
        "",
    ]
    return [
        *lines,
        *_plan_table(plan),
        *_describe_total(plan),
        *_describe_models(plan),
        *_describe_retries(plan),
    ]


def _plan_table(plan: BatchPlan) -> list[str]:
    head = [
        "",
        "experiment",
        "file",
        "tokens",
        "rows a step",
        "steps",
        "learns",
        "beams",
        "expected",
    ]
    rows = [head, *(_plan_row(plan, one) for one in plan.experiments)]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return align(rows, left=range(len(rows[0])))


def _plan_row(plan: BatchPlan, experiment: PlannedExperiment) -> list[str]:
    config = experiment.config
    steps = config.training.count_steps(train_rows=experiment.train_rows)
    minutes = expect_minutes(experiment, kind=plan.kind)
    return [
        str(experiment.number),
        experiment.label,
        experiment.loaded.path.name,
        f"{config.tokenizer.encoder_max_len}/{config.tokenizer.decoder_max_len}",
        _describe_batch(config),
        "?" if steps is None else f"{steps:,}",
        _describe_adapters(config),
        str(config.generation.num_beams),
        "" if minutes is None else format_duration(minutes * 60),
    ]


def _describe_models(plan: BatchPlan) -> list[str]:
    """Return one line per network that experiments start from, with their numbers."""
    users: dict[str, list[str]] = {}
    for experiment in plan.experiments:
        users.setdefault(describe_model(experiment.config), []).append(str(experiment.number))
    return [
        f"{', '.join(numbers)} {'start' if len(numbers) > 1 else 'starts'} from {model}"
        for model, numbers in users.items()
    ]


def _describe_retries(plan: BatchPlan) -> list[str]:
    """Return one line per batch.retry that is asked for, with the experiments' numbers."""
    users: dict[tuple[str, ...], list[str]] = {}
    for experiment in plan.experiments:
        if rungs := tuple(experiment.config.batch.retry):
            users.setdefault(rungs, []).append(str(experiment.number))
    return [
        f"{', '.join(numbers)}: after NaN or full memory in training, fresh attempts with "
        f"{', then '.join(rungs)} (batch.retry)"
        for rungs, numbers in users.items()
    ]


def describe_model(config: Config) -> str:
    """Return which network an experiment starts from."""
    if config.model.initialise == "tiny":
        size = config.model.tiny
        return (
            f"tiny {config.model.architecture}, width {size.d_model}, "
            f"{size.layers}+{size.layers} layers"
        )
    return config.model.checkpoint


def _describe_batch(config: Config) -> str:
    batch, accumulation = (
        config.training.per_device_train_batch_size,
        config.training.gradient_accumulation_steps,
    )
    if batch == "auto" or accumulation == "auto":
        return f"{batch} x {accumulation}"
    return f"{batch} x {accumulation} = {batch * accumulation}"


def _describe_adapters(config: Config) -> str:
    lora = config.qlora
    if not lora.use_qlora:
        return "all weights"
    sort = "DoRA" if lora.use_dora else "LoRA"
    bits = ", 4-bit" if lora.load_in_4bit else ", 8-bit" if lora.load_in_8bit else ""
    return f"{sort} r {lora.lora_rank}{bits}"


def _describe_total(plan: BatchPlan) -> list[str]:
    minutes = [expect_minutes(one, kind=plan.kind) for one in plan.experiments]
    known = [value for value in minutes if value is not None]
    if not known or len(known) < len(minutes):
        return []
    return [
        f"by the plan, not measured: {format_duration(sum(known) * 60)} in all on one RTX 3090, "
        "evaluation and writing included"
    ]


def describe_replaced(experiments: Sequence[PlannedExperiment]) -> list[str]:
    """Return what overlays replaced: what is the same in all experiments once, then the rest of
    each.

    Every line holds the original value beside the new one.
    """
    changes = [_visible(one) for one in experiments]
    if not any(changes):
        return []
    common = [
        change for change in changes[0] if all(_find_equal(change, other) for other in changes[1:])
    ]
    lines = ["In place of the experiments' own values (original -> demo):"]
    lines += _wrap("all: ", common)
    for experiment, own in zip(experiments, changes, strict=True):
        rest = [change for change in own if not _find_equal(change, common)]
        lines += _wrap(f"{experiment.number} {experiment.label}: ", rest)
    return lines


def _wrap(head: str, changes: Sequence[Replaced]) -> list[str]:
    """Return changes as lines of bounded width, none where there are no changes."""
    if not changes:
        return []
    lines = [f"  {head}"]
    for place, change in enumerate(changes):
        name = change.key.partition(".")[2]
        text = f"{name} {show_value(change.original)} -> {show_value(change.value)}"
        text += "" if place == len(changes) - 1 else ", "
        if len(lines[-1]) + len(text) > WIDTH:
            lines.append("    ")
        lines[-1] += text
    return [line.rstrip() for line in lines]


def _visible(experiment: PlannedExperiment) -> list[Replaced]:
    return [change for change in experiment.loaded.replaced if not change.key.startswith(HIDDEN)]


def _find_equal(change: Replaced, others: Sequence[Replaced]) -> bool:
    return any(_content(change) == _content(other) for other in others)


def _content(change: Replaced) -> tuple[str, Any, Any]:
    return change.key, repr(change.original), repr(change.value)

"""Training: every key arrives, steps are counted, the best checkpoint comes back, the rest goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.schema import Config, Training
from dialsum.train.arguments import TrainingPlan, count_steps, evaluation_steps, make_arguments
from small_fit import SmallTraining, make_rows, read_events
from small_models import make_config

training = pytest.mark.training

PLAN = TrainingPlan(
    batch_size=2, accumulation=3, rows=100, bf16=False, fp16=False, tf32=False,
    gradient_checkpointing=False, num_workers=0, use_cpu=True,
)  # fmt: skip


def config_with(**values: Any) -> Config:
    """Return a config whose training section has these values."""
    return make_config("bart", "none/needed", training=values)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "rows", "batch", "accumulation", "steps"),
    [
        (1, None, 1, 8, 4, 1),
        (1, None, 8, 8, 1, 1),
        (1, None, 9, 8, 1, 2),
        (3, None, 9, 8, 2, 3),
        (4, None, 12_457, 6, 4, 2080),
        (0.5, None, 100, 10, 1, 5),
        (4, 7, 12_457, 6, 4, 7),
    ],
)
def test_steps_of_a_run(
    epochs: float, max_steps: int | None, rows: int, batch: int, accumulation: int, steps: int
) -> None:
    config = config_with(num_train_epochs=epochs, max_steps=max_steps)
    assert count_steps(config, rows=rows, batch_size=batch, accumulation=accumulation) == steps


@pytest.mark.parametrize(
    ("evaluate", "save", "total", "used"),
    [
        (100, None, 1, (1, 1)),
        (100, None, 99, (99, 99)),
        (100, None, 1000, (100, 100)),
        (100, 200, 1000, (100, 200)),
        (100, 200, 150, (100, 150)),
        (100, 200, 60, (60, 60)),
    ],
)
def test_steps_between_evaluations_fit_the_run(
    evaluate: int, save: int | None, total: int, used: tuple[int, int]
) -> None:
    config = config_with(eval_steps=evaluate, save_steps=save)
    assert evaluation_steps(config, total) == used


ASKED: dict[str, Any] = {
    "learning_rate": 3e-4, "num_train_epochs": 7.0, "max_steps": 11,
    "lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 4},
    "warmup_steps": 5.0, "weight_decay": 0.03, "max_grad_norm": 0.7, "optim": "adafactor",
    "eval_steps": 2, "save_steps": 4, "save_total_limit": 3, "logging_steps": 9,
    "metric_for_best_model": "rouge2", "seed": 13,
}  # fmt: skip
"""Values that no default has, by the library's own names."""
ELSEWHERE = {
    # What the machine decides; it comes in by the plan.
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    "bf16", "fp16", "tf32", "gradient_checkpointing", "dataloader_num_workers",
    # What our own loader, loss, guard and callbacks do.
    "train_sampling_strategy", "on_nan", "label_smoothing_factor", "early_stopping_patience",
    "early_stopping_threshold",
}  # fmt: skip


@training
def test_every_key_of_the_training_section_arrives(tmp_path: Path) -> None:
    assert set(ASKED) | ELSEWHERE == set(Training.model_fields)
    arguments = make_arguments(config_with(**ASKED), plan=PLAN, checkpoints=tmp_path)
    renamed = {"metric_for_best_model": "eval_rouge2"}
    arrived = {name: getattr(arguments, name) for name in ASKED}
    assert arrived == ASKED | renamed
    assert arguments.data_seed == 13
    assert arguments.per_device_train_batch_size == PLAN.batch_size
    # The loader hands out whole steps: their passes are not the library's to count.
    assert arguments.gradient_accumulation_steps == 1
    assert (arguments.report_to, arguments.logging_nan_inf_filter) == ([], False)
    assert arguments.load_best_model_at_end and arguments.greater_is_better


@training
def test_the_smallest_loss_is_the_best(tmp_path: Path) -> None:
    config = config_with(metric_for_best_model="loss")
    arguments = make_arguments(config, plan=PLAN, checkpoints=tmp_path)
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("eval_loss", False)


def train(
    folder: Path, scores: Sequence[float], *, qlora: dict[str, Any], **asked: Any
) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Train a small model whose dev scores are these, one an evaluation."""
    trainer = SmallTraining(
        rows=make_rows([1, 2, 3, 4]), scores=scores, qlora=qlora, width=32,
        training={"max_steps": len(scores), "save_total_limit": 2, "eval_steps": 1} | asked,
    ).trainer(folder)  # fmt: skip
    trainer.train()
    return trainer.state, trainer.model, read_events(folder)


FULL = {"use_qlora": False, "load_in_4bit": False}
ADAPTERS = {"use_qlora": True, "load_in_4bit": True, "lora_rank": 2, "lora_alpha": 4}
WITH_EMBEDDINGS = ADAPTERS | {"train_embeddings": True}


@training
@pytest.mark.parametrize(
    "qlora", [FULL, ADAPTERS, WITH_EMBEDDINGS], ids=["full", "adapters", "and embeddings"]
)
def test_the_best_checkpoint_comes_back_and_patience_ends(
    qlora: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    state, model, events = train(
        tmp_path, [10.0, 30.0, 20.0, 30.0, 99.0, 99.0], qlora=qlora, early_stopping_patience=2
    )
    assert (state.global_step, state.best_global_step, state.best_metric) == (4, 2, 30.0)
    assert [event["best"] for event in events if event["event"] == "eval"] == [
        True, True, False, False,
    ]  # fmt: skip
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["checkpoint-2", "checkpoint-4"]
    best = tmp_path / "checkpoints" / "checkpoint-2"
    assert (best / "trainer_state.json").is_file()
    saved: dict[str, Any] = {}
    for path in best.glob("*.safetensors"):
        saved |= load_file(str(path))
    assert saved
    own = {name.replace(".default", ""): one for name, one in model.state_dict().items()}
    assert [name for name in saved if name not in own] == []
    assert [name for name in saved if not torch.equal(saved[name], own[name])] == []
    # The weights went on changing after that step.
    last: dict[str, Any] = {}
    for path in (tmp_path / "checkpoints" / "checkpoint-4").glob("*.safetensors"):
        last |= load_file(str(path))
    assert any(not torch.equal(saved[name], last[name]) for name in saved)
    # What holds weights is no pickle; what is needed to go on training is no weight.
    assert not list(best.glob("*.bin"))
    assert {path.name for path in best.glob("*.pt*")} == {
        "optimizer.pt", "scheduler.pt", "rng_state.pth",
    }  # fmt: skip


@training
def test_without_patience_a_run_goes_to_its_end(tmp_path: Path) -> None:
    state, _, events = train(tmp_path, [30.0, 20.0, 10.0], qlora=FULL)
    assert (state.global_step, state.best_global_step) == (3, 1)
    assert math.isclose(state.epoch, 1.5)
    assert sum(event["event"] == "train" for event in events) == 3


@training
def test_the_last_step_is_evaluated_though_no_interval_ends_there(tmp_path: Path) -> None:
    state, _, events = train(tmp_path, [10.0, 20.0, 30.0], qlora=FULL, eval_steps=2)
    steps = [event["step"] for event in events if event["event"] == "eval"]
    assert steps == [2, 3]
    assert state.best_global_step == 3

"""What a run takes of its machine: rows and passes, and the type that weights are held in."""

from __future__ import annotations

from typing import Any

import pytest

from dialsum.experiment.choices import choose
from dialsum.machine.devices import Choice, Device
from small_models import make_config

pytestmark = pytest.mark.training

GPU = Device("cuda", 0, "a card", 2**34, 2**34, (8, 6), ("fp32", "tf32", "bf16", "fp16"), ("math",))
ADAPTERS = {"use_qlora": True, "load_in_4bit": True}
EMBEDDINGS = ADAPTERS | {"train_embeddings": True}
EVERYTHING = {"use_qlora": False, "load_in_4bit": False}


@pytest.mark.parametrize(
    ("precision", "qlora", "asked", "held"),
    [
        ("bf16", ADAPTERS, "auto", "bfloat16"),
        ("bf16", EMBEDDINGS, "auto", "float32"),
        ("bf16", EVERYTHING, "auto", "float32"),
        ("fp32", ADAPTERS, "auto", "float32"),
        ("fp32", EVERYTHING, "auto", "float32"),
        # float16 mixed precision scales the loss: its weights are float32.
        ("fp16", ADAPTERS, "auto", "float32"),
        ("fp16", EVERYTHING, "auto", "float32"),
        ("bf16", ADAPTERS, "float32", "float32"),
        ("fp32", ADAPTERS, "bfloat16", "bfloat16"),
    ],
)
def test_only_a_frozen_base_is_held_in_half(
    precision: str, qlora: dict[str, Any], asked: str, held: str
) -> None:
    import torch

    training = {"bf16": precision == "bf16", "fp16": precision == "fp16"}
    config = make_config(
        "bart", "none/needed", qlora=qlora, model={"dtype": asked}, training=training
    )
    choices = choose(config, device=Choice(GPU, "given"))
    assert choices.machine.precision == precision
    assert choices.dtype == getattr(torch, held)


@pytest.mark.parametrize(
    ("batch", "passes", "said"),
    [
        ("auto", "auto", "batch x accumulation: 24 x 1 ("),
        ("auto", 3, "batch: 24 ("),
        (1, "auto", "accumulation: 24 (1 x 24 = 24 rows a step, 24 wanted)"),
        (7, "auto", "accumulation: 3 (7 x 3 = 21 rows a step, 24 wanted)"),
        (64, "auto", "accumulation: 1 (64 x 1 = 64 rows a step, 24 wanted)"),
        (5, 6, ""),
    ],
)
def test_what_the_config_leaves_open_is_filled_and_said(batch: Any, passes: Any, said: str) -> None:
    asked = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": passes}
    choices = choose(
        make_config("bart", "none/needed", training=asked), device=Choice(GPU, "given")
    )
    assert batch in ("auto", choices.batch_size)
    assert passes in ("auto", choices.accumulation)
    text = "\n".join(choices.lines)
    assert said in text
    if not said:
        assert "accumulation" not in text

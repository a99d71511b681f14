"""In which type the weights of a run are held, by precision and by what learns."""

from __future__ import annotations

from typing import Any

import pytest

from dialsum.experiment.choices import Choices, Precision
from dialsum.machine.devices import Device
from small_models import make_config

pytestmark = pytest.mark.training

GPU = Device("cuda", 0, "a card", 2**34, 2**34, (8, 6), ("fp32", "tf32", "bf16", "fp16"), ("math",))
ADAPTERS = {"use_qlora": True, "load_in_4bit": True}
EMBEDDINGS = ADAPTERS | {"train_embeddings": True}
EVERYTHING = {"use_qlora": False, "load_in_4bit": False}


def make_choices(precision: Precision, qlora: dict[str, Any], dtype: str) -> Choices:
    """Return what was chosen for a run of which this is all that counts."""
    config = make_config("bart", "none/needed", qlora=qlora, model={"dtype": dtype})
    return Choices(
        config=config,
        where=GPU,
        precision=precision,
        tf32=False,
        gradient_checkpointing=False,
        batch_size=1,
        accumulation=1,
        num_workers=0,
        lines=[],
        record={},
    )


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
    precision: Precision, qlora: dict[str, Any], asked: str, held: str
) -> None:
    import torch

    assert make_choices(precision, qlora, asked).dtype == getattr(torch, held)

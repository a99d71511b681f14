"""The frozen base in 4 and 8 bits: which bits, computing in which precision, and back to floats."""

from __future__ import annotations

from typing import Any

import pytest

from adapted_models import EIGHT_BIT, FOUR_BIT, LORA, SORTS, Build
from dialsum.models.load import choose_bits, dequantise
from small_models import UNTIED, make_config


@pytest.mark.parametrize(
    ("qlora", "bits"),
    [
        ({"use_qlora": False}, None),
        ({"use_qlora": False, "load_in_8bit": True}, None),
        ({"use_qlora": True}, 4),
        ({"use_qlora": True, "load_in_4bit": False}, None),
        ({"use_qlora": True, "load_in_4bit": False, "load_in_8bit": True}, 8),
    ],
)
def test_bits_of_the_base(qlora: dict[str, bool], bits: int | None) -> None:
    config = make_config("t5", "none/needed", qlora={"load_in_4bit": True} | qlora)
    assert choose_bits(config.qlora) == bits


@pytest.mark.training
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_4_bit_layers_compute_in_the_type_of_the_run(sort: str, dtype: str, build: Build) -> None:
    # float32 on a CPU, bfloat16 on a GPU that has it: choices.dtype says which.
    import torch
    from bitsandbytes.nn import Linear4bit

    case = build(sort, dtype=dtype, **FOUR_BIT)
    layers = [one for one in case.model.modules() if type(one) is Linear4bit]
    case.step()
    assert layers
    for layer in layers:
        assert layer.compute_dtype == getattr(torch, dtype)
        assert layer.weight.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.weight.quant_state.dtype == getattr(torch, dtype)
    learning = {one.dtype for one in case.model.parameters() if one.requires_grad}
    # What learns is float32 even over a bfloat16 base: small updates would be rounded away.
    assert learning == {torch.float32}


@pytest.mark.training
@pytest.mark.parametrize(
    ("qlora", "spread"),
    [(LORA, 1e-6), (FOUR_BIT, 1e-6), (EIGHT_BIT, 0.1)],
    ids=["float", "4-bit", "8-bit"],
)
@pytest.mark.parametrize("sort", SORTS)
def test_dequantised_weights_say_the_same(
    sort: str, qlora: dict[str, Any], spread: float, build: Build
) -> None:
    # 8-bit layers round their inputs too while summaries are written, so those answers are near.
    import torch

    case = build(sort, **qlora | {"target_modules": ["q_proj" if sort == "bart" else "q"]})
    before = case.logits()
    base = case.model.unload()
    # Adapters start at nothing; the base alone says what the adapted model said.
    dequantise(base)
    assert {one.dtype for one in base.parameters()} == {torch.float32}
    assert not hasattr(base.config, "quantization_config")
    assert not getattr(base, "is_loaded_in_4bit", False)
    assert not getattr(base, "is_loaded_in_8bit", False)
    batch = case.batch()
    base.eval()
    with torch.no_grad():
        after = base(**batch).logits
    assert float((after - before).abs().max() / before.std()) <= spread
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert tied == (sort not in UNTIED)

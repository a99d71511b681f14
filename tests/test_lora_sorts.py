"""The sorts of LoRA: rank-stabilised, DoRA, PiSSA; and ranks above what a layer can hold."""

from __future__ import annotations

from typing import Any

import pytest

from adapted_models import ALPHA, FOUR_BIT, LORA, SORTS, Build, with_adapter
from dialsum.errors import UnfitError

pytestmark = pytest.mark.training


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_the_scale_is_alpha_over_rank_or_its_root(rank: int, build: Build) -> None:
    for stabilised, scale in ((False, ALPHA / rank), (True, ALPHA / rank**0.5)):
        case = build("t5", **LORA | {"lora_rank": rank, "use_rslora": stabilised})
        layers = [one for one in case.model.modules() if getattr(one, "lora_A", None)]
        assert {one.scaling["default"] for one in layers} == {scale}


@pytest.mark.parametrize(
    ("sort", "rank", "targets", "layers"),
    [
        ("t5", 64, "auto", None),
        ("t5", 65, "auto", "k, o, q, v (64 x 64); wo (64 x 128); wi (128 x 64)"),
        ("bart", 96, ["k_proj", "fc1"], "k_proj (64 x 64); fc1 (128 x 64)"),
    ],
)
def test_a_rank_above_a_layer_is_said(
    sort: str, rank: int, targets: Any, layers: str | None, build: Build
) -> None:
    # In 4 bits a weight itself has another shape; the layer's size counts.
    case = build(sort, **FOUR_BIT | {"lora_rank": rank, "target_modules": targets})
    said = [note for note in case.adapted.notes if "lora_rank" in note]
    assert len(said) == (0 if layers is None else 1)
    for note in said:
        assert f"qlora.lora_rank {rank} is above" in note
        assert f": {layers}; rank 64 " in note


@pytest.mark.parametrize("qlora", [LORA, FOUR_BIT], ids=["float", "4-bit"])
@pytest.mark.parametrize("sort", SORTS)
def test_dora_starts_as_the_base_and_learns_lengths_too(
    sort: str, qlora: dict[str, Any], build: Build
) -> None:
    import torch

    case = build(sort, **qlora | {"use_dora": True})
    start = case.logits()
    with case.model.disable_adapter():
        torch.testing.assert_close(case.logits(), start, rtol=1e-5, atol=1e-6)
    lengths = {
        name: one.clone()
        for name, one in case.model.named_parameters()
        if "lora_magnitude_vector" in name
    }
    assert len(lengths) == len(with_adapter(case.model))
    case.step()
    stayed = [
        name
        for name, one in case.model.named_parameters()
        if name in lengths and torch.equal(one, lengths[name])
    ]
    assert stayed == []


def test_dora_on_rows_of_zeros_is_refused(build: Build) -> None:
    # The library would go on with NaN: BART's padding token has a row of zeros in the tied head.
    with pytest.raises(UnfitError, match=r"use_dora: rows of zeros in lm_head \(1 of \d+\)"):
        build("bart", **FOUR_BIT | {"use_dora": True, "target_modules": ["q", "lm_head"]})


@pytest.mark.parametrize("sort", SORTS)
def test_pissa_starts_as_the_base_with_both_factors_alive(sort: str, build: Build) -> None:
    import torch

    plain = build(sort, **LORA).logits()
    case = build(sort, **LORA | {"init_lora_weights": "pissa"})
    assert torch.allclose(case.logits(), plain, atol=1e-4)
    factors = [one for name, one in case.model.named_parameters() if "lora_" in name]
    assert factors
    assert all(one.abs().max() > 0 for one in factors)

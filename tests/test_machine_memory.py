"""Device profiles: what is recommended fits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from dialsum.machine.devices import GIB
from dialsum.machine.memory import BASE_SIZES, LENGTHS, Size, TrainingMemory, find_card

FAMILIES = ("mt5", "t5", "bart")
RTX_3090 = int(23.7 * GIB)
MT5_IN_8_GB = TrainingMemory("mt5", 512, 8 * GIB, lora=False)


@pytest.mark.parametrize(
    ("gib", "card"),
    [
        (0.0, None),
        (5.8, None),
        (7.8, 8),
        (10.8, 8),
        (11.8, 12),
        (15.8, 16),
        (22.1, 16),
        (23.7, 24),
        (39.4, 40),
        (47.5, 40),
        (79.1, 80),
        (139.8, 80),
    ],
)
def test_card_is_the_largest_profile_that_the_memory_serves(gib: float, card: int | None) -> None:
    assert find_card(int(gib * GIB)) == card


@pytest.mark.parametrize(
    ("family", "length", "lora", "batch", "accumulation"),
    [
        ("mt5", 512, True, 8, 3),
        ("mt5", 768, True, 6, 4),
        ("mt5", 1024, True, 4, 6),
        ("t5", 512, True, 12, 2),
        ("bart", 512, True, 24, 1),
        ("bart", 1024, False, 24, 1),
        ("mt5", 300, True, 8, 3),
        ("mt5", 600, True, 6, 4),
        ("mt5", 2048, True, 1, 24),
    ],
)
def test_recommendations_for_an_rtx_3090(
    family: str, length: int, lora: bool, batch: int, accumulation: int
) -> None:
    found = TrainingMemory(family, length, RTX_3090, lora=lora).choose_batch()
    assert found[:2] == (batch, accumulation)
    assert "estimate" in found[2]
    assert "profile of 24 GB" in found[2]


@pytest.mark.parametrize("rows_per_step", [1, 2, 7, 16, 24, 32])
@pytest.mark.parametrize("gib", [0.5, 7.8, 23.7, 79.1])
def test_batch_times_accumulation_is_what_was_wanted(rows_per_step: int, gib: float) -> None:
    memory = TrainingMemory("mt5", 512, int(gib * GIB), lora=True)
    batch, accumulation, _ = memory.choose_batch(rows_per_step)
    assert batch * accumulation == rows_per_step


def test_what_may_not_fit_is_said() -> None:
    batch, accumulation, why = MT5_IN_8_GB.choose_batch()
    assert (batch, accumulation) == (1, 24)
    assert "may not fit: use LoRA" in why
    assert MT5_IN_8_GB.count_fitting_rows() == 0


def test_fp32_needs_about_twice_the_memory() -> None:
    plain = TrainingMemory("bart", 512, 12 * GIB, lora=True)
    fp32 = replace(plain, precision="fp32")
    assert 1 <= fp32.count_fitting_rows() < plain.count_fitting_rows()
    assert "fp32" in fp32.choose_batch()[2]


@pytest.mark.parametrize(
    ("family", "length", "gib", "lora", "batch", "used"),
    [
        ("mt5", 1024, 23.7, True, None, False),
        ("mt5", 1024, 23.7, True, 8, True),
        ("mt5", 1024, 7.8, True, None, True),
        ("bart", 512, 7.8, False, 8, False),
        ("bart", 512, 7.8, False, 24, True),
    ],
)
def test_checkpointing_only_where_it_is_needed(
    family: str, length: int, gib: float, lora: bool, batch: int | None, used: bool
) -> None:
    memory = TrainingMemory(family, length, int(gib * GIB), lora=lora)
    choice = memory.needs_checkpointing(batch)
    assert choice.value == used
    assert "estimate" in choice.why


def test_more_beams_and_longer_inputs_never_raise_the_evaluation_batch() -> None:
    for family, lora, length in itertools.product(FAMILIES, (True, False), LENGTHS):
        memory = TrainingMemory(family, length, RTX_3090, lora=lora)
        rows = [memory.choose_eval_batch(beams) for beams in (1, 4, 12, 64, 1000)]
        assert rows == sorted(rows, reverse=True)
        assert 1 <= rows[-1] <= rows[0] <= 64
    assert replace(MT5_IN_8_GB, max_input=1024).choose_eval_batch(10) == 1


def test_estimates_go_by_the_size_not_by_the_family() -> None:
    base = MT5_IN_8_GB
    small = replace(base, size=Size(800_000, (2, 2), 64, 4, 4_128))
    large = replace(base, size=Size(1_230_000_000, (24, 24), 1024, 16, 250_112))
    assert small.estimate_gib(8) < 1.5 < 2 * base.estimate_gib(8) < large.estimate_gib(8)
    assert base.estimate_gib(8) == replace(base, size=BASE_SIZES["mt5"]).estimate_gib(8)
    assert small.count_fitting_rows() > 50
    assert base.needs_checkpointing(8).value and not small.needs_checkpointing(8).value
    batch, _, why = small.choose_batch()
    assert batch == 24
    assert "mt5 of 0.8 million parameters" in why
    assert replace(small, max_input=1024).choose_eval_batch(10) == 64


@pytest.mark.parametrize(
    "ways",
    [{"lora": lora, "checkpointing": one} for lora in (True, False) for one in (True, False)],
)
def test_no_part_of_an_estimate_is_below_nothing(ways: dict[str, Any]) -> None:
    for family, length in itertools.product(FAMILIES, (16, 512, 768, 1024, 4096)):
        memory = TrainingMemory(family, length, None, **ways, size=Size(1, (1, 1), 1, 1, 1))
        needed = [memory.estimate_gib(rows) for rows in (0, 1, 1000)]
        assert 0 < needed[0] < needed[1] < needed[2]

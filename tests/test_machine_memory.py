"""Device profiles: what is recommended fits."""

from __future__ import annotations

import itertools

import pytest

from dialsum.machine.devices import GIB
from dialsum.machine.memory import (
    BASE_SIZES,
    LENGTHS,
    Size,
    count_fitting_rows,
    estimate_training_gib,
    find_card,
    recommend_accumulation,
    recommend_batch,
    recommend_checkpointing,
    recommend_eval_batch,
)

FAMILIES = ("mt5", "t5", "bart")
RTX_3090 = int(23.7 * GIB)


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
    found = recommend_batch(family, length, RTX_3090, lora=lora)
    assert found[:2] == (batch, accumulation)
    assert "estimate" in found[2]
    assert "profile of 24 GB" in found[2]


@pytest.mark.parametrize("effective", [1, 2, 7, 16, 24, 32])
@pytest.mark.parametrize("gib", [0.5, 7.8, 23.7, 79.1])
def test_batch_times_accumulation_is_what_was_wanted(effective: int, gib: float) -> None:
    batch, accumulation, _ = recommend_batch(
        "mt5", 512, int(gib * GIB), lora=True, effective_batch_size=effective
    )
    assert batch * accumulation == effective


def test_what_may_not_fit_is_said() -> None:
    batch, accumulation, why = recommend_batch("mt5", 512, 8 * GIB, lora=False)
    assert (batch, accumulation) == (1, 24)
    assert "may not fit: use LoRA" in why
    assert count_fitting_rows("mt5", 512, 8 * GIB, lora=False) == 0


def test_fp32_needs_about_twice_the_memory() -> None:
    plain = count_fitting_rows("bart", 512, 12 * GIB, lora=True)
    assert 1 <= count_fitting_rows("bart", 512, 12 * GIB, lora=True, precision="fp32") < plain
    assert "fp32" in recommend_batch("bart", 512, 12 * GIB, lora=True, precision="fp32")[2]


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
    choice = recommend_checkpointing(family, length, int(gib * GIB), lora=lora, batch=batch)
    assert choice.value == used
    assert "estimate" in choice.why


@pytest.mark.parametrize(
    ("batch", "effective", "passes"),
    [(1, 24, 24), (6, 24, 4), (7, 24, 3), (24, 24, 1), (64, 24, 1)],
)
def test_accumulation_comes_nearest_to_the_rows_wanted(
    batch: int, effective: int, passes: int
) -> None:
    assert recommend_accumulation(batch, effective_batch_size=effective).value == passes


def test_more_beams_and_longer_inputs_never_raise_the_evaluation_batch() -> None:
    for family, lora in itertools.product(FAMILIES, (True, False)):
        for length in LENGTHS:
            rows = [
                recommend_eval_batch(beams, length, RTX_3090, architecture=family, lora=lora).value
                for beams in (1, 4, 12, 64, 1000)
            ]
            assert rows == sorted(rows, reverse=True)
            assert 1 <= rows[-1] <= rows[0] <= 64
    assert recommend_eval_batch(10, 1024, 8 * GIB, architecture="mt5", lora=False).value == 1


SMALL = Size(800_000, (2, 2), 64, 4, 4_128)
LARGE = Size(1_230_000_000, (24, 24), 1024, 16, 250_112)


def test_estimates_go_by_the_size_not_by_the_family() -> None:
    small, large = (
        estimate_training_gib("mt5", 512, batch=8, lora=False, size=size) for size in (SMALL, LARGE)
    )
    base = estimate_training_gib("mt5", 512, batch=8, lora=False)
    assert small < 1.5 < 2 * base < large
    assert base == estimate_training_gib("mt5", 512, batch=8, lora=False, size=BASE_SIZES["mt5"])
    card = 8 * GIB
    assert count_fitting_rows("mt5", 512, card, lora=False) == 0
    assert count_fitting_rows("mt5", 512, card, lora=False, size=SMALL) > 50
    assert not recommend_checkpointing("mt5", 512, card, lora=False, batch=8, size=SMALL).value
    assert recommend_checkpointing("mt5", 512, card, lora=False, batch=8).value
    batch, _, why = recommend_batch("mt5", 512, card, lora=False, size=SMALL)
    assert batch == 24
    assert "mt5 of 0.8 million parameters" in why
    beams = {"architecture": "mt5", "lora": False}
    assert recommend_eval_batch(10, 1024, card, **beams, size=SMALL).value == 64
    assert recommend_eval_batch(10, 1024, card, **beams).value == 1


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "plain"])
def test_no_part_of_an_estimate_is_below_nothing(lora: bool, checkpointing: bool) -> None:
    for family, length in itertools.product(FAMILIES, (16, 512, 768, 1024, 4096)):
        needed = [
            estimate_training_gib(
                family,
                length,
                batch=rows,
                lora=lora,
                checkpointing=checkpointing,
                size=Size(1, (1, 1), 1, 1, 1),
            )
            for rows in (0, 1, 1000)
        ]
        assert 0 < needed[0] < needed[1] < needed[2]

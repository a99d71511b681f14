"""Batches by token budget: every row once, exact steps, little padding, no order of lengths."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialsum.data.rows import load_splits
from dialsum.train.task import (
    BatchShape,
    StepPlan,
    find_heaviest,
    padding_share,
    plan_random,
    plan_steps,
)

SHAPES = [(1, 1), (8, 1), (32, 1), (12, 2), (7, 2), (8, 3), (6, 4), (4, 8), (1, 16)]
COUNTS = [1, 2, 7, 8, 23, 24, 25, 500]


def make_shape(batch: int, accumulation: int) -> BatchShape:
    """Return a shape at the lengths of the first experiment."""
    return BatchShape(batch_size=batch, accumulation=accumulation, max_input=512, max_target=128)


def draw_lengths(rows: int, seed: int = 0) -> tuple[Any, Any]:
    """Return input and target lengths spread as those of real dialogues are."""
    generator = np.random.default_rng(seed)
    inputs = np.clip(generator.lognormal(5.3, 0.5, rows), 8, 512).astype(np.int32)
    targets = np.clip(inputs / 5 * generator.lognormal(0, 0.4, rows), 4, 128).astype(np.int32)
    return inputs, targets


def all_rows(steps: list[StepPlan]) -> list[int]:
    """Return every row of an epoch in order."""
    return [int(row) for step in steps for rows in step for row in rows]


@pytest.mark.parametrize("rows", COUNTS)
@pytest.mark.parametrize(("batch", "accumulation"), SHAPES)
def test_every_row_comes_once_in_steps_of_the_stated_size(
    rows: int, batch: int, accumulation: int
) -> None:
    shape = make_shape(batch, accumulation)
    inputs, targets = draw_lengths(rows)
    for steps in (
        plan_steps(inputs, targets, shape=shape, seed=1, epoch=0),
        plan_random(inputs, shape=shape, seed=1, epoch=0),
    ):
        assert sorted(all_rows(steps)) == list(range(rows))
        sizes = sorted(sum(map(len, step)) for step in steps)
        whole, spare = divmod(rows, batch * accumulation)
        assert sizes == sorted([batch * accumulation] * whole + [spare] * bool(spare))
        assert len(steps) == -(-rows // (batch * accumulation))
        assert all(len(rows) for step in steps for rows in step)


@pytest.mark.parametrize(("batch", "accumulation"), SHAPES)
def test_no_pass_takes_more_room_than_the_stated_batch_at_full_length(
    batch: int, accumulation: int
) -> None:
    shape = make_shape(batch, accumulation)
    inputs, targets = draw_lengths(500)
    inputs[:40] = 512
    targets[20:60] = 128
    for step in plan_steps(inputs, targets, shape=shape, seed=1, epoch=0):
        for rows in step:
            assert len(rows) * inputs[rows].max() <= batch * 512
            assert len(rows) * targets[rows].max() <= batch * 128


def test_seed_and_epoch_alone_decide() -> None:
    inputs, targets = draw_lengths(300)
    shape = make_shape(6, 4)

    def order(seed: int, epoch: int) -> list[int]:
        steps = plan_steps(inputs, targets, shape=shape, seed=seed, epoch=epoch)
        return all_rows(steps)

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_rows_meet_others_in_the_next_epoch() -> None:
    inputs, targets = draw_lengths(2000)

    def partners(epoch: int) -> list[set[int]]:
        steps = plan_steps(inputs, targets, shape=make_shape(6, 4), seed=1, epoch=epoch)
        met: list[set[int]] = [set() for _ in inputs]
        for rows in (rows for step in steps for rows in step):
            for row in rows:
                met[row] = set(map(int, rows)) - {int(row)}
        return met

    first, second = partners(0), partners(1)
    kept = [len(a & b) / len(a) for a, b in zip(first, second, strict=True) if a and b]
    # Lengths that few rows have bring the same ones together again.
    assert float(np.mean(kept)) < 0.7


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (12, 2), (6, 4), (4, 8)])
def test_lengths_come_in_no_order(batch: int, accumulation: int) -> None:
    """The mean length of a step says nothing about when it comes, nor about the next one's."""
    inputs, targets = draw_lengths(4000)
    correlations, neighbours = [], []
    for epoch in range(10):
        steps = plan_steps(
            inputs, targets, shape=make_shape(batch, accumulation), seed=3, epoch=epoch
        )
        means = np.array([inputs[np.concatenate(step)].mean() for step in steps])
        correlations.append(np.corrcoef(np.arange(len(means)), means)[0, 1])
        neighbours.append(np.corrcoef(means[:-1], means[1:])[0, 1])
    # Ten independent draws: the mean's standard error is about 1 / sqrt(10 x steps).
    bound = 4 / np.sqrt(10 * len(means))
    assert abs(float(np.mean(correlations))) < bound
    assert abs(float(np.mean(neighbours))) < bound


def test_long_rows_do_not_come_early() -> None:
    """Long rows make passes of few rows, which fit into a step's last gap most often."""
    generator = np.random.default_rng(0)
    inputs = np.where(generator.random(400) < 0.1, 512, generator.integers(30, 200, 400)).astype(
        np.int32
    )
    targets = np.full(400, 20, dtype=np.int32)
    gaps = []
    for seed in range(300):
        steps = plan_steps(inputs, targets, shape=make_shape(4, 8), seed=seed, epoch=0)
        means = np.array([inputs[np.concatenate(step)].mean() for step in steps])
        quarter = len(means) // 4
        gaps.append(means[:quarter].mean() - means[-quarter:].mean())
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps) / np.sqrt(len(gaps))


def test_lengths_within_an_accumulated_step_differ() -> None:
    inputs, targets = draw_lengths(2000)
    steps = plan_steps(inputs, targets, shape=make_shape(6, 4), seed=1, epoch=0)
    assert all(len(step) >= 2 for step in steps if sum(map(len, step)) == 24)


@pytest.mark.parametrize(
    ("batch", "accumulation", "most"),
    [(6, 4, 0.03), (8, 3, 0.03), (12, 2, 0.03), (8, 2, 0.03), (4, 8, 0.03)],
)
def test_padding_of_the_seven_on_real_lengths(
    shared_dir: Path, batch: int, accumulation: int, most: float
) -> None:
    """Characters stand for tokens, about two to one; as many rows as the competition has."""
    rows = load_splits(
        shared_dir / "data/ko/train.csv", shared_dir / "data/ko/dev.csv", test=None
    ).train.rows
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(rows), size=12_457)
    jitter = generator.normal(1, 0.03, size=12_457)
    inputs = np.clip([len(rows[row].dialogue) / 1.9 for row in drawn] * jitter, 8, 512)
    targets = np.clip([len(rows[row].summary or "") / 1.9 for row in drawn] * jitter, 4, 128)
    shape, lengths = make_shape(batch, accumulation), (inputs.astype(int), targets.astype(int))
    steps = plan_steps(*lengths, shape=shape, seed=1, epoch=0)
    assert padding_share(steps, *lengths) <= most
    assert padding_share(plan_random(lengths[0], shape=shape, seed=1, epoch=0), *lengths) > 0.25


def test_padding_counts_positions() -> None:
    steps = [[np.array([0, 1])], [np.array([2])]]
    inputs, targets = np.array([10, 5, 7]), np.array([2, 4, 3])
    assert padding_share(steps, inputs, targets) == pytest.approx(1 - 31 / (2 * 14 + 10))
    rounded = padding_share(steps, inputs, targets, multiple=8)
    assert rounded == pytest.approx(1 - 31 / (2 * 20 + 11))


def test_the_heaviest_passes_are_those_of_most_tokens_and_of_most_attention() -> None:
    first = [[np.array([0, 1]), np.array([2])]]
    later = [[np.array([3, 4, 5])]]
    inputs = np.array([100, 90, 250, 60, 60, 60])

    def find(target: int) -> list[list[int]]:
        return [list(rows) for rows in find_heaviest([first, later], inputs, np.full(6, target))]

    assert find(10) == [[2]]
    assert find(80) == [[3, 4, 5], [2]]


def test_equal_lengths_are_no_trouble() -> None:
    lengths = np.full(50, 30)
    steps = plan_steps(lengths, lengths, shape=make_shape(4, 3), seed=0, epoch=0)
    assert sorted(all_rows(steps)) == list(range(50))
    assert padding_share(steps, lengths, lengths) == 0.0
    assert all(len(a) and len(b) for a, b in pairwise(steps))

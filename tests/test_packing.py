"""Packed rows: every row once, sequences full, and none sees another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialsum.data.encode import Counts, EncodedSplit
from dialsum.errors import FullMemoryError
from dialsum.train.task import (
    MOST_LEAK,
    NO_ROW,
    ROWS,
    BatchShape,
    Machine,
    PassLimit,
    SummaryTask,
    count_positions,
    fill_sequences,
    halve,
    leave_out,
    plan_packed,
    rows_of,
    rows_of_places,
)
from small_models import tiny_checkpoint

SHAPE = BatchShape(batch_size=4, accumulation=4, max_input=100, max_target=28)
ALONE = ["gpt2", "kogpt2", "llama", "qwen", "gemma"]


def draw_lengths(count: int, *, seed: int = 5, most: int = 128) -> Any:
    drawn = np.random.default_rng(seed).lognormal(3.3, 0.5, count)
    return np.clip(drawn, 5, most).astype(np.int64)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 203])
def test_an_epoch_holds_every_row_once_in_steps_of_the_stated_rows(count: int) -> None:
    lengths = draw_lengths(count)
    steps = plan_packed(lengths, shape=SHAPE, seed=1, epoch=0)
    assert sorted(int(row) for step in steps for rows in step for row in rows) == [*range(count)]
    assert [sum(map(len, step)) for step in steps[:-1]] == [16] * (len(steps) - 1)
    again, other = (plan_packed(lengths, shape=SHAPE, seed=1, epoch=epoch) for epoch in (0, 1))
    assert [[rows.tolist() for rows in step] for step in again] == [
        [rows.tolist() for rows in step] for step in steps
    ]
    if count > 16:
        assert [one.tolist() for one in other[0]] != [one.tolist() for one in steps[0]]


@pytest.mark.parametrize(
    "lengths",
    [[128], [128, 128, 1], [65, 65, 65], [60, 60, 60, 60, 16], [5] * 40, draw_lengths(64)],
)
def test_no_sequence_is_longer_than_a_row_may_be(lengths: Any) -> None:
    lengths = np.array(lengths)
    filled = fill_sequences(lengths, most=128)
    assert sorted(np.concatenate(filled).tolist()) == [*range(len(lengths))]
    assert max(int(lengths[rows].sum()) for rows in filled) <= 128


def test_nearly_nothing_is_padding() -> None:
    lengths = draw_lengths(640, most=1224) * 8
    shape = BatchShape(batch_size=8, accumulation=8, max_input=1024, max_target=200)
    encoded = EncodedSplit(
        [np.ones(one, np.int32) for one in np.minimum(lengths, 1024)],
        [np.ones(40, np.int32)] * len(lengths),
        Counts(),
    )
    task = make_task(encoded, shape=shape, packing=True)
    share = task.padding_share()
    assert share["value"] < 0.02
    assert share["drawn_at_random"] > 0.3


def make_task(encoded: EncodedSplit, *, shape: BatchShape = SHAPE, **options: Any) -> SummaryTask:
    return SummaryTask(
        encoded,
        names=[f"r{row}" for row in range(len(encoded))],
        sha256="",
        shape=shape,
        seed=1,
        pad_token_id=0,
        joined=True,
        **options,
    )


def draw_rows(count: int, *, vocabulary: int = 50) -> EncodedSplit:
    generator = np.random.default_rng(3)
    inputs, targets = (
        [generator.integers(5, vocabulary, int(size)).astype(np.int32) for size in sizes]
        for sizes in (generator.integers(10, 90, count), generator.integers(4, 28, count))
    )
    return EncodedSplit(inputs, targets, Counts())


def read_rows(batch: Any) -> dict[int, tuple[list[int], list[int]]]:
    """Return what each row of a packed pass reads and is to say."""
    found = {}
    for at, held in enumerate(batch[ROWS].tolist()):
        begins = np.flatnonzero(batch["position_ids"][at].numpy() == 0).tolist()
        ends = [*begins[1:], len(batch["position_ids"][at])]
        for row, begin, end in zip(
            [one for one in held if one != NO_ROW], begins, ends, strict=False
        ):
            ids, labels = (batch[key][at, begin:end].tolist() for key in ("input_ids", "labels"))
            found[row] = (ids, labels)
    return found


@pytest.mark.training
@pytest.mark.parametrize("whole", [False, True])
def test_each_row_stands_in_its_pass_with_its_own_labels(whole: bool) -> None:
    encoded = draw_rows(40)
    task = make_task(encoded, packing=True, prompt_loss_weight=float(whole))
    rows = np.arange(3, 33)
    batch = task[rows]
    assert sorted(rows_of([batch])) == rows.tolist()
    assert encoded.targets is not None
    for row, (ids, labels) in read_rows(batch).items():
        prompt, target = encoded.inputs[row].tolist(), encoded.targets[row].tolist()
        assert ids == [*prompt, *target]
        assert labels == [-100, *prompt[1:], *target] if whole else [-100] * len(prompt) + target
    halves = halve(batch)
    assert sorted(rows_of(halves)) == rows.tolist()
    assert len(halves) == 2
    (left,) = leave_out([batch], {7, 20})
    kept = read_rows(batch)
    del kept[7], kept[20]
    assert read_rows(left) == kept
    assert leave_out([batch], set(range(40))) == []


@pytest.mark.training
def test_a_sequence_that_memory_does_not_hold_is_cut_between_its_rows() -> None:
    task = make_task(draw_rows(40), packing=True)
    batch = task[np.arange(3, 33)]
    limit = PassLimit()
    said = limit.lower(batch, "full")
    assert f"30 rows, {len(batch['input_ids'])} x {batch['input_ids'].shape[1]}" in said
    limit.positions = max(len(ids) for ids, _ in read_rows(batch).values())
    fitting = limit.fit([batch])
    assert all(count_positions(one) <= limit.positions for one in fitting)
    assert {row: texts for one in fitting for row, texts in read_rows(one).items()} == read_rows(
        batch
    )
    with pytest.raises(FullMemoryError, match="a single row"):
        limit.lower(next(one for one in fitting if len(rows_of([one])) == 1), "full")


def load(name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint(name), dtype=torch.float32).eval()


@pytest.mark.training
@pytest.mark.parametrize("name", ALONE)
def test_packed_or_not_each_row_has_the_same_loss(name: str) -> None:
    import torch

    model, encoded = load(name), draw_rows(24)
    packed, apart = make_task(encoded, packing=True), make_task(encoded)
    batch = packed[np.arange(24)]
    assert len(batch["input_ids"]) <= 12
    with torch.no_grad():
        for row in range(24):
            alone = apart.loss(model, apart[[row]], count=None)
            # The others stand beside it and do not count.
            labels = batch["labels"].masked_fill(rows_of_places(batch) != row, -100)
            together = packed.loss(model, batch | {"labels": labels}, count=None)
            assert float(together) == pytest.approx(float(alone), abs=1e-4), row
        padded = apart.loss(model, apart[np.arange(24)], count=None)
        assert float(packed.loss(model, batch, count=None)) == pytest.approx(
            float(padded), abs=1e-4
        )


@pytest.mark.training
@pytest.mark.parametrize("name", ALONE)
def test_rows_that_see_each_other_are_found(name: str) -> None:
    """As with an attention kernel that does not look at where positions begin again."""
    import torch

    model, encoded = load(name), draw_rows(24)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    task, cpu = make_task(encoded, packing=True), Machine(torch.device("cpu"))
    assert task.measure_leak(model, cpu) < 1e-4
    base = model.base_model

    def blend(_: Any, arguments: Any, named: dict[str, Any]) -> Any:
        row = torch.arange(named["input_ids"].shape[1])
        return arguments, named | {"position_ids": row.expand_as(named["input_ids"])}

    base.register_forward_pre_hook(blend, with_kwargs=True)
    assert task.measure_leak(model, cpu) > MOST_LEAK


@pytest.mark.parametrize("lengths", [[100, 100], [128]])
def test_rows_that_share_nothing_have_no_leak(lengths: list[int]) -> None:
    import torch

    inputs = [np.ones(one - 4, np.int32) for one in lengths]
    encoded = EncodedSplit(inputs, [np.ones(4, np.int32)] * len(lengths), Counts())
    task = make_task(encoded, packing=True)
    assert task.measure_leak(None, Machine(torch.device("cpu"))) == 0.0


@pytest.mark.training
@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("whole", [False, True])
def test_the_loss_is_that_of_the_library(name: str, whole: bool) -> None:
    import torch

    model, encoded = load(name), draw_rows(6)
    task = make_task(encoded, prompt_loss_weight=float(whole))
    batch = task[np.arange(6)]
    with torch.no_grad():
        ours = task.loss(model, batch, count=None)
        # With its own mask of the padding.
        theirs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
        ).loss
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.training
@pytest.mark.parametrize("packing", [False, True])
def test_a_prompt_counts_as_much_as_it_is_given(packing: bool) -> None:
    """However a step is cut into passes, and whatever rows are taken out of them."""
    import torch
    from torch.nn.functional import cross_entropy

    model, encoded, weight = load("llama"), draw_rows(12), 0.3
    task = make_task(encoded, packing=packing, prompt_loss_weight=weight)
    batch = task[np.arange(12)]
    assert encoded.targets is not None
    total = counted = 0.0
    with torch.no_grad():
        for row in range(1, 12):
            ids = np.concatenate([encoded.inputs[row], encoded.targets[row]])
            ids = torch.tensor([ids.tolist()])
            each = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
            weights = torch.ones(len(each))
            weights[: len(encoded.inputs[row]) - 1] = weight
            total, counted = total + float(each @ weights), counted + float(weights.sum())
        passes = [one for half in leave_out([batch], {0}) for one in halve(half)]
        count = task.count(passes)
        found = sum(float(task.loss(model, one, count=count)) for one in passes)
        (whole,) = leave_out([batch], {0})
        assert float(task.loss(model, whole, count=None)) == pytest.approx(found, abs=1e-4)
    assert count == pytest.approx(counted)
    assert found == pytest.approx(total / counted, abs=1e-4)


@pytest.mark.training
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_packed_losses_are_those_of_trl(name: str, tmp_path: Path) -> None:
    """SFTTrainer's own loss of the same rows, put into one sequence by its own collator."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from dialsum.models.tokenizers import load_tokenizer

    model, encoded = load(name), draw_rows(10)
    task = make_task(encoded, shape=replace(SHAPE, max_input=900), packing=True)
    batch = task[np.arange(10)]
    assert len(batch["input_ids"]) == 1
    assert encoded.targets is not None
    rows = [
        {"input_ids": [*prompt, *target], "labels": [-100] * len(prompt) + [*target]}
        for prompt, target in zip(
            (ids.tolist() for ids in encoded.inputs),
            (ids.tolist() for ids in encoded.targets),
            strict=True,
        )
    ]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=10,
            padding_free=True,
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to=[],
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(tiny_checkpoint(name)),
    )
    (theirs,) = trainer.get_train_dataloader()
    assert theirs["input_ids"].shape == batch["input_ids"].shape
    loss = trainer.compute_loss(model.eval(), theirs).item()
    assert task.loss(model, batch, count=None).item() == pytest.approx(loss, abs=1e-5)

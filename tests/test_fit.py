"""Training: every key arrives, steps are counted, the best checkpoint comes back, the rest goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialsum.errors import DiskFullError, FullMemoryError, RunError
from dialsum.score.show import describe_reading, reads
from small_fit import UNEQUAL, SmallTraining, make_rows, read_events

training = pytest.mark.training


def train(
    folder: Path, scores: Sequence[float], *, qlora: dict[str, Any], **asked: Any
) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Train a small model whose dev scores are these, one an evaluation."""
    trainer = SmallTraining(
        rows=make_rows([1, 2, 3, 4]),
        scores=scores,
        qlora=qlora,
        width=32,
        training={"max_steps": len(scores), "save_total_limit": 2, "eval_steps": 1} | asked,
    ).loop(folder)
    trainer.run()
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
        tmp_path, [10.0, 30.0, 20.0, 29.0, 99.0, 99.0], qlora=qlora, early_stopping_patience=2
    )
    assert (state.global_step, state.best_global_step, state.best_metric) == (4, 2, 30.0)
    assert [event["best"] for event in events if event["event"] == "eval"] == [
        True,
        True,
        False,
        False,
    ]
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
    assert {path.name for path in best.glob("*.pt*")} == {"training_state.pt"}


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


@training
def test_of_equal_scores_the_smaller_loss_is_the_best(tmp_path: Path) -> None:
    state, _, events = train(tmp_path, [30.0, 30.0, 30.0], qlora=FULL)
    losses = {event["step"]: event["eval_loss"] for event in events if event["event"] == "eval"}
    assert state.best_global_step == min(losses, key=losses.__getitem__) != 1


@training
def test_the_best_is_saved_though_no_checkpoint_was_due(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    state, model, _ = train(tmp_path, [1.0, 9.0, 2.0, 3.0], qlora=FULL, save_steps=4)
    assert (state.global_step, state.best_global_step) == (4, 2)
    (file,) = (tmp_path / "checkpoints" / "checkpoint-2").glob("*.safetensors")
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in load_file(str(file)).items())


@training
@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_metric_that_is_never_finite_is_no_success(score: float, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no evaluation on dev gave a finite rouge_mean"):
        train(tmp_path, [score, score], qlora=FULL)


@training
def test_a_metric_that_is_not_finite_once_is_not_the_best(tmp_path: Path) -> None:
    state, _, _ = train(tmp_path, [float("nan"), 2.0, float("inf")], qlora=FULL)
    assert (state.best_global_step, state.best_metric) == (2, 2.0)


@training
def test_full_memory_in_the_dev_loss_is_answered_by_smaller_passes(tmp_path: Path) -> None:
    from dataclasses import replace

    from dialsum.train.task import count_positions

    def evaluate(most: int) -> tuple[float, list[dict[str, Any]]]:
        """Return the dev loss, and what was answered, where memory holds so many positions."""
        loop = SmallTraining(rows=UNEQUAL, qlora=FULL, training={"max_steps": 1}).loop(
            tmp_path / str(most)
        )
        loop.dev = replace(loop.dev, task=replace(loop.task), batch_size=6)
        usual = loop.dev.task.loss

        def loss(model: Any, batch: Any, *, count: int | None) -> Any:
            if count_positions(batch) > most:
                raise MemoryError("not enough memory")
            return usual(model, batch, count=count)

        loop.dev.task.loss = loss
        result, events = loop.run(), read_events(tmp_path / str(most), "memory_retry")
        assert result.memory_retries == len(events)
        return loop.state.log_history[-1]["eval_loss"], events

    whole, none = evaluate(10_000)
    halved, events = evaluate(150)
    assert halved == pytest.approx(whole, rel=1e-6)
    assert none == [] and {event["step"] for event in events} == {0}, "before the first step"
    assert all("in the dev loss" in event["message"] for event in events)
    with pytest.raises(FullMemoryError, match=r"in the dev loss with a single row of \d+ input"):
        evaluate(0)


@training
def test_a_run_that_is_asked_to_stop_ends_with_its_best_weights(tmp_path: Path) -> None:
    loop = SmallTraining(
        rows=make_rows([1, 2, 3, 4]),
        scores=[10.0, 30.0, 20.0],
        qlora=FULL,
        width=32,
        training={"max_steps": 9, "eval_steps": 1},
    ).loop(tmp_path)
    score = loop.dev.score

    def ask_in_the_second(model: Any) -> dict[str, float]:
        if loop.state.global_step == 2:
            (tmp_path / "stop").write_text("other trials\nare better\n", encoding="utf-8")
        return score(model)

    loop.dev.score = ask_in_the_second
    result = loop.run()
    assert (result.steps, result.best_step, result.stopped_early) == (3, 2, True)
    assert result.stop_reason == "other trials are better"
    assert [event["step"] for event in read_events(tmp_path, "stop")] == [3]
    assert not (tmp_path / "stop").exists()


@training
def test_a_best_checkpoint_that_is_gone_after_the_last_step_is_chosen_anew(tmp_path: Path) -> None:
    def make(scores: Sequence[float], resume: Path | None = None) -> Any:
        return SmallTraining(
            rows=make_rows([1, 2, 3, 4]),
            scores=scores,
            qlora=FULL,
            width=32,
            training={"max_steps": 4, "save_total_limit": 2, "eval_steps": 1},
        ).loop(tmp_path, resume=resume)

    assert make([10.0, 30.0, 20.0, 15.0]).run().best_step == 2
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    result = make([15.0], resume=checkpoints / "checkpoint-4").run()
    assert (result.steps, result.best_step, result.best_metric) == (4, 4, 15.0)


def train_in_room(folder: Path, *, checkpoints: float, steps: int) -> Any:
    """Train with room for so many checkpoints; each step is the best so far, and is saved."""
    from dialsum.train.checkpoints import Room

    alone = SmallTraining(training={"max_steps": 1}, qlora=FULL).loop(folder / "alone")
    alone.run()
    size = sum(one.stat().st_size for one in (folder / "alone").rglob("*") if one.is_file())
    loop = SmallTraining(
        training={"max_steps": steps, "eval_steps": 1, "save_total_limit": 9},
        qlora=FULL,
        scores=[float(step) for step in range(steps)],
    ).loop(folder)
    # The next one is counted with four more MiB than these tiny tensors take.
    budget = size + int(checkpoints * size) + 4 * 2**20
    loop.places = replace(loop.places, room=Room(folder, budget))
    return loop


@training
def test_older_checkpoints_go_where_the_budget_ends(tmp_path: Path) -> None:
    loop = train_in_room(tmp_path, checkpoints=3.5, steps=5)
    loop.run()
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"checkpoint-4", "checkpoint-5"} <= kept and "checkpoint-1" not in kept
    said = [event["message"] for event in read_events(tmp_path, "warning")]
    assert (
        "batch.disk_budget_gb is nearly used up: checkpoint-1, checkpoint-2 had to go" in said[0]
    ), said


@training
def test_what_no_room_is_left_for_stops_at_its_last_checkpoint(tmp_path: Path) -> None:
    loop = train_in_room(tmp_path, checkpoints=1.5, steps=5)
    with pytest.raises(DiskFullError, match="the last one is of step 1") as caught:
        loop.run()
    assert "batch.disk_budget_gb leaves" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]


@training
@pytest.mark.parametrize("sort", ["bart", "t5", "llama"])
@pytest.mark.parametrize("alike", [False, True], ids=["own summaries", "one summary for all"])
def test_the_loss_with_another_dialogue_shows_who_reads(
    sort: str, alike: bool, tmp_path: Path
) -> None:
    words = ["가", "나", "다", "라", "마", "바"]
    rows = [
        replace(row, dialogue=f"{word} {word} {word}", summary=words[0] * 3 if alike else word * 3)
        for row, word in zip(make_rows([1] * len(words)), words, strict=True)
    ]
    steps = 150
    loop = SmallTraining(
        sort=sort,
        rows=rows,
        width=32,
        batch=6,
        training={"max_steps": steps, "eval_steps": steps, "logging_steps": steps},
    ).loop(tmp_path)
    assert loop.measure_reading() is None  # of a single row
    loop.dev = replace(loop.dev, task=replace(loop.task, packing=False), batch_size=3)
    loop.run()
    found = loop.measure_reading()
    assert found is not None
    assert reads(found) == (not alike), found
    assert ("NOT" in describe_reading(found)) == alike

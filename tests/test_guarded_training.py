"""Training that meets NaN and weights that break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialsum.errors import RunError
from small_fit import UNEQUAL, SmallTraining, read_events, weights_of

pytestmark = pytest.mark.training

RARE = "비둘기"
BAD_ROW = 5


def rows_with_a_rare_word() -> list[Any]:
    """Return rows one of which has a word that no other has."""
    from dataclasses import replace

    rows = list(UNEQUAL)
    rows[BAD_ROW] = replace(rows[BAD_ROW], dialogue=f"{rows[BAD_ROW].dialogue} {RARE}")
    return rows


def break_rare_word(model: Any, tokenizer: Any) -> None:
    """Make the embedding of a piece that only the rare word has infinite."""
    import torch

    others = {piece for row in UNEQUAL for piece in tokenizer(row.dialogue + (row.summary or ""))
              ["input_ids"]}
    piece = next(piece for piece in tokenizer(RARE)["input_ids"] if piece not in others)
    with torch.no_grad():
        model.get_input_embeddings().weight[piece] = float("inf")


BAD: dict[str, Any] = {
    "sort": "mt5", "rows": rows_with_a_rare_word(), "batch": 2, "change": break_rare_word,
    "qlora": {"use_qlora": True, "load_in_4bit": False, "lora_rank": 2, "lora_alpha": 4},
}  # fmt: skip


def train_with_a_bad_row(folder: Path, policy: str, **asked: Any) -> tuple[Any, dict[str, Any]]:
    """Train adapters on a frozen base in which one row's word is infinite."""
    trainer = SmallTraining(
        **BAD | {"training": {"max_steps": 12, "eval_steps": 12, "on_nan": policy} | asked}
    ).trainer(folder)
    failure = None
    try:
        trainer.train()
    except RunError as error:
        failure = error
    report = json.loads((folder / "nan_report.json").read_text(encoding="utf-8"))
    return (trainer, failure), report


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_bad_row_is_named_and_training_goes_on(policy: str, tmp_path: Path) -> None:
    import torch

    (trainer, failure), report = train_with_a_bad_row(tmp_path, policy)
    assert failure is None
    assert all(torch.isfinite(one).all() for one in weights_of(trainer.model).values())
    (first, second) = report["events"]  # two epochs
    assert first["action"] == second["action"] == policy
    assert f"row_{BAD_ROW + 1}" in first["rows"]
    assert first["found_in"] == "forward"
    assert "embed" in first["layer"] or "shared" in first["layer"]
    assert first["loss"] in ("nan", "inf")
    rates = {event["step"]: event["learning_rate"] for event in read_events(tmp_path, "train")}
    expected = 1e-2 / 4 if policy == "rollback" else 1e-2
    assert rates[12] == pytest.approx(expected)
    losses = [event["loss"] for event in read_events(tmp_path, "train")]
    assert all(isinstance(loss, float) for loss in losses)
    assert trainer.supervision.progress.nan_events == 2
    assert trainer.state.global_step == 12


def test_the_rows_of_the_pass_and_of_the_whole_step_are_named(tmp_path: Path) -> None:
    training = SmallTraining(
        **BAD | {"accumulation": 3, "training": {"max_steps": 2, "eval_steps": 2, "on_nan": "skip"}}
    )
    training.trainer(tmp_path).train()
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert f"row_{BAD_ROW + 1}" in event["rows"]
    assert set(event["rows"]) < set(event["step_rows"])
    assert len(event["step_rows"]) == 6


def test_a_skipped_step_changes_no_weight(tmp_path: Path) -> None:
    import torch

    seen: list[dict[str, Any]] = []
    training = SmallTraining(
        sort="mt5", rows=rows_with_a_rare_word(), batch=12, change=break_rare_word,
        qlora={"use_qlora": True, "load_in_4bit": False, "lora_rank": 2, "lora_alpha": 4},
        training={"max_steps": 2, "eval_steps": 2, "on_nan": "skip"},
    )  # fmt: skip
    trainer = training.trainer(tmp_path)
    seen.append(weights_of(trainer.model))
    trainer.train()
    after = weights_of(trainer.model)
    assert all(torch.equal(seen[0][name], after[name]) for name in after)


@pytest.mark.parametrize("every", [2, 3, 4, 12])
def test_the_logged_mean_is_that_of_the_good_steps(every: int, tmp_path: Path) -> None:
    single, together = tmp_path / "single", tmp_path / "together"
    for folder, steps in ((single, 1), (together, every)):
        folder.mkdir()
        train_with_a_bad_row(folder, "skip", logging_steps=steps, learning_rate=1e-12)
    good = {event["step"]: event["loss"] for event in read_events(single, "train")}
    bad = {event["step"] for event in read_events(single, "nan")}
    assert len(bad) == 2
    assert sorted(good.keys() | bad) == list(range(1, 13))
    assert not good.keys() & bad
    before = 0
    for event in read_events(together, "train"):
        window = [good[step] for step in range(before + 1, event["step"] + 1) if step in good]
        assert event["loss"] == pytest.approx(sum(window) / len(window), rel=1e-5)
        before = event["step"]
    assert before == 12


def test_a_run_that_goes_on_remembers_its_bad_steps(tmp_path: Path) -> None:
    import shutil

    import torch

    whole, again = tmp_path / "whole", tmp_path / "again"
    for folder in (whole, again):
        folder.mkdir()
    asked = {"eval_steps": 2, "save_total_limit": 20, "max_steps": 18}
    (trainer, failure), report = train_with_a_bad_row(whole, "rollback", **asked)
    assert failure is None
    steps = [event["step"] for event in report["events"]]
    assert len(steps) == 3
    assert steps[1] - steps[0] > 1
    kept = steps[0] + steps[0] % 2  # the first checkpoint after the first bad step
    checkpoint = again / "checkpoints" / f"checkpoint-{kept}"
    for step in range(2, kept + 1, 2):
        name = f"checkpoint-{step}"
        shutil.copytree(whole / "checkpoints" / name, again / "checkpoints" / name)
    shutil.copy(whole / "nan_report.json", again / "nan_report.json")
    second = SmallTraining(
        **BAD | {"training": {"on_nan": "rollback", **asked}}
    ).trainer(again, resume=checkpoint)  # fmt: skip
    second.train(resume_from_checkpoint=str(checkpoint))
    assert json.loads((again / "nan_report.json").read_text(encoding="utf-8")) == report
    assert second.supervision.progress.nan_events == 3
    curve = [(event["step"], event["loss"]) for event in read_events(again, "train")]
    assert curve == [
        (event["step"], event["loss"]) for event in read_events(whole, "train")
        if event["step"] > kept
    ]
    ours, theirs = weights_of(second.model), weights_of(trainer.model)
    assert all(torch.equal(one, theirs[name]) for name, one in ours.items())


def test_the_policy_stop_fails_with_the_report(tmp_path: Path) -> None:
    (_, failure), report = train_with_a_bad_row(tmp_path, "stop")
    assert failure is not None
    assert "training.on_nan is stop" in str(failure)
    assert f"row_{BAD_ROW + 1}" in str(failure)
    assert [event["action"] for event in report["events"]] == ["stop"]


def test_the_fourth_bad_step_fails(tmp_path: Path) -> None:
    (_, failure), report = train_with_a_bad_row(tmp_path, "skip", max_steps=60, eval_steps=60)
    assert failure is not None
    assert "more than 3" in str(failure)
    assert [event["action"] for event in report["events"]] == ["skip", "skip", "skip", "stop"]


@pytest.mark.parametrize("policy", ["rollback", "skip"])
def test_weights_that_break_are_seen_at_their_step(policy: str, tmp_path: Path) -> None:
    import torch
    from transformers import TrainerCallback

    class Breaker(TrainerCallback):
        """Damages a weight after the third optimizer step, as a failing card does."""

        def on_pre_optimizer_step(self, *event: Any, model: Any = None, **_: Any) -> None:
            _arguments, state, _control = event
            if state.global_step == 2:
                weight = next(iter(model.parameters()))
                with torch.no_grad():
                    weight[0] = float("nan")

    trainer = SmallTraining(
        training={"max_steps": 6, "eval_steps": 6, "on_nan": policy}
    ).trainer(tmp_path)
    trainer.add_callback(Breaker())
    if policy == "skip":
        with pytest.raises(RunError, match="weights themselves are damaged"):
            trainer.train()
    else:
        trainer.train()
        assert all(torch.isfinite(one).all() for one in weights_of(trainer.model).values())
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert (event["step"], event["found_in"]) == (3, "weights")
    assert event["rows"]


def test_going_back_restores_weights_and_optimizer(tmp_path: Path) -> None:
    import torch

    from dialsum.train.nonfinite import Snapshot

    trainer = SmallTraining(training={"max_steps": 3, "eval_steps": 3}).trainer(tmp_path)
    trainer.train()
    snapshot = Snapshot(trainer.model, trainer.optimizer, step=3)
    weights = weights_of(trainer.model)
    moments = {
        key: value.clone()
        for state in trainer.optimizer.state.values() for key, value in state.items()
        if value.numel() > 1
    }  # fmt: skip
    with torch.no_grad():
        for one in trainer.model.parameters():
            one.add_(float("nan"))
        for state in trainer.optimizer.state.values():
            for value in state.values():
                value.fill_(float("nan"))
    snapshot.restore(trainer.model, trainer.optimizer)
    assert all(torch.equal(weights[name], one) for name, one in weights_of(trainer.model).items())
    again = {
        key: value
        for state in trainer.optimizer.state.values() for key, value in state.items()
        if value.numel() > 1
    }  # fmt: skip
    assert moments
    assert all(torch.equal(moments[key], again[key]) for key in moments)


def test_a_scaler_that_never_finds_its_scale_is_a_fault(tmp_path: Path) -> None:
    """Infinite gradients are how a float16 scaler looks for its scale, but not for ever."""
    import torch

    trainer = SmallTraining(training={"max_steps": 60, "eval_steps": 60}).trainer(tmp_path)
    trainer.accelerator.scaler = scaler = torch.amp.GradScaler("cpu")
    # As accelerate does where it computes in float16, which a CPU does not.
    trainer.accelerator.unscale_gradients = lambda *_: scaler.unscale_(trainer.optimizer.optimizer)
    weight = next(one for one in trainer.model.parameters() if one.requires_grad)
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match="not finite"):
        trainer.train()
    (first, *_) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert first["step"] == 21
    assert first["found_in"] == "gradients"


def test_nothing_is_reported_where_nothing_was_wrong(tmp_path: Path) -> None:
    SmallTraining().trainer(tmp_path).train()
    assert not (tmp_path / "nan_report.json").exists()

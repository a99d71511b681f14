"""Training that meets NaN and weights that break."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """Make what is embedded infinite where a piece stands that only the rare word has."""
    others = {
        piece
        for row in UNEQUAL
        for piece in tokenizer(row.dialogue + (row.summary or ""))["input_ids"]
    }
    piece = next(piece for piece in tokenizer(f" {RARE}")["input_ids"] if piece not in others)

    def spoil(_module: Any, given: Any, found: Any) -> Any:
        return found.masked_fill((given[0] == piece).unsqueeze(-1), float("inf"))

    for module in model.modules():
        # T5's encoder and decoder have one each, of the same weight.
        shared = getattr(module, "weight", None) is model.get_input_embeddings().weight
        if shared and module is not model.get_output_embeddings():
            module.register_forward_hook(spoil)


BAD: dict[str, Any] = {
    "sort": "mt5",
    "rows": rows_with_a_rare_word(),
    "batch": 2,
    "change": break_rare_word,
    "qlora": {"use_qlora": True, "load_in_4bit": False, "lora_rank": 2, "lora_alpha": 4},
}
GOOD: dict[str, Any] = {"sort": "mt5", "batch": 2, "qlora": BAD["qlora"]}


def spoil_steps(loop: Any, steps: Sequence[int]) -> None:
    """Make the loss of all rows NaN in some steps, as a rate that is too high does."""
    usual = loop.task.loss

    def loss(*given: Any, **options: Any) -> Any:
        found = usual(*given, **options)
        return found * float("nan") if loop.progress.step in steps else found

    loop.task.loss = loss


def train_with_bad_steps(
    folder: Path,
    policy: str,
    steps: Sequence[int] = (3, 8),
    *,
    resume: Path | None = None,
    **asked: Any,
) -> tuple[Any, RunError | None, dict[str, Any]]:
    """Train while some steps are spoilt; return the loop, what ended it, and its report."""
    training = {"max_steps": 12, "eval_steps": 12, "on_nan": policy} | asked
    loop = SmallTraining(**GOOD | {"training": training}).loop(folder, resume=resume)
    spoil_steps(loop, steps)
    failure = None
    try:
        loop.run()
    except RunError as error:
        failure = error
    return loop, failure, json.loads((folder / "nan_report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("policy", "sort", "packing"),
    [("skip", "mt5", False), ("rollback", "mt5", False), ("rollback", "llama", True)],
)
def test_a_row_that_is_not_finite_by_itself_is_left_out_for_good(
    policy: str, sort: str, packing: bool, tmp_path: Path
) -> None:
    import torch

    training = {"max_steps": 30, "eval_steps": 30, "on_nan": policy}  # five epochs
    training["packing"] = packing
    loop = SmallTraining(**BAD | {"sort": sort, "training": training}).loop(tmp_path)
    result = loop.run()
    assert result.left_out == [f"row_{BAD_ROW + 1}"]
    assert all(torch.isfinite(one).all() for one in weights_of(loop.model).values())
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert event["action"] == "rows left out"
    assert event["left_out"] == [f"row_{BAD_ROW + 1}"]
    assert set(event["left_out"]) < set(event["rows"])
    assert event["found_in"] == "forward"
    assert "embed" in event["layer"] or "shared" in event["layer"]
    assert event["loss"] in ("nan", "inf")
    steps = read_events(tmp_path, "train")
    assert [one["step"] for one in steps] == list(range(1, 31))
    assert all(isinstance(one["loss"], float) for one in steps)
    assert steps[-1]["learning_rate"] == pytest.approx(1e-2)
    assert loop.progress.nan_events == 1


def test_rows_are_left_out_up_to_a_few_only(tmp_path: Path) -> None:
    from dataclasses import replace

    rows = [replace(row, dialogue=f"{row.dialogue} {RARE}") for row in UNEQUAL[:4]]
    training = {"max_steps": 40, "eval_steps": 40, "on_nan": "skip"}
    loop = SmallTraining(**BAD | {"rows": [*rows, *UNEQUAL[4:]], "training": training}).loop(
        tmp_path
    )
    with pytest.raises(RunError, match="more than 3 such steps"):
        loop.run()
    assert len(loop.left_out) == 3


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_bad_steps_are_answered_by_policy(policy: str, tmp_path: Path) -> None:
    import torch

    loop, failure, report = train_with_bad_steps(tmp_path, policy)
    assert failure is None
    assert all(torch.isfinite(one).all() for one in weights_of(loop.model).values())
    assert [(one["step"], one["action"]) for one in report["events"]] == [(3, policy), (8, policy)]
    assert report["events"][0]["found_in"] == "loss"
    rates = {event["step"]: event["learning_rate"] for event in read_events(tmp_path, "train")}
    assert rates[12] == pytest.approx(1e-2 / 4 if policy == "rollback" else 1e-2)
    assert loop.progress.nan_events == 2
    assert (loop.state.global_step, loop.left_out) == (12, set())


def test_the_rows_of_the_pass_and_of_the_whole_step_are_named(tmp_path: Path) -> None:
    training = SmallTraining(
        **BAD | {"accumulation": 3, "training": {"max_steps": 2, "eval_steps": 2, "on_nan": "skip"}}
    )
    training.loop(tmp_path).run()
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert f"row_{BAD_ROW + 1}" in event["rows"]
    assert set(event["rows"]) < set(event["step_rows"])
    assert len(event["step_rows"]) == 6


def test_a_skipped_step_changes_no_weight(tmp_path: Path) -> None:
    import torch

    training = {"max_steps": 2, "eval_steps": 2, "on_nan": "skip"}
    loop = SmallTraining(**GOOD | {"training": training}).loop(tmp_path)
    spoil_steps(loop, (1, 2))
    before = weights_of(loop.model)
    loop.run()
    after = weights_of(loop.model)
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("every", [2, 3, 4, 12])
def test_the_logged_mean_is_that_of_the_good_steps(every: int, tmp_path: Path) -> None:
    single, together = tmp_path / "single", tmp_path / "together"
    for folder, steps in ((single, 1), (together, every)):
        folder.mkdir()
        train_with_bad_steps(folder, "skip", logging_steps=steps, learning_rate=1e-12)
    events = read_events(single, "train")
    good = {event["step"]: event["loss"] for event in events if "loss" in event}
    assert sorted(good) == [step for step in range(1, 13) if step not in (3, 8)]
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
    first, failure, report = train_with_bad_steps(whole, "rollback", (3, 9, 15), **asked)
    assert failure is None
    shutil.copytree(whole / "checkpoints", again / "checkpoints")
    shutil.copy(whole / "nan_report.json", again / "nan_report.json")
    second, _, report_again = train_with_bad_steps(
        again, "rollback", (9, 15), resume=again / "checkpoints" / "checkpoint-4", **asked
    )
    assert report_again == report
    assert second.progress.nan_events == 3
    curve = [(event["step"], event.get("loss")) for event in read_events(again, "train")]
    assert curve == [
        (event["step"], event.get("loss"))
        for event in read_events(whole, "train")
        if event["step"] > 4
    ]
    ours, theirs = weights_of(second.model), weights_of(first.model)
    assert all(torch.equal(one, theirs[name]) for name, one in ours.items())


def test_the_policy_stop_fails_with_the_report(tmp_path: Path) -> None:
    loop = SmallTraining(
        **BAD | {"training": {"max_steps": 12, "eval_steps": 12, "on_nan": "stop"}}
    ).loop(tmp_path)
    with pytest.raises(RunError, match=r"training\.on_nan is stop") as caught:
        loop.run()
    assert f"row_{BAD_ROW + 1}" in str(caught.value)
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert event["action"] == "stop"


def test_the_fourth_bad_step_fails(tmp_path: Path) -> None:
    _, failure, report = train_with_bad_steps(tmp_path, "skip", (2, 4, 6, 8))
    assert failure is not None
    assert "more than 3" in str(failure)
    assert [event["action"] for event in report["events"]] == ["skip", "skip", "skip", "stop"]


@pytest.mark.parametrize("policy", ["rollback", "skip"])
@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step\\(\\)` has been overridden")
def test_weights_that_break_are_seen_at_the_next_step(policy: str, tmp_path: Path) -> None:
    import torch

    loop = SmallTraining(training={"max_steps": 6, "eval_steps": 6, "on_nan": policy}).loop(
        tmp_path
    )
    usual, done = loop.optimizer.step, []

    def damage(*_: Any) -> None:
        usual()
        done.append(len(done))
        if len(done) == 3:
            with torch.no_grad():
                next(iter(loop.model.parameters()))[0] = float("nan")

    loop.optimizer.step = damage
    if policy == "skip":
        with pytest.raises(RunError, match="weights themselves are damaged"):
            loop.run()
    else:
        loop.run()
        assert all(torch.isfinite(one).all() for one in weights_of(loop.model).values())
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert (event["step"], event["found_in"]) == (4, "weights")
    assert event["rows"]


def test_weights_that_break_in_the_last_step_are_never_saved(tmp_path: Path) -> None:
    import torch

    loop = SmallTraining(training={"max_steps": 3, "eval_steps": 3}).loop(tmp_path)
    usual = loop.take_step

    def damage(passes: Any) -> None:
        usual(passes)
        if loop.state.global_step == 3:
            with torch.no_grad():
                next(iter(loop.model.parameters()))[0] = float("inf")

    loop.take_step = damage
    loop.run()
    assert all(torch.isfinite(one).all() for one in weights_of(loop.model).values())
    (event,) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert (event["found_in"], event["action"]) == ("weights", "rollback")


def test_going_back_restores_weights_and_optimizer(tmp_path: Path) -> None:
    import torch

    from dialsum.train.guard import Snapshot

    loop = SmallTraining(training={"max_steps": 3, "eval_steps": 3}).loop(tmp_path)
    loop.run()
    snapshot = Snapshot(loop.model, loop.optimizer, step=3)
    weights = weights_of(loop.model)
    moments = {
        key: value.clone()
        for state in loop.optimizer.state.values()
        for key, value in state.items()
        if value.numel() > 1
    }
    with torch.no_grad():
        for one in loop.model.parameters():
            one.add_(float("nan"))
        for state in loop.optimizer.state.values():
            for value in state.values():
                value.fill_(float("nan"))
    snapshot.restore(loop.model, loop.optimizer)
    assert all(torch.equal(weights[name], one) for name, one in weights_of(loop.model).items())
    again = {
        key: value
        for state in loop.optimizer.state.values()
        for key, value in state.items()
        if value.numel() > 1
    }
    assert moments
    assert all(torch.equal(moments[key], again[key]) for key in moments)


def test_a_scaler_that_never_finds_its_scale_is_a_fault(tmp_path: Path) -> None:
    """Infinite gradients are how a float16 scaler looks for its scale, but not for ever."""
    import torch

    loop = SmallTraining(training={"max_steps": 60, "eval_steps": 60}).loop(tmp_path)
    loop.scaler = torch.amp.GradScaler("cpu")
    weight = next(one for one in loop.model.parameters() if one.requires_grad)
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RunError, match="not finite"):
        loop.run()
    (first, *_) = json.loads((tmp_path / "nan_report.json").read_text(encoding="utf-8"))["events"]
    assert first["step"] == 21
    assert first["found_in"] == "gradients"


def test_nothing_is_reported_where_nothing_was_wrong(tmp_path: Path) -> None:
    SmallTraining().loop(tmp_path).run()
    assert not (tmp_path / "nan_report.json").exists()

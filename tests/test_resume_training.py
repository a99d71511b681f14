"""A training that goes on from a checkpoint: the same curve and the same weights, to the last bit.

And checkpoints that are whole or do not count.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dialsum.train.checkpoints import (
    MANIFEST,
    drop_unsealed_checkpoints,
    find_damage,
    latest_whole_checkpoint,
    list_checkpoints,
    prune,
    read_manifest,
    seal_checkpoint,
    step_of,
)
from small_fit import ADAPTERS, FULL, SmallTraining, read_events, weights_of

training = pytest.mark.training
HERE = Path(__file__).resolve().parent


def write_checkpoint_files(folder: Path, step: int) -> Path:
    """Write a checkpoint-like folder and seal it."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "inner").mkdir(parents=True)
    (checkpoint / "weights.safetensors").write_bytes(bytes(range(100)))
    (checkpoint / "inner" / "state.json").write_text("{}", encoding="utf-8")
    seal_checkpoint(checkpoint, config_sha256="c", data_sha256="d")
    return checkpoint


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    checkpoint = write_checkpoint_files(tmp_path, 7)
    assert find_damage(checkpoint) is None
    assert step_of(checkpoint) == 7
    manifest = read_manifest(checkpoint)
    assert manifest is not None
    assert sorted(manifest["files"]) == ["inner/state.json", "weights.safetensors"]


def cut_short(checkpoint: Path) -> None:
    """Take the last byte of the weights."""
    path = checkpoint / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(checkpoint: Path) -> None:
    """Change a byte of the weights."""
    path = checkpoint / "weights.safetensors"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def remove_a_file(checkpoint: Path) -> None:
    """Remove what the manifest names."""
    (checkpoint / "inner" / "state.json").unlink()


def remove_manifest(checkpoint: Path) -> None:
    """Leave it as a run that was killed while saving does."""
    (checkpoint / MANIFEST).unlink()


def spoil_manifest(checkpoint: Path) -> None:
    """Make the manifest no JSON."""
    (checkpoint / MANIFEST).write_text('{"files": ', encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_short, "is not what was written"),
        (flip, "is not what was written"),
        (remove_a_file, "inner/state.json is missing"),
        (remove_manifest, "not written to its end"),
        (spoil_manifest, "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_left_out_and_the_one_before_taken(
    spoil: Any, words: str, tmp_path: Path
) -> None:
    earlier = write_checkpoint_files(tmp_path, 90)
    later = write_checkpoint_files(tmp_path, 100)
    spoil(later)
    found, notes = latest_whole_checkpoint(tmp_path)
    assert found == earlier
    (note,) = notes
    assert "checkpoint-100" in note
    assert words in note


def test_checkpoints_are_ordered_by_step_not_by_name(tmp_path: Path) -> None:
    for step in (900, 1000, 99):
        write_checkpoint_files(tmp_path, step)
    for name in ("checkpoint-best", "checkpoint-1000-keep", "checkpoint-notes-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5").write_text("a file", encoding="utf-8")
    assert [step_of(one) for one in list_checkpoints(tmp_path)] == [1000, 900, 99]
    assert latest_whole_checkpoint(tmp_path / "none") == (None, [])


def test_only_unsealed_checkpoints_are_dropped(tmp_path: Path) -> None:
    write_checkpoint_files(tmp_path, 1)
    remove_manifest(write_checkpoint_files(tmp_path, 2))
    drop_unsealed_checkpoints(tmp_path)
    assert [step_of(one) for one in list_checkpoints(tmp_path)] == [1]


ASKED: dict[str, Any] = {
    "training": {
        "max_steps": 10,
        "eval_steps": 2,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 3,
        "save_total_limit": 5,
    },
    "dropout": 0.2,
    "batch": 2,
    "accumulation": 2,
    "scores": [1.0, 5.0, 2.0, 3.0, 4.0],
}


def curve(folder: Path) -> list[tuple[Any, ...]]:
    """Return step, loss, gradient norm and learning rate of every step."""
    return [
        (event["step"], event["loss"], event["grad_norm"], event["learning_rate"])
        for event in read_events(folder, "train")
    ]


@training
@pytest.mark.parametrize(("sort", "qlora"), [("bart", FULL), ("mt5", ADAPTERS)])
@pytest.mark.parametrize("step", [4, 6])
def test_a_resumed_training_has_the_same_curve_and_weights(
    sort: str, qlora: dict[str, Any], step: int, tmp_path: Path
) -> None:
    import torch

    whole = SmallTraining(sort=sort, qlora=qlora, **ASKED).loop(tmp_path / "whole")
    whole.run()
    (tmp_path / "again").mkdir()
    for kept in (2, 4, 6):
        if kept <= step:
            shutil.copytree(
                tmp_path / "whole" / "checkpoints" / f"checkpoint-{kept}",
                tmp_path / "again" / "checkpoints" / f"checkpoint-{kept}",
            )
    checkpoint = tmp_path / "again" / "checkpoints" / f"checkpoint-{step}"
    scores = ASKED["scores"][step // 2 :]
    again = SmallTraining(sort=sort, qlora=qlora, **(ASKED | {"scores": scores})).loop(
        tmp_path / "again", resume=checkpoint
    )
    again.run()
    assert curve(tmp_path / "again") == curve(tmp_path / "whole")[step:]
    assert again.state.best_global_step == whole.state.best_global_step == 4
    first, second = weights_of(whole.model), weights_of(again.model)
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_older_checkpoints_go_and_copies_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write_checkpoint_files(tmp_path, step)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "checkpoint-1-keep")
    prune(tmp_path, keep=tmp_path / "checkpoint-2", limit=3)
    assert [step_of(one) for one in list_checkpoints(tmp_path)] == [4, 3, 2]
    prune(tmp_path, keep=tmp_path / "checkpoint-2", limit=2)
    assert [step_of(one) for one in list_checkpoints(tmp_path)] == [4, 2]
    prune(tmp_path, keep=tmp_path / "checkpoint-4", limit=2)
    assert [step_of(one) for one in list_checkpoints(tmp_path)] == [4, 2]
    assert (tmp_path / "checkpoint-1-keep" / MANIFEST).is_file()


@training
def test_a_run_that_died_after_its_last_step_trains_no_more(tmp_path: Path) -> None:
    """Twelve rows in steps of four are three steps an epoch: ten end in mid-epoch."""
    asked = ASKED | {"scores": [1.0, 5.0, 2.0, 3.0, 4.0]}
    whole = SmallTraining(**asked).loop(tmp_path / "whole")
    result = whole.run()
    shutil.copytree(tmp_path / "whole" / "checkpoints", tmp_path / "again" / "checkpoints")
    again = SmallTraining(**(asked | {"scores": [99.0]})).loop(
        tmp_path / "again", resume=tmp_path / "again" / "checkpoints" / "checkpoint-10"
    )
    found = again.run()
    assert (found.steps, found.best_step, found.tokens) == (10, 4, result.tokens)
    assert found.seconds >= result.seconds
    first, second = weights_of(whole.model), weights_of(again.model)
    assert all((first[name] == second[name]).all() for name in first)


@training
def test_patience_goes_on_counting(tmp_path: Path) -> None:
    asked = ASKED | {
        "training": ASKED["training"] | {"early_stopping_patience": 3, "max_steps": 20},
        "scores": [5.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    }
    whole = SmallTraining(**asked).loop(tmp_path / "whole")
    whole.run()
    assert whole.state.global_step == 8
    shutil.copytree(tmp_path / "whole" / "checkpoints", tmp_path / "again" / "checkpoints")
    checkpoint = tmp_path / "again" / "checkpoints" / "checkpoint-6"
    again = SmallTraining(**(asked | {"scores": [1.0]})).loop(tmp_path / "again", resume=checkpoint)
    again.run()
    assert again.state.global_step == 8


@training
def test_a_run_that_had_stopped_early_stays_stopped(tmp_path: Path) -> None:
    asked = ASKED | {
        "training": ASKED["training"]
        | {"early_stopping_patience": 1, "eval_steps": 2, "max_steps": 10},
        "scores": [5.0, 3.0],
    }
    whole = SmallTraining(**asked).loop(tmp_path / "whole")
    whole.run()
    shutil.copytree(tmp_path / "whole" / "checkpoints", tmp_path / "again" / "checkpoints")
    again = SmallTraining(**(asked | {"scores": [9.0]})).loop(
        tmp_path / "again", resume=tmp_path / "again" / "checkpoints" / "checkpoint-4"
    )
    again.run()
    for one in (whole, again):
        assert (one.state.global_step, one.state.best_global_step) == (4, 2)
        assert one.state.best_metric == 5.0
    first, second = weights_of(whole.model), weights_of(again.model)
    assert all((first[name] == second[name]).all() for name in first)


@training
def test_a_mean_of_losses_goes_on_over_a_checkpoint(tmp_path: Path) -> None:
    """A checkpoint may lie inside of a logging interval."""
    asked = ASKED | {
        "training": ASKED["training"] | {"logging_steps": 5, "eval_steps": 3, "max_steps": 10}
    }
    SmallTraining(**asked).loop(tmp_path / "whole").run()
    shutil.copytree(tmp_path / "whole" / "checkpoints", tmp_path / "again" / "checkpoints")
    SmallTraining(**asked).loop(
        tmp_path / "again", resume=tmp_path / "again" / "checkpoints" / "checkpoint-9"
    ).run()
    lines = {
        name: [one for one in read_events(tmp_path / name, "train") if one["step"] == 10]
        for name in ("whole", "again")
    }
    assert len(lines["whole"]) == 1
    assert lines["whole"][0]["loss"] == lines["again"][0]["loss"]


@training
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, tmp_path: Path) -> None:
    import torch

    asked = ASKED | {"training": ASKED["training"] | {"eval_steps": 10}}
    alone = SmallTraining(**asked).loop(tmp_path / "alone")
    alone.run()
    helped = SmallTraining(workers=workers, **asked).loop(tmp_path / "helped")
    helped.run()
    assert curve(tmp_path / "alone") == curve(tmp_path / "helped")
    first, second = weights_of(alone.model), weights_of(helped.model)
    assert all(torch.equal(first[name], second[name]) for name in first)


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from small_fit import SmallTraining
from test_resume_training import ASKED

loop = SmallTraining(**ASKED).loop(Path(sys.argv[1]))
take_step = loop.take_step

def die_after(passes):
    take_step(passes)
    if loop.state.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

loop.take_step = die_after
loop.run()
"""


@training
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    import torch

    program = KILLED.format(paths=[str(HERE), str(HERE.parent / "code")])
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "killed")],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    checkpoint, _ = latest_whole_checkpoint(tmp_path / "killed" / "checkpoints")
    assert checkpoint is not None
    assert step_of(checkpoint) == 6
    (tmp_path / "killed" / "metrics.jsonl").unlink()
    asked = ASKED | {"scores": ASKED["scores"][3:]}
    again = SmallTraining(**asked).loop(tmp_path / "killed", resume=checkpoint)
    again.run()
    whole = SmallTraining(**ASKED).loop(tmp_path / "whole")
    whole.run()
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")[6:]
    first, second = weights_of(whole.model), weights_of(again.model)
    assert all(torch.equal(first[name], second[name]) for name in first)


STOPS = [("step", 7, 3), ("score", 4, 1), ("save", 4, 2)]
"""What a wish to stop comes into, the steps that are taken by then, and the evaluations."""


@training
@pytest.mark.parametrize(("where", "step", "evaluations"), STOPS)
def test_a_wish_to_stop_costs_no_step(
    where: str, step: int, evaluations: int, tmp_path: Path
) -> None:
    import torch

    from dialsum.experiment.recording import StopSignals

    signals, loop = StopSignals(), SmallTraining(**ASKED).loop(tmp_path / "stopped")
    loop.whole = signals.whole
    place = {"step": loop.task, "score": loop.dev, "save": loop.scaler}[where]
    name = {"step": "loss", "score": "score", "save": "state_dict"}[where]
    usual, sent = getattr(place, name), list[int]()

    def stop(*given: Any, **named: Any) -> Any:
        if loop.state.global_step == (step - 1 if where == "step" else step) and not sent:
            sent.append(step)
            signals.receive(signal.SIGTERM, None)
        return usual(*given, **named)

    setattr(place, name, stop)
    signals.let_go()
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    checkpoint, notes = latest_whole_checkpoint(tmp_path / "stopped" / "checkpoints")
    assert checkpoint is not None and (step_of(checkpoint), notes) == (step, [])
    asked = ASKED | {"scores": ASKED["scores"][evaluations:]}
    again = SmallTraining(**asked).loop(tmp_path / "stopped", resume=checkpoint)
    again.run()
    whole = SmallTraining(**ASKED).loop(tmp_path / "whole")
    whole.run()
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    assert again.state.best_global_step == whole.state.best_global_step
    first, second = weights_of(whole.model), weights_of(again.model)
    assert all(torch.equal(first[name], second[name]) for name in first)

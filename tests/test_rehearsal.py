"""--rehearse: each experiment's whole way in minutes, on what takes most memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from batch_world import make_options, make_screen, start
from dialsum.batch.plan import load_selected
from dialsum.cli import read_batch_options
from dialsum.config.load import load_config
from dialsum.data.rows import load_split
from dialsum.errors import UnfitError
from dialsum.paths import PROJECT_ROOT
from dialsum.record import read_record
from test_plan import plan_of

SEVEN = sorted((PROJECT_ROOT / "config" / "experiments").glob("*rtx3090.yaml"))
OVERLAY = PROJECT_ROOT / "config" / "rehearsal.yaml"


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "config" / "experiments").glob("*.yaml")))
def test_every_experiment_can_be_rehearsed_as_it_will_run(path: Path) -> None:
    own, rehearsed = load_config(path), load_config(path, overlays=[OVERLAY])
    assert rehearsed.config.training.count_steps(train_rows=64) == 2
    for section in ("model", "tokenizer", "qlora", "generation"):
        assert rehearsed.value(section) == own.value(section)
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "optim", "bf16"):
        assert rehearsed.value(f"training.{key}") == own.value(f"training.{key}")


def test_the_longest_rows_are_kept_in_the_files_order(tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    texts = {"a": "긴 말이 아주 많아요.", "b": "네.", "c": "긴 말이 아주 많아요. 더요.", "d": "네!"}
    rows = "".join(f"{name},#Person1#: {text}\n" for name, text in texts.items())
    file.write_text(f"fname,dialogue\n{rows}", encoding="utf-8")
    split = load_split(file, kind="test")
    assert [row.fname for row in split.take(2, longest=True).rows] == ["a", "c"]
    assert (
        split.take(2, longest=True).notes[-1].endswith("the longest 2 of 4 rows are used, as asked")
    )
    assert [row.fname for row in split.take(2).rows] == ["a", "b"]
    assert split.take(4, longest=True) is split


def test_a_rehearsal_has_its_own_place_and_no_epochs(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", rehearse=True)
    assert load_selected(options)[1] == []
    plan = plan_of(options)
    assert (plan.paths.root.name, plan.kind) == ("rehearsal", "rehearsal")
    assert plan.options.command_line.startswith(" --rehearse ")
    with pytest.raises(UnfitError, match="--rehearse takes two steps; leave --one-epoch out"):
        read_batch_options(["--config", "a.yaml", "--rehearse", "--one-epoch"])


def test_a_rehearsal_that_fails_is_no_success(tmp_path: Path) -> None:
    options = make_options(tmp_path, "fail", "count_2", rehearse=True)
    screen, shown = make_screen()
    assert start(options, screen=screen) == 1
    assert "L_fail  FAILED after" in shown.getvalue()
    # It has one checkpoint, of its last step: nothing to go on from, and that is said.
    assert "2 L_count_2  FAILED after" in shown.getvalue()
    assert "NO           1 L_fail: the loss became NaN at step 2" in shown.getvalue()


@pytest.mark.training
def test_a_rehearsal_goes_on_from_its_checkpoint_in_a_new_process(tmp_path: Path) -> None:
    config = PROJECT_ROOT / "config/experiments/01_baseline_kobart_rtx3090.yaml"
    line = [sys.executable, str(PROJECT_ROOT / "code" / "auto_experiment_runner.py")]
    line += ["--config", str(config), "--demo", "--rehearse", "--output-dir", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "demo_rehearsal" / "experiments" / config.stem
    assert done.stdout.count("] 5 ") == 0 and "rehearsed; now it goes on from its" in done.stdout
    assert "two steps each on the longest rows: scores say nothing" in done.stdout
    assert "yes          1 KoBART: two steps on the longest rows, evaluated, saved" in done.stdout
    assert "as rehearsed: " in done.stdout and "R1 " not in done.stdout.split("Checks")[1]
    record = read_record(run / "result.json")
    assert record.succeeded and record.value("resumed_after_step") == 1
    assert record.value("training.steps") == 2
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [one["step"] for one in events if one["event"] == "train"] == [1, 2]
    with (run / "results" / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 9

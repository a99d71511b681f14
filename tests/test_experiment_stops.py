"""How an experiment ends when it is asked to: Ctrl-C, SIGTERM, the terminal's end, and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dialsum.errors import EXIT_INTERRUPTED
from dialsum.paths import LOCK
from dialsum.train.checkpoints import find_damage
from trainer_runs import REPOSITORY, command, environment, read_result, wait_for_training

pytestmark = pytest.mark.training

MT5 = "01_mt5_xlsum_optimized_v2"


def start_endless(folder: Path) -> subprocess.Popen[str]:
    """Start a run that would take hours."""
    line = command(
        MT5, folder, "--set", "training.max_steps=100000", "--set", "training.eval_steps=50000"
    )
    return subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_signal_ends_a_run_with_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_endless(folder) as process:
        wait_for_training(folder, process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "Traceback" not in said
    record = read_result(folder)
    assert record["status"] == "interrupted"
    assert record["reason"]
    assert record["finished_at"] >= record["started_at"]
    assert "evaluation" not in record
    # What was saved by then is no finished model, and nothing is half-written.
    assert not (folder / "model" / "model_info.json").exists()
    assert not list(folder.rglob("*.tmp"))
    for path in record["artifacts"].values():
        assert (folder / path).exists()
    assert "interrupted" in (folder / "results" / "summary.txt").read_text(encoding="utf-8")


AGAIN = [
    (signal.SIGTERM, signal.SIGTERM, 0.0),
    (signal.SIGINT, signal.SIGINT, 0.02),
    (signal.SIGHUP, signal.SIGTERM, 1.1),
]
"""The first signal, those that follow until the process has ended, and the seconds between."""


@pytest.mark.parametrize(("first", "then", "pause_seconds"), AGAIN)
def test_signals_that_come_again_and_again_do_not_cost_the_record(
    tmp_path: Path, first: int, then: int, pause_seconds: float
) -> None:
    folder = tmp_path / "run"
    with start_endless(folder) as process:
        wait_for_training(folder, process)
        process.send_signal(first)
        while process.poll() is None:
            time.sleep(pause_seconds)
            if not (folder / "result.json").exists():
                process.send_signal(then)
        said = process.stdout.read() if process.stdout else ""
    assert process.returncode == EXIT_INTERRUPTED, said
    record = read_result(folder)
    assert record["status"] == "interrupted"
    assert (folder / "results" / "summary.txt").is_file()
    assert not list(folder.rglob("*.tmp"))


def test_a_signal_while_the_record_is_opened_leaves_a_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_endless(folder) as process:
        # The lock comes first; what a signal meets before the first draft leaves nothing behind.
        while not {*folder.glob("*"), *folder.glob(".*")} - {folder / LOCK}:
            assert process.poll() is None
            time.sleep(0.0005)
        while process.poll() is None and not (folder / "result.json").exists():
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        process.wait(timeout=120)
        said = process.stdout.read() if process.stdout else ""
    assert process.returncode == EXIT_INTERRUPTED, said
    assert read_result(folder)["status"] == "interrupted"


def test_a_run_that_was_stopped_goes_on_from_the_step_at_hand(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_endless(folder) as process:
        wait_for_training(folder, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    events = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    [stopped] = [json.loads(line) for line in events if '"event": "interrupted"' in line]
    [checkpoint] = (folder / "checkpoints").iterdir()
    assert checkpoint.name == f"checkpoint-{stopped['step']}"
    assert find_damage(checkpoint) is None
    line = [
        sys.executable,
        str(REPOSITORY / "code" / "trainer.py"),
        "--job",
        str(folder / "job.json"),
    ]
    with subprocess.Popen(
        [*line, "--resume"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = next((text for text in process.stdout if "going on after step" in text), "")
        process.terminate()
    assert f"going on after step {stopped['step']}, from {checkpoint.name}" in said

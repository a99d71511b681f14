"""How an experiment ends when something is wrong: unfit, failed, interrupted, W&B dead."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dialsum.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_UNFIT
from small_models import KINDS, train_sample_tokenizer, write_checkpoint
from trainer_runs import (
    REPOSITORY,
    SECRETS,
    command,
    environment,
    files_with,
    read_events,
    read_result,
    read_summaries,
    run,
    tree,
)

pytestmark = pytest.mark.training

MT5, KOBART_LORA = "01_mt5_xlsum_optimized_v2", "03_high_learning_rate_rtx3090"
SAMPLE = REPOSITORY / "data" / "sample"


def stand_a_run(folder: Path) -> dict[str, tuple[int, int]]:
    """Put what an earlier run left into a folder and return how it looks."""
    (folder / "results").mkdir(parents=True)
    (folder / "result.json").write_text('{"status": "success"}', encoding="utf-8")
    (folder / "results" / "submission.csv").write_text("of that run", encoding="utf-8")
    return tree(folder)


UNFIT = [
    ("--val-data", "fname,text,summary\na,b,c\n", ["bad.csv", "dialogue"]),
    ("--val-data", "fname,dialogue,summary\nd1,#Person1#: 네,\n", ["bad.csv", "summary"]),
    ("--train-data", "fname,dialogue,summary\n", ["bad.csv"]),
    ("--test-data", None, ["bad.csv"]),
]
"""Option, what its file holds (None: there is none), and what must be said."""


@pytest.mark.parametrize(("option", "content", "said"), UNFIT)
def test_bad_data_is_refused_before_anything_is_touched(
    option: str, content: str | None, said: list[str], tmp_path: Path
) -> None:
    folder, data = tmp_path / "run", tmp_path / "bad.csv"
    if content is not None:
        data.write_text(content, encoding="utf-8")
    before = stand_a_run(folder)
    done = run(command(MT5, folder, option, str(data)))
    assert done.returncode == EXIT_UNFIT
    assert [text for text in said if text not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert tree(folder) == before


def test_an_unfit_checkpoint_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before = stand_a_run(folder)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "mt5"}', encoding="utf-8")
    (checkpoint / "weights.pkl").write_bytes(b"")
    done = run(command(MT5, folder, "--set", f"model.checkpoint={checkpoint}", demo=False))
    assert done.returncode == EXIT_UNFIT
    assert "weights.pkl" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(folder) == before


def wait_for_training(folder: Path, process: subprocess.Popen[str]) -> None:
    """Return once a run has taken its first step."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the run ended by itself: {process.communicate()}")
        if (folder / "metrics.jsonl").is_file() and any(
            event["event"] == "train" for event in read_events(folder)
        ):
            return
        time.sleep(0.1)
    process.kill()
    pytest.fail("no step within two minutes")


def test_a_signal_ends_a_run_with_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = command(
        MT5, folder, "--set", "training.max_steps=100000", "--set", "training.eval_steps=50000"
    )
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
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


def small_files() -> None:
    """Let this process write no file beyond 64 KiB, as a quota might."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_a_failure_in_the_middle_is_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        command(MT5, folder), env=environment(), capture_output=True, text=True,
        preexec_fn=small_files, timeout=300,
    )  # fmt: skip
    assert done.returncode == EXIT_FAILED
    record = read_result(folder)
    assert record["status"] == "failed"
    assert "File too large" in record["reason"]
    assert record["data"]["rows"]["train"] == 24
    assert "evaluation" not in record
    assert record["reason"] in done.stdout
    # The trace of what was not foreseen stands in the log, for who wants to mend it.
    assert record["reason"].split(":")[0] in (folder / "train.log").read_text(encoding="utf-8")
    assert not (folder / "model" / "model_info.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes; skips where none can be made."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small disk can only be mounted by root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no disk could be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_while_training_leaves_a_record(small_disk: Path) -> None:
    # There is room for the first checkpoint's adapter, but not for its optimizer.
    (small_disk / "filler").write_bytes(bytes(900_000))
    folder = small_disk / "run"
    done = run(command(MT5, folder))
    assert done.returncode == EXIT_FAILED
    record = read_result(folder)
    assert record["status"] == "failed"
    assert "disk was full" in record["reason"]
    assert record["reason"] in done.stdout
    assert not list(folder.glob("checkpoints/*"))


IMPATIENT = """
import sys
import dialsum.train.tracking as tracking

tracking.INIT_TIMEOUT_SECONDS = 3
sys.path.insert(0, {code!r})
import trainer

sys.argv[0] = "trainer.py"
trainer.run_script(lambda _: trainer.main(sys.argv[1:]))
"""
"""Starts code/trainer.py with less patience for Weights & Biases than a user has."""


def without_patience(line: list[str]) -> list[str]:
    """Return a command that runs the same with less patience for Weights & Biases."""
    program = IMPATIENT.format(code=str(REPOSITORY / "code"))
    return [sys.executable, "-c", program, *line[2:]]


def check_no_secret(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    """Hold a finished run against every key that it was given."""
    for name, secret in SECRETS.items():
        assert secret not in done.stdout + done.stderr, name
        assert files_with(folder, secret) == [], name


def train_with_dead_tracking(
    folder: Path, checkpoint: Path
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run KoBART's LoRA experiment from a local folder while W&B cannot be reached."""
    line = command(
        KOBART_LORA, folder, "--set", f"model.checkpoint={checkpoint}",
        "--set", "training.learning_rate=5e-3", demo=False,
    )  # fmt: skip
    done = run(without_patience(line), WANDB_BASE_URL="http://127.0.0.1:9", **SECRETS)
    assert done.returncode == EXIT_OK, done.stdout + done.stderr
    return done, read_result(folder)


def check_dead_tracking(
    folder: Path, done: subprocess.CompletedProcess[str], record: dict[str, Any]
) -> None:
    """Hold a run whose W&B was dead against what it must say of that."""
    tracking = record["tracking"]
    assert (tracking["requested"], tracking["used"]) == ("auto", "off")
    assert "could not start" in tracking["why"]
    assert "url" not in tracking
    assert done.stdout.count("Weights & Biases") == 1
    check_no_secret(folder, done)


def test_dead_tracking_ends_no_run_and_no_key_is_written(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(checkpoint, "bart", tokenizer=train_sample_tokenizer(KINDS["bart"]))
    done, record = train_with_dead_tracking(tmp_path / "run", checkpoint)
    check_dead_tracking(tmp_path / "run", done, record)


def test_the_real_kobart_tokenizer_trains_offline_from_a_local_folder(
    shared_dir: Path, tmp_path: Path
) -> None:
    from dialsum.model.tokenizers import load_tokenizer

    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "run"
    tokenizer = load_tokenizer(shared_dir / "tokenizers" / "kobart")
    write_checkpoint(checkpoint, "bart", tokenizer=tokenizer, width=32)
    line = command(KOBART_LORA, folder, "--set", f"model.checkpoint={checkpoint}", demo=False)
    done = run(line)
    assert done.returncode == EXIT_OK, done.stdout + done.stderr
    model = read_result(folder)["model"]
    assert model["checkpoint"] == str(checkpoint)
    assert model["tokens_added"] >= 16
    assert model["vocabulary"] == 30_000 + model["tokens_added"]
    assert model["summaries_not_kept"] == 0
    assert model["tied_head"] is True
    assert model["weights"] == "safetensors"
    from predict_again import predict

    written = read_summaries(folder / "results" / "predictions_dev.csv")
    assert predict(folder)["loaded"] == list(written.values())

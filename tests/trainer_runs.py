"""Runs code/trainer.py as a user does, on tiny models and a few rows, and reads what it left."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from small_models import (
    KINDS,
    session_folder,
    tiny_checkpoint,
    train_sample_tokenizer,
    write_checkpoint,
)

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENTS = REPOSITORY / "config" / "experiments"
DEMOS = REPOSITORY / "config" / "demo"
STEPS = 6
ROWS = {"train": 24, "dev": 8, "test": 4}
FEW = (
    f"training.max_steps={STEPS}",
    "training.eval_steps=3",
    "training.logging_steps=2",
    "training.per_device_train_batch_size=8",
    "training.gradient_accumulation_steps=1",
    "training.per_device_eval_batch_size=8",
    *(f"data.max_{kind}_rows={count}" for kind, count in ROWS.items()),
    "evaluation.training_max_rows=4",
    "generation.max_new_tokens=16",
)
"""What keeps a run short whatever the experiment."""
SECRETS = {
    "WANDB_API_KEY": "f00dfeed0123456789abcdef0123456789abcdef",
    "HF_TOKEN": "hf_neverToBeWrittenAnywhere0123456789",
}


def environment(**values: str) -> dict[str, str]:
    """Return this process's environment, offline, with few threads and without any key."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "HF_", "DIALSUM_"))
    }
    fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "code")}
    return {**kept, **fixed, **values}


@cache
def small_checkpoint(architecture: str) -> Path:
    """Return the folder of a checkpoint small enough that a run takes seconds, written once."""
    root = session_folder()
    sort = "t5_v1_1" if architecture == "t5" else architecture
    tokenizer = train_sample_tokenizer(KINDS[sort])
    return write_checkpoint(root / sort, sort, tokenizer=tokenizer, width=64, positions=1026)


def architecture_of(experiment: str) -> str:
    """Return which architecture an experiment's file names."""
    text = (EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text)["model"]["architecture"])


def command(experiment: str, folder: Path, *options: str, demo: bool = True) -> list[str]:
    """Return the command line of a short run of one of the experiments on the sample.

    Args:
        demo: on a small checkpoint, with the demo's values.
    """
    config = EXPERIMENTS / f"{experiment}.yaml"
    if not demo:  # what the hub names is refused where there is no GPU, unless another is named
        return _on_sample(folder, config, "--set", "general.device=cpu", *options)
    checkpoint = f"model.checkpoint={small_checkpoint(architecture_of(experiment))}"
    overlay = str(DEMOS / f"{experiment}.yaml")
    return _on_sample(folder, config, "--overlay", overlay, "--set", checkpoint, *options)


def packed_command(folder: Path, *options: str) -> list[str]:
    """Return the command line of a short run of a tiny Llama whose rows are packed."""
    config, demo = (REPOSITORY / "config" / name for name in ("llm/phase3.yaml", "demo.yaml"))
    checkpoint = f"model.checkpoint={tiny_checkpoint('llama')}"
    return _on_sample(folder, config, "--overlay", str(demo), "--set", checkpoint, *options)


def _on_sample(folder: Path, config: Path, *options: str) -> list[str]:
    line = [sys.executable, str(REPOSITORY / "code" / "trainer.py")]
    line += ["--config", str(config), "--run-dir", str(folder)]
    cache = f"data.cache_dir={json.dumps(str(folder.parent / 'encoded'), ensure_ascii=False)}"
    for value in (*FEW, cache):
        line += ["--set", value]
    return [*line, "--data-dir", str(REPOSITORY / "data" / "sample"), *options]


def run(line: list[str], **values: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        line, env=environment(**values), capture_output=True, text=True, timeout=300
    )


def read_result(folder: Path) -> dict[str, Any]:
    """Return a run's record."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_summaries(path: Path) -> dict[str, str]:
    """Return a predictions file as fname to summary."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["fname"]: row["summary"] for row in csv.DictReader(file)}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a folder with size and time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def files_with(folder: Path, text: str) -> list[str]:
    """Return the files below a folder that hold a text."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and text.encode() in path.read_bytes()
    ]


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

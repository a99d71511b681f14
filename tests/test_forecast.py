"""The memory forecast: what it says is what a real run holds, and what it says to do saves that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dialsum.batch.deep import find_card_name
from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.experiment.forecast import Card, Forecast, find_card
from held_memory import measure_run
from small_models import make_config
from trainer_runs import EXPERIMENTS, REPOSITORY, small_checkpoint

training = pytest.mark.training
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dialsum.config.schema import Config
from dialsum.experiment.forecast import Card, forecast
for text in json.load(sys.stdin):
    found = forecast(Config.model_validate_json(text), card=Card("cpu", None), keep=False)
    print(json.dumps(found.stages))
"""
AT_WORST = 0.08
FULL = {"use_qlora": False, "load_in_4bit": False}
ADAPTERS = {"use_qlora": True, "load_in_4bit": False, "lora_rank": 8, "lora_alpha": 16}
BITS = {**ADAPTERS, "load_in_4bit": True}
BYTES = {**ADAPTERS, "load_in_8bit": True}


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mt5, 4 bits": ("mt5", BITS, {}),
    "mt5, adapters, checkpointing": ("mt5", ADAPTERS, {"gradient_checkpointing": True}),
    "mt5, all weights": ("mt5", FULL, {}),
    "t5, 8 bits": ("t5", BYTES, {}),
    "t5, smoothing": ("t5", FULL, {"gradient_checkpointing": True, "label_smoothing_factor": 0.1}),
    "bart, 4 bits, checkpointing": ("bart", BITS, {"gradient_checkpointing": True}),
    "bart, adafactor": ("bart", FULL, {"optim": "adafactor"}),
    "bart, 8-bit states": ("bart", FULL, {"optim": "adamw_bnb_8bit"}),
    "bart, adapters": ("bart", ADAPTERS, {"on_nan": "stop"}),
}


def config_of(case: str) -> tuple[Config, Path]:
    """Return a config under which activations are the larger part, and its checkpoint."""
    architecture, qlora, asked = CASES[case]
    folder = small_checkpoint(architecture)
    rows = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    config = make_config(
        architecture,
        folder,
        lengths=(160, 32),
        qlora=qlora,
        training=rows | asked,
        tokenizer={"dialogue_tokens": "none"},
        generation={"num_beams": 4, "min_new_tokens": 31},
        general={"device": "cpu"},
    )
    return config, folder


@pytest.fixture(scope="module")
def forecasts() -> dict[str, Any]:
    """Return the stages that are forecast for each case, from a process that has no weights."""
    configs = [config_of(case)[0].model_dump_json() for case in CASES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(REPOSITORY / "code")],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@training
@pytest.mark.parametrize("case", CASES)
def test_it_says_what_a_real_run_holds(
    case: str, forecasts: dict[str, Any], tmp_path: Path
) -> None:
    config, folder = config_of(case)
    real = measure_run(config, folder, tmp_path)
    for stage, parts in forecasts[case].items():
        assert sum(parts.values()) == pytest.approx(real[stage], rel=AT_WORST), stage
    parts = forecasts[case]["training"]
    # Tables of bitsandbytes, some kB, are no weights.
    weights = parts.get("weights", 0) + parts["learned weights"]
    assert weights == pytest.approx(real["weights"], abs=4096)
    assert parts["states"] == real["states"]


def make_forecast(memory_gib: float, *, training: int, writing: int = 0) -> Forecast:
    """Return a forecast of so many GiB."""
    stages = {"training": {"weights": training << 30}, "writing": {"beams": writing << 30}}
    return Forecast(Card("cuda", int(memory_gib * 2**30)), stages, 8, 3, "its config.json")


@pytest.mark.parametrize(
    ("forecast", "verdict"),
    [
        (make_forecast(24, training=20), "fits"),
        (make_forecast(24, training=22), "tight"),
        (make_forecast(24, training=24), "does not fit"),
        (make_forecast(24, training=2, writing=30), "does not fit"),
    ],
)
def test_a_tenth_of_the_card_is_left_for_the_allocator(forecast: Forecast, verdict: str) -> None:
    assert forecast.verdict == verdict
    assert verdict in forecast.describe()


def test_the_card_is_the_one_that_is_asked_for() -> None:
    config = make_config("bart", "none/needed", batch={"memory_limit_gib": 16})
    assert find_card(config, memory_gib=8).memory_bytes == 8 * 2**30
    assert find_card(config, cpu=True).kind == "cpu"
    with pytest.raises(UnfitError, match="--card 0: no memory of a GPU"):
        find_card(config, memory_gib=0)


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/forecast.py."""
    line = [sys.executable, str(REPOSITORY / "scripts" / "forecast.py"), *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


@training
def test_the_script_names_parts_and_what_would_save_most() -> None:
    config = str(EXPERIMENTS / "01_baseline_kobart_rtx3090.yaml")
    done = run_script("--config", config, "--card", "0.5")
    assert done.returncode == 2, done.stderr
    assert "not here, as published" in done.stdout
    for part in ("weights", "learned weights", "gradients", "states", "activations", "beams"):
        assert f"\n{part} " in done.stdout, done.stdout
    assert "0.5 GiB at most" in done.stdout and "does not fit" in done.stdout
    saved = [float(line.split()[-2]) for line in done.stdout.splitlines() if " saves " in line]
    assert saved and saved == sorted(saved, reverse=True)


@training
def test_the_deep_look_forecasts_once_and_the_plan_shows_it(tmp_path: Path) -> None:
    values = {
        "model.checkpoint": small_checkpoint("bart"),
        "general.device": "cpu",
        "data.cache_dir": tmp_path / "cache",
    }
    line = [sys.executable, str(REPOSITORY / "code" / "auto_experiment_runner.py")]
    line += ["--config", str(EXPERIMENTS / "01_baseline_kobart_rtx3090.yaml"), "--dry-run"]
    line += ["--data-dir", str(REPOSITORY / "data" / "sample"), "--output-dir", str(tmp_path)]
    line += [word for key, value in values.items() for word in ("--set", f"{key}={value}")]

    def look(*options: str) -> str:
        done = subprocess.run([*line, *options], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "with ~ are by a formula" in look()
    first = look("--deep")
    assert "KoBART: memory: " in first and "GiB at most, while " in first
    [kept] = (tmp_path / "cache" / "dialsum-forecasts").iterdir()
    made = kept.stat().st_mtime_ns
    assert "KoBART: memory: " in look("--deep") and kept.stat().st_mtime_ns == made
    assert "Least time" not in first
    planned = look("--deep", "--set", "general.device=auto")
    if find_card_name() is None:
        assert "Least time on NVIDIA GeForce RTX 3090, by the peaks of its arithmetic" in planned
    assert re.search(r"1 KoBART +\d+ s +\d+ s +\d+ s +\d+ s +", planned)
    kept = next(one for one in kept.parent.iterdir() if one.stat().st_mtime_ns == made)
    assert "by a formula" not in look()
    kept.write_text("{", encoding="utf-8")  # as a disk that was full leaves it
    assert "with ~ are by a formula" in look()

"""Real runs in real processes that become NaN, and what retries make of them.

The fault is a weight decay that no sane config has: each step multiplies every weight by
|1 - learning_rate x decay|, so that weights overflow in some steps where the product is above 2,
and stay finite below.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.errors import FullMemoryError, NonFiniteError, RunError
from trainer_runs import REPOSITORY, environment, read_result, small_checkpoint

pytestmark = pytest.mark.training

CONFIG = """
extends: {base}
general: {{label: wild, device: cpu}}
model:
  architecture: mt5
  checkpoint: {checkpoint}
tokenizer: {{encoder_max_len: 64, decoder_max_len: 16}}
data: {{cache_dir: null, max_train_rows: 16, max_dev_rows: 4, max_test_rows: 2}}
training:
  learning_rate: 0.5
  weight_decay: {decay}
  num_train_epochs: 1
  max_steps: 150
  warmup_steps: 0
  per_device_train_batch_size: 4
  per_device_eval_batch_size: 4
  gradient_accumulation_steps: 1
  lr_scheduler_type: constant
  eval_steps: 150
  logging_steps: 10
qlora: {{{qlora}}}
generation: {{num_beams: 1, max_new_tokens: 6}}
evaluation: {{training_max_rows: 2}}
tracking: {{wandb: false, tensorboard: false}}
batch: {{retry: [{retry}]}}
"""
FULL = "use_qlora: false"
ADAPTERS = (
    "use_qlora: true, load_in_4bit: false, lora_rank: 4, lora_alpha: 8, target_modules: [v, o, wo]"
)


def write_config(folder: Path, *, decay: float, retry: str, qlora: str = FULL) -> Path:
    """Write the experiment `wild`."""
    base = REPOSITORY / "config" / "base_config.yaml"
    path = folder / "wild.yaml"
    checkpoint = small_checkpoint("mt5")
    text = CONFIG.format(base=base, checkpoint=checkpoint, decay=decay, retry=retry, qlora=qlora)
    path.write_text(text, encoding="utf-8")
    return path


def run_script(script: str, config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script on the sample data to its end."""
    line = [sys.executable, str(REPOSITORY / "code" / script), "--config", str(config)]
    line += ["--data-dir", str(REPOSITORY / "data" / "sample"), *options]
    return subprocess.run(
        line,
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def read_values(folder: Path) -> dict[str, Any]:
    """Return a run's resolved values."""
    text = (folder / "resolved_config.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_half_the_learning_rate_saves_a_run_that_became_nan(tmp_path: Path) -> None:
    # 0.5 x 48: bad at factors 23, 11, 5 and 2, one more than a run survives; from 0.25 on the
    # fourth is a half, at which weights shrink.
    config = write_config(tmp_path, decay=48, retry="lr_half")
    done = run_script("auto_experiment_runner.py", config, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "auto_experiments" / "experiments" / "wild"
    result = read_result(folder)
    first, second = result["attempts"]
    assert first["status"] == "failed" and first["nan_events"] >= 4
    assert first["failure"]["cause"] == "non_finite"
    report = json.loads((folder / first["artifacts"]["nan_report"]).read_text(encoding="utf-8"))
    assert report["events"][-1]["step"] == first["failure"]["step"] == first["steps"] + 1
    [change] = second["changes"]
    assert (change["from"], change["to"]) == (0.5, 0.25)
    assert (result["status"], result["training"]["learning_rate"]) == ("success", 0.25)
    assert result["training"]["nan_events"] == second["nan_events"] > 0
    old = read_result(folder / "previous" / Path(first["artifacts"]["record"]).parts[1])
    assert old["config_sha256"] == first["config_sha256"] != result["config_sha256"]
    assert read_values(folder)["training"]["learning_rate"] == 0.25
    head = (folder / "resolved_config.yaml").read_text(encoding="utf-8").partition("general:")[0]
    assert "training.learning_rate 0.5 -> 0.25 (batch.retry lr_half)" in head
    said = f"2nd attempt: learning_rate 0.5 -> 0.25 after NaN at step {first['failure']['step']}"
    assert f"attempts   1 wild: {said}" in done.stdout
    assert said in (folder / "results" / "summary.txt").read_text(encoding="utf-8")


def test_retries_that_do_not_help_end_in_a_failure_with_every_attempt(tmp_path: Path) -> None:
    config = write_config(tmp_path, decay=1000, retry="lr_half, rank_half", qlora=ADAPTERS)
    done = run_script("auto_experiment_runner.py", config, "--output-dir", str(tmp_path / "out"))
    assert done.returncode == 1, done.stdout + done.stderr
    folder = tmp_path / "out" / "auto_experiments" / "experiments" / "wild"
    result = read_result(folder)
    attempts = result["attempts"]
    assert [one["failure"]["cause"] for one in attempts] == ["non_finite"] * 3
    folders = [*((folder / one["artifacts"]["record"]).parent for one in attempts[:2]), folder]
    values = [read_values(one) for one in folders]
    used = [
        (
            one["training"]["learning_rate"],
            one["qlora"]["lora_rank"],
            one["qlora"]["lora_alpha"],
            one["batch"]["retry"],
        )
        for one in values
    ]
    assert used == [
        (0.5, 4, 8, ["lr_half", "rank_half"]),
        (0.25, 4, 8, ["rank_half"]),
        (0.25, 2, 4, []),
    ]
    learning = [read_result(one)["model"]["parameters_trainable"] for one in folders]
    assert learning[0] == learning[1] > learning[2]
    assert len({one["config_sha256"] for one in attempts}) == 3
    for one in folders:
        assert (one / "results" / "nan_report.json").is_file()
        assert "not finite" in (one / "train.log").read_text(encoding="utf-8")
    assert "3rd attempt: lora_rank 4 -> 2, lora_alpha 8 -> 4 after NaN at step" in done.stdout


def test_trainer_alone_never_tries_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, decay=1000, retry="lr_half")
    done = run_script("trainer.py", config, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 1, done.stdout + done.stderr
    result = read_result(tmp_path / "run")
    assert result["failure"]["cause"] == "non_finite"
    assert "attempts" not in result
    assert not (tmp_path / "run" / "previous").exists()


CAUSES = [
    (NonFiniteError("step 7"), "non_finite"),
    (FullMemoryError("a single row"), "out_of_memory"),
    (MemoryError(), "out_of_memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
    (RuntimeError("shapes cannot be multiplied"), None),
    (RunError("the checkpoint's tokenizer is damaged"), None),
    (FileNotFoundError(2, "No such file"), None),
]


@pytest.mark.parametrize(("error", "cause"), CAUSES)
def test_only_nan_and_full_memory_are_named_as_causes(error: Exception, cause: str | None) -> None:
    from dialsum.experiment.recording import name_cause

    assert name_cause(error) == cause

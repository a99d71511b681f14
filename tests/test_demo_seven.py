"""The demo of all seven experiments, cut down to a few steps, from command to records."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from dialsum.record import find_records
from dialsum.score.api import FLOORS

pytestmark = pytest.mark.training

LABELS = {
    "01_mt5_xlsum_optimized_v2": "mT5_XLSum_1단계",
    "01_mt5_xlsum_korean_adapted": "mT5_XLSum_2단계",
    "01_mt5_xlsum_ultimate": "mT5_XLSum_3단계",
    "02_eenzeenee_t5_rtx3090": "eenzeenee_T5",
    "01_baseline_kobart_rtx3090": "KoBART",
    "03_high_learning_rate_rtx3090": "극한_학습률",
    "04_batch_optimization_rtx3090": "배치_최적화",
}
SHORT = (
    "training.max_steps=4",
    "training.eval_steps=4",
    "training.logging_steps=1",
    "data.max_train_rows=120",
    "data.max_dev_rows=8",
    "data.max_test_rows=4",
    "generation.max_new_tokens=12",
    "generation.min_new_tokens=2",
)


@pytest.fixture(scope="module")
def demo(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the seven, a few steps each, and return the output folder and what the screen showed."""
    output = tmp_path_factory.mktemp("데모 출력")
    configs = [str(repository / "config" / "experiments" / f"{name}.yaml") for name in LABELS]
    cache = f"data.cache_dir={json.dumps(str(output / 'encoded'), ensure_ascii=False)}"
    overrides = [part for value in (*SHORT, cache) for part in ("--set", value)]
    done = subprocess.run(
        [
            sys.executable,
            str(repository / "code" / "auto_experiment_runner.py"),
            "--config",
            *configs,
            "--demo",
            "--output-dir",
            str(output),
            *overrides,
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "demo", done.stdout


def read_result(root: Path, name: str) -> dict:
    """Return one experiment's record."""
    return json.loads((root / "experiments" / name / "result.json").read_text(encoding="utf-8"))


def test_all_seven_succeed_with_whole_records(demo: tuple[Path, str]) -> None:
    """Every experiment ends with a record that says what it trained and how it scored."""
    root, _ = demo
    records, problems = find_records(root)
    assert problems == []
    assert {record.content["experiment"] for record in records} == set(LABELS)
    for name, label in LABELS.items():
        result = read_result(root, name)
        assert (result["status"], result["label"], result["kind"]) == ("success", label, "demo")
        assert result["training"]["steps"] == 4
        assert result["training"]["nan_events"] == 0
        assert result["model"]["parameters_trainable"] > 0
        dev = result["evaluation"]["dev"]
        assert dev["signature"].startswith("rouge|tok:mecab-ko")
        assert set(dev["floors"]) == set(FLOORS)
        assert 0 <= dev["rouge_mean"] <= 100
        for path in result["artifacts"].values():
            assert (root / "experiments" / name / path).exists(), (name, path)


def test_experiments_keep_what_the_demo_promises_to_keep(demo: tuple[Path, str]) -> None:
    """Rank, targets, quantisation and beams are the experiment's own, not the overlay's."""
    root, _ = demo
    ultimate = read_result(root, "01_mt5_xlsum_ultimate")["model"]
    assert ultimate["loader"]["used"] == "PEFT + bitsandbytes 4-bit"
    assert ultimate["loader"]["requested"] == "Unsloth"
    assert ultimate["lora_targets"] == sorted(
        ["q", "k", "v", "o", "wi_0", "wi_1", "wo", "lm_head", "embed_tokens"]
    )
    kobart = read_result(root, "01_baseline_kobart_rtx3090")["model"]
    assert kobart["parameters_trainable"] == kobart["parameters_total"]
    assert "lora_targets" not in kobart


def test_every_submission_follows_the_test_file(demo: tuple[Path, str], repository: Path) -> None:
    """Ids in the test file's order, an unnamed index, no empty summary."""
    root, _ = demo
    with (repository / "data" / "sample" / "test.csv").open(encoding="utf-8", newline="") as file:
        wanted = [row["fname"] for row in csv.DictReader(file)][:4]
    for name in LABELS:
        path = root / "experiments" / name / "results" / "submission.csv"
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        assert header == ["", "fname", "summary"]
        assert [row[:2] for row in rows] == [[str(i), fname] for i, fname in enumerate(wanted)]
        assert all(row[2].strip() for row in rows)


def test_screen_ends_in_one_table_with_floors(demo: tuple[Path, str]) -> None:
    """The closing table ranks all seven beside the floors, and the summary file holds the same."""
    root, screen = demo
    closing = screen[screen.index("Ranking by the mean of ROUGE-1, -2 and -L") :]
    header = closing.splitlines()[1]
    assert all(head in header for head in ("content", "95 % interval", "over const.", "reads"))
    assert "   (constant) " in closing and "   (lead-2) " in closing
    assert "halves     #1 is the best in " in closing
    table = closing[: closing.index("signature  ")].splitlines()
    assert max(map(cell_len, table)) <= 100
    for label in LABELS.values():
        assert label in closing
    assert "all finished: 7 of 7" in closing
    summary = (root / "experiment_summary.json").read_text(encoding="utf-8")
    for name in LABELS:
        assert f'"{name}"' in summary

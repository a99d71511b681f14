"""Layouts of real checkpoints: each loads, trains two steps in 4 bits and in full, writes, saves,
loads again in a new process, predicts the same, and is scored.

The checkpoints are small twins with random weights: files, tensor names, config.json, kind of
tokenizer and spare rows are the real ones'.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from dialsum.paths import RunPaths
from trainer_runs import REPOSITORY, environment, read_events, read_result
from trainer_runs import read_summaries as read_csv

pytestmark = pytest.mark.training

KOREAN = {
    "csebuetnlp--mT5_multilingual_XLSum": "mt5",
    "google--mt5-small": "mt5",
    "google--mt5-base": "mt5",
    "eenzeenee--t5-base-korean-summarization": "t5",
    "paust--pko-t5-base": "t5",
    "digit82--kobart-summarization": "bart",
    "gogamza--kobart-summarization": "bart",
    "gogamza--kobart-base-v2": "bart",
    "facebook--bart-base": "bart",
}
ENGLISH = {"google-t5--t5-base": "t5", "google--flan-t5-base": "t5"}
"""They know no Hangul, so they are tried on English rows."""
DECODERS = {
    "meta-llama--Llama-3.2-3B-Instruct": "llama_3_2_1b",
    "Bllossom--llama-3.2-Korean-Bllossom-3B": "llama_3_2_korean_3b",
    "Qwen--Qwen2.5-3B-Instruct": "qwen2_5_3b",
    "Qwen--Qwen3-4B": "qwen3_4b",
    "Qwen--Qwen3-4B-Instruct-2507": "qwen3_4b",
    "google--gemma-3-270m-it": "gemma_3_270m",
    "openai-community--gpt2": "gpt2",
    "skt--kogpt2-base-v2": "kogpt2",
}
TWINS = KOREAN | ENGLISH | DECODERS
FILES = {
    "mt5": "experiments/01_mt5_xlsum",
    "t5": "experiments/02_eenzeenee_t5_rtx3090",
    "bart": "experiments/01_baseline_kobart_rtx3090",
}
OWN_FILES = {
    **DECODERS,
    "google--mt5-small": "mt5_small",
    "google--mt5-base": "mt5_base",
    "gogamza--kobart-base-v2": "kobart_rdrop",
    "facebook--bart-base": "bart_base",
    "google-t5--t5-base": "t5_base",
    "google--flan-t5-base": "flan_t5_base",
}
"""Those with a file of their own in config/model_configs."""
WAYS = {
    "4-bit": (
        "qlora.use_qlora=true",
        "qlora.load_in_4bit=true",
        "qlora.lora_rank=4",
        "qlora.lora_alpha=8",
    ),
    "full": ("qlora.use_qlora=false", "qlora.load_in_4bit=false"),
}
SHORT = (
    "general.device=cpu",
    "training.max_steps=2",
    "training.eval_steps=2",
    "training.logging_steps=1",
    "training.per_device_train_batch_size=4",
    "training.gradient_accumulation_steps=1",
    "training.per_device_eval_batch_size=4",
    "training.learning_rate=1e-3",
    "training.warmup_steps=0",
    "data.max_train_rows=24",
    "data.max_dev_rows=4",
    "data.max_test_rows=2",
    "data.cache_dir=null",
    "evaluation.training_max_rows=2",
    "tokenizer.encoder_max_len=160",
    "tokenizer.decoder_max_len=24",
    "generation.num_beams=2",
    "generation.max_new_tokens=12",
    "tracking.tensorboard=false",
)
SEARCH = {
    "max_length",
    "num_beams",
    "no_repeat_ngram_size",
    "length_penalty",
    "early_stopping",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "force_bos_token_to_be_generated",
    "task_specific_params",
}
"""What these checkpoints ask of a search."""
CASES = [(twin, way) for twin in TWINS for way in WAYS]


@dataclass(frozen=True)
class Runs:
    """What became of each twin and way: how its run ended, its folder, and what was loaded again.

    Args:
        twins: folder in which the checkpoints lie.
    """

    twins: Path
    ends: dict[tuple[str, str], int | str]
    folders: dict[tuple[str, str], Path]
    again: dict[str, dict[str, list[str]]]


def write_english(folder: Path, source: Path) -> Path:
    """Write 30 English dialogues as the project's three files."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()[:30]]
    folder.mkdir()
    for name, part in (("train", rows[:24]), ("dev", rows[24:28]), ("test", rows[28:])):
        keys = ["fname", "dialogue"] + ["summary"] * (name != "test")
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(part)
    return folder


@pytest.fixture(scope="module")
def twins(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the twins, each called OWNER--NAME."""
    maker = shared_dir / "tools" / "make_checkpoint_twins.py"
    if not maker.is_file():
        pytest.skip(f"no {maker}, which makes the checkpoints")
    out = tmp_path_factory.mktemp("twins")
    names = [twin.replace("--", "/") for twin in TWINS]

    def make(some: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, str(maker), "--out", str(out), "--only", *some],
            env=environment(OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, (names[::2], names[1::2])))
    return out


def start(script: str, *arguments: str) -> Any:
    """Run one of the tests' scripts and return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / script), *arguments],
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def strip_search(folder: Path) -> None:
    """Take every key of a search out of a checkpoint's files."""
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    own = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in own.items() if key not in SEARCH}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture(scope="module")
def runs(twins: Path, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every twin trained both ways, a process for each way, and loaded again in two others."""
    root = tmp_path_factory.mktemp("runs")
    english = write_english(root / "english", shared_dir / "data" / "en" / "dev.jsonl")
    folders = {case: root / f"{case[0]}_{case[1]}" for case in CASES}

    def arguments(twin: str, way: str) -> list[str]:
        data = english if twin in ENGLISH else REPOSITORY / "data" / "sample"
        own = OWN_FILES.get(twin)
        name = f"model_configs/{own}" if own else FILES[TWINS[twin]]
        config = REPOSITORY / "config" / f"{name}.yaml"
        line = ["--config", str(config)]
        line += ["--data-dir", str(data), "--run-dir", str(folders[twin, way])]
        for value in (f"model.checkpoint={json.dumps(str(twins / twin))}", *SHORT, *WAYS[way]):
            line += ["--set", value]
        return line

    def train(way: str) -> dict[tuple[str, str], int | str]:
        cases = [case for case in CASES if case[1] == way]
        file = root / f"{way}.json"
        file.write_text(json.dumps([arguments(*case) for case in cases]), encoding="utf-8")
        return dict(zip(cases, start("train_many.py", str(file)), strict=True))

    def load_again(way: str) -> dict[str, dict[str, list[str]]]:
        done = [str(folders[case]) for case, end in ends.items() if end == 0 and case[1] == way]
        return start("predict_again.py", *done) if done else {}

    with ThreadPoolExecutor(len(WAYS)) as pool:
        ends = dict(chain(*(found.items() for found in pool.map(train, WAYS))))
        # Adapters find their base without the search it asked for: nothing of it may have acted.
        for twin in TWINS:
            strip_search(twins / twin)
        again = dict(chain(*(found.items() for found in pool.map(load_again, WAYS))))
    return Runs(twins, ends, folders, again)


@pytest.mark.parametrize(("twin", "way"), CASES)
def test_a_real_layout_trains_saves_and_predicts_the_same_again(
    twin: str, way: str, runs: Runs
) -> None:
    folder = runs.folders[twin, way]
    assert runs.ends[twin, way] == 0, (
        read_result(folder)["reason"] if folder.is_dir() else runs.ends[twin, way]
    )
    record = read_result(folder)
    assert record["training"]["steps"] == 2
    losses = [event["loss"] for event in read_events(folder) if event["event"] == "train"]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    config = json.loads((runs.twins / twin / "config.json").read_text(encoding="utf-8"))
    assert record["model"]["tied_head"] == config.get("tie_word_embeddings", True)
    scores = record["evaluation"]["dev"]
    assert all(0 <= scores[name] <= 100 for name in ("rouge1", "rouge2", "rougeL"))
    paths = RunPaths.alone(folder)
    dev = list(read_csv(paths.predictions_dev).values())
    assert len(dev) == 4
    assert list(runs.again[str(folder)]["loaded"]) == dev
    assert len(read_csv(paths.submission)) == 2
    borrowed = "names no token for padding" in paths.train_log.read_text(encoding="utf-8")
    assert borrowed == (twin == "openai-community--gpt2")

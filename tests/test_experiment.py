"""Whole experiments through code/trainer.py: the record, the files, and the model's way back."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.rows import load_split
from dialsum.data.submission import check_submission
from small_models import KINDS, train_sample_tokenizer, write_checkpoint
from trainer_runs import (
    REPOSITORY,
    ROWS,
    STEPS,
    command,
    read_events,
    read_result,
    read_summaries,
    run,
)

pytestmark = pytest.mark.training

SAMPLE = REPOSITORY / "data" / "sample"
DEMOS = {
    "mt5": "01_mt5_xlsum_optimized_v2",
    "t5": "02_eenzeenee_t5_rtx3090",
    "bart": "01_baseline_kobart_rtx3090",
}
"""An experiment of each family; KoBART's is full fine-tuning, the others 4-bit LoRA."""
ADAPTED = "local mt5"
"""The name below of a run from a local checkpoint with an untied head, 4-bit LoRA."""
EIGHT_BIT = "local bart in 8 bits"
"""The name of a run from a local checkpoint with a tied head, 8-bit LoRA."""
LOCAL: dict[str, tuple[str, str, list[str]]] = {
    ADAPTED: ("mt5", "01_mt5_xlsum_optimized_v2", []),
    EIGHT_BIT: (
        "bart",
        "03_high_learning_rate_rtx3090",
        ["qlora.load_in_4bit=false", "qlora.load_in_8bit=true"],
    ),
}
"""Sort of checkpoint, experiment and settings of runs that start from a local folder."""

Runs = Callable[[str], Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return the folder of a finished run by its family, each run once."""
    root = tmp_path_factory.mktemp("runs")
    done: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in done:
            place = root / name.replace(" ", "_") / "run"
            finished = run(command_of(name, place))
            assert finished.returncode == 0, finished.stdout + finished.stderr
            done[name] = place
        return done[name]

    return folder


def command_of(name: str, place: Path) -> list[str]:
    """Return the command of a run by its name; local checkpoints stand beside the runs."""
    if name not in LOCAL:
        return command(DEMOS[name], place)
    sort, experiment, settings = LOCAL[name]
    checkpoint = place.parent.parent / f"checkpoint_{sort}"
    if not checkpoint.is_dir():
        tokenizer = train_sample_tokenizer(KINDS[sort])
        write_checkpoint(checkpoint, sort, tokenizer=tokenizer, width=32)
    settings = [f"model.checkpoint={checkpoint}", "training.learning_rate=5e-3", *settings]
    options = [part for setting in settings for part in ("--set", setting)]
    return command(experiment, place, *options, demo=False)


ALL = [*DEMOS, ADAPTED]
SCORES = ("rouge1", "rouge2", "rougeL", "rouge_mean")
REQUIRED = {
    "": (
        "schema_version",
        "experiment",
        "label",
        "kind",
        "status",
        "started_at",
        "finished_at",
        "duration_seconds",
        "config_sha256",
        "tracking",
        "artifacts",
    ),
    "data": ("rows", "sha256", "files", "encoded"),
    "model": (
        "checkpoint",
        "architecture",
        "parameters_total",
        "parameters_trainable",
        "loader",
        "weights",
    ),
    "model.loader": ("requested", "used", "why"),
    "training": (
        "steps",
        "epochs",
        "best_step",
        "effective_batch_size",
        "stopped_early",
        "tokens_per_second",
        "peak_memory_bytes",
        "nan_events",
        "memory_retries",
        "max_grad_norm",
        "model_flops",
    ),
    "time": ("start", "training", "evaluation", "writing", "rest"),
    "evaluation.dev": (
        *SCORES,
        "rougeLsum",
        "rouge_sum",
        "signature",
        "confidence",
        "floors",
        "tags_one",
        "whitespace",
        "foreign_script_rate",
    ),
    "evaluation.dev.floors.constant": ("text", *SCORES),
    "evaluation.dev.floors.lead2": SCORES,
    "evaluation.dev.tags_one": (*SCORES, "signature", "floors"),
    "evaluation.dev.whitespace": (*SCORES, "signature", "floors"),
    "artifacts": (
        "model",
        "summary",
        "predictions_dev",
        "submission",
        "metrics",
        "log",
        "resolved_config",
    ),
}
"""Every key that a finished run's record has, by the section that it stands in."""


def section(record: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a part of a record by its dotted name."""
    for key in path.split(".") if path else []:
        record = record[key]
    return record


def nulls(value: Any, place: str = "") -> list[str]:
    """Return where a record holds null."""
    if isinstance(value, dict):
        return [found for key, one in value.items() for found in nulls(one, f"{place}.{key}")]
    if isinstance(value, list):
        return [found for row, one in enumerate(value) for found in nulls(one, f"{place}[{row}]")]
    return [place] if value is None else []


@pytest.mark.parametrize("name", ALL)
def test_the_record_is_whole(name: str, runs: Runs) -> None:
    record = read_result(runs(name))
    missing = [
        f"{path}.{key}"
        for path, keys in REQUIRED.items()
        for key in keys
        if key not in section(record, path)
    ]
    assert missing == []
    assert nulls(record) == []
    assert record["status"] == "success"
    assert "reason" not in record
    assert record["kind"] == "full"
    assert record["data"]["rows"] == ROWS
    training = record["training"]
    assert (training["steps"], training["effective_batch_size"]) == (STEPS, 8)
    assert training["best_step"] in (3, 6)
    assert training["nan_events"] == 0
    assert training["max_grad_norm"] > 0
    assert 0 < record["model"]["parameters_trainable"] <= record["model"]["parameters_total"]


def test_seed_versions_and_data_are_recorded(runs: Runs) -> None:
    folder = runs(ADAPTED)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["seed"] == read_result(folder)["training"]["seed"] == 42
    for package in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy"):
        assert environment["packages"][package] == metadata.version(package)
    for kind, found in read_result(folder)["data"]["sha256"].items():
        content = (SAMPLE / f"{kind}.csv").read_bytes()
        assert found == hashlib.sha256(content).hexdigest(), kind


@pytest.mark.parametrize("name", ALL)
def test_the_precision_is_said_with_its_reason(name: str, runs: Runs) -> None:
    record = read_result(runs(name))["training"]["device"]["precision"]
    log = (runs(name) / "train.log").read_text(encoding="utf-8")
    assert record["why"]
    assert log.count(f"precision: {record['used']} ({record['why']})") == 1


@pytest.mark.parametrize("name", ALL)
def test_what_the_record_names_is_there(name: str, runs: Runs) -> None:
    folder = runs(name)
    for kind, path in read_result(folder)["artifacts"].items():
        assert not Path(path).is_absolute()
        assert (folder / path).exists(), kind
    assert list((folder / "logs").glob("events.out.tfevents.*"))
    info = json.loads((folder / "model" / "model_info.json").read_text(encoding="utf-8"))
    assert info["kind"] == ("full" if name == "bart" else "adapter")
    assert not list(folder.rglob("*.tmp"))
    # Who may read the run's texts may read its weights.
    modes = {path.stat().st_mode for path in (folder / "model").iterdir() if path.is_file()}
    assert modes == {(folder / "result.json").stat().st_mode}
    weights = [path.name for path in (folder / "model").rglob("*") if path.is_file()]
    assert not [one for one in weights if one.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert "Best Metrics" in (folder / "results" / "summary.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ALL)
def test_every_row_is_predicted_in_order(name: str, runs: Runs) -> None:
    folder = runs(name)
    dev = load_split(SAMPLE / "dev.csv", kind="dev").take(ROWS["dev"])
    predictions = read_summaries(folder / "results" / "predictions_dev.csv")
    assert list(predictions) == [row.fname for row in dev.rows]
    test = load_split(SAMPLE / "test.csv", kind="test").take(ROWS["test"])
    check_submission(folder / "results" / "submission.csv", test.rows)
    with (folder / "results" / "submission.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["", "fname", "summary"]
    assert [row[:2] for row in rows[1:]] == [
        [str(number), row.fname] for number, row in enumerate(test.rows)
    ]
    assert all(row[2].strip() for row in rows[1:])


@pytest.mark.parametrize("name", ALL)
def test_events_tell_the_run_in_order(name: str, runs: Runs) -> None:
    events = read_events(runs(name))
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages == ["data", "model", "encode", "train", "generate", "score", "generate", "done"]
    evaluations = [event for event in events if event["event"] == "eval"]
    assert [event["step"] for event in evaluations] == [3, 6]
    assert evaluations[0]["best"] is True
    for event in evaluations:
        assert {"eval_loss", *SCORES, "epoch", "total_steps"} <= set(event)
    losses = [event for event in events if event["event"] == "train"]
    assert [event["step"] for event in losses] == [1, 2, 4, 6]
    assert {"loss", "grad_norm", "learning_rate", "epoch", "total_steps"} <= set(losses[0])
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


@pytest.mark.parametrize(
    ("name", "asked", "used"),
    [
        ("mt5", "Unsloth", "PEFT + bitsandbytes 4-bit"),
        ("t5", "PEFT + bitsandbytes 4-bit", "PEFT + bitsandbytes 4-bit"),
        ("bart", "transformers (full fine-tuning)", "transformers (full fine-tuning)"),
        (ADAPTED, "Unsloth", "PEFT + bitsandbytes 4-bit"),
        (EIGHT_BIT, "PEFT + bitsandbytes 8-bit", "PEFT + bitsandbytes 8-bit"),
    ],
)
def test_the_loader_is_said_once_and_recorded(name: str, asked: str, used: str, runs: Runs) -> None:
    folder = runs(name)
    loader = read_result(folder)["model"]["loader"]
    assert (loader["requested"], loader["used"]) == (asked, used)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert log.count(loader["why"]) == (1 if asked != used else 0)


def test_targets_are_held_against_their_own_scale(runs: Runs) -> None:
    record = read_result(runs(ADAPTED))["evaluation"]
    target = record["target"]
    assert target["tokenizer"] == "whitespace"
    assert target["signature"] == record["dev"]["whitespace"]["signature"]
    assert target["rouge1"] == record["dev"]["whitespace"]["rouge1"]
    # Six steps from random weights reach nothing.
    assert target["expected"] == {"rouge1": [15, 18], "met": False}
    assert target["minimum"] == {"rouge1": 25, "rouge2": 8, "rougeL": 22, "met": False}
    assert target["ideal"] == {"rouge1": 30, "rouge2": 12, "met": False}
    # The demo's twins are held to no target of the real checkpoints.
    assert "target" not in read_result(runs("mt5"))["evaluation"]


def test_saved_models_predict_the_same_in_a_new_process(runs: Runs) -> None:
    folders = [runs(name) for name in (*ALL, EIGHT_BIT)]
    script = REPOSITORY / "tests" / "predict_again.py"
    done = run([sys.executable, str(script), *map(str, folders)])
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for folder in folders:
        written = read_summaries(folder / "results" / "predictions_dev.csv")
        assert answers[str(folder)]["loaded"] == list(written.values())
        # Without what was learned the answers are others, or this would prove nothing.
        assert answers[str(folder)].get("base") != list(written.values())


def hash_weights(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of weights below a folder, a tiny base's too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.mark.parametrize("name", ["mt5", "bart", ADAPTED])
def test_a_second_run_gives_the_same_and_moves_the_first_aside(name: str, runs: Runs) -> None:
    # Last in this file: it replaces the runs that the tests above look at. The local checkpoint
    # trains with dropout, the others without.
    folder = runs(name)
    first = read_result(folder)
    predictions = (folder / "results" / "predictions_dev.csv").read_bytes()
    submission = (folder / "results" / "submission.csv").read_bytes()
    weights = hash_weights(folder / "model")
    done = run(command_of(name, folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (previous,) = (folder / "previous").iterdir()
    assert str(previous.name) in done.stdout
    moved = read_result(previous)
    assert moved["started_at"] == first["started_at"]
    assert previous.name == first["started_at"][:19].replace("-", "").replace(":", "").replace(
        "T", "_"
    )
    assert hash_weights(previous / "model") == weights
    for path in moved["artifacts"].values():
        assert (previous / path).exists(), path
    second = read_result(folder)
    assert second["started_at"] > first["started_at"]
    # Another process, the same weights, bit for bit.
    assert hash_weights(folder / "model") == weights
    assert any("base" not in path for path in weights)
    assert (folder / "results" / "predictions_dev.csv").read_bytes() == predictions
    assert (folder / "results" / "submission.csv").read_bytes() == submission
    assert second["evaluation"] == first["evaluation"]
    # The rows are the same, and so is the tokenizer that was trained on them again.
    for kind, encoded in first["data"]["encoded"].items():
        assert encoded["cache"]["how"] == "made"
        assert second["data"]["encoded"][kind] == {
            **encoded,
            "cache": {**encoded["cache"], "how": "read"},
        }
    assert second["training"]["max_grad_norm"] == first["training"]["max_grad_norm"]

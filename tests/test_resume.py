"""trainer.py --resume: an unfinished run goes on to what it would have been; others are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from batch_world import now
from dialsum.errors import EXIT_OK, EXIT_UNFIT
from dialsum.files import write_json
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import write_failed_record
from dialsum.report.summaries import summarise_root
from dialsum.train.checkpoints import MANIFEST, TENSORS
from test_record import dead_run
from trainer_runs import command, environment, packed_command, read_events, read_result, run, tree

pytestmark = pytest.mark.training

KOBART_LORA = "03_high_learning_rate_rtx3090"
LONGER = ("--set", "training.max_steps=12", "--set", "training.save_total_limit=4")


LINES = {
    "kobart": lambda folder, *options: command(KOBART_LORA, folder, *options),
    "packed llama": packed_command,
}


def kill_after_a_checkpoint(line: list[str], folder: Path) -> None:
    """Start a run and kill it as soon as its second checkpoint is whole."""
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 120
        sealed = folder / "checkpoints" / "checkpoint-6" / MANIFEST
        while not sealed.is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()


def weights(folder: Path) -> str:
    """Return the hash of the saved adapter."""
    path = folder / "model" / "adapter_model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def losses(folder: Path) -> list[tuple[int, float]]:
    """Return step and loss of every line."""
    return [(e["step"], e["loss"]) for e in read_events(folder) if e["event"] == "train"]


@pytest.mark.parametrize("kind", LINES)
def test_a_killed_run_goes_on_to_the_same_model(kind: str, tmp_path: Path) -> None:
    root = BatchPaths(tmp_path / "root", tmp_path / "logs")
    whole, killed = tmp_path / "whole", root.run("killed").folder
    assert run(LINES[kind](whole, *LONGER)).returncode == EXIT_OK
    started = now()
    kill_after_a_checkpoint(LINES[kind](killed, *LONGER), killed)
    assert not (killed / "result.json").exists()
    write_failed_record(
        RunPaths.alone(killed), dead_run(status="interrupted", started_at=started.isoformat())
    )
    write_json(root.summary, summarise_root(root.runs, root.summary))
    done = run(LINES[kind](killed, *LONGER, "--resume"))
    assert done.returncode == EXIT_OK, done.stdout + done.stderr
    assert "going on after step" in done.stdout
    record, expected = read_result(killed), read_result(whole)
    assert record["status"] == "success"
    [summed] = json.loads(root.summary.read_text(encoding="utf-8"))["experiments"]
    assert (summed["status"], summed["record"]) == ("success", "experiments/killed/result.json")
    assert record["resumed_after_step"] in (6, 9)
    assert record["training"]["steps"] == 12
    assert record["evaluation"]["dev"] == expected["evaluation"]["dev"]
    assert losses(killed) == losses(whole)
    assert weights(killed) == weights(whole)
    predictions = "results/predictions_dev.csv"
    assert (killed / predictions).read_bytes() == (whole / predictions).read_bytes()
    assert not (killed / "previous").exists()


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        ("nothing", ["--resume"], "this run is finished"),
        ("record", ["--resume", "--set", "training.weight_decay=0.5"], "other values"),
        ("record", ["--resume", "--seed", "7"], "other values"),
        ("record and checkpoints", ["--resume"], "no checkpoint to resume from"),
        ("record and state", ["--resume"], "another version of this program"),
        ("all", ["--resume"], "no checkpoint to resume from"),
    ],
)
def test_what_cannot_be_resumed_is_refused_and_left_alone(
    spoil: str,
    options: list[str],
    said: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    finished = tmp_path_factory.getbasetemp() / "a_finished_run"
    if not finished.is_dir():
        assert run(command(KOBART_LORA, finished)).returncode == EXIT_OK
    folder = tmp_path / "run"
    if spoil != "all":
        shutil.copytree(finished, folder)
    if "record" in spoil:
        (folder / "result.json").unlink()
    if "checkpoints" in spoil:
        for manifest in folder.rglob(MANIFEST):
            manifest.unlink()
    if "state" in spoil:
        for manifest in folder.rglob(MANIFEST):
            (manifest.parent / TENSORS).rename(manifest.parent / "optimizer.pt")
            text = manifest.read_text(encoding="utf-8").replace(TENSORS, "optimizer.pt")
            manifest.write_text(text, encoding="utf-8")
    before = tree(folder)
    line = command(KOBART_LORA, folder, *options)
    line = [
        part.replace(str(tmp_path / "encoded"), str(finished.parent / "encoded")) for part in line
    ]
    done = run(line)
    assert done.returncode == EXIT_UNFIT, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(folder) == before

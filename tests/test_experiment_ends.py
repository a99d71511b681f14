"""How an experiment ends when something is wrong: unfit, failed, its disk full."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from batch_world import leave, make_result, write_result
from dialsum.errors import EXIT_FAILED, EXIT_OK, EXIT_UNFIT
from small_models import write_checkpoint
from test_child import wait_for
from trainer_runs import REPOSITORY, command, environment, read_result, read_summaries, run, tree

pytestmark = pytest.mark.training

MT5, KOBART_LORA = "01_mt5_xlsum_optimized_v2", "03_high_learning_rate_rtx3090"
SAMPLE = REPOSITORY / "data" / "sample"


def stand_a_run(folder: Path) -> dict[str, tuple[int, int]]:
    """Put what an earlier run left into a folder and return how it looks."""
    (folder / "results").mkdir(parents=True)
    write_result(folder, make_result())
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


def small_files() -> None:
    """Let this process write no file beyond 64 KiB, as a quota might."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_a_failure_in_the_middle_is_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        command(MT5, folder),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        timeout=300,
    )
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


@pytest.mark.parametrize("disk", [40], indirect=True)
def test_a_disk_that_fills_up_while_training_leaves_a_record(disk: Path) -> None:
    folder = disk / "run"
    with subprocess.Popen(
        command(MT5, folder), env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for((folder / "environment.json").exists)
        # There is room for the first checkpoint's adapter, but not for its optimizer.
        leave(1_100_000, disk)
        shown, _ = process.communicate(timeout=300)
    assert process.returncode == EXIT_FAILED
    record = read_result(folder)
    assert record["status"] == "failed"
    assert "the disk leaves 0.0 MiB" in record["reason"]
    assert "none was saved yet" in record["reason"]
    assert record["failure"]["cause"] == "disk_full"
    assert record["reason"] in shown
    assert not list(folder.glob("checkpoints/*"))


def test_the_real_kobart_tokenizer_trains_offline_from_a_local_folder(
    shared_dir: Path, tmp_path: Path
) -> None:
    from dialsum.models.tokenizers import load_tokenizer

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


def test_a_vocabulary_without_the_language_is_refused(tmp_path: Path) -> None:
    from small_tokenizers import train_tokenizer

    words = "the weather report said that tomorrow every person would get another number again"
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "run"
    tokenizer = train_tokenizer([words] * 9, kind="unigram", vocab_size=60)
    write_checkpoint(checkpoint, "mt5", tokenizer=tokenizer)
    line = command(MT5, folder, "--set", f"model.checkpoint={checkpoint}", demo=False)
    done = run(line)
    assert done.returncode == EXIT_FAILED, done.stdout + done.stderr
    reason = read_result(folder)["reason"]
    assert reason.count("is read as") == 3 and "<unk>" in reason
    assert f"{checkpoint} lacks the data's language" in reason and "model.checkpoint" in reason
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_said_without_a_trace(tmp_path: Path) -> None:
    from dialsum.experiment.recording import explain_failure, explain_foreseen

    full = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    said = explain_foreseen(full, folder=tmp_path)
    assert said is not None
    assert "the disk was full" in said
    assert explain_failure(full, folder=tmp_path) == said
    assert explain_foreseen(ValueError("of our own making"), folder=tmp_path) is None

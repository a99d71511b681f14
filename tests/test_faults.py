"""What is mended after a fault, and the short form of tests/faults.py with real training."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import faults
from batch_world import make_options, make_screen, start
from dialsum.batch.ledger import read_batches
from dialsum.batch.lock import hold_batch, hold_run
from dialsum.batch.result import BatchResult
from dialsum.errors import UnfitError
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import find_records
from dialsum.report.summaries import write_batch_files


def write_all(folder: Path, *names: str) -> None:
    """Write files with a word in each."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("half", encoding="utf-8")


def test_what_a_killed_process_was_writing_goes_and_nothing_else(tmp_path: Path) -> None:
    paths = RunPaths(folder=tmp_path / "run", model=tmp_path / "model")
    ours = (
        "run/.result.json.abc_12zz.tmp",
        "run/.job.json.draft.abcdefgh.tmp",
        "run/job.json.draft",
        "run/results/.summary.txt.abcdefgh.tmp",
        "run/checkpoints/checkpoint-2/.manifest.json.abcdefgh.tmp",
        "model/.model_info.json.abcdefgh.tmp",
    )
    others = (
        "run/.notes.txt.abcdefgh.tmp",
        "run/result.json.tmp",
        "run/job.json",
        "run/checkpoints/copy/.a.abcdefgh.tmp",
        "model/.mine.abcdefgh.tmp",
    )
    write_all(tmp_path, *ours, *others)
    with hold_run(paths):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert not left & set(ours)
    assert left >= set(others)


def test_of_a_batchs_own_files_as_well(tmp_path: Path) -> None:
    paths = BatchPaths(tmp_path / "root", tmp_path / "logs")
    ours = (
        "root/.experiment_summary.json.abcdefgh.tmp",
        "root/.experiment_results_20260102_030405.json.abcdefgh.tmp",
        "logs/main_experiments_20260102_030405/.experiment_summary.txt.abcdefgh.tmp",
    )
    write_all(tmp_path, *ours, "root/.mine.abcdefgh.tmp")
    with hold_batch(paths, []):
        assert {path.name for path in tmp_path.rglob("*.tmp")} == {".mine.abcdefgh.tmp"}


def test_a_run_that_was_killed_in_its_first_write_starts_again(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok")
    write_all(tmp_path / "out/auto_experiments/experiments/ok", ".job.json.draft.abcdefgh.tmp")
    screen, shown = make_screen()
    assert start(options, screen=screen) == 0, shown.getvalue()


@pytest.mark.parametrize("begun", ["", "PRAGMA journal_mode = WAL"])
def test_a_ledger_that_a_killed_runner_had_only_begun_is_made_again(
    begun: str, tmp_path: Path
) -> None:
    options = make_options(tmp_path, "ok")
    ledger = tmp_path / "out/auto_experiments/batches.sqlite3"
    ledger.parent.mkdir(parents=True)
    ledger.touch()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(begun)
    assert read_batches(ledger) == []
    assert start(options, screen=make_screen()[0]) == 0
    assert [one.status for one in read_batches(ledger)] == ["success"]


def test_what_found_the_disk_full_goes_on_when_there_is_space(tmp_path: Path) -> None:
    options = make_options(tmp_path, "full", "ok")
    assert start(options, screen=make_screen()[0]) == 1
    screen, shown = make_screen()
    assert start(replace(options, resume=True), screen=screen) == 0, shown.getvalue()
    assert "finished before: 2 L_ok" in shown.getvalue()
    assert {one.status for one in find_records(tmp_path / "out")[0]} == {"success", "failed"}


def test_a_batch_that_was_killed_over_its_last_files_writes_them_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(tmp_path, "ok")

    def die_at_the_end(result: BatchResult) -> dict[Path, str]:
        if result.finished_at is not None:
            raise SystemExit(9)
        return write_batch_files(result)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("dialsum.batch.queue.write_batch_files", die_at_the_end)
        start(options, screen=make_screen()[0])
    paths = BatchPaths(tmp_path / "out/auto_experiments", tmp_path / "out/logs")
    [kept] = read_batches(paths.ledger)
    assert kept.status == "running"
    assert start(replace(options, resume=True), screen=make_screen()[0]) == 0
    text = paths.text_summary(kept.plan.started_at)
    whole = text.read_text(encoding="utf-8")
    text.unlink()
    assert start(replace(options, resume=True), screen=make_screen()[0]) == 0
    assert text.read_text(encoding="utf-8").splitlines()[2:8] == whole.splitlines()[2:8]
    with pytest.raises(UnfitError, match="has come to its end"):
        start(replace(options, resume=True), screen=make_screen()[0])


@pytest.mark.training
@pytest.mark.slow
def test_real_training_is_killed_and_loses_nothing() -> None:
    assert faults.main(["--rounds", "1", "--only", "", "--seed", "5"]) == 0

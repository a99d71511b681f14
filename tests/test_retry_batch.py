"""Retries in a batch of stand-ins: processes, logs, records, what is said."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, make_screen
from dialsum.batch.queue import run_queue
from dialsum.experiment.job import read_job
from dialsum.record import archive_previous, find_records, latest_runs, read_record
from dialsum.report.closing import format_closing
from test_batch import plan_batch, read_json, run_stand_ins
from test_batch_faults import start_runner, wait_for_pids

ASKED = ("batch.retry=[lr_half, batch_half]",)


def test_an_experiment_that_succeeds_at_its_third_attempt_says_so_everywhere(
    tmp_path: Path,
) -> None:
    options = make_options(tmp_path, "nan_2_30", "ok_9", overrides=ASKED, stop_on_error=True)
    outcome, shown = run_stand_ins(options)
    assert outcome.exit_status == 0
    assert [record.status for record in outcome.records] == ["success", "success"]
    record = outcome.records[0]
    assert read_record(record.path).content == record.content
    attempts = record.value("attempts")
    assert [one["number"] for one in attempts] == [1, 2, 3]
    assert attempts[0]["failure"] == {"cause": "non_finite", "stage": "train", "step": 7}
    assert (attempts[0]["steps"], attempts[0]["nan_events"]) == (6, 4)
    assert [(one["key"], one["from"], one["to"]) for one in attempts[2]["changes"]] == [
        ("training.per_device_train_batch_size", 2, 1),
        ("training.gradient_accumulation_steps", 1, 2),
    ]
    folder = record.path.parent
    for number, entry in enumerate(attempts[:2], start=1):
        places = {name: folder / place for name, place in entry["artifacts"].items()}
        assert set(places) == {"record", "nan_report", "log", "batch_log"}
        assert read_json(places["nan_report"])["attempt"] == number
        assert places["log"].read_text(encoding="utf-8") == f"attempt {number}\n"
        assert places["batch_log"].is_file()
        assert read_json(places["record"])["status"] == "failed"
    assert len({one["artifacts"]["batch_log"] for one in attempts[:2]}) == 2
    for said in (
        "[1/2] 1 L_nan_2_30  FAILED after",
        "retry: training.learning_rate 0.001 -> 5e-4 (batch.retry lr_half)",
        "[1/2] 1 L_nan_2_30, attempt 3  done in",
        "[2/2] 2 L_ok_9  done in",
    ):
        assert said in shown
    text = "\n".join(format_closing(outcome))
    said = "2nd attempt: learning_rate 0.001 -> 5e-4 after NaN at step 7"
    assert f"attempts   1 L_nan_2_30: {said}" in text
    assert "3rd attempt: per_device_train_batch_size 2 -> 1" in text
    assert "L_nan_2_30 4 times in attempt 1" in text
    [repeat] = [line for line in text.splitlines() if "repeat the best run" in line]
    assert repeat.endswith(f"--job {outcome.experiments[0].job.paths.job}")
    assert read_job(outcome.experiments[0].job.paths.job).config.batch.retry == []


def test_the_batchs_record_holds_every_attempt_with_paths_that_are_there(tmp_path: Path) -> None:
    outcome, _ = run_stand_ins(make_options(tmp_path, "nan_1", overrides=ASKED))
    paths = outcome.plan.paths
    [one] = read_json(paths.results(outcome.plan.started_at))["experiments"]
    [latest] = read_json(paths.summary)["experiments"]
    for entry in (one, latest):
        assert (entry["attempt"], entry["status"]) == (2, "success")
        for place in entry["attempts"][0]["artifacts"].values():
            assert (paths.root / place).is_file()
    assert one["log"].endswith("experiment_1_L_nan_1.attempt_2.log")
    records, problems = find_records(paths.runs)
    assert problems == []
    assert [record.status for record in records] == ["failed", "success"]
    assert latest_runs(records)["nan_1"].succeeded


def test_a_used_up_batch_retry_is_a_failure_with_every_attempt_named_and_stop_the_batch(
    tmp_path: Path,
) -> None:
    options = make_options(tmp_path, "nan_9", "ok", overrides=ASKED, stop_on_error=True)
    outcome, shown = run_stand_ins(options)
    assert outcome.exit_status == 1
    [record] = outcome.records
    assert record.status == "failed"
    assert [one["status"] for one in record.value("attempts")] == ["failed"] * 3
    assert "nothing of batch.retry is left after the 3rd attempt" in shown
    text = "\n".join(format_closing(outcome))
    assert "Not started\n  2 L_ok" in text
    failure = text.partition("Without a score\n")[2]
    assert "2nd attempt: learning_rate 0.001 -> 5e-4 after NaN at step 7" in failure
    assert "3rd attempt: per_device_train_batch_size 2 -> 1" in failure


def test_full_memory_passes_over_the_learning_rate(tmp_path: Path) -> None:
    outcome, shown = run_stand_ins(make_options(tmp_path, "memory_1", overrides=ASKED))
    [record] = outcome.records
    assert record.succeeded
    assert {one["by"] for one in record.value("attempts")[1]["changes"]} == {"batch_half"}
    assert "lr_half is left out: half the learning rate takes no less memory" in shown


ONCE = [
    ("fail", ASKED, "batch.retry is for NaN and full memory"),
    ("unfit", ASKED, "batch.retry is for NaN and full memory"),
    ("silent", ASKED, "batch.retry is for NaN and full memory"),
    ("early", ASKED, "being killed (SIGKILL) outside of training"),
    ("nan_9", (), "FAILED"),
]


@pytest.mark.parametrize(("name", "overrides", "said"), ONCE)
def test_other_failures_and_an_empty_batch_retry_get_no_retry(
    tmp_path: Path, name: str, overrides: tuple[str, ...], said: str
) -> None:
    outcome, shown = run_stand_ins(make_options(tmp_path, name, overrides=overrides))
    [record] = outcome.records
    assert record.status == "failed"
    assert record.value("attempts") is None
    assert said in shown
    assert "attempt 2" not in shown


def test_a_process_killed_after_training_is_not_tried_again(tmp_path: Path) -> None:
    outcome, shown = run_stand_ins(make_options(tmp_path, "crash", overrides=ASKED))
    [record] = outcome.records
    assert record.value("failure") == {"cause": "killed", "stage": "generate", "step": 2}
    assert "outside of training" in shown


def test_a_retry_that_dies_without_a_record_still_names_the_first(tmp_path: Path) -> None:
    options = make_options(tmp_path, "nancrash", overrides=ASKED)
    outcome, _ = run_stand_ins(options)
    [record] = outcome.records
    assert [one["status"] for one in record.value("attempts")] == ["failed", "failed"]
    assert record.value("attempt") == 2
    assert read_record(record.path).content == record.content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_a_retry_ends_it_and_the_batch(tmp_path: Path, number: int) -> None:
    runner = start_runner(tmp_path, "nanhang", "ok", overrides=ASKED)
    wait_for_pids(tmp_path, "nanhang")
    runner.send_signal(number)
    shown, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130, shown
    assert "attempt 3" not in shown
    records, _ = find_records(tmp_path / "out" / "auto_experiments")
    assert [record.status for record in records] == ["failed", "interrupted"]
    assert [one["status"] for one in records[1].value("attempts")] == ["failed", "interrupted"]


def test_a_wish_to_stop_that_comes_with_the_failure_starts_no_attempt(tmp_path: Path) -> None:
    from dialsum.batch.child import Interrupts

    interrupts = Interrupts()
    plan = plan_batch(make_options(tmp_path, "nan_9", overrides=ASKED))
    screen, shown = make_screen()
    say = screen.say

    def stop_at_failure(*lines: str) -> None:
        say(*lines)
        if any("FAILED" in line for line in lines):
            interrupts.receive()

    screen.say = stop_at_failure  # type: ignore[method-assign]
    outcome = run_queue(plan, screen=screen, interrupts=interrupts)
    assert "attempt 2" not in shown.getvalue()
    assert outcome.records[0].value("attempts") is None


def test_an_archived_run_still_finds_its_attempts(tmp_path: Path) -> None:
    outcome, _ = run_stand_ins(make_options(tmp_path, "nan_1", overrides=ASKED))
    kept = archive_previous(outcome.plan.jobs[0].paths)
    assert kept is not None
    content: dict[str, Any] = read_json(kept / "result.json")
    for place in content["attempts"][0]["artifacts"].values():
        assert (kept / place).is_file()

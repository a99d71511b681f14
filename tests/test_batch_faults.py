"""What the world does to a running batch: full disks, interrupts, kills, a screen that closes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_world import leave, make_options, make_screen, start
from dialsum.batch.queue import run_queue
from dialsum.batch.result import BatchResult
from dialsum.paths import LOCK, BatchPaths
from dialsum.record import find_records, read_record
from dialsum.report.closing import format_closing
from dialsum.report.summaries import write_batch_files
from test_batch import plan_batch, read_json, run_stand_ins
from test_child import is_gone, wait_for


def files(folder: Path) -> dict[str, bytes]:
    """Return what every file below a folder holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("disk", [100], indirect=True)
def test_on_a_full_disk_nothing_is_started_and_nothing_that_stood_there_is_touched(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(tmp_path, "ok", "crash", output_dir=disk, log_dir=tmp_path / "log")
    run_stand_ins(options)
    before: dict[str, bytes] = {}

    def write_then_fill(outcome: BatchResult) -> dict[Path, str]:
        unwritten = write_batch_files(outcome)
        if not before:
            leave(0, disk)
            before.update(files(disk / "auto_experiments"))
        return unwritten

    monkeypatch.setattr("dialsum.batch.queue.write_batch_files", write_then_fill)
    outcome, shown = run_stand_ins(options)
    assert outcome.exit_status == 1
    assert outcome.experiments == []
    after = files(disk / "auto_experiments")
    for name in before.keys() | after.keys():
        is_ours = name.endswith(LOCK) or name.startswith("batches.sqlite3")
        assert after.get(name) == before.get(name) or is_ours, name
    closing = "\n".join(format_closing(outcome))
    assert "the disk is full, so nothing was started from L_ok on: " in shown
    assert "the disk is full, so nothing was started from L_ok on: " in closing
    assert "Not started\n  1 L_ok\n  2 L_crash" in closing
    assert "everything is recorded: no space left on the disk" in closing


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {code!r}]
from batch_world import make_options, start
from dialsum.errors import run_script
folder, *names = sys.argv[1:]
run_script(lambda _: start(make_options(Path(folder), *names, overrides={overrides!r})))
"""


def start_runner(
    folder: Path, *names: str, overrides: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a batch of stand-ins in a process of its own; what it writes goes to folder/out."""
    tests = Path(__file__).resolve().parent
    code = str(tests.parent / "code")
    program = DRIVER.format(tests=str(tests), code=code, overrides=overrides)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("disk", [400], indirect=True)
def test_a_disk_that_fills_ends_the_queue_and_the_closing_lists_only_what_is_there(
    disk: Path,
) -> None:
    again = start_runner(disk, "ok_2", "ok_3")
    assert again.wait(timeout=120) == 0
    root = disk / "out" / "auto_experiments"
    kept = files(root)
    runner = start_runner(disk, "ok", "fill", "ok_2", "ok_3")
    shown, _ = runner.communicate(timeout=120)
    assert runner.returncode == 1, shown
    runs = root / "experiments"
    [line] = [line for line in shown.splitlines() if "L_fill  FAILED" in line]
    assert f"no space left on the disk of {runs / 'fill'}: its process ended" in line
    assert f"not be recorded: no space left on the disk, {runs / 'fill'}/result.json" in shown
    assert shown.count("warning: ") == 1
    # What finished before stands as it stood: model, record and all.
    for name, content in kept.items():
        assert ("_2/" not in name and "_3/" not in name) or files(root)[name] == content
    closing = shown.partition("\nBatch ")[2]
    assert "Not started\n  3 L_ok_2\n  4 L_ok_3" in closing
    assert "the disk is full, so nothing was started from L_ok_2 on: " in closing
    listed_files, following = closing.partition("\nFiles\n")[2].split("\nNext\n")
    listed = [Path(line.split()[-1]) for line in listed_files.splitlines() if line]
    assert all(path.exists() for path in listed)
    [unwritten] = [line for line in closing.splitlines() if "everything is recorded" in line]
    assert not any(str(path) in unwritten for path in listed if path.suffix == ".json")
    assert str(runs / "fill" / "result.json") in unwritten
    assert following.startswith("  free space on the disk of ")
    for line in following.splitlines():
        log = line.partition("read why in ")[2]
        assert not log or Path(log).stat().st_size


def wait_for_pids(folder: Path, name: str) -> dict[str, int]:
    """Wait until a hanging stand-in hangs; return its processes."""
    root = folder / "out" / "auto_experiments"
    path = BatchPaths(root, folder).run(name).folder / "pids.json"
    wait_for(path.exists)
    pids: dict[str, int] = read_json(path)
    return pids


def test_a_hung_run_is_ended_and_goes_on_when_asked(tmp_path: Path) -> None:
    options = make_options(tmp_path, "mute", "ok", overrides=("batch.hang_minutes=0.1",))
    screen, shown = make_screen()
    assert start(options, screen=screen) == 1
    record = read_record(BatchPaths(tmp_path / "out/auto_experiments", tmp_path).run("mute").result)
    assert record.value("failure.cause") == "hung"
    assert "hung: no sign of life for" in str(record.value("reason"))
    assert "[2/2] 2 L_ok  done in" in shown.getvalue()
    assert "go on where it was cut off" in shown.getvalue()


def test_two_failures_that_the_rest_would_meet_too_stop_the_batch(tmp_path: Path) -> None:
    options = make_options(tmp_path, "lost_1", "fail", "lost_2", "ok")
    screen, shown = make_screen()
    assert start(options, screen=screen) == 1
    text = shown.getvalue()
    assert "L_lost_1 and L_lost_2 failed for one cause, which is none of theirs (CUDA error" in text
    assert "L_ok would fail too and stay planned" in text
    assert "[4/4]" not in text
    screen, shown = make_screen()
    assert start(replace(options, resume=True), screen=screen) == 1
    assert "[4/4] 4 L_ok  done in" in shown.getvalue(), "what failed before does not count again"


def test_two_experiments_that_fail_in_their_own_ways_stop_nothing(tmp_path: Path) -> None:
    screen, shown = make_screen()
    assert start(make_options(tmp_path, "fail", "crash", "lost", "ok"), screen=screen) == 1
    assert "[4/4] 4 L_ok  done in" in shown.getvalue()


def test_a_terminal_that_closes_ends_no_batch(tmp_path: Path) -> None:
    runner = start_runner(tmp_path, "slow", "ok")
    root = tmp_path / "out" / "auto_experiments"
    wait_for(BatchPaths(root, tmp_path).run("slow").metrics.exists)
    runner.send_signal(signal.SIGHUP)
    shown, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0, shown
    assert {r.name: r.status for r in find_records(root)[0]} == {"slow": "success", "ok": "success"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_recorded_and_ends_the_batch(tmp_path: Path, number: int) -> None:
    runner = start_runner(tmp_path, "ok", "hang", "ok_2")
    pids = wait_for_pids(tmp_path, "hang")
    runner.send_signal(number)
    shown, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130, shown
    assert all(is_gone(pid) for pid in pids.values())
    root = tmp_path / "out" / "auto_experiments"
    statuses = {r.name: r.status for r in find_records(root)[0]}
    assert statuses == {"ok": "success", "hang": "interrupted"}
    assert "Not started\n  3 L_ok_2" in shown
    assert "interrupted after" in shown
    [batch] = [read_json(path) for path in root.glob("experiment_results_*.json")]
    assert batch["status"] == "interrupted"
    [log] = (tmp_path / "out" / "logs").glob("*/experiment_summary.txt")
    assert log.read_text(encoding="utf-8").strip() in shown


@pytest.mark.parametrize("pause_seconds", [0.0, 0.02, 0.7])
def test_signals_that_come_again_and_again_cost_neither_record_nor_table(
    tmp_path: Path, pause_seconds: float
) -> None:
    runner = start_runner(tmp_path, "ok", "hang")
    wait_for_pids(tmp_path, "hang")
    text = tmp_path / "out" / "logs"
    while runner.poll() is None and not list(text.glob("*/experiment_summary.txt")):
        runner.send_signal(signal.SIGTERM)
        time.sleep(pause_seconds)
    shown, _ = runner.communicate(timeout=60)
    root = tmp_path / "out" / "auto_experiments"
    statuses = {r.name: r.status for r in find_records(root)[0]}
    assert statuses == {"ok": "success", "hang": "interrupted"}, shown
    [batch] = [read_json(path) for path in root.glob("experiment_results_*.json")]
    assert batch["status"] == "interrupted"
    [log] = text.glob("*/experiment_summary.txt")
    assert "interrupted after" in log.read_text(encoding="utf-8")


def test_a_child_that_does_not_stop_is_killed_and_recorded_for_it(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "stubborn"))
    folder = plan.jobs[0].paths.folder
    screen, _ = make_screen()
    sent: list[bool] = []
    write = screen.show_progress

    def stop_when_hanging(make_line: Any) -> None:
        if (folder / "pids.json").exists() and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        write(make_line)

    screen.show_progress = stop_when_hanging  # type: ignore[method-assign]
    outcome = run_queue(plan, screen=screen, grace_seconds=0.2)
    assert outcome.exit_status == 130
    assert outcome.records[0].status == "interrupted"
    assert "did not stop when asked and was killed" in str(outcome.records[0].value("reason"))
    assert all(is_gone(pid) for pid in read_json(folder / "pids.json").values())


def test_a_killed_runner_leaves_no_process_and_no_half_record(tmp_path: Path) -> None:
    runner = start_runner(tmp_path, "ok", "hang")
    pids = wait_for_pids(tmp_path, "hang")
    runner.kill()
    runner.communicate()
    wait_for(lambda: all(is_gone(pid) for pid in pids.values()))
    root = tmp_path / "out" / "auto_experiments"
    assert [r.name for r in find_records(root)[0]] == ["ok"]
    for path in tmp_path.rglob("*.json"):
        read_json(path)
    [batch] = [read_json(path) for path in root.glob("experiment_results_*.json")]
    assert batch["status"] == "running"


def test_a_screen_whose_reader_left_ends_no_batch(tmp_path: Path) -> None:
    runner = start_runner(tmp_path, "ok", "ok_2")
    assert runner.stdout is not None
    runner.stdout.close()
    assert runner.wait(timeout=60) == 0
    assert len(find_records(tmp_path / "out")[0]) == 2

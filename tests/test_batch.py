"""The queue with real processes: failures, crashes, interrupts, full disks; what is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_world import TRAINER, make_options, make_screen, now
from dialsum.errors import UnfitError
from dialsum.paths import BatchPaths
from dialsum.record import find_records, read_record
from dialsum.report.closing import format_closing
from dialsum.report.door import start_batch
from dialsum.report.summaries import write_batch_files
from dialsum.run.batch import run_batch
from dialsum.run.lock import hold_folders
from dialsum.run.options import BatchOptions
from dialsum.run.outcome import BatchOutcome
from dialsum.run.plan import BatchPlan, load_selected, make_plan
from test_executor import is_gone, wait_for


def plan_batch(options: BatchOptions) -> BatchPlan:
    """Return the plan of stand-ins."""
    loaded, _ = load_selected(options)
    return make_plan(options, loaded, started_at=now(), trainer=TRAINER)


def run_stand_ins(options: BatchOptions) -> tuple[BatchOutcome, str]:
    """Run a batch; return its outcome and what was on the screen."""
    screen, shown = make_screen()
    outcome = run_batch(plan_batch(options), screen=screen, write_results=write_batch_files)
    return outcome, shown.getvalue()


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


REASONS = [
    ("fail", "failed", "the loss became NaN at step 2"),
    ("crash", "failed", "was killed (SIGKILL): most often the machine had no memory left"),
    ("early", "failed", "SIGKILL"),
    ("silent", "failed", "ended with status 0 but left no record; its log ends: stand-in"),
    ("unfit", "failed", "ended with status 2 and left no record; its log ends: error: 1 problem"),
]


@pytest.mark.parametrize(("name", "status", "reason"), REASONS)
def test_a_failure_is_recorded_with_its_reason_and_the_next_one_starts(
    tmp_path: Path, name: str, status: str, reason: str
) -> None:
    outcome, shown = run_stand_ins(make_options(tmp_path, name, "ok"))
    assert outcome.exit_status == 1
    assert [record.status for record in outcome.records] == [status, "success"]
    for record in outcome.records:
        assert read_record(record.path).content == record.content
    assert reason in str(outcome.records[0].value("reason"))
    assert f"[1/2] 1 L_{name}  FAILED after" in shown
    assert "[2/2] 2 L_ok  done in" in shown


@pytest.mark.parametrize("name", ["ok", "numpy", "late"])
def test_a_run_that_came_to_its_end_is_a_success(tmp_path: Path, name: str) -> None:
    outcome, shown = run_stand_ins(make_options(tmp_path, name))
    assert outcome.exit_status == 0
    assert outcome.records[0].succeeded
    assert "dev R1 25.00, R2 15.00, RL 20.00, mean 20.00 (constant sentence: mean 10.00)" in shown
    assert "step 2/2  epoch 1.00  loss 3.500  dev R1 25.00" in shown
    assert "(best so far)" in shown
    assert "no NVIDIA GPU in this machine" in shown
    assert shown.count("NVIDIA") == 1


def test_numpy_numbers_are_in_the_record(tmp_path: Path) -> None:
    outcome, _ = run_stand_ins(make_options(tmp_path, "numpy"))
    assert outcome.records[0].value("training") == {"max_grad_norm": 1.5, "steps": 2}


def test_stop_on_error_starts_no_other_and_says_so(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok", "fail", "ok_2", stop_on_error=True)
    outcome, _ = run_stand_ins(options)
    assert outcome.exit_status == 1
    assert [one.name for one in outcome.not_started] == ["ok_2"]
    text = "\n".join(format_closing(outcome))
    assert "Not started\n  3 L_ok_2" in text
    assert "NO   all finished: 1 of 3 (L_fail failed, L_ok_2 not started)" in text


def test_a_second_run_keeps_the_first_with_its_model(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok_30")
    first, _ = run_stand_ins(options)
    second, _ = run_stand_ins(options)
    assert first.plan.batch_id != second.plan.batch_id
    records, problems = find_records(tmp_path / "out")
    assert problems == []
    assert {record.value("batch") for record in records} == {
        first.plan.batch_id,
        second.plan.batch_id,
    }
    for record in records:
        model = record.artifact("model")
        assert model is not None and (model / "model_info.json").is_file()
    summary = read_json(second.plan.paths.summary)
    assert [one["batch"] for one in summary["experiments"]] == [second.plan.batch_id]


def test_a_run_that_dies_before_it_touches_its_folder_does_not_hide_the_earlier_one(
    tmp_path: Path,
) -> None:
    options = make_options(tmp_path, "early")
    paths = BatchPaths.make(tmp_path / "out" / "auto_experiments", tmp_path / "logs").run("early")
    run_stand_ins(options)
    run_stand_ins(options)
    assert read_record(paths.result).status == "failed"
    assert len(find_records(paths.folder)[0]) == 2


def test_batch_files_rank_within_the_batch_and_point_to_what_is_there(tmp_path: Path) -> None:
    outcome, _ = run_stand_ins(make_options(tmp_path, "ok_30", "fail", "ok_40"))
    paths = outcome.plan.paths
    batch = read_json(paths.results(outcome.plan.started_at))
    assert batch["status"] == "failed"
    assert [one.get("rank") for one in batch["experiments"]] == [2, None, 1]
    assert [one["number"] for one in batch["experiments"]] == [1, 2, 3]
    summary = read_json(paths.summary)
    assert [one["experiment"] for one in summary["experiments"]] == ["ok_40", "ok_30", "fail"]
    assert summary["experiments"][0]["evaluation"]["target"]["expected"]["met"] is True
    for one in [*batch["experiments"], *summary["experiments"]]:
        assert (paths.root / one["record"]).is_file()
    for one in batch["experiments"]:
        assert (paths.root / one["log"]).is_file()
    assert (paths.root / batch["logs"]).is_dir()


def test_the_batchs_own_files_tell_the_truth_while_it_runs(tmp_path: Path) -> None:
    seen: list[Any] = []

    def keep(outcome: BatchOutcome) -> None:
        write_batch_files(outcome)
        seen.append(read_json(outcome.plan.paths.results(outcome.plan.started_at)))

    plan = plan_batch(make_options(tmp_path, "ok", "fail"))
    run_batch(plan, screen=make_screen()[0], write_results=keep)
    assert [one["status"] for one in seen] == ["running", "running", "running", "failed"]
    assert [len(one["experiments"]) for one in seen] == [0, 1, 2, 2]
    assert [len(one["not_started"]) for one in seen] == [2, 1, 0, 0]
    assert ["finished_at" in one for one in seen] == [False, False, False, True]


def test_a_folder_that_cannot_be_made_stops_the_batch_before_its_start(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UnfitError, match="cannot be made"):
        run_batch(plan, screen=make_screen()[0], write_results=write_batch_files)


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    plan.paths.runs.mkdir(parents=True)
    with hold_folders([plan.paths.runs]), pytest.raises(UnfitError, match="another batch"):
        run_batch(plan, screen=make_screen()[0], write_results=write_batch_files)
    assert not plan.paths.results(plan.started_at).exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_loses_nothing_that_stood_there_and_is_no_success(
    tmp_path: Path, tiny_disk: Path
) -> None:
    options = make_options(tmp_path, "ok", "crash", output_dir=tiny_disk, log_dir=tmp_path / "log")
    first, _ = run_stand_ins(options)
    kept = read_json(first.plan.paths.results(first.plan.started_at))
    plan = plan_batch(options)
    screen, shown = make_screen()
    calls: list[int] = []

    def fill_then_write(outcome: BatchOutcome) -> None:
        calls.append(len(outcome.outcomes))
        write_batch_files(outcome)
        if len(calls) == 1:
            with (tiny_disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 1024)
                except OSError:
                    pass

    outcome = run_batch(plan, screen=screen, write_results=fill_then_write)
    assert outcome.exit_status == 1
    assert len(outcome.outcomes) == 2
    assert "no space left on the disk" in shown.getvalue()
    assert "everything is recorded: " in "\n".join(format_closing(outcome))
    assert read_json(first.plan.paths.results(first.plan.started_at)) == kept
    for path in tiny_disk.rglob("*.json"):
        read_json(path)


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {code!r}]
from batch_world import TRAINER, make_options
from dialsum.errors import run_script
from dialsum.report.door import start_batch
folder, *names = sys.argv[1:]
run_script(lambda _: start_batch(make_options(Path(folder), *names), trainer=TRAINER))
"""


def start_runner(folder: Path, *names: str) -> subprocess.Popen[str]:
    """Start a batch of stand-ins in a process of its own."""
    tests = Path(__file__).resolve().parent
    program = DRIVER.format(tests=str(tests), code=str(tests.parent / "code"))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *names],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_pids(folder: Path, name: str) -> dict[str, int]:
    """Wait until a hanging stand-in hangs; return its processes."""
    root = folder / "out" / "auto_experiments"
    path = BatchPaths.make(root, folder).run(name).folder / "pids.json"
    wait_for(path.exists)
    pids: dict[str, int] = read_json(path)
    return pids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_a_child_that_does_not_stop_is_killed_and_recorded_for_it(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "stubborn"))
    folder = plan.experiments[0].paths.folder
    screen, _ = make_screen()
    sent: list[bool] = []
    write = screen.show_progress

    def stop_when_hanging(make_line: Any) -> None:
        if (folder / "pids.json").exists() and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        write(make_line)

    screen.show_progress = stop_when_hanging  # type: ignore[method-assign]
    outcome = run_batch(plan, screen=screen, write_results=write_batch_files, grace_seconds=0.2)
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


def test_the_whole_way_from_options_to_table(tmp_path: Path) -> None:
    screen, shown = make_screen()
    options = make_options(tmp_path, "ok_30", "ok_40")
    assert start_batch(options, trainer=TRAINER, screen=screen) == 0
    text = shown.getvalue()
    for expected in (
        "2 experiments, full training",
        "Ranking by the mean of ROUGE-1, -2 and -L",
        "1  2 L_ok_40",
        "2  1 L_ok_30",
        "signature  rouge|tok:mecab-ko",
        "yes  all finished: 2 of 2",
        "repeat the best run: ",
        "submission.csv",
    ):
        assert expected in text
    assert text.index("1  2 L_ok_40") < text.index("2  1 L_ok_30")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok")
    screen, shown = make_screen()
    before = sorted(tmp_path.rglob("*"))
    assert start_batch(options, dry_run=True, trainer=TRAINER, screen=screen) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "nothing was written" in shown.getvalue()


def test_one_unfit_experiment_stops_all_before_the_start_and_only_goes_on(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok", "ok_2")
    options.configs[0].write_text("nonsense: 1")
    with pytest.raises(UnfitError, match="nonsense"):
        start_batch(options, trainer=TRAINER, screen=make_screen()[0])
    assert not (tmp_path / "out").exists()
    without = BatchOptions(**{**vars(options), "only": "2"})
    assert start_batch(without, trainer=TRAINER, screen=make_screen()[0]) == 0

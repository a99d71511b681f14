"""The queue with real processes: failures, crashes, interrupts, full disks; what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_world import TRAINER, make_options, make_screen, now, start
from dialsum.batch.lock import hold_batch
from dialsum.batch.plan import BatchPlan, load_selected, make_plan
from dialsum.batch.queue import run_queue
from dialsum.batch.result import BatchResult
from dialsum.cli import BatchOptions
from dialsum.errors import UnfitError
from dialsum.paths import LOCK, BatchPaths
from dialsum.record import find_records, read_record
from dialsum.report.closing import format_closing
from dialsum.report.summaries import write_batch_files


def plan_batch(options: BatchOptions) -> BatchPlan:
    """Return the plan of stand-ins."""
    loaded, _ = load_selected(options)
    return make_plan(options, loaded, started_at=now(), trainer=TRAINER)


def run_stand_ins(options: BatchOptions) -> tuple[BatchResult, str]:
    """Run a batch; return its outcome and what was on the screen."""
    screen, shown = make_screen()
    outcome = run_queue(plan_batch(options), screen=screen)
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
    scores = "R1 25.00, R2 15.00, RL 20.00, mean 20.00 (constant sentence: mean 10.00)"
    assert f"dev (2 rows, 4 beams): {scores}" in shown
    assert "step 2/2  loss 3.500  dev (2 rows, greedy): R1 25.00" in shown
    assert "  writing 2 dev summaries\n  writing 2 test summaries\n" in shown
    assert "(best so far)" in shown
    assert "no NVIDIA GPU in this machine" in shown
    assert shown.count("NVIDIA") == 1
    # One that is killed after its record does not tidy up by itself.
    assert list(tmp_path.rglob(LOCK)) == []


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
    assert "all finished: 1 of 3 (L_fail failed, L_ok_2 not started)" in text


@pytest.mark.parametrize("runs", [None, "elsewhere"])
def test_the_closing_collects_where_the_runs_are(tmp_path: Path, runs: str | None) -> None:
    options = make_options(tmp_path, "ok", runs_dir=tmp_path / runs if runs else None)
    [line] = [
        line for line in format_closing(run_stand_ins(options)[0]) if "every run so far" in line
    ]
    root = Path(line.rpartition("--root ")[2])
    assert [record.name for record in find_records(root)[0]] == ["ok"]


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
    paths = BatchPaths(tmp_path / "out" / "auto_experiments", tmp_path / "logs").run("early")
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


def test_the_batchs_own_files_tell_the_truth_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def keep(outcome: BatchResult) -> dict[Path, str]:
        unwritten = write_batch_files(outcome)
        seen.append(read_json(outcome.plan.paths.results(outcome.plan.started_at)))
        return unwritten

    monkeypatch.setattr("dialsum.batch.queue.write_batch_files", keep)
    run_stand_ins(make_options(tmp_path, "ok", "fail"))
    assert [one["status"] for one in seen] == ["running", "running", "failed"]
    assert [len(one["experiments"]) for one in seen] == [0, 1, 2]
    assert [len(one["not_started"]) for one in seen] == [2, 1, 0]
    assert ["finished_at" in one for one in seen] == [False, False, True]


def test_a_folder_that_cannot_be_made_stops_the_batch_before_its_start(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UnfitError, match="cannot be made"):
        run_queue(plan, screen=make_screen()[0])


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    plan.paths.runs.mkdir(parents=True)
    runs = [one.paths for one in plan.jobs]
    with hold_batch(plan.paths, runs), pytest.raises(UnfitError, match="another batch"):
        run_queue(plan, screen=make_screen()[0])
    assert not plan.paths.results(plan.started_at).exists()


def test_the_whole_way_from_options_to_table(tmp_path: Path) -> None:
    screen, shown = make_screen()
    options = make_options(tmp_path, "ok_30", "ok_40")
    assert start(options, screen=screen) == 0
    text = shown.getvalue()
    for expected in (
        "2 experiments, as configured",
        "Ranking by the mean of ROUGE-1, -2 and -L",
        "1  2 L_ok_40",
        "2  1 L_ok_30",
        "signature  rouge|tok:mecab-ko",
        "all finished: 2 of 2",
        "repeat the best run: ",
        "submission.csv",
    ):
        assert expected in text
    assert text.index("1  2 L_ok_40") < text.index("2  1 L_ok_30")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok")
    screen, shown = make_screen()
    before = sorted(tmp_path.rglob("*"))
    assert start(replace(options, dry_run=True), screen=screen) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "nothing was written" in shown.getvalue()


def test_one_unfit_experiment_stops_all_before_the_start_and_only_goes_on(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok", "ok_2")
    options.configs[0].write_text("nonsense: 1")
    with pytest.raises(UnfitError, match="nonsense"):
        start(options, screen=make_screen()[0])
    assert not (tmp_path / "out").exists()
    without = BatchOptions(**{**vars(options), "only": (2,)})
    assert start(without, screen=make_screen()[0]) == 0


def test_a_fault_in_what_is_shown_costs_no_run(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok", "ok_2"))
    screen, shown = make_screen()
    show = screen.show_progress

    def fail_once(make_line: Any) -> None:
        if "2 L_ok_2" not in shown.getvalue():
            raise ZeroDivisionError("a fault of ours")
        show(make_line)

    screen.show_progress = fail_once  # type: ignore[method-assign]
    outcome = run_queue(plan, screen=screen)
    assert [record.status for record in outcome.records] == ["success", "success"]
    assert "ZeroDivisionError: a fault of ours" in shown.getvalue()
    assert "the experiments go on without being shown" in shown.getvalue()

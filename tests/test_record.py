"""Records of past runs: reading, finding, choosing, moving aside, wording."""

from __future__ import annotations

import json
import math
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_world import make_record, make_result, now, write_result
from dialsum.errors import DataError, RunError, UnfitError
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import (
    archive_previous,
    best_metrics_text,
    best_run,
    describe_dead_run,
    find_records,
    find_saved_models,
    latest_runs,
    read_record,
    write_failed_record,
)

UNREADABLE = [
    ("", "no valid JSON"),
    ('{"schema_version": 1, "experi', "no valid JSON"),
    ("[]", "no record of a run"),
    ("{}", "no schema_version"),
    ('{"schema_version": 99}', "schema_version 99"),
    ('{"schema_version": 1}', "lacks experiment, status, started_at"),
    (json.dumps(make_result(status="great")), "status 'great'"),
    (json.dumps(make_result(started_at="yesterday")), "'yesterday' is no ISO time"),
]


@pytest.mark.parametrize(("text", "said"), UNREADABLE)
def test_unreadable_record_is_named_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(RunError, match="result") as caught:
        read_record(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (True, None), ([], None), ("many", None), (0, 0.0), ("inf", math.inf)],
)
def test_numbers_of_a_record(value: Any, expected: float | None) -> None:
    record = make_record(training={"x": value, "nan": "nan"})
    assert record.number("training.x") == expected
    assert math.isnan(record.number("training.nan") or 0)
    assert record.number("training.x.y") is None is record.number("training.y")


def test_find_records_reads_previous_runs_and_skips_foreign_files_loudly(tmp_path: Path) -> None:
    write_result(tmp_path / "a", make_result("a", started_at="2026-01-02T00:00:00+00:00"))
    early = make_result("a", started_at="2026-01-01T00:00:00+00:00")
    write_result(tmp_path / "a" / "previous" / "20260101_000000", early)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text('{"schema_version": 7}')
    # Inside a run's folder only earlier runs are looked for.
    write_result(tmp_path / "a" / "checkpoints" / "deep", make_result("not_a_run"))
    records, problems = find_records(tmp_path)
    assert [record.name for record in records] == ["a", "a"]
    assert records[0].content["started_at"].startswith("2026-01-01")
    assert len(problems) == 1
    assert "b/result.json" in problems[0]
    assert "schema_version 7" in problems[0]
    with pytest.raises(UnfitError, match="nowhere: there is no such folder"):
        find_records(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"result\.json: cannot be read: No such file"):
        read_record(tmp_path / "result.json")


def test_latest_run_goes_by_the_time_inside_not_by_the_files_date(tmp_path: Path) -> None:
    old = write_result(tmp_path / "old", make_result("a", started_at="2026-01-01T10:00:00+00:00"))
    # The same moment as 11:00 UTC, written with another offset.
    new = write_result(tmp_path / "new", make_result("a", started_at="2026-01-01T20:00:00+09:00"))
    subprocess.run(["touch", "-d", "2030-01-01", str(old)], check=True)
    subprocess.run(["touch", "-d", "2001-01-01", str(new)], check=True)
    assert latest_runs(find_records(tmp_path)[0])["a"].path == new
    # Of one second is the later one that still stands at its place.
    moved = write_result(tmp_path / "z" / "previous" / "x", read_record(new).content)
    assert latest_runs([read_record(new), read_record(moved)])["a"].path == new


def test_best_run_by_metric_among_those_of_one_recipe() -> None:
    records = [make_record("a", mean=20.0), make_record("b", mean=30.0), make_record("c", mean=25)]
    failed = make_record("d", mean=99.0, status="failed")
    assert best_run([*records, failed]).name == "b"
    assert best_run(records, metric="whitespace.rouge1").name == "b"
    for none in ([], [make_record(mean=None)]):
        with pytest.raises(UnfitError, match=f"none of {len(none)} runs"):
            best_run(none)
    other = make_record("b")
    other.content["evaluation"]["dev"]["signature"] = "rouge|tok:char"
    with pytest.raises(DataError, match="different signatures"):
        best_run([make_record("a"), other])


def test_saved_models_are_those_that_are_still_there(tmp_path: Path) -> None:
    for name, mean in (("weak", 20.0), ("strong", 30.0), ("gone", 40.0)):
        content = make_result(name, mean=mean, artifacts={"model": "model"})
        write_result(tmp_path / name, content)
        if name != "gone":
            (tmp_path / name / "model").mkdir()
    models = find_saved_models(find_records(tmp_path)[0])
    assert [model.record.name for model in models] == ["strong", "weak"]
    assert models[0].path == tmp_path / "strong" / "model"


def fill_run(
    paths: RunPaths, content: dict[str, Any] | None, *, started: str | None = None
) -> None:
    """Leave what a run leaves."""
    paths.folder.mkdir(parents=True, exist_ok=True)
    paths.model.mkdir(parents=True, exist_ok=True)
    (paths.model / "weights").write_text("w")
    (paths.metrics).write_text("{}\n")
    if started is not None:
        model = os.path.relpath(paths.model, paths.folder)
        content_of_environment = {"schema_version": 1, "started_at": started, "model": model}
        paths.environment.write_text(json.dumps(content_of_environment))
    if content is not None:
        write_result(paths.folder, content)


@pytest.mark.parametrize("alone", [False, True])
def test_archive_moves_run_and_model_and_keeps_paths_true(tmp_path: Path, alone: bool) -> None:
    batch = BatchPaths(tmp_path / "root", tmp_path / "logs")
    paths = RunPaths.alone(tmp_path / "a") if alone else batch.run("a")
    log = tmp_path / "logs" / "a.log"
    log.parent.mkdir()
    log.write_text("x")
    up = "../logs/a.log" if alone else "../../../logs/a.log"
    model = "model" if alone else "../../models/a"
    content = make_result("a", artifacts={"model": model, "metrics": "metrics.jsonl", "log": up})
    fill_run(paths, content, started="2026-01-02T03:04:05+09:00")
    target = archive_previous(paths)
    assert target is not None
    assert target.parent == paths.previous
    moved = read_record(target / "result.json")
    assert moved.artifact("model") == target / "model"
    assert (target / "model" / "weights").is_file()
    assert moved.artifact("metrics") == target / "metrics.jsonl"
    assert moved.artifact("log") == log
    assert [path.name for path in paths.folder.iterdir()] == ["previous"]
    assert not paths.model.exists()
    assert archive_previous(paths) is None


def test_an_archived_run_is_named_by_its_start_and_every_one_is_kept(tmp_path: Path) -> None:
    paths = RunPaths.alone(tmp_path / "a")
    names = []
    for content, started in [
        (make_result("a"), "2026-05-05T00:00:00+00:00"),  # the record's own time comes first
        (make_result("a"), None),
        (None, "2026-05-05T00:00:00+00:00"),
        (None, "no time"),
        (None, "no time"),
    ]:
        fill_run(paths, content, started=started)
        target = archive_previous(paths)
        assert target is not None
        names.append(target.name)
    # Local time of the test's machine; only the day is sure.
    assert names[0].startswith("2026010") and names[1] == f"{names[0]}_2"
    assert names[2].startswith("2026050")
    assert names[3:] == ["unknown_start", "unknown_start_2"]
    assert len(find_records(tmp_path)[0]) == 2
    assert archive_previous(paths) is None  # only previous/ is left


def test_a_move_that_was_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    paths = RunPaths.alone(tmp_path / "a")
    fill_run(paths, make_result("a"))
    target = archive_previous(paths)
    assert target is not None
    # As after a kill between the files and the record, which is moved last.
    (target / "result.json").rename(paths.result)
    (target / "metrics.jsonl").rename(paths.metrics)
    assert archive_previous(paths) == target
    assert sorted(path.name for path in target.iterdir()) == [
        "metrics.jsonl",
        "model",
        "result.json",
    ]


def test_a_damaged_record_is_moved_as_it_is(tmp_path: Path) -> None:
    paths = RunPaths.alone(tmp_path / "a")
    fill_run(paths, None, started="2026-05-05T00:00:00+00:00")
    paths.result.write_text('{"schema_version": 1, "exp')
    target = archive_previous(paths)
    assert target is not None
    assert (target / "result.json").read_text() == '{"schema_version": 1, "exp'


def dead_run(**changes: Any) -> dict[str, Any]:
    """Return what is known from outside of a run that just died."""
    job = SimpleNamespace(name="a", label="L_a", kind="full", batch="b2")
    started = now() - timedelta(seconds=3)
    return describe_dead_run(job, "failed", "killed", started_at=started) | changes  # type: ignore[arg-type]


def test_failed_record_beside_what_the_dead_run_left(tmp_path: Path) -> None:
    paths = RunPaths.alone(tmp_path / "a")
    fill_run(paths, None, started=now().isoformat(timespec="seconds"))
    written = write_failed_record(paths, dead_run())
    read = read_record(paths.result)
    assert read.content == written.content
    assert (read.status, read.value("reason"), read.value("batch")) == ("failed", "killed", "b2")
    assert read.value("artifacts") == {"metrics": "metrics.jsonl"}
    assert 2.9 < (read.number("duration_seconds") or 0) < 10
    assert not paths.previous.exists()


@pytest.mark.parametrize("finished", [True, False])
def test_failed_record_never_overwrites_an_earlier_run(tmp_path: Path, finished: bool) -> None:
    paths = RunPaths.alone(tmp_path / "a")
    content = make_result("a", artifacts={"model": "model"}) if finished else None
    fill_run(paths, content, started="2026-01-02T03:04:05+09:00")
    write_failed_record(paths, dead_run())
    assert read_record(paths.result).value("batch") == "b2"
    [kept] = list(paths.previous.iterdir())
    assert (kept / "model" / "weights").is_file()
    if finished:
        assert read_record(kept / "result.json").value("batch") == "20260102_030405"


def test_best_metrics_block_is_what_people_grep_for(tmp_path: Path) -> None:
    (tmp_path / "summary.txt").write_text(best_metrics_text(make_result("a", mean=20.0)))
    found = subprocess.run(
        ["grep", "-A", "5", "Best Metrics", str(tmp_path / "summary.txt")],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    assert len(lines) == 6
    assert "a (L_a)" in lines[0] and "step 6 of 8" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "rouge1",
        "rouge2",
        "rougeL",
        "rouge mean",
        "signature",
    ]
    assert "20.00 (19.00 to 21.00)" in lines[4]


def test_summary_text_of_runs_without_scores_and_with_targets() -> None:
    failed = make_result("a", mean=None, status="failed", reason="NaN at step 3")
    assert best_metrics_text(failed) == "a (L_a): failed, no scores: NaN at step 3\n"
    text = best_metrics_text(make_result("a", mean=40.0))
    assert "expected ROUGE-1 15 to 18 on whitespace tokens: met" in text
    assert "minimum rouge1 25, rouge2 8, rougeL 22 on whitespace tokens: met" in text

"""Every run in one CSV: columns, order, what is left out; the summary of a root."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_world import REPOSITORY, make_record, make_result, write_result
from dialsum.errors import UnfitError
from dialsum.files import write_json
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import find_records
from dialsum.report.summaries import refresh_root, summarise_root, write_comparison
from dialsum.report.tables import format_overview, format_ranking

SCRIPT = REPOSITORY / "scripts" / "collect_results.py"


def collect(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of two recipes, one failed, one moved aside, one unreadable."""
    root = tmp_path / "outputs"
    low = make_result("low", mean=20.0, started_at="2026-01-02T00:00:00+00:00")
    write_result(root / "auto_experiments" / "experiments" / "low", low)
    earlier = make_result("low", mean=25.0, started_at="2026-01-01T00:00:00+00:00")
    place = root / "auto_experiments" / "experiments" / "low" / "previous" / "20260101_000000"
    write_result(place, earlier)
    write_result(root / "high", make_result("high", mean=30.0))
    failed = make_result("failed", mean=None, status="failed", reason="a, b\n줄")
    write_result(root / "quick_test" / "experiments" / "failed", failed)
    other = make_result("other", mean=90.0)
    other["evaluation"]["dev"]["signature"] = "rouge|tok:char"
    write_result(root / "other", other)
    (root / "foreign").mkdir()
    (root / "foreign" / "result.json").write_text('{"schema_version": 2}')
    return root


def test_one_row_a_run_best_first_within_a_recipe(runs: Path, tmp_path: Path) -> None:
    records, problems = find_records(runs)
    assert len(problems) == 1
    write_comparison(records, tmp_path / "all.csv")
    rows = read_rows(tmp_path / "all.csv")
    assert [row["experiment"] for row in rows] == ["high", "low", "low", "other", "failed"]
    ranks = [("1", "1"), ("1", "2"), ("1", "3"), ("2", "1"), ("", "")]
    assert [(row["ranking"], row["rank"]) for row in rows] == ranks
    assert rows[1]["record"].endswith("previous/20260101_000000/result.json")
    assert all((tmp_path / row["record"]).is_file() for row in rows)
    assert rows[4]["reason"] == "a, b\n줄"
    assert json.loads(rows[0]["evaluation.dev.confidence.rouge_mean"]) == [29.0, 31.0]
    assert rows[0]["training.stopped_early"] == "false"
    assert list(rows[0])[:5] == ["ranking", "rank", "experiment", "label", "status"]
    assert len(set(rows[0])) == len(list(rows[0]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "fname,dialogue,summary\nd_0,x,y\n"),
        ("result.json", '{"experiment": "one", "status": "success"}'),
        ("notes", "experiment, status and record"),
    ],
)
def test_a_file_of_somebody_else_is_never_replaced(
    runs: Path, tmp_path: Path, name: str, content: str
) -> None:
    records, _ = find_records(runs)
    (tmp_path / name).write_text(content)
    with pytest.raises(UnfitError, match=f"{name}: was not written by this command"):
        write_comparison(records, tmp_path / name)
    assert (tmp_path / name).read_text() == content
    (tmp_path / name).write_text("")
    for _ in range(2):
        write_comparison(records, tmp_path / name)
        assert len(read_rows(tmp_path / name)) == len(records)


def test_overview_parts_the_rankings(runs: Path) -> None:
    lines = format_overview(find_records(runs)[0])
    assert [line.strip().split("  ")[0] for line in lines] == [
        *("#", "", "ranking 1: rouge|tok:mecab-ko|tags:split|refs:1", "1", "2", "3"),
        *("", "ranking 2: rouge|tok:char", "1", "", "without a score", "-"),
        *("", "scores of two rankings say nothing about each other", "", "kind", "data"),
    ]
    assert lines[-2:] == ["kind       full", f"data       2 dev rows (sha256 {'d' * 12})"]


OTHERS: list[tuple[dict[str, Any], str]] = [
    (
        {"data": {"sha256": {"dev": "e" * 64}, "files": {"dev": "data/other.csv"}}},
        f"2 dev rows of data/other.csv (sha256 {'e' * 12})",
    ),
    ({"data": {"rows": {"dev": 2}}}, "2 dev rows (sha256 unknown)"),
    (
        {"data": {"sha256": {"dev": "e" * 64}}, "kind": "demo"},
        f"2 dev rows (sha256 {'e' * 12}); demo",
    ),
]


@pytest.mark.parametrize(("changes", "said"), OTHERS)
def test_rankings_of_one_signature_say_that_their_data_differ(
    changes: dict[str, Any], said: str
) -> None:
    records = [make_record("a"), make_record("b"), make_record("c", **changes)]
    for lines in (format_overview(records), format_ranking(records)):
        headings = [line for line in lines if line.lower().startswith("ranking 2: ")]
        assert [line.partition(": ")[2] for line in headings] == [said]
    assert any(line.startswith("signature  rouge|") for line in format_overview(records))


def test_a_lone_ranking_has_no_number() -> None:
    lines = format_overview([make_record("a")])
    assert [line.split()[0] for line in lines if line] == ["#", "1", "signature", "kind", "data"]
    failed = format_overview([make_record("a", mean=None, status="failed")])
    assert failed[1:3] == ["", "without a score"] and failed[3].startswith("-  L_a")
    assert len(failed) == 4


def test_summary_of_a_root_has_each_latest_run_once(runs: Path) -> None:
    summary = summarise_root(runs, runs / "experiment_summary.json")
    found = [
        (one["experiment"], one.get("ranking"), one.get("rank")) for one in summary["experiments"]
    ]
    assert found == [("high", 1, 1), ("low", 1, 2), ("other", 2, 1), ("failed", None, None)]
    assert summary["experiments"][1]["started_at"].startswith("2026-01-02")
    assert "foreign" in summary["unreadable"][0]
    assert summarise_root(runs / "none", runs / "x.json")["experiments"] == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_by_itself_renews_the_summary_of_its_root(tmp_path: Path, elsewhere: bool) -> None:
    root = tmp_path / "root"
    batch = BatchPaths(root, root, runs_dir=tmp_path / "runs" if elsewhere else None)
    paths = batch.run("a")
    write_result(paths.folder, make_result("a", status="interrupted"))
    refresh_root(paths)
    assert not batch.summary.exists()  # no batch, no summary
    write_json(batch.summary, summarise_root(batch.runs, batch.summary))
    write_result(paths.folder, make_result("a"))
    refresh_root(paths)
    [one] = json.loads(batch.summary.read_text())["experiments"]
    assert one["status"] == "success"
    # A run that is none of the root's, and a file of that name that is another program's.
    before = batch.summary.read_bytes()
    refresh_root(RunPaths(folder=root / "others" / "b", model=paths.model))
    assert batch.summary.read_bytes() == before
    batch.summary.write_text('{"of": "another program"}')
    refresh_root(paths)
    assert batch.summary.read_text() == '{"of": "another program"}'


def test_script_writes_prints_and_names_what_it_skipped(runs: Path, tmp_path: Path) -> None:
    done = collect("--output", str(tmp_path / "sub" / "all.csv"), "--root", str(runs))
    assert done.returncode == 1
    assert "skipped: " in done.stderr and "foreign/result.json" in done.stderr
    assert "5 runs -> " in done.stdout
    assert len(read_rows(tmp_path / "sub" / "all.csv")) == 5
    (runs / "foreign" / "result.json").unlink()
    (runs / "cut_off").mkdir()
    (runs / "cut_off" / "environment.json").write_text("{}", encoding="utf-8")
    again = collect("--output", str(tmp_path / "b.csv"), "--root", str(runs))
    assert f"not finished: {runs / 'cut_off'} has no result.json" in again.stdout
    assert collect("--output", str(tmp_path / "b.csv"), "--root", str(runs)).returncode == 0


def test_script_without_runs_or_folder_or_arguments(tmp_path: Path) -> None:
    out = str(tmp_path / "all.csv")
    done = collect("--output", out, "--root", str(tmp_path))
    assert (done.returncode, "no result.json of any run" in done.stderr) == (2, True)
    done = collect("--output", out, "--root", str(tmp_path / "none"))
    assert (done.returncode, "no such folder" in done.stderr) == (2, True)
    assert collect().returncode == 2
    done = collect("--output", out, "--root", str(tmp_path), "--root", str(tmp_path))
    assert done.returncode == 2
    assert "--root is given twice" in done.stderr
    assert not (tmp_path / "all.csv").exists()

"""Where a run may write: new and empty folders, and those of its own kind; never among others'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_world import leave, make_options, make_result, write_configs, write_result
from dialsum.batch.alone import choose_place
from dialsum.batch.check import find_place_problems
from dialsum.errors import EXIT_UNFIT, DiskFullError, RunError, UnfitError
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import (
    archive_previous,
    find_foreign,
    find_records,
    read_record,
    write_failed_record,
)
from test_batch import plan_batch, run_stand_ins
from test_batch_faults import files
from test_record import dead_run, fill_run
from trainer_runs import REPOSITORY

STARTED = "2026-01-02T03:04:05+09:00"
OURS = [
    {"result.json": make_result()},
    {"result.json": make_result(schema_version=99)},
    {"environment.json": {"schema_version": 1, "started_at": STARTED}},
    {"environment.json": {"schema_version": 1, "started_at": STARTED}, "result.json": "{"},
    {},
    {"previous/thesis.txt": "x"},
]
FOREIGN = [
    {"thesis.txt": "x"},
    {".git/HEAD": "ref"},
    {"train.csv": "fname"},
    {"result.json": {"score": 1}},
    {"result.json": [1]},
    {"result.json": "{", "environment.json": "no json"},
    {"environment.json": {"started_at": STARTED}},
    {"metrics.jsonl": "{}", "checkpoints/checkpoint-1/model.safetensors": "w"},
    {"auto_experiments/experiments/a/result.json": make_result()},
]


def stand(folder: Path, content: dict[str, Any]) -> dict[str, bytes]:
    """Put files into a folder; return what it holds."""
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    return files(folder)


@pytest.mark.parametrize("content", OURS)
def test_a_new_an_empty_and_a_runs_own_folder_are_free(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    stand(tmp_path / "r", content)
    assert find_foreign(RunPaths.alone(tmp_path / "r")) is None


@pytest.mark.parametrize("content", FOREIGN)
def test_a_folder_without_a_record_of_ours_is_refused_and_left_alone(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    before = stand(tmp_path / "r", content)
    paths = RunPaths.alone(tmp_path / "r")
    for act in (
        lambda: archive_previous(paths, first={paths.environment: "new"}),
        lambda: write_failed_record(paths, dead_run()),
    ):
        with pytest.raises(UnfitError, match=r"no result\.json or environment\.json"):
            act()
    assert files(tmp_path / "r") == before


@pytest.mark.parametrize(
    ("content", "claims", "refused"),
    [
        ({"a": "w"}, False, True),
        ({"a": "w"}, True, False),
        ({}, False, False),
        ({"model_info.json": {"experiment": "one"}}, False, True),
    ],
)
def test_a_models_folder_is_free_where_the_run_beside_it_wrote_it(
    tmp_path: Path, content: dict[str, Any], claims: bool, refused: bool
) -> None:
    paths = RunPaths(folder=tmp_path / "r", model=tmp_path / "m")
    stand(paths.model, content)
    if claims:
        fill_run(paths, None, started=STARTED)
    said = find_foreign(paths)
    assert (said is not None) == refused
    assert not refused or "no model that the run in the run's folder wrote" in str(said)


def test_a_dead_runs_unfinished_model_goes_with_it_and_another_runs_model_never(
    tmp_path: Path,
) -> None:
    paths = BatchPaths(tmp_path / "root", tmp_path / "logs").run("a")
    fill_run(paths, None, started=STARTED)
    kept = archive_previous(paths)
    assert kept is not None and (kept / "model" / "weights").is_file()
    assert not paths.model.exists()
    elsewhere = RunPaths(folder=paths.folder, model=tmp_path / "other")
    fill_run(elsewhere, None, started=STARTED)
    moved = archive_previous(paths)
    assert moved is not None and not (moved / "model").exists()
    assert (elsewhere.model / "weights").is_file()


def test_files_of_others_beside_a_run_stay_where_they_are(tmp_path: Path) -> None:
    paths = RunPaths.alone(tmp_path / "r")
    fill_run(paths, make_result(), started=STARTED)
    notes = {"notes.txt": "mine", ".git/HEAD": "ref", "data/train.csv": "fname"}
    stand(paths.folder, notes)
    kept = archive_previous(paths)
    assert kept is not None
    assert sorted(files(paths.folder)) == sorted(
        [
            *notes,
            *(
                f"previous/{kept.name}/{name}"
                for name in ("environment.json", "metrics.jsonl", "model/weights", "result.json")
            ),
        ]
    )


LINKS = ["results", "checkpoints", "model", "previous", "metrics.jsonl", "result.json"]


@pytest.mark.parametrize("name", LINKS)
def test_a_run_goes_through_no_link(tmp_path: Path, name: str) -> None:
    paths = RunPaths.alone(tmp_path / "r")
    fill_run(paths, None, started=STARTED)
    far = tmp_path / "far"
    before = stand(far, {"checkpoint-1/model.safetensors": "w"})
    place = paths.folder / name
    if place.is_dir():
        place.rename(tmp_path / "aside")
    place.unlink(missing_ok=True)
    place.symlink_to(far)
    with pytest.raises(UnfitError, match=f"r/{name}: is a link to {far}"):
        archive_previous(paths)
    assert files(far) == before


NESTED = [
    ("run/results", None),
    ("run/deep/er", None),
    ("run", "run/results"),
    ("run", "run"),
    ("new", "run/checkpoints/x"),
    ("m/run2", "m"),
]


@pytest.mark.parametrize(("folder", "model"), NESTED)
def test_no_run_inside_another_and_no_model_among_its_files(
    tmp_path: Path, folder: str, model: str | None
) -> None:
    write_result(tmp_path / "run", make_result())
    paths = choose_place(
        "a",
        output_dir=None,
        run_dir=tmp_path / folder,
        model_dir=None if model is None else tmp_path / model,
    )
    assert find_foreign(paths) is not None


def test_output_dir_is_the_root_and_run_dir_the_runs_own_folder(tmp_path: Path) -> None:
    def place(**given: Path) -> RunPaths:
        options = {"output_dir": None, "run_dir": None, "model_dir": None}
        return choose_place("a", **{**options, **given})  # type: ignore[arg-type]

    assert place().folder == REPOSITORY / "outputs" / "a"
    assert place(output_dir=tmp_path).folder == tmp_path / "a"
    assert place(run_dir=tmp_path).folder == tmp_path
    assert place(run_dir=tmp_path).model == tmp_path / "model"
    assert place(run_dir=tmp_path, model_dir=tmp_path / "m").model == tmp_path / "m"
    with pytest.raises(UnfitError, match="give one of them"):
        place(output_dir=tmp_path, run_dir=tmp_path)
    # A run of a batch keeps its model where the batch has it.
    own = BatchPaths(tmp_path / "root", tmp_path / "logs").run("a")
    fill_run(own, None, started=STARTED)
    assert place(run_dir=own.folder) == own


@pytest.mark.parametrize("option", ["--run-dir", "--model-dir"])
def test_trainer_refuses_a_folder_of_others_before_it_reads_anything(
    tmp_path: Path, option: str
) -> None:
    [config] = write_configs(tmp_path / "configs", "a")
    before = stand(tmp_path / "thesis", {"draft.txt": "years", ".git/HEAD": "ref"})
    line = [sys.executable, str(REPOSITORY / "code" / "trainer.py"), "--config", str(config)]
    line += [option, str(tmp_path / "thesis"), "--data-dir", str(tmp_path / "none")]
    line += ["--run-dir", str(tmp_path / "new")] if option == "--model-dir" else []
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_UNFIT
    assert f"{tmp_path}/thesis: holds .git, draft.txt, and no" in done.stderr
    # All that is wrong is said at once.
    assert f"{tmp_path}/none" in done.stderr
    assert files(tmp_path / "thesis") == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("where", ["runs", "models", "summary"])
def test_a_batch_refuses_what_others_put_into_its_places(tmp_path: Path, where: str) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    run = plan.jobs[0].paths
    place = {"runs": run.folder, "models": run.model, "summary": plan.paths.root}[where]
    before = stand(place, {"experiment_summary.json": {"of": "another program"}})
    [problem] = find_place_problems(plan)
    assert str(place) in problem
    assert files(place) == before


def test_a_linked_root_is_followed_and_its_records_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "auto_experiments").symlink_to(tmp_path / "big")
    for _ in range(2):
        assert run_stand_ins(make_options(tmp_path, "ok"))[0].exit_status == 0
    records, _ = find_records(tmp_path / "big")
    assert len(records) == 2
    for record in records:
        model = record.artifact("model")
        assert model is not None and model.is_dir()


def fill_batch_run(root: Path, runs: Path | None = None) -> RunPaths:
    """Leave a finished run with a model of two megabytes."""
    paths = BatchPaths(root, root / "logs", runs_dir=runs).run("a")
    model = Path(os.path.relpath(paths.model, paths.folder)).as_posix()
    fill_run(paths, make_result("a", artifacts={"model": model}), started=STARTED)
    (paths.model / "weights").write_bytes(bytes(2 * 2**20))
    return paths


@pytest.mark.parametrize("disk", [6], indirect=True)
def test_on_a_full_disk_a_finished_run_stays_whole(disk: Path) -> None:
    paths = fill_batch_run(disk / "root")
    before = files(disk / "root")
    leave(0, disk)
    for act in (
        lambda: archive_previous(paths, first={paths.environment: "x" * 9000}),
        lambda: archive_previous(paths),
        lambda: write_failed_record(paths, dead_run()),
    ):
        with pytest.raises(DiskFullError, match="no space left"):
            act()
        assert files(disk / "root") == before
        assert not paths.previous.exists()


@pytest.mark.parametrize("disk", [1], indirect=True)
def test_a_model_on_another_disk_moves_whole_or_not_at_all(tmp_path: Path, disk: Path) -> None:
    paths = fill_batch_run(tmp_path / "root", runs=disk / "runs")
    before = files(tmp_path / "root"), files(disk)
    with pytest.raises(DiskFullError):
        archive_previous(paths, first={paths.environment: "new"})
    assert (files(tmp_path / "root"), files(disk)) == before
    (paths.model / "weights").write_bytes(bytes(1000))
    kept = archive_previous(paths, first={paths.environment: "new"})
    assert kept is not None
    assert not paths.model.exists()
    assert (kept / "model" / "weights").read_bytes() == bytes(1000)
    assert read_record(kept / "result.json").artifact("model") == kept / "model"
    assert paths.environment.read_text() == "new"


def test_a_move_that_fails_in_the_middle_is_taken_back(tmp_path: Path) -> None:
    paths = fill_batch_run(tmp_path / "root")
    # Part of an older move that nobody finished: the folder in the way is not empty.
    first = archive_previous(paths)
    assert first is not None
    paths = fill_batch_run(tmp_path / "root")
    (first / "result.json").unlink()
    (first / "environment.json").unlink()
    (first / "metrics.jsonl").unlink()
    (first / "metrics.jsonl").mkdir()
    (first / "model" / "weights").unlink()
    (first / "model").rmdir()  # so that the model, which goes first, is moved
    before = files(tmp_path / "root")
    with pytest.raises(RunError, match="it stands where it stood"):
        archive_previous(paths, first={paths.environment: "new"})
    assert files(tmp_path / "root") == before

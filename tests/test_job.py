"""Jobs: what was checked is what runs, whatever becomes of the files meanwhile."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batch_world import make_options, make_screen, now, start, write_configs, write_data
from dialsum.batch.check import check_plan
from dialsum.batch.plan import load_selected, make_plan
from dialsum.batch.queue import run_queue
from dialsum.batch.result import BatchResult
from dialsum.config.load import load_config
from dialsum.errors import ConfigError, UnfitError
from dialsum.experiment.attempt import Attempt, list_changes, state_changes
from dialsum.experiment.job import Job, read_job
from dialsum.paths import PROJECT_ROOT, RunPaths
from dialsum.record import archive_previous
from dialsum.report.summaries import write_batch_files
from test_batch import plan_batch
from trainer_runs import STEPS, command, read_result, run

SEVEN = sorted((PROJECT_ROOT / "config" / "experiments").glob("*.yaml"))
EDITED = "training:\n  learning_rate: 0.9\n"
TURNED = "tracking.wandb=false"


@pytest.mark.parametrize("path", SEVEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("overrides", [(), ("data.test_file=null", "training.max_steps=7")])
def test_a_job_reads_back_as_it_was(tmp_path: Path, path: Path, overrides: tuple[str, ...]) -> None:
    loaded = load_config(path, overrides=overrides)
    changes = tuple(list_changes("lr_half", loaded.config))
    entry = {"number": 1, "changes": [], "status": "failed", "failure": {"cause": "non_finite"}}
    paths = RunPaths(folder=tmp_path / "실험 1", model=tmp_path / "모델")
    attempt = Attempt(2, changes, (entry,))
    job = Job(
        loaded,
        paths,
        "full",
        "20260102_030405",
        number=3,
        attempt=attempt,
        data_sha256={"train": "0" * 64},
    )
    file = tmp_path / "job.json"
    file.write_text(job.to_json(), encoding="utf-8")
    # What the plan alone needs stays with the plan.
    assert read_job(file) == replace(job, loaded=replace(loaded, replaced=[], own_epochs=None))
    assert read_job(file).loaded.sha256 == loaded.sha256
    assert read_job(file).loaded.config.data.test_file == loaded.config.data.test_file


BROKEN = ["", "{}", "[]", "null", '{"kind": "full"}', "\0", "[" * 100_000]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text[:20]))
def test_what_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UnfitError, match="no job of this program"):
        read_job(file)


def test_a_job_with_values_that_no_config_can_have_is_refused(tmp_path: Path) -> None:
    [path] = write_configs(tmp_path, "a")
    file = tmp_path / "job.json"
    job = Job(load_config(path), RunPaths.alone(tmp_path / "a"), "full")
    file.write_text(job.to_json().replace('"learning_rate": 0.001', '"learning_rate": -1'))
    with pytest.raises(UnfitError, match="no job of this program"):
        read_job(file)


@pytest.mark.parametrize("act", ["edit", "delete"])
def test_files_that_change_while_the_queue_runs_change_nothing(
    tmp_path: Path, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(
        tmp_path, "ok", "nan_1", "ok_9", one_epoch=True, overrides=("batch.retry=[lr_half]", TURNED)
    )
    plan = plan_batch(options)

    def write_and_change(outcome: BatchResult) -> dict[Path, str]:
        unwritten = write_batch_files(outcome)
        for path in options.configs:
            path.write_text(EDITED) if act == "edit" else path.unlink(missing_ok=True)
        return unwritten

    screen, shown = make_screen()
    monkeypatch.setattr("dialsum.batch.queue.write_batch_files", write_and_change)
    outcome = run_queue(plan, screen=screen)
    assert outcome.exit_status == 0, shown.getvalue()
    jobs = [read_job(job.paths.job) for job in plan.jobs]
    assert [job.config.training.learning_rate for job in jobs] == [1e-3, 5e-4, 1e-3]
    assert all(job.config.tracking.wandb is False for job in jobs)
    origins = jobs[1].loaded.origins
    assert origins["training.learning_rate"].text == "batch.retry lr_half"
    assert origins["model.architecture"].line == 7
    assert origins["tracking.wandb"].text == "--set"
    # The attempt before keeps its own, and it names the same place.
    [kept] = jobs[1].paths.previous.glob("*/job.json")
    first = read_job(kept)
    assert (first.config.training.learning_rate, first.paths) == (1e-3, jobs[1].paths)


def test_a_job_goes_with_its_run_and_is_ours(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok")
    for _ in range(2):
        assert start(options, screen=make_screen()[0]) == 0
    [folder] = (tmp_path / "out").rglob("experiments/ok")
    [old] = folder.glob("previous/*/job.json")
    assert read_job(old).batch != read_job(folder / "job.json").batch
    # One that nobody began is replaced; a file of that name that is somebody's is refused.
    waiting = RunPaths.alone(tmp_path / "waiting")
    waiting.folder.mkdir()
    waiting.job.write_text(read_job(old).to_json(), encoding="utf-8")
    assert archive_previous(waiting, first={waiting.environment: "{}"}) is None
    theirs = RunPaths.alone(tmp_path / "theirs")
    theirs.folder.mkdir()
    theirs.job.write_text('{"job": "cook"}', encoding="utf-8")
    with pytest.raises(UnfitError, match=r"holds job\.json"):
        archive_previous(theirs)


def test_changed_values_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    [path] = write_configs(tmp_path, "a")
    kwargs = "training.lr_scheduler_kwargs={lr_end: 8e-4}"
    shape = "training.lr_scheduler_type=polynomial"
    loaded = load_config(path, overrides=[shape, kwargs])
    source = state_changes(list_changes("lr_half", loaded.config), left=[])
    with pytest.raises(ConfigError, match=r"lr_end: 0\.0008"):
        loaded.changed(source)


@pytest.mark.training
def test_rows_that_change_while_the_queue_runs_are_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "mine")
    options = make_options(tmp_path, "a", demo=True, data_dir=data)
    plan = check_plan(make_plan(options, load_selected(options)[0], started_at=now())).plan
    train = data / "train.csv"
    train.write_text(train.read_text(encoding="utf-8").replace("물건을", "선물을"), "utf-8")
    screen, shown = make_screen()
    result = run_queue(plan, screen=screen)
    assert result.exit_status == 1
    assert "train.csv: changed since the batch was started" in shown.getvalue()


@pytest.mark.training
def test_a_job_repeats_its_run_in_its_place_and_goes_on_with_one_that_was_cut_off(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    first = run(command("03_high_learning_rate_rtx3090", folder))
    assert first.returncode == 0, first.stderr
    trainer = [sys.executable, str(PROJECT_ROOT / "code" / "trainer.py")]
    again = run([*trainer, "--job", str(folder / "job.json")])
    assert again.returncode == 0, again.stderr
    scores = [
        read_result(place)["evaluation"]["dev"]["rouge_mean"]
        for place in (folder, next(folder.glob("previous/*")))
    ]
    assert scores[0] == scores[1]
    # As after a kill: no record, and a checkpoint before the last step.
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / f"checkpoint-{STEPS}", ignore_errors=True)
    resumed = run([*trainer, "--job", str(folder / "job.json"), "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after step 3" in resumed.stdout
    assert read_result(folder)["evaluation"]["dev"]["rouge_mean"] == scores[0]
    changed = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    changed["data_sha256"] = {"train": "0" * 64}
    (folder / "other.json").write_text(json.dumps(changed), encoding="utf-8")
    refused = run([*trainer, "--job", str(folder / "other.json")])
    assert refused.returncode == 2
    assert "changed since" in refused.stderr

"""Experiments from Python: jobs, the batch that runs them, and the records that they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batch_world import TRAINER, make_screen, write_configs, write_data
from dialsum.batch.queue import run_queue
from dialsum.batch.start import prepare_batch
from dialsum.errors import ProblemsError
from dialsum.experiment.attempt import list_changes, state_changes
from dialsum.experiment.job import read_job
from dialsum.record import best_run, find_records


def test_a_batch_is_prepared_changed_run_and_read_from_python(tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", "ok_30", "ok_40", "fail")
    places = {"data_dir": write_data(tmp_path / "data"), "output_dir": tmp_path / "out"}
    plan = prepare_batch(configs, trainer=TRAINER, overrides=("training.seed=5",), **places)
    first, second, third = plan.jobs
    assert [(job.number, job.name) for job in plan.jobs] == [
        (1, "ok_30"),
        (2, "ok_40"),
        (3, "fail"),
    ]
    assert {job.config.training.seed for job in plan.jobs} == {5}
    assert set(first.data_sha256) == {"train", "dev", "test"}
    changes = list_changes("lr_half", second.config)
    second = replace(second, loaded=second.loaded.changed(state_changes(changes, left=[])))
    assert run_queue(replace(plan, jobs=(first, second)), screen=make_screen()[0]).exit_status == 0
    records, problems = find_records(tmp_path / "out")
    assert problems == []
    assert best_run(records).name == "ok_40"
    assert read_job(second.paths.job).config.training.learning_rate == 5e-4
    assert not third.paths.folder.exists()


def test_what_is_unfit_is_said_before_a_batch_is_prepared(tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", "ok")
    wrong = ("training.lr=1", "general.device=cpu")
    with pytest.raises(ProblemsError) as caught:
        prepare_batch(configs, data_dir=tmp_path / "none", output_dir=tmp_path, overrides=wrong)
    assert len(caught.value.problems) == 2

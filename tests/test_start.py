"""Experiments from Python: jobs, the batch that runs them, and the records that they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batch_world import TRAINER, make_screen, write_configs, write_data
from dialsum.batch.start import make_jobs, start_batch
from dialsum.config.rules import list_changes, state_changes
from dialsum.errors import ProblemsError
from dialsum.experiment.job import read_job
from dialsum.record import best_run, find_records


def test_jobs_are_made_changed_run_and_read_from_python(tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", "ok_30", "ok_40", "fail")
    places = {"data_dir": write_data(tmp_path / "data"), "output_dir": tmp_path / "out"}
    jobs = make_jobs(configs, overrides=("training.seed=5",), **places)
    assert [(job.number, job.name, job.config.training.seed) for job in jobs] == [
        (1, "ok_30", 5),
        (2, "ok_40", 5),
        (3, "fail", 5),
    ]
    assert set(jobs[0].data_sha256) == {"train", "dev", "test"}
    changes = list_changes("lr_half", jobs[1].config)
    jobs[1] = replace(jobs[1], loaded=jobs[1].loaded.changed(state_changes(changes, left=[])))
    result = start_batch(jobs[:2], trainer=TRAINER, screen=make_screen()[0])
    assert result.exit_status == 0
    records, problems = find_records(tmp_path / "out")
    assert problems == []
    assert best_run(records).name == "ok_40"
    assert read_job(jobs[1].paths.job).config.training.learning_rate == 5e-4
    assert not jobs[2].paths.folder.exists()


def test_what_is_unfit_is_said_before_a_job_is_made(tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", "ok")
    with pytest.raises(ProblemsError) as caught:
        make_jobs(
            configs,
            data_dir=tmp_path / "none",
            output_dir=tmp_path,
            overrides=("training.lr=1", "general.device=cpu"),
        )
    assert len(caught.value.problems) == 2

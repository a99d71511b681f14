"""One at a time in a folder: a run by itself and a batch keep each other out, both ways."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch_world import make_options, make_screen, write_configs, write_data
from dialsum.batch.lock import find_holder, find_runs_at_work, hold_batch, hold_run
from dialsum.batch.queue import run_queue
from dialsum.errors import EXIT_UNFIT, UnfitError
from dialsum.paths import LOCK, RunPaths
from test_batch import plan_batch
from test_batch_faults import files, start_runner, wait_for_pids
from test_child import wait_for
from trainer_runs import REPOSITORY

HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {code!r})
from dialsum.paths import RunPaths
from dialsum.batch.lock import hold_run
folder, model = map(Path, sys.argv[1:3])
with hold_run(RunPaths(folder=folder, model=model)):
    print("held", flush=True)
    time.sleep(600)
"""


def start_holder(paths: RunPaths) -> subprocess.Popen[str]:
    """Hold a run's folder in a process of its own."""
    program = HOLDER.format(code=str(REPOSITORY / "code"))
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(paths.folder), str(paths.model)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path, number: int) -> None:
    paths = RunPaths(folder=tmp_path / "r", model=tmp_path / "m")
    holder = start_holder(paths)
    for other in (paths, RunPaths.alone(paths.folder), RunPaths(tmp_path / "r2", paths.model)):
        with (
            pytest.raises(UnfitError, match=f"process {holder.pid}, since 20") as said,
            hold_run(other),
        ):
            raise AssertionError("held twice")
        assert f"kill {holder.pid}" in str(said.value)
        assert "another run is at work" in str(said.value)
    holder.send_signal(number)
    holder.wait()
    with hold_run(paths):
        assert find_holder(paths.folder / LOCK) is not None
    # Nothing was started, so nothing is left: but for what a kill leaves, which holds nobody up.
    assert not (tmp_path / "r2").exists()
    assert number == signal.SIGKILL or not paths.folder.exists()


def test_a_run_by_itself_keeps_a_batch_out_of_its_folder_alone(tmp_path: Path) -> None:
    plan = plan_batch(make_options(tmp_path, "ok"))
    own, other = plan.jobs[0].paths, plan.paths.run("another")
    beside = start_holder(other)
    with hold_batch(plan.paths, [own]):
        pass
    for paths in (own, RunPaths(folder=tmp_path / "elsewhere", model=own.model)):
        holder = start_holder(paths)
        [problem] = find_runs_at_work([own])
        assert f"process {holder.pid}" in problem
        with pytest.raises(UnfitError, match=f"another run is at work .*process {holder.pid}"):
            run_queue(plan, screen=make_screen()[0])
        holder.kill()
        holder.wait()
        assert find_runs_at_work([own]) == []
    beside.kill()
    beside.wait()


@pytest.mark.parametrize("options", [[], ["--resume"]])
@pytest.mark.parametrize("name", ["hang", "ok", "new"])
def test_trainer_stays_out_of_a_running_batch(
    tmp_path: Path, options: list[str], name: str
) -> None:
    """Whether its experiment runs, ran before, or was never part of it."""
    runner = start_runner(tmp_path, "ok", "hang")
    wait_for_pids(tmp_path, "hang")
    root = tmp_path / "out" / "auto_experiments"
    before = files(root)
    [config] = write_configs(tmp_path / "alone", name)
    line = [sys.executable, str(REPOSITORY / "code" / "trainer.py"), "--config", str(config)]
    line += ["--run-dir", str(root / "experiments" / name), *options]
    line += ["--data-dir", str(write_data(tmp_path / "alone" / "data"))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_UNFIT, done.stdout + done.stderr
    assert f"another batch is at work in this folder (process {runner.pid}, " in done.stderr
    assert files(root) == before
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate()
    paths = RunPaths(root / "experiments" / name, root / "models" / name)
    wait_for(lambda: find_holder(paths.folder / LOCK) is None)
    with hold_run(paths):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UnfitError, match="cannot be made"),
        hold_run(RunPaths.alone(tmp_path / "file" / "r")),
    ):
        raise AssertionError

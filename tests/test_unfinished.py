"""Batches that were cut off: what the ledger knows, and how --resume goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_world import REPOSITORY, make_options, make_screen, start, write_data
from dialsum.batch.ledger import read_batches, read_events
from dialsum.batch.watch import describe_batch, find_batches, follow_batch, list_batches
from dialsum.cli import BatchOptions
from dialsum.errors import UnfitError
from dialsum.experiment.job import read_job
from dialsum.paths import BatchPaths
from dialsum.record import Record, find_records, read_record
from dialsum.train.checkpoints import MANIFEST, step_of

RUNNER = """
import sys
sys.path[:0] = {paths!r}
from batch_world import start
from dialsum.batch.ledger import OPTIONS
sys.exit(start(OPTIONS.validate_json(sys.argv[1])))
"""


def paths_of(options: BatchOptions) -> BatchPaths:
    """Return the places of a batch's root."""
    assert options.output_dir is not None
    return BatchPaths(options.output_dir / "auto_experiments", options.output_dir / "logs")


def start_runner(options: BatchOptions) -> subprocess.Popen[str]:
    """Start the batch of stand-ins in a process of its own."""
    from dialsum.batch.ledger import OPTIONS

    program = RUNNER.format(paths=[str(REPOSITORY / "tests"), str(REPOSITORY / "code")])
    return subprocess.Popen(
        [sys.executable, "-c", program, OPTIONS.dump_json(options).decode()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(found: Any, *, seconds: float = 60.0) -> None:
    """Wait until found() is true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def kill_in(options: BatchOptions, name: str, *, step: int) -> None:
    """Start a batch, and kill its runner once an experiment has come to a step."""
    metrics = paths_of(options).run(name).metrics
    process = start_runner(options)
    wait_for(lambda: metrics.exists() and f'"step": {step},' in metrics.read_text("utf-8"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    lock = paths_of(options).run(name).folder / ".dialsum-lock"
    wait_for(lambda: not lock.exists() or not is_held(lock))


def is_held(lock: Path) -> bool:
    """Say whether somebody holds a lock."""
    from dialsum.batch.lock import find_holder

    return find_holder(lock) is not None


def table(options: BatchOptions) -> dict[str, float | None]:
    """Return each experiment's score."""
    records = find_records(paths_of(options).runs)[0]
    return {one.name: one.number("evaluation.dev.rouge_mean") for one in records}


def resume(options: BatchOptions, **changes: Any) -> str:
    """Go on with a batch to a good end; return what was on the screen."""
    screen, shown = make_screen()
    asked = replace(options, **{"resume": True, **changes})
    assert start(asked, screen=screen) == 0, shown.getvalue()
    return shown.getvalue()


NAMES = ("count_10", "count_40", "count_12")


def test_a_batch_whose_runner_was_killed_goes_on_to_the_same_table(tmp_path: Path) -> None:
    undisturbed = make_options(tmp_path / "whole", *NAMES)
    assert start(undisturbed, screen=make_screen()[0]) == 0
    options = make_options(tmp_path / "cut", *NAMES)
    kill_in(options, "count_40", step=15)
    paths = paths_of(options)
    [kept] = read_batches(paths.ledger)
    assert [one.status for one in kept.experiments] == ["success", "running", "planned"]
    [dead] = find_batches(tmp_path / "cut" / "out")
    assert "cut off" in "\n".join(list_batches([dead]))
    text = "\n".join(describe_batch(dead))
    assert "cut off; the same command with --resume goes on" in text and "running" not in text
    first = read_record(paths.run("count_10").result)
    shown = resume(options)
    assert "finished before: 1 L_count_10" in shown
    assert "2 L_count_40: goes on after step 14" in shown or "after step 16" in shown
    assert "[2/3] 2 L_count_40" in shown and "[1/3]" not in shown
    assert table(options) == table(undisturbed)
    assert read_record(paths.run("count_10").result).content == first.content
    [kept] = read_batches(paths.ledger)
    assert kept.status == "success"
    results = json.loads(paths.results(kept.plan.started_at).read_text(encoding="utf-8"))
    assert results["status"] == "success" and results["not_started"] == []
    assert [one["number"] for one in results["experiments"]] == [1, 2, 3]
    steps = paths.run("count_40").metrics.read_text(encoding="utf-8")
    counted = [json.loads(line)["step"] for line in steps.splitlines() if '"loss": 1.0' in line]
    assert counted == list(range(1, 41)), "each step once"
    with pytest.raises(UnfitError, match="has come to its end, so there is nothing to go on with"):
        start(replace(options, resume=True), screen=make_screen()[0])


def test_what_no_score_depends_on_may_change_when_a_batch_goes_on(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok_20", "count_30", overrides=("training.seed=7",))
    kill_in(options, "count_30", step=5)
    other = ("batch.disk_budget_gb=9", "training.seed=8")
    with pytest.raises(UnfitError, match="--set may change tracking"):
        resume(options, overrides=other)
    shown = resume(options, overrides=("tracking.wandb=false", "batch.disk_budget_gb=9"))
    assert "finished before: 1 L_ok" in shown and "2 L_count_30: goes on after step" in shown
    job = read_job(paths_of(options).run("count_30").job)
    assert job.config.batch.disk_budget_gb == 9 and job.config.tracking.wandb is False
    assert job.config.training.seed == 7


def test_a_run_whose_record_found_no_room_on_the_disk_is_one_that_was_cut_off(
    tmp_path: Path,
) -> None:
    options = make_options(tmp_path, "ok", "unrecorded")
    assert start(options, screen=make_screen()[0]) == 1
    paths = paths_of(options)
    record = read_record(paths.run("unrecorded").result)
    assert record.value("failure.cause") == "disk_full"
    screen, shown = make_screen()
    assert start(replace(options, resume=True), screen=screen) == 1
    assert "finished before: 1 L_ok" in shown.getvalue()
    assert "[2/2] 2 L_unrecorded" in shown.getvalue()


def test_a_new_batch_records_what_died_and_says_how_it_would_have_gone_on(tmp_path: Path) -> None:
    options = make_options(tmp_path, "count_30", "ok")
    kill_in(options, "count_30", step=5)
    screen, shown = make_screen()
    assert start(options, screen=screen) == 0
    assert "was not finished: --resume would go on with it" in shown.getvalue()
    paths = paths_of(options)
    new, old = read_batches(paths.ledger)
    assert (new.status, old.status) == ("success", "interrupted")
    assert [one.status for one in old.experiments] == ["interrupted", "planned"]
    [died] = [one for one in find_records(paths.runs)[0] if one.value("failure.cause") == "died"]
    assert died.status == "interrupted" and "died with its runner" in str(died.value("reason"))
    results = json.loads(paths.results(old.plan.started_at).read_text(encoding="utf-8"))
    assert results["status"] == "interrupted"
    assert [one["status"] for one in results["experiments"]] == ["interrupted"]


def test_failed_experiments_run_again_when_asked(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok", "memory_1")
    assert start(options, screen=make_screen()[0]) == 1
    with pytest.raises(UnfitError, match="L_memory_1 failed: --retry-failed runs what failed"):
        start(replace(options, resume=True), screen=make_screen()[0])
    shown = resume(options, resume=False, retry_failed=True)
    assert "2 L_memory_1: failed, and runs again" in shown
    assert "[2/2] 2 L_memory_1, attempt 2" in shown
    record = read_record(paths_of(options).run("memory_1").result)
    assert [one["status"] for one in record.content["attempts"]] == ["failed", "success"]
    assert "2nd attempt: the same after full memory at step 7" in shown


def test_other_options_are_refused_and_edited_files_named(tmp_path: Path) -> None:
    options = make_options(tmp_path, "count_30", "ok")
    kill_in(options, "count_30", step=5)
    with pytest.raises(UnfitError, match=r"--set: the last batch .* was not started so"):
        resume(options, overrides=("training.learning_rate=2e-3",))
    file = options.configs[0]
    file.write_text(file.read_text("utf-8").replace("1e-3", "3e-3"), encoding="utf-8")
    options.configs[1].write_text("training: [", encoding="utf-8")
    shown = resume(options)
    assert "its configuration was changed since (training.learning_rate 0.001 -> 0.003)" in shown
    assert "not used, since the batch goes on with what it began with" in shown
    record = read_record(paths_of(options).run("count_30").result)
    [kept] = read_batches(paths_of(options).ledger)
    assert record.value("config_sha256") == kept.experiments[0].first.loaded.sha256


def test_the_batch_is_found_without_its_files_and_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(tmp_path, "count_30")
    kill_in(options, "count_30", step=5)
    options.configs[0].unlink()
    monkeypatch.chdir(tmp_path)
    shown = resume(BatchOptions((), output_dir=Path("out")))
    assert "goes on after step" in shown


def test_after_a_change_of_data_all_starts_from_the_beginning(tmp_path: Path) -> None:
    options = make_options(tmp_path, "count_8", "count_30")
    kill_in(options, "count_30", step=5)
    write_data(tmp_path / "data", train_rows=6)
    shown = resume(options)
    assert "data changed since the batch began: 1 L_count_8, 2 L_count_30 start from" in shown
    records = find_records(paths_of(options).runs)[0]
    assert sorted(one.name for one in records if one.succeeded) == [
        "count_30",
        "count_8",
        "count_8",
    ]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    options = make_options(tmp_path, "count_30")
    kill_in(options, "count_30", step=9)
    checkpoints = paths_of(options).run("count_30").checkpoints
    sealed = [path for path in checkpoints.iterdir() if (path / MANIFEST).exists()]
    last = max(sealed, key=step_of)
    (last / "training_state.pt").write_text("8", encoding="utf-8")
    shown = resume(options)
    assert f"{last.name} is left out: training_state.pt is not what was written" in shown
    undisturbed = make_options(tmp_path / "whole", "count_30")
    assert start(undisturbed, screen=make_screen()[0]) == 0
    assert table(options) == table(undisturbed)


def test_without_a_batch_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok")
    with pytest.raises(UnfitError, match="no batch was started in this folder"):
        start(replace(options, resume=True), screen=make_screen()[0])
    assert not (tmp_path / "out").exists()


def foreign_text(path: Path) -> None:
    """Write no database."""
    path.write_text("a file of somebody else's" * 100, encoding="utf-8")


def foreign_database(path: Path) -> None:
    """Write another program's database."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (one)")


def later_version(path: Path) -> None:
    """Write a ledger of a later version."""
    with sqlite3.connect(path) as connection:
        connection.executescript("PRAGMA application_id = 1684627820; PRAGMA user_version = 9;")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (foreign_text, "cannot be used: file is not a database"),
        (foreign_database, "is a database of another program; move it away"),
        (later_version, "is a ledger of version 9, and this program writes 1"),
    ],
)
@pytest.mark.parametrize("resumes", [False, True])
def test_what_is_no_ledger_is_refused_before_anything_starts(
    write: Any, said: str, resumes: bool, tmp_path: Path
) -> None:
    options = replace(make_options(tmp_path, "ok"), resume=resumes)
    ledger = paths_of(options).ledger
    ledger.parent.mkdir(parents=True)
    write(ledger)
    before = ledger.read_bytes()
    with pytest.raises(UnfitError, match=said):
        start(options, screen=make_screen()[0])
    assert ledger.read_bytes() == before
    assert not paths_of(options).run("ok").folder.exists()


def test_a_batch_can_be_looked_at_while_it_runs_and_afterwards(tmp_path: Path) -> None:
    options = make_options(tmp_path, "ok_30", "fail", "count_60")
    process = start_runner(options)
    paths = paths_of(options)
    wait_for(lambda: paths.run("count_60").metrics.exists())
    said: list[str] = []
    follow_batch(read_batches(paths.ledger)[0], say=said.append, sleep=lambda _: time.sleep(0.1))
    assert process.wait() == 1
    text = "\n".join(said)
    for expected in ("3 L_count_60", "ends  success", "batch", "ended  failed"):
        assert expected in text
    [kept] = read_batches(paths.ledger)
    text = "\n".join(describe_batch(kept))
    assert "the loss became NaN at step 2" in text and "30.00" in text
    kinds = [
        one["kind"]
        for one in read_events(paths.ledger, read_batches(paths.ledger)[0].plan.batch_id)
    ]
    assert kinds == ["began", *["starts", "ends"] * 3, "ended"]


def test_results_of_one_run_that_was_resumed_alone_reach_the_batch(tmp_path: Path) -> None:
    options = make_options(tmp_path, "count_30", "ok")
    kill_in(options, "count_30", step=5)
    paths = paths_of(options)
    trainer = [sys.executable, str(REPOSITORY / "tests" / "stand_in_trainer.py")]
    alone = [*trainer, "--job", str(paths.run("count_30").job), "--resume"]
    assert subprocess.run(alone, check=False, capture_output=True).returncode == 0
    done: Record = read_record(paths.run("count_30").result)
    shown = resume(options)
    assert "finished before: 1 L_count_30" in shown
    assert read_record(paths.run("count_30").result).content == done.content


@pytest.mark.training
def test_kills_at_random_moments_cost_nothing() -> None:
    """The short form of tests/faults.py."""
    import faults

    assert faults.main(["--rounds", "4", "--pretend", "--seed", "7"]) == 0


def test_what_the_same_took_before_tells_when_a_batch_will_end(tmp_path: Path) -> None:
    options = make_options(tmp_path, "slow", "ok")
    first, second = make_screen(), make_screen()
    assert start(options, screen=first[0]) == 0
    assert "by the plan, not measured: " in first[1].getvalue()
    assert start(options, screen=second[0]) == 0
    said = second[1].getvalue()
    assert re.search(
        r"as the same took here before: [\d .hms]+ in all; started now it would end", said
    )
    other = replace(options, overrides=("training.learning_rate=2e-3",))
    third, shown = make_screen()
    assert start(other, screen=third) == 0
    assert "by the plan, not measured" in shown.getvalue(), "another experiment"


def test_the_script_lists_shows_and_refuses(tmp_path: Path) -> None:
    def ask(*words: str) -> tuple[int, str]:
        script = REPOSITORY / "scripts" / "batches.py"
        done = subprocess.run(
            [sys.executable, str(script), *words], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    out = ("--output-dir", str(tmp_path / "out"))
    assert ask(*out)[0] == 2 and "no batch was started here" in ask(*out)[1]
    assert start(make_options(tmp_path, "ok_30", "fail"), screen=make_screen()[0]) == 1
    status, listed = ask(*out)
    assert status == 0 and " failed " in listed and "auto_experiments" in listed
    status, shown = ask(*out, "--batch", "last")
    assert status == 0 and re.search(r"2 +L_fail +failed", shown) and "30.00" in shown
    assert ask(*out, "--follow")[0] == 0, "a batch that has ended is shown, and that is all"
    status, said = ask(*out, "--batch", "2020")
    assert status == 2 and "there is no such batch in" in said


def test_a_ledger_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    """Its disk is full, or somebody holds it: what it lacks is written as soon as it can be."""
    options = make_options(tmp_path, "slow", "ok")
    ledger, held = paths_of(options).ledger, list[sqlite3.Connection]()
    screen, shown = make_screen()
    show = screen.show_progress

    def hold(make_line: Any) -> None:
        if ledger.exists() and not held:
            held.append(sqlite3.connect(ledger, isolation_level=None))
            held[0].execute("BEGIN IMMEDIATE")
        show(make_line)

    screen.show_progress = hold  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dialsum.batch.ledger.BUSY_SECONDS", 0.1)
        assert start(options, screen=screen) == 1, "what could not be recorded is no success"
    assert "database is locked" in shown.getvalue()
    assert shown.getvalue().count("done in") == 2
    held[0].close()
    [kept] = read_batches(ledger)
    assert [one.status for one in kept.experiments] == ["running", "planned"]
    said = resume(options)
    assert "finished before: 1 L_slow, 2 L_ok" in said
    assert [one.status for one in read_batches(ledger)[0].experiments] == ["success", "success"]

"""Several experiments at a time (batch.slots): what is shared, said, stopped and recorded."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from batch_world import make_options, make_screen
from dialsum.batch.check import check_plan
from dialsum.batch.plan import describe_plan, load_selected
from dialsum.batch.queue import run_queue
from dialsum.batch.result import BatchResult
from dialsum.cli import BatchOptions
from dialsum.machine.devices import HostMemory
from dialsum.record import find_records
from dialsum.report.closing import format_closing
from gpu_states import make_gpu
from test_batch import read_json
from test_batch_faults import start_runner, wait_for_pids
from test_child import is_gone, wait_for
from test_plan import plan_of

TWO = ("batch.slots=2",)


def run_two(options: BatchOptions) -> tuple[BatchResult, str]:
    """Run a checked batch, two at a time; return what came of it and what was on the screen."""
    plan = check_plan(plan_of(options)).plan
    assert plan.slots == 2
    screen, shown = make_screen()
    result = run_queue(plan, screen=screen)
    return result, shown.getvalue()


def test_two_run_at_the_same_time_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("dialsum.batch.queue.usable_cores", lambda: 5)
    outcome, shown = run_two(make_options(tmp_path, "meet_30", "meet_40", "ok_20", overrides=TWO))
    assert outcome.exit_status == 0, shown
    for one in outcome.experiments[:2]:
        assert "threads 2\n" in one.log.read_text(encoding="utf-8")
    # Each line says whose it is; records and table are in the order of the batch.
    for number, name in ((1, "meet_30"), (2, "meet_40")):
        assert f"  {number} L_{name}: step 2/2  loss 3.500  dev (2 rows, greedy)" in shown
        assert f"[{number}/3] {number} L_{name}  done in" in shown
    batch = read_json(outcome.plan.paths.results(outcome.plan.started_at))
    assert [one["number"] for one in batch["experiments"]] == [1, 2, 3]
    assert [one["rank"] for one in batch["experiments"]] == [2, 1, 3]


def test_what_the_user_says_of_threads_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    outcome, _ = run_two(make_options(tmp_path, "meet_30", "meet_40", overrides=TWO))
    assert "threads 7\n" in outcome.experiments[0].log.read_text(encoding="utf-8")


def test_stop_on_error_lets_those_end_that_run(tmp_path: Path) -> None:
    options = make_options(tmp_path, "slow", "fail", "ok", overrides=TWO, stop_on_error=True)
    outcome, _ = run_two(options)
    assert [record.status for record in outcome.records] == ["success", "failed"]
    assert "Not started\n  3 L_ok" in "\n".join(format_closing(outcome))


def test_a_retry_takes_the_slot_of_what_failed(tmp_path: Path) -> None:
    asked = (*TWO, "batch.retry=[lr_half]")
    outcome, shown = run_two(
        make_options(tmp_path, "slow", "nan_1", "crash", "ok_9", overrides=asked)
    )
    assert [one.status for one in outcome.records] == ["success", "success", "failed", "success"]
    assert outcome.records[1].value("attempt") == 2
    assert shown.index("L_nan_1, attempt 2  done") < shown.index("[4/4] 4 L_ok_9")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_of_the_runner_is_the_end_of_all(tmp_path: Path, number: int) -> None:
    runner = start_runner(tmp_path, "hang", "hang_2", "ok", overrides=TWO)
    pids = [wait_for_pids(tmp_path, name) for name in ("hang", "hang_2")]
    runner.send_signal(number)
    shown, _ = runner.communicate(timeout=60)
    wait_for(lambda: all(is_gone(pid) for pair in pids for pid in pair.values()))
    records, _ = find_records(tmp_path / "out" / "auto_experiments")
    if number == signal.SIGINT:
        assert runner.returncode == 130, shown
        assert {one.name: one.status for one in records} == {
            "hang": "interrupted",
            "hang_2": "interrupted",
        }
        assert "Not started\n  3 L_ok" in shown
    else:
        assert records == []


def test_a_batch_goes_on_after_it_was_killed_with_two_at_work(tmp_path: Path) -> None:
    runner = start_runner(tmp_path, "hang", "hang_2", overrides=TWO)
    pids = [wait_for_pids(tmp_path, name) for name in ("hang", "hang_2")]
    runner.kill()
    runner.communicate()
    wait_for(lambda: all(is_gone(pid) for pair in pids for pid in pair.values()))
    for folder in (tmp_path / "out").rglob("hang*"):
        if folder.parent.name == "experiments":
            (folder / "pids.json").unlink()
    again = start_runner(tmp_path, "hang", "hang_2", overrides=TWO)
    for name in ("hang", "hang_2"):
        wait_for_pids(tmp_path, name)
    again.send_signal(signal.SIGTERM)
    shown, _ = again.communicate(timeout=60)
    assert again.returncode == 130, shown
    kept = list((tmp_path / "out").rglob("previous/*/job.json"))
    assert len(kept) == 2


def cards(number: int) -> object:
    """Return what stands in for the driver's answer of so many cards."""
    return lambda: [make_gpu(n, uuid=f"GPU-{n}") for n in range(number)]


SLOTS = [
    (("1",), 0, None, 1, False),
    (("2",), 0, 0, 2, False),
    (("9",), 0, None, 3, False),
    (("auto",), 0, None, 3, False),
    (("auto",), 0, 2**32, 2, False),
    (("auto",), 0, 2**20, 1, False),
    (("2",), 1, None, 1, True),
    (("auto",), 1, None, 1, False),
    (("2",), 2, None, 2, False),
    (("auto",), 2, 0, 2, False),
    (("auto",), 8, None, 3, False),
    (("2",), 8, None, 2, False),
    (("3",), 2, None, 1, True),
    (("2", "general.device=cpu"), 1, None, 2, False),
]
"""What is asked, cards, free memory in bytes; how many run, and whether that is refused."""


@pytest.mark.parametrize(("asked", "number", "memory", "slots", "refused"), SLOTS)
def test_slots_are_cores_on_a_cpu_and_one_for_each_card(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
    number: int,
    memory: int | None,
    slots: int,
    refused: bool,
) -> None:
    monkeypatch.setattr("dialsum.batch.check.nvidia_gpus", cards(number))
    monkeypatch.setattr("dialsum.batch.check.usable_cores", lambda: 8)
    room = HostMemory(None, 2**34 if memory is None else memory)
    monkeypatch.setattr("dialsum.batch.check.host_memory", lambda: room)
    overrides = (f"batch.slots={asked[0]}", *asked[1:])
    plan = plan_of(make_options(tmp_path, "a", "b", "c", overrides=overrides))
    found = check_plan(plan)
    assert found.plan.slots == slots
    assert any("each experiment has a card of its own" in one for one in found.problems) == refused
    on_cards = number > 1 and slots > 1
    assert found.plan.cards == (tuple(f"GPU-{n}" for n in range(slots)) if on_cards else ())
    said = f"{slots} at the same time" in "\n".join(describe_plan(found.plan))
    assert said == (slots > 1)


def test_each_of_several_cards_has_an_experiment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = [make_gpu(0), make_gpu(1), make_gpu(2)]
    for place in ("check", "cards", "queue"):
        monkeypatch.setattr(f"dialsum.batch.{place}.nvidia_gpus", lambda: gpus)
    options = make_options(tmp_path, "meet_30", "meet_40", "meet_50", overrides=TWO)
    outcome, shown = run_two(options)
    assert outcome.exit_status == 0, shown
    logs = [one.log.read_text(encoding="utf-8") for one in outcome.experiments]
    used = [log.partition("card ")[2].split("\n")[0] for log in logs]
    assert used[:2] == ["GPU-0aaa", "GPU-1aaa"]
    # The third takes the card that came free.
    assert used[2] in used[:2]
    assert "GPU memory is free again" in shown


def test_hidden_and_partial_cards_are_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialsum.batch.check.nvidia_gpus", cards(4))
    plan = plan_of(make_options(tmp_path, "a", "b", "c", overrides=("batch.slots=auto",)))
    for visible, slots in (("3,1", ("GPU-3", "GPU-1")), ("2", ()), ("MIG-1,MIG-2", ())):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert check_plan(plan).plan.cards == slots


def test_experiments_that_differ_in_what_holds_for_the_batch_are_refused(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b")
    first = options.configs[0]
    first.write_text(f"{first.read_text(encoding='utf-8')}batch:\n  slots: 2\n", encoding="utf-8")
    [problem] = load_selected(options)[1]
    assert problem.startswith(
        "batch.slots: holds for the whole batch, and its experiments differ in it: 2 in "
    )
    assert f"{first.name}:" in problem and "1 in" in problem and "b.yaml (default)" in problem
    assert load_selected(replace(options, overrides=TWO))[1] == []

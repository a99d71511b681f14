"""One experiment in several processes (batch.gpus_per_experiment): the same training as in one, and
nothing is left behind when a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from batch_world import make_options, make_screen
from dialsum.batch.check import check_plan
from dialsum.batch.plan import describe_plan
from dialsum.batch.queue import run_queue
from dialsum.batch.ray_executor import Cluster, Needs
from dialsum.errors import EXIT_FAILED, UnfitError
from dialsum.generate import generate
from dialsum.machine.devices import HostMemory, nvidia_gpus, use_own_gpu, visible_gpus
from dialsum.train.checkpoints import find_damage, list_checkpoints
from gpu_states import make_gpu
from small_fit import ADAPTERS, FULL, SmallTraining, read_events, relative_difference, weights_of
from small_models import make_config
from test_child import is_gone, wait_for
from test_plan import plan_of
from trainer_runs import command, environment, read_result

HELPER = str(Path(__file__).resolve().with_name("crew_helper.py"))
MT5 = "01_mt5_xlsum_optimized_v2"
TWO = ("--set", "batch.gpus_per_experiment=2")


def train_with_helper(
    folder: Path, asked: dict[str, Any], *, most: int = 0, cards: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Train in two processes, the helper short of memory if asked; return the loop, and what both
    write of the train rows then."""
    from dialsum.train.parallel import Crew

    loop = SmallTraining(**asked).loop(folder)
    with Crew(2, cards=cards, entry=(sys.executable, HELPER, str(most))) as crew:
        crew.start((folder / "helper", asked))
        crew.meet(loop.model, loop.machine)
        loop.crew = crew
        loop.dev = replace(loop.dev, write=crew.write)
        loop.run()
        return loop, write_rows(loop, crew.write)


def write_rows(loop: Any, write: Callable[..., list[str]]) -> list[str]:
    """Return what a trained model writes of its train rows, a few tokens each."""
    settings = replace(loop.dev.settings, num_beams=2, max_new_tokens=6)
    inputs = loop.task.encoded.inputs
    return write(loop.model, loop.tokenizer, inputs, settings=settings, batch_size=3)


@pytest.mark.training
@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"sort": "bart", "qlora": ADAPTERS, "batch": 4, "accumulation": 1}, 0),
        ({"sort": "mt5", "qlora": FULL, "batch": 2, "accumulation": 3}, 100),
        ({"sort": "llama", "qlora": ADAPTERS, "batch": 4, "training": {"packing": True}}, 0),
    ],
    ids=[
        "a pass that is halved for the second",
        "three passes, memory for less than one",
        "packed rows",
    ],
)
def test_two_processes_train_as_one_does(tmp_path: Path, asked: dict[str, Any], most: int) -> None:
    one = SmallTraining(**asked).loop(tmp_path / "one")
    one.run()
    two, written = train_with_helper(tmp_path / "two", asked, most=most)
    said = [read_events(tmp_path / name, "train") for name in ("one", "two")]
    assert [event["step"] for event in said[0]] == [1, 2, 3, 4]
    for alone, shared in zip(*said, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert shared["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)
    assert relative_difference(weights_of(one.model), weights_of(two.model)) < 1e-4
    assert written == write_rows(one, generate)
    assert len(set(written)) > 1
    # What the helper alone found too large, the first process halves for both.
    retries = [event["message"] for event in read_events(tmp_path / "two", "memory_retry")]
    assert bool(retries) == bool(most)
    assert all("CUDA out of memory" in text for text in retries)


@pytest.mark.training
@pytest.mark.gpu
def test_two_cards_train_as_one_does(tmp_path: Path) -> None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = [gpu.uuid for gpu in visible_gpus(nvidia_gpus(), visible)]
    if len(cards) < 2:
        pytest.skip("needs two NVIDIA GPUs")
    asked = {"sort": "mt5", "qlora": ADAPTERS, "batch": 4, "gpu": True, "width": 64}
    SmallTraining(**asked).loop(tmp_path / "one").run()
    train_with_helper(tmp_path / "two", asked, cards=cards[:2])
    one, two = (read_events(tmp_path / name, "train") for name in ("one", "two"))
    losses = [event["loss"] for event in one]
    assert [event["loss"] for event in two] == pytest.approx(losses, rel=1e-2)


@pytest.mark.training
def test_a_process_that_dies_ends_the_run_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ("training.max_steps=100000", "training.eval_steps=10", "training.save_steps=10")
    line = command(MT5, folder, *TWO, *(word for one in long for word in ("--set", one)))
    with start(line, tmp_path / "log") as first:
        wait_in_run(first, lambda: is_saved(folder))
        [helper] = find_helpers(first)
        assert os.getpgid(helper.pid) == os.getpgid(first.pid)
        helper.kill()
        first.wait(timeout=120)
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert first.returncode == EXIT_FAILED, said
    assert "Traceback" not in said
    record = read_result(folder)
    assert record["status"] == "failed"
    name = f"process 2 of 2 (pid {helper.pid}) of this experiment was ended by SIGKILL"
    assert record["reason"].startswith(name) and "--resume" in record["reason"]
    assert record["training"]["device"]["processes"] == 2
    assert is_gone(helper.pid)

    again = [line[0], line[1], "--job", str(folder / "job.json"), "--resume"]
    with start(again, tmp_path / "log") as first:
        wait_in_run(first, lambda: "going on after step" in (tmp_path / "log").read_text())
        wait_in_run(first, lambda: bool(find_helpers(first)))
        [helper] = find_helpers(first)
        first.kill()
        wait_for(lambda: is_gone(helper.pid))


def find_helpers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that help a run to train."""
    children = psutil.Process(process.pid).children()
    return [one for one in children if "experiment.helper" in " ".join(one.cmdline())]


@contextmanager
def start(line: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run that prints into a file; it ends with the block."""
    with (
        log.open("ab") as output,
        subprocess.Popen(line, env=environment(), stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_in_run(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until something is true of a run, which must not end before."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


def is_saved(folder: Path) -> bool:
    """Say whether a run has a whole checkpoint."""
    return any(not find_damage(one) for one in list_checkpoints(folder / "checkpoints"))


def test_shares_are_even_and_every_process_has_work() -> None:
    import torch

    from dialsum.train.parallel import share_out

    def make(rows: int, width: int, first: int) -> dict[str, Any]:
        return {
            "input_ids": torch.ones(rows, width),
            "attention_mask": torch.ones(rows, width),
            "labels": torch.ones(rows, 1, dtype=torch.long),
            "rows": torch.arange(first, first + rows),
        }

    cases: list[tuple[list[tuple[int, int]], int, list[int]]] = [
        ([(1, 9)], 2, [10, 0]),
        ([(4, 9)], 2, [20, 20]),
        ([(1, 90), (2, 9)], 3, [91, 10, 10]),
        ([(4, 9), (2, 9), (2, 9)], 2, [40, 40]),
        ([(5, 9)], 4, [20, 10, 10, 10]),
    ]
    for passes, processes, positions in cases:
        given = [make(rows, width, 10 * at) for at, (rows, width) in enumerate(passes)]
        shares = share_out(given, processes)
        held = [sum(b["input_ids"].numel() + b["labels"].numel() for b in s) for s in shares]
        assert sorted(held, reverse=True) == positions
        rows = sorted(row for share in shares for one in share for row in one["rows"].tolist())
        assert rows == sorted(row for one in given for row in one["rows"].tolist())


def test_gradients_travel_in_few_pieces_and_back() -> None:
    import torch

    from dialsum.train.parallel import _take_gradients, _travel

    weights = [torch.nn.Parameter(torch.full((2, 3), float(at))) for at in range(3)]
    weights.append(torch.nn.Parameter(torch.ones(4, dtype=torch.float16)))
    weights[0].grad = torch.ones(3, 2).t()  # not contiguous
    weights[3].grad = torch.ones(4, dtype=torch.float16)
    gradients = _take_gradients(weights, frozenset({0, 2, 3}))
    pieces = list(map(len, (flat.add_(1) for flat in _travel(gradients))))
    assert pieces == [12, 4]
    assert weights[1].grad is None
    assert [one.grad.unique().tolist() for one in weights if one.grad is not None] == [
        [2],
        [1],
        [2],
    ]


def show_cards(monkeypatch: pytest.MonkeyPatch, number: int, visible: str | None = None) -> None:
    """Let the driver show so many cards."""
    for place in ("batch.check", "machine.devices"):
        monkeypatch.setattr(
            f"dialsum.{place}.nvidia_gpus", lambda: [make_gpu(at) for at in range(number)]
        )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


SLOTS = [
    ("1", 2, 0, None, 1, ""),
    ("auto", 2, 0, None, 2, ""),
    ("auto", 3, 0, None, 1, ""),
    ("1", 2, 1, None, 1, "batch.gpus_per_experiment 2: one whole card is visible here; say 1"),
    ("1", 2, 4, "1", 1, "say 1, or show more of them in CUDA_VISIBLE_DEVICES=1"),
    ("1", 2, 4, "MIG-a,MIG-b", 1, "2: 0 whole cards are visible here"),
    ("1", 2, 2, None, 1, ""),
    ("auto", 2, 5, None, 2, ""),
    ("auto", 2, 8, None, 3, ""),
    ("2", 2, 4, "3,1,0,2", 2, ""),
    ("3", 2, 5, None, 1, "batch.slots 3: each experiment has 2 cards of its own"),
]
"""Slots asked, cards for each, cards and which are visible; how many run, and what is refused."""


@pytest.mark.parametrize(("asked", "each", "number", "visible", "slots", "problem"), SLOTS)
def test_slots_are_as_many_as_have_all_their_cards(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    each: int,
    number: int,
    visible: str | None,
    slots: int,
    problem: str,
) -> None:
    show_cards(monkeypatch, number, visible)
    monkeypatch.setattr("dialsum.batch.check.usable_cores", lambda: 5)
    monkeypatch.setattr("dialsum.batch.check.host_memory", lambda: HostMemory(None, 2**34))
    values = (f"batch.slots={asked}", f"batch.gpus_per_experiment={each}")
    found = check_plan(plan_of(make_options(tmp_path, "a", "b", "c", overrides=values)))
    assert found.plan.slots == slots
    assert [problem] == [problem for one in found.problems if problem in one] or not problem
    assert any(one.startswith("batch.") for one in found.problems) == bool(problem)
    if number and slots > 1:
        order = visible.split(",") if visible else map(str, range(number))
        uuids = [f"GPU-{at}aaa" for at in order]
        assert found.plan.cards == tuple(uuids[: slots * each])
    text = "\n".join(describe_plan(found.plan))
    assert f"each trains in {each} processes" in text
    assert (f"each with {each} GPUs of its own" in text) == (number > 0 and slots > 1)


def test_each_experiment_of_a_batch_has_all_its_cards_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_cards(monkeypatch, 5)
    for place in ("cards", "queue"):
        monkeypatch.setattr(
            f"dialsum.batch.{place}.nvidia_gpus", lambda: [make_gpu(at) for at in range(5)]
        )
    values = ("batch.slots=auto", "batch.gpus_per_experiment=2")
    names = ("meet_30", "meet_40", "meet_50")
    plan = check_plan(plan_of(make_options(tmp_path, *names, overrides=values))).plan
    screen, shown = make_screen()
    outcome = run_queue(plan, screen=screen)
    assert outcome.exit_status == 0, shown.getvalue()
    logs = [one.log.read_text(encoding="utf-8") for one in outcome.experiments]
    used = [log.partition("card ")[2].split("\n")[0] for log in logs]
    assert used[:2] == ["GPU-0aaa,GPU-1aaa", "GPU-2aaa,GPU-3aaa"]
    assert used[2] in used[:2]


def test_an_experiment_sees_its_own_card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    show_cards(monkeypatch, 3)
    monkeypatch.setattr("os.environ", dict(os.environ))
    free = [replace(make_gpu(at), memory_free_bytes=at) for at in range(3)]
    monkeypatch.setattr("dialsum.machine.devices.nvidia_gpus", lambda: free)
    assert use_own_gpu(2, requested="cpu") == ((), "")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    said = "CUDA_VISIBLE_DEVICES=GPU-2aaa, and for its helpers GPU-1aaa"
    assert use_own_gpu(2, requested="auto") == (("GPU-2aaa", "GPU-1aaa"), said)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2aaa"
    # As the queue sets it for each of several experiments.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0aaa,GPU-1aaa")
    assert use_own_gpu(2, requested="cuda")[0] == ("GPU-0aaa", "GPU-1aaa")
    with pytest.raises(UnfitError, match="gpus_per_experiment 2: one whole card is visible"):
        use_own_gpu(2, requested="cuda")


def test_a_node_has_room_for_all_cards_of_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"big": {"CPU": 8.0, "GPU": 4.0}, "small": {"CPU": 8.0, "GPU": 1.0}}
    monkeypatch.setattr(Cluster, "_nodes", lambda _: nodes)
    cluster = Cluster("local")
    needs = cluster.needs_of(make_config("bart", "none", batch={"gpus_per_experiment": 2}))
    assert needs == Needs(1, 2) and str(needs) == "1 CPU and 2 GPUs"
    assert cluster.count_places(needs) == 2
    cpu = make_config("bart", "none", batch={"gpus_per_experiment": 2}, general={"device": "cpu"})
    assert cluster.needs_of(cpu) == Needs(1, 0)


def test_the_number_of_cards_is_no_part_of_what_a_run_comes_to(tmp_path: Path) -> None:
    plans = [
        plan_of(make_options(tmp_path, "a", overrides=(f"batch.gpus_per_experiment={each}",)))
        for each in (1, 2)
    ]
    one, two = (plan.jobs[0].loaded for plan in plans)
    assert one.outcome_sha256 == two.outcome_sha256
    assert one.work_sha256 != two.work_sha256

"""Experiments on a real Ray cluster of two nodes; one node dies, one shares no storage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from batch_world import make_options, make_screen, start
from dialsum.batch.check import check_plan
from dialsum.batch.ledger import read_batches, read_events
from dialsum.batch.plan import describe_plan
from dialsum.batch.ray_executor import explain_loss
from dialsum.cli import BatchOptions, read_batch_options
from dialsum.errors import UnfitError
from dialsum.paths import SHARED_TOKEN
from dialsum.record import find_records
from faults import Batch
from ray_world import kill_node, two_nodes
from test_child import wait_for
from test_plan import plan_of

ALL = ("batch.slots=auto",)
START_SECONDS = 90.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each; a test that kills the second one adds another."""
    with two_nodes() as nodes:
        yield nodes
    assert not find_processes("raylet"), "a part of Ray is left"


def find_processes(*words: str) -> list[int]:
    """Return the processes below this one whose command has all of these words."""
    return [
        one.pid
        for one in psutil.Process().children(recursive=True)
        if one.status() != psutil.STATUS_ZOMBIE
        and all(any(word in part for part in one.cmdline()) for word in words)
    ]


def find_trainers(folder: Path) -> list[psutil.Process]:
    """Return the processes of a folder's experiments, whoever started them."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        command = one.info["cmdline"] or []
        if "--job" in command and any(str(folder) in word for word in command):
            found.append(one)
    return found


def play(options: BatchOptions) -> tuple[int, str]:
    """Run a batch of stand-ins; return its exit status and what was on the screen."""
    screen, shown = make_screen()
    return start(options, screen=screen), shown.getvalue()


def scores_of(root: Path) -> dict[str, float | None]:
    """Return the mean of each run that succeeded."""
    return {one.name: one.number("evaluation.dev.rouge_mean") for one in find_records(root)[0]}


def test_two_nodes_run_a_batch_to_its_table(cluster: Any, tmp_path: Path) -> None:
    names = ("meet_30", "meet_40", "fail")
    status, shown = play(make_options(tmp_path, *names, ray_address=cluster.address, overrides=ALL))
    assert status == 1, shown
    # They wait for each other, so both nodes were at work at the same time, a thread each.
    assert scores_of(tmp_path / "out") == {"meet_30": 30.0, "meet_40": 40.0, "fail": None}
    logs = [path.read_text(encoding="utf-8") for path in sorted((tmp_path).rglob("*_L_*.log"))]
    assert [log.startswith("stand-in for") for log in logs] == [True] * 3
    assert "threads 1\n" in logs[0]
    assert shown.count("in place") == 3
    assert "[3/3] 3 L_fail  FAILED after" in shown
    assert "1 L_meet_30: step 2/2  loss 3.500  dev (2 rows, greedy)" in shown
    assert not list(tmp_path.rglob(SHARED_TOKEN))
    [kept] = read_batches(tmp_path / "out" / "auto_experiments" / "batches.sqlite3")
    assert kept.plan.options.ray_address == cluster.address
    events = read_events(
        tmp_path / "out" / "auto_experiments" / "batches.sqlite3", kept.plan.batch_id
    )
    assert len([one for one in events if one["kind"] == "node"]) >= 3


def test_what_ran_on_a_node_that_dies_goes_on_from_its_checkpoint(
    cluster: Any, tmp_path: Path
) -> None:
    names = ("count_700", "count_701", "ok_20")
    options = make_options(tmp_path, *names, ray_address=cluster.address, overrides=ALL)
    runs = tmp_path / "out" / "auto_experiments" / "experiments"
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    victims: list[psutil.Process] = []

    def kill_in_mid_run() -> None:
        wait_for(lambda: len(list(runs.glob("count_*/checkpoints/checkpoint-*"))) >= 4)
        below = psutil.Process(raylet).children(recursive=True)
        victims.extend(one for one in find_trainers(tmp_path) if one in below)
        kill_node(cluster.second)

    killer = threading.Thread(target=kill_in_mid_run)
    killer.start()
    status, shown = play(options)
    killer.join()
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    assert status == 0, shown
    assert len(victims) == 1 and not victims[0].is_running()
    assert "was lost (it died): it goes on after step" in shown
    # The same as without a fault: every step counts once.
    assert scores_of(tmp_path / "out") == {
        "count_700": score_after(700),
        "count_701": score_after(701),
        "ok_20": 20.0,
    }
    root = tmp_path / "out" / "auto_experiments"
    [kept] = read_batches(root / "batches.sqlite3")
    events = read_events(root / "batches.sqlite3", kept.plan.batch_id)
    assert [one["kind"] for one in events].count("node lost") == 1
    assert not find_trainers(tmp_path)


def score_after(steps: int) -> float:
    """Return what a stand-in's steps add up to."""
    points = 0
    for step in range(1, steps + 1):
        points = (points * 31 + step) % 97
    return float(points)


@pytest.mark.slow
def test_a_node_without_the_folder_sends_its_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cluster that takes only who has its token.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex + uuid4().hex)
    (tmp_path / "out").mkdir()
    hide = f"mount -t tmpfs tmpfs {tmp_path / 'out'}"
    if subprocess.run(["unshare", "-m", "sh", "-c", hide], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system in a name space of its own")
    port = free_port()
    ray = f"{sys.executable} -m ray.scripts.scripts start --block --object-store-memory 100000000"
    head = start_ray(
        f"{ray} --head --port {port} --num-cpus 0 --include-dashboard false", tmp_path / "a"
    )
    node = None
    try:
        node = start_ray(
            f"unshare -m sh -c '{hide} && exec {ray} --address 127.0.0.1:{port} --num-cpus 1'",
            tmp_path / "b",
        )
        names = ("ok_30", "crash", "count_20")
        options = make_options(tmp_path, *names, ray_address=f"127.0.0.1:{port}", overrides=ALL)
        batch = Batch(tmp_path, options, pretend=True)
        status = batch.run()
    finally:
        for one in (node, head):
            if one is not None:
                stop(one)
    shown = batch.screen
    assert status == 1, shown
    assert shown.count("in a folder of its own, to be brought back") == 3
    root = tmp_path / "out" / "auto_experiments"
    own = root / "experiments" / "ok_30"
    assert scores_of(root) == {"ok_30": 30.0, "crash": None, "count_20": score_after(20)}
    assert (own / "results" / "submission.csv").is_file()
    assert (root / "models" / "ok_30" / "model_info.json").is_file()
    assert "L_ok_30: step 2/2  loss 3.500" in shown
    assert '"event"' in (own / "metrics.jsonl").read_text(encoding="utf-8")
    assert str(own) in (own / "job.json").read_text(encoding="utf-8")
    # Checkpoints stay behind, and no record names them.
    assert not (root / "experiments" / "count_20" / "checkpoints").exists()
    assert not list(root.rglob(".incoming*")) and not list(root.rglob("*.incoming"))
    assert "was killed (SIGKILL)" in shown


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ray(command: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a node that ends with its process, and wait until it is there."""
    own = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with log.open("wb") as file:
        node = subprocess.Popen(["sh", "-c", f"exec {command}"], env=own, stdout=file, stderr=file)
    end = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text(encoding="utf-8"):
        if node.poll() is not None or time.monotonic() > end:
            node.kill()
            pytest.fail(f"no node of Ray: {log.read_text(encoding='utf-8')}")
        time.sleep(0.2)
    return node


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a node and all that it started."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(timeout=30)
    _, left = psutil.wait_procs(below, timeout=10)
    for one in left:
        one.kill()


MUTE = [(False, "nothing answers there"), (True, "does not answer as Ray does in 4 s")]


@pytest.mark.parametrize(("listens", "said"), MUTE)
def test_an_address_where_no_ray_answers_is_refused_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listens: bool, said: str
) -> None:
    monkeypatch.setattr("dialsum.batch.ray_executor.JOIN_SECONDS", 4.0)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if listens:
            mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(UnfitError, match=said) as error:
            start(make_options(tmp_path, "ok", ray_address=address))
    assert address in str(error.value) and "ray start --head" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialsum.batch.check.find_spec", lambda _: None)
    plan = plan_of(make_options(tmp_path, "ok", ray_address="auto"))
    [problem] = check_plan(plan).problems
    assert "Ray is not installed" in problem and "requirements-ray.txt" in problem


@pytest.mark.slow
def test_what_no_node_has_is_refused_before_anything_starts(cluster: Any, tmp_path: Path) -> None:
    asked = (*ALL, "general.device=cuda")
    options = make_options(tmp_path, "ok", ray_address=cluster.address, overrides=asked)
    with pytest.raises(UnfitError, match=r"1 L_ok: needs a node with 1 CPU and 1 GPU, and there"):
        start(options)
    assert not (tmp_path / "out").exists()


def test_the_plan_says_where_and_how_many(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b", ray_address="10.0.0.1:6379", overrides=ALL)
    found = check_plan(plan_of(options), dry_run=True)
    assert found.problems == []
    text = "\n".join(describe_plan(found.plan))
    assert "on Ray (10.0.0.1:6379), at most 2 at the same time" in text
    one = make_options(tmp_path, "a", "b", ray_address="10.0.0.1:6379")
    assert any("one experiment at a time" in note for note in check_plan(plan_of(one)).notes)


def test_a_dry_run_starts_no_ray(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", ray_address="10.0.0.1:6379", dry_run=True)
    before = "ray" in sys.modules
    assert play(options)[0] == 0
    assert ("ray" in sys.modules) == before


ADDRESSES = [
    ("10.0.0.1:6379", True),
    ("head.local:6379", True),
    ("[::1]:6379", True),
    ("auto", True),
    ("local", True),
    ("10.0.0.1", False),
    ("ray://10.0.0.1:10001", False),
    ("", False),
]


@pytest.mark.parametrize(("address", "taken"), ADDRESSES)
def test_addresses(address: str, taken: bool) -> None:
    words = ["--config", "a.yaml", f"--ray-address={address}"]
    if not taken:
        with pytest.raises(UnfitError, match="HOST:PORT of the cluster's head"):
            read_batch_options(words)
        return
    options = read_batch_options(words)
    assert options.ray_address == address
    assert "batch.executor=ray" in options.all_overrides
    assert f"--ray-address {address}" in options.command_line.replace("'", "")


def test_an_address_beside_the_local_executor_is_a_contradiction(tmp_path: Path) -> None:
    asked = ("batch.executor=local",)
    plan = plan_of(make_options(tmp_path, "ok", ray_address="auto", overrides=asked))
    [problem] = check_plan(plan).problems
    assert "batch.executor is local" in problem


def test_a_loss_is_told_in_short() -> None:
    assert explain_loss("The actor died because its node has died. Node Id: 3f") == "it died"
    assert explain_loss("x " * 400).startswith("Ray: x x") and len(explain_loss("x" * 900)) < 220

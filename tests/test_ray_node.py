"""An experiment on a node whose raylet goes, without Ray: its process's parent is one of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from batch_world import write_configs
from dialsum.batch.child import GRACE_SECONDS
from dialsum.batch.ray_node import Order
from dialsum.config.load import load_config
from dialsum.experiment.job import Job
from dialsum.paths import RunPaths
from test_child import is_gone, wait_for

FOLLOWS = """
import json, sys
from pathlib import Path
from dialsum.batch.ray_node import NodeRun, Order

order, seen = json.loads(sys.argv[1]), Path(sys.argv[2])
order["trainer"] = tuple(order["trainer"])
run = NodeRun(Order(**order))
seen.write_text(str(run.pid))
try:
    while True:
        run.follow([], log_at=0, metrics_at=0)
except BaseException as error:
    seen.write_text(f"told: {error!r}")
"""


def test_a_lost_node_never_says_that_its_experiment_failed(tmp_path: Path) -> None:
    [path] = write_configs(tmp_path, "a")
    order = Order(
        Job(load_config(path), RunPaths.alone(tmp_path / "a"), "full").to_json(),
        resume=False,
        trainer=(sys.executable, "-c", "import time; time.sleep(300)"),
        token="",
        environment={},
        batch_pid=1,
        grace_seconds=GRACE_SECONDS,
        patience_seconds=None,
    )
    seen = tmp_path / "seen"
    follower = [sys.executable, "-c", FOLLOWS, json.dumps(asdict(order)), str(seen)]
    raylet = subprocess.Popen(["sh", "-c", '"$@" & wait', "sh", *follower])
    wait_for(lambda: seen.exists() and seen.read_text() != "")
    pid = seen.read_text()
    [node] = psutil.Process(raylet.pid).children()
    raylet.kill()
    raylet.wait()
    wait_for(lambda: is_gone(node.pid) and is_gone(int(pid)))
    assert seen.read_text() == pid

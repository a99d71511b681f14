"""A Ray cluster of two nodes on this machine, and batches of stand-ins on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def two_nodes(**second: Any) -> Iterator[Any]:
    """Start a head and a second node, a CPU each unless said otherwise; end all of both."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    usual = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    head = {**usual, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.second = cluster.add_node(**{**usual, **second})
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(node: Any) -> None:
    """End a node as a power cut does: its raylet, and with it all that it started."""
    [raylet] = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)

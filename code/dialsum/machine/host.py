"""Cores and memory that this process may use: a container is smaller than its machine.

Must not know GPUs, nor what cores and memory are used for.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 2**50
"""A container's limit beyond this is none."""


@dataclass(frozen=True)
class HostMemory:
    """Main memory, bytes: the smaller of the machine's and the container's; None if unknown."""

    total_bytes: int | None
    free_bytes: int | None


def usable_cores(cgroup: Path = CGROUP_ROOT) -> int:
    """Return the cores that this process may use, by affinity and the container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _read_core_quota(cgroup)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def host_memory(cgroup: Path = CGROUP_ROOT) -> HostMemory:
    """Return total and available main memory, within the container's limit where there is one."""
    machine = _read_machine_memory()
    limit = _read_first_number(cgroup, "memory.max", "memory/memory.limit_in_bytes")
    if limit is None or limit >= (machine.total_bytes or UNLIMITED_BYTES):
        return machine
    used = _read_first_number(cgroup, "memory.current", "memory/memory.usage_in_bytes") or 0
    # Cached file pages count as used and are given back when memory is asked for.
    free = limit - max(0, used - _read_inactive_file(cgroup))
    known = free if machine.free_bytes is None else min(free, machine.free_bytes)
    return HostMemory(limit, max(0, known))


def peak_resident_bytes() -> int:
    """Return the most main memory that this process ever had; 0 where a sandbox does not tell."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _read_machine_memory() -> HostMemory:
    """Ask the system; some sandboxes hide /proc/meminfo, or show zeros in it."""
    import psutil

    try:
        machine = psutil.virtual_memory()
    except (OSError, KeyError, ValueError):
        return HostMemory(None, None)
    if not machine.total:
        return HostMemory(None, None)
    return HostMemory(int(machine.total), int(machine.available))


def _read_core_quota(cgroup: Path) -> float | None:
    """Return the container's quota in cores: cgroup v2's cpu.max, else v1's; None without one."""
    words = _read_words(cgroup / "cpu.max")
    if len(words) == 2 and words[0].isdecimal():
        return int(words[0]) / int(words[1])
    quota = _read_first_number(cgroup, "cpu/cpu.cfs_quota_us")
    period = _read_first_number(cgroup, "cpu/cpu.cfs_period_us")
    return quota / period if quota and period else None


def _read_first_number(cgroup: Path, *names: str) -> int | None:
    """Return the first of these files that holds a number; `max` and -1 stand for no limit."""
    for name in names:
        words = _read_words(cgroup / name)
        if len(words) == 1 and words[0].isdecimal():
            return int(words[0])
    return None


def _read_inactive_file(cgroup: Path) -> int:
    for name in ("memory.stat", "memory/memory.stat"):
        words = _read_words(cgroup / name)
        for key, value in zip(words[::2], words[1::2], strict=False):
            if key in ("inactive_file", "total_inactive_file") and value.isdecimal():
                return int(value)
    return 0


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        # No such file: no such limit. Systems without cgroups have none of them.
        return []

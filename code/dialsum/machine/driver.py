"""What this process may use: cores and main memory within its container, NVIDIA's cards by NVML.

No torch, no CUDA context, milliseconds.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dialsum.errors import UnfitError

GIB = 2**30
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


NO_NVIDIA_ERRORS = ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
"""What NVML answers where there is no NVIDIA driver, as in most containers: no error of ours."""

DRIVER_REMEDIES: dict[str, str] = {
    "NVMLError_LibRmVersionMismatch": "it was upgraded while the old one was loaded; reboot",
    "NVMLError_GpuIsLost": "a card no longer answers; reboot, and check its power and its seat",
    "NVMLError_ResetRequired": "a card must be reset; reboot",
    "NVMLError_NoPermission": "this user may not ask the driver; see the rights of /dev/nvidia*",
    "NVMLError_Timeout": "the driver hangs; reboot",
}

T = TypeVar("T")


class DriverError(UnfitError):
    """There is an NVIDIA driver and it does not work; the text says what it says and what to do."""


@dataclass(frozen=True)
class GpuState:
    """One card at one moment.

    Args:
        index: NVML's, in the order of the bus; CUDA may count otherwise (CUDA_DEVICE_ORDER).
        memory_total_bytes, memory_used_bytes, memory_free_bytes: of the whole card, all processes;
            0 each where they are unknown.
        temperature_c, utilisation_percent: None where the card does not tell.
        compute_capability: major and minor.
    """

    name: str
    index: int
    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    temperature_c: int | None
    utilisation_percent: int | None
    driver_version: str
    compute_capability: tuple[int, int]

    def describe(self) -> str:
        """Say it in one line: memory, temperature, how busy it is."""
        memory = "memory unknown"
        if self.memory_total_bytes:
            total, used = self.memory_total_bytes / GIB, self.memory_used_bytes / GIB
            free = self.memory_free_bytes / GIB
            memory = f"{total:.1f} GiB, {used:.1f} used, {free:.1f} free"
        heat = "" if self.temperature_c is None else f", {self.temperature_c} °C"
        load = "" if self.utilisation_percent is None else f", {self.utilisation_percent} % busy"
        return f"GPU {self.index} {self.name}: {memory}{heat}{load}"


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a card.

    Args:
        pid: as the driver counts; inside a container it may be the host's number.
        memory_bytes: what it holds; None where the driver does not tell.
    """

    pid: int
    memory_bytes: int | None


def nvidia_gpus() -> list[GpuState]:
    """Return the state of every NVIDIA card of this machine; empty without NVIDIA driver.

    Cards that CUDA_VISIBLE_DEVICES hides are in it; see visible_gpus.

    Raises:
        DriverError: there is a driver and it does not work.
    """
    with _driver() as nvml:
        if nvml is None:
            return []
        version = str(nvml.nvmlSystemGetDriverVersion())
        return [_read_state(nvml, index, version) for index in range(nvml.nvmlDeviceGetCount())]


def gpu_processes(index: int) -> list[GpuProcess]:
    """Return the processes that compute on a card; empty without NVIDIA driver.

    Args:
        index: GpuState.index.

    Raises:
        DriverError: there is no such card, or the driver does not work.
    """
    with _driver() as nvml:
        if nvml is None:
            return []
        count = nvml.nvmlDeviceGetCount()
        if not 0 <= index < count:
            raise DriverError(f"there is no NVIDIA card {index}; the driver shows {count}, from 0")
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return [GpuProcess(process.pid, process.usedGpuMemory) for process in found]


def driver_cuda_version() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver supports, (major, minor); None without NVIDIA driver.

    Raises:
        DriverError: there is a driver and it does not work.
    """
    with _driver() as nvml:
        if nvml is None:
            return None
        number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        return number // 1000, number % 1000 // 10


def visible_gpus(gpus: Sequence[GpuState], visible: str | None) -> list[GpuState]:
    """Return the cards that a CUDA program may use.

    Args:
        visible: value of CUDA_VISIBLE_DEVICES: numbers, or uuids and their beginnings; None shows
            all. As in CUDA, the first entry that means no card hides all after it. Numbers are
            taken in the order of the bus. MIG instances cannot be told apart here: they show all.
    """
    if visible is None:
        return list(gpus)
    found: list[GpuState] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.startswith("MIG-"):
            return list(gpus)
        meant = [gpu for gpu in gpus if _is_meant(gpu, entry)]
        if len(meant) != 1:
            break
        found += meant
    return found


def _is_meant(gpu: GpuState, entry: str) -> bool:
    if entry.startswith("GPU-"):
        return gpu.uuid.startswith(entry)
    return entry.isdecimal() and gpu.index == int(entry)


@contextmanager
def _driver() -> Iterator[Any | None]:
    """Yield the started NVML, None without NVIDIA driver; its errors become DriverError."""
    try:
        import pynvml
    except ImportError as error:
        raise UnfitError(
            "nvidia-ml-py is not installed, so that GPUs cannot be seen; "
            "install what requirements.txt pins: python -m pip install -r requirements.txt"
        ) from error
    try:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if type(error).__name__ not in NO_NVIDIA_ERRORS:
                raise
            yield None
            return
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        remedy = DRIVER_REMEDIES.get(type(error).__name__, "see what nvidia-smi says")
        raise DriverError(f"the NVIDIA driver does not work: {error}; {remedy}") from error


def _read_state(nvml: Any, index: int, driver_version: str) -> GpuState:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    if memory is None:  # a card without memory of its own (GB10) works in main memory
        host = host_memory()
        total, free = host.total_bytes or 0, host.free_bytes or 0
    else:
        total, free = int(memory.total), int(memory.free)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return GpuState(
        name=str(nvml.nvmlDeviceGetName(handle)),
        index=index,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        memory_total_bytes=total,
        memory_used_bytes=total - free,
        memory_free_bytes=free,
        temperature_c=_ask(
            nvml, lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        ),
        utilisation_percent=_ask(nvml, lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        driver_version=driver_version,
        compute_capability=(int(major), int(minor)),
    )


def _ask(nvml: Any, question: Callable[[], T]) -> T | None:
    """Return the answer, None where the card has none: virtual ones tell neither heat nor load."""
    try:
        return question()
    except nvml.NVMLError_NotSupported:
        return None

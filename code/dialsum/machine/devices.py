"""What this machine has; where and in which precision a run computes, and why.

Cores and main memory are those within this process's container; NVIDIA's cards are asked by NVML,
without torch or a CUDA context, in milliseconds. Must not know the configuration, models or data:
it is given plain values. torch is imported inside the functions that need it.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from dialsum.errors import UnfitError

T = TypeVar("T")
DeviceKind = Literal["cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]

GIB = 2**30
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables that say how many threads a process computes with."""
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
    # cgroup v2's cpu.max, else v1's files.
    words = _read_words(cgroup / "cpu.max")
    if len(words) == 2 and words[0].isdecimal():
        quota, period = int(words[0]), int(words[1])
    else:
        quota = _read_first_number(cgroup, "cpu/cpu.cfs_quota_us") or 0
        period = _read_first_number(cgroup, "cpu/cpu.cfs_period_us") or 0
    return max(1, min(cores, math.ceil(quota / period)) if quota and period else cores)


def host_memory(cgroup: Path = CGROUP_ROOT) -> HostMemory:
    """Return total and available main memory, within the container's limit where there is one."""
    import psutil

    try:
        machine = psutil.virtual_memory()
    except (OSError, KeyError, ValueError):
        machine = None
    # Some sandboxes hide /proc/meminfo, or show zeros in it.
    total, free = (machine.total, machine.available) if machine and machine.total else (None, None)
    limit = _read_first_number(cgroup, "memory.max", "memory/memory.limit_in_bytes")
    if limit is None or limit >= (total or UNLIMITED_BYTES):
        return HostMemory(total, free)
    used = _read_first_number(cgroup, "memory.current", "memory/memory.usage_in_bytes") or 0
    # Cached file pages count as used and are given back when memory is asked for.
    left = max(0, limit - max(0, used - _read_inactive_file(cgroup)))
    return HostMemory(limit, left if free is None else min(left, free))


def peak_resident_bytes() -> int:
    """Return the most main memory that this process ever had; 0 where a sandbox does not tell."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
        driver_version, cuda_version: of the driver, and the newest CUDA (major, minor) it supports.
        compute_capability: major and minor.
        processes: what computes on it, by process id (inside a container it may be the host's), and
            the bytes that each holds, 0 where the driver does not tell.
        power_w: what it draws, watts; None where the card does not tell.
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
    cuda_version: tuple[int, int] | None
    compute_capability: tuple[int, int]
    processes: dict[int, int]
    power_w: float | None = None

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


def nvidia_gpus() -> list[GpuState]:
    """Return the state of every NVIDIA card of this machine; empty without NVIDIA driver.

    Cards that CUDA_VISIBLE_DEVICES hides are in it; see visible_gpus.

    Raises:
        DriverError: there is a driver and it does not work.
    """
    with _driver() as nvml:
        if nvml is None:
            return []
        driver = str(nvml.nvmlSystemGetDriverVersion())
        cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
        return [
            _read_state(nvml, index, driver, None if cuda is None else divmod(cuda // 10, 100))
            for index in range(nvml.nvmlDeviceGetCount())
        ]


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
        if entry.startswith("GPU-"):
            meant = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        else:
            meant = [gpu for gpu in gpus if entry.isdecimal() and gpu.index == int(entry)]
        if len(meant) != 1:
            break
        found += meant
    return found


def find_own_gpu(index: int) -> GpuState | None:
    """Return the state of a card by CUDA's index in this process; None where it cannot be told from
    others.

    Raises:
        DriverError: the driver does not work.
    """
    visible = visible_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return visible[index] if index < len(visible) else None


def find_largest_gpu() -> GpuState | None:
    """Return the state of the card with most memory that a run here could have; None without one.

    Raises:
        DriverError: the driver does not work.
    """
    visible = visible_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return max(visible, key=lambda gpu: gpu.memory_total_bytes, default=None)


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


def _read_state(
    nvml: Any, index: int, driver_version: str, cuda_version: tuple[int, int] | None
) -> GpuState:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    if memory is None:  # a card without memory of its own (GB10) works in main memory
        host = host_memory()
        total, free = host.total_bytes or 0, host.free_bytes or 0
    else:
        total, free = int(memory.total), int(memory.free)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    processes = _ask(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
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
        cuda_version=cuda_version,
        compute_capability=(int(major), int(minor)),
        processes={process.pid: process.usedGpuMemory or 0 for process in processes},
        power_w=_ask(nvml, lambda: int(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000),
    )


def _ask(nvml: Any, question: Callable[[], T]) -> T | None:
    """Return the answer, None where there is none: virtual cards tell neither heat nor load."""
    try:
        return question()
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None


AS_ASKED = "as asked"
MEMORY_PER_WORKER = 2 * GIB  # a forked process that touches its copy of rows and libraries
MOST_WORKERS = 4  # the rows are token ids already; more processes than that wait for the GPU
FP16_OVERFLOWS = ("t5", "mt5", "gemma")
"""Architectures whose activations overflow fp16."""


class Choice(NamedTuple, Generic[T]):
    """A value that is used, and why: half a sentence."""

    value: T
    why: str


@dataclass(frozen=True)
class Device:
    """One thing that can compute.

    Args:
        kind: torch's name of its type.
        index: torch's number among its kind; 0 for MPS and CPU.
        memory_total_bytes, memory_free_bytes: its own; of MPS and CPU, what of main memory they
            may use. None where it is unknown.
        compute_capability: major and minor; None but for CUDA.
        precisions: of fp32, tf32, bf16, fp16 and 4-bit, those that it has.
        attention: of flash, mem-efficient and math, the kernels that torch's attention has there.
        bf16_instructions: of a CPU, those that compute in bf16; empty where it has none.
    """

    kind: DeviceKind
    index: int
    name: str
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    compute_capability: tuple[int, int] | None
    precisions: tuple[str, ...]
    attention: tuple[str, ...]
    bf16_instructions: str = ""

    @property
    def torch_name(self) -> str:
        """What torch.device takes: `cuda:0`, `mps`, `cpu`."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind

    def describe(self) -> str:
        """Say it in one line."""
        capability = self.compute_capability
        memory = "memory unknown"
        if self.memory_total_bytes is not None:
            free = self.memory_free_bytes
            left = "free memory unknown" if free is None else f"{free / GIB:.1f} free"
            memory = f"{self.memory_total_bytes / GIB:.1f} GiB ({left})"
        return f"{self.torch_name}  {self.name}, {memory}" + (
            f", compute capability {capability[0]}.{capability[1]}" if capability else ""
        )

    def to_record(self) -> dict[str, Any]:
        """Return the fields as they stand in environment.json."""
        found = asdict(self)
        if self.compute_capability:
            found["compute_capability"] = "{}.{}".format(*self.compute_capability)
        if not self.bf16_instructions:
            del found["bf16_instructions"]
        return found


def list_devices() -> list[Device]:
    """Return what torch can compute on, the best first: CUDA cards, Apple MPS, the CPU."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        capability = (int(card.major), int(card.minor))
        free, total = torch.cuda.mem_get_info(index)
        precisions, attention = cuda_precisions(capability), cuda_attention(capability)
        name = str(card.name)
        devices.append(Device("cuda", index, name, total, free, capability, precisions, attention))
    if torch.backends.mps.is_available():
        total = int(torch.mps.recommended_max_memory())
        free = total - int(torch.mps.driver_allocated_memory())
        bf16 = ("bf16",) if torch.backends.mps.is_macos_or_newer(14, 0) else ()
        precisions = ("fp32", *bf16, "fp16", "4-bit")
        devices.append(
            Device("mps", 0, "Apple GPU (MPS)", total, free, None, precisions, ("math",))
        )
    memory = host_memory()
    own = torch.cpu.get_capabilities()
    bf16_names = sorted(name for name, there in own.items() if "bf16" in name and there is True)
    devices.append(
        Device(
            kind="cpu",
            index=0,
            name=f"CPU with {usable_cores()} cores",
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.free_bytes,
            compute_capability=None,
            precisions=("fp32", "bf16", "4-bit"),
            attention=("flash", "math"),
            bf16_instructions=", ".join(bf16_names),
        )
    )
    return devices


def cuda_precisions(capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the precisions that a CUDA card computes in itself, by its compute capability.

    bf16 and TF32 came with Ampere (8.0; older cards emulate bf16, slowly), fast fp16 with Volta
    (7.0); bitsandbytes needs 6.0 for its 4-bit kernels.
    """
    least = {"fp32": (0, 0), "tf32": (8, 0), "bf16": (8, 0), "fp16": (7, 0), "4-bit": (6, 0)}
    return tuple(name for name, needed in least.items() if capability >= needed)


def cuda_attention(capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the kernels of torch's scaled_dot_product_attention that a CUDA card has."""
    least = {"flash": (8, 0), "mem-efficient": (5, 0), "math": (0, 0)}
    return tuple(name for name, needed in least.items() if capability >= needed)


def use_own_gpu(count: int, *, requested: str) -> tuple[tuple[str, ...], str]:
    """Hide all cards from this process but the first of those that an experiment takes.

    To be called before torch looks for cards.

    Args:
        count: cards that it takes, the ones with the most free memory (batch.gpus_per_experiment).
        requested: auto, cuda, mps or cpu (general.device).

    Returns:
        What CUDA_VISIBLE_DEVICES names each card by, where it takes several, its own first; and
        what was chosen, as a line, empty where there was nothing to choose.

    Raises:
        UnfitError: there are cards, and too few.
    """
    if count == 1:
        if (card := use_one_gpu()) is None:
            return (), ""
        said = f"CUDA_VISIBLE_DEVICES={card.value} ({card.why}); set it yourself to take another"
        return (), said
    gpus, visible = nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = visible_gpus(gpus, visible)
    if requested in ("cpu", "mps") or not seen:
        return (), ""
    if problem := explain_few_gpus(count, gpus, visible):
        raise UnfitError(problem)
    if visible is None:
        seen.sort(key=lambda gpu: (-gpu.memory_free_bytes, gpu.index))
    names = tuple(gpu.uuid for gpu in seen[:count])
    own = os.environ["CUDA_VISIBLE_DEVICES"] = names[0]
    return names, f"CUDA_VISIBLE_DEVICES={own}, and for its helpers {', '.join(names[1:])}"


def explain_few_gpus(count: int, gpus: Sequence[GpuState], visible: str | None) -> str:
    """Say that fewer whole cards are visible than an experiment takes; empty where it is not so.

    Args:
        gpus: as nvidia_gpus returns them; visible: CUDA_VISIBLE_DEVICES.
    """
    # Parts of a card cannot be told apart here, and exchange nothing with each other.
    whole = 0 if "MIG-" in (visible or "") else len(visible_gpus(gpus, visible))
    if whole >= count:
        return ""
    seen = "one whole card is" if whole == 1 else f"{whole} whole cards are"
    return f"batch.gpus_per_experiment {count}: {seen} visible here; say {max(1, whole)}" + (
        f", or show more of them in CUDA_VISIBLE_DEVICES={visible}" if visible else ""
    )


def use_one_gpu() -> Choice[int] | None:
    """Hide all cards from this process but the one with the most free memory.

    To be called before torch looks for cards.

    With several in sight a library would split each batch over them, and the batch size would no
    longer be the config's. What CUDA_VISIBLE_DEVICES says stands.

    Returns:
        The card taken, or None where there was nothing to choose.
    """
    gpus = nvidia_gpus()
    if len(gpus) < 2 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return None
    best = max(gpus, key=lambda gpu: (gpu.memory_free_bytes, -gpu.index))
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = str(best.index)
    return Choice(best.index, f"of {len(gpus)} cards it has the most free memory")


def pick_device(requested: str, devices: Sequence[Device] | None = None) -> Choice[Device]:
    """Choose where to compute.

    Args:
        requested: auto, cuda, mps or cpu (`general.device`).
        devices: those that there are, the best first; asked of torch when None.

    Raises:
        UnfitError: what was asked for is not there; with the ways out.
    """
    devices = list_devices() if devices is None else devices
    problem = ""
    if devices[0].kind != "cuda" and requested in ("auto", "cuda"):
        problem = explain_missing_cuda(nvidia_gpus())
    if requested == "auto":
        why = "the fastest there is" + (f"; {problem}" if problem else "")
        return Choice(devices[0], why)
    for device in devices:
        if device.kind == requested:
            return Choice(device, AS_ASKED)
    there = ", ".join(device.torch_name for device in devices)
    raise UnfitError(
        f"general.device is {requested}, but {problem or 'this machine has no such device'}. "
        f"Here there is {there}: take it with --set general.device=auto, try tiny models with "
        "--demo, or go to a machine that has it"
    )


def explain_missing_cuda(gpus: Sequence[GpuState]) -> str:
    """Say why torch sees no CUDA device, and what mends it where there is a card.

    Args:
        gpus: as nvidia_gpus returns them.
    """
    import torch

    if not gpus:
        return "there is no NVIDIA GPU that the driver shows"
    name, driver_cuda = gpus[0].name, gpus[0].cuda_version
    torch_version, torch_cuda = torch.__version__, torch.version.cuda
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch_cuda is None:
        return (
            f"torch {torch_version} is a build without CUDA although there is an {name}: "
            "remove .venv and run bash run_main_7_experiments.sh again; it installs the CUDA build"
        )
    if not visible_gpus(gpus, visible):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides the {name}: unset it"
    if driver_cuda is not None and driver_cuda[0] < int(torch_cuda.split(".")[0]):
        return (
            f"the driver {gpus[0].driver_version} of the {name} supports CUDA {driver_cuda[0]}."
            f"{driver_cuda[1]} at most, torch {torch_version} needs {torch_cuda}: update the driver"
        )
    return (
        f"torch {torch_version} cannot start the {name}; its reason: "
        "python -c 'import torch; torch.cuda.init()'"
    )


def pick_num_workers(requested: int | Literal["auto"], *, device: Device) -> Choice[int]:
    """Choose how many processes prepare batches, 0 for the training process itself."""
    if requested != "auto":
        return Choice(requested, AS_ASKED)
    if device.kind != "cuda":
        return Choice(
            0, "training itself needs the cores" if device.kind == "cpu" else "MPS forks badly"
        )
    cores, free = usable_cores(), host_memory().free_bytes
    workers = min(MOST_WORKERS, cores // 2)
    if free is None:
        return Choice(workers, f"{cores} cores; free main memory unknown")
    workers = min(workers, free // MEMORY_PER_WORKER)
    return Choice(workers, f"{cores} cores and {free / GIB:.1f} GiB of free main memory")


def pick_precision(
    bf16: bool | Literal["auto"], *, fp16: bool, architecture: str, device: Device
) -> Choice[Precision]:
    """Choose the precision of training.

    Args:
        bf16, fp16: as the config has them (`training.bf16`, `training.fp16`).
        architecture: family of the model.

    Raises:
        UnfitError: fp16 for a family of FP16_OVERFLOWS.
    """
    if fp16 and bf16 is not True:
        if architecture in FP16_OVERFLOWS:
            raise UnfitError(
                f"training.fp16 is true, but activations of {architecture} overflow fp16 and the "
                "loss becomes NaN; write training.bf16: true instead (a GPU without bf16 gets fp32)"
            )
        if "fp16" in device.precisions and device.kind == "cuda":
            return Choice("fp16", AS_ASKED)
        why = f"fp16 mixed precision needs a CUDA GPU that has it, not the {device.name}"
        return Choice("fp32", why)
    if bf16 is False:
        return Choice("fp32", "as asked (training.bf16 is false)")
    own = device.bf16_instructions
    if device.kind == "cpu":
        # Training steps of T5 and BART of width 128, 2 threads, torch 2.13, an AMD EPYC with
        # AVX512-BF16: 0.7 to 0.9 of fp32's time with all of its instructions, 1.3 to 1.8 times with
        # oneDNN held to plain AVX-512, 7.5 to 13 times with it held to AVX2.
        if own and bf16 is True:
            why = (
                "a CPU trains in fp32 here, also where it has bf16 instructions "
                f"({own}): bf16 is for GPUs"
            )
        elif own:
            why = (
                f"a CPU trains in fp32; with its bf16 instructions ({own}) bf16 could take 0.7 to "
                "0.9 of the time, as on one virtual x86 server, at 8 bits of mantissa"
            )
        else:
            why = (
                "this CPU shows no bf16 instructions; without them bf16 was up to 13 times slower, "
                "measured on one virtual x86 server"
            )
        return Choice("fp32", why)
    if "bf16" not in device.precisions:
        return Choice("fp32", f"the {device.name} does not compute in bf16")
    if bf16 is True:
        return Choice("bf16", AS_ASKED)
    if device.kind == "mps":
        why = "bf16 on Apple MPS is untested here; ask for it with training.bf16=true"
        return Choice("fp32", why)
    return Choice("bf16", "half the memory of fp32 with its range, and the GPU has it")


def pick_tf32(requested: bool | Literal["auto"], *, device: Device) -> Choice[bool]:
    """Choose whether products that stay in fp32 use TensorFloat-32: faster, 10 bits of mantissa."""
    if requested is False:
        return Choice(False, AS_ASKED)
    if "tf32" in device.precisions:
        why = "the GPU has it, and fp32 products are faster" if requested == "auto" else AS_ASKED
        return Choice(True, why)
    return Choice(False, f"the {device.name} has no TF32")

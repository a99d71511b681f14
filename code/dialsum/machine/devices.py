"""Where a run computes, each choice with its reason; the one door to all of devices and precisions.

Must not know the configuration, models or data: it is given plain values. torch is imported inside
the functions that need it; what the driver alone can say (nvidia_gpus …) needs none.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Literal

from dialsum.errors import UnfitError
from dialsum.machine.choice import AS_ASKED, Choice
from dialsum.machine.gpu_driver import (
    GIB,
    DriverError,
    GpuProcess,
    GpuState,
    driver_cuda_version,
    gpu_processes,
    nvidia_gpus,
    visible_gpus,
)
from dialsum.machine.host import host_memory, usable_cores
from dialsum.machine.precision import Precision, pick_precision, pick_tf32
from dialsum.machine.torch_devices import Device, list_devices

__all__ = [
    "Choice",
    "Device",
    "DriverError",
    "GpuProcess",
    "GpuState",
    "Precision",
    "choose_device",
    "driver_cuda_version",
    "explain_missing_cuda",
    "free_memory",
    "gpu_processes",
    "list_devices",
    "nvidia_gpus",
    "pick_device",
    "pick_num_workers",
    "pick_precision",
    "pick_tf32",
    "use_one_gpu",
    "visible_gpus",
]

MEMORY_PER_WORKER = 2 * GIB  # a forked process that touches its copy of rows and libraries
MOST_WORKERS = 4  # the rows are token ids already; more processes than that wait for the GPU


def use_one_gpu() -> Choice[int] | None:
    """Hide all cards from this process but the one with the most free memory.

    To be called before torch looks for cards.

    One experiment runs on one card; with several in sight the trainer would split each batch over
    them, and the batch size would no longer be the config's. What CUDA_VISIBLE_DEVICES says stands.

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


def pick_device(requested: str) -> Choice[Device]:
    """Choose where to compute.

    Args:
        requested: auto, cuda, mps or cpu (`general.device`).

    Raises:
        UnfitError: what was asked for is not there; with the ways out.
    """
    import torch

    devices = list_devices()
    problem = ""
    if devices[0].kind != "cuda" and requested in ("auto", "cuda"):
        problem = explain_missing_cuda(
            torch_version=torch.__version__,
            torch_cuda=torch.version.cuda,
            gpus=nvidia_gpus(),
            driver_cuda=driver_cuda_version(),
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )
    return choose_device(requested, devices, cuda_problem=problem)


def choose_device(
    requested: str, devices: Sequence[Device], *, cuda_problem: str = ""
) -> Choice[Device]:
    """Choose among devices that were listed, best first (see pick_device).

    Args:
        cuda_problem: why there is no CUDA device among them.

    Raises:
        UnfitError: none of the kind that was asked for.
    """
    if requested == "auto":
        best = devices[0]
        return Choice(best, "the fastest there is" + (f"; {cuda_problem}" if cuda_problem else ""))
    found = [device for device in devices if device.kind == requested]
    if found:
        return Choice(found[0], AS_ASKED, requested=found[0])
    problem = cuda_problem if requested == "cuda" else "this machine has no such device"
    there = ", ".join(device.torch_name for device in devices)
    raise UnfitError(
        f"general.device is {requested}, but {problem}. Here there is {there}: take it with "
        "--set general.device=auto, try tiny models with --demo, or go to a machine that has it"
    )


def explain_missing_cuda(
    *,
    torch_version: str,
    torch_cuda: str | None,
    gpus: Sequence[GpuState],
    driver_cuda: tuple[int, int] | None,
    visible: str | None,
) -> str:
    """Say why torch sees no CUDA device, and what mends it where there is a card.

    Args:
        torch_version: such as 2.9.0+cpu.
        torch_cuda: CUDA that torch was built for, such as 12.8; None for a build without.
        gpus: as nvidia_gpus returns them.
        driver_cuda: newest CUDA of the driver.
        visible: value of CUDA_VISIBLE_DEVICES.
    """
    if not gpus:
        return "there is no NVIDIA GPU that the driver shows"
    name = gpus[0].name
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


def pick_num_workers(
    requested: int | Literal["auto"],
    *,
    device: Device,
    cores: int | None = None,
    memory_free_bytes: int | None = None,
) -> Choice[int]:
    """Choose how many processes prepare batches, 0 for the training process itself.

    Args:
        cores, memory_free_bytes: of the host; asked of it when absent.
    """
    if requested != "auto":
        return Choice(requested, AS_ASKED, requested=requested)
    if device.kind != "cuda":
        return Choice(
            0, "training itself needs the cores" if device.kind == "cpu" else "MPS forks badly"
        )
    cores = usable_cores() if cores is None else cores
    free = host_memory().free_bytes if memory_free_bytes is None else memory_free_bytes
    workers = min(MOST_WORKERS, cores // 2)
    if free is None:
        return Choice(workers, f"{cores} cores; free main memory unknown")
    workers = min(workers, free // MEMORY_PER_WORKER)
    return Choice(workers, f"{cores} cores and {free / GIB:.1f} GiB of free main memory")


def free_memory() -> None:
    """Give back what this process no longer uses: garbage, and torch's cache on CUDA or MPS.

    It frees nothing in another process: a child's GPU memory comes back when the child is gone.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()

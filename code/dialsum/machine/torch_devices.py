"""What torch can compute on, and what each of these devices has.

Must not know what is chosen, nor why (device.py). torch is imported inside of functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dialsum.machine.gpu_driver import GIB
from dialsum.machine.host import host_memory, usable_cores

DeviceKind = Literal["cuda", "mps", "cpu"]


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
        capability = self.compute_capability
        return {
            "kind": self.kind,
            "index": self.index,
            "name": self.name,
            "memory_total_bytes": self.memory_total_bytes,
            "memory_free_bytes": self.memory_free_bytes,
            "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
            "precisions": list(self.precisions),
            "attention": list(self.attention),
        } | ({"bf16_instructions": self.bf16_instructions} if self.bf16_instructions else {})


def list_devices() -> list[Device]:
    """Return what torch can compute on, the best first: CUDA cards, Apple MPS, the CPU."""
    import torch

    devices = [_read_cuda(torch, index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(_read_mps(torch))
    memory = host_memory()
    name = f"CPU with {usable_cores()} cores"
    devices.append(
        Device(
            "cpu",
            0,
            name,
            memory.total_bytes,
            memory.free_bytes,
            None,
            ("fp32", "bf16", "4-bit"),
            ("flash", "math"),
            name_bf16_instructions(torch.cpu.get_capabilities()),
        )
    )
    return devices


def name_bf16_instructions(capabilities: Mapping[str, Any]) -> str:
    """Return the CPU's instructions that compute in bf16, such as avx512_bf16; empty without any.

    Args:
        capabilities: as torch.cpu.get_capabilities() names them.
    """
    names = [name for name, there in capabilities.items() if "bf16" in name and there is True]
    return ", ".join(sorted(names))


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


def _read_cuda(torch: Any, index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    capability = (int(properties.major), int(properties.minor))
    free, total = torch.cuda.mem_get_info(index)
    return Device(
        "cuda",
        index,
        str(properties.name),
        int(total),
        int(free),
        capability,
        cuda_precisions(capability),
        cuda_attention(capability),
    )


def _read_mps(torch: Any) -> Device:
    total = int(torch.mps.recommended_max_memory())
    free = total - int(torch.mps.driver_allocated_memory())
    has_bf16 = torch.backends.mps.is_macos_or_newer(14, 0)
    precisions = ("fp32", *(("bf16",) if has_bf16 else ()), "fp16", "4-bit")
    return Device("mps", 0, "Apple GPU (MPS)", total, free, None, precisions, ("math",))

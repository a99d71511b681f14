"""Makes the state of a card as the driver would tell it. For tests on machines without one."""

from __future__ import annotations

from dialsum.machine.devices import GIB, GpuState


def make_gpu(index: int, *, name: str = "NVIDIA GeForce RTX 3090", uuid: str = "") -> GpuState:
    """Return an RTX 3090 with little in use; uuid is made from the index when absent."""
    return GpuState(
        name=name,
        index=index,
        uuid=uuid or f"GPU-{index}aaa",
        memory_total_bytes=24 * GIB,
        memory_used_bytes=GIB,
        memory_free_bytes=23 * GIB,
        temperature_c=41,
        utilisation_percent=None,
        driver_version="550.54",
        cuda_version=(12, 4),
        compute_capability=(8, 6),
        processes={},
    )

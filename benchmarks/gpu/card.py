"""The device while something is measured on it: its peak memory, its clock, a smaller card's limit.

Must not know what is measured. torch is imported inside of functions.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from dialsum.machine.devices import peak_resident_bytes

GIB = 2**30


class Meter:
    """The memory that this process takes: of the card as torch counts it, of a CPU the RSS."""

    def __init__(self, where: Any) -> None:
        self._where = where
        if where.kind == "cuda":
            import torch

            torch.cuda.init()
        self.reset()

    def reset(self) -> None:
        """Begin to look for a new peak; a process's RSS only ever rises."""
        if self._where.kind == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self._where.index)

    def peak_gib(self) -> dict[str, float]:
        """Return the most memory since reset: held by tensors, and by torch with its cache."""
        if self._where.kind == "cuda":
            import torch

            held = torch.cuda.max_memory_allocated(self._where.index)
            return {
                "tensors": held / GIB,
                "reserved": torch.cuda.max_memory_reserved(self._where.index) / GIB,
            }
        return {"rss": peak_resident_bytes() / GIB}


def read_clock(where: Any) -> float:
    """Return seconds, once the card has done all that it was given."""
    if where.kind == "cuda":
        import torch

        torch.cuda.synchronize(where.index)
    return time.perf_counter()


def hold_to(where: Any, cap_gib: float) -> Any:
    """Hold this process to a smaller card's memory; return the device as that card.

    torch counts its own tensors only; the CUDA context beside them takes from a card, too.

    Args:
        cap_gib: all of that card's memory; 0, or as much as there is: nothing is held back.
    """
    total = where.memory_total_bytes
    if where.kind != "cuda" or not cap_gib or total is None:
        return where
    import torch

    from dialsum.machine.memory import CONTEXT_GIB

    cap = min(int(cap_gib * GIB), total)
    torch.cuda.set_per_process_memory_fraction((cap - CONTEXT_GIB * GIB) / total, where.index)
    return replace(where, memory_total_bytes=cap)

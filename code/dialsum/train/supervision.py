"""Everything that looks on while a model learns, and what it remembers of the run.

The memory is kept in the checkpoints, beside weights and optimizer: without it a run that goes on
would count its bad steps anew, lose their report, and call the loss of its first steps here the
loss at its beginning. Must not know the trainer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.atomic import write_json
from dialsum.train.evaluation import DevSet
from dialsum.train.guard import Guard
from dialsum.train.loader import PassDataset, StepOrder
from dialsum.train.memory import PassLimit
from dialsum.train.progress import Progress
from dialsum.train.watch import Watch

MEMORY_FILE = "supervision.json"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to: sha256 of the resolved config and of the rows."""

    config_sha256: str
    data_sha256: str


@dataclass
class Supervision:
    """What the trainer is handed besides model and arguments.

    Args:
        order: which rows make up each step.
        dataset: those rows as tensors.
        guard: answers steps that are not finite.
        limit: how large a pass may be.
        watch: remarks on the curves.
        label_smoothing: share of probability spread over all pieces.
    """

    order: StepOrder
    dataset: PassDataset
    dev: DevSet
    guard: Guard
    limit: PassLimit
    watch: Watch
    progress: Progress
    identity: Identity
    label_smoothing: float

    def keep_memory(self, folder: Path, *, unlogged: dict[str, float]) -> None:
        """Write what is remembered into a checkpoint's folder.

        Args:
            unlogged: what the trainer adds up for its next line of loss.
        """
        told = self.progress
        write_json(folder / MEMORY_FILE, {
            "schema_version": 1, "unlogged": unlogged,
            "bad_steps": self.guard.events, "watch": self.watch.memory(),
            "memory": {"retries": self.limit.retries, "positions": self.limit.positions},
            "told": {
                "nan_events": told.nan_events, "remarks": told.remarks,
                "max_grad_norm": told.max_grad_norm,
            },
        })

    def take_memory(self, folder: Path) -> dict[str, float]:
        """Remember what stands in a checkpoint's folder, and return what was unlogged."""
        kept: dict[str, Any] = json.loads((folder / MEMORY_FILE).read_text(encoding="utf-8"))
        self.guard.remember(kept["bad_steps"])
        self.watch.remember(kept["watch"])
        limit, memory = self.limit, kept["memory"]
        limit.retries, limit.positions = memory["retries"], memory.get("positions")
        progress, told = self.progress, kept["told"]
        progress.nan_events, progress.remarks = told["nan_events"], told["remarks"]
        progress.max_grad_norm = told["max_grad_norm"]
        unlogged: dict[str, float] = kept["unlogged"]
        return unlogged

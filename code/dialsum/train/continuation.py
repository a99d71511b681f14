"""What those who look on remember of a run, kept in its checkpoints beside weights and optimizer.

Without it a run that goes on would count its bad steps anew, lose their report, and call the loss
of its first steps here the loss at its beginning. Must not know what is remembered, nor the
trainer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dialsum.atomic import write_json
from dialsum.train.guard import Guard
from dialsum.train.memory import PassLimit
from dialsum.train.progress import Progress
from dialsum.train.watch import Watch

MEMORY_FILE = "supervision.json"


def keep_memory(
    folder: Path, *, guard: Guard, limit: PassLimit, watch: Watch, progress: Progress
) -> None:
    """Write what they remember into a checkpoint's folder."""
    write_json(folder / MEMORY_FILE, {
        "schema_version": 1, "bad_steps": guard.events, "watch": watch.memory(),
        "memory": {"retries": limit.retries, "positions": limit.positions},
        "told": {
            "nan_events": progress.nan_events, "remarks": progress.remarks,
            "max_grad_norm": progress.max_grad_norm,
        },
    })


def take_memory(
    folder: Path, *, guard: Guard, limit: PassLimit, watch: Watch, progress: Progress
) -> None:
    """Let them remember what stands in a checkpoint's folder."""
    kept: dict[str, Any] = json.loads((folder / MEMORY_FILE).read_text(encoding="utf-8"))
    guard.remember(kept["bad_steps"])
    watch.remember(kept["watch"])
    limit.retries, limit.positions = kept["memory"]["retries"], kept["memory"].get("positions")
    told = kept["told"]
    progress.nan_events, progress.remarks = told["nan_events"], told["remarks"]
    progress.max_grad_norm = told["max_grad_norm"]

"""What a planned experiment will take: optimizer steps, minutes, disk.

Must not look at the machine: it only says what is needed.
"""

from __future__ import annotations

import os

from dialsum.batch.plan import PlannedExperiment
from dialsum.config.schema import Config
from dialsum.models.checkpoint import find_size

EXPECTED_FOR_ROWS = 12_457
"""Training rows that general.expected_minutes is stated for."""
BYTES_PER_WEIGHT = 4
OPTIMIZER_COPIES = 2
"""AdamW keeps two numbers beside each weight that learns."""
ADAPTED_SHARE = 0.05
"""Part of the weights that adapters amount to, at the least ranks in use."""
LOGS_BYTES = 20 * 2**20


def expect_minutes(experiment: PlannedExperiment, *, kind: str) -> float | None:
    """Return the expected duration in minutes; None where nothing is known.

    general.expected_minutes holds for all epochs of the real data on one RTX 3090: it is scaled by
    rows, and to one epoch.
    """
    stated = experiment.config.general.expected_minutes
    if stated is None:
        return None
    share = 1.0 if experiment.train_rows is None else experiment.train_rows / EXPECTED_FOR_ROWS
    return stated * share / ((experiment.loaded.own_epochs or 1.0) if kind == "one_epoch" else 1.0)


def estimate_disk_bytes(config: Config) -> int:
    """Return the least bytes that a run leaves on the disk: its model, its checkpoints with
    optimizer, its logs."""
    size = find_size(config, environment=os.environ).value
    learning = float(size.parameters)
    if config.qlora.use_qlora:
        learning *= ADAPTED_SHARE
        learning += size.vocabulary * size.width if config.qlora.train_embeddings else 0
    weights = learning * BYTES_PER_WEIGHT
    checkpoints = config.training.save_total_limit * weights * (1 + OPTIMIZER_COPIES)
    return int(weights + checkpoints + LOGS_BYTES)

"""The project's own loop without what comes between its steps: no evaluation, no checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit


def make_bare_loop(
    model: Any,
    tokenizer: Any,
    rows: EncodedSplit,
    *,
    config: Config,
    machine: Any,
    batch: tuple[int, int],
    folder: Path,
) -> Any:
    """Return a training loop as a run has it, that neither measures nor saves.

    Args:
        rows: what is trained on, with targets.
        machine: a loop.Machine.
        batch: rows per pass, and passes per step.
        folder: where metrics and a report of bad steps go.
    """
    from dialsum.train.loop import Loop, Places
    from dialsum.train.progress import Progress
    from dialsum.train.task import BatchShape, SummaryTask

    asked, lengths = config.training, config.tokenizer
    task = SummaryTask(
        rows,
        names=[f"row {row}" for row in range(len(rows))],
        sha256="",
        shape=BatchShape(
            *batch, max_input=lengths.encoder_max_len, max_target=lengths.decoder_max_len
        ),
        seed=asked.seed,
        pad_token_id=tokenizer.pad_token_id,
        by_length=asked.train_sampling_strategy == "token_budget",
        label_smoothing=asked.label_smoothing_factor,
        multiple=1 if machine.device.type == "cpu" else 8,
    )
    loop: Any = Loop(
        model,
        task,
        dev=SimpleNamespace(find_heaviest=list),  # type: ignore[arg-type]
        measured={},
        tokenizer=tokenizer,
        asked=asked,
        machine=machine,
        progress=Progress(folder / "metrics.jsonl"),
        places=Places(
            folder / "checkpoints",
            folder / "nan_report.json",
            config_sha256="",
            stop=folder / "stop",
        ),
    )
    loop._evaluate = lambda: False
    loop._save = loop._load_best = lambda: None
    return loop

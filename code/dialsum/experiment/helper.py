"""The process of an experiment's second card and of those beyond it (train/parallel.py): it makes
the same model from the same config, then runs the passes that it is handed.

Must not decide anything, write a file, nor read data.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.lifeline import end_with
from dialsum.models.load import open_checkpoint, prepare_model, prepare_tokenizer, quiet_libraries

if TYPE_CHECKING:
    from dialsum.train.task import Machine


@dataclass(frozen=True)
class SameModel:
    """What the experiment's own process made its model from.

    Args:
        folder: of the checkpoint.
        tags: speaker tags and masks of the data.
        device: torch's name; of cards, each process sees its own alone.
        dtype: torch's, of weights that are not quantised.
    """

    config: Config
    folder: Path
    tags: list[str]
    device: str
    dtype: Any
    machine: Machine


def main() -> None:
    """Help the process that started this one until it needs no help any more."""
    descriptor, first = map(int, sys.argv[1:])
    end_with(first)
    # Imported before the order comes: by then the experiment's own process has read its data.
    from dialsum.train.loop import set_up
    from dialsum.train.loss import summary_loss
    from dialsum.train.parallel import Link

    link = Link(descriptor)
    quiet_libraries()
    asked: SameModel = link.content
    config, machine = asked.config, asked.machine
    checkpoint = open_checkpoint(config, folder=asked.folder)
    tokens = prepare_tokenizer(checkpoint, config, tags=asked.tags)
    model = prepare_model(
        checkpoint,
        config,
        tokens,
        device=asked.device,
        dtype=asked.dtype,
        gradient_checkpointing=machine.gradient_checkpointing,
    ).model
    set_up(model, machine)
    link.serve(
        model,
        machine,
        tokenizer=tokens.tokenizer,
        loss=partial(
            summary_loss,
            label_smoothing=config.training.label_smoothing_factor,
            rdrop_alpha=config.training.rdrop_alpha,
        ),
    )

"""A helper of the small trainings (small_fit.py): their model, made anew, and faults if asked.

    python tests/crew_helper.py MOST_POSITIONS PIPE PID

Memory is full for passes of more input positions than MOST_POSITIONS; 0: never. The order holds a
folder and what SmallTraining takes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.lifeline import end_with


def main() -> None:
    """Serve the process that started this one."""
    most, descriptor, first = map(int, sys.argv[1:])
    end_with(first)
    import torch

    from dialsum.train.parallel import Link
    from small_fit import SmallTraining

    link = Link(descriptor)
    folder, asked = link.content
    loop = SmallTraining(**asked).loop(folder)

    def loss(model: Any, batch: Any, *, count: int) -> Any:
        if 0 < most < batch["input_ids"].numel():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loop.task.loss(model, batch, count=count)

    link.serve(loop.model, loop.machine, loss=loss, tokenizer=loop.tokenizer)


if __name__ == "__main__":
    main()

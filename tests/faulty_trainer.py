"""code/trainer.py with one fault in its process, for tests/faults.py.

    python tests/faulty_trainer.py FAULT --job FILE

`memory`: torch's own OutOfMemoryError for passes of more than MOST_ROWS rows. `nan`: the loss of
every pass with BAD_NAME in it. `timed`: what
the trackers hold the run up for is printed, each call of it. `none`: none.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

MOST_ROWS = 4
BAD_NAME = "sample_train_5"
"""A train row."""
TOOK = "trackers took"


def fill_memory() -> None:
    """Raise what torch raises where memory is full, for passes over a size."""
    import torch

    from dialsum.train.task import SummaryTask

    usual = SummaryTask.loss

    def loss(self: SummaryTask, model: Any, batch: Any, *, count: int | None) -> torch.Tensor:
        if len(batch["input_ids"]) > MOST_ROWS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(self, model, batch, count=count)

    SummaryTask.loss = loss  # type: ignore[method-assign]


def spoil_row() -> None:
    """Make the loss of every pass that holds one row NaN."""
    import torch

    from dialsum.train.task import SummaryTask

    usual = SummaryTask.loss

    def loss(self: SummaryTask, model: Any, batch: Any, *, count: int | None) -> torch.Tensor:
        found = usual(self, model, batch, count=count)
        if BAD_NAME not in self.names:  # the dev rows'
            return found
        wanted = self[[self.names.index(BAD_NAME)]]["labels"][0]
        labels = batch["labels"].cpu()[:, : len(wanted)]
        bad = labels.shape[1] == len(wanted) and bool((labels == wanted).all(dim=1).any())
        return found * float("nan") if bad else found

    SummaryTask.loss = loss  # type: ignore[method-assign]


def time_tracking() -> None:
    """Print what each call of the trackers takes."""
    from dialsum.train.tracking import Followers

    def timed(name: str) -> None:
        usual = getattr(Followers, name)

        def call(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return usual(*given, **named)
            finally:
                print(f"{TOOK} {time.monotonic() - began:.3f} s in {name}", flush=True)

        setattr(Followers, name, call)

    for name in ("__init__", "look", "finish"):
        timed(name)


FAULTS = {"memory": fill_memory, "nan": spoil_row, "timed": time_tracking, "none": lambda: None}


if __name__ == "__main__":
    import trainer

    FAULTS[sys.argv.pop(1)]()
    trainer.run_script(trainer.main)

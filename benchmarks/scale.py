"""How a batch scales over workers, and what the runner itself costs an experiment.

    python benchmarks/scale.py                       8 stand-ins that sleep, then one real training
    python benchmarks/scale.py --experiments 16 --seconds 4 --workers 1 2 4 8
    python benchmarks/scale.py --ray                 the same on a Ray cluster of this machine alone

A stand-in is a process that keeps the trainer's contract and sleeps: it takes no processor, so that
efficiency (work divided by wall time and workers) says what the runner loses and not what cores
share. Overhead is what is left of wall time, for each experiment in a row, when its sleep is taken
away: process, imports, records, the ledger and the pause between two. The real training is one
tiny demo experiment; what its own clock does not know is overhead, split into imports and the rest.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from batch_world import make_options, make_screen, start
from dialsum.batch.start import run_batch
from dialsum.cli import BatchOptions
from dialsum.errors import RunError, run_script
from dialsum.record import find_records
from dialsum.text import align

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENT = REPOSITORY / "config" / "experiments" / "01_baseline_kobart_rtx3090.yaml"
FEW = (
    "training.max_steps=2",
    "data.max_train_rows=32",
    "data.max_dev_rows=8",
    "data.max_test_rows=4",
    "tracking.wandb=false",
)
STAND_IN = "import time; from dialsum.batch import lock; from dialsum.experiment import job"
TRAINING = "import torch, transformers, peft; from dialsum.experiment import run"


def time_imports(statement: str) -> float:
    """Return the seconds that a new process takes for imports, its own start included."""
    own = {**os.environ, "PYTHONPATH": str(REPOSITORY / "code")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", statement], env=own, check=True)
    return time.monotonic() - began


def time_stand_ins(workers: int, *, experiments: int, seconds: float, ray: bool) -> float:
    """Return the wall seconds of a batch of sleeping stand-ins.

    Raises:
        RunError: one of them failed.
    """
    names = [f"sleep_{seconds:g}_{number}" for number in range(experiments)]
    asked = (f"batch.slots={workers}", f"batch.executor={'ray' if ray else 'local'}")
    with tempfile.TemporaryDirectory(prefix="dialsum-scale-") as folder:
        options = make_options(Path(folder), *names, overrides=asked)
        screen, shown = make_screen()
        began = time.monotonic()
        if start(options, screen=screen):
            raise RunError(f"a stand-in failed:\n{shown.getvalue()}")
        return time.monotonic() - began


def time_training() -> tuple[float, float]:
    """Return the wall seconds of a batch of one tiny real training, and those that its record has.

    The tiny checkpoint is made by a batch before it.

    Raises:
        RunError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="dialsum-scale-") as folder:
        options = BatchOptions((EXPERIMENT,), demo=True, output_dir=Path(folder), overrides=FEW)
        wall = 0.0
        for _ in range(2):
            screen, shown = make_screen()
            began = time.monotonic()
            if run_batch(options, screen=screen):
                raise RunError(f"the training failed:\n{shown.getvalue()}")
            wall = time.monotonic() - began
        records, _ = find_records(Path(folder))
        return wall, records[-1].number("duration_seconds") or math.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--experiments", type=int, default=8, metavar="N", help="stand-ins to a batch")
    add("--seconds", type=float, default=2.0, metavar="S", help="that each of them works")
    add("--workers", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    add("--ray", action="store_true", help="on Ray; its own start is in the wall time")
    add("--no-training", action="store_true", help="leave the real training out")
    asked = parser.parse_args(arguments)
    work = asked.experiments * asked.seconds
    rows = [["workers", "wall s", "speed-up", "efficiency", "overhead s each", "of it imports"]]
    imports, first = time_imports(STAND_IN), 0.0
    for workers in asked.workers:
        wall = time_stand_ins(
            workers, experiments=asked.experiments, seconds=asked.seconds, ray=asked.ray
        )
        first = first or wall
        in_a_row = math.ceil(asked.experiments / workers)
        overhead = wall / in_a_row - asked.seconds
        rows.append(
            [
                str(workers),
                f"{wall:.1f}",
                f"{first / wall:.2f}",
                f"{100 * work / (wall * workers):.0f} %",
                f"{overhead:.2f}",
                f"{100 * imports / overhead:.0f} %",
            ]
        )
    where = "Ray" if asked.ray else "this machine"
    print(f"{asked.experiments} stand-ins that work {asked.seconds:g} s each, on {where}")
    print(*align(rows, left=[]), sep="\n", flush=True)
    if not asked.no_training:
        imports, (wall, own) = time_imports(TRAINING), time_training()
        print("\none real training of a tiny checkpoint, a batch of one")
        print(f"  wall                      {wall:.1f} s")
        print(f"  its record's own time     {own:.1f} s")
        print(f"  overhead                  {wall - own:.1f} s")
        print(f"  imports in a new process  {imports:.1f} s (torch, transformers, peft)")
    return 0


if __name__ == "__main__":
    run_script(main)

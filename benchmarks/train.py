"""Training as it is here beside a plain script: tokens per second, memory, padding, dev loss.

    python benchmarks/train.py --tokenizer FOLDER --data FILE
    python benchmarks/train.py --tokenizer FOLDER --data FILE --d-model 768 --layers 12 --steps 4
    python benchmarks/train.py --tokenizer FOLDER --data FILE --seconds 240 --sides peer ours
    python benchmarks/train.py --tokenizer FOLDER --data FILE --sides ours eager fused adamw8bit

The first experiment's batch (6 x 4 rows, 512/128 tokens, LoRA r 48 on a 4-bit base, AdamW) on a
model of mT5's kind from random weights, with the 250,112 rows of mT5's vocabulary. The first side,
against which the others are held, is the plain script that a good engineer would write: the model
by transformers, adapters by PEFT, rows of new tokens frozen, Seq2SeqTrainer with dynamic padding
and `group_by_length`, and a loss scaled right (compute_loss_func), so that all learn the same.
Stock also learns the rows of new tokens, by PEFT's own layers, on rows drawn at random. Every side
takes as many steps, in a process of its own, one after the other. Tokens are those of the rows that
it saw, padding not counted. The passes that this program tries before its first step are timed by
themselves: a night has them once.

With --seconds each side trains that long at a constant rate, and the loss on 100 dev rows (dev.csv
beside FILE) is measured eight times meanwhile, outside of that time. FOLDER holds mT5's tokenizer
as a checkpoint has it (google/mt5-small: spiece.model, tokenizer_config.json), FILE rows as
data/train.csv has them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import RunError, UnfitError, run_script
from random_mt5 import VOCABULARY
from train_sides import (
    ACCUMULATION,
    ALL_SIDES,
    BATCH,
    REPOSITORY,
    SIDES,
    run_side,
    write_checkpoint,
)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tokenizer", type=Path, required=True, metavar="FOLDER", help="mT5's tokenizer")
    add(
        "--data",
        type=Path,
        default=REPOSITORY / "data/sample/train.csv",
        metavar="FILE",
        help="train rows (default: the sample's)",
    )
    add("--steps", type=int, default=16, help="optimizer steps of 24 rows (default: 16)")
    add("--d-model", type=int, default=256, help="width of the model (default: 256)")
    add("--layers", type=int, default=4, help="layers of encoder and decoder (default: 4)")
    add("--threads", type=int, default=2, help="processor threads (default: 2)")
    add(
        "--sides",
        nargs="+",
        choices=ALL_SIDES,
        default=list(SIDES),
        help="what to compare, the first is the measure of the "
        f"others (default: {' '.join(SIDES)})",
    )
    add("--seconds", type=float, help="train for that long, and measure the loss on dev meanwhile")
    add("--seed", type=int, default=42, help="of weights, order and dropout (default: 42)")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    add("--side", choices=[*ALL_SIDES, "write"], help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def measure(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every side in a process of its own and return their figures."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("write", *asked.sides):
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(asked.threads)},
            )
            if done.returncode:
                raise RunError(f"{side} ended with {done.returncode}; its last lines say why")
            if side != "write":
                found[side] = json.loads(done.stdout.splitlines()[-1])
                show(side, found[side], found[asked.sides[0]])
    return found


def show(side: str, one: dict[str, Any], first: dict[str, Any]) -> None:
    """Print one side's line, with its ratios to the first."""
    print(
        f"{side:>14}  {one['tokens_per_second']:7.0f} tokens/s "
        f"x {one['tokens_per_second'] / first['tokens_per_second']:4.2f}  "
        f"peak {one['peak_bytes'] / 2**30:5.2f} GiB "
        f"x {one['peak_bytes'] / first['peak_bytes']:4.2f} "
        f"(loaded {one['loaded_bytes'] / 2**30:4.2f})  padding {100 * one['padding']:4.1f} %  "
        f"loss {one['first_loss']:.3f} -> {one['last_loss']:.3f}  {ALL_SIDES[side].says}"
        + (f", rehearsed before for {spent:.0f} s" if (spent := one["rehearsal_seconds"]) else ""),
        flush=True,
    )


def say_curves(found: dict[str, dict[str, Any]]) -> None:
    """Print dev losses at equal time and, as far as all sides came, at equal steps."""
    for side, one in found.items():
        curve = "  ".join(f"{loss:.3f}" for _, _, loss in one["curve"])
        print(f"{side:>14}  dev loss at each eighth of the time: {curve}")
    least = min(one["curve"][-1][1] for one in found.values())
    for side, one in found.items():
        _, steps, losses = zip(*one["curve"], strict=True)
        print(f"{side:>14}  dev loss at step {least}: {np.interp(least, steps, losses):.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the sides and return the exit status."""
    asked = make_parser().parse_args(arguments)
    if asked.side:
        print(json.dumps(write_checkpoint(asked) if asked.side == "write" else run_side(asked)))
        return 0
    for path, what in ((asked.tokenizer, "mT5's tokenizer"), (asked.data, "train rows")):
        if not path.exists():
            raise UnfitError(f"{path}: is not there; it should hold {what}")
    length = f"{asked.steps} steps" if asked.seconds is None else f"{asked.seconds:g} s"
    print(
        f"mT5's kind, width {asked.d_model}, {asked.layers}+{asked.layers} layers, "
        f"{VOCABULARY:,} pieces, {length}, {BATCH} x {ACCUMULATION} rows a step, "
        f"{asked.threads} threads"
    )
    found = measure(asked)
    if asked.seconds is not None:
        say_curves(found)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_script(main)

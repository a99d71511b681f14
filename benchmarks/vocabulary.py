"""What scripts/trim_vocabulary.py saves: memory and time of an mT5-shaped model, whole and cut.

    python benchmarks/vocabulary.py TOKENIZER_FOLDER DATA_FOLDER

TOKENIZER_FOLDER holds mT5's tokenizer, DATA_FOLDER train.csv, dev.csv and test.csv. Weights are
random, their vocabulary is mT5's 250,112 rows. Each side runs in a process of its own, so that its
peak memory is its own. Prints a table and one JSON object; `measure` returns the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIDES = {"whole": False, "cut": True}


@dataclass(frozen=True)
class Size:
    """The model, and what it is given.

    Args:
        d_model, layers: width, and layers of encoder and decoder each.
        batch: rows a step.
        steps: timed steps, after one that is not.
        learn: all weights, or blocks: embeddings and head are frozen, as under adapters.
    """

    d_model: int = 256
    layers: int = 2
    batch: int = 6
    steps: int = 5
    learn: str = "all"


def measure(tokenizer: Path, data: Path, *, size: Size = Size()) -> dict[str, Any]:
    """Return peak memory and time per step of both sides, and how they compare.

    Args:
        tokenizer: folder of mT5's tokenizer.
        data: folder of train.csv, dev.csv and test.csv.

    Returns:
        whole and cut, each with rows, parameters, seconds_per_step, loss of the first step, and
        bytes over those of the process before the model is loaded: rss_loaded (after loading),
        mapped (of these, pages of the checkpoint's file, which the kernel takes back at need) and
        rss_peak (at most, in loading and training); and ratios cut / whole.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        _run("write", tokenizer, data, checkpoint=checkpoint, size=size)
        found = {
            side: _run(side, tokenizer, data, checkpoint=checkpoint, size=size) for side in SIDES
        }
    ratios = {
        key: round(found["cut"][key] / found["whole"][key], 3)
        for key in ("seconds_per_step", "rss_loaded", "rss_peak")
    }
    return {**found, "ratios": ratios, "size": vars(size)}


def _run(side: str, tokenizer: Path, data: Path, *, checkpoint: Path, size: Size) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    asked = [side, tokenizer, data, checkpoint, *vars(size).values()]
    done = subprocess.run(
        [sys.executable, __file__, "--side", *map(str, asked)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _write(tokenizer: Path, data: Path, checkpoint: Path, size: Size) -> dict[str, Any]:
    """Write a checkpoint of mT5's shape from random weights, and beside it the same, cut."""
    from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
    from dialsum.data.rows import read_data
    from dialsum.models.trim import trim_checkpoint
    from random_mt5 import write_random_mt5

    write_random_mt5(
        checkpoint,
        tokenizer=tokenizer,
        width=size.d_model,
        d_ff=4 * size.d_model,
        layers=size.layers,
    )
    splits = read_data(_config(data, checkpoint, size=size).data, seed=42)
    texts = [row.dialogue for split in splits.present for row in split.rows]
    texts += splits.train.summaries
    trim_checkpoint(checkpoint, _cut(checkpoint), texts=texts, new_tokens=STANDARD_DIALOGUE_TOKENS)
    return {}


def _cut(checkpoint: Path) -> Path:
    return checkpoint.with_name("cut")


def _measure_side(cut: bool, data: Path, checkpoint: Path, size: Size) -> dict[str, Any]:
    import torch

    from dialsum.config.schema import Tokenizer
    from dialsum.data.encode import dialogue_tokens, encode_rows
    from dialsum.data.rows import read_data
    from dialsum.machine.devices import peak_resident_bytes
    from dialsum.models.load import load_model, open_checkpoint, prepare_tokenizer

    config = _config(data, _cut(checkpoint) if cut else checkpoint, size=size)
    splits = read_data(config.data, seed=config.training.seed)
    source = open_checkpoint(config)
    tags = dialogue_tokens(config.tokenizer, splits.train.rows)
    prepared = prepare_tokenizer(source, config, tags=tags)
    encoded = encode_rows(
        splits.train.rows[: size.batch * (size.steps + 1)],
        prepared.tokenizer,
        Tokenizer(encoder_max_len=512, decoder_max_len=128),
    )
    before = _memory()
    model: Any = load_model(
        source,
        config=config,
        tokenizer=prepared.tokenizer,
        new_tokens=prepared.new_tokens,
        device="cpu",
        dtype=torch.float32,
    )
    after = _memory()
    if size.learn == "blocks":
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight.requires_grad_(False)
    seconds, losses = _train(model, encoded, prepared.tokenizer, size=size)
    return {
        "rows": len(model.get_output_embeddings().weight),
        "parameters": sum(one.numel() for one in model.parameters()),
        "seconds_per_step": statistics.median(seconds[1:]),
        "loss": losses[0],
        "rss_before": before.rss,
        "rss_loaded": after.rss - before.rss,
        "mapped": getattr(after, "shared", 0) - getattr(before, "shared", 0),
        "rss_peak": peak_resident_bytes() - before.rss,
    }


def _train(
    model: Any, encoded: Any, tokenizer: Any, *, size: Size
) -> tuple[list[float], list[float]]:
    """Take steps of AdamW on batches in order; return seconds and loss of each."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    seconds, losses = [], []
    for first in range(0, size.batch * (size.steps + 1), size.batch):
        began = time.perf_counter()
        inputs, targets = (
            [list(map(int, side[row])) for row in range(first, first + size.batch)]
            for side in (encoded.inputs, encoded.targets)
        )
        batch = tokenizer.pad({"input_ids": inputs}, return_tensors="pt")
        labels = tokenizer.pad({"input_ids": targets}, return_tensors="pt")
        labels = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return seconds, losses


def _config(data: Path, checkpoint: Path, *, size: Size) -> Any:
    from dialsum.config.schema import Config

    return Config.model_validate(
        {
            "model": {"architecture": "mt5", "checkpoint": str(checkpoint)},
            "tokenizer": {"encoder_max_len": 512, "decoder_max_len": 128},
            "data": {"data_dir": str(data.resolve())},
            "training": {
                "learning_rate": 1e-3,
                "num_train_epochs": 1,
                "eval_steps": 1,
                "per_device_train_batch_size": size.batch,
                "gradient_accumulation_steps": 1,
                "lr_scheduler_type": "constant",
            },
            "qlora": {"use_qlora": False},
        }
    )


def _memory() -> Any:
    """Return what this process has: rss and, on Linux, shared, its mapped files; bytes."""
    import psutil

    return psutil.Process().memory_info()


def _side(asked: list[str]) -> dict[str, Any]:
    side, tokenizer, data, checkpoint = asked[0], *map(Path, asked[1:4])
    d_model, layers, batch, steps = map(int, asked[4:8])
    size = Size(d_model, layers, batch, steps, asked[8])
    if side == "write":
        return _write(tokenizer, data, checkpoint, size)
    return _measure_side(SIDES[side], data, checkpoint, size)


def _show(found: dict[str, Any]) -> None:
    size = found["size"]
    print(
        f"d_model {size['d_model']}, {size['layers']}+{size['layers']} layers, "
        f"{size['batch']} rows a step, AdamW, {size['learn']} weights learn"
    )
    for side in SIDES:
        one = found[side]
        print(
            f"{side:>6}: {one['rows']:>8,} rows  {one['parameters'] / 1e6:7.1f} M parameters  "
            f"{one['seconds_per_step']:6.2f} s/step  "
            f"loaded {one['rss_loaded'] / 2**20:6,.0f} MiB "
            f"({one['mapped'] / 2**20:,.0f} mapped)  "
            f"at most {one['rss_peak'] / 2**20:6,.0f} MiB"
        )
    print(" ratio:", ", ".join(f"{key} {value}" for key, value in found["ratios"].items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(_side(sys.argv[2:])))
        sys.exit()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=Size.steps)
    asked = parser.parse_args()
    results = []
    for learn in ("all", "blocks"):
        size = Size(steps=asked.steps, learn=learn)
        results.append(measure(asked.tokenizer, asked.data, size=size))
        _show(results[-1])
    print(json.dumps(results))

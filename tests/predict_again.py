"""Loads the saved models of finished runs in a process of its own and prints what they predict.

    python tests/predict_again.py RUN_FOLDER…

Prints one JSON object: for each folder `loaded`, the dev summaries of the saved model, and `base`,
those of the model that it started from (adapters only).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from dialsum.config.load import load_config
from dialsum.config.schema import Config
from dialsum.data.encode import dialogue_tokens, encode_rows
from dialsum.data.prompts import make_frame
from dialsum.data.rows import read_data
from dialsum.generate import GenerationSettings, generate
from dialsum.models.save import load_saved_model


def write_dev(model: Any, tokenizer: Any, config: Config, *, bf16: bool = False) -> list[str]:
    """Return what a model writes of the dev rows that a config names."""
    splits = read_data(config.data, seed=config.training.seed)
    vocabulary = tokenizer.get_vocab()
    tags = [vocabulary[token] for token in dialogue_tokens(config.tokenizer, splits.train.rows)]
    frame = make_frame(config, tokenizer)
    inputs = encode_rows(splits.dev.rows, tokenizer, config.tokenizer, frame=frame).inputs
    settings = GenerationSettings.from_config(config, exempt=tags, bf16=bf16)
    return generate(
        model,
        tokenizer,
        inputs,
        settings=settings,
        batch_size=int(config.training.per_device_eval_batch_size),
    )


def predict(folder: Path) -> dict[str, list[str]]:
    """Return the dev summaries of a finished run's saved model and of its base."""
    config = load_config(folder / "resolved_config.yaml").config
    model, tokenizer = load_saved_model(
        folder / "model", config=config, device="cpu", dtype=torch.float32
    )
    found = {"loaded": write_dev(model, tokenizer, config)}
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            found["base"] = write_dev(model, tokenizer, config)
    return found


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(json.dumps({folder: predict(Path(folder)) for folder in sys.argv[1:]}))

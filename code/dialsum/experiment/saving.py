"""The saved model of a run, and its way back.

Weights or adapter (safetensors) and tokenizer; model_info.json is written last.

Must not know how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dialsum.atomic import write_json
from dialsum.config.read import LoadedConfig
from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.model.load import load_model
from dialsum.model.save import load_extra, save_weights
from dialsum.model.tokenizers import load_tokenizer
from dialsum.paths import RunPaths
from dialsum.train.fit import FitResult


def save_model(
    model: Any, tokenizer: Any, *, paths: RunPaths, loaded: LoadedConfig, result: FitResult,
    new_tokens: Sequence[str], tiny_base: str | None,
) -> None:
    """Write the best model of a run.

    Args:
        new_tokens: tokens that the base does not have; their first rows are made again on loading.
        tiny_base: folder below the model's that holds a tiny checkpoint; None: the base is
            config.model.checkpoint.
    """
    config = loaded.config
    if config.qlora.use_qlora:
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = tiny_base or config.model.checkpoint
    save_weights(model, paths.model)
    tokenizer.save_pretrained(paths.model)
    write_json(paths.model_info, {
        "schema_version": 1, "experiment": loaded.name, "config_sha256": loaded.sha256,
        "architecture": config.model.architecture,
        "kind": "adapter" if config.qlora.use_qlora else "full",
        "base": tiny_base or config.model.checkpoint, "base_is_inside": tiny_base is not None,
        "tokens_added": list(new_tokens), "best_step": result.best_step,
        "input_prefix": config.tokenizer.input_prefix,
        "encoder_max_len": config.tokenizer.encoder_max_len,
        "decoder_max_len": config.tokenizer.decoder_max_len,
    })


def load_saved_model(folder: Path, *, config: Config, device: str, dtype: Any) -> tuple[Any, Any]:
    """Load a saved model for prediction.

    Args:
        folder: as save_model wrote it.
        config: the run's resolved config.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        UnfitError: the folder has no model_info.json, so nothing whole was saved there.
    """
    info_path = folder / "model_info.json"
    if not info_path.is_file():
        raise UnfitError(f"{folder}: no model_info.json, so this is no finished model of a run")
    info = json.loads(info_path.read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(folder)
    base: str | Path = folder / info["base"] if info["base_is_inside"] else info["base"]
    if info["kind"] == "full":
        base = folder
    loaded = load_model(
        base, config=config, tokenizer=tokenizer,
        new_tokens=info["tokens_added"] if info["kind"] == "adapter" else [],
        device=device, dtype=dtype,
    )
    if info["kind"] == "full":
        return loaded.model, tokenizer
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(loaded.model, str(folder))
    load_extra(adapted, folder)
    return adapted.eval(), tokenizer

"""The saved model of a run, and its way back.

Weights or adapter (safetensors) and tokenizer; model_info.json is written last.

Must not know how it was trained.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.config.load import LoadedConfig
from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.files import write_json
from dialsum.models.hub import fetch_folder, resolve_checkpoint, weight_files
from dialsum.models.load import LoadedModel, load_model
from dialsum.models.save import save_weights
from dialsum.models.tokenizers import load_tokenizer
from dialsum.paths import RunPaths


def save_model(
    model: Any,
    tokenizer: Any,
    *,
    paths: RunPaths,
    loaded: LoadedConfig,
    best_step: int,
    new_tokens: Sequence[str],
    tags: Sequence[str],
    dtype: Any,
) -> dict[str, Any]:
    """Write the best model of a run.

    Args:
        best_step: optimizer step of the checkpoint that the weights are of.
        new_tokens: tokens that the base does not have; their first rows are made again on loading.
        tags: tokens of the dialogues, which a search may repeat.
        dtype: torch dtype of weights that are not quantised.

    Returns:
        What stands in model_info.json.
    """
    source = resolve_checkpoint(loaded.config.model.checkpoint)
    base = str(source.resolve()) if isinstance(source, Path) else source
    config = loaded.config.model_copy(
        update={"model": loaded.config.model.model_copy(update={"checkpoint": base})}
    )
    if config.qlora.use_qlora:
        for adapter in model.peft_config.values():
            adapter.base_model_name_or_path = base
            adapter.revision = config.model.revision
    save_weights(model, paths.model)
    tokenizer.save_pretrained(paths.model)
    info = {
        "schema_version": 1,
        "experiment": loaded.name,
        "config_sha256": loaded.sha256,
        "architecture": config.model.architecture,
        "kind": "adapter" if config.qlora.use_qlora else "full",
        "base": base,
        "base_revision": config.model.revision,
        **({"base_sha256": hash_weights(source)} if isinstance(source, Path) else {}),
        "tokens_added": list(new_tokens),
        "tags": list(tags),
        "best_step": best_step,
        "dtype": str(dtype),
        "config": config.model_dump(mode="json"),
    }
    write_json(paths.model_info, info)
    return info


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weight files."""
    digest = hashlib.sha256()
    for name in weight_files({path.name for path in folder.iterdir()}):
        with (folder / name).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


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
    saved = read_saved(folder)
    loaded = load_saved_base(saved, config=config, device=device, dtype=dtype)
    if saved.kind == "full":
        return loaded.model, saved.tokenizer
    return attach_adapter(loaded.model, folder), saved.tokenizer


@dataclass(frozen=True)
class SavedFolder:
    """A saved model before its weights are read.

    Args:
        info: as it stands in model_info.json.
        base: checkpoint that the weights come from: the folder itself where all were saved.
    """

    folder: Path
    info: dict[str, Any]
    base: str | Path
    tokenizer: Any

    @property
    def kind(self) -> str:
        """Whether an adapter was saved, or a full model."""
        return str(self.info["kind"])


def read_info(folder: Path) -> dict[str, Any]:
    """Return what stands in a saved model's model_info.json.

    Raises:
        UnfitError: the folder has none, so nothing whole was saved there.
    """
    path = folder / "model_info.json"
    if not path.is_file():
        raise UnfitError(f"{folder}: no model_info.json, so this is no finished model of a run")
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return info


def read_saved(folder: Path) -> SavedFolder:
    """Read what a saved model is, and its tokenizer.

    Raises:
        UnfitError: the folder has no model_info.json, so nothing whole was saved there.
    """
    info = read_info(folder)
    return SavedFolder(
        folder=folder,
        info=info,
        base=folder if info["kind"] == "full" else info["base"],
        tokenizer=load_tokenizer(folder),
    )


def load_saved_base(saved: SavedFolder, *, config: Config, device: str, dtype: Any) -> LoadedModel:
    """Load a saved model's weights without its adapter, quantised as in the run."""
    new_tokens = saved.info["tokens_added"]
    if saved.kind == "full":
        # A merged model, too: its weights are floats, whatever its run's base was held in.
        whole = config.qlora.model_copy(update={"use_qlora": False})
        config, new_tokens = config.model_copy(update={"qlora": whole}), []
    base = saved.base
    if not isinstance(base, Path) and Path(base).is_absolute():
        wanted, place = saved.info.get("base_sha256"), Path(base)
        if not place.is_dir():
            raise UnfitError(
                f"{saved.folder}: its adapter belongs to the checkpoint in {place}, which is not "
                "there any more; put it back"
            )
        if wanted and hash_weights(place) != wanted:
            raise UnfitError(
                f"{saved.folder}: its adapter belongs to the checkpoint that was in {place}, and "
                "other weights are there now; put those back"
            )
        base = place
    if not isinstance(base, Path):
        model = config.model.model_copy(update={"checkpoint": base})
        base = fetch_folder(model, environment=os.environ)
    return load_model(
        base,
        config=config,
        tokenizer=saved.tokenizer,
        new_tokens=new_tokens,
        device=device,
        dtype=dtype,
    )


def attach_adapter(base: Any, folder: Path) -> Any:
    """Put the adapter of a folder on its base and return the model in evaluation mode."""
    from peft import PeftModel

    from dialsum.models.token_rows import compute_rows_in_place

    adapted = PeftModel.from_pretrained(base, str(folder))
    compute_rows_in_place(adapted)
    return adapted.eval()

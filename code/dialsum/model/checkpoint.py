"""What a checkpoint is, as far as it shows without loading: where it lies, its files, its config.

Must not import a library that loads models: it runs before every batch as well as in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.model.families import Family, get_family
from dialsum.paths import project_path, shown

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
LENGTHS = ("encoder_max_len", "decoder_max_len")
DECODER_START = "decoder_start_token_id"


def resolve_checkpoint(checkpoint: str) -> str | Path:
    """Return the local folder that a checkpoint names, or the name itself for the hub.

    Raises:
        UnfitError: it looks like a folder and is none, or a folder without config.json.
    """
    for folder in (Path(checkpoint).expanduser(), project_path(checkpoint)):
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UnfitError(
                    f"model.checkpoint {folder}: this folder has no config.json, so it holds no "
                    "checkpoint"
                )
            return folder
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1:
        raise UnfitError(
            f"model.checkpoint {checkpoint}: no such folder (and no hub name, which is OWNER/NAME)"
        )
    return checkpoint


def weight_format(source: str | Path) -> str | None:
    """Say which weight file of a local folder is read; None for a hub name: the library looks.

    Raises:
        UnfitError: the folder holds neither safetensors nor pytorch_model.bin.
    """
    if not isinstance(source, Path):
        return None
    if any((source / name).is_file() for name in SAFETENSORS):
        return "safetensors"
    if any((source / name).is_file() for name in PICKLES):
        return "pytorch_model.bin"
    found = sorted(path.name for path in source.iterdir() if path.is_file())
    raise UnfitError(
        f"{source}: no model.safetensors and no pytorch_model.bin "
        f"(found {', '.join(found) or 'nothing'}); "
        "weights in other pickles are not read, since a pickle can run any code"
    )


def find_checked_keys(family: Family) -> list[str]:
    """Return the keys of a checkpoint's config that find_config_problems looks at."""
    limit = [family.position_limit] if family.position_limit else []
    return ["model_type", DECODER_START, *limit]


def find_config_problems(
    own: Mapping[str, Any], config: Config, *, source: str | Path
) -> list[str]:
    """Hold a checkpoint's own config against the experiment's: its type, start and positions.

    Args:
        own: the content of its config.json; a key that is absent has the library's default.
        source: hub name or local folder, for the messages.
    """
    family = get_family(config.model.architecture)
    place = f"model.checkpoint {shown(source) if isinstance(source, Path) else source}"
    if own.get("model_type") != family.model_type:
        return [
            f"{place} is of type {own.get('model_type')!r}, but model.architecture says "
            f"{config.model.architecture!r}; set model.architecture to what the checkpoint is"
        ]
    problems = []
    if own.get(DECODER_START, 0) is None:
        problems.append(
            f"{place}: its config.json has no {DECODER_START}; add the one that it was trained "
            "with (T5: the padding id, BART: the end id)"
        )
    limit = own.get(family.position_limit) if family.position_limit else None
    problems += [
        f"tokenizer.{key} {asked} is beyond the {limit} positions of {place}; set "
        f"tokenizer.{key} to at most {limit}"
        for key in LENGTHS
        if isinstance(limit, int) and (asked := getattr(config.tokenizer, key)) > limit
    ]
    return problems

"""Whether an experiment's checkpoint is where it will be looked for, as far as that is known
without loading it.

Must not import a library that loads models, nor ask the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.model.checkpoint import find_config_problems, resolve_checkpoint, weight_format
from dialsum.model.families import find_foreign_targets, get_family
from dialsum.paths import shown


def find_model_problems(
    config: Config, *, environment: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Return what is wrong with an experiment's checkpoint, and what the user should know of it.

    Args:
        environment: environment variables, which say where the hub's cache is and whether there is
            a network.
    """
    foreign = _find_foreign_targets(config)
    if config.model.initialise == "tiny" or foreign:
        return foreign, []
    try:
        source = resolve_checkpoint(config.model.checkpoint)
        if isinstance(source, str):
            return _check_cache(source, environment)
        weight_format(source)
    except UnfitError as error:
        return [str(error)], []
    return _check_local(source, config), []


def _find_foreign_targets(config: Config) -> list[str]:
    """Name LoRA targets that would stop the run only after its model is loaded."""
    if not config.qlora.use_qlora or config.qlora.target_modules == "auto":
        return []
    family = get_family(config.model.architecture)
    foreign = find_foreign_targets(config.qlora.target_modules, family=family)
    if not foreign:
        return []
    return [
        f"qlora.target_modules: {', '.join(foreign)} match(es) no layer of a {family.name} model; "
        f"it has {', '.join(family.linear)}, embed_tokens, lm_head"
    ]


def _check_local(folder: Path, config: Config) -> list[str]:
    """Hold a local checkpoint's own config against the experiment's."""
    try:
        own: dict[str, Any] = dict(
            json.loads((folder / "config.json").read_text(encoding="utf-8")).items()
        )
    except (OSError, ValueError, AttributeError) as error:
        return [
            f"model.checkpoint {shown(folder)}: its config.json cannot be read ({error}); copy "
            "the checkpoint again"
        ]
    return find_config_problems(own, config, source=folder)


def _check_cache(name: str, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Look whether a hub checkpoint was downloaded before; without it, the network is needed."""
    cache = find_hub_cache(environment)
    if (cache / f"models--{name.replace('/', '--')}" / "snapshots").is_dir():
        return [], []
    if environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return [
            f"model.checkpoint {name}: not in the cache {cache}, and HF_HUB_OFFLINE forbids its "
            "download; unset "
            "HF_HUB_OFFLINE, set HF_HOME to where it is, or give a local folder"
        ], []
    return [], [
        f"model.checkpoint {name} is not in the cache {cache} yet and will be downloaded at its "
        "start"
    ]


def find_hub_cache(environment: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's library keeps downloads, by its own rules."""
    if cache := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    home = (
        environment.get("HF_HOME")
        or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    )
    return Path(os.path.expandvars(home)).expanduser() / "hub"

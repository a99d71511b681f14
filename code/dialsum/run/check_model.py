"""Whether an experiment's checkpoint is where it will be looked for, as far as that is known
without loading it.

Must not import a library that loads models, nor ask the network.
"""

from __future__ import annotations

from collections.abc import Mapping

from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.model.checkpoint import (
    describe_own_search,
    find_folder,
    find_folder_problems,
    find_hub_cache,
    find_weights,
    resolve_checkpoint,
    weight_format,
)
from dialsum.model.families import find_foreign_targets, get_family
from dialsum.text_table import align


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
        folder = find_folder(config, environment=environment)
        problems = [] if folder is None else find_folder_problems(folder, config)
        source = resolve_checkpoint(config.model.checkpoint)
        if isinstance(source, str) and (folder is None or find_weights(folder) is None):
            absent, notes = _need_network(source, environment)
            return [*problems, *absent], notes
        weight_format(source)
        return problems, []
    except UnfitError as error:
        return [str(error)], []


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


def _need_network(name: str, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Say of a hub checkpoint that was not downloaded before that it will be, or cannot be."""
    cache = find_hub_cache(environment)
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



def explain_checkpoint(config: Config, *, environment: Mapping[str, str]) -> list[str]:
    """Return what a checkpoint's own files ask of generation beside the experiment, as lines.

    Args:
        environment: environment variables, which say where the hub's cache is.
    """
    if config.model.initialise == "tiny":
        return []
    checkpoint = config.model.checkpoint
    try:
        folder = find_folder(config, environment=environment)
        if folder is None:
            return [
                f"{checkpoint} is not downloaded yet: what its own files ask of generation is not "
                "known (nothing of it acts)"
            ]
        rows = describe_own_search(folder, config)
    except UnfitError as error:
        return [str(error)]
    if not rows:
        return [f"{checkpoint} asks nothing else of generation than what is done here"]
    lines = [f"{checkpoint} asks of generation, and what is done instead:"]
    return lines + [f"  {line}" for line in align(rows, left=range(3))]

"""Whether an experiment's checkpoint is where it will be looked for, as far as that is known
without loading it.

And its download, before anything starts. Must not import a library that loads models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dialsum.config.problems import Origin
from dialsum.config.read import LoadedConfig
from dialsum.config.schema import Config
from dialsum.errors import ProblemsError, UnfitError
from dialsum.models.checkpoint import (
    describe_own_search,
    fetch_folder,
    find_folder,
    find_folder_problems,
    resolve_checkpoint,
    weight_format,
)
from dialsum.models.checkpoint_files import find_file_problems, name_place
from dialsum.models.families import find_foreign_targets, get_family
from dialsum.models.hub import explain_offline, find_hub_cache, is_offline
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
        source = resolve_checkpoint(config.model.checkpoint)
        folder = find_folder(config, environment=environment)
        if folder is None:
            return _need_network(config.model.checkpoint, environment)
        place = name_place(folder) if isinstance(source, Path) else f"model.checkpoint {source}"
        problems = find_file_problems(folder, place=place)
        if not problems:
            weight_format(folder)
            problems = find_folder_problems(folder, config, source=source)
        cached = f"{place}: in the cache, at commit {folder.name[:12]}; no newer one is asked for"
        return problems, [] if isinstance(source, Path) else [cached]
    except UnfitError as error:
        return [str(error)], []


def pin_checkpoint(
    loaded: LoadedConfig, *, environment: Mapping[str, str], say: Callable[[str], object] = print
) -> LoadedConfig:
    """Return an experiment whose hub checkpoint is in the cache, fit, and stated by its commit.

    A checkpoint of a local folder, or none at all, is nothing to pin.

    Raises:
        UnfitError: it cannot be downloaded, or what came is not fit.
    """
    config = loaded.config
    if config.model.initialise == "tiny" or isinstance(
        resolve_checkpoint(config.model.checkpoint), Path
    ):
        return loaded
    commit = fetch_folder(config, environment=environment, say=say).name
    model = config.model.model_copy(update={"revision": commit})
    origin = Origin(None, None, "the hub's commit that was looked at before the start")
    pinned = replace(
        loaded,
        config=config.model_copy(update={"model": model}),
        origins={**loaded.origins, "model.revision": origin},
    )
    problems, _ = find_model_problems(pinned.config, environment=environment)
    if problems:
        raise ProblemsError(problems)
    return pinned


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
    if is_offline(environment):
        return [explain_offline(name, environment)], []
    return [], [
        f"model.checkpoint {name} is not in the cache {find_hub_cache(environment)} yet and will "
        "be downloaded before the first experiment starts"
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

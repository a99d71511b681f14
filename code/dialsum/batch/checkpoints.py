"""Checkpoints before a batch or a run starts: what is wrong with them; then those of the hub are
downloaded and stated by commit, a demo's made, so that no experiment meets the network at night.

Must not load a model nor import a library that does.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dialsum.batch.plan import BatchPlan
from dialsum.config.load import LoadedConfig
from dialsum.config.schema import Config, Data
from dialsum.config.yaml import Origin
from dialsum.errors import ProblemsError, UnfitError, list_problems
from dialsum.experiment.job import Job
from dialsum.models.checkpoint import (
    describe_own_search,
    explain_ban,
    fetch_folder,
    find_ban,
    find_checkpoint_problems,
    find_folder,
    find_hub_cache,
    resolve_checkpoint,
)
from dialsum.models.families import find_foreign_targets, get_family
from dialsum.models.tiny import describe_making, is_made
from dialsum.paths import PROJECT_ROOT, project_path, shown
from dialsum.text import align


def pin_checkpoints(plan: BatchPlan, *, say: Callable[[str], object]) -> BatchPlan:
    """Download every hub checkpoint of a plan that is not in the cache, and look at each; make the
    tiny ones of a demo.

    Returns:
        The plan, each experiment with the commit of its checkpoint as model.revision.

    Raises:
        ProblemsError: those that cannot be downloaded or are not fit; nothing was started.
    """
    if plan.kind == "demo":
        _make_checkpoints(plan.waiting, say)
        return plan
    pinned, problems = [], []
    for job in plan.jobs:
        try:
            ended = job.number in plan.ended
            one = job if ended else replace(job, loaded=pin_checkpoint(job.loaded, say=say))
            pinned.append(one)
        except UnfitError as error:
            problems += [f"{job.number} {job.label}: {text}" for text in list_problems(error)]
    if problems:
        raise ProblemsError(problems)
    return replace(plan, jobs=tuple(pinned))


def find_absent(jobs: Sequence[Job]) -> dict[Path, Data]:
    """Return the tiny checkpoints that are absent, or of other rows, each with the data whose
    training rows train its tokenizer: the first experiment's.
    """
    rows = {Path(job.config.model.checkpoint): job.config.data for job in reversed(jobs)}
    return {
        folder: data
        for folder, data in sorted(rows.items())
        if not ((file := _train_file(data)).is_file() and is_made(folder, describe_making(file)))
    }


def is_here(config: Config) -> bool:
    """Tell whether an experiment's checkpoint can be read without a network."""
    try:
        return find_folder(config.model) is not None
    except UnfitError:
        return False  # a demo makes it; others are refused with the reason


def _train_file(data: Data) -> Path:
    return project_path(data.data_dir) / data.train_file


def _make_checkpoints(jobs: Sequence[Job], say: Callable[[str], object]) -> None:
    """Make a demo's tiny checkpoints in one process of their own, since that loads torch.

    Raises:
        UnfitError: it could not, with what it said.
    """
    absent: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder, data in find_absent(jobs).items():
        say(f"making a tiny checkpoint in {shown(folder)}")
        columns = [f"{key}={name}" for key, name in data.columns.model_dump().items()]
        command = (str(folder.parent), "--data", str(_train_file(data)), "--columns", *columns)
        absent[command].append(folder.name)
    script = PROJECT_ROOT / "scripts" / "make_tiny_checkpoints.py"
    for words, names in absent.items():
        done = subprocess.run(
            [sys.executable, str(script), *words, "--only", *names],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().removeprefix("error: ")
            raise UnfitError(f"no tiny checkpoint could be made: {said}")


def pin_checkpoint(loaded: LoadedConfig, *, say: Callable[[str], object] = print) -> LoadedConfig:
    """Return an experiment whose hub checkpoint is in the cache, fit, and stated by its commit.

    A checkpoint of a local folder is nothing to pin.

    Raises:
        UnfitError: it cannot be downloaded, or what came is not fit.
    """
    config = loaded.config
    if isinstance(resolve_checkpoint(config.model.checkpoint), Path):
        return loaded
    here = find_folder(config.model)
    commit = fetch_folder(config.model, say=say).name
    origin = Origin(None, None, "the hub's commit that was looked at before the start")
    pinned = loaded.with_model(origin, revision=commit)
    # What was here was looked at already.
    if here is None and (problems := find_model_problems(pinned.config)[0]):
        raise ProblemsError(problems)
    return pinned


def find_model_problems(config: Config, *, made_here: bool = False) -> tuple[list[str], list[str]]:
    """Return what is wrong with an experiment's checkpoint, and what the user should know of it.

    Args:
        made_here: it is a demo's, which is made when all else is fit.
    """
    if config.qlora.use_qlora and config.qlora.target_modules != "auto":
        # They would stop the run only after its model is loaded.
        family = get_family(config.model.architecture)
        if foreign := find_foreign_targets(config.qlora.target_modules, family=family):
            return [
                f"qlora.target_modules: {', '.join(foreign)} match(es) no layer of a {family.name} "
                f"model; it has {', '.join(family.linear)}, embed_tokens, lm_head"
            ], []
    if made_here:
        return [], []
    name = config.model.checkpoint
    try:
        source = resolve_checkpoint(name)
        folder = find_folder(config.model)
        if folder is None and (ban := find_ban()):
            return [explain_ban(name, ban=ban)], []
        if folder is None:
            return [], [
                f"model.checkpoint {name} is not in the cache {find_hub_cache()} yet: it is to be "
                "downloaded before the first experiment starts"
            ]
        if isinstance(source, Path):
            return find_checkpoint_problems(folder, config), []
        place = f"model.checkpoint {source}"
        cached = f"{place}: in the cache, at commit {folder.name[:12]}; no newer one is asked for"
        return find_checkpoint_problems(folder, config, place=place), [cached]
    except UnfitError as error:
        return [str(error)], []


def explain_checkpoint(config: Config) -> list[str]:
    """Return what a checkpoint's own files ask of generation beside the experiment, as lines."""
    checkpoint = config.model.checkpoint
    try:
        folder = find_folder(config.model)
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

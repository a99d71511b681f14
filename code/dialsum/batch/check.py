"""Everything that can be known to be wrong before a batch or a run starts, found together: data,
places, machine, packages and checkpoints.

Must not load a model nor import a library that does, nor stop at the first problem.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from dialsum.batch.checkpoints import find_absent, find_model_problems
from dialsum.batch.first_look import (
    DATA_FILES,
    MAIN_COMMAND,
    find_data_problems,
    find_gpu_problems,
    installed_torch_build,
)
from dialsum.batch.lock import find_batches_at_work, find_runs_at_work
from dialsum.batch.plan import BatchPlan
from dialsum.batch.space import ELSEWHERE, find_lack_of_space, find_obstacle
from dialsum.config.load import load_without_wrong
from dialsum.config.rules import find_length_problems
from dialsum.config.schema import Config
from dialsum.data.rows import Kind, Splits, load_split, name_data, read_data
from dialsum.environment_variables import WORLD_SIZES
from dialsum.errors import DialsumError, list_problems
from dialsum.machine.devices import (
    explain_few_gpus,
    host_memory,
    nvidia_gpus,
    usable_cores,
    visible_gpus,
)
from dialsum.models.checkpoint import find_size
from dialsum.packages import find_shadowed_packages, find_version_problems
from dialsum.paths import PROJECT_ROOT, project_path, shown
from dialsum.record import find_foreign, read_json_object

TINY_PARAMETERS = 20_000_000
"""Up to here a checkpoint trains on a CPU in minutes; real ones have six times that at least."""
RAY_INSTALL = ".venv/bin/python -m pip install -r requirements-ray.txt"
MEMORY_BYTES = 3 * 2**30 // 2
"""What the process of a tiny model takes at most, its libraries included."""


@dataclass(frozen=True)
class Findings:
    """What was found before the start.

    Attributes:
        plan: as given, with the rows that were counted and the slots that were chosen.
        problems: each forbids the start.
        notes: what the user should know.
        machine_fit: whether a start on this machine would go on; a dry run is told, not refused.
    """

    plan: BatchPlan
    problems: list[str]
    notes: list[str]
    machine_fit: bool = True


def check_plan(plan: BatchPlan, *, dry_run: bool = False, refused: Sequence[str] = ()) -> Findings:
    """Check data, place, machine, packages and local models of a plan.

    Args:
        dry_run: nothing will be trained here now. Another batch at work is a note then, and so is
            a missing GPU where nothing else is wrong.
        refused: problems of the configuration. What is wrong beside them is looked for as well.
    """
    demo, options = plan.kind == "demo", plan.options
    configs = [job.config for job in plan.waiting]
    if refused:
        planned = {job.number for job in plan.jobs}
        for number in options.numbers:
            if number not in planned:
                path = options.configs[number - 1]
                one = load_without_wrong(
                    path, overrides=options.all_overrides, overlays=options.overlays(path)
                )
                configs += [one.config] if one else []
    # The data of what has ended too: where they changed since, it is no longer of this batch.
    splits, problems, notes = check_data([*configs, *(job.config for job in plan.jobs)])
    problems += find_place_problems(plan) + find_shadowed_packages()
    problems += find_version_problems(PROJECT_ROOT / "requirements.txt")
    slots, cards, wrong = choose_slots(configs)
    problems += wrong
    if plan.executor == "ray":
        if find_spec("ray") is None:
            problems.append(f"batch.executor is ray, and Ray is not installed: {RAY_INSTALL}")
        if slots == 1 < len(configs):
            notes.append(
                "batch.slots is 1, so the cluster runs one experiment at a time; --set "
                "batch.slots=auto takes all that its nodes have room for"
            )
    elif plan.options.ray_address:
        problems.append(
            f"--ray-address {plan.options.ray_address}: batch.executor is local, so no cluster is "
            "used; leave one of the two out"
        )
    jobs, changed = [], []
    for job in plan.jobs:
        rows = splits[name_data(job.config.data, seed=job.config.training.seed)]
        if rows is not None:
            if job.data_sha256 and job.data_sha256 != rows.sha256:
                job = replace(job, resume=False)
                changed.append(job.number)
            job = replace(job, train_rows=len(rows.train), data_sha256=rows.sha256)
        jobs.append(job)
        if job.number in plan.ended.difference(changed):
            continue
        wrong, remarks = find_model_problems(job.config, made_here=demo)
        short, lengths = find_length_problems(job.config.training, train_rows=job.train_rows)
        problems += [f"{job.number} {job.label}: {problem}" for problem in (*wrong, *short)]
        notes += [*remarks, *job.loaded.notes]
        notes += [f"{job.number} {job.label}: {remark}" for remark in lengths]
    held = find_batches_at_work(plan.paths) or find_runs_at_work(job.paths for job in plan.jobs)
    if demo and (absent := find_absent(jobs)):
        notes.append(f"tiny checkpoints will be made: {', '.join(map(shown, absent))}")
    gpu = find_machine_problems(configs, demo=demo)
    if dry_run:
        # Nothing is written, so the other batch is not disturbed; it may have ended by the start.
        notes += [f"a start now would be refused: {problem}" for problem in held]
    else:
        problems += held
    if dry_run and not (problems or refused):
        notes += [f"a start on this machine would be refused: {problem}" for problem in gpu]
    else:
        problems += gpu
    if changed:
        names = ", ".join(f"{job.number} {job.label}" for job in jobs if job.number in changed)
        notes.append(f"the data changed since the batch began: {names} start from the beginning")
    return Findings(
        replace(
            plan, jobs=tuple(jobs), slots=slots, cards=cards, ended=plan.ended.difference(changed)
        ),
        # What several experiments share is said once.
        list(dict.fromkeys(problems)),
        list(dict.fromkeys(notes)),
        machine_fit=not gpu,
    )


# What is wrong with the data


def check_data(configs: Iterable[Config]) -> tuple[dict[str, Splits | None], list[str], list[str]]:
    """Read the files of every experiment, those that several share once.

    Returns:
        The rows by what names them, None where they could not be read; problems; notes.
    """
    found: dict[str, Splits | None] = {}
    problems: list[str] = []
    notes: list[str] = []
    for config in configs:
        key = name_data(config.data, seed=config.training.seed)
        if key in found:
            continue
        splits, wrong = _read(config)
        found[key] = splits
        problems += wrong
        if splits is not None:
            counts = (f"{shown(one.path)} {len(one):,} {one.kind} rows" for one in splits.present)
            notes += [f"data: {', '.join(counts)}", *splits.notes]
    return found, problems, notes


def _read(config: Config) -> tuple[Splits | None, list[str]]:
    data = config.data
    folder = project_path(data.data_dir)
    names = tuple(name for name in (data.train_file, data.dev_file, data.test_file) if name)
    missing = find_data_problems(folder) if names == DATA_FILES else []
    if missing:
        # What is there is read all the same; what is no table at all was named already.
        kinds: tuple[Kind, ...] = ("train", "dev", "test")
        for kind, name in zip(kinds, DATA_FILES, strict=True):
            if not find_data_problems(folder, [name]):
                try:
                    load_split(folder / name, kind=kind, columns=data.columns)
                except DialsumError as error:
                    missing += list_problems(error)
        return None, missing
    try:
        splits = read_data(data, seed=config.training.seed)
    except DialsumError as error:
        return None, list_problems(error)
    return splits, []


# What is wrong with the machine


def find_machine_problems(configs: Sequence[Config], *, demo: bool = False) -> list[str]:
    """Return why this machine cannot run these experiments; must not import torch for it.

    Args:
        demo: they start from tiny checkpoints, which may not be there yet.
    """
    problems = []
    for name in WORLD_SIZES:
        size = os.environ.get(name, "").strip()
        if size and not size.isdecimal():
            problems = [f"{name}={size!r} is no number of processes; unset {name}"]
        elif size and int(size) > 1:
            # Each of them would train it all and write the same files.
            problems = [
                f"{name}={size}: a launcher such as torchrun started {size} processes, but an "
                "experiment starts the processes that it needs itself. Start the command without "
                f"the launcher; where the variable stays from elsewhere: unset {name}. To use "
                "several GPUs: --set batch.slots=auto runs an experiment on each, --set "
                "batch.gpus_per_experiment=2 each experiment on two"
            ]
    if any(config.evaluation.tokenizer == "kiwi" for config in configs) and not find_spec(
        "kiwipiepy"
    ):
        problems.append(
            "evaluation.tokenizer is kiwi, and kiwipiepy is not installed: "
            ".venv/bin/python -m pip install -r requirements-kiwi.txt"
        )
    # Real checkpoints need a card unless another device is named; tiny ones only when it is.
    if any(
        # Of a cluster's nodes the executor knows what they have.
        config.batch.executor == "local"
        and (config.general.device == "cuda" or needs_card(config, demo=demo))
        for config in configs
    ):
        hint = f"\n      Or see the whole way work here, with tiny models: {MAIN_COMMAND} --demo"
        gpu = find_gpu_problems(os.environ, build=installed_torch_build())
        problems += [text + hint for text in gpu]
    return problems


def needs_card(config: Config, *, demo: bool) -> bool:
    """Tell whether an experiment that names no device is one for a card: a real checkpoint's.

    Args:
        demo: it starts from a tiny checkpoint, which may not be there yet.
    """
    return (
        config.general.device == "auto"
        and not demo
        and find_size(config).value.parameters > TINY_PARAMETERS
    )


def choose_slots(configs: Sequence[Config]) -> tuple[int, tuple[str, ...], list[str]]:
    """Return how many experiments run at the same time, the cards of all of them where several
    have their own (by uuid), and what is wrong with what was asked.

    `auto` is one for each card, or for as many as each takes, else one for each core, as far as
    memory goes; on a Ray cluster, which has not been asked yet, all of them.
    """
    asked = configs[0].batch.slots if configs else 1
    each = configs[0].batch.gpus_per_experiment if configs else 1
    if asked == each == 1:
        return 1, (), []
    if configs[0].batch.executor == "ray":
        return len(configs) if asked == "auto" else min(asked, len(configs)), (), []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        gpus = nvidia_gpus()
        cards = visible_gpus(gpus, visible)
        has_card = bool(cards) or sys.platform == "darwin"
    except DialsumError:
        gpus, cards, has_card = [], [], True  # there is a driver, and it does not say
    devices = {config.general.device for config in configs}
    if devices & {"cuda", "mps"} or (has_card and "auto" in devices):
        # Parts of a card cannot be told apart here, and stand for the whole one.
        whole = [] if "MIG-" in (visible or "") else [card.uuid for card in cards]
        if each > 1 and (cards or sys.platform == "darwin"):
            few = explain_few_gpus(each, gpus, visible)
            if few:
                return 1, (), [few]
        places = len(whole) // each
        room = min(places, len(configs))
        if asked == "auto" or asked <= max(1, places):
            slots = max(1, room if asked == "auto" else min(asked, room))
            return slots, tuple(whole[: slots * each]) if slots > 1 else (), []
        seen = "one card is" if len(whole) == 1 else f"{len(whole)} whole cards are"
        own = "a card" if each == 1 else f"{each} cards"
        problem = (
            f"batch.slots {asked}: each experiment has {own} of its own, since two of them would "
            f"share its memory, and {seen} visible here; say auto, or {max(1, places)}"
        )
        return 1, (), [problem]
    free = host_memory().free_bytes
    room = len(configs) if free is None else free // (each * MEMORY_BYTES)
    slots = min(usable_cores() // each, room) if asked == "auto" else asked
    return max(1, min(slots, len(configs))), (), []


# What is wrong with the places


def find_place_problems(plan: BatchPlan) -> list[str]:
    """Return what is wrong with the places that a batch writes to."""
    paths = plan.paths
    folders = dict.fromkeys([paths.root, paths.runs, paths.log_root])
    problems = [problem for folder in folders if (problem := find_obstacle(folder))]
    if os.path.lexists(paths.summary) and "schema_version" not in read_json_object(paths.summary):
        problems.append(
            f"{shown(paths.summary)}: was not written by this program, which writes its own file "
            f"of that name there; move it, or {ELSEWHERE}"
        )
    problems += [problem for job in plan.jobs if (problem := find_foreign(job.paths))]
    if problems or plan.kind == "demo":  # which takes 100 MB in all
        return list(dict.fromkeys(problems))
    return find_lack_of_space([job for job in plan.waiting if not job.resume])

"""Everything that can be known to be wrong before a batch or a run starts, found together: data,
places, machine, packages and checkpoints.

Must not load a model nor import a library that does, nor stop at the first problem.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from dialsum.batch.checkpoints import find_absent, find_model_problems, is_here
from dialsum.batch.first_look import (
    DATA_FILES,
    find_data_problems,
    find_gpu_problems,
    installed_torch_build,
)
from dialsum.batch.lock import find_batches_at_work, find_runs_at_work
from dialsum.batch.plan import BatchPlan, count_experiments
from dialsum.batch.space import ELSEWHERE, describe_space, find_lack_of_space, find_obstacle
from dialsum.config.rules import find_length_problems
from dialsum.config.schema import Config
from dialsum.data.rows import Kind, Splits, load_split, name_data, read_data
from dialsum.environment_variables import WORLD_SIZES
from dialsum.errors import DialsumError, ProblemsError, list_problems
from dialsum.machine.devices import (
    GIB,
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
from dialsum.text import align
from dialsum.train.tracking import find_why_off

AREAS = (
    CONFIGURATION := "configuration",
    DATA := "data",
    TOKENS := "tokens",
    CHECKPOINTS := "checkpoints",
    MEMORY := "memory",
    DISK := "disk",
    MACHINE := "machine",
    PACKAGES := "packages",
    FOLDERS := "output folder",
    TRACKING := "tracking",
)
TO_FETCH = "to be fetched"
UNSEEN = "not looked at"
"""State of an area that only the deep look knows."""
TINY_PARAMETERS = 20_000_000
"""Up to here a checkpoint trains on a CPU in minutes; real ones have six times that at least."""
RAY_INSTALL = ".venv/bin/python -m pip install -r requirements-ray.txt"
MEMORY_BYTES = 3 * 2**30 // 2
"""What the process of a tiny model takes at most, its libraries included."""


@dataclass
class Area:
    """What was found of one kind.

    Args:
        problems: each forbids the start.
        notes: what the user should know.
        says: what there is, in a few words; empty: nobody looked, or nothing is to be said.
        state: in place of `ok`, where there is no problem.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    says: str = ""
    state: str = "ok"


@dataclass(frozen=True)
class Findings:
    """What was found before the start.

    Attributes:
        plan: as given, with the rows that were counted and the slots that were chosen.
        areas: by their names, in the order in which they are shown.
        machine_fit: whether a start on this machine would go on; a dry run is told, not refused.
    """

    plan: BatchPlan
    areas: dict[str, Area]
    machine_fit: bool = True

    @property
    def problems(self) -> list[str]:
        """Every problem; what several experiments share is there once."""
        return list(dict.fromkeys(text for one in self.areas.values() for text in one.problems))

    @property
    def notes(self) -> list[str]:
        """Every note, once."""
        return list(dict.fromkeys(text for one in self.areas.values() for text in one.notes))

    def describe(self, *, width: int | None = None) -> list[str]:
        """Return a table of all that was looked at, and how it is.

        Args:
            width: columns of the terminal, which it is to fit; None: of any width.
        """
        rows = []
        for name, one in self.areas.items():
            count = len(set(one.problems))
            state = f"{count} problem{'s' if count > 1 else ''}" if count else one.state
            rows.append([f"  {name}", state, one.says])
        return ["checked before the start:", *align(rows, left=range(3), width=width)]

    def refuse(self) -> None:
        """Refuse the start where there are problems.

        Raises:
            ProblemsError: all of them, each under the name of its area.
        """
        found: dict[str, str] = {}
        for name, one in self.areas.items():
            for text in one.problems:
                found.setdefault(text, name)
        if found:
            raise ProblemsError(list(found), areas=list(found.values()))


def check_plan(plan: BatchPlan, *, dry_run: bool = False, refused: Sequence[str] = ()) -> Findings:
    """Check data, place, machine, packages and local models of a plan.

    Args:
        dry_run: nothing will be trained here now. Another batch at work is a note then, and so is
            a missing GPU where nothing else is wrong.
        refused: problems of the configuration.
    """
    areas = {name: Area() for name in AREAS}
    deep = "--dry-run --deep looks"
    areas[TOKENS] = Area(says=f"{deep} at vocabulary, lengths and near duplicates", state=UNSEEN)
    areas[MEMORY] = _describe_memory(plan)
    if not plan.jobs:  # no configuration could be read
        for name in (DATA, CHECKPOINTS, DISK, MACHINE):
            areas[name].state = UNSEEN
    demo, options = plan.kind == "demo", plan.options
    configs = [job.config for job in plan.waiting]
    config, data, packages = areas[CONFIGURATION], areas[DATA], areas[PACKAGES]
    checkpoints, machine = areas[CHECKPOINTS], areas[MACHINE]
    config.problems += refused
    config.says = count_experiments(len(options.numbers))
    # The data of what has ended too: where they changed since, it is no longer of this batch.
    splits, data.problems, data.notes = check_data([*configs, *(job.config for job in plan.jobs)])
    data.says = "; ".join(dict.fromkeys(_count_rows(one) for one in splits.values() if one))
    packages.problems += find_shadowed_packages()
    packages.problems += find_version_problems(PROJECT_ROOT / "requirements.txt")
    packages.says = "as in requirements.txt"
    packages.says += "" if find_spec("unsloth") else "; no Unsloth, which is for other models"
    slots, cards, wrong = choose_slots(configs)
    machine.problems += wrong
    if plan.executor == "ray":
        if find_spec("ray") is None:
            packages.problems.append(
                f"batch.executor is ray, and Ray is not installed: {RAY_INSTALL}"
            )
        if slots == 1 < len(configs):
            config.notes.append(
                "batch.slots is 1, so the cluster runs one experiment at a time; --set "
                "batch.slots=auto takes all that its nodes have room for"
            )
    elif plan.options.ray_address:
        config.problems.append(
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
        who = f"{job.number} {job.label}"
        checkpoints.problems += [f"{who}: {problem}" for problem in wrong]
        checkpoints.notes += remarks
        if job.number not in plan.mended:
            config.problems += [f"{who}: {problem}" for problem in short]
            config.notes += [*job.loaded.notes, *(f"{who}: {remark}" for remark in lengths)]
    areas[TRACKING].says = _describe_tracking(configs)
    folders = areas[FOLDERS]
    folders.problems += find_place_problems(plan)
    folders.says = shown(plan.paths.root)
    held = find_batches_at_work(plan.paths) or find_runs_at_work(job.paths for job in plan.jobs)
    if dry_run:
        # Nothing is written, so the other batch is not disturbed; it may have ended by the start.
        folders.notes += [f"a start now would be refused: {problem}" for problem in held]
        folders.state = "in use" if held else "ok"
    else:
        folders.problems += held
    if not (folders.problems or demo):  # a demo takes 100 MB in all
        writing = [job for job in plan.waiting if not job.resume]
        areas[DISK].problems += find_lack_of_space(writing)
        areas[DISK].says = describe_space(writing)
    models = {job.config.model.checkpoint: job.config for job in jobs}
    if absent := find_absent(jobs) if demo else {}:
        checkpoints.notes.append(f"tiny checkpoints will be made: {', '.join(map(shown, absent))}")
    there = sum(map(is_here, models.values()))
    checkpoints.says = f"{there} of {len(models)} here" if models else ""
    if there < len(models) and not checkpoints.problems:
        checkpoints.says += f", the rest is {'made' if demo else 'downloaded'} at the start"
        checkpoints.state = "to be made" if demo else TO_FETCH
    gpu = find_machine_problems(configs, demo=demo)
    machine.says = _describe_machine()
    fit = not any(one.problems for one in areas.values())
    if dry_run and fit:
        machine.notes += [f"a start on this machine would be refused: {text}" for text in gpu]
        machine.state = "unfit" if gpu else "ok"
    else:
        machine.problems += gpu
    if changed:
        names = ", ".join(f"{job.number} {job.label}" for job in jobs if job.number in changed)
        data.notes.append(
            f"the data changed since the batch began: {names} start from the beginning, whatever "
            "was finished or is to go on above"
        )
    return Findings(
        replace(
            plan, jobs=tuple(jobs), slots=slots, cards=cards, ended=plan.ended.difference(changed)
        ),
        areas,
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


def _count_rows(splits: Splits) -> str:
    return ", ".join(f"{len(one):,} {one.kind}" for one in splits.present) + " rows"


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
        hint = "\n      Or see the whole way work here, with tiny models: add --demo"
        gpu = find_gpu_problems(os.environ, build=installed_torch_build())
        problems += [text + hint for text in gpu]
    return problems


def _describe_memory(plan: BatchPlan) -> Area:
    """Say in a few words what is known of the memory that experiments take."""
    known = {number: held.lstrip("~") for number, held in plan.memory.items() if held != "?"}
    if not known:
        return Area(says="tiny models") if plan.kind == "demo" else Area(state=UNSEEN)
    most = max(known, key=lambda number: float(known[number]))
    if plan.memory[most].startswith("~"):
        how = "by a formula, upwards rounded; --dry-run --deep forecasts it"
        return Area(says=f"at most {known[most]} GiB {how}", state="estimate")
    return Area(says=f"at most {known[most]} GiB, forecast")


def _describe_tracking(configs: Sequence[Config]) -> str:
    """Say in a few words where curves will stand."""
    said = ["metrics.jsonl in each run's folder"]
    said += ["TensorBoard"] if any(one.tracking.tensorboard for one in configs) else []
    reasons = [find_why_off(one.tracking) for one in configs]
    if None in reasons:
        said.append("Weights & Biases, where it answers")
    said += [f"no Weights & Biases: {why}" for why in dict.fromkeys(reasons) if why]
    return "; ".join(said)


def _describe_machine() -> str:
    """Say in a few words what there is to compute on."""
    try:
        cards = [f"{gpu.name}, {gpu.memory_total_bytes / GIB:.0f} GiB" for gpu in nvidia_gpus()]
    except DialsumError as error:
        return str(error)
    memory = host_memory().total_bytes
    own = f"{usable_cores()} cores" + ("" if memory is None else f", {memory / GIB:.0f} GiB")
    return "; ".join([*cards, own])


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
    return list(dict.fromkeys(problems))

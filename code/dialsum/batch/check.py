"""Everything that can be known to be wrong before a batch or a run starts, found together: data,
places, machine, packages and checkpoints.

Must not load a model nor import a library that does, nor stop at the first problem. A batch's
checkpoints are downloaded here, so that no experiment meets the network at night.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from dialsum.batch.first_look import (
    DATA_FILES,
    MAIN_COMMAND,
    find_data_problems,
    find_gpu_problems,
    installed_torch_build,
)
from dialsum.batch.lock import find_batches_at_work, find_runs_at_work
from dialsum.batch.packages import find_version_problems
from dialsum.batch.plan import BatchPlan, count_experiments
from dialsum.config.load import LoadedConfig, load_without_wrong
from dialsum.config.rules import find_length_problems
from dialsum.config.schema import Config
from dialsum.config.yaml import Origin
from dialsum.data.rows import Kind, Splits, load_split, read_data
from dialsum.environment_variables import WORLD_SIZES
from dialsum.errors import DialsumError, ProblemsError, RunError, UnfitError
from dialsum.experiment.job import Job
from dialsum.experiment.recording import find_shadowed_packages
from dialsum.machine.devices import host_memory, nvidia_gpus, usable_cores, visible_gpus
from dialsum.models.checkpoint import (
    describe_own_search,
    explain_ban,
    fetch_folder,
    find_ban,
    find_checkpoint_problems,
    find_folder,
    find_hub_cache,
    find_size,
    resolve_checkpoint,
)
from dialsum.models.families import find_foreign_targets, get_family
from dialsum.models.tiny import describe_making, is_made
from dialsum.paths import PROJECT_ROOT, project_path, shown
from dialsum.record import find_foreign, read_json_object
from dialsum.text import align, show_bytes

ROOM_FOR_WORDS_BYTES = 2**16
"""Where less is free, nothing can be recorded, and an empty log does not mean that nothing was
said."""
TINY_PARAMETERS = 20_000_000
"""Up to here a checkpoint trains on a CPU in minutes; real ones have six times that at least."""
MEMORY_BYTES = 3 * 2**30 // 2
"""What the process of a tiny model takes at most, its libraries included."""
BYTES_PER_WEIGHT = 4
OPTIMIZER_COPIES = 2
"""AdamW keeps two numbers beside each weight that learns."""
ADAPTED_SHARE = 0.05
"""Part of the weights that adapters amount to, at the least ranks in use."""
LOGS_BYTES = 20 * 2**20
ELSEWHERE = "give another place with --output-dir DIR"


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
    configs = [job.config for job in plan.jobs]
    if refused:
        planned = {job.number for job in plan.jobs}
        for number in options.numbers:
            if number not in planned:
                path = options.configs[number - 1]
                one = load_without_wrong(
                    path, overrides=options.all_overrides, overlays=options.overlays(path)
                )
                configs += [one.config] if one else []
    splits, problems, notes = check_data(configs)
    problems += find_place_problems(plan) + find_shadowed_packages()
    problems += find_version_problems(PROJECT_ROOT / "requirements.txt")
    slots, wrong = choose_slots(configs)
    problems += wrong
    jobs = []
    for job in plan.jobs:
        rows = splits[_data_key(job.config)]
        if rows is not None:
            job = replace(job, train_rows=len(rows.train), data_sha256=rows.sha256)
        jobs.append(job)
        wrong, remarks = find_model_problems(job.config, made_here=demo)
        short, lengths = find_length_problems(job.config.training, train_rows=job.train_rows)
        problems += [f"{job.number} {job.label}: {problem}" for problem in (*wrong, *short)]
        notes += [*remarks, *job.loaded.notes]
        notes += [f"{job.number} {job.label}: {remark}" for remark in lengths]
    held = find_batches_at_work(plan.paths) or find_runs_at_work(job.paths for job in plan.jobs)
    if demo and (absent := _find_absent(jobs)):
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
    return Findings(
        replace(plan, jobs=tuple(jobs), slots=slots),
        # What several experiments share is said once.
        list(dict.fromkeys(problems)),
        list(dict.fromkeys(notes)),
        machine_fit=not gpu,
    )


# What is wrong with the data


def _data_key(config: Config) -> str:
    """Name what is read: where a share of the training rows is held out, the seed chooses it."""
    data = config.data
    return f"{data.model_dump_json()} {config.training.seed if data.dev_share else ''}"


def check_data(configs: Iterable[Config]) -> tuple[dict[str, Splits | None], list[str], list[str]]:
    """Read the files of every experiment, those that several share once.

    Returns:
        The rows by what names them, None where they could not be read; problems; notes.
    """
    found: dict[str, Splits | None] = {}
    problems: list[str] = []
    notes: list[str] = []
    for config in configs:
        key = _data_key(config)
        if key in found:
            continue
        splits, wrong = _read(config)
        found[key] = splits
        problems += wrong
        if splits is not None:
            counts = (f"{shown(split.path)} {len(split):,} rows" for split in splits.present)
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


def list_problems(error: DialsumError) -> list[str]:
    """Return every problem that an error names."""
    return error.problems if isinstance(error, ProblemsError) else [str(error)]


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
                "experiment trains in one process on one GPU. Start the command without the "
                f"launcher; where the variable stays from elsewhere: unset {name}. To use several "
                "GPUs, start one batch for each: CUDA_VISIBLE_DEVICES=1 … --only 4-7 "
                "--output-dir DIR"
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
        config.general.device == "cuda"
        or (
            config.general.device == "auto"
            and not demo
            and find_size(config).value.parameters > TINY_PARAMETERS
        )
        for config in configs
    ):
        hint = f"\n      Or see the whole way work here, with tiny models: {MAIN_COMMAND} --demo"
        gpu = find_gpu_problems(os.environ, build=installed_torch_build())
        problems += [text + hint for text in gpu]
    return problems


def choose_slots(configs: Sequence[Config]) -> tuple[int, list[str]]:
    """Return how many experiments run at the same time, and what is wrong with what was asked.

    The least that any of them asks holds for all; `auto` is one for each core, as far as memory
    goes, and one on a card.
    """
    asked = [config.batch.slots for config in configs]
    most = max((slots for slots in asked if slots != "auto"), default=1)
    if "auto" not in asked and most == 1:
        return 1, []
    try:
        cards = visible_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        has_card = bool(cards) or sys.platform == "darwin"
    except DialsumError:
        has_card = True  # there is a driver, and it does not say
    devices = {config.general.device for config in configs}
    if devices & {"cuda", "mps"} or (has_card and "auto" in devices):
        problem = (
            f"batch.slots {most}: experiments on one card run one after another, since two of them "
            "would share its memory; leave batch.slots out, or say auto. For several cards start a "
            "batch on each: CUDA_VISIBLE_DEVICES=1 … --only 4-7 --output-dir DIR"
        )
        return 1, [problem] if most > 1 else []
    free = host_memory().free_bytes
    room = len(configs) if free is None else free // MEMORY_BYTES
    possible = max(1, min(usable_cores(), room))
    least = min(possible if slots == "auto" else slots for slots in asked)
    return max(1, min(least, len(configs))), []


# What is wrong with the checkpoints


def pin_checkpoints(plan: BatchPlan, *, say: Callable[[str], object]) -> BatchPlan:
    """Download every hub checkpoint of a plan that is not in the cache, and look at each; make the
    tiny ones of a demo.

    Returns:
        The plan, each experiment with the commit of its checkpoint as model.revision.

    Raises:
        ProblemsError: those that cannot be downloaded or are not fit; nothing was started.
    """
    if plan.kind == "demo":
        _make_checkpoints(plan.jobs, say)
        return plan
    pinned, problems = [], []
    for job in plan.jobs:
        try:
            pinned.append(replace(job, loaded=pin_checkpoint(job.loaded, say=say)))
        except UnfitError as error:
            problems += [f"{job.number} {job.label}: {text}" for text in list_problems(error)]
    if problems:
        raise ProblemsError(problems)
    return replace(plan, jobs=tuple(pinned))


def _find_absent(jobs: Sequence[Job]) -> dict[Path, Path]:
    """Return the tiny checkpoints that are absent, or of other data, each with the rows that its
    tokenizer is trained on: the first experiment's.
    """
    rows = {}
    for job in reversed(jobs):
        data = job.config.data
        rows[Path(job.config.model.checkpoint)] = project_path(data.data_dir) / data.train_file
    return {
        folder: data
        for folder, data in sorted(rows.items())
        if not (data.is_file() and is_made(folder, describe_making(data)))
    }


def _make_checkpoints(jobs: Sequence[Job], say: Callable[[str], object]) -> None:
    """Make a demo's tiny checkpoints in one process of their own, since that loads torch.

    Raises:
        RunError: it could not, with what it said.
    """
    absent: dict[tuple[Path, Path], list[str]] = defaultdict(list)
    for folder, data in _find_absent(jobs).items():
        say(f"making a tiny checkpoint in {shown(folder)}")
        absent[folder.parent, data].append(folder.name)
    script = PROJECT_ROOT / "scripts" / "make_tiny_checkpoints.py"
    for (out, data), names in absent.items():
        command = [sys.executable, str(script), str(out), "--data", str(data), "--only", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"no tiny checkpoint could be made: {done.stderr.strip()}")


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
                f"model.checkpoint {name} is not in the cache {find_hub_cache()} yet and "
                "will be downloaded before the first experiment starts"
            ]
        if isinstance(source, Path):
            return find_checkpoint_problems(folder, config), []
        place = f"model.checkpoint {source}"
        cached = f"{place}: in the cache, at commit {folder.name[:12]}; no newer one is asked for"
        return find_checkpoint_problems(folder, config, place=place), [cached]
    except UnfitError as error:
        return [str(error)], []


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
    model = config.model.model_copy(update={"revision": commit})
    origin = Origin(None, None, "the hub's commit that was looked at before the start")
    pinned = replace(
        loaded,
        config=config.model_copy(update={"model": model}),
        origins={**loaded.origins, "model.revision": origin},
    )
    # What was here was looked at already.
    if here is None and (problems := find_model_problems(pinned.config)[0]):
        raise ProblemsError(problems)
    return pinned


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
    return find_lack_of_space(plan.jobs)


def find_obstacle(folder: Path) -> str | None:
    """Say why a folder, or what of it has to be made, cannot be written to."""
    present = nearest_existing(folder)
    if not present.is_dir():
        return f"{shown(present)}: is a file, but a folder is needed there; move it, or {ELSEWHERE}"
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        return f"{shown(present)}: lies on a file system that can only be read; {ELSEWHERE}"
    if not os.access(present, os.W_OK | os.X_OK):
        return (
            f"{shown(present)}: this user may not write there; mend its permissions (chmod "
            f"u+wx), or {ELSEWHERE}"
        )
    return None


def nearest_existing(path: Path) -> Path:
    """Return the path itself if it exists, else its nearest parent that does."""
    path = path.absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path


def find_lack_of_space(jobs: Sequence[Job]) -> list[str]:
    """Compare what runs leave at least with what is free, disk by disk."""
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for job in jobs:
        place = nearest_existing(job.paths.folder)
        device = place.stat().st_dev
        places[device] = place
        needed[device] += estimate_disk_bytes(job.config)
    return [
        f"{shown(place)}: {show_bytes(free)} free, but models and checkpoints of "
        f"{count_experiments(len(jobs))} take at least about {show_bytes(needed[device])}; free "
        f"space, {'run fewer at a time (--only), ' if len(jobs) > 1 else ''}or {ELSEWHERE}"
        for device, place in places.items()
        if (free := shutil.disk_usage(place).free) < needed[device]
    ]


def estimate_disk_bytes(config: Config) -> int:
    """Return the least bytes that a run leaves on the disk: its model, its checkpoints with
    optimizer, its logs."""
    size = find_size(config).value
    learning = float(size.parameters)
    if config.qlora.use_qlora:
        learning *= ADAPTED_SHARE
        learning += size.vocabulary * size.width if config.qlora.train_embeddings else 0
    weights = learning * BYTES_PER_WEIGHT
    checkpoints = config.training.save_total_limit * weights * (1 + OPTIMIZER_COPIES)
    return int(weights + checkpoints + LOGS_BYTES)


def find_full_disk(job: Job, log: Path) -> str | None:
    """Say why an experiment of a running batch has no room; None where it has.

    What it leaves at least must be free where its run goes, and some where its log and model go.
    """
    lack = find_lack_of_space([job])
    lack += [
        f"{shown(place)}: no space left on the disk; free some, or {ELSEWHERE}"
        for place in map(nearest_existing, (log, job.paths.model))
        if shutil.disk_usage(place).free < ROOM_FOR_WORDS_BYTES
    ]
    return lack[0] if lack else None

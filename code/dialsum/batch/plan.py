"""From the command line's options and the configurations to the plan of a batch, and to its text:
who runs, with what, into where, and what it will take.

Must not check the machine or the data (check.py), nor print or write anything.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from dialsum.cli import DEMO_DATA, BatchOptions
from dialsum.config.load import LoadedConfig, load_config, load_without_wrong
from dialsum.config.schema import Config, schema_keys
from dialsum.config.yaml import Origin, show_value
from dialsum.errors import ConfigError
from dialsum.experiment.bound import Bound
from dialsum.experiment.job import Job
from dialsum.machine.devices import GIB
from dialsum.machine.memory import BASE_SIZES
from dialsum.models.checkpoint import find_size
from dialsum.paths import (
    OUTPUTS,
    PROJECT_ROOT,
    BatchPaths,
    RunPaths,
    batch_root,
    project_path,
    shown,
    timestamp,
)
from dialsum.text import align, format_duration, say_first

TRAINER = (sys.executable, str(PROJECT_ROOT / "code" / "trainer.py"))
"""The command that runs one experiment; `--job FILE` is added."""
CHECKPOINTS = "checkpoints"
"""Folder, in the demo's root, of the tiny checkpoints that it starts from."""
MOST_PLACES = 3
"""Files that a message names."""
EXPECTED_FOR_ROWS = 12_457
"""Training rows that general.expected_minutes is stated for."""
SECONDS_PER_ROW = {"mt5": 0.054, "t5": 0.072, "bart": 0.072, "gpt2": 0.072, "kogpt2": 0.072}
SECONDS_PER_ROW |= {"llama": 0.19, "qwen": 0.18, "gemma": 0.03}
"""Of an epoch, evaluation and writing included: what the plan gives 01_mt5_xlsum_optimized_v2,
02_eenzeenee_t5_rtx3090 and 01_baseline_kobart_rtx3090, over their rows and epochs; GPT-2's are of
KoBART's size. Llama's: three epochs of 1.2 billion weights took somebody 46 minutes, scaled to the
base size of BASE_SIZES; Qwen's and Gemma's by their weights from that, their heads counted in."""


@dataclass(frozen=True)
class BatchPlan:
    """A batch before it starts.

    Attributes:
        jobs: the experiments to run, in order; their numbers have gaps where --only left some out.
        slots: how many of them run at the same time; on a Ray cluster, at most.
        cards: uuid of the GPU of each slot, where several have one each; else empty.
        trainer: program and first arguments of an experiment's process.
        ended: numbers of those that ended in an earlier part of the batch, and stay as they are.
        measured: seconds that the same took here before, by work_of.
        memory: GiB that each takes at most, by number, as it is shown; none in a demo.
        disk: bytes that each leaves at least, by number; none in a demo.
        mended: numbers of those whose configuration is wrong, here as far as it could be read: what
            else is wrong with them is looked for, and the plan is never run.
    """

    options: BatchOptions
    started_at: datetime
    paths: BatchPaths
    jobs: tuple[Job, ...] = ()
    slots: int = 1
    cards: tuple[str, ...] = ()
    trainer: tuple[str, ...] = TRAINER
    ended: frozenset[int] = frozenset()
    measured: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[int, str] = field(default_factory=dict)
    disk: Mapping[int, int] = field(default_factory=dict)
    mended: frozenset[int] = frozenset()

    @property
    def fit(self) -> list[Job]:
        """The experiments that are still to run, whose configuration is right."""
        return [job for job in self.waiting if job.number not in self.mended]

    @property
    def waiting(self) -> list[Job]:
        """The experiments that are still to run, in order."""
        return [job for job in self.jobs if job.number not in self.ended]

    @property
    def kind(self) -> str:
        """`demo`, `rehearsal`, `one_epoch` or `full`."""
        return self.options.kind

    @property
    def executor(self) -> str:
        """`local` or `ray`; the experiments of a batch share it."""
        return self.jobs[0].config.batch.executor if self.jobs else "local"

    @property
    def sort(self) -> str:
        """What it is to a reader: a rehearsal is one, on tiny models too."""
        return "rehearsal" if self.options.rehearse else self.kind

    @property
    def own_data(self) -> bool:
        """Whether any experiment has other rows than the demo's sample."""
        return _is_own_data(job.config for job in self.jobs)

    @property
    def batch_id(self) -> str:
        """Name of the batch in records and file names."""
        return timestamp(self.started_at)

    def expect_seconds(self, job: Job) -> float | None:
        """Return how long an experiment takes: as the same took here before, else as it is stated;
        None where nothing is known."""
        return self.measured.get(work_of(job)) or expect_seconds(job)

    def log_of(self, job: Job) -> Path:
        """Return where what a job's process prints goes."""
        return self.paths.experiment_log(
            self.started_at, number=job.number, label=job.label, attempt=job.attempt.number
        )


def load_selected(options: BatchOptions) -> tuple[dict[int, LoadedConfig], list[str]]:
    """Load the configurations that `only` leaves.

    Returns:
        Those that are fit, by number; and the problems of the others.
    """
    paths = [options.configs[number - 1] for number in options.numbers]
    twins = _find_twins(paths)
    loaded: dict[int, LoadedConfig] = {}
    problems: list[str] = []
    for number, path in zip(options.numbers, paths, strict=True):
        try:
            loaded[number] = load_config(
                path, overrides=options.all_overrides, overlays=options.overlays(path)
            )
        except ConfigError as error:
            problems += error.problems
    problems += _find_disagreements(loaded.values())
    # What several files share is said once.
    return _use_demo_checkpoints(options, loaded), [*dict.fromkeys(problems), *twins]


def load_mended(options: BatchOptions, loaded: Iterable[int]) -> dict[int, LoadedConfig]:
    """Return the selected configurations that were not loaded, without what is wrong in them, as
    far as they can be read."""
    paths = {number: options.configs[number - 1] for number in options.numbers}
    mended = {
        number: one
        for number, path in paths.items()
        if number not in loaded
        and (
            one := load_without_wrong(
                path, overrides=options.all_overrides, overlays=options.overlays(path)
            )
        )
    }
    return _use_demo_checkpoints(options, mended)


def _use_demo_checkpoints(
    options: BatchOptions, loaded: dict[int, LoadedConfig]
) -> dict[int, LoadedConfig]:
    """Have each start from the demo's checkpoint of its architecture, where it is a demo."""
    if not options.demo:
        return loaded
    checkpoints, demo = find_root(options, loaded) / CHECKPOINTS, Origin(None, None, "--demo")
    return {
        number: one.with_model(
            demo, checkpoint=str(checkpoints / one.config.model.architecture), revision=None
        )
        for number, one in loaded.items()
    }


def _find_disagreements(loaded: Iterable[LoadedConfig]) -> list[str]:
    """Refuse values of the section batch that experiments of one batch do not share: it has one
    queue."""
    problems = []
    for key in (key for key in schema_keys() if key.startswith("batch.")):
        said: dict[str, list[str]] = {}
        for one in loaded:
            origin = one.origins[key]
            place = f"{shown(one.path)} (default)" if origin.file is None else origin.text
            said.setdefault(show_value(one.value(key)), []).append(place)
        if len(said) > 1:
            values = "; ".join(
                f"{value} in {say_first(list(dict.fromkeys(places)), limit=MOST_PLACES)}"
                for value, places in said.items()
            )
            problems.append(
                f"{key}: holds for the whole batch, and its experiments differ in it: {values}. "
                f"Say it in one place, or for all with --set {key}=…"
            )
    return problems


def find_root(options: BatchOptions, loaded: dict[int, LoadedConfig]) -> Path:
    """Return the folder of all batches of this kind."""
    outputs = (options.output_dir or project_path(OUTPUTS)).absolute()
    own = _is_own_data(one.config for one in loaded.values())
    return outputs / batch_root(
        demo=options.demo, own_data=own, one_epoch=options.one_epoch, rehearse=options.rehearse
    )


def _is_own_data(configs: Iterable[Config]) -> bool:
    """Say whether any experiment has other rows than the demo's sample."""
    return any(
        (project_path(data.data_dir) / file).resolve().parent != DEMO_DATA.resolve()
        for data in (config.data for config in configs)
        for file in (data.train_file, data.dev_file, data.test_file)
        if file
    )


def _find_twins(configs: Sequence[Path]) -> list[str]:
    """Refuse two files of one name in a batch: their runs would stand in one folder."""
    first: dict[str, Path] = {}
    problems = []
    for path in configs:
        # Folders of some systems do not tell case or the two ways of writing Hangul apart.
        name = unicodedata.normalize("NFC", path.stem).casefold()
        if name in first:
            problems.append(
                f"{shown(path)}: an experiment named {path.stem!r} is in this batch already "
                f"({shown(first[name])}); rename the file, or run it in another batch"
            )
        first.setdefault(name, path)
    return problems


def make_plan(
    options: BatchOptions,
    loaded: dict[int, LoadedConfig],
    *,
    started_at: datetime,
    trainer: Sequence[str] = TRAINER,
) -> BatchPlan:
    """Lay out a batch.

    Args:
        loaded: number to configuration, as load_selected returns it.
        started_at: moves on to the next second that no earlier batch has in its file names.
        trainer: program and first arguments of an experiment's process.
    """
    logs = (options.output_dir or PROJECT_ROOT) / "logs"
    paths = BatchPaths(
        find_root(options, loaded),
        (options.log_dir or logs).absolute(),
        options.runs_dir.absolute() if options.runs_dir else None,
    )
    while paths.logs(started_at).exists() or paths.results(started_at).exists():
        started_at += timedelta(seconds=1)
    plan = BatchPlan(options, started_at, paths, trainer=tuple(trainer))
    jobs = []
    for number, one in loaded.items():
        named = paths.run(one.name)
        # Where a link leads is what is looked at, and what paths in records are relative to.
        run = RunPaths(folder=named.folder.resolve(), model=named.model.resolve())
        jobs.append(Job(one, run, plan.kind, plan.batch_id, number))
    return replace(plan, jobs=tuple(jobs))


def count_experiments(number: int) -> str:
    """Return `1 experiment` or `7 experiments`."""
    return f"{number} experiment{'s' if number != 1 else ''}"


def work_of(job: Job) -> str:
    """Name what a job computes: the same takes the same time on one machine."""
    return f"{job.loaded.work_sha256} {job.data_sha256.get('train')}"


def expect_seconds(job: Job) -> float | None:
    """Return how long an experiment takes on one RTX 3090, in seconds; None of a demo.

    By general.expected_minutes, which holds for the file's own epochs of the real data, and is
    scaled by rows, by epochs, and by steps where max_steps cuts them short; without it, by the time
    that a row takes the planned experiments of the family (SECONDS_PER_ROW), scaled by parameters.
    """
    asked, stated = job.config.training, job.config.general.expected_minutes
    rows, epochs = job.train_rows or EXPECTED_FOR_ROWS, asked.num_train_epochs
    if stated is not None:
        seconds = (
            60 * stated * rows / EXPECTED_FOR_ROWS * epochs / (job.loaded.own_epochs or epochs)
        )
    elif job.kind == "demo":
        return None
    else:
        family = job.config.model.architecture
        size = find_size(job.config).value.parameters / BASE_SIZES[family].parameters
        seconds = SECONDS_PER_ROW[family] * rows * epochs * size
    whole = asked.model_copy(update={"max_steps": None}).count_steps(train_rows=rows)
    if asked.max_steps is not None and whole:
        seconds *= asked.max_steps / whole
    return seconds


KIND_WORDS = {
    "full": "as configured",
    "rehearsal": "rehearsal, two steps each on the longest rows: scores say nothing",
    "one_epoch": "one epoch each: scores near the constant sentence are expected",
    "demo": "demo on tiny checkpoints: their scores say nothing about the real checkpoints",
}
WIDTH = 100
HIDDEN = ("general.expected_minutes", "evaluation.target.", "tracking.", "batch.slots")
"""Replaced keys, or beginnings of them, that say nothing of how the experiment learns."""


def describe_plan(plan: BatchPlan, *, width: int | None = None) -> list[str]:
    """Return the plan as lines.

    Args:
        width: columns of the terminal, which the table is to fit; None: of any width.
    """
    jobs = plan.fit
    count, seconds = len(jobs), [plan.expect_seconds(job) for job in jobs]
    total, only = len(plan.options.configs), plan.options.only
    of_all = f" of {total} (--only {','.join(map(str, only))})" if only else ""
    of_all += f", {len(plan.ended)} before them" if plan.ended else ""
    rows = [["", "experiment", "file", "tokens", "rows a step", "steps", "learns", "beams"]]
    models: dict[str, list[str]] = {}
    for job in jobs:
        config, number = job.config, str(job.number)
        checkpoint, training, lora = config.model.checkpoint, config.training, config.qlora
        whole = Path(checkpoint).is_absolute()
        models.setdefault(shown(Path(checkpoint)) if whole else checkpoint, []).append(number)
        batch, passes = training.per_device_train_batch_size, training.gradient_accumulation_steps
        steps = training.count_steps(train_rows=job.train_rows)
        bits = f", {lora.bits}-bit" if lora.bits else ""
        adapters = f"{'DoRA' if lora.use_dora else 'LoRA'} r {lora.lora_rank}{bits}"
        rows.append(
            [
                number,
                job.label,
                job.loaded.path.name,
                f"{config.tokenizer.encoder_max_len}/{config.tokenizer.decoder_max_len}",
                f"{batch} x {passes}"
                + ("" if batch == "auto" or passes == "auto" else f" = {batch * passes}"),
                "?" if steps is None else f"{steps:,}",
                adapters if lora.use_qlora else "all weights",
                f"{config.generation.num_beams}"
                + (" drawn" if config.generation.mbr_temperature is not None else ""),
            ]
        )
    if plan.memory:
        held = ["GiB used", *(plan.memory[job.number] for job in jobs)]
        rows = [[*row, one] for row, one in zip(rows, held, strict=True)]
    if plan.disk:
        left = ["GiB disk", *(f"{plan.disk[job.number] / GIB:.1f}" for job in jobs)]
        rows = [[*row, one] for row, one in zip(rows, left, strict=True)]
    expected = [one for one in seconds if one is not None]
    if expected:
        times = ["" if one is None else format_duration(one) for one in seconds]
        rows = [[*row, time] for row, time in zip(rows, ["expected", *times], strict=True)]
    lines = [
        f"{count_experiments(count)}{of_all}, {KIND_WORDS[plan.sort]}",
        f"results go to {shown(plan.paths.root)}",
        f"logs go to    {shown(plan.paths.logs(plan.started_at))}",
        "",
        *align(rows, left=range(11), width=width),
    ]
    each = plan.waiting[0].config.batch.gpus_per_experiment if plan.waiting else 1
    if plan.executor == "ray":
        where = plan.options.ray_address or "local"
        lines.append(
            f"on Ray ({where}), at most {plan.slots} at the same time (batch.slots), as the nodes "
            "have room"
        )
    elif plan.slots > 1:
        own = ", each with a GPU of its own" if plan.cards else ""
        own = f", each with {each} GPUs of its own" if plan.cards and each > 1 else own
        lines.append(f"{plan.slots} at the same time (batch.slots){own}")
    if each > 1:
        lines.append(
            f"each trains in {each} processes, a GPU each where there are any "
            "(batch.gpus_per_experiment)"
        )
    if expected and len(expected) == count:
        seconds_in_all = max(sum(expected) / plan.slots, *expected)
        clock = (datetime.now() + timedelta(seconds=seconds_in_all)).strftime("%H:%M")
        end = f"started now it would end at about {clock}"
        if any(job.config.general.device == "cpu" for job in jobs):
            end = "many times longer on a CPU"
        if all(work_of(job) in plan.measured for job in jobs):
            end = f"started now it would end at about {clock}"
            lines.append(
                f"as the same took here before: {format_duration(seconds_in_all)} in all; {end}"
            )
        else:
            lines.append(
                f"by the plan, not measured: {format_duration(sum(expected))} in all on one RTX "
                f"3090, evaluation and writing included; {end}"
            )
    without = [
        f"{job.number} {job.label}"
        for job in plan.waiting
        if plan.kind != "demo"
        and job.config.general.expected_minutes is None
        and work_of(job) not in plan.measured
    ]
    if without:
        lines.append(
            f"without general.expected_minutes, so by a formula: {', '.join(without)} (rows x "
            "epochs x what a row takes the planned experiments of the family, by parameters)"
        )
    if any(held.startswith("~") for held in plan.memory.values()):
        lines.append("GiB of memory with ~ are by a formula; --dry-run --deep forecasts them")
    for model, numbers in models.items():
        start = "start" if len(numbers) > 1 else "starts"
        lines.append(f"{', '.join(numbers)} {start} from {model}")
    if halvings := ", then ".join(jobs[0].config.batch.retry if jobs else []):
        lines.append(f"after NaN or full memory in training, retries with {halvings} (batch.retry)")
    return lines


def describe_bounds(
    plan: BatchPlan, bounds: Mapping[int, Bound], *, card: str, width: int | None = None
) -> list[str]:
    """Return a table of the least time that a card could take for each experiment and for all,
    beside what is expected; `multiple` is that over the least.

    Args:
        width: columns of the terminal, which it is to fit; None: of any width.
    """
    known = [(job, astuple(bounds[job.number])) for job in plan.waiting if job.number in bounds]
    expected = [plan.expect_seconds(job) for job, _ in known]
    rows = [
        [f"{job.number} {job.label}", *_show_bound(parts, seconds)]
        for (job, parts), seconds in zip(known, expected, strict=True)
    ]
    if len(rows) > 1:
        sums = [sum(parts) for parts in zip(*(parts for _, parts in known), strict=True)]
        in_all = None if None in expected else sum(filter(None, expected))
        rows.append(["in all", *_show_bound(sums, in_all)])
    head = ["", "training", "evaluation", "writing", "least in all", "expected", "multiple"]
    return [
        f"Least time on {card}, by the peaks of its arithmetic and memory (summaries as long as "
        "the references)",
        *align([head, *rows], left=[0], width=width),
        "multiple: expected over least; where no card is here, an RTX 3090 is taken; what counts "
        "is in docs/training.md",
    ]


def _show_bound(parts: Sequence[float], expected: float | None) -> list[str]:
    """Return the cells of training, evaluation, writing, all of them, and what is expected."""
    least = sum(parts)
    times = map(format_duration, (*parts, least))
    if expected is None:
        return [*times, "-", "-"]
    return [*times, format_duration(expected), f"{expected / least:.1f}" if least else "-"]


def describe_replaced(jobs: Sequence[Job]) -> list[str]:
    """Return what overlays replaced, in lines of bounded width: what is the same in all experiments
    once, then the rest of each.

    Every line holds the original value beside the new one.
    """
    changes = [
        [
            f"{one.key.partition('.')[2]} {show_value(one.original)} -> {show_value(one.value)}"
            for one in job.loaded.replaced
            if not one.key.startswith(HIDDEN)
        ]
        for job in jobs
    ]
    if not any(changes):
        return []
    common = set.intersection(*map(set, changes))
    listed = {"all": [text for text in changes[0] if text in common]}
    for job, own in zip(jobs, changes, strict=True):
        listed[f"{job.number} {job.label}"] = [text for text in own if text not in common]
    lines = ["In place of the experiments' own values (original -> here):"]
    for head, texts in listed.items():
        lines += [f"  {head}: "] if texts else []
        for text in (*(f"{one}, " for one in texts[:-1]), *texts[-1:]):
            if len(lines[-1]) + len(text) > WIDTH:
                lines.append("    ")
            lines[-1] += text
    return [line.rstrip() for line in lines]

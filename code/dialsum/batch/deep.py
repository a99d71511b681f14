"""The deep look at a batch before its first experiment: what each would find in its first minutes.

The runner imports no tokenizer: a process of its own looks (experiment/probe.py). Must not start an
experiment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dialsum.batch.plan import BatchPlan
from dialsum.config.schema import Model
from dialsum.data.rows import name_data
from dialsum.errors import DialsumError, UnfitError
from dialsum.experiment.forecast import estimate, find_card, find_kept
from dialsum.experiment.job import Job
from dialsum.machine.devices import GIB
from dialsum.models.checkpoint import ask_hub, find_ban, find_folder, resolve_checkpoint
from dialsum.paths import PROJECT_ROOT

PROBE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from dialsum.experiment.probe import main; main()"
)


def remember_memory(plan: BatchPlan) -> dict[int, str]:
    """Return what is known of the memory of each experiment without a simulation, as it is shown:
    GiB as they were forecast before, else by a formula, which is marked; nothing of a demo."""
    if plan.kind == "demo":
        return {}
    shown = {}
    for job in plan.jobs:
        try:
            card = find_card(job.config)
            kept = find_kept(job.config, card=card)
        except DialsumError:
            shown[job.number] = "?"  # why, the first look says
            continue
        shown[job.number] = (
            f"~{estimate(job.config, card=card):.0f}"
            if kept is None
            else f"{kept.total_bytes / GIB:.1f}"
        )
    return shown


def ask_for_checkpoints(plan: BatchPlan) -> tuple[list[str], list[str]]:
    """Ask the hub for each checkpoint that is not here.

    Returns:
        Problems, and what is known of the others.
    """
    absent: dict[str, Model] = {}
    for job in plan.waiting:
        asked = job.config.model
        try:
            here = isinstance(resolve_checkpoint(asked.checkpoint), Path) or find_folder(asked)
        except UnfitError:
            continue  # the first look says it
        if not here and not find_ban():
            absent[f"{asked.checkpoint}@{asked.revision or 'main'}"] = asked
    problems, notes = [], []
    answers = ask_hub(list(absent.values())) if absent else []
    for name, (problem, known) in zip(absent, answers, strict=True):
        if problem is None:
            notes.append(f"model.checkpoint {name}: {known}")
        else:
            problems.append(f"model.checkpoint {name}: {problem}")
    return problems, notes


def look_deeper(
    plan: BatchPlan, *, keep: bool, forecast: bool, say: Callable[[str], object]
) -> tuple[list[str], list[str], list[str]]:
    """Look at the experiments of a plan whose checkpoints are here, those that are alike once.

    Args:
        keep: encoded rows are kept for the runs; a dry run writes nothing.
        forecast: simulate the memory of those of which no forecast is kept, and keep that; not of a
            demo, whose models are tiny.
        say: told before what takes a while.

    Returns:
        Problems, each of which forbids the start; notes; and facts for who asks for all of it, each
        with the numbers of its experiments.

    Raises:
        UnfitError: the process that looks did not come to its end.
    """
    alike: dict[str, list[Job]] = {}
    notes = []
    for job in plan.waiting:
        config = job.config
        try:
            present = find_folder(config.model) is not None
        except UnfitError:
            present = False  # of a demo, which makes it; others were refused by the first look
        if not present:
            notes.append(f"{job.number} {job.label}: its tokenizer is not here to be looked at yet")
            continue
        model = config.model.checkpoint, config.model.revision
        data = name_data(config.data, seed=config.training.seed)
        alike.setdefault(repr([model, data, config.tokenizer]), []).append(job)
    simulated = plan.waiting if forecast and plan.kind != "demo" else []
    if not (alike or simulated):
        return [], notes, []
    if alike:
        say("looking at tokenizers, lengths and rows of all experiments …")
    if simulated:
        say("forecasting their memory, which takes some 30 s each the first time …")
    asked = {
        "keep": keep,
        "jobs": [jobs[0].to_json() for jobs in alike.values()],
        "forecast": [job.to_json() for job in simulated],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(PROJECT_ROOT / "code")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UnfitError(f"the look at tokenizers and rows ended with {done.returncode}: {said}")
    found = json.loads(done.stdout.splitlines()[-1])

    def name(kind: str) -> list[str]:
        """Return each sentence once, with the experiments that it is true of."""
        said: dict[str, list[str]] = {}
        for jobs, one in zip(alike.values(), found["answers"], strict=True):
            for text in one[kind]:
                said.setdefault(text, []).extend(f"{job.number} {job.label}" for job in jobs)
        return [f"{', '.join(names)}: {text}" for text, names in said.items()]

    problems, facts, tight = name("problems"), name("facts"), list[str]()
    for job, one in zip(simulated, found["forecasts"], strict=True):
        text = f"{job.number} {job.label}: {one['said']}"
        place = problems if one["hopeless"] else facts if one["fits"] else tight
        place.append(text)
    return problems, [*notes, *name("notes"), *tight, *found["leakage"]], facts

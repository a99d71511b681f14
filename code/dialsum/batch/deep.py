"""The deep look at a batch before its first experiment: what each would find in its first minutes.

The runner imports no tokenizer: a process of its own looks (experiment/probe.py). Must not start an
experiment.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialsum.batch.check import MEMORY, TO_FETCH, TOKENS, UNSEEN, Area
from dialsum.batch.checkpoints import is_here
from dialsum.batch.plan import BatchPlan
from dialsum.config.schema import Model
from dialsum.data.rows import name_data
from dialsum.errors import DialsumError, UnfitError
from dialsum.experiment.bound import CARD, Bound
from dialsum.experiment.forecast import estimate, find_card, find_kept
from dialsum.experiment.job import Job
from dialsum.lifeline import run_main
from dialsum.machine.devices import GIB, find_largest_gpu
from dialsum.models.checkpoint import ask_hub, find_ban, find_folder, resolve_checkpoint
from dialsum.text import say_first


def remember_memory(plan: BatchPlan) -> dict[int, str]:
    """Return what is known of the memory of each experiment without a simulation, as it is shown:
    GiB as they were forecast before, else by a formula, which is marked; nothing of a demo."""
    if plan.kind == "demo":
        return {}
    shown = {}
    for job in plan.jobs:
        if job.number in plan.mended:
            continue
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


def ask_for_checkpoints(plan: BatchPlan) -> Area:
    """Ask the hub for each checkpoint that is not here."""
    absent: dict[str, Model] = {}
    for job in plan.waiting:
        asked = job.config.model
        try:
            here = isinstance(resolve_checkpoint(asked.checkpoint), Path) or find_folder(asked)
        except UnfitError:
            continue  # the first look says it
        if not here and not find_ban():
            absent[f"{asked.checkpoint}@{asked.revision or 'main'}"] = asked
    found = Area(state=TO_FETCH if absent else "ok")
    answers = ask_hub(list(absent.values())) if absent else []
    for name, (problem, known) in zip(absent, answers, strict=True):
        if problem is None:
            found.notes.append(f"model.checkpoint {name}: {known}")
            if known.startswith("unknown"):
                found.state = "unknown"
                found.says = (
                    "the hub did not say whether it would give what is not here (see above)"
                )
        else:
            found.problems.append(f"model.checkpoint {name}: {problem}")
    return found


def find_card_name() -> str:
    """Return the name of the card that a run here would have; CARD where there is none."""
    try:
        largest = find_largest_gpu()
    except DialsumError:
        return CARD  # why, the first look says
    return CARD if largest is None else largest.name


def look_deeper(
    plan: BatchPlan, *, keep: bool, forecast: bool, card: str, say: Callable[[str], object]
) -> tuple[dict[str, Area], dict[int, Bound]]:
    """Look at the experiments of a plan whose checkpoints are here, those that are alike once.

    Args:
        keep: encoded rows are kept for the runs; a dry run writes nothing.
        forecast: simulate the memory of those of which no forecast is kept, and keep that; not of a
            demo, whose models are tiny. All that is found is said then.
        card: the name of the one that they would run on.
        say: told before what takes a while.

    Returns:
        What was found, by area; and the least seconds that an experiment could take, by its number.

    Raises:
        UnfitError: the process that looks did not come to its end.
    """
    alike: dict[str, list[Job]] = {}
    absent = []
    for job in plan.waiting:
        config = job.config
        if not is_here(config):
            absent.append(f"{job.number} {job.label}")
            continue
        model = config.model.checkpoint, config.model.revision
        data = name_data(config.data, seed=config.training.seed)
        alike.setdefault(repr([model, data, config.tokenizer, config.prompt]), []).append(job)
    simulated = plan.fit if forecast and plan.kind != "demo" else []
    tokens = Area(state=UNSEEN)
    if absent:
        tokens.says = f"the tokenizer of {say_first(absent, limit=3)} is not here yet"
    if not (alike or simulated):
        tokens.says = tokens.says or "no configuration can be read yet"
        return {TOKENS: tokens}, {}
    if alike:
        say("looking at tokenizers, lengths and rows of all experiments …")
    if simulated:
        say("forecasting their memory, which takes some 30 s each the first time …")
    asked = {
        "keep": keep,
        "jobs": [[job.to_json() for job in jobs] for jobs in alike.values()],
        "card": card,
        "forecast": [job.to_json() for job in simulated],
    }
    done = subprocess.run(
        run_main("dialsum.experiment.probe"),
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UnfitError(f"the look at tokenizers and rows ended with {done.returncode}: {said}")
    found = json.loads(done.stdout.splitlines()[-1])
    looked = [
        (jobs, one) for jobs, one in zip(alike.values(), found["answers"], strict=True) if one
    ]

    def name(kind: str) -> list[str]:
        """Return each sentence once, with the experiments that it is true of."""
        said: dict[str, list[str]] = {}
        for jobs, one in looked:
            for text in one[kind]:
                said.setdefault(text, []).extend(f"{job.number} {job.label}" for job in jobs)
        return [f"{', '.join(names)}: {text}" for text, names in said.items()]

    unread = len(looked) < len(alike) or any(job.train_rows is None for job in plan.waiting)
    if looked:
        tokens.problems = name("problems")
        unfit = name("unfit")
        if all(one["unfit"] for _, one in looked) and not absent:
            tokens.problems += unfit
        else:
            unfit = [f"{text}. It will fail at its start; the others run" for text in unfit]
        tokens.notes = [
            *unfit,
            *name("notes"),
            *found["leakage"],
            *(name("facts") if forecast else []),
        ]
        tokens.state = "partly" if absent or unread else "ok"
        of = " of what can be read" if unread else ""
        near = "near duplicates above" if found["leakage"] else "no near duplicates"
        tokens.says = tokens.says or f"vocabulary and lengths{of} looked at; {near}"
    elif alike:
        tokens.says = tokens.says or "the rows cannot be read yet"
    areas = {TOKENS: tokens}
    if simulated:
        areas[MEMORY] = memory = Area(says=_find_most(found["forecasts"]))
        for job, one in zip(simulated, found["forecasts"], strict=True):
            place = memory.problems if one["hopeless"] else memory.notes
            place.append(f"{job.number} {job.label}: {one['said']}")
        memory.state = "ok" if all(one["fits"] for one in found["forecasts"]) else "tight"
    bounds = {
        job.number: Bound(**bound)
        for jobs, one in looked
        for job, bound in zip(jobs, one["bounds"], strict=False)
        if bound
    }
    return areas, bounds


def _find_most(forecasts: Sequence[Mapping[str, Any]]) -> str:
    """Say the most that a forecast gives, of what the device has."""
    most = max(forecasts, key=lambda one: float(one.get("gib", 0.0)))
    return f"at most {most['gib']:.1f} GiB, forecast" if "gib" in most else "could not be forecast"

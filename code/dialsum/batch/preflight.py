"""Everything that can be known to be wrong before a batch starts, found together, without loading a
model.

And what is downloaded then, so that no experiment meets the network at night. A check must not
write anything, nor stop at the first problem.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dialsum.batch.alone import find_problems_beside
from dialsum.batch.check_data import check_data
from dialsum.batch.check_machine import find_machine_problems
from dialsum.batch.check_model import find_model_problems, pin_checkpoint
from dialsum.batch.check_place import find_others_at_work, find_place_problems
from dialsum.batch.options import select_numbers
from dialsum.batch.plan import BatchPlan, all_overrides
from dialsum.batch.versions import find_version_problems
from dialsum.config.rules_schedule import find_length_problems
from dialsum.errors import ProblemsError, UnfitError
from dialsum.experiment.environment import find_shadowed_packages
from dialsum.paths import PROJECT_ROOT


@dataclass(frozen=True)
class Findings:
    """What was found before the start.

    Attributes:
        plan: as given, with the training rows that were counted.
        problems: each forbids the start.
        notes: what the user should know.
        machine_fit: whether a start on this machine would go on; a dry run is told, not refused.
    """

    plan: BatchPlan
    problems: list[str]
    notes: list[str]
    machine_fit: bool = True


def check_plan(
    plan: BatchPlan,
    *,
    dry_run: bool = False,
    refused: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Findings:
    """Check data, place, machine, packages and local models of a plan.

    Args:
        dry_run: nothing will be trained here now. Another batch at work is a note then, and so is
            a missing GPU where nothing else is wrong.
        refused: problems of the configuration. What is wrong beside them is looked for as well.
        environment: environment variables; this process's own when absent.
    """
    environment = os.environ if environment is None else environment
    data = check_data(one.config for one in plan.experiments)
    counted = replace(
        plan,
        experiments=tuple(
            replace(
                one,
                train_rows=None if splits is None else len(splits.train),
                data_sha256={} if splits is None else splits.sha256,
            )
            for one, splits in zip(plan.experiments, data.splits, strict=True)
        ),
    )
    problems = [*data.problems, *find_place_problems(plan), *_check_packages()]
    notes = list(data.notes)
    for experiment in plan.experiments:
        wrong, remarks = find_model_problems(experiment.config, environment=environment)
        problems += [f"{experiment.number} {experiment.label}: {problem}" for problem in wrong]
        notes += [*remarks, *experiment.loaded.notes]
    for experiment in counted.experiments:
        wrong, remarks = find_length_problems(experiment.config, train_rows=experiment.train_rows)
        problems += [f"{experiment.number} {experiment.label}: {problem}" for problem in wrong]
        notes += [f"{experiment.number} {experiment.label}: {remark}" for remark in remarks]
    held = find_others_at_work(plan)
    gpu = find_machine_problems(
        [experiment.config for experiment in plan.experiments], environment=environment
    )
    if dry_run:
        # Nothing is written, so the other batch is not disturbed; it may have ended by the start.
        notes += [f"a start now would be refused: {problem}" for problem in held]
    else:
        problems += held
    if refused:
        problems += _look_beside(plan, environment)
    if dry_run and not (problems or refused):
        notes += [f"a start on this machine would be refused: {problem}" for problem in gpu]
    else:
        problems += gpu
    # What several experiments share is said once.
    return Findings(
        counted, list(dict.fromkeys(problems)), list(dict.fromkeys(notes)), machine_fit=not gpu
    )


def pin_checkpoints(
    plan: BatchPlan, *, say: Callable[[str], object], environment: Mapping[str, str] | None = None
) -> BatchPlan:
    """Download every hub checkpoint of a plan that is not in the cache, and look at each.

    Returns:
        The plan, each experiment with the commit of its checkpoint as model.revision.

    Raises:
        ProblemsError: those that cannot be downloaded or are not fit; nothing was started.
    """
    environment = os.environ if environment is None else environment
    pinned, problems = [], []
    for one in plan.experiments:
        try:
            loaded = pin_checkpoint(one.loaded, environment=environment, say=say)
        except UnfitError as error:
            found = error.problems if isinstance(error, ProblemsError) else [str(error)]
            problems += [f"{one.number} {one.label}: {problem}" for problem in found]
        else:
            pinned.append(replace(one, loaded=loaded))
    if problems:
        raise ProblemsError(problems)
    return replace(plan, experiments=tuple(pinned))


def _look_beside(plan: BatchPlan, environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with data and machine for experiments that could not be planned."""
    options = plan.options
    planned = {experiment.number for experiment in plan.experiments}
    numbers = select_numbers(options.only, configs=options.configs)
    return find_problems_beside(
        [options.configs[number - 1] for number in numbers if number not in planned],
        overrides=all_overrides(options),
        overlays=options.overlays,
        environment=environment,
    )


def _check_packages() -> list[str]:
    try:
        wrong = find_version_problems(PROJECT_ROOT / "requirements.txt")
    except UnfitError as error:
        wrong = [str(error)]
    return [*wrong, *find_shadowed_packages()]

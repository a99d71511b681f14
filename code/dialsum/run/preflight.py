"""Everything that can be known to be wrong before a batch starts, found together, without loading a
model.

Must not write anything, nor stop at the first problem.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dialsum.errors import UnfitError
from dialsum.paths import PROJECT_ROOT
from dialsum.run.check_data import check_data
from dialsum.run.check_machine import find_machine_problems
from dialsum.run.check_model import find_model_problems
from dialsum.run.check_place import find_place_problems
from dialsum.run.plan import BatchPlan
from dialsum.run.versions import find_version_problems


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
    plan: BatchPlan, *, dry_run: bool = False, environment: Mapping[str, str] | None = None
) -> Findings:
    """Check data, place, machine, packages and local models of a plan.

    Args:
        dry_run: a missing GPU is a note then: nothing will be trained here.
        environment: environment variables; this process's own when absent.
    """
    environment = os.environ if environment is None else environment
    data = check_data(plan.experiments)
    counted = replace(
        plan,
        experiments=tuple(
            replace(one, train_rows=rows)
            for one, rows in zip(plan.experiments, data.train_rows, strict=True)
        ),
    )
    problems = [*data.problems, *find_place_problems(plan), *_check_packages()]
    notes = list(data.notes)
    gpu = find_machine_problems(
        [experiment.config for experiment in plan.experiments], environment=environment
    )
    if dry_run:
        notes += [f"a start on this machine would be refused: {problem}" for problem in gpu]
    else:
        problems += gpu
    for experiment in plan.experiments:
        wrong, remarks = find_model_problems(experiment.config, environment=environment)
        problems += [f"{experiment.number} {experiment.label}: {problem}" for problem in wrong]
        notes += [*remarks, *experiment.loaded.notes]
    # What several experiments share is said once.
    return Findings(
        counted, list(dict.fromkeys(problems)), list(dict.fromkeys(notes)), machine_fit=not gpu
    )


def _check_packages() -> list[str]:
    try:
        return find_version_problems(PROJECT_ROOT / "requirements.txt")
    except UnfitError as error:
        return [str(error)]

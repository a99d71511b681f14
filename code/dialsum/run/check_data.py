"""Reads the dialogues of every experiment of a plan, as its process will, to find what is wrong
with them.

Must not know what a right row is: the data layer says that.
"""

from __future__ import annotations

from dataclasses import dataclass

from dialsum.data.splits import Splits, load_splits
from dialsum.errors import DialsumError, ProblemsError
from dialsum.paths import shown
from dialsum.run.first_look import DATA_FILES, find_data_problems
from dialsum.run.plan import PlannedExperiment


@dataclass(frozen=True)
class DataFindings:
    """What was found in the data of a plan.

    Attributes:
        train_rows: of each experiment, in order; None where its data could not be read.
    """

    train_rows: list[int | None]
    problems: list[str]
    notes: list[str]


def check_data(experiments: tuple[PlannedExperiment, ...]) -> DataFindings:
    """Read the files of every experiment, those that several share once."""
    found: dict[tuple[object, ...], int | None] = {}
    findings = DataFindings([], [], [])
    for experiment in experiments:
        data = experiment.config.data
        key = (
            experiment.train,
            experiment.dev,
            experiment.test,
            data.max_train_rows,
            data.max_dev_rows,
            data.max_test_rows,
        )
        if key not in found:
            found[key] = _read(experiment, findings)
        findings.train_rows.append(found[key])
    return findings


def _read(experiment: PlannedExperiment, findings: DataFindings) -> int | None:
    folder = experiment.train.parent
    names = tuple(path.name for path in (experiment.train, experiment.dev, experiment.test) if path)
    missing = find_data_problems(folder) if names == DATA_FILES else []
    if missing:
        findings.problems.extend(missing)
        return None
    data = experiment.config.data
    try:
        splits = load_splits(
            experiment.train,
            experiment.dev,
            test=experiment.test,
            max_train_rows=data.max_train_rows,
            max_dev_rows=data.max_dev_rows,
            max_test_rows=data.max_test_rows,
        )
    except ProblemsError as error:
        findings.problems.extend(error.problems)
        return None
    except DialsumError as error:
        findings.problems.append(str(error))
        return None
    findings.notes.extend([_count_rows(splits), *splits.notes])
    return len(splits.train)


def _count_rows(splits: Splits) -> str:
    present = [split for split in (splits.train, splits.dev, splits.test) if split is not None]
    return "data: " + ", ".join(f"{shown(split.path)} {len(split):,} rows" for split in present)

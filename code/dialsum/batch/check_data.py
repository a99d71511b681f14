"""Reads the dialogues of experiments, as their processes will, to find what is wrong with them.

Must not know what a right row is: the data layer says that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dialsum.batch.first_look import DATA_FILES, find_data_problems
from dialsum.config.schema import Config, Data
from dialsum.data.dialogues import load_split
from dialsum.data.rows import Kind
from dialsum.data.splits import Splits, load_splits
from dialsum.errors import DialsumError, ProblemsError
from dialsum.paths import project_path, shown


@dataclass(frozen=True)
class DataFindings:
    """What was found in the data of experiments.

    Attributes:
        splits: of each experiment, in order; None where its data could not be read.
    """

    splits: list[Splits | None]
    problems: list[str]
    notes: list[str]


def check_data(configs: Iterable[Config]) -> DataFindings:
    """Read the files of every experiment, those that several share once."""
    found: dict[str, Splits | None] = {}
    findings = DataFindings([], [], [])
    for config in configs:
        key = config.data.model_dump_json()
        if key not in found:
            found[key] = _read(config.data, findings)
        findings.splits.append(found[key])
    return findings


def _read(data: Data, findings: DataFindings) -> Splits | None:
    folder = project_path(data.data_dir)
    names = tuple(name for name in (data.train_file, data.dev_file, data.test_file) if name)
    missing = find_data_problems(folder) if names == DATA_FILES else []
    if missing:
        findings.problems.extend(missing)
        findings.problems.extend(_find_beside(folder))
        return None
    try:
        splits = load_splits(
            folder / data.train_file,
            folder / data.dev_file,
            test=folder / data.test_file if data.test_file else None,
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
    return splits


def _find_beside(folder: Path) -> list[str]:
    """Return what is wrong with those files that are there where others are missing."""
    problems: list[str] = []
    kinds: tuple[Kind, ...] = ("train", "dev", "test")
    for kind, name in zip(kinds, DATA_FILES, strict=True):
        # What is no table at all was named already.
        if not find_data_problems(folder, [name]):
            try:
                load_split(folder / name, kind=kind)
            except DialsumError as error:
                found = error.problems if isinstance(error, ProblemsError) else [str(error)]
                problems += found
    return problems


def _count_rows(splits: Splits) -> str:
    counts = (f"{shown(split.path)} {len(split):,} rows" for split in splits.present)
    return f"data: {', '.join(counts)}"

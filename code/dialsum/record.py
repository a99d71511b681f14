"""The record that every run leaves, result.json: read, found, put in words.

A run's time is the `started_at` inside its record; the dates of files are never asked. Writes
nothing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dialsum.errors import RunError, UnfitError
from dialsum.experiment.job import say_attempts
from dialsum.files import read_regular
from dialsum.paths import RunPaths, shown
from dialsum.score.rouge import require_same_signature
from dialsum.score.show import format_scores

SCHEMA_VERSION = 1
STATUSES = ("success", "failed", "interrupted")


@dataclass(frozen=True)
class Record:
    """One `result.json` as it was read.

    Attributes:
        path: the file; paths inside the record are relative to its folder.
        content: the whole record.
    """

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The experiment: its configuration file's stem."""
        return str(self.content["experiment"])

    @property
    def label(self) -> str:
        """How the experiment is called on screen."""
        return str(self.content.get("label") or self.name)

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return str(self.content["status"])

    @property
    def succeeded(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "success"

    @property
    def started_at(self) -> datetime:
        """When the run started, by its own clock, with offset."""
        return parse_moment(self.content["started_at"])

    @property
    def signature(self) -> str | None:
        """The recipe of the dev scores; None where there are no scores."""
        value = self.value("evaluation.dev.signature")
        return None if value is None else str(value)

    def value(self, dotted: str) -> Any:
        """Return what stands at a dotted key, None where any part of the way is absent."""
        found: Any = self.content
        for key in dotted.split("."):
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        return found

    def number(self, dotted: str) -> float | None:
        """Return the number at a dotted key; None where there is none or something else.

        What is recorded as `nan` or `inf` is returned as such. Nothing is raised: a table of a
        night's runs must not fail for one odd value.
        """
        found = self.value(dotted)
        if isinstance(found, bool) or not isinstance(found, (int, float, str)):
            return None
        try:
            return float(found)
        except ValueError:
            return None

    def artifact(self, key: str) -> Path | None:
        """Return where an artifact of the run stands, None where the record names none."""
        relative = self.value(f"artifacts.{key}")
        return None if relative is None else Path(os.path.normpath(self.path.parent / relative))


class SavedModel(NamedTuple):
    """A model on the disk with the run that made it."""

    path: Path
    record: Record


def parse_moment(text: str) -> datetime:
    """Read an ISO time; one without offset is taken as local time."""
    return datetime.fromisoformat(text).astimezone()


def read_record(path: Path) -> Record:
    """Read one result.json.

    Raises:
        RunError: it cannot be read, is no JSON, is of another schema, or lacks what every record
            has.
    """
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except OSError as error:
        raise RunError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{shown(path)}: is no valid JSON ({error}); the run's metrics.jsonl may still be whole"
        ) from error
    problem = _find_problem(content)
    if problem:
        raise RunError(f"{shown(path)}: {problem}")
    return Record(path=path, content=content)


def _find_problem(content: Any) -> str | None:
    if not isinstance(content, dict) or "schema_version" not in content:
        return "is no record of a run (it has no schema_version)"
    if content["schema_version"] != SCHEMA_VERSION:
        return (
            f"has schema_version {content['schema_version']!r}; this version of the program reads "
            f"{SCHEMA_VERSION}: read it with the version that wrote it"
        )
    missing = [
        key
        for key in ("experiment", "status", "started_at")
        if not isinstance(content.get(key), str)
    ]
    if missing:
        return f"lacks {', '.join(missing)}"
    if content["status"] not in STATUSES:
        return f"has status {content['status']!r}; known are {', '.join(STATUSES)}"
    try:
        parse_moment(content["started_at"])
    except ValueError:
        return f"started_at {content['started_at']!r} is no ISO time"
    return None


def find_records(root: Path) -> tuple[list[Record], list[str]]:
    """Read every record below a folder, those under `previous/` too, in order of their start.

    Returns:
        The records, and one sentence for each result.json or folder that could not be read.

    Raises:
        UnfitError: root is no folder.
    """
    if not root.is_dir():
        raise UnfitError(f"{shown(root)}: there is no such folder, so no runs either")
    records, problems = [], []
    for run, is_recorded in _walk_runs(
        root, lambda error: problems.append(f"{error.filename}: cannot be read: {error.strerror}")
    ):
        try:
            if is_recorded:
                records.append(read_record(run.result))
        except RunError as error:
            problems.append(str(error))
    return sorted(records, key=lambda record: (record.started_at, record.path)), problems


def find_unfinished(root: Path) -> list[Path]:
    """Return the folders of runs that began and left no record: at work, or cut off."""
    return sorted(run.folder for run, is_recorded in _walk_runs(root) if not is_recorded)


def _walk_runs(
    root: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterable[tuple[RunPaths, bool]]:
    """Give every run below a folder, and whether it has a record."""
    for folder, folders, files in os.walk(root, onerror=onerror):
        own = RunPaths.alone(Path(folder))
        is_recorded = own.result.name in files
        if is_recorded or own.environment.name in files:
            yield own, is_recorded
            # Checkpoints and weights hold no records, earlier runs do.
            folders[:] = [name for name in folders if name == own.previous.name]
        folders.sort()


def latest_runs(records: Iterable[Record]) -> dict[str, Record]:
    """Return each experiment's latest run, by started_at, under the experiment's name.

    Of two that started in one second, the one that was not moved to `previous/` is the later.
    """
    previous = RunPaths.alone(Path()).previous.name
    ordered = sorted(
        records, key=lambda one: (one.started_at, one.path.parent.parent.name != previous, one.path)
    )
    return {record.name: record for record in ordered}


def best_run(records: Sequence[Record], *, metric: str = "rouge_mean") -> Record:
    """Return the successful run with the highest dev metric.

    Raises:
        UnfitError: no successful run has that metric.
        DataError: the runs were scored by different recipes, which cannot be ranked together.
    """
    scored = [
        (value, record)
        for record in records
        if record.succeeded
        and (value := record.number(f"evaluation.dev.{metric}")) is not None
        and not math.isnan(value)
    ]
    if not scored:
        raise UnfitError(f"none of {len(records)} runs succeeded with a dev {metric}")
    require_same_signature(
        {f"{one.name} ({one.content['started_at']})": one.signature or "none" for _, one in scored}
    )
    return max(scored, key=lambda pair: pair[0])[1]


def find_saved_models(records: Iterable[Record]) -> list[SavedModel]:
    """Return the models that runs left and that are still there, best rouge_mean first within each
    recipe."""
    models = [
        SavedModel(path, record)
        for record in records
        if (path := record.artifact("model")) is not None and path.is_dir()
    ]
    return sorted(
        models,
        key=lambda model: (
            model.record.signature or "~",
            -(model.record.number("evaluation.dev.rouge_mean") or 0.0),
        ),
    )


def best_metrics_text(result: Mapping[str, Any]) -> str:
    """Return the text of a run's summary.

    The `Best Metrics` line and the five lines after it are what people grep for over many runs;
    scales, floors and targets follow. A run without scores says why it has none.

    Args:
        result: the run's record, as it goes into result.json.
    """
    name, label = result["experiment"], result.get("label")
    if label and label != name:
        name = f"{name} ({label})"
    dev, training = result.get("evaluation", {}).get("dev"), result.get("training", {})
    attempts = say_attempts(result)
    if dev is None:
        reason = result.get("reason") or "no reason is recorded"
        lines = [f"{name}: {result['status']}, no scores: {reason}"]
        return "\n".join([*lines, *(f"  {line}" for line in attempts)]) + "\n"
    if "best_step" in training:
        name += f"  (dev, checkpoint of step {training['best_step']} of "
        name += f"{training.get('steps', '?')})"
    lines = [f"Best Metrics  {name}"]
    for key in ("rouge1", "rouge2", "rougeL", "rouge_mean"):
        ends = dev.get("confidence", {}).get(key)
        interval = f" ({_two_decimals(ends[0])} to {_two_decimals(ends[1])})" if ends else ""
        lines.append(f"  {key.replace('_', ' ')}: {_two_decimals(dev[key])}{interval}")
    lines += [f"  signature: {dev['signature']}", ""]
    lines += [*attempts, ""] if attempts else []
    lines += [format_scores(dev, name="this run"), ""]
    target = result["evaluation"].get("target") or {}
    for kind in ("expected", "minimum", "ideal"):
        if bounds := target.get(kind):
            wanted = (
                "ROUGE-1 {:g} to {:g}".format(*bounds["rouge1"])
                if kind == "expected"
                else ", ".join(f"{key} {value:g}" for key, value in bounds.items() if key != "met")
            )
            met = "met" if bounds.get("met") else "not met"
            lines.append(f"{kind} {wanted} on {target['tokenizer']} tokens: {met}")
    return "\n".join(lines).rstrip("\n") + "\n"


def _two_decimals(value: float | str) -> str:
    # A score that is not finite stands in the record by its name.
    return value if isinstance(value, str) else f"{value:.2f}"

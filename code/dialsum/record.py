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
from typing import Any

from dialsum.attempts import say_attempts
from dialsum.errors import RunError, UnfitError
from dialsum.files import read_regular
from dialsum.paths import RunPaths, shown
from dialsum.score.show import format_scores
from dialsum.score.signature import require_same_signature

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


@dataclass(frozen=True)
class SavedModel:
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
    return {record.name: record for record in sorted(records, key=_order_of_start)}


def _order_of_start(record: Record) -> tuple[datetime, bool, Path]:
    moved = record.path.parent.parent.name == RunPaths.alone(Path()).previous.name
    return record.started_at, not moved, record.path


def best_run(records: Sequence[Record], *, metric: str = "rouge_mean") -> Record:
    """Return the successful run with the highest dev metric.

    Raises:
        UnfitError: no successful run has that metric.
        DataError: the runs were scored by different recipes, which cannot be ranked together.
    """
    values = [
        (record, record.number(f"evaluation.dev.{metric}"))
        for record in records
        if record.succeeded
    ]
    scored = [
        (record, value) for record, value in values if value is not None and not math.isnan(value)
    ]
    if not scored:
        raise UnfitError(f"none of {len(records)} runs succeeded with a dev {metric}")
    require_same_signature(
        {
            f"{record.name} ({record.content['started_at']})": record.signature or "none"
            for record, _ in scored
        }
    )
    return max(scored, key=lambda pair: pair[1])[0]


def find_saved_models(records: Iterable[Record]) -> list[SavedModel]:
    """Return the models that runs left and that are still there, best rouge_mean first within each
    recipe."""
    models = [
        SavedModel(path=path, record=record)
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


HEADLINE = (
    ("rouge1", "rouge1"),
    ("rouge2", "rouge2"),
    ("rougeL", "rougeL"),
    ("rouge_mean", "rouge mean"),
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
    dev = result.get("evaluation", {}).get("dev")
    attempts = say_attempts(result)
    if dev is None:
        reason = result.get("reason") or "no reason is recorded"
        said = [f"{name}: {result['status']}, no scores: {reason}"]
        return "\n".join([*said, *(f"  {line}" for line in attempts)]) + "\n"
    lines = [f"Best Metrics  {name}{_describe_checkpoint(result.get('training', {}))}"]
    lines += [
        f"  {title}: {_two_decimals(dev[key])}{_interval(dev, key)}" for key, title in HEADLINE
    ]
    lines += [f"  signature: {dev['signature']}", ""]
    lines += [*attempts, ""] if attempts else []
    lines += [format_scores(dev, name="this run"), ""]
    lines += describe_target(result["evaluation"].get("target"))
    return "\n".join(lines).rstrip("\n") + "\n"


def describe_target(target: Mapping[str, Any] | None) -> list[str]:
    """Say what was expected of a run, on which scale, and whether it was met, if anything was."""
    if not target:
        return []
    scale = f"on {target['tokenizer']} tokens"
    lines = []
    if expected := target.get("expected"):
        low, high = expected["rouge1"]
        lines.append(f"expected ROUGE-1 {low:g} to {high:g} {scale}: {_met(expected)}")
    for kind in ("minimum", "ideal"):
        if bounds := target.get(kind):
            wanted = ", ".join(f"{key} {value:g}" for key, value in bounds.items() if key != "met")
            lines.append(f"{kind} {wanted} {scale}: {_met(bounds)}")
    return lines


def _met(block: Mapping[str, Any]) -> str:
    return "met" if block.get("met") else "not met"


def _describe_checkpoint(training: Mapping[str, Any]) -> str:
    if "best_step" not in training:
        return ""
    return f"  (dev, checkpoint of step {training['best_step']} of {training.get('steps', '?')})"


def _interval(dev: Mapping[str, Any], key: str) -> str:
    ends = dev.get("confidence", {}).get(key)
    return f" ({_two_decimals(ends[0])} to {_two_decimals(ends[1])})" if ends else ""


def _two_decimals(value: float | str) -> str:
    # A score that is not finite stands in the record by its name.
    return value if isinstance(value, str) else f"{value:.2f}"

"""The record that every run leaves, result.json, and its folder: whether this program may write
there, and how an earlier run is moved aside.

A run's time is the `started_at` inside its record; the dates of files are never asked. Only names
that a run writes are moved, and all of them or none; a move that was cut off by the death of its
process is taken up again by the next one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dialsum.errors import DiskFullError, RunError, UnfitError
from dialsum.experiment.attempt import CUT_OFF, say_attempts
from dialsum.experiment.job import Job
from dialsum.files import dump_json, find_half_written, read_regular, write_json, write_text
from dialsum.paths import LOCK, RunPaths, relative, shown, timestamp
from dialsum.score.rouge import require_same_signature
from dialsum.score.show import format_scores
from dialsum.text import say_first
from dialsum.train.checkpoints import list_checkpoints

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
    def cut_off(self) -> bool:
        """Whether something from outside ended the run, so that it can go on where it was."""
        return self.status == "interrupted" or self.value("failure.cause") in CUT_OFF

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

    One that was cut off stands behind those that came to their end: it hides no result. Of two that
    started in one second, the one that was not moved to `previous/` is the later.
    """
    previous = RunPaths.alone(Path()).previous.name
    ordered = sorted(
        records,
        key=lambda one: (
            not one.cut_off,
            one.started_at,
            one.path.parent.parent.name != previous,
            one.path,
        ),
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


MOST_NAMES = 3
WAY_OUT = (
    "Name a new or empty folder (trainer.py --run-dir DIR; --output-dir DIR is the folder above "
    "all runs, in trainer.py and in the runner), or move away what stands there"
)
UNKNOWN_START = "unknown_start"
"""Folder name for what a run left that died before it wrote when it started."""
DRAFT = ".draft"
"""Ends the name of what is to stand at a place once everything else is done."""


def holds_run(folder: Path) -> bool:
    """Tell whether a run of this program stands in a folder: finished, cut off, or only asked."""
    own = RunPaths.alone(folder)
    result, environment, job = (
        read_json_object(own.result),
        read_json_object(own.environment),
        read_json_object(own.job),
    )
    return (
        {"schema_version", "experiment", "status"} <= result.keys()
        or {"started_at", "schema_version"} <= environment.keys()
        or {"kind", "attempt", "origins", "config"} <= job.keys()
    )


def find_model(folder: Path) -> Path | None:
    """Return where the run in a folder keeps its model; None where none of its files says it."""
    own = RunPaths.alone(folder)
    artifacts = read_json_object(own.result).get("artifacts")
    said = [
        read_json_object(own.environment).get("model"),
        artifacts.get("model") if isinstance(artifacts, dict) else None,
    ]
    places = [Path(os.path.normpath(folder / place)) for place in said if isinstance(place, str)]
    return places[0] if places else None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it is missing, damaged or something else."""
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # not known to be ours is all that the caller asks
    return content if isinstance(content, dict) else {}


def find_foreign(paths: RunPaths) -> str | None:
    """Say what stands in the way of a run that would write here; None where nothing does.

    Files of others beside a run of ours are no obstacle: they stay where they are.
    """
    folder, model = paths.folder, paths.model
    inside = RunPaths.alone(folder).model
    if folder.is_relative_to(model) or not (paths.has_outside_model or model == inside):
        return (
            f"{shown(model)}: a run's model goes to {shown(inside)}, or to a folder outside of the "
            "run's; leave --model-dir out, or name another one"
        )
    for place in [folder, model] if paths.has_outside_model else [folder]:
        for above in place.parents:
            if holds_run(above) and RunPaths.alone(above).previous not in place.parents:
                return f"{shown(place)}: lies inside the run in {shown(above)}. {WAY_OUT}"
    ours = holds_run(folder)
    lacking = "no result.json or environment.json of a run of this program"
    nobodys = _find_half_written(paths)
    found = None if ours else _find_files(folder, what="run", lacking=lacking, but=nobodys)
    if found is None and paths.has_outside_model and not (ours and find_model(folder) == model):
        lacking = "no model that the run in the run's folder wrote"
        found = _find_files(model, what="model", lacking=lacking, but=nobodys)
    if found is not None:
        return found
    for path in (*paths.written, paths.previous):
        if path.is_symlink():  # through it a run would write, move or delete elsewhere
            return (
                f"{shown(path)}: is a link to {path.readlink()}, and a run neither writes nor "
                "deletes through links. Remove the link; a folder on another disk is named with "
                "--run-dir, --runs-dir or --output-dir"
            )
    return None


def _find_files(folder: Path, *, what: str, lacking: str, but: Sequence[Path]) -> str | None:
    """Say what stands in a folder that is not known to be ours, if anything does but these."""
    if os.path.lexists(folder) and not folder.is_dir():
        return f"{shown(folder)}: is a file, but the {what}'s folder goes there. {WAY_OUT}"
    try:
        there = folder.iterdir() if folder.is_dir() else ()
        names = sorted(one.name for one in there if one not in but)
    except OSError as error:
        return f"{shown(folder)}: cannot be looked into: {error.strerror or error}. {WAY_OUT}"
    names = [name for name in names if name not in (LOCK, RunPaths.alone(folder).previous.name)]
    if not names:
        return None
    return (
        f"{shown(folder)}: holds {say_first(names, limit=MOST_NAMES)}, and {lacking}; nothing in "
        f"it was touched. {WAY_OUT}"
    )


def archive_previous(paths: RunPaths, *, first: Mapping[Path, str] | None = None) -> Path | None:
    """Move what a run left at a place, its model too, to `previous/STARTED/`, finished or not, and
    put the first files of the new run there: all of this, or nothing.

    The moved record is rewritten, so that every path in its `artifacts` stays true. Files of others
    beside the run's stay where they are.

    Args:
        first: path to text. They are on the disk before anything is moved: where it is full, the
            earlier run stays as it is.

    Returns:
        The new folder, None where nothing stood there.

    Raises:
        UnfitError: what stands there was not written by this program.
        DiskFullError, RunError: there is no room, or something cannot be moved; everything stands
            where it stood.
    """
    foreign = find_foreign(paths)
    if foreign is not None:
        raise UnfitError(foreign)
    try:
        with ExitStack() as undo:
            drafts = [_write_draft(path, text, undo) for path, text in (first or {}).items()]
            target, copied = _move_run(paths, drafts, undo)
            for draft in drafts:  # the last one is placed last
                draft.rename(str(draft).removesuffix(DRAFT))
            undo.pop_all()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(paths.folder) from error
        raise RunError(
            f"{shown(paths.folder)}: the earlier run cannot be moved to {shown(paths.previous)}: "
            f"{error.strerror or error}; it stands where it stood. Move it away by hand, or write "
            "elsewhere with --output-dir."
        ) from error
    for source in copied:
        shutil.rmtree(source)
    return target


def _move_run(
    paths: RunPaths, drafts: list[Path], undo: ExitStack
) -> tuple[Path | None, list[Path]]:
    """Move the run that stands at a place.

    Args:
        drafts: gets the draft of its record.
        undo: gets what takes each step back.

    Returns:
        Its new folder, None where none stands there; what was copied to another file system.
    """
    sources = [path for path in paths.written if os.path.lexists(path)]
    if paths.has_outside_model and paths.model.is_dir() and find_model(paths.folder) == paths.model:
        sources.insert(0, paths.model)
    if not set(sources) - {paths.job}:
        return None, []  # a job that nobody began is replaced
    target = _choose_target(paths)
    _make_folder(target.folder, undo)
    content = None
    with suppress(RunError):  # none, or a damaged one that goes along as it is, for a person
        content = read_record(paths.result).content
    if content is not None:
        moved = dump_json(_follow_record(content, paths, target))
        drafts.append(_write_draft(target.result, moved, undo))
    copied = []
    for source in sources:
        place = target.folder / (target.model.name if source == paths.model else source.name)
        try:
            source.rename(place)
            undo.callback(_move_back, source, place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            draft = place.with_name(place.name + DRAFT)
            shutil.rmtree(draft, ignore_errors=True)  # of a copy that was cut off
            undo.callback(shutil.rmtree, draft, ignore_errors=True)
            _copy_tree(source, draft)
            draft.rename(place)
            undo.callback(shutil.rmtree, place, ignore_errors=True)
            copied.append(source)
    return target.folder, copied


def _make_folder(folder: Path, undo: ExitStack) -> None:
    """Make a folder and those above it that are missing."""

    def remove(made: Path) -> None:
        with suppress(OSError):  # not empty: somebody else uses it by now
            made.rmdir()

    for one in reversed([folder, *folder.parents]):
        if not one.is_dir():
            one.mkdir()
            undo.callback(remove, one)


def _write_draft(path: Path, text: str, undo: ExitStack) -> Path:
    """Write a file that is to stand at path in the end."""
    _make_folder(path.parent, undo)
    draft = path.with_name(path.name + DRAFT)
    undo.callback(draft.unlink, missing_ok=True)
    write_text(draft, text)
    return draft


def _move_back(source: Path, place: Path) -> None:
    try:
        place.rename(source)
    except OSError as error:
        raise RunError(
            f"{shown(place)}: cannot be moved back to {shown(source)}: {error.strerror or error}; "
            "move it by hand"
        ) from error


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a folder; unlike shutil's, this ends at the first file that cannot be copied, with its
    own error."""
    target.mkdir()
    for one in source.iterdir():
        if one.is_dir() and not one.is_symlink():
            _copy_tree(one, target / one.name)
        else:
            shutil.copy2(one, target / one.name, follow_symlinks=False)
    shutil.copystat(source, target)


def _read_start(paths: RunPaths) -> datetime | None:
    """Return when the run at paths started, None where none of its files can say."""
    for path in (paths.result, paths.environment):
        with suppress(ValueError, KeyError, TypeError):  # what the next file, or None, is for
            return parse_moment(read_json_object(path)["started_at"])
    return None


def _choose_target(paths: RunPaths) -> RunPaths:
    """Return a folder under previous/ that no other run has; one that a cut-off move began is gone
    on with."""
    started = _read_start(paths)
    name = timestamp(started) if started else UNKNOWN_START
    number = 1
    while True:
        target = RunPaths.alone(paths.previous / (name if number == 1 else f"{name}_{number}"))
        # Environment and record are moved last.
        began_only = (
            started is not None
            and not target.result.exists()
            and not (target.environment.exists() and paths.environment.exists())
        )
        if not target.folder.exists() or began_only:
            return target
        number += 1


def _follow_record(content: dict[str, Any], paths: RunPaths, target: RunPaths) -> dict[str, Any]:
    """Return a record, or one of its attempts, as it has to read in the folder that it moves to."""

    def follow(place: Any) -> Any:
        if not isinstance(place, str):
            return place
        absolute = Path(os.path.normpath(paths.folder / place))
        if absolute == paths.model:
            absolute = target.model
        elif absolute.is_relative_to(paths.folder) and not absolute.is_relative_to(paths.previous):
            return place
        return relative(absolute, target.folder)

    moved = dict(content)
    if artifacts := content.get("artifacts"):
        moved["artifacts"] = {key: follow(place) for key, place in artifacts.items()}
    if "attempts" in content:
        moved["attempts"] = [_follow_record(one, paths, target) for one in content["attempts"]]
    return moved


def remove_half_written(paths: RunPaths) -> None:
    """Remove the files that a killed process was writing for a run; called by who holds its folder.

    Raises:
        UnfitError: one cannot be removed.
    """
    left, inside = _find_half_written(paths), [paths.results, paths.checkpoints]
    # Through a link it would be somebody else's folder; such a run is refused.
    if not any(folder.is_symlink() for folder in inside):
        for folder in (*inside, *list_checkpoints(paths.checkpoints)):
            left += find_half_written(folder)
    remove_left(left)


def _find_half_written(paths: RunPaths) -> list[Path]:
    """Return what a killed process was writing right in a run's folder and in its model's."""
    names = [one.name for one in paths.written]
    drafts = [one.with_name(one.name + DRAFT) for one in paths.written]
    left = [draft for draft in drafts if draft.is_file() and not draft.is_symlink()]
    left += find_half_written(paths.folder, [*names, *(draft.name for draft in drafts)])
    return left + find_half_written(paths.model, [paths.model_info.name, "README.md"])


def remove_left(left: Iterable[Path]) -> None:
    """Remove files that nobody needs; UnfitError where one cannot be removed."""
    for path in left:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UnfitError(
                f"{shown(path)}: was left by a process that was killed, and cannot be removed: "
                f"{error.strerror or error}. Remove it yourself, or mend the folder's permissions"
            ) from error


def describe_dead_run(
    job: Job, status: str, reason: str, *, started_at: datetime
) -> dict[str, Any]:
    """Return the record of a run that ended now, before it could write its own, as far as it is
    known from outside.

    Args:
        status: failed or interrupted.
        reason: what happened, for the user.
        started_at: when its process did.
    """
    finished_at = datetime.now().astimezone()
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": job.name,
        "label": job.label,
        "kind": job.kind,
        "batch": job.batch,
        "status": status,
        "reason": reason,
        "started_at": started_at.astimezone().isoformat(timespec="milliseconds"),
        "finished_at": finished_at.isoformat(timespec="milliseconds"),
        "duration_seconds": round((finished_at - started_at).total_seconds(), 3),
    }


def find_artifacts(paths: RunPaths) -> dict[str, str]:
    """Return what of a run is there, by name, each place relative to its record."""
    there = {name: path for name, path in paths.artifacts.items() if path.exists()}
    return {name: relative(path, paths.folder) for name, path in there.items()}


def write_failed_record(paths: RunPaths, content: dict[str, Any]) -> Record:
    """Write the record of a run that ended before it could write its own.

    An earlier run that still stands at the place, because the new one died before it moved it, is
    moved first.

    Args:
        paths: the run's files.
        content: as describe_dead_run returns it; what the run left behind is added as its
            artifacts.

    Raises:
        UnfitError: something that this program did not write stands at the place.
        DiskFullError, RunError: the record cannot be written; an earlier run stays as it is.
    """
    started = None if paths.result.exists() else _read_start(paths)
    # Times in files may be whole seconds.
    if started is not None and started >= parse_moment(content["started_at"]).replace(
        microsecond=0
    ):
        # Of the rest it may have left half a file.
        whole_files = ("metrics", "log", "resolved_config")
        left = {name: place for name, place in find_artifacts(paths).items() if name in whole_files}
        whole = {**content, "artifacts": left}
        write_json(paths.result, whole)
    else:
        whole = {**content, "artifacts": {}}
        archive_previous(paths, first={paths.result: dump_json(whole)})
    return Record(path=paths.result, content=whole)

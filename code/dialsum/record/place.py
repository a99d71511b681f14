"""Whether a run may write to a place: it is new, empty, or holds a run that this program wrote.

A run is known by its result.json or, where it died before that, by its environment.json, which is
the first file that it writes. Must not change anything: whatever else stands at a place is
somebody else's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dialsum.paths import LOCK, RunPaths, shown
from dialsum.reading import read_regular

MOST_NAMES = 3
UNTOUCHED = "nothing in it was touched"
WAY_OUT = (
    "Name a new or empty folder (trainer.py --run-dir DIR; --output-dir DIR is the folder above "
    "all runs, in trainer.py and in the runner), or move away what stands there"
)


def holds_run(folder: Path) -> bool:
    """Tell whether a run of this program stands in a folder, finished or not."""
    own = RunPaths.alone(folder)
    result, environment = _read(own.result), _read(own.environment)
    return {"schema_version", "experiment", "status"} <= result.keys() or (
        "started_at" in environment
        # Those of the first versions had no schema_version.
        and ("schema_version" in environment or {"packages", "argv"} <= environment.keys())
    )


def find_model(folder: Path) -> Path | None:
    """Return where the run in a folder keeps its model; None where none of its files says it."""
    own = RunPaths.alone(folder)
    artifacts = _read(own.result).get("artifacts")
    said = [
        _read(own.environment).get("model"),
        artifacts.get("model") if isinstance(artifacts, dict) else None,
    ]
    return next(
        (Path(os.path.normpath(folder / place)) for place in said if isinstance(place, str)), None
    )


def owns_model(paths: RunPaths) -> bool:
    """Tell whether the run at a place wrote, or was about to write, what stands as its model."""
    return holds_run(paths.folder) and find_model(paths.folder) == paths.model


def find_foreign(paths: RunPaths) -> str | None:
    """Say what stands in the way of a run that would write here; None where nothing does.

    Files of others beside a run of ours are no obstacle: they stay where they are.
    """
    return (
        _find_nesting(paths)
        or _find_foreign_in(paths.folder, ours=holds_run(paths.folder), what="run")
        or (
            _find_foreign_in(paths.model, ours=owns_model(paths), what="model")
            if paths.has_outside_model
            else None
        )
        or _find_link(paths)
    )


def _find_foreign_in(folder: Path, *, ours: bool, what: str) -> str | None:
    if os.path.lexists(folder) and not folder.is_dir():
        return f"{shown(folder)}: is a file, but the {what}'s folder goes there. {WAY_OUT}"
    try:
        names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        return f"{shown(folder)}: cannot be looked into: {error.strerror or error}. {WAY_OUT}"
    names = [name for name in names if name not in (LOCK, RunPaths.alone(folder).previous.name)]
    if not names or ours:
        return None
    lacking = (
        "no result.json or environment.json of a run of this program"
        if what == "run"
        else "no model that the run in the run's folder wrote"
    )
    return f"{shown(folder)}: holds {_quote(names)}, and {lacking}; {UNTOUCHED}. {WAY_OUT}"


def _quote(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _find_nesting(paths: RunPaths) -> str | None:
    """Refuse a place inside another run, and a model among the files of its own run."""
    folder, model = paths.folder, paths.model
    wrong_inside = not paths.has_outside_model and model != RunPaths.alone(folder).model
    if wrong_inside or folder.is_relative_to(model):
        return (
            f"{shown(model)}: a run's model goes to {shown(RunPaths.alone(folder).model)}, or to a "
            "folder outside of the run's; leave --model-dir out, or name another one"
        )
    for place in dict.fromkeys([folder, model] if paths.has_outside_model else [folder]):
        for above in place.parents:
            if holds_run(above) and RunPaths.alone(above).previous not in place.parents:
                return f"{shown(place)}: lies inside the run in {shown(above)}. {WAY_OUT}"
    return None


def _find_link(paths: RunPaths) -> str | None:
    """Refuse links where a run writes: through one it would write, move or delete elsewhere."""
    for path in (*paths.written, paths.previous):
        if path.is_symlink():
            return (
                f"{shown(path)}: is a link to {path.readlink()}, and a run neither writes nor "
                "deletes through links. Remove the link; a folder on another disk is named with "
                "--run-dir, --runs-dir or --output-dir"
            )
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it is missing, damaged or something else."""
    try:
        content = json.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # not known to be ours is all that the caller asks
    return content if isinstance(content, dict) else {}

"""The files on many runs: a batch's results, a root's latest runs, the CSV of all.

Must not know how tables or rankings are made. Every path in these files is relative to the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dialsum.batch.result import BatchResult, describe_unwritten
from dialsum.errors import DialsumError
from dialsum.files import refuse_foreign, to_plain, write_json, write_table_for_people
from dialsum.paths import BatchPaths, RunPaths, relative
from dialsum.record import SCHEMA_VERSION, Record, find_records, latest_runs, read_json_object
from dialsum.report.tables import is_ranked, points_above_floor, rank_records, sort_records

LEFT_OUT = ("schema_version", "artifacts", "submission", "attempts")
"""Keys of a run's record that its summaries do not copy."""
OVER_ROWS = ("per_row", "worst")
"""Keys of what a record says of single rows; the record alone has them."""


def write_batch_files(result: BatchResult) -> dict[Path, str]:
    """Write what is known of a batch so far; called again and again, each time the whole.

    Returns:
        The files that could not be written, and why: one keeps none of the others from trying.
    """
    paths = result.plan.paths
    contents = {
        paths.results(result.plan.started_at): summarise_batch(result),
        paths.summary: summarise_root(paths.runs, paths.summary),
    }
    unwritten = {}
    for path, content in contents.items():
        try:
            write_json(path, content)
        except DialsumError as error:
            unwritten[path] = describe_unwritten(error)
    return unwritten


def summarise_batch(result: BatchResult) -> dict[str, Any]:
    """Return the record of one batch: experiments in the order of the queue, each with its rank
    where it has one."""
    plan, end = result.plan, result.finished_at
    folder = plan.paths.root
    ranks = rank_records(result.records)
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": plan.batch_id,
        "kind": plan.kind,
        "status": result.status,
        "started_at": plan.started_at.isoformat(timespec="seconds"),
        "finished_at": None if end is None else end.isoformat(timespec="seconds"),
        "logs": relative(plan.paths.logs(plan.started_at), folder),
        "experiments": [
            {
                "number": one.job.number,
                **_summarise_run(one.record, ranks, folder),
                "log": relative(one.log, folder),
                "unwritten": one.unwritten,
            }
            for one in result.experiments
        ],
        "not_started": [
            {"number": one.number, "experiment": one.name, "label": one.label}
            for one in result.not_started
        ],
        "problems": result.problems,
    }


def summarise_root(runs: Path, file: Path) -> dict[str, Any]:
    """Return the summary of a root: each experiment's latest run, best first; those without a score
    last, by their start.

    Args:
        runs: folder of the runs.
        file: where the summary will stand.
    """
    records, problems = find_records(runs) if runs.is_dir() else ([], [])
    latest = list(latest_runs(records).values())
    ranks = rank_records(latest)
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": relative(runs, file.parent),
        "experiments": [_summarise_run(one, ranks, file.parent) for one in sort_records(latest)],
        "unreadable": problems or None,
    }


def refresh_root(paths: RunPaths) -> None:
    """Write the summary of a run's root anew where it has one, after a run that no batch started.

    Raises:
        DiskFullError, RunError: it cannot be written; the old one still stands.
    """
    for root in {paths.folder.parent.parent, paths.model.parent.parent}:
        file = BatchPaths(root, root).summary
        content = read_json_object(file)
        runs = (root / str(content.get("runs"))).resolve()
        if "schema_version" in content and runs == paths.folder.parent:
            write_json(file, summarise_root(runs, file))


def _summarise_run(
    record: Record, ranks: dict[Path, dict[str, int]], folder: Path
) -> dict[str, Any]:
    """Return what a summary in a folder says of one run."""
    content = {key: value for key, value in record.content.items() if key not in LEFT_OUT}
    here = record.path.parent
    attempts = [
        {**one, "artifacts": {k: relative(here / place, folder) for k, place in places.items()}}
        if (places := one.get("artifacts"))
        else one
        for one in record.content.get("attempts", ())
    ]
    above = points_above_floor(record) if is_ranked(record) else None
    return {
        **ranks.get(record.path, {}),
        **without_rows(content),
        **({"attempts": attempts} if attempts else {}),
        "points_above_constant": None if above is None else round(above, 4),
        "record": relative(record.path, folder),
    }


def without_rows(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record's content without what it says of single rows."""
    return {
        key: without_rows(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if key not in OVER_ROWS
    }


FIRST_COLUMNS = (
    "ranking",
    "rank",
    "experiment",
    "label",
    "status",
    "kind",
    "batch",
    "started_at",
    "duration_seconds",
    "evaluation.dev.rouge1",
    "evaluation.dev.rouge2",
    "evaluation.dev.rougeL",
    "evaluation.dev.rouge_mean",
    "evaluation.dev.floors.constant.rouge_mean",
    "evaluation.dev.signature",
    "evaluation.dev.rows",
    "data.files.dev",
    "data.sha256.dev",
    "reason",
    "record",
)
"""What people look at first; all other values follow in the order of the records."""


def write_comparison(records: Sequence[Record], path: Path) -> None:
    """Write the CSV: runs of one recipe and dev set together, best first; those without a score
    last, by their start. An older one at its place is replaced.

    Raises:
        UnfitError: another file than an older comparison stands there.
        DiskFullError, RunError: it cannot be written.
    """
    ours = {"experiment", "status", "started_at", "record"}
    refuse_foreign(
        path,
        is_ours=lambda head: (
            ours <= set(head.decode("utf-8-sig", "replace").partition("\n")[0].strip().split(","))
        ),
    )
    ranks = rank_records(records)
    rows = [
        {
            **ranks.get(record.path, {}),
            **flatten(without_rows(record.content)),
            "record": relative(record.path, path.parent),
        }
        for record in sort_records(records)
    ]
    present = list(dict.fromkeys(key for row in rows for key in row))
    columns = [key for key in FIRST_COLUMNS if key in present or not rows]
    columns += [key for key in present if key not in columns]
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    write_table_for_people(path, columns, cells)


def flatten(content: dict[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _cell(value: Any) -> object:
    """Return a value as it stands in a cell: empty where there is none, JSON where it is a list or
    a truth value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, bool)):
        return json.dumps(to_plain(value), ensure_ascii=False)
    return value

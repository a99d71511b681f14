"""The files on many runs: a batch's results and closing text, a root's latest runs, the CSV of all.

Must not know how text or rankings are made. Every path in these files is relative to the file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dialsum.batch.result import BatchOutcome, Outcome, write_each
from dialsum.files import (
    read_regular,
    refuse_foreign,
    to_plain,
    write_json,
    write_report,
    write_table_for_people,
)
from dialsum.paths import BatchPaths, RunPaths
from dialsum.record import SCHEMA_VERSION, Record, find_records, latest_runs
from dialsum.report.tables import is_ranked, points_above_floor, rank_records, sort_records

COPIED = (
    "status",
    "reason",
    "kind",
    "batch",
    "started_at",
    "finished_at",
    "duration_seconds",
    "config_sha256",
    "failure",
    "attempt",
    "data",
    "model",
    "training",
    "evaluation",
    "tracking",
)
"""Keys of a run's record that stand in the summaries as well."""
RUNS = "experiments"
"""Where the runs of a root are that does not say it."""
OVER_ROWS = ("per_row", "worst")
"""Keys of what a record says of single rows; the record alone has them."""


def write_batch_files(outcome: BatchOutcome) -> None:
    """Write what is known of a batch so far; called again and again, each time the whole.

    Raises:
        UnwrittenFilesError: with each file that cannot be written.
    """
    plan = outcome.plan
    write_each(
        [
            (
                plan.paths.results(plan.started_at),
                lambda path: write_json(path, summarise_batch(outcome)),
            ),
            (
                plan.paths.summary,
                lambda path: write_json(path, summarise_root(plan.paths.runs, path)),
            ),
        ]
    )


def write_closing_text(outcome: BatchOutcome, lines: Sequence[str]) -> None:
    """Write the closing text beside the batch's logs.

    Raises:
        UnwrittenFilesError: it cannot be written.
    """
    path = outcome.plan.paths.text_summary(outcome.plan.started_at)
    write_each([(path, lambda path: write_report(path, "\n".join(lines) + "\n"))])


def summarise_batch(outcome: BatchOutcome) -> dict[str, Any]:
    """Return the record of one batch: experiments in the order of the queue, each with its rank
    where it has one."""
    plan = outcome.plan
    folder = plan.paths.root
    ranks = rank_records(outcome.records)
    status = (
        "running"
        if outcome.finished_at is None
        else (
            "interrupted"
            if outcome.interrupted
            else "success"
            if outcome.exit_status == 0
            else "failed"
        )
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": plan.batch_id,
        "kind": plan.kind,
        "status": status,
        "started_at": plan.started_at.isoformat(timespec="seconds"),
        "finished_at": None
        if outcome.finished_at is None
        else outcome.finished_at.isoformat(timespec="seconds"),
        "logs": relative(plan.paths.logs(plan.started_at), folder),
        "experiments": [_summarise_outcome(one, ranks, folder) for one in outcome.outcomes],
        "not_started": [
            {"number": one.number, "experiment": one.name, "label": one.label}
            for one in outcome.not_started
        ],
        "problems": outcome.problems,
    }


def _summarise_outcome(
    outcome: Outcome, ranks: dict[Path, dict[str, int]], folder: Path
) -> dict[str, Any]:
    return {
        "number": outcome.experiment.number,
        **summarise_record(outcome.record, ranks=ranks, folder=folder),
        "log": relative(outcome.experiment.log, folder),
        "unwritten": outcome.unwritten,
    }


def summarise_root(runs: Path, file: Path) -> dict[str, Any]:
    """Return the summary of a root: each experiment's latest run, best first; those without a score
    last.

    Args:
        runs: folder of the runs.
        file: where the summary will stand.
    """
    records, problems = find_records(runs) if runs.is_dir() else ([], [])
    latest = list(latest_runs(records).values())
    ranks = rank_records(latest)
    ordered = sorted(
        latest,
        key=lambda record: (
            (ranks[record.path]["ranking"], ranks[record.path]["rank"])
            if record.path in ranks
            else (len(ranks) + 1, 0),
            record.name,
        ),
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": relative(runs, file.parent),
        "experiments": [
            summarise_record(record, ranks=ranks, folder=file.parent) for record in ordered
        ],
        "unreadable": problems or None,
    }


def refresh_root(paths: RunPaths) -> None:
    """Write the summary of a run's root anew where it has one, after a run that no batch started.

    Raises:
        DiskFullError, RunError: it cannot be written; the old one still stands.
    """
    roots = [
        paths.folder.parent.parent,
        *([paths.model.parent.parent] if paths.has_outside_model else []),
    ]
    for root in dict.fromkeys(roots):
        file = BatchPaths.make(root, root).summary
        try:
            content = json.loads(read_regular(file).decode("utf-8"))
            runs = (root / content.get("runs", RUNS)).resolve()
        except (OSError, ValueError, RecursionError, AttributeError, TypeError):
            continue  # no root, or a file of somebody else's
        if "schema_version" in content and runs == paths.folder.parent:
            write_json(file, summarise_root(runs, file))


def summarise_record(
    record: Record, *, ranks: dict[Path, dict[str, int]], folder: Path
) -> dict[str, Any]:
    """Return what a summary in a folder says of one run."""
    above = points_above_floor(record) if is_ranked(record) else None
    return {
        **ranks.get(record.path, {}),
        "experiment": record.name,
        "label": record.label,
        **without_rows({key: record.content[key] for key in COPIED if key in record.content}),
        **_summarise_attempts(record, folder),
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


def _summarise_attempts(record: Record, folder: Path) -> dict[str, Any]:
    """Return the attempts of a run where there were several, their files as seen from a folder."""
    if "attempts" not in record.content:
        return {}
    here = record.path.parent
    entries = []
    for one in record.content["attempts"]:
        places = {
            name: relative(Path(os.path.normpath(here / place)), folder)
            for name, place in one.get("artifacts", {}).items()
        }
        entries.append({**one, "artifacts": places} if places else one)
    return {"attempts": entries}


def relative(path: Path, folder: Path) -> str:
    """Return a path as it is seen from a folder."""
    return Path(os.path.relpath(path, folder)).as_posix()


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
    refuse_foreign(path, is_ours=_is_comparison)
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


def _is_comparison(head: bytes) -> bool:
    names = head.decode("utf-8-sig", "replace").partition("\n")[0].strip().split(",")
    return {"experiment", "status", "started_at", "record"} <= set(names)


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

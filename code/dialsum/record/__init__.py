"""The record that every run leaves: reading, finding, archiving and wording `result.json`.

Must not know how a run is made, queued or reported.
"""

from dialsum.record.archive import (
    archive_previous,
    describe_dead_run,
    find_own_record,
    write_failed_record,
)
from dialsum.record.read import (
    SCHEMA_VERSION,
    Record,
    SavedModel,
    best_run,
    find_records,
    find_saved_models,
    find_unfinished,
    latest_runs,
    read_record,
)
from dialsum.record.words import best_metrics_text

__all__ = [
    "SCHEMA_VERSION",
    "Record",
    "SavedModel",
    "archive_previous",
    "best_metrics_text",
    "best_run",
    "describe_dead_run",
    "find_own_record",
    "find_records",
    "find_saved_models",
    "find_unfinished",
    "latest_runs",
    "read_record",
    "write_failed_record",
]

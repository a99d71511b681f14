"""Past runs, for notebooks: list them, find the best one and its model, merge its adapter.

    from utils.experiment_utils import best_run, find_records
    records, unreadable = find_records(project_path("outputs"))
    print(best_run(records, metric="rouge_mean").artifact("model"))

Re-exports only.
"""

from dialsum.models.merge import MergeReport, merge_adapter
from dialsum.record import (
    Record,
    SavedModel,
    best_run,
    find_records,
    find_saved_models,
    latest_runs,
    read_record,
)

__all__ = [
    "MergeReport",
    "Record",
    "SavedModel",
    "best_run",
    "find_records",
    "find_saved_models",
    "latest_runs",
    "merge_adapter",
    "read_record",
]

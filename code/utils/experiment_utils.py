"""Past runs, for notebooks: list them, read them, find the best one and the models they left.

    from utils.experiment_utils import best_run, find_records
    records, unreadable = find_records(project_path("outputs"))
    print(best_run(records, metric="rouge_mean").artifact("model"))

Re-exports only.
"""

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
    "Record",
    "SavedModel",
    "best_run",
    "find_records",
    "find_saved_models",
    "latest_runs",
    "read_record",
]

"""Whether a failed experiment of a batch is tried again, and what the retry changes.

Must not start a process nor move a file (queue.py): a record in, the next job out.
"""

from __future__ import annotations

from dataclasses import replace

from dialsum.config.retry import NoHalfError, list_changes, state_changes
from dialsum.experiment.job import CAUSE_WORDS, NAN, Job, ordinal, say_failure
from dialsum.record import Record

MENDABLE_STAGE = "train"
"""Before training nothing that is halved takes memory; after it a night would be thrown away, and
nothing of it makes writing summaries smaller."""


def plan_retry(job: Job, record: Record) -> tuple[Job | None, list[str]]:
    """Choose what follows a failed attempt, in the order of batch.retry.

    After full memory, lr_half is left out, and stays for an attempt that meets NaN.

    Args:
        record: of the attempt that ended.

    Returns:
        The next attempt, None where there is none; and why entries were left out, or why there is
        no retry: nothing where none was asked.

    Raises:
        ConfigError: the changed values do not fit together.
    """
    left = job.config.batch.retry
    if record.status != "failed" or not (left or job.attempt.number > 1):
        return None, []
    cause = record.value("failure.cause")
    if cause not in CAUSE_WORDS:
        return None, ["no retry: batch.retry is for NaN and full memory"]
    if record.value("failure.stage") != MENDABLE_STAGE:
        failure = say_failure(record.content)
        return None, [f"no retry: {failure} outside of training, which batch.retry does not mend"]
    said: list[str] = []
    for place, by in enumerate(left):
        if cause != NAN and by == "lr_half":
            said.append("lr_half is left out: half the learning rate takes no less memory")
            continue
        try:
            changes = list_changes(
                by,
                job.config,
                batch=_whole(record, "training.per_device_train_batch_size"),
                accumulation=_whole(record, "training.gradient_accumulation_steps"),
            )
        except NoHalfError as error:
            said.append(f"{by} is left out: {error}")
            continue
        source = state_changes(changes, left=[*left[:place], *left[place + 1 :]])
        attempt = job.attempt.follow(changes, record.content)
        return replace(job, loaded=job.loaded.changed(source), attempt=attempt), said
    said.append(f"nothing of batch.retry is left after the {ordinal(job.attempt.number)} attempt")
    return None, said


def _whole(record: Record, key: str) -> int | None:
    value = record.number(key)
    return None if value is None else int(value)

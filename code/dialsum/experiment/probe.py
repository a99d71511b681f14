"""A look at experiments before the first starts, at what their first minutes would find: tokenizer,
pieces that it lacks, lengths, rows that are nearly the same.

A process of its own, since it imports what the runner must not; without weights or a device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dialsum.config.schema import Data
from dialsum.data.encode import EncodedSplit, dialogue_tokens, encode_splits
from dialsum.data.leakage import describe_leakage
from dialsum.data.prompts import find_subject, make_frame
from dialsum.data.rows import Splits, name_data, read_data
from dialsum.errors import DialsumError, list_problems
from dialsum.experiment.bound import plan_bound
from dialsum.experiment.forecast import find_card, forecast
from dialsum.experiment.job import Job
from dialsum.machine.devices import GIB
from dialsum.models.load import open_checkpoint, prepare_tokenizer, quiet_libraries
from dialsum.models.tokenizers import check_round_trip
from dialsum.paths import project_path, shown

MUCH_CUT = 0.05
"""Share of rows whose input is cut from which it is said without being asked."""


@dataclass
class Looked:
    """What was found: each problem forbids the start; what is unfit will fail at its own start;
    notes should be known; facts are for who asks for all of it."""

    problems: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    bounds: list[dict[str, float] | None] = field(default_factory=list)


def look_at(jobs: Sequence[Job], splits: Splits, *, keep: bool, card: str) -> Looked:
    """Return what is found of experiments with the same checkpoint, rows and tokenizer.

    Args:
        keep: encoded rows are kept for the run, as it would keep them.
        card: the name of the one that they would run on.
    """
    job = jobs[0]
    config, found = job.config, Looked()
    try:
        checkpoint = open_checkpoint(config)
        tags = dialogue_tokens(config.tokenizer, splits.train.rows)
        tokens = prepare_tokenizer(checkpoint, config, tags=tags)
        trip = check_round_trip(tokens.tokenizer, [*splits.train.summaries, *splits.dev.summaries])
        if trip.lacks_the_language:
            found.unfit.append(trip.describe_lack(checkpoint.folder))
            return found
        found.notes += trip.judge(checkpoint.folder)
        cache = config.data.cache_dir
        rows_of = {str(split.kind): split.rows for split in splits.present}
        encoded, warnings = encode_splits(
            rows_of,
            tokens.tokenizer,
            config.tokenizer,
            frame=make_frame(
                config, tokens.tokenizer, subject_of=find_subject(rows_of, config.prompt)
            ),
            folder=None if cache is None else project_path(cache),
            keep=keep,
        )
        found.notes += warnings
        for kind, rows in encoded.items():
            found.facts.append(f"{kind}: {_describe_lengths(rows)}")
            found.notes += rows.list_cut_targets(kind)
            cut = rows.to_record()["truncated_inputs"]
            if cut > MUCH_CUT * len(rows):
                found.notes.append(
                    f"{kind}: {cut / len(rows):.0%} of the dialogues are cut at "
                    f"{config.tokenizer.encoder_max_len} tokens (tokenizer.encoder_max_len)"
                )
        bounds = (
            plan_bound(one.config, own=checkpoint.own, encoded=encoded, card=card) for one in jobs
        )
        found.bounds = [None if one is None else asdict(one) for one in bounds]
    except DialsumError as error:
        found.problems += list_problems(error)
    return found


def _describe_lengths(rows: EncodedSplit) -> str:
    import numpy as np

    parts = []
    for what, lengths in (("inputs", rows.input_lengths), ("targets", rows.target_lengths)):
        if lengths.max(initial=0):  # a test file has no targets
            middle, most, longest = np.percentile(lengths, (50, 95, 100)).astype(int)
            parts.append(
                f"{what} of {middle} tokens at the median, {most} at 95 %, {longest} at most"
            )
    return f"{'; '.join(parts)}; {rows.describe()}"


def _forecast(job: Job) -> dict[str, Any]:
    """Say what memory an experiment takes, whether it fits, and whether nothing smaller would."""
    try:
        found = forecast(job.config, card=find_card(job.config))
    except DialsumError as error:
        return {"said": str(error), "fits": False, "hopeless": False}
    said = f"memory: {found.describe()}"
    room = found.card.memory_bytes
    hopeless = room is not None and found.fixed_bytes > room
    if hopeless:
        said += (
            f"; weights and what learning keeps of them take {found.fixed_bytes / GIB:.1f} GiB "
            "alone, which no smaller batch helps; train adapters (qlora.use_qlora: true) on a "
            "base in 4 bits"
        )
    elif found.verdict != "fits":
        said += (
            ". Passes that memory does not hold are halved in the run, which costs time; python "
            f"scripts/forecast.py --config {shown(job.loaded.path)} says what would save most"
        )
    fits, gib = found.verdict == "fits", found.total_bytes / GIB
    return {"said": said, "fits": fits, "hopeless": hopeless, "gib": gib}


def _read(data: Data, *, seed: int) -> Splits | None:
    """Read an experiment's rows, whatever the files share; where not all can be read, those of
    train alone. None where these cannot either: what is wrong, the first look says."""
    of_train = {"dev_file": None, "dev_share": data.dev_share or 0.05, "test_file": None}
    for one in (data, data.model_copy(update=of_train)):
        try:
            return read_data(one, seed=seed, overlapping=True)
        except DialsumError:
            continue
    return None


def main() -> None:
    """Read jobs from standard input, and print what was found of each as the last line; null of
    those whose rows cannot be read."""
    asked = json.load(sys.stdin)
    quiet_libraries()
    read: dict[str, Splits | None] = {}
    answers: list[dict[str, Any] | None] = []
    leaks: dict[str, list[str]] = {}
    for texts in asked["jobs"]:
        jobs = [Job.from_json(text) for text in texts]
        data, seed = jobs[0].config.data, jobs[0].config.training.seed
        key = name_data(data, seed=seed)
        if key not in read:
            read[key] = splits = _read(data, seed=seed)
            leaks[key] = [] if splits is None else describe_leakage(splits)
        splits = read[key]
        answers.append(
            None
            if splits is None
            else vars(look_at(jobs, splits, keep=asked["keep"], card=asked["card"]))
        )
    forecasts = [_forecast(Job.from_json(text)) for text in asked["forecast"]]
    leakage = list(dict.fromkeys(line for lines in leaks.values() for line in lines))
    print(json.dumps({"answers": answers, "leakage": leakage, "forecasts": forecasts}))


if __name__ == "__main__":
    main()

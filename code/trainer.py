"""Train, evaluate and record one experiment, in this process.

    python code/trainer.py --config config/experiments/01_mt5_xlsum.yaml

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dialsum.environment_variables import describe_variables, start_without_kept_out

if __name__ == "__main__":
    start_without_kept_out()

import argparse
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from dialsum.batch.packages import use_environment
from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_FAILED, EXIT_OK, DialsumError, run_script
from dialsum.parent_watch import watch_parent

if TYPE_CHECKING:
    from dialsum.experiment.job import Job


def make_parser() -> CommandLine:
    """Return the command line of one experiment."""
    parser = CommandLine(
        prog="trainer.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train, evaluate and record one experiment, in this process.",
        epilog="exit status: 0 success, 1 failed (recorded), 2 nothing was started,\n"
        "130 interrupted (recorded)",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="the experiment")
    # All that a batch asks, as it was checked: no other option but --resume counts then.
    what.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    add(
        "--overlay",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="values that go over the experiment's, such as config/demo.yaml (repeatable)",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of train.csv, dev.csv, test.csv (default: data)",
    )
    add("--train-data", type=Path, metavar="FILE", help="training rows")
    add("--val-data", type=Path, metavar="FILE", help="dev rows")
    add("--test-data", type=Path, metavar="FILE", help="rows to predict")
    add(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="stands for outputs/; the run goes to DIR/NAME",
    )
    add(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="the run's own folder: new, empty, or one that holds a run (default: outputs/NAME)",
    )
    add(
        "--model-dir",
        type=Path,
        metavar="DIR",
        help="the best model's own folder (default: RUN/model)",
    )
    add("--one-epoch", "-1", action="store_true", help="one epoch only")
    add(
        "--resume",
        action="store_true",
        help="go on with this run from its latest whole checkpoint, where it did not finish",
    )
    add("--seed", type=int, help="overrides training.seed")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="overrides one value, such as training.learning_rate=3e-5 (repeatable)",
    )
    add(
        "--explain",
        action="store_true",
        help="print every value with where it comes from, and stop",
    )
    return parser


def collect_overrides(options: argparse.Namespace) -> list[str]:
    """Turn the options that stand for config keys into overrides; --set comes last and wins."""
    overrides = []
    paths = {
        "data_dir": options.data_dir,
        "train_file": options.train_data,
        "dev_file": options.val_data,
        "test_file": options.test_data,
    }
    for key, path in paths.items():
        if path is not None:
            overrides.append(f"data.{key}={json.dumps(str(path.resolve()), ensure_ascii=False)}")
    if options.one_epoch:
        overrides += ["training.num_train_epochs=1", "training.max_steps=null"]
    if options.seed is not None:
        overrides.append(f"training.seed={options.seed}")
    return [*overrides, *options.overrides]


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End the run the way Ctrl-C does, so that its record is written."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment and return the exit status."""
    options = make_parser().parse_args(arguments)
    alone = watch_parent() is None
    signal.signal(signal.SIGTERM, interrupt)
    with use_environment():
        require_packages(__file__)
        if options.explain:
            return explain_one(options)
        for line in take_environment():
            print(line)
        return run_one(take_job(options) if options.job else make_job(options), alone=alone)


def explain_one(options: argparse.Namespace) -> int:
    """Print every value of the experiment with where it comes from."""
    from dialsum.batch.check import explain_checkpoint
    from dialsum.config.load import load_config

    loaded = load_config(
        options.config, overrides=collect_overrides(options), overlays=options.overlay
    )
    own = explain_checkpoint(loaded.config, environment=os.environ)
    print(loaded.explain(checkpoint=own))
    return EXIT_OK


def take_environment() -> list[str]:
    """Take what a file .env may give; return what to say of the environment."""
    from dialsum.batch.check import take_env_file

    return [*take_env_file(), *describe_variables(os.environ)]


def take_job(options: argparse.Namespace) -> Job:
    """Read what a batch asks, and refuse it where it is unfit here."""
    from dialsum.batch.check import check_fit
    from dialsum.experiment.job import read_job

    job = read_job(options.job)
    resume = job.resume or options.resume
    loaded = check_fit(job.loaded, environment=os.environ, place=job.paths, resume=resume)
    return replace(job, loaded=loaded, resume=resume)


def make_job(options: argparse.Namespace) -> Job:
    """Turn the options into a job; refuse what is unfit with every reason."""
    from dialsum.batch.check import choose_place, load_fit
    from dialsum.experiment.job import Job, kind_of

    paths = choose_place(
        options.config.stem,
        output_dir=options.output_dir,
        run_dir=options.run_dir,
        model_dir=options.model_dir,
    )
    loaded = load_fit(
        options.config,
        overrides=collect_overrides(options),
        overlays=options.overlay,
        environment=os.environ,
        place=paths,
        resume=options.resume,
    )
    kind = kind_of(loaded.config, one_epoch=options.one_epoch)
    return Job(loaded, paths, kind, resume=options.resume)


def run_one(job: Job, *, alone: bool) -> int:
    """Run a job and return the exit status.

    Args:
        alone: no batch started this process, so that nobody else renews the summary of its root.
    """
    from dialsum.batch.lock import hold_run

    for note in job.loaded.notes:
        print(note)
    with hold_run(job.paths):
        from dialsum.experiment.run import run_experiment

        try:
            record = run_experiment(job)
        finally:
            if alone:
                refresh_summary(job)
    return EXIT_OK if record["status"] == "success" else EXIT_FAILED


def refresh_summary(job: Job) -> None:
    """Let the summary of the root say how this run ended; that it cannot is said."""
    from dialsum.report.summaries import refresh_root

    try:
        refresh_root(job.paths)
    except DialsumError as error:
        print(f"warning: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)

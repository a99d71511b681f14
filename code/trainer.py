"""Train, evaluate and record one experiment, in this process.

python code/trainer.py --config config/experiments/01_mt5_xlsum.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dialsum.environment_variables import describe_variables, start_without_kept_out, take_env_file

if __name__ == "__main__":
    start_without_kept_out()

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from dialsum.cli import read_run_options, require_packages
from dialsum.errors import EXIT_FAILED, EXIT_OK, DialsumError, ProblemsError, run_script
from dialsum.lifeline import watch_parent
from dialsum.packages import use_environment


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End the run the way Ctrl-C does, so that its record is written."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment and return the exit status."""
    asked = read_run_options(arguments)
    of_batch = watch_parent() is not None
    signal.signal(signal.SIGTERM, interrupt)
    with use_environment():
        require_packages(__file__)
        from dialsum.batch.alone import check_alone, make_alone_job
        from dialsum.batch.checkpoints import explain_checkpoint
        from dialsum.batch.lock import hold_run
        from dialsum.config.load import load_config
        from dialsum.experiment.job import read_job

        if asked.explain:
            loaded = (
                load_config(asked.config, overrides=asked.overrides, overlays=asked.overlay)
                if asked.config
                else read_job(asked.job).loaded
            )
            print(loaded.explain(checkpoint=explain_checkpoint(loaded.config)))
            return EXIT_OK
        if not of_batch:
            notes, problems = take_env_file()
            if problems:
                raise ProblemsError(problems)
            print(*notes, sep="\n", end="\n" if notes else "")
        for line in describe_variables(os.environ):
            print(line)
        if asked.config:
            job = make_alone_job(asked)
        else:
            job = replace(read_job(asked.job), resume=asked.resume)
            job = job if of_batch else check_alone(job)
        for note in job.loaded.notes:
            print(note)
        with hold_run(job.paths):
            from dialsum.experiment.run import run_experiment
            from dialsum.report.summaries import refresh_root

            try:
                record = run_experiment(job)
            finally:
                # A batch renews the summary of its root itself.
                if not of_batch:
                    try:
                        refresh_root(job.paths)
                    except DialsumError as error:
                        print(f"warning: {error}", file=sys.stderr)
    return EXIT_OK if record["status"] == "success" else EXIT_FAILED


if __name__ == "__main__":
    run_script(main)

"""Run a batch of experiments, each in its own process, to one table.

python code/auto_experiment_runner.py --config config/experiments/01_mt5_xlsum.yaml --one-epoch
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dialsum.environment_variables import start_without_kept_out

if __name__ == "__main__":
    start_without_kept_out()

from collections.abc import Sequence
from contextlib import nullcontext

from dialsum.cli import read_batch_options, require_packages
from dialsum.errors import EXIT_OK, run_script
from dialsum.packages import use_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a batch and return the exit status."""
    options = read_batch_options(arguments)
    require_packages(__file__)
    from dialsum.batch.start import explain_batch, run_batch

    if options.explain:
        print(explain_batch(options))
        return EXIT_OK
    # A dry run writes nothing, and ends before a package could change.
    with nullcontext() if options.dry_run else use_environment():
        return run_batch(options)


if __name__ == "__main__":
    run_script(main)

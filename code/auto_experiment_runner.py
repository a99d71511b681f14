"""Run a batch of experiments one after another, each in its own process, to one table.

    python code/auto_experiment_runner.py --config config/experiments/01_mt5_xlsum.yaml --one-epoch

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dialsum.environment_variables import start_without_kept_out

if __name__ == "__main__":
    start_without_kept_out()

import argparse
from collections.abc import Sequence
from contextlib import nullcontext

from dialsum.batch.packages import use_environment
from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_OK, UnfitError, run_script

NAME = "auto_experiment_runner.py"
NOT_BUILT = {
    "resume": "going on with an unfinished batch",
    "rehearse": "rehearsing each experiment on its longest batch",
}


def make_parser(prog: str = NAME, hidden: Sequence[str] = ()) -> CommandLine:
    """Return the command line of a batch.

    Args:
        prog: the command that the user typed; a script that hands its options on has another name.
        hidden: options that this script sets itself.
    """
    parser = CommandLine(
        prog=prog,
        hidden=hidden,
        description=(
            "Run a batch of experiments one after another, each in its own process, to one table."
        ),
        epilog="exit status: 0 all succeeded, 1 at least one failed (the others were still run), "
        "2 nothing was started, 130 interrupted",
    )
    _add_what(parser)
    _add_where(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what runs, and how."""
    add = parser.add_argument
    configs = "the experiments, numbered from 1 in this order"
    add(
        "--config",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        metavar="FILE",
        help=configs,
    )
    add("-1", "--one-epoch", action="store_true", help="one epoch each, in outputs/quick_test")
    demo = (
        "tiny models from scratch in place of the checkpoints, on data/sample, in outputs/demo; "
        "on other data in outputs/demo_own_data; with --one-epoch, _quick_test is added"
    )
    add("--demo", action="store_true", help=demo)
    add("--dry-run", action="store_true", help="check everything, print the plan, write nothing")
    add("--only", metavar="NUMBERS", help="run these of the experiments, in order: 1,4 or 2-5")
    add("--stop-on-error", action="store_true", help="start none after one that failed")
    override = "another value in every experiment, such as training.learning_rate=3e-5 (repeatable)"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=override)
    add("--seed", type=int, metavar="N", help="overrides training.seed")
    explain = "print every value of every experiment with where it comes from, and stop"
    add("--explain", action="store_true", help=explain)
    for option in NOT_BUILT:
        add(f"--{option}", action="store_true", help=argparse.SUPPRESS)


def _add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where files lie."""
    places = {
        "--data-dir": "folder of train.csv, dev.csv, test.csv (default: data)",
        "--output-dir": "stands for outputs/; logs then go to DIR/logs",
        "--runs-dir": "the runs' folders go here (default: ROOT/experiments)",
        "--log-dir": "the batches' logs go here (default: logs)",
    }
    for option, meaning in places.items():
        parser.add_argument(option, type=Path, metavar="DIR", help=meaning)


def read_options(
    arguments: Sequence[str] | None, *, prog: str = NAME, hidden: Sequence[str] = ()
) -> argparse.Namespace:
    """Read a command line (see make_parser).

    Raises:
        UnfitError: an option that is not known, not built, or has a value that it cannot have.
    """
    asked = make_parser(prog, hidden).parse_args(arguments)
    for option, meaning in NOT_BUILT.items():
        if getattr(asked, option):
            raise UnfitError(
                f"--{option} is not built yet ({meaning}); leave it out. Nothing was started."
            )
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a batch and return the exit status."""
    asked = read_options(arguments)
    require_packages(__file__)
    from dialsum.batch.options import BatchOptions
    from dialsum.report.door import explain_batch, start_batch

    options = BatchOptions(
        configs=tuple(asked.config),
        one_epoch=asked.one_epoch,
        demo=asked.demo,
        data_dir=asked.data_dir,
        only=asked.only,
        output_dir=asked.output_dir,
        runs_dir=asked.runs_dir,
        log_dir=asked.log_dir,
        overrides=tuple(asked.overrides),
        seed=asked.seed,
        stop_on_error=asked.stop_on_error,
    )
    if asked.explain:
        print(explain_batch(options))
        return EXIT_OK
    # A dry run writes nothing, and ends before a package could change.
    with nullcontext() if asked.dry_run else use_environment():
        return start_batch(options, dry_run=asked.dry_run)


if __name__ == "__main__":
    run_script(main)

"""Write or send a run's curves afterwards, from its metrics.jsonl: what TensorBoard or Weights &
Biases lacks of it, or never had.

    python scripts/curves.py outputs/NAME --wandb
    python scripts/curves.py outputs/*/experiments/* --tensorboard

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.environment_variables import start_without_kept_out, take_env_file

if __name__ == "__main__":
    start_without_kept_out()

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_FAILED, EXIT_OK, UnfitError, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="curves.py",
        description="Write or send runs' curves afterwards, from their metrics.jsonl: what "
        "TensorBoard or Weights & Biases lacks of them, or never had.",
        epilog="exit status: 0 all written or sent, 1 some were not, 2 nothing was started, with "
        "what to mend",
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    tracker = parser.add_mutually_exclusive_group(required=True).add_argument
    wandb = "send to Weights & Biases: into the run's own there, or into a new one"
    tracker("--wandb", action="store_const", const="wandb", dest="tracker", help=wandb)
    tensorboard = "write TensorBoard's files in the run's logs/ anew"
    tracker(
        "--tensorboard", action="store_const", const="tensorboard", dest="tracker", help=tensorboard
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or send each run's curves, and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.batch.lock import hold_run
    from dialsum.experiment.curves import read_run, send_again
    from dialsum.paths import RunPaths

    notes, problems = take_env_file()
    if problems:
        raise UnfitError("\n".join(problems))
    for note in notes:
        print(note)
    failed = 0
    runs = [(RunPaths.alone(folder), read_run(folder, asked.tracker)) for folder in asked.runs]
    for paths, run in runs:
        # One that has ended may be of a batch that goes on.
        with nullcontext() if paths.result.is_file() else hold_run(paths):
            failed += not send_again(*run)
    return EXIT_FAILED if failed else EXIT_OK


if __name__ == "__main__":
    run_script(main)

"""Every batch that was started here, what became of its experiments, and what happened meanwhile.

    python scripts/batches.py
    python scripts/batches.py --batch last --follow

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_OK, UnfitError, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="batches.py",
        description="List the batches that were started here, or show one; reads only, also while "
        "a batch runs.",
        epilog="exit status: 0 shown, 2 no such batch",
    )
    add = parser.add_argument
    add(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="what stands for outputs/, or the folder of one root's batches (default: outputs)",
    )
    add("--batch", metavar="NAME", help="show this one, or `last`")
    add("--follow", action="store_true", help="go on showing it until it ends, or Ctrl-C")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the batches and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.batch.watch import describe_batch, find_batches, follow_batch, list_batches
    from dialsum.paths import OUTPUTS, project_path, shown

    root = (asked.output_dir or project_path(OUTPUTS)).absolute()
    batches = find_batches(root)
    if not batches:
        raise UnfitError(
            f"{shown(root)}: no batch was started here; name the folder that was given as "
            "--output-dir with --output-dir DIR"
        )
    if asked.batch is None and not asked.follow:
        print("\n".join(list_batches(batches)))
        return EXIT_OK
    wanted = asked.batch or "last"
    chosen = [one for one in batches if wanted in ("last", one.plan.batch_id)]
    if not chosen:
        raise UnfitError(
            f"--batch {wanted}: there is no such batch in {shown(root)}; without --batch all are "
            "listed"
        )
    if asked.follow:
        follow_batch(chosen[0], say=lambda line: print(line, flush=True))
    else:
        print("\n".join(describe_batch(chosen[0])))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

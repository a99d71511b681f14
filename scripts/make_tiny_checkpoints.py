"""Make tiny checkpoints in the layouts of the real ones, to try every step of a run on any CPU.

    python scripts/make_tiny_checkpoints.py checkpoints --data data/sample/train.csv

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
        prog="make_tiny_checkpoints.py",
        description="Make OUT/mt5, OUT/t5 and OUT/bart: random weights, and tokenizers trained on "
        "rows, in the files and keys of the checkpoints that the seven experiments name. Each "
        "folder serves as model.checkpoint; one that is there and the same is left as it is.",
        epilog="exit status: 0 made, 1 could not be made, 2 nothing was made, with what to mend",
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder of the folders")
    add("--data", required=True, type=Path, metavar="TRAIN", help="rows with summaries")
    names = "the file's own names of its columns, such as dialogue=text summary=target"
    add("--columns", nargs="+", default=[], metavar="KEY=NAME", help=names)
    families = ("mt5", "t5", "bart", "gpt2", "kogpt2", "llama", "qwen", "gemma")
    add("--only", nargs="+", choices=families, help="these alone")
    add("--seed", type=int, default=42, metavar="N", help="decides every weight (default: 42)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the checkpoints and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.config.schema import Columns
    from dialsum.models.tiny import ARCHITECTURES, make_tiny_checkpoints
    from dialsum.paths import shown

    known, columns = Columns().model_dump(), {}
    for word in asked.columns:
        key, equals, name = word.partition("=")
        if key not in known or not equals or not name:
            raise UnfitError(
                f"--columns {word}: write KEY=NAME, with KEY one of {', '.join(known)}"
            )
        columns[key] = name
    only = tuple(dict.fromkeys(asked.only or ARCHITECTURES))
    data, out = asked.data.absolute(), asked.out.absolute()
    for folder in make_tiny_checkpoints(
        out, data, architectures=only, seed=asked.seed, columns=Columns(**columns)
    ):
        print(f"a tiny checkpoint -> {shown(folder)}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

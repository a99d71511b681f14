"""Make a table (CSV) of AI-Hub's Korean dialogue summaries (한국어 대화 요약, JSON).

    python scripts/convert_aihub.py Training/ --output data/train.csv

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine
from dialsum.errors import EXIT_OK, DataError, UnfitError, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="convert_aihub.py",
        description="Make a table (CSV) of AI-Hub's Korean dialogue summaries (JSON): fname is the "
        "dialogueID, each utterance a line `#Person1#: …`; masks such as #@이름# stay as they are.",
        epilog="exit status: 0 written, 2 nothing was written, with what to mend",
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help=".json files (or .jsonl), or folders")
    add("--output", required=True, type=Path, metavar="NAME.csv", help="the new file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, and return the exit status."""
    asked = make_parser().parse_args(arguments)
    from dialsum.data.aihub import read_dialogues
    from dialsum.files import write_csv
    from dialsum.paths import shown

    if asked.output.suffix.lower() != ".csv":
        raise UnfitError(f"--output {asked.output}: give a name that ends in .csv")
    if asked.output.exists():
        raise UnfitError(f"--output {asked.output}: is there already; give another name")
    rows = read_dialogues(asked.files)
    lacking = [row["fname"] for row in rows if "summary" not in row]
    if lacking and len(lacking) < len(rows):
        raise DataError(
            [
                f"{len(lacking):,} of {len(rows):,} dialogues have no summary ({lacking[0]!r} is "
                "the first); convert those with and those without apart"
            ]
        )
    columns = (
        ["fname", "dialogue", "topic"] if lacking else ["fname", "dialogue", "summary", "topic"]
    )
    write_csv(asked.output, columns, [[row[name] for name in columns] for row in rows])
    print(f"{len(rows):,} dialogues with {', '.join(columns)} -> {shown(asked.output.absolute())}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

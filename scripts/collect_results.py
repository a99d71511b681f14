"""Put every run's record into one CSV, one row a run, and print them best first.

    python scripts/collect_results.py --output results_comparison.csv

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_FAILED, EXIT_OK, UnfitError, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="collect_results.py",
        description="Put every run's record into one CSV, one row a run; print them best first.",
        epilog="exit status: 0 written, 1 written without the records that could not be read, "
        "2 no runs found",
    )
    add = parser.add_argument
    formulas = "text that a spreadsheet would run as a formula gets a ' before it"
    add(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"the CSV to write, new or an older one of this command; {formulas}",
    )
    add(
        "--root",
        action="append",
        type=Path,
        metavar="DIR",
        help="where to look, earlier runs under previous/ included (default: outputs)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect the records and return the exit status."""
    asked = make_parser().parse_args(arguments)
    if len(asked.root or []) > 1:
        raise UnfitError("--root is given twice; name one folder that holds all the runs")
    require_packages(__file__)
    from dialsum.paths import OUTPUTS, project_path, shown
    from dialsum.record import find_records, find_unfinished
    from dialsum.report.summaries import write_comparison
    from dialsum.report.tables import format_overview

    root = (asked.root[0] if asked.root else project_path(OUTPUTS)).absolute()
    records, problems = find_records(root)
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
    for folder in find_unfinished(root):
        print(f"not finished: {shown(folder)} has no result.json: at work, or cut off (--resume)")
    if not records:
        raise UnfitError(
            f"{shown(root)}: no result.json of any run in it; run experiments first, or name their "
            "folder with --root DIR"
        )
    output = asked.output.absolute()
    write_comparison(records, output)
    print("\n".join(format_overview(records)))
    print(f"\n{len(records)} run{'s' if len(records) != 1 else ''} -> {shown(output)}")
    return EXIT_FAILED if problems else EXIT_OK


if __name__ == "__main__":
    run_script(main)

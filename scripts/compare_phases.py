"""Hold runs side by side: settings that differ, scores with intervals and tests, aims of the plan.

    python scripts/compare_phases.py
    python scripts/compare_phases.py --root outputs/llm/demo
    python scripts/compare_phases.py outputs/phase1 outputs/phase2

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_OK, UnfitError, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="compare_phases.py",
        description="Print a table of the LLM phases' latest runs, or of any runs.",
        epilog="exit status: 0 printed, 2 there are no two runs to compare",
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", type=Path, help="folders of runs, in the table's order")
    root = "where the phases' runs are looked for (default: outputs/llm/auto_experiments)"
    add("--root", type=Path, metavar="DIR", help=root)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.paths import LLM_OUTPUTS, RunPaths, project_path, shown
    from dialsum.record import find_records, latest_runs, read_record
    from dialsum.report.phases import ALONE, PLAN, compare_runs

    if asked.runs:
        absent = [run for run in asked.runs if not RunPaths.alone(run).result.is_file()]
        if absent:
            raise UnfitError(f"{', '.join(map(shown, absent))}: no result.json of a run there")
        records = [read_record(RunPaths.alone(run).result) for run in asked.runs]
    else:
        usual = project_path(LLM_OUTPUTS) / "auto_experiments"
        root = (asked.root or usual).absolute()
        if not root.is_dir():
            raise UnfitError(
                f"{shown(root)}: there is no such folder. Runs of a demo are found with --root "
                "outputs/llm/demo; of single phases name the folders: outputs/phase1 outputs/phase2"
            )
        latest = latest_runs(find_records(root)[0])
        names = [PLAN[0], ALONE, *PLAN[1:]]
        records = [latest[name] for name in names if name in latest]
    for line in compare_runs(records, width=shutil.get_terminal_size((200, 24)).columns):
        print(line)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

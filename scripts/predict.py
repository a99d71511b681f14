"""Summarise dialogues with a finished run's model, as the run itself would.

    python scripts/predict.py --run outputs/NAME --input data/test.csv --output summaries.csv

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
        prog="predict.py",
        description="Summarise dialogues with a finished run's model: its prefix, lengths, search "
        "and bits. A file without summaries gives a submission, one with summaries a table of "
        "predictions beside them.",
        epilog="exit status: 0 written, 1 failed, 2 nothing was started, with what to mend",
    )
    add = parser.add_argument
    run = "a run's folder, its model's, or the name of an experiment"
    add("--run", required=True, metavar="RUN", help=run)
    add("--input", required=True, metavar="FILE", help="CSV or JSON Lines; -: one dialogue")
    add("--output", type=Path, metavar="FILE", help="the new CSV (default: on the screen)")
    add("--num-beams", type=int, metavar="N", help="beams of the search (default: the run's)")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), help="default: the run's")
    override = "another value than the run's, such as data.columns.dialogue=text (repeatable)"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=override)
    add("--compare", metavar="RUN", help="another run, whose summaries stand beside")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Summarise, and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.experiment.predict import (
        find_saved_model,
        predict,
        read_config,
        read_inputs,
        write_output,
    )
    from dialsum.paths import shown

    if asked.num_beams is not None and asked.num_beams < 1:
        raise UnfitError(f"--num-beams {asked.num_beams}: give 1 (greedy) or more")
    if asked.output is not None and asked.output.exists():
        raise UnfitError(f"--output {asked.output}: is there already; give another name")
    folders = [find_saved_model(run) for run in (asked.run, asked.compare) if run is not None]
    for folder in folders:
        print(f"model  {shown(folder)}", file=sys.stderr)
    configs = [read_config(folder, asked.overrides) for folder in folders]
    inputs = read_inputs(
        asked.input, sys.stdin.read() if asked.input == "-" else "", columns=configs[0].data.columns
    )

    def say(done: int, total: int) -> None:
        end = "\n" if done == total else "\r"
        print(f"{done:,} of {total:,} summaries", end=end, file=sys.stderr, flush=True)

    written = [
        predict(
            folder,
            inputs.rows,
            config=config,
            num_beams=asked.num_beams,
            device=asked.device,
            on_batch=say,
        )
        for folder, config in zip(folders, configs, strict=True)
    ]
    summaries, other = written[0], written[1] if len(written) > 1 else None
    if asked.output is not None:
        filled = write_output(asked.output.absolute(), inputs, summaries, other)
        if filled:
            print(
                f"warning: {filled} summaries came out empty; each holds its dialogue's first "
                "utterance",
                file=sys.stderr,
            )
        print(f"{len(summaries):,} summaries -> {shown(asked.output.absolute())}")
    elif asked.input == "-" and other is None:
        print(summaries[0])
    else:
        for place, row in enumerate(inputs.rows):
            if other is None:
                print(f"{row.fname}\n  {summaries[place] or '(empty)'}")
            else:
                print(f"{row.fname}\n  {asked.run}: {summaries[place] or '(empty)'}")
                print(f"  {asked.compare}: {other[place] or '(empty)'}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

"""Write a run's adapter and its base as one checkpoint that needs neither, proved to say the same.

    python scripts/merge_adapter.py outputs/NAME merged

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import EXIT_OK, run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="merge_adapter.py",
        description="Write a run's adapter and its base as one checkpoint in float32, after its "
        "logits on the run's dev rows were held against those of adapter beside base.",
        epilog="exit status: 0 written, 1 the merged model would say something else, 2 nothing "
        "was started, with what to mend",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run's folder, its model's, or the name of an experiment")
    add("out", type=Path, metavar="OUT", help="the new checkpoint's folder: new or empty")
    override = "another value than the run's, such as data.data_dir=DIR (repeatable)"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=override)
    untie = "give embeddings and head weights of their own, as adapters on them need"
    add("--untie", action="store_true", help=untie)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge, and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.data.prompts import make_frame
    from dialsum.data.rows import read_data
    from dialsum.experiment.predict import find_saved_model, read_config
    from dialsum.models.merge import MANY_ROWS, merge_adapter
    from dialsum.models.save import read_info
    from dialsum.models.tokenizers import load_tokenizer
    from dialsum.paths import shown

    folder, out = find_saved_model(asked.run), asked.out.absolute()
    config = read_config(folder, asked.overrides)
    dev = read_data(config.data, seed=config.training.seed).dev.rows[:MANY_ROWS]
    frame = make_frame(
        config, load_tokenizer(folder), subject_of=read_info(folder).get("subject_of")
    )
    rows = [(frame.build(row)[0], row.summary or "") for row in dev]
    report = merge_adapter(folder, out, config=config, rows=rows, untie=asked.untie)
    print(
        f"logits moved by at most {report.merge:.2g} standard deviations on {report.rows} rows; "
        f"against the base as it was trained on, {report.same_choices:.1%} of the first choices "
        "are the same"
    )
    if bits := config.qlora.bits:
        print(
            f"the base was in {bits}-bit: what was merged into is the floats that its bits stand "
            "for, as the adapter learned on them, and not the checkpoint's own weights"
        )
    print(f"-> {shown(out)}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

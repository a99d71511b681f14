"""Cut a checkpoint's vocabulary to what your data needs (mT5: 250,100 pieces to about 23,500).

    python scripts/trim_vocabulary.py google/mt5-base trimmed --data data/train.csv data/dev.csv

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
        prog="trim_vocabulary.py",
        description="Write a checkpoint again with the pieces that your data needs, "
        "all of Hangul and every single character. Your data is spelled as before; OUT serves as "
        "model.checkpoint.",
        epilog="exit status: 0 written, 2 nothing was written, with what to mend",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a folder, or a name on the hub")
    add("out", type=Path, metavar="OUT", help="the new checkpoint's folder: new or empty")
    files = (
        "rows: of the first file (train) dialogues and summaries choose pieces, of the others "
        "(dev, test) the dialogues alone, so that nothing of the scored summaries is given away"
    )
    add("--data", required=True, nargs="+", type=Path, metavar="FILE", help=files)
    columns = "what the files call fname, dialogue and summary: dialogue=text,summary=target"
    add("--columns", default="", metavar="OURS=NAME,…", help=columns)
    prefix = "what stands before each dialogue: tokenizer.input_prefix, or a prompt (repeatable)"
    add("--input-prefix", action="append", default=[], metavar="TEXT", help=prefix)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut a checkpoint and return the exit status."""
    asked = make_parser().parse_args(arguments)
    require_packages(__file__)
    from dialsum.config.schema import Columns, Model
    from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS, build_input, find_dialogue_tokens
    from dialsum.data.rows import load_split, read_columns
    from dialsum.models.checkpoint import fetch_folder
    from dialsum.models.trim import trim_checkpoint
    from dialsum.paths import shown

    columns = Columns(**read_columns(asked.columns))
    train, *others = [
        load_split(
            path.absolute(), kind="test" if place else "train", columns=columns, option="--columns "
        )
        for place, path in enumerate(asked.data)
    ]
    named = Model(architecture="mt5", checkpoint=asked.checkpoint)
    source = fetch_folder(named)
    dialogues = [row.dialogue for split in (train, *others) for row in split.rows]
    inputs = [
        build_input(prefix, text) for prefix in asked.input_prefix or [""] for text in dialogues
    ]
    found = find_dialogue_tokens([*dialogues, *train.summaries])
    tokens = dict.fromkeys([*STANDARD_DIALOGUE_TOKENS, *found])
    trimmed = trim_checkpoint(
        source, asked.out.absolute(), texts=[*inputs, *train.summaries], new_tokens=list(tokens)
    )
    print(f"{trimmed.describe()}\n-> {shown(asked.out.absolute())}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

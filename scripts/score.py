"""Score anybody's predictions: ROUGE with recipe, interval and floors, on three scales.

    python scripts/score.py PREDICTIONS.csv REFERENCES.csv [REFERENCES2.csv …]

Both have the columns fname and summary; references may have summary1 … summaryN. Must not know how
scores are made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.command_line import CommandLine
from dialsum.optional import require_packages


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    described = "ROUGE of predictions against references, 0-100, with signature, interval, floors."
    parser = CommandLine(prog="score.py", description=described)
    parser.add_argument(
        "predictions", type=Path, metavar="PREDICTIONS.csv", help="columns fname, summary"
    )
    parser.add_argument(
        "references",
        type=Path,
        nargs="+",
        metavar="REFERENCES.csv",
        help="columns fname and summary, or summary1 … summaryN; several references are averaged",
    )
    parser.add_argument(
        "--tokenizer",
        choices=("mecab", "whitespace", "char", "english"),
        default="mecab",
        help="mecab: Korean morphemes (default); english: rouge_score's own, stemmer on",
    )
    parser.add_argument(
        "--tags",
        choices=("split", "one", "removed"),
        default="split",
        help="#Person1# and masks: text like any other (default), one token each, or taken out",
    )
    parser.add_argument(
        "--dialogues",
        type=Path,
        metavar="FILE.csv",
        help="columns fname, dialogue: for the lead-2 floor; default: the references' own column",
    )
    parser.add_argument(
        "--train",
        type=Path,
        metavar="FILE.csv",
        help="column summary: the constant floor is chosen from these",
    )
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None) -> int:
    """Read, compare the ids, score, print; returns the exit status."""
    options = parse_arguments(arguments)
    from dialsum.score.api import score_all_scales
    from dialsum.score.files import (
        check_same_ids,
        pick_dialogues,
        read_dialogues,
        read_predictions,
        read_references,
        read_train_summaries,
    )

    predictions = read_predictions(options.predictions)
    references = read_references(options.references)
    check_same_ids(
        references.summaries,
        list(predictions),
        left=str(options.references[0]),
        right=str(options.predictions),
    )
    dialogues = read_dialogues(options.dialogues) if options.dialogues else references.dialogues
    train = (
        read_train_summaries(options.train, scored=references.summaries) if options.train else None
    )
    if options.tokenizer == "english" and has_hangul(predictions.values()):
        print(
            "note: tokenizer english drops every Hangul letter; what is left of Korean text (tags, "
            "digits) scores high and says little; --tokenizer mecab counts it",
            file=sys.stderr,
        )
    block = score_all_scales(
        list(predictions.values()),
        [references.summaries[name] for name in predictions],
        tokenizer=options.tokenizer,
        tags=options.tags,
        train_summaries=train,
        dialogues=pick_dialogues(predictions, dialogues, source=options.dialogues),
    )
    print_block(block, options, empty=sum(not text.strip() for text in predictions.values()))
    return 0


def has_hangul(texts: Iterable[str]) -> bool:
    """Say whether any text has a Hangul syllable."""
    return any("가" <= char <= "힣" for text in texts for char in text)


def print_block(block: dict[str, Any], options: argparse.Namespace, *, empty: int) -> None:
    """Print the record as JSON, or the table with what is missing beside it."""
    if options.json:
        from dialsum.atomic import dump_json

        files = {"predictions": options.predictions, "references": options.references}
        print(dump_json({**files, "empty_predictions": empty, **block}), end="")
        return
    from dialsum.score.show import format_scores

    against = ", ".join(str(path) for path in options.references)
    print(f"{options.predictions} against {against}: {block['rows']} rows, scores 0-100\n")
    print(format_scores(block))
    floors = block.get("floors") or {}
    if empty:
        print(f"{empty} predictions are empty and score 0")
    if "constant" not in floors:
        print("no floor for constant: give --train FILE.csv, whose summaries it is chosen from")
    if "lead2" not in floors:
        print("no floor for lead-2: give --dialogues FILE.csv with fname and dialogue")


if __name__ == "__main__":
    require_packages(__file__)
    from dialsum.errors import run_script

    run_script(main)

"""What nothing, little and something earn on each scale: the table of docs/scores.md.

    python benchmarks/calibration.py --data FOLDER

FOLDER holds train.csv, dev.csv and predictions/*.csv for dev.csv. The constant is chosen on the
train summaries, anew for each scale. Prints a Markdown table of the mean of ROUGE-1, -2 and -L.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import run_script
from dialsum.score.api import choose_constant, lead, score_texts, split_turns
from dialsum.score.files import read_predictions, read_references, read_train_summaries
from dialsum.score.rouge import load_tokeniser
from dialsum.score.unseen import exchange_speakers

SCALES = {
    "whitespace": ("whitespace", "split"),
    "morphemes": ("mecab", "split"),
    "morphemes, each tag one": ("mecab", "one"),
    "morphemes, tags removed": ("mecab", "removed"),
}
SENTENCE = "#Person1#은 #Person2#에게 대해 이야기하고 #Person2#는 감사합니다."
"""A constant that a person wrote, beside those that the search finds."""


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the constants, and return the exit status."""
    data = make_parser().parse_args(arguments).data
    references = read_references([data / "dev.csv"])
    texts = list(references.summaries.values())
    dialogues = [references.dialogues[name] for name in references.summaries]
    train = read_train_summaries(data / "train.csv", references)
    constants = {
        name: choose_constant(train, load_tokeniser(cut, tags=tags))
        for name, (cut, tags) in SCALES.items()
    }
    systems: dict[str, dict[str, list[str]]] = {}
    for path in sorted((data / "predictions").glob("*.csv")):
        written = list(read_predictions(path, references).predictions)
        pairs = zip(written, dialogues, strict=True)
        exchanged = [exchange_speakers(*pair) for pair in pairs]
        systems[path.stem] = dict.fromkeys(SCALES, written)
        systems[f"{path.stem}, speakers exchanged"] = dict.fromkeys(SCALES, exchanged)
    rows = len(texts)
    systems["constant chosen on train"] = {name: [constants[name]] * rows for name in SCALES}
    systems["constant written by a person"] = {name: [SENTENCE] * rows for name in SCALES}
    leads = [lead(split_turns(dialogue), 2) for dialogue in dialogues]
    systems["lead-2"] = dict.fromkeys(SCALES, leads)
    print(f"{rows} rows of dev.csv, {len(train):,} train summaries\n")
    print(f"| | {' | '.join(SCALES)} |\n|---|{'---|' * len(SCALES)}")
    for system, by_scale in systems.items():
        scores = [
            score_texts(by_scale[name], texts, tokenizer=cut, tags=tags).rouge_mean
            for name, (cut, tags) in SCALES.items()
        ]
        print(f"| {system} | {' | '.join(f'{score:.1f}' for score in scores)} |")
    print()
    for name, text in constants.items():
        print(f"- {name}: `{text}`")
    return 0


if __name__ == "__main__":
    run_script(main)

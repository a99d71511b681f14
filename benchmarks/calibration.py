"""What nothing, little and something earn on each scale: the table of docs/scores.md.

    python benchmarks/calibration.py --data FOLDER
    python benchmarks/calibration.py --data FOLDER --measures    every measure and its blind spot

FOLDER holds train.csv, dev.csv and predictions/*.csv for dev.csv. The constant is chosen on the
train summaries, anew for each scale. Prints a Markdown table of the mean of ROUGE-1, -2 and -L.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import run_script
from dialsum.score.api import choose_constant, lead, score_report, score_texts, split_turns
from dialsum.score.files import References, read_predictions, read_references, read_train_summaries
from dialsum.score.rouge import load_tokeniser
from dialsum.score.rows import Rows
from dialsum.score.unseen import exchange_speakers

SCALES = {
    "whitespace": ("whitespace", "split"),
    "morphemes": ("mecab", "split"),
    "morphemes, each tag one": ("mecab", "one"),
    "morphemes, tags removed": ("mecab", "removed"),
}
BLIND = {
    "mean of ROUGE-1, -2, -L": "who did it (0.5 points), that nothing is said",
    "the same, tags one": "that nothing is said",
    "the same, on whitespace": "endings that differ; not comparable with any other",
    "content": "who did it, negation, synonyms, copying",
    "meaning": "who did it, mostly negation and numbers",
    "empty": "all that is there",
    "foreign script": "Hangul that is no Korean; words taken over from the dialogue",
    "speakers not in the dialogue": "the wrong one of two speakers",
    "score lost when speakers are exchanged": "who says nothing, rows with one tag alone",
    "speakers' words are their own": "claims in words that nobody uses; two speakers in one clause",
    "the same text for another row": "texts that differ by a word",
    "repeated 3-grams": "the same in other words",
    "3-grams copied": "words taken over one by one",
    "length over the reference's": "all but length",
    "no end of sentence": "sentences that end and say half",
    "chrF2": "what it is made of: letters, tags too",
}
for _kind, _blind in {
    "names": "the same name in another script counts as lacking; rare names",
    "numbers": "the right number of the wrong thing; two people",
    "units": "a number that the dialogue says in words",
    "times": "the right time of the wrong thing",
    "masks": "the right mask of the wrong thing",
}.items():
    BLIND |= {f"{_kind} not in the dialogue": _blind, f"{_kind} of the reference missed": _blind}
SENTENCE = "#Person1#은 #Person2#에게 대해 이야기하고 #Person2#는 감사합니다."
"""A constant that a person wrote, beside those that the search finds."""


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--measures", action="store_true", help="every measure, and its blind spot")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the constants, and return the exit status."""
    options = make_parser().parse_args(arguments)
    data = options.data
    references = read_references([data / "dev.csv"])
    texts = list(references.summaries.values())
    dialogues = [references.dialogues[name] for name in references.summaries]
    train = read_train_summaries(data / "train.csv", references)
    if options.measures:
        print_measures(references, data / "predictions", train)
        return 0
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


def print_measures(references: References, predictions: Path, train: Sequence[str]) -> None:
    """Print the table of all measures for texts of which it is known what is wrong with them."""
    dialogues = [references.dialogues[name] for name in references.summaries]
    own = [texts[0] for texts in references.summaries.values()]
    systems = {
        "constant": [choose_constant(train, load_tokeniser("mecab"))] * len(own),
        "lead-2": [lead(split_turns(dialogue), 2) for dialogue in dialogues],
    }
    for path in sorted(predictions.glob("*.csv"), reverse=True):
        name = path.stem.removeprefix("gemma270m_lora_")
        systems[name] = list(read_predictions(path, references).predictions)
    systems["exchanged"] = [exchange_speakers(*pair) for pair in zip(own, dialogues, strict=True)]
    systems["shuffled"] = [*own[1:], own[0]]
    blocks = {
        name: score_report(
            Rows(texts, list(references.summaries.values()), dialogues), train_summaries=train
        )
        for name, texts in systems.items()
    }
    rows = {
        "mean of ROUGE-1, -2, -L": ("rouge_mean",),
        "the same, tags one": ("tags_one", "rouge_mean"),
        "the same, on whitespace": ("whitespace", "rouge_mean"),
        "content": ("content", "f1"),
        "meaning": ("meaning", "cosine"),
    }
    titles = {
        one["title"]: key for block in blocks.values() for key, one in block["unseen"].items()
    }
    rows |= {title: ("unseen", key, "value") for title, key in titles.items()}
    print(f"| | {' | '.join(blocks)} | blind to |\n|---|{'---|' * (len(blocks) + 1)}")
    for title, place in rows.items():
        cells = []
        for found in blocks.values():
            value: Any = found
            for key in place:
                value = value.get(key) if value is not None else None
            cells.append("" if value is None else f"{value:.1f}")
        print(f"| {title} | {' | '.join(cells)} | {BLIND.get(title, '')} |")


if __name__ == "__main__":
    run_script(main)

"""Scoring beside rouge_score on the same tokens, a run's full report, and a long file.

    python benchmarks/score.py --data FOLDER

FOLDER holds train.csv and dev.csv (fname, dialogue, summary). Texts are made from its summaries by
leaving out and exchanging words, so that no two are equal and no cache helps. Prints a table and,
with --json, writes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import run_script
from dialsum.score.api import score_report, score_texts
from dialsum.score.rouge import METRICS, TextPreparer, load_tokeniser, score_pairs
from dialsum.score.rows import Rows

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("pairs", "report", "long")
SEED = 0


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=REPOSITORY / "data/sample",
        metavar="FOLDER",
        help="train.csv and dev.csv (default: the sample's)",
    )
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--pairs", type=int, default=10_000, help="pairs beside rouge_score (default: 10000)")
    add("--rows", type=int, default=499, help="rows of the report, 3 references (default: 499)")
    add("--long", type=int, default=100_000, help="pairs of the long file (default: 100000)")
    add("--cores", type=int, default=2, help="processors that may be used (default: 2)")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser


def read_column(path: Path, name: str) -> list[str]:
    """Return a column of a CSV file."""
    from dialsum.data.tables import read_rows

    return [row.values[name] for row in read_rows(path, required=(name,))]


def change_words(text: str, words: Sequence[str], draw: random.Random) -> str:
    """Return a text with some words left out and others exchanged."""
    kept = [
        draw.choice(words) if draw.random() < 0.3 else word
        for word in text.split()
        if draw.random() < 0.9
    ]
    return " ".join(kept) or text


def make_texts(data: Path, count: int, *, per_row: int) -> tuple[list[str], list[list[str]]]:
    """Return changed summaries as predictions and references."""
    summaries = read_column(data / "train.csv", "summary")
    words = [word for text in summaries for word in text.split()]
    draw = random.Random(SEED)
    sources = [summaries[row % len(summaries)] for row in range(count)]
    return (
        [change_words(text, words, draw) for text in sources],
        [[change_words(text, words, draw) for _ in range(per_row)] for text in sources],
    )


class _Given:
    """Hands tokens that were made before to rouge_score."""

    def __init__(self, tokens: dict[str, list[str]]) -> None:
        self.tokenize = tokens.__getitem__


def measure_pairs(asked: argparse.Namespace) -> dict[str, Any]:
    """Score the same tokens with rouge_score and here."""
    import numpy as np
    from rouge_score import rouge_scorer

    predictions, references = make_texts(asked.data, asked.pairs, per_row=1)
    tokeniser = load_tokeniser("mecab")
    firsts = [texts[0] for texts in references]
    tokens = {text: tokeniser(text) for text in (*predictions, *firsts)}
    scorer = rouge_scorer.RougeScorer(METRICS, tokenizer=_Given(tokens))
    began = time.perf_counter()
    theirs = [
        scorer.score(reference, prediction)
        for prediction, reference in zip(predictions, firsts, strict=True)
    ]
    their_seconds = time.perf_counter() - began
    score_texts(predictions[:1], references[:1])  # loads what is loaded once
    preparer = TextPreparer(_Given(tokens).tokenize)  # type: ignore[arg-type]
    began = time.perf_counter()
    ours = score_pairs(preparer.prepare_all(predictions), preparer.prepare_all(firsts))
    our_seconds = time.perf_counter() - began
    expected = np.array([[list(row[name]) for name in METRICS] for row in theirs])
    return {
        "pairs": asked.pairs,
        "rouge_score_seconds": their_seconds,
        "seconds": our_seconds,
        "times_faster": their_seconds / our_seconds,
        "largest_difference": float(np.abs(ours - expected).max()),
    }


def measure_report(asked: argparse.Namespace) -> dict[str, Any]:
    """Take a whole report, as a run does: floors, intervals, three scales, all measures."""
    predictions, references = make_texts(asked.data, asked.rows, per_row=3)
    train = read_column(asked.data / "train.csv", "summary")
    dialogues = read_column(asked.data / "train.csv", "dialogue")
    rows = Rows(
        predictions, references, [dialogues[row % len(dialogues)] for row in range(asked.rows)]
    )
    began = time.perf_counter()
    score_report(rows, train_summaries=train)
    return {"rows": asked.rows, "references": 3, "seconds": time.perf_counter() - began}


def measure_long(asked: argparse.Namespace) -> dict[str, Any]:
    """Take the report of a long file without dialogues, with the memory of all its processes."""
    predictions, references = make_texts(asked.data, asked.long, per_row=1)
    train = read_column(asked.data / "train.csv", "summary")
    peak = Peak()
    began = time.perf_counter()
    score_report(Rows(predictions, references), train_summaries=train)
    return {"pairs": asked.long, "seconds": time.perf_counter() - began, "peak_bytes": peak.stop()}


class Peak:
    """Watches the memory of this process and its children (proportional set size: shared pages are
    counted once)."""

    def __init__(self) -> None:
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while not self._done.wait(0.2):
            total = 0
            for one in (own, *own.children(recursive=True)):
                try:
                    total += one.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue  # it ended between the two looks
            self._most = max(self._most, total)

    def stop(self) -> int:
        """Return the most bytes seen."""
        self._done.set()
        self._thread.join()
        return self._most


def say(part: str, found: dict[str, Any]) -> str:
    """Return a line about one part."""
    if part == "pairs":
        return (
            f"{found['pairs']:,} pairs, the same morphemes: rouge_score "
            f"{found['rouge_score_seconds']:.2f} s, here {found['seconds']:.3f} s: "
            f"{found['times_faster']:.0f} times faster; largest difference "
            f"{found['largest_difference']:.1e}"
        )
    if part == "report":
        return (
            f"full report of {found['rows']} x {found['references']} references with floors, "
            f"bootstrap, three scales, all measures: {found['seconds']:.2f} s"
        )
    return (
        f"full report of {found['pairs']:,} pairs without dialogues: {found['seconds']:.1f} s, "
        f"at most {found['peak_bytes'] / 2**30:.2f} GiB in all processes"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each part in a process of its own and return the exit status."""
    asked = make_parser().parse_args(arguments)
    if asked.part:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: asked.cores]))
        measure = {"pairs": measure_pairs, "report": measure_report, "long": measure_long}
        print(json.dumps(measure[asked.part](asked)))
        return 0
    found = {}
    print(f"{asked.cores} processors, texts from {asked.data}")
    for part in asked.parts:
        done = subprocess.run(
            [sys.executable, __file__, *(arguments or sys.argv[1:]), "--part", part],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found[part] = json.loads(done.stdout.splitlines()[-1])
        print(say(part, found[part]), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_script(main)

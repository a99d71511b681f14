"""Seconds from rows to token ids, the first time and the next, beside the stock recipe's.

    python benchmarks/encode.py --data data/train.csv --tokenizer FOLDER

Ours is dialsum.data.encode; stock is datasets.map over the same rows, truncating at the end,
with its own cache. Each figure is taken in a process of its own, from the moment at which rows and
tokenizer are there, and holds whatever is imported after that. The rows of the file are repeated up
to --rows, each with a number of its own at its end, so that no two are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.data.rows import Dialogue, load_split
from dialsum.errors import RunError, run_script

REPOSITORY = Path(__file__).resolve().parent.parent
ENCODER_MAX_LEN, DECODER_MAX_LEN = 512, 128
PREFIX = "summarize: "
ROWS = "rows.jsonl"
TIMES = 3
"""Runs after the first; the median is told."""


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=REPOSITORY / "data/sample/train.csv",
        metavar="FILE",
        help="train rows (default: the sample's)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="a checkpoint's (default: one trained on the sample, mT5's kind)",
    )
    parser.add_argument("--rows", type=int, default=12_457, help="rows to encode")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def repeat_rows(path: Path, count: int) -> list[Dialogue]:
    """Return that many rows, all different, of about the lengths of a file's."""
    own = load_split(path, kind="train").rows
    return [
        replace(row, dialogue=f"{row.dialogue} {number}", summary=f"{row.summary} {number}")
        for number in range(count)
        for row in (own[number % len(own)],)
    ]


def load_tags_and_tokenizer(source: str | None) -> Any:
    """Return a tokenizer as an experiment has it."""
    from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
    from small_tokenizers import train_tokenizer

    if source is None:
        rows = load_split(REPOSITORY / "data/sample/train.csv", kind="train").rows
        texts = [text for row in rows for text in (row.dialogue, row.summary or "")]
        tokenizer = train_tokenizer(
            [*texts, PREFIX], kind="unigram", vocab_size=4000, exclude=STANDARD_DIALOGUE_TOKENS
        )
    else:
        tokenizer = load_tokenizer(source)
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    return tokenizer


def encode_ours(rows: Sequence[Dialogue], tokenizer: Any, folder: Path) -> int:
    """Encode as a run does."""
    from dialsum.config.schema import Tokenizer
    from dialsum.data.encode import encode_splits

    settings = Tokenizer(
        encoder_max_len=ENCODER_MAX_LEN, decoder_max_len=DECODER_MAX_LEN, input_prefix=PREFIX
    )
    encoded, _ = encode_splits({"train": rows}, tokenizer, settings, folder=folder / "ours")
    return len(encoded["train"])


def encode_stock(_: Sequence[Dialogue], tokenizer: Any, folder: Path) -> int:
    """Encode as the library's examples do, from a file of the rows."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        inputs = [PREFIX + text for text in batch["dialogue"]]
        encoded = tokenizer(inputs, max_length=ENCODER_MAX_LEN, truncation=True)
        encoded["labels"] = tokenizer(
            text_target=batch["summary"], max_length=DECODER_MAX_LEN, truncation=True
        )["input_ids"]
        return dict(encoded)

    data: Any = Dataset.from_json(str(folder / ROWS), cache_dir=str(folder / "stock"))
    return len(data.map(encode, batched=True, remove_columns=["dialogue", "summary"]))


SIDES = {"ours": encode_ours, "stock": encode_stock}


def measure(arguments: argparse.Namespace) -> None:
    """Print the seconds of one side, in this process."""
    import transformers

    transformers.logging.set_verbosity_error()
    rows = repeat_rows(arguments.data, arguments.rows)
    tokenizer = load_tags_and_tokenizer(arguments.tokenizer)
    texts = [json.dumps({"dialogue": row.dialogue, "summary": row.summary}) for row in rows]
    if not (arguments.folder / ROWS).exists():  # a newer file would be another one to the library
        (arguments.folder / ROWS).write_text("\n".join(texts), encoding="utf-8")
    started = time.perf_counter()
    encoded = SIDES[arguments.side](rows, tokenizer, arguments.folder)
    seconds = time.perf_counter() - started
    if encoded != arguments.rows:
        raise RunError(f"{arguments.side}: {encoded} of {arguments.rows} rows were encoded")
    print(seconds)


def measure_side(arguments: argparse.Namespace, side: str, folder: Path) -> list[float]:
    """Return the seconds of the first run and of those after it, each a process of its own."""
    line = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    line += ["--data", str(arguments.data), "--rows", str(arguments.rows)]
    line += ["--tokenizer", arguments.tokenizer] if arguments.tokenizer else []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return [
        float(
            subprocess.run(
                line, env=environment, check=True, capture_output=True, text=True
            ).stdout.split()[-1]
        )
        for _ in range(1 + TIMES)
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Measure both sides and print the table."""
    arguments = make_parser().parse_args(given)
    if arguments.side:
        measure(arguments)
        return 0
    print(
        f"{arguments.rows:,} rows like those of {arguments.data}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':8}{'first':>8}{'next':>8}   seconds")
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            first, *following = measure_side(arguments, side, Path(folder))
        print(f"{side:8}{first:8.2f}{sorted(following)[TIMES // 2]:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)

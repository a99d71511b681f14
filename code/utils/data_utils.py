"""Load and check dialogues: `load_splits(train, dev, test=…)`, or one file with `load_split`."""

from dialsum.data.cleaning import clean_dialogue, clean_summary
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS, build_input, find_dialogue_tokens
from dialsum.data.rows import Dialogue, Split, Splits, check_splits, load_split, load_splits
from dialsum.data.submission import check_submission, write_predictions, write_submission

__all__ = [
    "STANDARD_DIALOGUE_TOKENS",
    "Dialogue",
    "Split",
    "Splits",
    "build_input",
    "check_splits",
    "check_submission",
    "clean_dialogue",
    "clean_summary",
    "find_dialogue_tokens",
    "load_split",
    "load_splits",
    "write_predictions",
    "write_submission",
]

"""What the model reads: prefix and dialogue, and the tags that must stay whole pieces.

Must not know a tokenizer: it names the tags, the model layer adds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dialsum.data.tags import find_tags

STANDARD_DIALOGUE_TOKENS: tuple[str, ...] = (
    *(f"#Person{number}#" for number in range(1, 8)),
    "#PhoneNumber#",
    "#Address#",
    "#PersonName#",
    "#CardNumber#",
    "#Email#",
    "#PassportNumber#",
    "#DateOfBirth#",
    "#CarNumber#",
    "#SSN#",
)
"""Speaker tags (dialogues have two to seven speakers) and the masks of the competition's data."""

LEAST_TEXTS_WITH_TAG = 2
"""A tag is part of how the data is written and so comes again; once, it is a hashtag or a slip."""


def build_input(prefix: str, dialogue: str) -> str:
    """Return the text that the encoder reads; the prefix keeps its last space."""
    return prefix + dialogue


def find_dialogue_tokens(texts: Iterable[str]) -> list[str]:
    """Return every tag (tags.py) that stands in at least two of the texts, sorted.

    Args:
        texts: dialogues and summaries, cleaned.
    """
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(find_tags(text)))
    return sorted(tag for tag, count in seen.items() if count >= LEAST_TEXTS_WITH_TAG)

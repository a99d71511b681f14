"""What the model reads: prefix and dialogue, and the tags that must stay whole pieces.

Must not know a tokenizer: it names the tags, the model layer adds them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

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

_TAG = re.compile(r"#[A-Za-z가-힣][A-Za-z가-힣0-9_]{0,29}#")


def build_input(prefix: str, dialogue: str) -> str:
    """Return the text that the encoder reads; the prefix keeps its last space."""
    return prefix + dialogue


def find_dialogue_tokens(texts: Iterable[str]) -> list[str]:
    """Return every #Word# tag of the data, sorted.

    A tag is a Latin or Hangul letter, then at most 29 letters, digits or underscores, between two
    # without spaces, in at least two of the texts. `#1 번 #2` holds none (a space), `#1#` neither
    (no letter), and a chain of hashtags such as `#맛집#카페#여행` neither: its marks do not pair.

    Args:
        texts: dialogues and summaries, cleaned.
    """
    seen: Counter[str] = Counter()
    for text in texts:
        if "#" in text:
            seen.update(_find_tags(text))
    return sorted(tag for tag, count in seen.items() if count >= LEAST_TEXTS_WITH_TAG)


def _find_tags(text: str) -> set[str]:
    return {
        tag
        for word in text.split()
        if word.count("#") % 2 == 0 and "#" in word
        for tag in _TAG.findall(word)
    }

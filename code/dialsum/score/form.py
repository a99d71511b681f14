"""Faults of form that cost score without a word being wrong: how often they are, and the text
without them. Must not know scores.
"""

from __future__ import annotations

from collections.abc import Collection

from dialsum.data.submission import INVISIBLE, SPECIAL
from dialsum.data.tags import has_broken_tag, join_particles

FAULTS = {
    "gap": "a blank between a tag and its particle (#Person1# 에게)",
    "special": "special tokens (</s>, <pad>)",
    "invisible": "characters that nobody sees (U+200B, U+FEFF)",
    "broken_tag": "a broken tag (#Person1, Person1, a lone #)",
}


def find_faults(text: str, *, source: str = "", known: Collection[str] = ()) -> list[str]:
    """Return which of FAULTS a text has.

    Args:
        source, known: as of has_broken_tag.
    """
    has = {
        "gap": join_particles(text) != text,
        "special": SPECIAL.search(text) is not None,
        "invisible": INVISIBLE.search(text) is not None,
        "broken_tag": has_broken_tag(text, source=source, known=known),
    }
    return [name for name in FAULTS if has[name]]


def mend(text: str) -> str:
    """Return a text without the faults that can be taken away: all but broken tags."""
    bare = SPECIAL.sub("", INVISIBLE.sub("", text))
    return join_particles(" ".join(bare.split()) if bare != text else text)

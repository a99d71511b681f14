"""What a text alone tells: whether it says anything, and what is odd about summaries of a model.

Must not know files, rows or scores.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from statistics import median

from dialsum.data.tables import name_some
from dialsum.data.tags import SPEAKER, TURN_START, find_tags, has_broken_tag
from dialsum.printable import FILLERS

NO_TEXT = frozenset(
    {
        "nan",
        "-nan",
        "nat",
        "na",
        "n/a",
        "n.a",
        "none",
        "null",
        "nil",
        "undefined",
        "\\n",
        "tbd",
        "無",
        "ㅡ",
        "비어있음",
        "비어 있음",
    }
)
"""What programs and people write for a cell that has no value, in lower case; `\\N` is MySQL's."""

MOST_WITHOUT_TEXT = 0.01
"""Share of train rows without text that are left out; of more, something made them so."""

# `#NAME?`, `#REF!`, `#DIV/0!`, `#이름?` of spreadsheets, with the three that have another end.
_NOTHING = re.compile("(?:해당|내용|요약|값|데이터)?(?: ?사항)? ?없음")
_CELL_ERROR = re.compile(r"#[\w/ ]+[?!]|#N/A(?: N/A)?|#GETTING_DATA|Err:\d+", re.IGNORECASE)


def has_no_text(text: str) -> bool:
    """Say whether a text says nothing: empty, a word or an error in the place of a value (`NaN`,
    `#NAME?`), or marks alone (`-`, `…`), in every line. A speaker before a colon does not count."""
    rest = text
    while rest:
        line, _, rest = rest.partition("\n")
        if not _says_nothing(line):
            return False
    return True


def _says_nothing(line: str) -> bool:
    start = TURN_START.match(line)
    said = line[start.end() if start else 0 :].strip()
    word = said.lower().strip(" .\"'()[]<>")
    if word in NO_TEXT or _NOTHING.fullmatch(word) or _CELL_ERROR.fullmatch(said):
        return True
    # Letters, digits, and symbols such as emoji, but for those that nobody sees.
    return not any(
        (unicodedata.category(char)[0] in "LN" or unicodedata.category(char) == "So")
        and char not in FILLERS
        for char in said
    )


SPECIAL = re.compile(
    r"</?(?:s|pad|unk|mask|usr|sys|eos|bos|sep|cls|start_of_turn|end_of_turn|unused\d+|extra_id_\d+)>"
    r"|<\|[^|<>]*\|>|\[(?:PAD|SEP|CLS|MASK|UNK|BOS|EOS)\]|\u2581|\ufffd"
)
"""Special tokens of the usual families, a word mark of theirs, and what is left of half a
character."""
INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
SAME = 3
LONG, SHORT = 3.0, 0.25
"""Times the median length beyond which a summary is an outlier."""


@dataclass(frozen=True)
class Remarks:
    """Sentences with the names of the rows.

    Attributes:
        faults: what no summary should hold: special tokens, broken tags.
        oddities: what is worth a look: tags that a dialogue has not, lengths far from the others'.
    """

    faults: list[str]
    oddities: list[str]


def remark_on_summaries(
    summaries: Mapping[str, str], dialogues: Mapping[str, str], *, known: Collection[str] = ()
) -> Remarks:
    """Look for what is wrong or odd.

    Args:
        summaries: name to text.
        dialogues: name to the dialogue that it summarises; tags are looked at only where there is
            one.
        known: tags that train has, in whatever spelling (tags.loose_tags): right in any summary.
    """
    leftover = {
        name: found.group() for name, text in summaries.items() if (found := SPECIAL.search(text))
    }
    pairs = [(name, text, dialogues[name]) for name, text in summaries.items() if name in dialogues]
    strange = {
        name: unknown
        for name, text, source in pairs
        if (unknown := {*find_tags(text)} - {*find_tags(source)})
    }
    tokens = ", ".join(sorted(set(leftover.values())))
    tags = ", ".join(sorted(set().union(*strange.values()))[:5])
    equal = Counter(text.strip() for text in summaries.values())
    usual = median(map(len, summaries.values())) if summaries else 0.0

    def names(is_odd: Callable[[str], object]) -> list[str]:
        return [name for name, text in summaries.items() if is_odd(text)]

    def say_all(found: Mapping[str, Collection[str]]) -> list[str]:
        said = []
        for what, odd in found.items():
            verb, _, rest = what.partition(" ")
            one = f"1 summary {'is' if verb == 'are' else f'{verb}s'} {rest}"
            count = one if len(odd) == 1 else f"{len(odd):,} summaries {what}"
            said += [f"{count}: {name_some(odd)}"] if odd else []
        return said

    return Remarks(
        faults=say_all(
            {
                f"hold special tokens ({tokens})": leftover,
                "hold characters that nobody sees (U+200B, U+FEFF …)": names(INVISIBLE.search),
                "hold a broken tag (#Person1, Person1, a lone #)": [
                    name
                    for name, text, source in pairs
                    if has_broken_tag(text, source=source, known=known)
                ],
            }
        ),
        oddities=say_all(
            {
                f"name tags that their dialogues have not ({tags})": strange,
                "begin as a turn does (#Person1#:)": names(
                    lambda text: (start := TURN_START.match(text)) and SPEAKER.fullmatch(start[1])
                ),
                "are word for word the same as two others or more": names(
                    lambda text: text.strip() and equal[text.strip()] >= SAME
                ),
                f"are over {LONG:g} times as long as the median of {usual:.0f} characters": names(
                    lambda text: len(text) > LONG * usual
                ),
                f"are under {SHORT:g} of the median of {usual:.0f} characters": names(
                    lambda text: len(text) < SHORT * usual
                ),
            }
        ),
    )

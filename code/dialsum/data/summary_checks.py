"""What is odd about summaries that a model wrote, told by their text alone.

Must not know files or scores.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median

from dialsum.data.tables import name_some
from dialsum.data.tags import SPEAKER, TURN_START, find_tags, has_broken_tag

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
    broken = [
        name for name, text, source in pairs if has_broken_tag(text, source=source, known=known)
    ]
    strange = {
        name: unknown
        for name, text, source in pairs
        if (unknown := sorted({*find_tags(text)} - {*find_tags(source)}))
    }
    faults, oddities = [], []
    if leftover:
        tokens = ", ".join(sorted(set(leftover.values())))
        faults.append(_say(f"hold special tokens ({tokens})", list(leftover)))
    invisible = [name for name, text in summaries.items() if INVISIBLE.search(text)]
    if invisible:
        faults.append(_say("hold characters that nobody sees (U+200B, U+FEFF …)", invisible))
    if broken:
        faults.append(_say("hold a broken tag (#Person1, Person1, a lone #)", broken))
    if strange:
        tags = ", ".join(sorted({tag for tags in strange.values() for tag in tags})[:5])
        oddities.append(_say(f"name tags that their dialogues have not ({tags})", list(strange)))
    turns = [
        name
        for name, text in summaries.items()
        if (start := TURN_START.match(text)) and SPEAKER.fullmatch(start[1])
    ]
    if turns:
        oddities.append(_say("begin as a turn does (#Person1#:)", turns))
    said = Counter(text.strip() for text in summaries.values())
    same = [name for name, text in summaries.items() if said[text.strip()] >= SAME and text.strip()]
    if same:
        oddities.append(_say("are word for word the same as two others or more", same))
    return Remarks(faults, oddities + _find_outliers(summaries))


def _find_outliers(summaries: Mapping[str, str]) -> list[str]:
    usual = median(map(len, summaries.values())) if summaries else 0.0
    kinds = {
        f"are over {LONG:g} times as long as the median of {usual:.0f} characters": [
            name for name, text in summaries.items() if len(text) > LONG * usual
        ],
        f"are under {SHORT:g} of the median of {usual:.0f} characters": [
            name for name, text in summaries.items() if len(text) < SHORT * usual
        ],
    }
    return [_say(what, names) for what, names in kinds.items() if names]


def _say(what: str, names: list[str]) -> str:
    rows = "1 summary" if len(names) == 1 else f"{len(names):,} summaries"
    if len(names) == 1:
        verb, _, rest = what.partition(" ")
        what = f"{'is' if verb == 'are' else f'{verb}s'} {rest}"
    return f"{rows} {what}: {name_some(names)}"

"""What the model reads: prefix and dialogue, tags that stay whole pieces, and of a dialogue that is
too long the turns that stay.

Must not know a tokenizer: it sees where each token stands in the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dialsum.config.schema import KeptPart
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


LEAST_FILLED = 0.5
"""Share of the room below which whole turns alone would waste it: then the turn that does not fit
is cut inside."""

Span = tuple[int, int]
"""First token, and the one after the last."""


@dataclass(frozen=True)
class TurnTokens:
    """Where the turns of one dialogue stand among the tokens of its input.

    Args:
        text: prefix and dialogue.
        turns: tokens of each turn, in order, one turn at least; a line end between two is a token
            of its own (T5) or the end of the turn before (KoBART).
        begins: the character at which each token of the input begins.
    """

    text: str
    turns: list[Span]
    begins: Sequence[int]

    @property
    def span(self) -> Span:
        """All tokens of the dialogue: before them stands the prefix, after them the end."""
        return self.turns[0][0], self.turns[-1][1]

    def starts_word(self, token: int) -> bool:
        """Say whether a word begins with a token, or the space before a word does."""
        at = self.begins[token]
        if at == 0 or self.text[at].isspace():
            return True
        # mT5 writes some words as a space of its own and the rest: the space is where they begin.
        return self.text[at - 1].isspace() and self.begins[token - 1] != at - 1

    def edges(self, head: int, tail: int) -> Span:
        """Return where the first turns stop and where the last ones start, with the line end before
        these where something stands before them."""
        head_stop = self.turns[head - 1][1] if head else self.turns[0][0]
        if not tail:
            return head_stop, self.turns[-1][1]
        first = len(self.turns) - tail
        return head_stop, self.turns[first - 1][1] if head and first else self.turns[first][0]

    def ends(self, head: int, tail: int) -> list[Span]:
        """Return the tokens of the first and of the last turns."""
        head_stop, tail_start = self.edges(head, tail)
        return [(self.span[0], head_stop), (tail_start, self.span[1])]

    def speaker(self, turn: Span) -> Span:
        """Return the tokens of the name with which a turn begins (`#Person1#:`), if it has one."""
        start, stop = turn
        after = next((at for at in range(start + 1, stop) if self.starts_word(at)), start)
        named = self.text[self.begins[start] : self.begins[after]].rstrip().endswith(":")
        return start, after if named else start


@dataclass(frozen=True)
class Kept:
    """What is left of a dialogue.

    Args:
        spans: the tokens that stay, in order.
        turns_left_out: turns of which nothing stays.
        inside: a turn was cut inside.
    """

    spans: list[Span]
    turns_left_out: int
    inside: bool


def find_turns(text: str, offsets: Sequence[Span], *, start: int) -> TurnTokens | None:
    """Find the turns of an input, which are the lines of its dialogue.

    Args:
        text: prefix and dialogue.
        offsets: characters of every token, from and to; (0, 0) for one that stands for no text.
        start: where the dialogue begins in text. A token that also holds the prefix's last
            character belongs to the prefix.

    Returns:
        None where no token is the dialogue's.
    """
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    own = np.flatnonzero((places[:, 1] > places[:, 0]) & (places[:, 0] >= start))
    if not len(own):
        return None
    first, stop = int(own[0]), int(own[-1]) + 1
    # Tokens that stand for no text, such as a bare word mark, are where the one before them is.
    places[first:stop] = np.maximum.accumulate(places[first:stop], axis=0)
    lines = text[start:].split("\n")
    starts = np.fromiter(accumulate((len(line) + 1 for line in lines), initial=start), np.int64)
    line_stops = starts[1:] - 1
    begins = np.searchsorted(places[first:stop, 1], starts[:-1], side="right") + first
    stops = np.searchsorted(places[first:stop, 0], line_stops, side="left") + first
    lines_tokens = zip(begins.tolist(), stops.tolist(), strict=True)
    turns = [(begin, stop) for begin, stop in lines_tokens if begin < stop]
    return TurnTokens(text, turns, places[:, 0].tolist()) if turns else None


def keep_part(found: TurnTokens, room: int, *, part: KeptPart) -> Kept:
    """Choose which tokens of a dialogue stay, by whole turns where that fills half of the room.

    Args:
        found: a dialogue of more than room tokens.
        room: tokens that it may have, 1 or more.
        part: start and end keep the turns at that end; both_ends takes them from both in turn, so
            that about as many tokens come from each, and cuts a first or last turn inside where the
            two do not fit whole.
    """
    head, tail = _count_turns(found, room, part)
    one_end_is_missing = part == "both_ends" and not (head and tail)
    if one_end_is_missing:
        half = (room - 1) // 2  # of a room with a line end between the two
        head, tail = _count_turns(found, half, "start")[0], _count_turns(found, half, "end")[1]
    spans = found.ends(head, tail)
    if one_end_is_missing or _size(spans) < LEAST_FILLED * room:
        spans = _fill(found, room, part=part, head=head, tail=tail)
    spans = [span for span in spans if span[1] > span[0]]
    kept = [_overlap(turn, spans) for turn in found.turns]
    partly = any(0 < size < turn[1] - turn[0] for size, turn in zip(kept, found.turns, strict=True))
    return Kept(spans, turns_left_out=kept.count(0), inside=partly)


def _count_turns(found: TurnTokens, room: int, part: KeptPart) -> tuple[int, int]:
    """Return how many whole turns fit at the start and at the end."""
    head = tail = 0
    while head + tail < len(found.turns):
        at_start, at_end = found.ends(head, tail)
        one_more = [(head + 1, tail), (head, tail + 1)]
        if part != "both_ends":
            one_more = [one_more[part == "end"]]
        elif _size([at_start]) > _size([at_end]):
            one_more.reverse()
        fitting = [counts for counts in one_more if _size(found.ends(*counts)) <= room]
        if not fitting:
            break
        head, tail = fitting[0]
    return head, tail


def _fill(found: TurnTokens, room: int, *, part: KeptPart, head: int, tail: int) -> list[Span]:
    """Return whole turns and, in the room that they leave, parts of the turns between them.

    No word is cut in two unless it takes half of the room. A turn that loses its start keeps the
    name of its speaker.
    """
    first, last = found.span
    start = found.edges(head, tail)[0]
    between = len(found.turns) - tail - 1
    stop = found.turns[between][1]
    # A line end before the tail counts now: something will stand before it.
    left = room - (start - first) - (last - stop if tail else 0)
    if left < 1:
        return found.ends(head, tail)
    if part == "both_ends" and bool(head) == bool(tail):
        at_start = (left + 1) // 2
    else:
        # The end of which nothing whole is kept gets all of it.
        at_start = left if part == "start" or (part == "both_ends" and tail) else 0
    at_end = left - at_start
    head_stop = start + next(
        (n for n in range(at_start, at_start // 2, -1) if found.starts_word(start + n)), at_start
    )
    name = found.speaker(found.turns[between])
    if head_stop > first and between:
        name = (found.turns[between - 1][1], name[1])
    if head_stop > name[0] or _size([name]) >= at_end:
        name = (stop, stop)
    at_end -= _size([name])
    tail_start = stop - next(
        (n for n in range(at_end, at_end // 2, -1) if found.starts_word(stop - n)), at_end
    )
    return [(first, head_stop), name, (tail_start, last if tail else stop)]


def _size(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def _overlap(turn: Span, spans: Sequence[Span]) -> int:
    """Return how many tokens of a turn stay."""
    return sum(max(0, min(turn[1], stop) - max(turn[0], start)) for start, stop in spans)

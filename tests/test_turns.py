"""Which tokens of a long dialogue stay, whatever its turns are like and wherever tokens begin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialsum.config.schema import KeptPart
from dialsum.data.encode import LEAST_FILLED, find_turns, keep_part

PARTS: list[KeptPart] = ["both_ends", "start", "end"]


def by_character(text: str, *, ended: bool = False) -> list[tuple[int, int]]:
    """Return offsets of a tokenizer whose tokens are characters, with an end token if asked."""
    return [(at, at + 1) for at in range(len(text))] + [(0, 0)] * ended


@pytest.mark.parametrize(
    ("text", "start", "offsets", "turns"),
    [
        # No token of the dialogue's own: the prefix is all there is.
        ("", 0, [], None),
        ("p:", 2, [(0, 2), (0, 0)], None),
        ("p:a", 2, [(0, 3)], None),
        ("\n", 0, [(0, 1)], None),
        # A token with the prefix's last character is the prefix's.
        ("p:ab", 2, [(0, 3), (3, 4), (0, 0)], [(1, 2)]),
        ("ab\ncd", 0, by_character("ab\ncd", ended=True), [(0, 2), (3, 5)]),
        ("p: ab\ncd", 3, by_character("p: ab\ncd"), [(3, 5), (6, 8)]),
        # KoBART's pieces hold the line end after them.
        ("ab\ncd", 0, [(0, 1), (1, 3), (3, 5)], [(0, 2), (2, 3)]),
        # A piece that holds the line end before it is the next turn's.
        ("ab\ncd", 0, [(0, 2), (2, 4), (4, 5)], [(0, 1), (1, 3)]),
        # Tokens that stand for no text: a word mark in the middle, special tokens at both ends.
        ("ab cd\ne", 0, [(0, 0), (0, 2), (0, 0), (2, 5), (5, 6), (6, 7), (0, 0)], [(1, 4), (5, 6)]),
        # Several tokens for one character (bytes), empty lines.
        ("a\n\n가", 0, [(0, 1), (1, 2), (2, 3), (3, 4), (3, 4), (3, 4)], [(0, 1), (3, 6)]),
    ],
)
def test_turns_are_found_where_the_tokens_are(
    text: str, start: int, offsets: list[tuple[int, int]], turns: list[tuple[int, int]] | None
) -> None:
    found = find_turns(text, offsets, start=start)
    assert (found.turns if found else None) == turns


WORDS = st.lists(st.integers(1, 12), min_size=1, max_size=12)
TURNS = st.lists(st.tuples(st.booleans(), WORDS), min_size=1, max_size=8)


@given(turns=TURNS, prefix=st.sampled_from(["", "p: "]), share=st.floats(0, 1), data=st.data())
def test_what_stays_fits_and_is_the_part_that_was_asked_for(
    turns: list[tuple[bool, list[int]]], prefix: str, share: float, data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(PARTS))
    lines = [
        ("S: " if named else "") + " ".join("x" * length for length in words)
        for named, words in turns
    ]
    text = prefix + "\n".join(lines)
    found = find_turns(text, by_character(text, ended=True), start=len(prefix))
    assert found is not None
    first, last = found.span
    size = last - first
    if size < 2:
        return
    room = 1 + int(share * (size - 2))
    spans, left_out, inside = keep_part(found, room, part=part)
    sizes = [stop - start for start, stop in spans]
    # In order, without overlap, inside of the dialogue, never empty, never too long.
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert spans[0][0] >= first
    assert spans[-1][1] <= last
    assert min(sizes) > 0
    assert 0 < sum(sizes) <= room
    # The part that was asked for.
    if part in ("start", "both_ends"):
        assert spans[0][0] == first
    if part == "start":
        assert len(spans) == 1
    if part == "end" or (part == "both_ends" and room > 1):
        assert spans[-1][1] == last
    # Whole turns alone where they fill half of the room, else parts: most of it is always used.
    whole = [turn for turn in found.turns if any(_holds(span, turn) for span in spans)]
    partly = len(found.turns) - len(whole) - left_out
    assert (partly > 0) == inside
    assert partly <= 2
    if part != "both_ends" and inside:
        assert sum(stop - start for start, stop in whole) < LEAST_FILLED * room
    assert 2 * sum(sizes) >= room


def _holds(outer: tuple[int, int], inner: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def test_a_long_word_is_cut_and_a_short_one_is_not() -> None:
    text = "aaa bbb ccc ddd"
    found = find_turns(text, by_character(text), start=0)
    assert found is not None
    kept = keep_part(found, 9, part="both_ends")[0]
    assert [text[start:stop] for start, stop in kept] == ["aaa", " ddd"]
    word = "a" * 30
    found = find_turns(word, by_character(word), start=0)
    assert found is not None
    assert keep_part(found, 9, part="both_ends")[0] == [(0, 5), (26, 30)]

"""Cleaning of one cell: what each step changes, and what it must leave alone."""

from __future__ import annotations

import unicodedata

import pytest

from dialsum.data.cleaning import STEP_MEANINGS, clean_dialogue, clean_summary, split_lines

A, B = "#Person1#: 안녕하세요.", "#Person2#: 네, 안녕하세요!"
BOTH = f"{A}\n{B}"

DIALOGUES = [
    ("empty", "", "", ()),
    ("spaces alone", "  \n \t ", "", ("spaces", "outer_spaces", "empty_turns")),
    ("speaker alone", "#Person1#: ", "", ("outer_spaces", "empty_turns")),
    ("clean", BOTH, BOTH, ()),
    ("CRLF", f"{A}\r\n{B}", BOTH, ("line_ends",)),
    ("lone CR", f"{A}\r{B}", BOTH, ("line_ends",)),
    ("CR at the end", f"{A}\n{B}\r", BOTH, ("line_ends", "empty_turns")),
    ("U+2028", f"{A}\u2028{B}", BOTH, ("line_ends",)),
    ("literal line end", f"{A}\\n{B}", BOTH, ("literal_line_ends",)),
    ("literal CRLF", f"{A}\\r\\n{B}", BOTH, ("literal_line_ends",)),
    ("<br>", f"{A}<br>{B}", BOTH, ("literal_line_ends",)),
    ("<BR />", f"{A}<BR />{B}", BOTH, ("literal_line_ends",)),
    ("<br> and a line end", f"{A}<br>\n{B}", BOTH, ("literal_line_ends", "empty_turns")),
    ("trailing spaces", f"{A}  \n{B} ", BOTH, ("outer_spaces",)),
    ("leading spaces", f" {A}\n  {B}", BOTH, ("outer_spaces",)),
    ("tab", f"#Person1#:\t안녕하세요.\n{B}", BOTH, ("spaces",)),
    ("no-break space", f"#Person1#:\xa0안녕하세요.\n{B}", BOTH, ("spaces",)),
    ("ideographic space", f"#Person1#:\u3000안녕하세요.\n{B}", BOTH, ("spaces",)),
    ("zero-width space", f"{A}\u200b\n{B}", BOTH, ("invisible",)),
    ("BOM inside", f"\ufeff{BOTH}", BOTH, ("invisible",)),
    ("control character", f"{A}\x08\n{B}", BOTH, ("invisible",)),
    ("NFD", unicodedata.normalize("NFD", BOTH), BOTH, ("unicode",)),
    ("full-width", f"＃Person１＃： 안녕하세요.\n{B}", BOTH, ("width",)),
    ("half-width letters that are a word", "#Person1#: ￂ은 ﾡￂ", "#Person1#: ㅏ은 가", ("width",)),
    ("half-width letters alone", "#Person1#: ﾻﾻﾻ", "#Person1#: ㅋㅋㅋ", ("width",)),
    ("half-width katakana", "#Person1#: ｶﾞ", "#Person1#: ガ", ("width",)),
    ("empty line", f"{A}\n\n{B}\n", BOTH, ("empty_turns",)),
    ("empty turn", f"{A}\n#Person2#:\n{B}", BOTH, ("empty_turns",)),
    ("empty turn at the end", f"{BOTH}\n#Person1#: ", BOTH, ("outer_spaces", "empty_turns")),
    ("mask on its own line", f"{A}\n#Address#\n{B}", f"{A}\n#Address#\n{B}", ()),
    ("inner spaces", "#Person1#: 두  칸", "#Person1#: 두  칸", ()),
    ("emoji of several parts", "#Person1#: 👨‍👩‍👧", "#Person1#: 👨‍👩‍👧", ()),
    ("compatibility letters", "#Person1#: ㅋㅋ ½ ① ㎏", "#Person1#: ㅋㅋ ½ ① ㎏", ()),
    ("lesser than", "#Person1#: 3 < 5 <bride>", "#Person1#: 3 < 5 <bride>", ()),
    ("other backslash", "#Person1#: a\\b", "#Person1#: a\\b", ()),
]


@pytest.mark.parametrize(
    ("text", "cleaned", "steps"), [case[1:] for case in DIALOGUES], ids=[c[0] for c in DIALOGUES]
)
def test_cleans_dialogue(text: str, cleaned: str, steps: tuple[str, ...]) -> None:
    assert clean_dialogue(text) == (cleaned, steps)


@pytest.mark.parametrize("text", [case[1] for case in DIALOGUES], ids=[c[0] for c in DIALOGUES])
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once, _ = clean_dialogue(text)
    assert clean_dialogue(once) == (once, ())


SUMMARIES = [
    ("empty", "", "", ()),
    ("clean", "둘은 만난다.", "둘은 만난다.", ()),
    ("line end", "둘은\n만난다.", "둘은 만난다.", ("one_line",)),
    ("<br>", "둘은<br>만난다.", "둘은 만난다.", ("literal_line_ends", "one_line")),
    ("path", "C:\\new를 연다.", "C:\\new를 연다.", ()),
    ("line end as text before a turn", "둘은\\n#Person1#: 네", "둘은\\n#Person1#: 네", ()),
    ("empty line", "둘은 \n\n만난다.\n", "둘은 만난다.", ("outer_spaces", "one_line")),
    ("ends in a colon", "#Person1#:", "#Person1#:", ()),
    ("NFD", unicodedata.normalize("NFD", "둘은 만난다."), "둘은 만난다.", ("unicode",)),
]


@pytest.mark.parametrize(
    ("text", "cleaned", "steps"), [case[1:] for case in SUMMARIES], ids=[c[0] for c in SUMMARIES]
)
def test_cleans_summary(text: str, cleaned: str, steps: tuple[str, ...]) -> None:
    assert clean_summary(text) == (cleaned, steps)


def test_every_step_has_its_words() -> None:
    taken = {step for case in [*DIALOGUES, *SUMMARIES] for step in case[3]}
    assert taken == set(STEP_MEANINGS)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        (f"{A}\r\n\n {B} ", [A, B]),
        (f"{A}\\n{B}", [A, B]),
        # What follows <br> shows that the text before it is a line end.
        (f"{A}\\n<br>{B}", [A, B]),
        ("C:\\new", ["C:\\new"]),
    ],
)
def test_lines_of_a_raw_dialogue(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines

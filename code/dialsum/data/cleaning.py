"""Cleaning of one cell of text at the CSV border, as named steps.

Must not know rows, files or tokenizers. A step changes how a text is written, never what it says.

A line end written as text (`\\n`, `\\r\\n`, `\\r`) is one where the text shows it: a turn's start
follows one in the same dialogue (`#Person2#: `, or a name before a colon where there are no tags),
or the file writes its line ends so (writes_literal_ends).
Elsewhere it is what it says: `C:\\new\\report`. `<br>` says nothing else and is one always.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial

from dialsum.data.tags import TURN_START
from dialsum.text import FILLERS

STEP_MEANINGS: dict[str, str] = {
    "literal_line_ends": "a line break written as text (\\n, \\r\\n or <br>) became a line break",
    "line_ends": "another line end (\\r\\n, \\r, form feed, U+2028 …) became \\n",
    "invisible": "invisible characters (zero-width space, BOM, soft hyphen, controls) removed",
    "width": "full-width or half-width characters (Ａ１＃, ﾱ) became ordinary ones",
    "spaces": "tabs, no-break and other special spaces became plain spaces",
    "unicode": "decomposed Hangul or accents (NFD, as macOS writes) composed to NFC",
    "outer_spaces": "spaces at the start or the end of a line removed",
    "empty_turns": "empty lines, or turns with a speaker and no words, removed",
    "one_line": "line breaks inside a summary became spaces",
}
"""Each step by its name, in the order in which they are taken, as the notes of a split say it."""

_LINE_END = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# Zero-width joiners stay: emoji are made of them.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff"
)
_WIDTH_VARIANT = "\uff01-\uffee"
_OTHER_SPACE = "\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"

# Nearly all cells hold none of these: one search for all of them saves four.
_RARE = re.compile(f"[{_LINE_END}{_INVISIBLE}{_WIDTH_VARIANT}{_OTHER_SPACE}]")
_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LITERAL_LINE_END = re.compile(r"\\r\\n|\\n|\\r")
_LITERAL_BEFORE_TURN = re.compile(rf"(?:{_LITERAL_LINE_END.pattern})(?:{TURN_START.pattern})")
# Dialogues without tags, `A: …\nB: …`: a name is one word, perhaps with a number or a letter.
_NAME = r"(\w{1,20}(?: [A-Z0-9]{1,2})?) ?:\s"
_NAMED_TURN = re.compile(rf"\s*{_NAME}")
_LITERAL_BEFORE_NAME = re.compile(rf"(?:{_LITERAL_LINE_END.pattern})\s*{_NAME}")
_PATH = re.compile(r"[A-Za-z]:\\|\\\\[^\\]+\\")
_OTHER_LINE_END = re.compile(f"\r\n|[{_LINE_END}]")
_INVISIBLES = re.compile(f"[{_INVISIBLE}]")
_WIDTH_VARIANTS = re.compile(f"[{_WIDTH_VARIANT}]+")
_OTHER_SPACES = re.compile(f"[{_OTHER_SPACE}]")
_CONJOINING_JAMO = re.compile("[\u1100-\u11ff]")

CleaningStep = tuple[str, Callable[[str], str]]


def clean_dialogue(text: str, *, literal_ends: bool = False) -> tuple[str, tuple[str, ...]]:
    """Clean a dialogue, one turn a line; return it with the names of the steps that changed it.

    An empty string means that nothing was said in it.

    Args:
        literal_ends: the file writes its line ends as text.
    """
    return _clean(
        text, literal_ends or shows_literal_ends(text), ("empty_turns", _drop_empty_turns)
    )


def clean_summary(text: str, *, literal_ends: bool = False) -> tuple[str, tuple[str, ...]]:
    """Clean a summary, which is one line (the rest as clean_dialogue)."""
    return _clean(text, literal_ends, ("one_line", _join_lines))


def _clean(text: str, literal_ends: bool, last: CleaningStep) -> tuple[str, tuple[str, ...]]:
    steps = [*_ALWAYS, last]
    if _RARE.search(text):
        steps = [*_RARE_STEPS, *steps]
    if "<" in text or (literal_ends and "\\" in text):
        steps.insert(0, ("literal_line_ends", partial(_break_lines, literal_ends=literal_ends)))
    changed = []
    for name, step in steps:
        cleaned = step(text)
        if cleaned != text:
            changed.append(name)
            text = cleaned
    return text, tuple(changed)


def writes_literal_ends(dialogues: Iterable[str]) -> bool:
    """Say whether a file writes its line ends as text.

    It does where more of its dialogues have one before a turn's start than have a true line break,
    or such text with no turn's start behind it.
    """
    shown = other = 0
    for text in dialogues:
        is_shown = shows_literal_ends(text)
        shown += is_shown
        other += (
            "\n" in text.strip() or "\r" in text.strip() or (has_literal_end(text) and not is_shown)
        )
    return shown > other


def shows_literal_ends(dialogue: str) -> bool:
    """Say whether a line end written as text stands before the start of a turn."""
    if "\\" not in dialogue:
        return False
    if _LITERAL_BEFORE_TURN.search(dialogue):
        return True
    return "\n" not in dialogue.strip() and _has_literal_before_name(dialogue)


def _has_literal_before_name(dialogue: str) -> bool:
    first = _NAMED_TURN.match(dialogue)
    if first is None:
        return False
    for found in _LITERAL_BEFORE_NAME.finditer(dialogue):
        word = dialogue[dialogue.rfind(" ", 0, found.start()) + 1 : found.start() + 1]
        # In `docs\new: …`, what follows is the rest of a word.
        rest = found[1] != first[1] and "a" <= found[1][0] <= "z"
        if not rest and not _PATH.search(word):
            return True
    return False


def fold_spaces(text: str) -> str:
    """Fold runs of white space to one space, line ends kept: a tokenizer may keep each of them."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def has_literal_end(text: str) -> bool:
    """Say whether a cleaned text holds what would be a line end in another file."""
    return "\\" in text and _LITERAL_LINE_END.search(text) is not None


def split_lines(dialogue: str) -> list[str]:
    """Return the lines of a raw dialogue, without empty ones: each turn, and what goes on one."""
    text = _BREAK_TAG.sub("\n", dialogue)
    text = _break_lines(text, literal_ends=shows_literal_ends(text))
    lines = _OTHER_LINE_END.sub("\n", text).split("\n")
    return [line.strip() for line in lines if line.strip()]


def _break_lines(text: str, *, literal_ends: bool) -> str:
    text = _BREAK_TAG.sub("\n", text)
    return _LITERAL_LINE_END.sub("\n", text) if literal_ends else text


def _fold_run(found: re.Match[str]) -> str:
    """Fold one run of width variants.

    NFKC composes half-width Hangul letters to syllables where they make some. Letters that stand
    alone (half-width ㅋㅋ) would come out as conjoining jamo, which no font and no tokenizer
    treats as ㅋ: those runs go letter by letter.
    """
    folded = unicodedata.normalize("NFKC", found.group())
    if not _CONJOINING_JAMO.search(folded):
        return folded
    kinds = [(char, *unicodedata.decomposition(char).partition(" ")) for char in found.group()]
    return "".join(
        chr(int(code, 16)) if kind in ("<wide>", "<narrow>") else char
        for char, kind, _, code in kinds
    )


def _strip_lines(text: str) -> str:
    if " \n" not in text and "\n " not in text:
        return text.strip(" ")
    return "\n".join(line.strip(" ") for line in text.split("\n"))


def _drop_empty_turns(text: str) -> str:
    if not (text.endswith((":", "\n")) or text.startswith("\n") or "\n\n" in text or ":\n" in text):
        return text
    # Without its colon a tag alone may be a mask on a line of its own, which says something.
    return "\n".join(turn for turn in text.split("\n") if turn and not TURN_START.fullmatch(turn))


def _join_lines(text: str) -> str:
    return " ".join(line for line in text.split("\n") if line) if "\n" in text else text


_RARE_STEPS: list[CleaningStep] = [
    ("line_ends", partial(_OTHER_LINE_END.sub, "\n")),
    ("invisible", partial(_INVISIBLES.sub, "")),
    ("width", partial(_WIDTH_VARIANTS.sub, _fold_run)),
    ("spaces", partial(_OTHER_SPACES.sub, " ")),
]
_ALWAYS: list[CleaningStep] = [
    ("unicode", partial(unicodedata.normalize, "NFC")),
    ("outer_spaces", _strip_lines),
]


_NO_TEXT = "nan|-nan|nat|na|n/a|n.a|none|null|nil|undefined|\\n|tbd|無|ㅡ|비어있음|비어 있음"
NO_TEXT = frozenset(_NO_TEXT.split("|"))
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

"""Text from anywhere (names, labels, data, libraries) as a terminal or a log may show it: safe to
print, short, in columns where Korean letters take two; times and sizes for people.

Standard library only, but where columns are counted. Must not know who prints, nor what it means.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import TextIO

HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What rules a terminal instead of being shown (control characters but for tab and line end), turns
text around, parts lines, or is half a character."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which no library takes."""
SELECTORS = frozenset(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
FILLERS = SELECTORS | frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
)
"""What shows nothing though it is a letter, a mark or a symbol by its Unicode class."""
PASSING_LINE = re.compile("\r(?:\x1b\\[K)?|\n*(?:\x1b\\[A)+$")
"""How a progress bar begins a write to a terminal: back to the start of its line, or up to that of
another bar."""


def printable(text: str) -> str:
    r"""Return text with harmful characters as escapes (\x1b, \u202e); its lines stay lines."""
    return HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def visible(text: str) -> str:
    r"""Return text with everything that does not show on one line as an escape: line ends, too."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


SCRIPTS = {
    **{"HANGUL": "hangul", "CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana"},
    **{"CYRILLIC": "cyrillic", "THAI": "thai", "LATIN": "latin"},
}
"""A letter's Unicode name begins with its script, or has it after FULLWIDTH, HALFWIDTH …"""
VIETNAMESE = frozenset("ăđơưĂĐƠƯ") | {chr(code) for code in range(0x1EA0, 0x1EFA)}
"""What Vietnamese adds to French: ă đ ơ ư, and all letters with two marks or a dot below."""
UNITS = {"MICRO SIGN", "OHM SIGN", "KELVIN SIGN", "ANGSTROM SIGN", "SCRIPT SMALL L"}
"""Letters by category, but used with every script: µ, Ω, ℓ; so are ª and ʼ."""
COMMON_BEGINNINGS = ("MODIFIER LETTER", "MASCULINE ORDINAL", "FEMININE ORDINAL")


@functools.lru_cache(maxsize=65536)
def script_of(char: str) -> str:
    """Return a letter's script (hangul, latin, vietnamese, han, kana, cyrillic, thai, other), or
    digits, punctuation (spaces, line ends, currencies and signs of arithmetic, too), symbols (the
    rest that is no letter, emoji among it), control."""
    category = unicodedata.category(char)
    if category.startswith("N"):
        return "digits"
    if category[0] in "PZ" or category in ("Sc", "Sm", "Sk") or char in "\t\n":
        return "punctuation"
    if category in ("Cc", "Cs"):
        return "control"
    if not category.startswith("L"):
        return "symbols"
    if char in VIETNAMESE:
        return "vietnamese"
    name = unicodedata.name(char, "")
    if name in UNITS or name.startswith(COMMON_BEGINNINGS):
        return "symbols"
    words = name.replace("-", " ").split()
    return next((script for word, script in SCRIPTS.items() if word in words), "other")


def shows_nothing(char: str) -> bool:
    """Say whether a character looks like a space, or like nothing."""
    return char in FILLERS or unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc", "Cf")


def escape_in_quotes(text: str) -> str:
    r"""Return JSON, or YAML that quotes all such text, with harmful characters as \uXXXX in it."""
    return HARMFUL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


class PrintableStream:
    """A text stream in front of another one, which gets printable text only.

    Args:
        terminal: whether a line can be written over there; None: ask the stream.
    """

    def __init__(self, stream: TextIO, *, terminal: bool | None = None) -> None:
        self._stream = stream
        self._terminal = stream.isatty() if terminal is None else terminal

    def write(self, text: str) -> int:
        """Write text, in escapes where the stream's encoding cannot hold it."""
        bar = PASSING_LINE.match(text) if self._terminal else None
        shown = text[: bar.end()] + printable(text[bar.end() :]) if bar else printable(text)
        try:
            self._stream.write(shown)
        except UnicodeEncodeError:
            self._stream.write(shown.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def print_printable_only() -> None:
    """Let nothing harmful out through this process's stdout and stderr from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, PrintableStream):
            setattr(sys, name, PrintableStream(stream))


def shorten(text: str, *, limit: int = 80) -> str:
    """Return text as a message repeats it: at most limit characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def say_first(places: Sequence[str], *, limit: int) -> str:
    """List the first places, and how many more there are: `row 3 (…), row 9 (…) and 4 more`."""
    rest = len(places) - limit
    return ", ".join(places[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def name_some(names: Iterable[str], *, limit: int = 5) -> str:
    """List a few names for a message: `'a', 'b' and 7 more`."""
    return say_first([repr(shorten(name)) for name in names], limit=limit)


def show_bytes(size: float) -> str:
    """Return a size for people: `3.2 GiB`, `0.5 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def format_duration(seconds: float) -> str:
    """Return a duration for people: `58 s`, `3 m 20 s`, `45 m`, `1 h 20 m`."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} m" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


GAP = 2


def align(
    rows: Sequence[Sequence[str]], *, left: Collection[int], width: int | None = None
) -> list[str]:
    """Return one line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row; what does not show on one line becomes an escape.
        left: places of the columns that stand to the left; all others to the right.
        width: columns that a line may take; cells go on in further lines where it is too narrow.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return []
    rows = [[visible(cell) for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    words = [
        max(cell_len(word) for cell in column for word in [*cell.split(), ""]) for column in columns
    ]
    while width is not None and sum(widths) + GAP * (len(widths) - 1) > width:
        # A word is broken only where no cell can go on at a space.
        wide = [at for at, own in enumerate(widths) if own > words[at]]
        wide = wide or [at for at, own in enumerate(widths) if own > 2]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    for at, own in enumerate(widths):
        table.add_column(justify="left" if at in left else "right", overflow="fold", width=own)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=sum(widths) + GAP * len(widths), color_system=None)
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def cut_to_width(text: str, width: int) -> str:
    """Cut text to so many columns; Korean letters take two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"

"""The text of a config file: from bytes, whatever editor wrote them, and a syntax error in words.

What can still be read is handed on beside its problem. Must not know which keys there are.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import yaml
from yaml.reader import Reader

from dialsum.config.problems import Origin, Problem
from dialsum.printable import SELECTORS, shows_nothing
from dialsum.reading import BINARY, EMPTY, HEAD_BYTES, JSON, TEXT, UTF16, Look, shorten, tell_kind

SAVE = "save the file as UTF-8"
ENDINGS = (".yaml", ".yml")
"""Of a file of another name nothing is read, so that nothing is quoted: `.env` and its like hold
secrets."""


def refuse_other_kinds(raw: bytes, file: Path) -> Problem | None:
    """Say that a file is no YAML, by its first bytes or its name; None where it may be."""
    kind = tell_kind(raw[:HEAD_BYTES], file)
    if kind in (TEXT, UTF16, JSON, EMPTY, BINARY):
        if file.suffix.lower() in ENDINGS:
            return None
        meant = "name a config, or rename this file if it is one"
        return Problem(Origin.at(file), "", "no config by its name, which ends in .yaml", meant)
    said = Look(file, len(raw), kind).explain(wanted="a YAML file", otherwise="name a YAML file")
    found, _, meant = said.partition("; ")
    return Problem(Origin.at(file), "", found, meant)


def decode(raw: bytes, file: Path) -> tuple[str, list[Problem]]:
    """Return the text of a file, in whatever encoding, and what is wrong with that encoding."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
        return text, [Problem(Origin.at(file, 1), "", "UTF-16 text", SAVE)]
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        try:
            text, found = raw.decode("cp949"), "Korean text in cp949 (EUC-KR)"
        except UnicodeDecodeError:
            text = raw.decode("utf-8-sig", errors="replace")
            found = f"byte 0x{raw[error.start]:02x}, which is not UTF-8"
        return text, [Problem(Origin.at(file, line), "", found, SAVE)]


def drop_control_characters(text: str, file: Path) -> tuple[str, list[Problem]]:
    """Return text without the characters that YAML forbids, and the problem that they are."""
    control = Reader.NON_PRINTABLE.search(text)
    if control is None:
        return text, []
    clean, count = Reader.NON_PRINTABLE.subn("", text)
    found = f"control character U+{ord(control[0]):04X}"
    if count > 1:
        found += f", the first of {count:,}"
    origin = Origin.at(file, text.count("\n", 0, control.start()) + 1)
    return clean, [Problem(origin, "", found, "delete it: most editors do not show it")]


LINE_END = re.compile("[\x85\u2028\u2029]")
"""What ends a line to PyYAML and to no editor."""
WIDE_COLONS = "\uff1a\ufe55\ufe13\u2236\ua789\u02f8"
QUOTED = re.compile(r"""(?<![^ \xa0\[{,:])(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*')""")
COMMENT = re.compile(r"(?<![^ \xa0])#.*")
ODD_RUN = re.compile("[ \xa0]*(\xa0)[ \xa0]*")
# The dashes of a line, its key with the colon (1: a wide one), and the blanks after it.
HEAD = re.compile(
    r"(?:[ \xa0]*-(?=[ \xa0]|$))*[ \xa0]*"
    r"(?:[\w.\"'-][\w.\"'\xa0-]* *:(?=[ \xa0]|$)|[A-Za-z_\"'][\w.\"'\xa0-]* *(\uff1a))?[ \xa0]*"
)
KEY_IN_BRACES = re.compile("[{,][ \xa0]*[A-Za-z_\"'][\\w.\"'-]*[ \xa0]*(\uff1a)")
BLOCK_TEXT = re.compile(r"[^#]*[:-] +[|>][-+0-9]*\s*(#.*)?")


def mend_odd_characters(text: str, file: Path) -> tuple[str, list[Problem]]:
    """Return text with plain spaces for others (and what looks like nothing) in indentation, around
    keys, members of lists and mappings, and at ends of lines, with plain colons for wide ones after
    keys, without line ends that no editor shows, and a problem for each: YAML takes them for
    letters, or counts lines otherwise.
    """
    if text.isascii():
        return text, []
    problems, lines, block, opened = [], text.split("\n"), None, ""
    for number, line in enumerate(lines, start=1):
        if end := LINE_END.search(line):
            meant = "a line break, or a plain space"
            problems.append(_say_odd(end[0], "inside the line", end.start(), meant, file, number))
            lines[number - 1] = line = LINE_END.sub(" ", line)
        indent = len(line) - len(line.lstrip(" "))
        if block is not None and (indent > block or not line.strip(" ")):
            continue  # text of its own, which may hold any character
        bare = _bare(line)
        colons, spaces, opened = _find_odd(bare, opened)
        for place in colons:
            meant = "a plain colon and a space"
            problems.append(_say_odd(line[place], "after the key", place, meant, file, number))
        if spaces:
            where = "in the line" if bare[: spaces[0]].strip(" -") else "in the indentation"
            meant = "plain spaces there (a text that begins or ends so stands in quotes)"
            problems.append(_say_odd(line[spaces[0]], where, spaces[0], meant, file, number))
        mended = {**dict.fromkeys(colons, ": "), **dict.fromkeys(spaces, " ")}
        line = "".join(mended.get(place, char) for place, char in enumerate(line))
        lines[number - 1] = line
        block = indent if BLOCK_TEXT.fullmatch(line) else None
    return "\n".join(lines), problems


def _bare(line: str) -> str:
    """Return a line for a look at its parts, each character in its place: no-break spaces for all
    that is odd, one wide colon for all, quotes alone for what is quoted; no comment, no line end.
    """
    chars = []
    for before, char in zip(" " + line, line.rstrip("\r"), strict=False):
        # A selector after a symbol chooses the picture of an emoji.
        part = char in SELECTORS and unicodedata.category(before)[0] == "S"
        odd = char not in " \t" and shows_nothing(char) and not part
        chars.append("\xa0" if odd else "\uff1a" if char in WIDE_COLONS else char)
    quoted = QUOTED.sub(lambda found: '"' * len(found[0]), "".join(chars))
    return COMMENT.sub("", quoted)


def _find_odd(bare: str, opened: str) -> tuple[list[int], list[int], str]:
    """Return where wide colons follow keys, and odd blanks stand where YAML's own signs do.

    Args:
        bare: see _bare.
        opened: brackets that earlier lines opened; those open after this line are returned.
    """
    head = HEAD.match(bare)
    start = head.end() if head else 0
    inner = []
    if opened or bare[start : start + 1] in ("[", "{"):
        for char in bare:
            opened = opened + char if char in "[{" else opened[:-1] if char in "]}" else opened
            inner.append(opened[-1:])
    colons = [
        found.start(1)
        for found in KEY_IN_BRACES.finditer(bare)
        if inner and inner[found.start(1)] == "{"
    ]
    if head and head[1]:
        colons.insert(0, head.start(1))
    spaces = []
    for run in ODD_RUN.finditer(bare):
        before, after = bare[run.start() - 1 : run.start()], bare[run.end() : run.end() + 1]
        in_flow = inner and (before in ("[", "{", ",", ":", "\uff1a") or after in tuple("]},:"))
        if run.start() < start or not after or in_flow:
            spaces += [place for place in range(*run.span()) if bare[place] == "\xa0"]
    return colons, spaces, opened


def _say_odd(char: str, where: str, place: int, meant: str, file: Path, number: int) -> Problem:
    name = unicodedata.name(char, "next line").lower()  # U+0085 alone has none
    found = f"U+{ord(char):04X} ({name}) {where}, column {place + 1}"
    return Problem(Origin.at(file, number), "", found, meant)


KEY_OF_LINE = re.compile(r"\s*(?:- +)*([\w.-]+) *:(?:\s|$)")
OWN_NAME = re.compile("(alias|anchor|handle) ['\"].*")


def explain_syntax(error: yaml.MarkedYAMLError, text: str, *, file: Path) -> Problem:
    """Say a syntax error in words, at the line that causes it.

    Of the line no more than its key is quoted, and of PyYAML no name: what is no config of ours may
    hold secrets.
    """
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = re.split("\r\n?|\n", text)
    line = lines[min(number, len(lines)) - 1]
    key = KEY_OF_LINE.match(line)
    shown = f": {shorten(key[1])}: …" if key else ""
    said = OWN_NAME.sub(r"\1", error.problem or error.context or "")
    found = f"not YAML: {shorten(said)}"
    meant = "check quotes, colons, indentation"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        found, meant = "a tab in the indentation", "indent with spaces"
    elif "\\n" in line:
        found, meant = r"a literal \n (backslash and n) in the line", "break the line there"
    elif "mapping values" in said:
        found = f"a second colon{shown}"
        meant = 'one `key: value` per line; put text that holds ": " in quotes'
    elif "block end" in said:
        found = f"indentation that fits no line above{shown}"
        meant = "keys of one section start in one column"
    return Problem(Origin.at(file, number), "", found, meant)

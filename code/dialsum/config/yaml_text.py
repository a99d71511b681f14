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
from dialsum.reading import (
    BINARY,
    EMPTY,
    HEAD_BYTES,
    JSON,
    TEXT,
    UTF16,
    Look,
    shorten,
    tell_kind,
)

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


ODD_SPACE = re.compile("[\u00a0\u00ad\u1680\u2000-\u200d\u202f\u205f\u2060\u3000\ufeff]")
"""What looks like a space, or like nothing, and is none to YAML."""
WIDE_COLON = re.compile(r"( *(?:- +)*[A-Za-z_][\w.]*) *\uff1a")
BEFORE_VALUE = re.compile(r" *(?:- +)*(?:[\w.\"'-]+ *:? *)?")
BLOCK_TEXT = re.compile(r"[^#]*[:-] +[|>][-+0-9]*\s*(#.*)?")


def mend_odd_characters(text: str, file: Path) -> tuple[str, list[Problem]]:
    """Return text with plain spaces for others in indentation, around keys and at ends of lines,
    with plain colons for wide ones after keys, and a problem for each such line: YAML takes those
    for letters.
    """
    if ODD_SPACE.search(text) is None and "\uff1a" not in text:
        return text, []
    problems, lines, block = [], text.split("\n"), None
    for number, line in enumerate(lines, start=1):
        indent = len(line) - len(line.lstrip(" "))
        if block is not None and (indent > block or not line.strip(" ")):
            continue  # text of its own, which may hold any character
        block = indent if BLOCK_TEXT.fullmatch(line) else None
        if wide := WIDE_COLON.match(line):
            found = f"U+FF1A (fullwidth colon) after the key, column {wide.end()}"
            meant = "a plain colon and a space"
            problems.append(Problem(Origin.at(file, number), "", found, meant))
            lines[number - 1] = line = f"{wide[1]}: {line[wide.end() :]}"
        odd = ODD_SPACE.search(line)
        if odd is None or line.lstrip(" ").startswith("#"):
            continue
        before, rest = line[: odd.start()], ODD_SPACE.sub(" ", line[odd.start() :])
        if rest.strip() == "" or rest.lstrip().startswith("#") or BEFORE_VALUE.fullmatch(before):
            name = unicodedata.name(odd[0], "a format character").lower()
            where = "indentation" if not before.strip(" -") else "line"
            found = f"U+{ord(odd[0]):04X} ({name}) in the {where}, column {odd.start() + 1}"
            problems.append(
                Problem(Origin.at(file, number), "", found, "plain spaces there (a text that "
                        "begins or ends so stands in quotes)")
            )  # fmt: skip
            lines[number - 1] = before + rest
    return "\n".join(lines), problems


def explain_syntax(error: yaml.MarkedYAMLError, text: str, *, file: Path) -> Problem:
    """Say a syntax error in words, at the line that causes it."""
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = text.splitlines() or [""]
    line = lines[min(number, len(lines)) - 1]
    found = f"not YAML: {shorten(error.problem or error.context or '')}"
    meant = "check quotes, colons, indentation"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        found, meant = "a tab in the indentation", "indent with spaces"
    elif "\\n" in line:
        found, meant = r"a literal \n (backslash and n) in the line", "break the line there"
    elif "mapping values" in str(error.problem):
        found = f"a second colon: {shorten(line.strip())}"
        meant = 'one `key: value` per line; put text that holds ": " in quotes'
    elif "block end" in str(error.problem):
        found = f"indentation that fits no line above: {shorten(line.strip())}"
        meant = "keys of one section start in one column"
    return Problem(Origin.at(file, number), "", found, meant)

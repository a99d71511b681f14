"""YAML read with the place of every value, as far as it goes, with what is wrong with the rest; and
written so that it reads back the same.

Numbers, booleans and null are those of YAML 1.2: `3e-5` is a number, `yes` and `no` are text. Must
not know which keys there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from dialsum.files import (
    BINARY,
    EMPTY,
    HEAD_BYTES,
    JSON,
    TEXT,
    UTF16,
    Look,
    read_regular,
    shorten,
    tell_kind,
)
from dialsum.paths import shown
from dialsum.printable import HARMFUL, SELECTORS, escape_in_quotes, shows_nothing


@dataclass(frozen=True)
class Origin:
    """Where a value was written; text says it: `config/x.yaml:14`, `--set`, `default`."""

    file: Path | None
    line: int | None
    text: str

    @classmethod
    def at(cls, file: Path, line: int | None = None) -> Origin:
        """Name a line (from 1) of a file, or the file as a whole."""
        return cls(file, line, shown(file) if line is None else f"{shown(file)}:{line}")


SET = Origin(None, None, "--set")
DEFAULT = Origin(None, None, "default")


@dataclass(frozen=True)
class Problem:
    """One line of a ConfigError: where, which key, what was found, what is meant."""

    origin: Origin
    key: str
    found: str
    meant: str


TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2, https://yaml.org/spec/1.2.2/#103-core-schema. PyYAML follows 1.1,
# where 3e-5 is text, 1:30 is ninety, 010 is eight, and `no` is false.
SCALARS: list[tuple[str, str, list[str]]] = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
]


DIGITS = 40
"""Longest whole number that is read: Python itself does not write one of more than 4,300."""


class HugeNumberError(ValueError):
    """A whole number that no value of a run could be; its text says how long it is."""


class Resolver(BaseResolver):
    """Which plain scalars are numbers, booleans or null."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as anything else."""

    def write_text(self, text: str) -> yaml.ScalarNode:
        """Represent text; line ends, which folding could touch, and what is harmful as escapes."""
        style = '"' if "\n" in text or HARMFUL.search(text) else None
        return self.represent_scalar(TAG + "str", text, style=style)


for _name, _pattern, _first in SCALARS:
    Resolver.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
    _Dumper.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


_Dumper.add_representer(str, _Dumper.write_text)


def dump_yaml_text(value: Any) -> str:
    """Return plain data as YAML that reads back the same here and under YAML 1.1."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return escape_in_quotes(text)


def read_scalar(tag: str, text: str) -> Any:
    """Return the value of a scalar; raises ValueError or KeyError where its tag does not fit it."""
    return READERS[tag.removeprefix(TAG)](text)


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


def _text(text: str) -> str:
    """Join the two halves of a character that was written as two escapes, as JSON writes it."""
    return re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"),
        text,
    )


def _int(text: str) -> int:
    if len(text) > DIGITS:
        raise HugeNumberError(f"a whole number of {len(text):,} digits")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


READERS: dict[str, Callable[[str], Any]] = {
    "str": _text,
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _int,
    "float": _float,
}
"""How the text of a scalar becomes its value, by the last word of its tag."""


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


MAX_YAML_BYTES = 1_000_000
"""The largest config of ours has 6 kB."""


class _Loader(Reader, Scanner, Parser, Composer, Resolver):
    """PyYAML's own parts as far as the node tree; no Python object is ever built from a file."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        Resolver.__init__(self)


@dataclass(frozen=True)
class Located:
    """A YAML value: a scalar, a list of Located, or a dict of Located.

    Args:
        line: that of its key, from 1.
        known: False where something of the value could not be read, which a problem says already;
            of a dict, members may be missing then.
    """

    value: Any
    line: int
    known: bool = True

    def plain(self) -> Any:
        """Return the value without its lines."""
        if isinstance(self.value, dict):
            return {name: member.plain() for name, member in self.value.items()}
        if isinstance(self.value, list):
            return [member.plain() for member in self.value]
        return self.value

    def whole(self) -> bool:
        """Say whether all of the value, down to its last member, could be read."""
        inner = self.value.values() if isinstance(self.value, dict) else self.value
        parts = inner if isinstance(self.value, dict | list) else ()
        return self.known and all(part.whole() for part in parts)


@dataclass(frozen=True)
class Document:
    """One YAML file: what could be read of it, and what is wrong with the rest."""

    tree: Located
    problems: list[Problem]


class YamlError(Exception):
    """Text that is not YAML, or more than a config needs; one or more problems."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{p.origin.text} {p.found}" for p in problems))


def read_yaml(file: Path) -> Document:
    """Read one file as far as it goes; raises YamlError where its text or its name is no config's,
    OSError where it cannot be read, is no regular file, or is too large for one.
    """
    raw = read_regular(file, max_bytes=MAX_YAML_BYTES)
    if foreign := refuse_other_kinds(raw, file):
        raise YamlError(foreign)
    text, problems = decode(raw, file)
    return _read_document(text, file, problems)


def parse_yaml(text: str, file: Path) -> Located:
    """Parse text as one YAML document; an empty one gives the value None. Raises YamlError with
    everything that is wrong with it.
    """
    document = _read_document(text, file, [])
    if document.problems:
        raise YamlError(*document.problems)
    return document.tree


def _read_document(text: str, file: Path, problems: list[Problem]) -> Document:
    """Read the first document of text, after the problems that are known already."""
    text, forbidden = drop_control_characters(text, file)
    text, odd = mend_odd_characters(text, file)
    problems = [*problems, *forbidden, *odd]
    loader = _Loader(text)
    try:
        node = loader.get_node() if loader.check_node() else None
        more = loader.check_node()
        second = loader.peek_event() if more else None  # type: ignore[no-untyped-call]
        tree = Located(None, 1) if node is None else _Locator(file, problems).locate(node, "")
    except yaml.MarkedYAMLError as error:
        # After odd or forbidden characters, it may be their consequence alone.
        syntax = [] if odd or forbidden else [explain_syntax(error, text, file=file)]
        raise YamlError(*problems, *syntax) from error
    except RecursionError as error:
        deep = Problem(Origin.at(file), "", "nested too deep to be read", "three levels at most")
        raise YamlError(*problems, deep) from error
    if second is not None:
        origin = Origin.at(file, second.start_mark.line + 1)
        found = "a second document (---)"
        problems.append(Problem(origin, "", found, "one experiment per file"))
        # What is written there is meant for the same experiment, perhaps.
        tree = replace(tree, known=False)
    return Document(tree, problems)


@dataclass
class _Locator:
    """Turns the nodes of one file into Located values; what a config must not hold goes to
    problems.
    """

    file: Path
    problems: list[Problem]
    seen: set[int] = field(default_factory=set)

    def locate(self, node: Any, key: str) -> Located:
        """Return the value of a node under its dotted key ("" for the whole file)."""
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, key=key)
        if id(node) in self.seen:
            return self._refuse(line, key, "an alias (*) of a mapping or list", "write it out")
        self.seen.add(id(node))
        if node.tag not in (TAG + "map", TAG + "seq"):
            return self._refuse(line, key, "a tag (!)", "plain values, without a tag")
        if isinstance(node, yaml.SequenceNode):
            return Located([self.locate(item, key) for item in node.value], line)
        return self._locate_members(node, line, key=key)

    def _locate_members(self, node: Any, line: int, *, key: str) -> Located:
        members: dict[str, Located] = {}
        known = True
        for name, value in node.value:
            place = name.start_mark.line + 1
            if refused := _refuse_name(name):
                shown = name.value if isinstance(name, yaml.ScalarNode) else ""
                self._say(place, ".".join(filter(None, (key, shown))), *refused)
                # `<<` brings other members along, a literal line break swallows the next one.
                known = known and name.tag != TAG + "str"
                continue
            dotted = f"{key}.{name.value}" if key else name.value
            member = replace(self.locate(value, dotted), line=place)
            if earlier := members.get(name.value):
                member = self._join(earlier, member, dotted)
            members[name.value] = member
        return Located(members, line, known)

    def _join(self, earlier: Located, member: Located, key: str) -> Located:
        """Say that a key comes twice; of two sections every key is read, of two values the last."""
        found = f"given again (already in line {earlier.line})"
        if not (isinstance(earlier.value, dict) and isinstance(member.value, dict)):
            kept, which = (
                (earlier, "earlier") if isinstance(earlier.value, dict) else (member, "later")
            )
            self._say(member.line, key, found, f"keep one of the two; the {which} was checked")
            return kept
        self._say(member.line, key, found, "one section that holds the keys of both")
        members = dict(earlier.value)
        for name, inner in member.value.items():
            twice = members.get(name)
            members[name] = self._join(twice, inner, f"{key}.{name}") if twice else inner
        return Located(members, member.line, earlier.known and member.known)

    def _scalar(self, node: Any, line: int, *, key: str) -> Located:
        try:
            return Located(read_scalar(node.tag, node.value), line)
        except HugeNumberError as error:
            return self._refuse(line, key, str(error), "a number that a run could have")
        except (ValueError, KeyError):
            return self._refuse(line, key, "a tag (!)", "plain values, without a tag")

    def _refuse(self, line: int, key: str, found: str, meant: str) -> Located:
        self._say(line, key, found, meant)
        return Located(None, line, known=False)

    def _say(self, line: int, key: str, found: str, meant: str) -> None:
        self.problems.append(Problem(Origin.at(self.file, line), key, found, meant))


def _refuse_name(node: Any) -> tuple[str, str] | None:
    """Return why the key of a member is no usable name, and what is meant; None for a name."""
    if not isinstance(node, yaml.ScalarNode):
        return "a key of parts", "keys are names"
    if node.tag != TAG + "str":
        return f"the key {shorten(node.value)!r}", "keys are names"
    if node.value == "<<":
        return "a merge key", "inherit with `extends: other.yaml`"
    if "\\n" in node.value:
        return r"a literal \n (backslash and n) stands in the key", "break the line there"
    return None

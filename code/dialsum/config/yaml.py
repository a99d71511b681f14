"""YAML read with the origin of every value, as far as it goes, with what is wrong with the rest;
and values written so that they read back the same.

Numbers, booleans and null are those of YAML 1.2: `3e-5` is a number, `yes` and `no` are text. Must
not know which keys there are.
"""

from __future__ import annotations

import json
import math
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
    tell_kind,
)
from dialsum.paths import shown
from dialsum.text import HARMFUL, SELECTORS, escape_in_quotes, shorten, shows_nothing, visible

ENDINGS = (".yaml", ".yml")
"""Of a file of another name nothing is read, so that nothing is quoted: `.env` and its like hold
secrets."""
MAX_YAML_BYTES = 1_000_000
"""The largest config of ours has 6 kB."""
DIGITS = 40
"""Longest whole number that is read; Python itself does not write one of more than 4,300."""
NO_TAG = ("a tag (!)", "plain values, without a tag")


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


class UnreadableError(Exception):
    """A source of which nothing can be read, with the reasons."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{p.origin.text} {p.found}" for p in problems))


@dataclass(frozen=True)
class Value:
    """What is written in one place: a scalar, a list of Values, or a dict of Values by name.

    Args:
        origin: the place of its key.
        known: False where something of it could not be read, which a problem says already; members
            of a dict may be missing then.
    """

    content: Any
    origin: Origin
    known: bool = True

    def plain(self) -> Any:
        """Return the value without its origins."""
        if isinstance(self.content, dict):
            return {name: member.plain() for name, member in self.content.items()}
        if isinstance(self.content, list):
            return [member.plain() for member in self.content]
        return self.content

    def members(self) -> dict[str | int, Value]:
        """Return the parts of a dict or list, by name or place; none of a scalar."""
        if isinstance(self.content, list):
            return dict(enumerate(self.content))
        return self.content if isinstance(self.content, dict) else {}

    def whole(self) -> bool:
        """Say whether all of the value, down to its last member, could be read."""
        return self.known and all(member.whole() for member in self.members().values())


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
TAG = "tag:yaml.org,2002:"


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's own parts as far as the node tree; no Python object is ever built from a file."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        for part in (Scanner, Parser, Composer, BaseResolver):
            part.__init__(self)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as anything else."""

    def write_text(self, text: str) -> yaml.ScalarNode:
        """Represent text; line ends, which folding could touch, and what is harmful as escapes."""
        style = '"' if "\n" in text or HARMFUL.search(text) else None
        return self.represent_scalar(TAG + "str", text, style=style)


for _name, _pattern, _first in SCALARS:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
_Dumper.add_representer(str, _Dumper.write_text)


def dump_yaml_text(value: Any, *, width: float = 100) -> str:
    """Return plain data as YAML that reads back the same here and under YAML 1.1."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return escape_in_quotes(text)


def show_value(value: Any) -> str:
    """Return a value on one line as it could stand in a YAML file, shortened for a message."""
    return shorten(show_whole(value))


def show_whole(value: Any) -> str:
    """Return a value on one line as it could stand in a YAML file."""
    if isinstance(value, str):
        return dump_yaml_text([value], width=float("inf")).removeprefix("- ").rstrip("\n")
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show_whole, value))}]"
    if isinstance(value, dict):
        parts = (f"{show_whole(key)}: {show_whole(item)}" for key, item in value.items())
        return f"{{{', '.join(parts)}}}"
    return repr(value)


def quote(text: str) -> str:
    """Return text in double quotes on one line, as JSON and YAML read it."""
    return visible(json.dumps(text, ensure_ascii=False))


def describe_found(value: Any) -> str:
    """Say what stands there, naming its kind where the reader could take it for another."""
    if value is None:
        return "nothing"
    if not isinstance(value, str):
        return show_value(value)
    odd = find_odd(value, colons=True)
    return f"the text {shorten(quote(value))}" + (f", with {odd[1]}" if odd else "")


def read_yaml(file: Path) -> tuple[Value, list[Problem]]:
    """Read one file as far as it goes, and what is wrong with the rest.

    Raises:
        UnreadableError: its text or its name is no config's.
        OSError: it cannot be read, is no regular file, or is too large for a config.
    """
    raw = read_regular(file, max_bytes=MAX_YAML_BYTES)
    kind = tell_kind(raw[:HEAD_BYTES], file)
    if kind not in (TEXT, UTF16, JSON, EMPTY, BINARY):
        said = Look(file, len(raw), kind).explain(
            wanted="a YAML file", otherwise="name a YAML file"
        )
        found, _, meant = said.partition("; ")
        raise UnreadableError(Problem(Origin.at(file), "", found, meant))
    if file.suffix.lower() not in ENDINGS:
        found, meant = "no config by its name, which ends in .yaml", "name a config, or rename this"
        raise UnreadableError(Problem(Origin.at(file), "", found, f"{meant} file if it is one"))
    problems: list[Problem] = []
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            line, text, found = 1, raw.decode("utf-16", errors="replace"), "UTF-16 text"
        else:
            try:
                text, found = raw.decode("cp949"), "Korean text in cp949 (EUC-KR)"
            except UnicodeDecodeError:
                text = raw.decode("utf-8-sig", errors="replace")
                found = f"byte 0x{raw[error.start]:02x}, which is not UTF-8"
        problems.append(Problem(Origin.at(file, line), "", found, "save the file as UTF-8"))
    return read_document(text, file, problems)


FORBIDDEN = re.compile(f"{Reader.NON_PRINTABLE.pattern}|[\x85\u2028\u2029]")
"""What YAML forbids, and what ends a line to PyYAML and to no editor."""


def read_document(
    text: str, file: Path | None, problems: list[Problem] | None = None
) -> tuple[Value, list[Problem]]:
    """Read the first document of text; an empty one gives the value None.

    Args:
        file: where it stands; None: on the command line.
        problems: what is wrong with it already.

    Raises:
        UnreadableError: it is no YAML.
    """
    reading = _Reading(file, problems or [])
    if forbidden := FORBIDDEN.search(text):
        line = text.count("\n", 0, forbidden.start()) + 1
        text, count = FORBIDDEN.subn("", text)
        found = f"control character U+{ord(forbidden[0]):04X}"
        found += f", the first of {count:,}" if count > 1 else ""
        reading.say(line, "", found, "delete it: most editors do not show it")
    loader = _Loader(text)
    try:
        node = loader.get_node() if loader.check_node() else None
        more = loader.check_node()
        second = loader.peek_event() if more else None  # type: ignore[no-untyped-call]
        tree = Value(None, reading.place(1)) if node is None else reading.read(node, "")
    except yaml.MarkedYAMLError as error:
        # After forbidden characters, it may be their consequence alone.
        if not forbidden:
            reading.say(*_explain_syntax(error, re.split("\r\n?|\n", text)))
        raise UnreadableError(*reading.problems) from error
    except RecursionError as error:
        reading.say(None, "", "nested too deep to be read", "three levels at most")
        raise UnreadableError(*reading.problems) from error
    if second is not None:
        line = second.start_mark.line + 1
        reading.say(line, "", "a second document (---)", "one experiment per file")
        # What is written there is meant for the same experiment, perhaps.
        tree = replace(tree, known=False)
    return tree, reading.problems


@dataclass
class _Reading:
    """Turns the nodes of one file into Values; what a config must not hold goes to problems."""

    file: Path | None
    problems: list[Problem]
    seen: set[int] = field(default_factory=set)

    def place(self, line: int | None) -> Origin:
        return SET if self.file is None else Origin.at(self.file, line)

    def say(self, line: int | None, key: str, found: str, meant: str) -> None:
        self.problems.append(Problem(self.place(line), key, found, meant))

    def read(self, node: Any, key: str) -> Value:
        """Return the value of a node under its dotted key ("" for the whole file)."""
        line = node.start_mark.line + 1
        refused = None
        if isinstance(node, yaml.ScalarNode):
            refused = _refuse_odd(node)
            try:
                content = None if refused else READERS[node.tag.removeprefix(TAG)](node.value)
            except (ValueError, KeyError):
                refused = NO_TAG
        elif id(node) in self.seen:
            refused = "an alias (*) of a mapping or list", "write it out"
        elif node.tag not in (TAG + "map", TAG + "seq"):
            refused = NO_TAG
        elif isinstance(node, yaml.MappingNode):
            self.seen.add(id(node))
            return self._read_members(node, key)
        else:
            self.seen.add(id(node))
            content = [self.read(item, key) for item in node.value]
        if refused:
            self.say(line, key, *refused)
        return Value(None if refused else content, self.place(line), known=not refused)

    def _read_members(self, node: yaml.MappingNode, key: str) -> Value:
        members: dict[str, Value] = {}
        known = True
        for name, value in node.value:
            line = name.start_mark.line + 1
            text = name.value if isinstance(name, yaml.ScalarNode) else ""
            if refused := _refuse_name(name):
                self.say(line, ".".join(filter(None, (key, text))), *refused)
                # Nobody knows which members `<<` brings along, or what an odd name was meant for.
                known = known and name.tag != TAG + "str"
                continue
            dotted = f"{key}.{text}" if key else text
            member = replace(self.read(value, dotted), origin=self.place(line))
            earlier = members.get(text)
            members[text] = self._join(earlier, member, dotted) if earlier else member
        return Value(members, self.place(node.start_mark.line + 1), known)

    def _join(self, earlier: Value, member: Value, key: str) -> Value:
        """Say that a key comes twice; of two sections every key is read, of two values the last."""
        found = f"given again (already in line {earlier.origin.line})"
        first, second = earlier.content, member.content
        if not (isinstance(first, dict) and isinstance(second, dict)):
            kept = earlier if isinstance(first, dict) else member
            which = "earlier" if kept is earlier else "later"
            meant = f"keep one of the two; the {which} was checked"
            self.say(member.origin.line, key, found, meant)
            return kept
        self.say(member.origin.line, key, found, "one section that holds the keys of both")
        both = {
            name: self._join(first[name], second[name], f"{key}.{name}")
            if name in first and name in second
            else first.get(name) or second[name]
            for name in {**first, **second}
        }
        return Value(both, member.origin, earlier.known and member.known)


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
    return _refuse_odd(node, colons=True)


def _refuse_odd(node: yaml.ScalarNode, *, colons: bool = False) -> tuple[str, str] | None:
    """Return what of a scalar outside of quotes a reader would take for a space or a colon."""
    odd = find_odd(node.value, colons=colons) if node.style is None else None
    if odd is None:
        return None
    place, found = odd
    if node.start_mark.line == node.end_mark.line:
        found += f" in column {node.start_mark.column + place + 1}"
    return found, "plain spaces and colons, or quotes around the text"


READERS: dict[str, Callable[[str], Any]] = {
    # The two halves of a character that was written as two escapes, as JSON writes it, are joined.
    "str": lambda text: re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"),
        text,
    ),
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": lambda text: (
        math.copysign(math.inf, -1 if text[0] == "-" else 1)
        if len(text) > DIGITS
        else int(text, 0 if text[:2] in ("0x", "0o") else 10)
    ),
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
}
"""How the text of a scalar becomes its value, by the last word of its tag."""

WIDE_COLONS = "\uff1a\ufe55\ufe13\u2236\ua789\u02f8"


def find_odd(text: str, *, colons: bool = False) -> tuple[int, str] | None:
    """Return place and name of the first blank that YAML takes for a letter, or colon if asked.

    A selector after a symbol is none of them: it chooses the picture of an emoji.
    """
    for place, char in enumerate("" if text.isascii() else text):
        picture = char in SELECTORS and unicodedata.category(text[place - 1])[0] == "S"
        blank = char not in " \t\n" and shows_nothing(char) and not picture
        if blank or (colons and char in WIDE_COLONS):
            return place, f"U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})"
    return None


KEY_OF_LINE = re.compile(r"\s*(?:- +)*([\w.-]+) *:(?:\s|$)")
OWN_NAME = re.compile("(alias|anchor|handle) ['\"].*")
QUOTED_OR_COMMENT = re.compile(r"""(["']).*?\1|(?:^|(?<=\s))#.*""")


def _explain_syntax(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, str, str, str]:
    """Say a syntax error in words: line, no key, what was found, what is meant.

    Of the line no more than its key is quoted, and of PyYAML no name: what is no config of ours may
    hold secrets.
    """
    mark = error.problem_mark or error.context_mark
    number = min(mark.line + 1 if mark else 1, len(lines))
    line = lines[number - 1]
    for above in range(number, max(number - 2, 0), -1):
        bare = QUOTED_OR_COMMENT.sub(lambda found: "x" * len(found[0]), lines[above - 1])
        if odd := find_odd(bare, colons=True):
            meant = "plain spaces and colons, or quotes around the text"
            return above, "", f"{odd[1]} in column {odd[0] + 1}", meant
    key = KEY_OF_LINE.match(line)
    where = f": {shorten(key[1])}: …" if key else ""
    said = OWN_NAME.sub(r"\1", error.problem or error.context or "")
    found, meant = f"not YAML: {shorten(said)}", "check quotes, colons, indentation"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        found, meant = "a tab in the indentation", "indent with spaces"
    elif "\\n" in line:
        found, meant = r"a literal \n (backslash and n) in the line", "break the line there"
    elif "mapping values" in said:
        found = f"a second colon{where}"
        meant = 'one `key: value` per line; put text that holds ": " in quotes'
    elif "block end" in said:
        found = f"indentation that fits no line above{where}"
        meant = "keys of one section start in one column"
    return number, "", found, meant

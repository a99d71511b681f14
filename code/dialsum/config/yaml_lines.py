"""YAML read with the line of every key, as far as it can be read, and what is wrong with the rest.

Must not know which keys there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from dialsum.config.problems import Origin, Problem
from dialsum.config.yaml_scalars import TAG, HugeNumberError, Resolver, read_scalar
from dialsum.config.yaml_text import (
    decode,
    drop_control_characters,
    explain_syntax,
    mend_odd_characters,
    refuse_other_kinds,
)
from dialsum.reading import read_regular, shorten

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

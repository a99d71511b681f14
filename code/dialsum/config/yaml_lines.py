"""YAML read with the line of every key, and written so that it reads back the same.

Numbers, booleans and null are those of YAML 1.2: `3e-5` is a number, `yes` and `no` are text. Must
not know which keys there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from dialsum.config.problems import Origin, Problem

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


class _Resolver(BaseResolver):
    """Which plain scalars are numbers, booleans or null."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as anything else."""

    def write_text(self, text: str) -> yaml.ScalarNode:
        """Represent text; line breaks of any kind as escapes, which folding cannot touch."""
        style = '"' if re.search("[\n\r\x85\u2028\u2029]", text) else None
        return self.represent_scalar(TAG + "str", text, style=style)


for _name, _pattern, _first in SCALARS:
    _Resolver.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
    _Dumper.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


_Dumper.add_representer(str, _Dumper.write_text)


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    """PyYAML's own parts as far as the node tree; no Python object is ever built from a file."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)


@dataclass(frozen=True)
class Located:
    """A YAML value: a scalar, a list of Located, or a dict of Located; line is that of its key,
    from 1.
    """

    value: Any
    line: int

    def plain(self) -> Any:
        """Return the value without its lines."""
        if isinstance(self.value, dict):
            return {name: member.plain() for name, member in self.value.items()}
        if isinstance(self.value, list):
            return [member.plain() for member in self.value]
        return self.value


class YamlError(Exception):
    """Text that is not YAML, or more than a config needs; one or more problems."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{p.origin.text} {p.found}" for p in problems))


def read_yaml(file: Path) -> Located:
    """Read one file whole; raises YamlError with file and line, OSError where it cannot be read."""
    return parse_yaml(_decode(file.read_bytes(), file), file)


def parse_yaml(text: str, file: Path) -> Located:
    """Parse text as one YAML document; an empty one gives the value None. Raises YamlError."""
    if control := Reader.NON_PRINTABLE.search(text):
        origin = Origin.at(file, text.count("\n", 0, control.start()) + 1)
        found = f"control character U+{ord(control[0]):04X}"
        raise YamlError(Problem(origin, "", found, "delete it: most editors do not show it"))
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise YamlError(_explain_syntax(error, text, file=file)) from error
    if node is None:
        return Located(None, 1)
    problems: list[Problem] = []
    located = _locate(node, file, problems=problems, seen=set())
    if problems:
        raise YamlError(*problems)
    return located


def dump_yaml_text(value: Any) -> str:
    """Return plain data as YAML that reads back the same here and under YAML 1.1."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _decode(raw: bytes, file: Path) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise YamlError(Problem(Origin.at(file, 1), "", "UTF-16 text", "save the file as UTF-8"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        try:
            raw.decode("cp949")
            found = "Korean text in cp949 (EUC-KR)"
        except UnicodeDecodeError:
            found = f"byte 0x{raw[error.start]:02x}, which is not UTF-8"
        raise YamlError(Problem(Origin.at(file, line), "", found, "save it as UTF-8")) from error


def _explain_syntax(error: yaml.MarkedYAMLError, text: str, *, file: Path) -> Problem:
    """Say a syntax error in words, at the line that causes it."""
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = text.splitlines() or [""]
    line = lines[min(number, len(lines)) - 1]
    found, meant = (
        f"not YAML: {error.problem or error.context}",
        "check quotes, colons, indentation",
    )
    if "\t" in line[: len(line) - len(line.lstrip())]:
        found, meant = "a tab in the indentation", "indent with spaces"
    elif "\\n" in line:
        found, meant = r"a literal \n (backslash and n) in the line", "break the line there"
    elif "single document" in str(error.context or "") or "single document" in str(error.problem):
        found, meant = "a second document (---)", "one experiment per file"
    elif "mapping values" in str(error.problem):
        found = f"a second colon: {line.strip()}"
        meant = 'one `key: value` per line; put text that holds ": " in quotes'
    elif "block end" in str(error.problem):
        found = f"indentation that fits no line above: {line.strip()}"
        meant = "keys of one section start in one column"
    return Problem(Origin.at(file, number), "", found, meant)


def _locate(node: Any, file: Path, *, problems: list[Problem], seen: set[int]) -> Located:
    """Turn a node into Located values; what a config must not hold goes to problems."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return Located(_scalar(node, file, problems=problems), line)
    if id(node) in seen:
        problems.append(
            Problem(Origin.at(file, line), "", "an alias (*) of a mapping or list", "write it out")
        )
        return Located(None, line)
    seen.add(id(node))
    if node.tag not in (TAG + "map", TAG + "seq"):
        problems.append(
            Problem(Origin.at(file, line), "", f"the tag {node.tag}", "plain values, without a tag")
        )
        return Located(None, line)
    if isinstance(node, yaml.SequenceNode):
        items = [_locate(item, file, problems=problems, seen=seen) for item in node.value]
        return Located(items, line)
    members: dict[str, Located] = {}
    for name, key, value in _named(node, file, problems=problems):
        if name in members:
            found = f"given again (first in line {members[name].line})"
            problems.append(Problem(Origin.at(file, key), name, found, "keep one of the two"))
            continue
        members[name] = Located(_locate(value, file, problems=problems, seen=seen).value, key)
    return Located(members, line)


def _named(node: Any, file: Path, *, problems: list[Problem]) -> Iterator[tuple[str, int, Any]]:
    """Give name, line and value node of each member of a mapping whose key is a usable name."""
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != TAG + "str":
            found = (
                f"the key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "a key of parts"
            )
            problems.append(Problem(Origin.at(file, line), "", found, "keys are names"))
        elif key.value == "<<":
            problems.append(
                Problem(
                    Origin.at(file, line), "<<", "a merge key", "inherit with `extends: other.yaml`"
                )
            )
        elif "\\n" in key.value:
            found = r"a literal \n (backslash and n) stands in the key"
            problems.append(
                Problem(Origin.at(file, line), key.value, found, "break the line there")
            )
        else:
            yield key.value, line, value


def _scalar(node: Any, file: Path, *, problems: list[Problem]) -> Any:
    kind, text = str(node.tag).removeprefix(TAG), node.value
    try:
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if kind == "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except (ValueError, KeyError):
        pass
    problems.append(
        Problem(
            Origin.at(file, node.start_mark.line + 1),
            "",
            f"{text!r} under the tag {node.tag}",
            "plain values, without a tag",
        )
    )
    return None

"""What a plain scalar of YAML is, and YAML written so that it reads back the same.

Numbers, booleans and null are those of YAML 1.2: `3e-5` is a number, `yes` and `no` are text. Must
not know files, lines, or which keys there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.resolver import BaseResolver

from dialsum.printable import HARMFUL, escape_in_quotes

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

"""What is said of a config: problem lines, values and types of keys in plain words, near keys.

Must not know files or rules. The words come from the schema's annotations, so that they cannot fall
behind it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dialsum.config.schema import json_schema, schema_keys, schema_sections
from dialsum.config.yaml import Problem, quote
from dialsum.files import shorten
from dialsum.printable import visible

NEAR = 70.0
"""Likeness, 0-100, from which a name counts as a slip of another."""
TYPES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "null": "null",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
WRITTEN_OUT = 1e12  # no whole number of a config is larger
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
LOOKS_BOOLEAN = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}


class Fault(NamedTuple):
    """What is wrong with a dotted key beside others: what was found, and what is meant."""

    key: str
    found: str
    meant: str


INTERPOLATION = re.compile(
    r"\$\{[^}]*\}?|(?<![^\s/])\$[A-Za-z_]\w*|\$\([^)]*\)?"
    r"|\{\{.*?\}\}|\{[A-Za-z_][A-Za-z0-9_.]*\}|%\(\w+\)s"
)
"""Of Hydra and shells, of Jinja and Python; `{요약}` is text."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")


def find_text_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a text, wherever it stands, and what is meant."""
    if found := INTERPOLATION.search(text):
        return (
            f"{quote(found[0])}, which nothing fills in",
            "the value itself; `extends` inherits whole files, and a shell fills in "
            '--set KEY="$NAME"',
        )
    if found := CONTROL.search(text):
        return f"the control character U+{ord(found[0]):04X} in the text", "remove it"
    if found := SURROGATE.search(text):
        return (
            f"half a character (U+{ord(found[0]):04X}) in the text",
            "UTF-8 text; an emoji as itself, or as both of its halves",
        )
    return None


def describe_type(key: str) -> str:
    """Say what a key takes: `a whole number (≥ 1) or auto`."""
    return _words(json_schema(key))


def describe_key(key: str) -> str:
    """Say what a key takes, and what the schema says below it."""
    said = " ".join(json_schema(key)["description"].split())
    return f"{describe_type(key)}: {said.rstrip('.')}"


def describe_meant(key: str, value: Any) -> str:
    """Say what a key takes, and how this wrong value becomes right where that is plain."""
    schema, meant = json_schema(key), describe_type(key)
    members = _choices(schema.get("items", {}))
    if isinstance(value, list) and members:
        wrong = [item for item in value if isinstance(item, str) and item not in members]
        near = list(dict.fromkeys(name for item in wrong for name in nearest(item, members)))
        return f"{meant}; did you mean {' and '.join(near)}?" if near else meant
    number = _read_number(value) if "number" in meant else None
    if number is not None and not math.isfinite(number):
        return f"{meant}; {shorten(str(value))} is not a finite number"
    if isinstance(value, float) and value.is_integer() and "whole number" in meant:
        return meant if abs(value) > WRITTEN_OUT else f"{meant}: write {value:.0f}"
    if not isinstance(value, str):
        return meant
    if meant.startswith("true") and (boolean := LOOKS_BOOLEAN.get(value.lower())):
        return f"{meant}: write {boolean}"
    if value in members:
        return f"{meant}: write [{value}]"
    if near := nearest(value, _choices(schema)):
        return f"{meant}; did you mean {near[0]}?"
    if number is not None:
        plain = value.replace("_", "").replace(",", "").strip()
        return f"{meant}: write {shorten(plain)}{' without quotes' if plain == value else ''}"
    return meant


def _read_number(value: Any) -> float | None:
    """Return the number that a value is, or that a text looks like; a comma counts as one of
    thousands only where it can be no decimal one.
    """
    if not isinstance(value, str):
        return value if isinstance(value, float) else None
    text = value.strip()
    try:
        return float(text.replace(",", "") if THOUSANDS.fullmatch(text) else text)
    except ValueError:
        return None


def _choices(schema: dict[str, Any]) -> list[str]:
    """Return the words of which a value may be one."""
    if "const" in schema:
        return [schema["const"]]
    return [
        *schema.get("enum", []),
        *(name for one in schema.get("anyOf", []) for name in _choices(one)),
    ]


def _words(schema: dict[str, Any]) -> str:
    """Say what a part of JSON Schema allows."""
    if "anyOf" in schema:
        # bool | Literal["auto"] reads best as one list of words
        return _either([word for one in schema["anyOf"] for word in _words(one).split(" or ")])
    if choices := _choices(schema):
        return _either(choices)
    if schema["type"] == "array":
        member = _words(schema["items"])
        members = member if _choices(schema["items"]) else _plural(member)
        return (
            f"a list of {schema['minItems']} {members}"
            if "minItems" in schema
            else f"a list of {members}"
        )
    if schema["type"] == "object":
        names = _words(schema["propertyNames"]) if "propertyNames" in schema else "names"
        values = schema["additionalProperties"]
        return f"a mapping of {names} to {'values' if values is True else _plural(_words(values))}"
    bounds = [f"{sign} {schema[name]:,}" for name, sign in BOUNDS.items() if name in schema]
    return TYPES[schema["type"]] + (f" ({', '.join(bounds)})" if bounds else "")


def _plural(words: str) -> str:
    """Return `numbers (≥ 0)` for `a number (≥ 0)`."""
    noun, space, bounds = words.removeprefix("a ").partition(" (")
    return f"{noun}s{space}{bounds}"


def _either(words: Sequence[str]) -> str:
    """Join words with commas and a last `or`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def nearest(name: str, candidates: Iterable[str], *, limit: int = 1) -> list[str]:
    """Return the candidates most like name, best first; none where all are too unlike."""
    # Only a mistake needs it: the import costs as much as reading seven files.
    from rapidfuzz import fuzz, process, utils

    found = process.extract(
        name,
        list(candidates),
        scorer=fuzz.ratio,
        processor=utils.default_process,
        score_cutoff=NEAR,
        limit=limit,
    )
    return [candidate for candidate, _, _ in found]


def suggest(key: str) -> tuple[str, list[str]]:
    """Say in words what an unknown dotted key may have meant; second: those keys or sections, if
    any is near.
    """
    section, _, name = key.rpartition(".")
    inside = schema_sections().get(section)
    if inside is None:
        if near := nearest(section, schema_sections()):
            return f"did you mean the section {near[0]}?", near
    elif near := nearest(name, inside) or _containing(name, inside):
        prefix = f"{section}." if section else ""
        return f"did you mean {' or '.join(near)}?", [prefix + found for found in near]
    last_names = {known.rpartition(".")[2]: known for known in reversed(schema_keys())}
    if near := [last_names[found] for found in nearest(name, last_names)]:
        return f"did you mean {near[0]}?", near
    what = f"{section} knows" if section and inside else "the sections are"
    return f"{what} {', '.join(inside or schema_sections()[''])}", []


def _containing(name: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidates that hold all words of name: `max_len` in `encoder_max_len`."""
    words = set(name.lower().split("_"))
    return [candidate for candidate in candidates if words <= set(candidate.lower().split("_"))]


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return one aligned line per problem, said once each, file by file and line by line."""
    from rich.cells import cell_len, set_cell_size

    unique = list(dict.fromkeys(map(_on_one_line, problems)))
    files = list(dict.fromkeys(problem.origin.file for problem in unique))
    ordered = sorted(
        unique,
        key=lambda p: (p.origin.file is None, files.index(p.origin.file), p.origin.line or 0),
    )
    place = max((cell_len(p.origin.text) for p in ordered), default=0)
    key = max((cell_len(p.key) for p in ordered), default=0)
    return [
        f"{set_cell_size(p.origin.text, place)}  {set_cell_size(p.key, key)}  {p.found} → {p.meant}"
        if p.key
        else f"{set_cell_size(p.origin.text, place)}  {p.found} → {p.meant}"
        for p in ordered
    ]


def _on_one_line(problem: Problem) -> Problem:
    origin = replace(problem.origin, text=visible(problem.origin.text))
    # A line of a .env that happens to be YAML has its secret behind the sign.
    name, sign, _ = problem.key.partition("=")
    key = shorten(visible(f"{name}{sign}…" if sign else name))
    return Problem(origin, key, visible(problem.found), visible(problem.meant))

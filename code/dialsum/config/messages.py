"""What is said of a config: problem lines, values and types of keys in plain words, near keys.

Must not know files or rules. The words come from the schema's annotations, so that they cannot fall
behind it.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from dialsum.config.schema import keys_in, schema_keys, schema_sections
from dialsum.config.yaml import Problem, dump_yaml_text
from dialsum.files import shorten
from dialsum.printable import visible

NEAR = 70.0
"""Likeness, 0-100, from which a name counts as a slip of another."""
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
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
            f"{_quote(found[0])}, which nothing fills in",
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


def show_value(value: Any) -> str:
    """Return a value on one line as it could stand in a YAML file, shortened for a message."""
    return shorten(show_whole(value))


def show_whole(value: Any) -> str:
    """Return a value on one line as it could stand in a YAML file."""
    if isinstance(value, str):
        written = dump_yaml_text([value]).removeprefix("- ").rstrip("\n")
        # Long or spaced text would be folded over lines: JSON's quotes mean the same in YAML.
        quoted = written != value and not written.startswith("'")
        return _quote(value) if quoted or "\n" in written else written
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(show_whole, value))}]"
    if isinstance(value, dict):
        parts = (f"{show_whole(key)}: {show_whole(item)}" for key, item in value.items())
        return f"{{{', '.join(parts)}}}"
    return repr(value)


def describe_found(value: Any) -> str:
    """Say what stands there, naming its kind where the reader could take it for another."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {shorten(_quote(value))}"
    return show_value(value)


def describe_type(field: FieldInfo) -> str:
    """Say what a key takes: `a whole number (≥ 1) or auto`."""
    return _words(field.annotation, field.metadata)


def describe_meant(field: FieldInfo, value: Any) -> str:
    """Say what a key takes, and how this wrong value becomes right where that is plain."""
    meant = describe_type(field)
    number = _read_number(value)
    if "number" in meant and number is not None and not math.isfinite(number):
        return f"{meant}; {shorten(str(value))} is not a finite number"
    members = _member_choices(field.annotation)
    if isinstance(value, list) and members:
        wrong = [item for item in value if isinstance(item, str) and item not in members]
        near = list(dict.fromkeys(name for item in wrong for name in nearest(item, members)))
        return f"{meant}; did you mean {' and '.join(near)}?" if near else meant
    if not isinstance(value, str):
        if isinstance(value, float) and value.is_integer() and "whole number" in meant:
            return meant if abs(value) > WRITTEN_OUT else f"{meant}: write {value:.0f}"
        return meant
    choices = [item for item in _choices(field.annotation) if isinstance(item, str)]
    boolean = LOOKS_BOOLEAN.get(value.lower())
    if boolean and meant.startswith("true"):
        return f"{meant}: write {boolean}"
    if value in members:
        return f"{meant}: write [{value}]"
    if near := nearest(value, choices):
        return f"{meant}; did you mean {near[0]}?"
    if "number" in meant and number is not None:
        plain = value.replace("_", "").replace(",", "").strip()
        return f"{meant}: write {shorten(plain)}{' without quotes' if plain == value else ''}"
    return meant


def _quote(text: str) -> str:
    """Return text in double quotes on one line, as JSON and YAML read it."""
    return visible(json.dumps(text, ensure_ascii=False))


def _read_number(value: Any) -> float | None:
    """Return the number that a value is, or that a text looks like; a comma counts as one of
    thousands only where it can be no decimal one.
    """
    if isinstance(value, float):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip()
    try:
        return float(text.replace(",", "") if THOUSANDS.fullmatch(text) else text)
    except ValueError:
        return None


def _choices(annotation: Any) -> list[Any]:
    """Return the literal values that an annotation allows."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [item for part in get_args(annotation) for item in _choices(part)]
    return []


def _member_choices(annotation: Any) -> list[str]:
    """Return the literal texts that the members of a list may be; none for any other type."""
    if get_origin(annotation) is not list:
        return []
    return [item for item in _choices(get_args(annotation)[0]) if isinstance(item, str)]


def _words(annotation: Any, metadata: Sequence[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*metadata, *arguments[1:]])
    if origin in (Union, types.UnionType):
        # bool | Literal["auto"] reads best as one list of words
        parts = [_words(part, ()) for part in arguments]
        return _either([word for part in parts for word in part.split(" or ")])
    if origin is Literal:
        return _either([str(item) for item in arguments])
    flat = [
        m for item in metadata for m in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    if origin is list:
        lengths = [m.max_length for m in flat if isinstance(m, MaxLen)]
        count = f"{lengths[0]} " if lengths and any(isinstance(m, MinLen) for m in flat) else ""
        member = _words(arguments[0], ()).removeprefix("a ")
        return f"a list of {count}{member}{'' if _choices(arguments[0]) else 's'}"
    if origin is dict:
        name = "names" if arguments[0] is str else _words(arguments[0], ())
        value = (
            "values" if arguments[1] is Any else f"{_words(arguments[1], ()).removeprefix('a ')}s"
        )
        return f"a mapping of {name} to {value}"
    base = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    word = "null" if annotation is type(None) else base.get(annotation, str(annotation))
    return " ".join([word, *_bounds(flat)])


def _bounds(metadata: Sequence[Any]) -> list[str]:
    """Return all bounds as one word in brackets."""
    bounds = [
        f"{sign} {getattr(item, kind.__name__.lower()):,}"
        for item in metadata
        for kind, sign in BOUNDS.items()
        if isinstance(item, kind)
    ]
    return [f"({', '.join(bounds)})"] if bounds else []


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
    if section and section not in schema_sections():
        if near := nearest(section, schema_sections()):
            return f"did you mean the section {near[0]}?", near
        inside, prefix = keys_in(""), ""
    else:
        inside, prefix = keys_in(section), f"{section}." if section else ""
        if near := nearest(name, inside) or _containing(name, inside):
            return f"did you mean {' or '.join(near)}?", [prefix + found for found in near]
    last_names = {known.rpartition(".")[2]: known for known in reversed(schema_keys())}
    if near := [last_names[found] for found in nearest(name, last_names)]:
        return f"did you mean {near[0]}?", near
    what = f"{section} knows" if prefix else "the sections are"
    return f"{what} {', '.join(inside)}", []


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

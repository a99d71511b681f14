"""The dotted keys of the schema, and the known key nearest to an unknown one.

Must not know files, nor values.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dialsum.config import schema

NEAR = 70.0
"""Likeness, 0-100, from which a name counts as a slip of another."""


@cache
def schema_keys() -> dict[str, FieldInfo]:
    """Return every key that holds a value, `training.learning_rate` -> its field, in the schema's
    order.
    """
    return {key: field for key, _, field in _walk(schema.Config) if not _is_section(field)}


@cache
def schema_sections() -> frozenset[str]:
    """Return the dotted names of all sections, `model` as well as `model.tiny`."""
    return frozenset(key for key, _, field in _walk(schema.Config) if _is_section(field))


@cache
def mapping_keys() -> frozenset[str]:
    """Return the keys whose value is itself a mapping, such as `training.lr_scheduler_kwargs`."""
    return frozenset(
        k for k, field in schema_keys().items() if get_origin(field.annotation) is dict
    )


@cache
def default_of(key: str) -> Any:
    """Return the schema's default of a key; PydanticUndefined where a value must be given."""
    return schema_keys()[key].get_default(call_default_factory=True)


def description(key: str) -> str:
    """Return what the schema says below a key, without its full stop."""
    owner = next(owner for name, owner, _ in _walk(schema.Config) if name == key)
    return _docstrings()[owner, key.rpartition(".")[2]].rstrip(".")


def keys_in(section: str) -> list[str]:
    """Return the names directly in a section ("" for the top level), subsections too."""
    prefix = f"{section}." if section else ""
    names = [*schema_keys(), *schema_sections()]
    inside = [name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)]
    return list(dict.fromkeys(inside))


def keys_under(name: str) -> list[str]:
    """Return every key in a section and its subsections ("": all there are), or the key itself."""
    prefix = f"{name}." if name else ""
    return [key for key in schema_keys() if key == name or key.startswith(prefix)]


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


@cache
def _docstrings() -> dict[tuple[str, str], str]:
    """Read the text below each field from the schema's source, by class and field.

    Only messages need it; pydantic's own way costs every start 17 ms.
    """
    texts: dict[tuple[str, str], str] = {}
    tree = ast.parse(inspect.getsource(schema))
    for item in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for line, below in pairwise(item.body):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = str(ast.literal_eval(below.value))
                texts[item.name, ast.unparse(line.target)] = " ".join(text.split())
    return texts


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """Give dotted name, class and field of everything in a section, subsections included."""
    for name, field in model.model_fields.items():
        yield prefix + name, model.__name__, field
        if _is_section(field):
            yield from _walk(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)

"""All that is wrong with one resolved config, found together: types, bounds, rules between keys.

Must not know how YAML is read, nor who wins between sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from dialsum.config.messages import describe_found, describe_meant, describe_type
from dialsum.config.resolve import Resolved
from dialsum.config.retry import RETRY_RULES
from dialsum.config.rules import MODEL_RULES
from dialsum.config.rules_adapters import ADAPTER_RULES
from dialsum.config.rules_effect import EFFECT_RULES
from dialsum.config.rules_schedule import SCHEDULE_RULES
from dialsum.config.schema import Config, description, schema_keys
from dialsum.config.sources import Source
from dialsum.config.statements import Statement
from dialsum.config.view import NotKnownError, Rule, View
from dialsum.config.yaml import Origin, Problem

RULES: tuple[Rule, ...] = (
    *MODEL_RULES,
    *ADAPTER_RULES,
    *SCHEDULE_RULES,
    *EFFECT_RULES,
    *RETRY_RULES,
)


def check(resolved: Resolved, *, open_keys: bool = False) -> tuple[Config | None, list[Problem]]:
    """Return the config, or None and every problem: a wrong value does not hide a broken rule.

    Args:
        open_keys: a key without a value is no problem.
    """
    config, faults = None, {}
    try:
        config = Config.model_validate(resolved.nested())
    except ValidationError as error:
        faults = _faulty_keys(error)
    problems = list(_explain_faults(faults, resolved, open_keys=open_keys))
    view = View(resolved, set(faults))
    for rule in RULES:
        with suppress(NotKnownError):
            problems.extend(rule(view))
    return (None if problems else config), problems


def check_source(source: Source) -> Iterator[Problem]:
    """Give each value that its key can never have, whatever is laid over it later."""
    for one in (*source.statements.overruled, *source.statements.said):
        # A part of a mapping is checked with the whole, which only an experiment has.
        if not one.part and (places := _faults_of(one.key, one.value)):
            yield from _explain_statement(one, places)


def _faults_of(key: str, value: Any) -> list[tuple[str | int, ...]]:
    """Return the places inside a key's value that do not fit, whatever else is missing."""
    tree = value
    for name in reversed(key.split(".")):
        tree = {name: tree}
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return _faulty_keys(error).get(key, [])
    return []


def _faulty_keys(error: ValidationError) -> dict[str, list[tuple[str | int, ...]]]:
    """Return each key with a fault: the places inside its value, none where it is missing."""
    faults: dict[str, list[tuple[str | int, ...]]] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        location = item["loc"]
        for length in range(len(location), 0, -1):
            key = ".".join(map(str, location[:length]))
            if key in schema_keys():
                places = faults.setdefault(key, [])
                if item["type"] != "missing":
                    places.append(location[length:])
                break
        else:
            # A whole section is absent: each key in it that has no default is missing.
            section = f"{'.'.join(map(str, location))}."
            for key, field in schema_keys().items():
                if key.startswith(section) and field.is_required():
                    faults.setdefault(key, [])
    return faults


def _explain_faults(
    faults: dict[str, list[tuple[str | int, ...]]], resolved: Resolved, *, open_keys: bool
) -> Iterator[Problem]:
    for key, places in faults.items():
        statement = resolved.stated.get(key)
        if statement is not None and places:
            yield from _explain_statement(statement, places)
        elif not (open_keys or key in resolved.unread or _meant_elsewhere(key, resolved.meant)):
            meant = f"{describe_type(schema_keys()[key])}: {description(key)}"
            yield Problem(Origin.at(resolved.path), key, "not given", meant)


def _explain_statement(
    statement: Statement, places: Sequence[tuple[str | int, ...]]
) -> Iterator[Problem]:
    value = statement.value
    found, meant = describe_found(value), describe_meant(schema_keys()[statement.key], value)
    for origin in _find_lines(statement, places):
        yield Problem(origin, statement.shown_key, found, meant)


def _meant_elsewhere(key: str, meant: set[str]) -> bool:
    """Say whether an unknown key or section was probably meant for this key."""
    return any(key == name or key.startswith(f"{name}.") for name in meant)


def _find_lines(statement: Statement, places: Sequence[tuple[str | int, ...]]) -> list[Origin]:
    """Return the lines of the wrong members of a list or mapping, else the line of the key."""
    parts = [part for inside in places for part in inside if part in statement.places]
    return list(dict.fromkeys(statement.places[part] for part in parts)) or [statement.origin]

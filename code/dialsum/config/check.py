"""All that is wrong with one resolved config, found together: types, bounds, rules between keys.

Must not know how YAML is read, nor who wins between sources.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dialsum.config.describe import describe_found, describe_meant, describe_type
from dialsum.config.keys import description, schema_keys
from dialsum.config.problems import Origin, Problem, problem_lines
from dialsum.config.resolve import Resolved
from dialsum.config.rules import MODEL_RULES
from dialsum.config.rules_adapters import ADAPTER_RULES
from dialsum.config.rules_effect import EFFECT_RULES
from dialsum.config.rules_schedule import SCHEDULE_RULES
from dialsum.config.schema import Config
from dialsum.config.sources import Source
from dialsum.config.statements import Statement
from dialsum.config.view import NotKnownError, Rule, View
from dialsum.errors import ConfigError

RULES: tuple[Rule, ...] = (*MODEL_RULES, *ADAPTER_RULES, *SCHEDULE_RULES, *EFFECT_RULES)


def check(resolved: Resolved) -> tuple[Config | None, list[Problem]]:
    """Return the config, or None and every problem: a wrong value does not hide a broken rule."""
    config, faults = None, {}
    try:
        config = Config.model_validate(resolved.nested())
    except ValidationError as error:
        faults = _faulty_keys(error)
    problems = list(_explain_faults(faults, resolved))
    view = View(resolved, set(faults))
    if not resolved.incomplete:
        for rule in RULES:
            try:
                problems.extend(rule(view))
            except NotKnownError:
                continue
    return (None if problems else config), problems


def check_conditions(overlay: Source) -> Iterator[Problem]:
    """Give each `when` of an overlay whose value the key can never have: such a case would never
    hold.
    """
    for case in overlay.cases:
        for asked in case.when.said:
            values = asked.value if isinstance(asked.value, list) else [asked.value]
            for value in values:
                tree: Any = value
                for name in reversed(asked.key.split(".")):
                    tree = {name: tree}
                if asked.key in _faults_of(tree):
                    field = schema_keys()[asked.key]
                    found, meant = describe_found(value), describe_meant(field, value)
                    yield Problem(asked.origin, f"when {asked.key}", found, meant)


def check_unique_names(paths: Sequence[Path]) -> None:
    """Raise ConfigError where two files of one batch have the same stem, by which their runs are
    named.
    """
    first: dict[str, Path] = {}
    problems = []
    for path in paths:
        # Folders of some systems do not tell case or the two ways of writing Hangul apart.
        name = unicodedata.normalize("NFC", path.stem).casefold()
        if name in first:
            here, there = Origin.at(path.absolute()), Origin.at(first[name].absolute())
            same = "given twice" if here.text == there.text else f"the same name as {there.text}"
            problems.append(Problem(here, "", same, "one file per name: runs are named by it"))
        first.setdefault(name, path)
    if problems:
        raise ConfigError(problem_lines(problems))


def _faults_of(tree: dict[str, Any]) -> set[str]:
    """Return the keys of a partial config whose values do not fit."""
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        return {key for key, (kind, _) in _faulty_keys(error).items() if kind != "missing"}
    return set()


def _faulty_keys(error: ValidationError) -> dict[str, tuple[str, tuple[str | int, ...]]]:
    """Return each key with a fault: its kind, and the place inside the value."""
    faults: dict[str, tuple[str, tuple[str | int, ...]]] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        location = item["loc"]
        for length in range(len(location), 0, -1):
            key = ".".join(map(str, location[:length]))
            if key in schema_keys():
                faults.setdefault(key, (item["type"], location[length:]))
                break
        else:
            # A whole section is absent: each key in it that has no default is missing.
            section = f"{'.'.join(map(str, location))}."
            for key, field in schema_keys().items():
                if key.startswith(section) and field.is_required():
                    faults.setdefault(key, ("missing", ()))
    return faults


def _explain_faults(
    faults: dict[str, tuple[str, tuple[str | int, ...]]], resolved: Resolved
) -> Iterator[Problem]:
    for key, (kind, inside) in faults.items():
        field = schema_keys()[key]
        statement = resolved.stated.get(key)
        if statement is not None and kind != "missing":
            value = statement.value
            found, meant = describe_found(value), describe_meant(field, value)
            yield Problem(_place(statement, inside), statement.shown_key, found, meant)
        elif not resolved.incomplete and not _meant_elsewhere(key, resolved.meant):
            meant = f"{describe_type(field)}: {description(key)}"
            yield Problem(Origin.at(resolved.path), key, "not given", meant)


def _meant_elsewhere(key: str, meant: set[str]) -> bool:
    """Say whether an unknown key or section was probably meant for this key."""
    return any(key == name or key.startswith(f"{name}.") for name in meant)


def _place(statement: Statement, inside: tuple[str | int, ...]) -> Origin:
    """Return the line of the wrong member of a list or mapping, else the line of the key."""
    for part in inside:
        if part in statement.lines and statement.origin.file is not None:
            return Origin.at(statement.origin.file, statement.lines[part])
    return statement.origin

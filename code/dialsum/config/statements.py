"""What one source (a file, an overlay's case, the command line) states: dotted keys and values.

Spellings are understood here and unknown keys found. Must not know other sources, precedence, or
whether a value fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialsum.config.describe import describe_found, show_value
from dialsum.config.keys import mapping_keys, schema_keys, schema_sections, suggest
from dialsum.config.problems import Origin, Problem
from dialsum.config.spellings import SECTIONS, normalise_value, understand
from dialsum.config.yaml_lines import Located


@dataclass(frozen=True)
class Statement:
    """One value for one key.

    Args:
        key: dotted key of the schema.
        part: name inside a key that holds a mapping (rouge1 in evaluation.target.minimum.rouge1),
            "" for all of it.
        written: the key as the source spells it.
        lines: line of each member where value is a mapping or list, by its name or index.
    """

    key: str
    part: str
    value: Any
    origin: Origin
    written: str
    lines: Mapping[str | int, int] = field(default_factory=dict)

    @property
    def shown_key(self) -> str:
        """The dotted key, with the source's own spelling beside it where that differs."""
        dotted = f"{self.key}.{self.part}" if self.part else self.key
        return dotted if self.written == dotted else f"{dotted} (written {self.written})"


@dataclass
class Statements:
    """All that one source states, and what is wrong with it."""

    said: list[Statement] = field(default_factory=list)
    claims: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    """Keys and sections that unknown ones were probably meant for: they are not missing as well."""

    def add(self, statement: Statement) -> None:
        """Take a statement; a second, different one for the same key is a problem."""
        for earlier in self.said:
            if (earlier.key, earlier.part) != (statement.key, statement.part):
                continue
            if repr(earlier.value) != repr(statement.value):
                place = "" if earlier.origin == statement.origin else f" in {earlier.origin.text}"
                found = (
                    f"{statement.written} {show_value(statement.value)}, but"
                    f" {earlier.written} {show_value(earlier.value)}{place}"
                )
                problem = Problem(statement.origin, statement.key, found, "keep one of the two")
                self.problems.append(problem)
            return
        self.said.append(statement)

    def overrule(self, statement: Statement) -> None:
        """Take a statement in the place of an earlier one for the same key, as commands do."""
        same = [old for old in self.said if (old.key, old.part) == (statement.key, statement.part)]
        for old in same:
            self.said.remove(old)
            if repr(old.value) != repr(statement.value):
                self.notes.append(
                    f"{statement.origin.text} {statement.written} {show_value(statement.value)}"
                    f" wins over {old.written} {show_value(old.value)}, given before it"
                )
        self.said.append(statement)


def interpret(tree: Located, source: Path | Origin) -> Statements:
    """Read the members of a mapping as statements; sections may be nested or dotted.

    Args:
        tree: a Located dict.
        source: the file in which it stands, or the origin of all of it (the command line).
    """
    result = Statements()
    _walk(tree, "", source, result=result)
    return result


def _origin(source: Path | Origin, member: Located) -> Origin:
    return source if isinstance(source, Origin) else Origin.at(source, member.line)


def _walk(tree: Located, section: str, source: Path | Origin, *, result: Statements) -> None:
    for name, member in tree.value.items():
        written = f"{section}.{name}" if section else name
        if written in schema_sections():
            _walk_section(written, written, member, source, result=result)
        elif written in SECTIONS and isinstance(member.value, dict):
            _walk_section(written, SECTIONS[written], member, source, result=result)
        elif known := _known(written):
            _state(known, member.plain(), written, member, source, result=result)
        else:
            _walk_spelling(written, member, source, result=result)


def _known(dotted: str) -> tuple[str, str] | None:
    """Split a dotted name into a key of the schema and a part of its mapping; None where it is
    unknown.
    """
    if dotted in schema_keys():
        return dotted, ""
    key, _, part = dotted.rpartition(".")
    return (key, part) if key in mapping_keys() else None


def _walk_section(
    written: str, section: str, member: Located, source: Path | Origin, *, result: Statements
) -> None:
    origin = _origin(source, member)
    if section != written:
        result.notes.append(f"{origin.text} section {written} -> {section}")
    if isinstance(member.value, dict):
        _walk(member, section, source, result=result)
    elif member.value is not None:
        # A section whose keys are all commented out reads as null, and says nothing.
        found = describe_found(member.plain())
        result.problems.append(
            Problem(origin, written, found, "a section: its keys below it, indented")
        )
        result.meant.add(section)


def _walk_spelling(
    written: str, member: Located, source: Path | Origin, *, result: Statements
) -> None:
    """Take a key that is not the schema's own: a known spelling, or a problem."""
    origin, value = _origin(source, member), member.plain()
    section, _, name = written.rpartition(".")
    in_known = not section or section in schema_sections()
    meaning = understand(section, name, value) if in_known else None
    if meaning is None:
        text, meant = suggest(written)
        result.meant.update(meant)
        found = "unknown section" if isinstance(value, dict) and not section else "unknown key"
        result.problems.append(Problem(origin, written, found, text))
        return
    if meaning.refused:
        result.problems.append(Problem(origin, written, describe_found(value), meaning.refused))
    for key, meant_value in meaning.settings.items():
        _state((key, ""), meant_value, written, member, source, result=result)
    if meaning.said:
        result.notes.append(f"{origin.text} {written} {show_value(value)}: {meaning.said}")
    if meaning.claim:
        result.claims.append(Statement(meaning.claim, "", value, origin, written))


def _state(
    known: tuple[str, str],
    value: Any,
    written: str,
    member: Located,
    source: Path | Origin,
    *,
    result: Statements,
) -> None:
    """Add a statement; a note says what was written where that is not what is set."""
    (key, part), origin, found = known, _origin(source, member), member.plain()
    value = normalise_value(key, value)
    dotted = f"{key}.{part}" if part else key
    if written != dotted or repr(value) != repr(found):
        result.notes.append(
            f"{origin.text} {written} {show_value(found)} -> {dotted} {show_value(value)}"
        )
    inner = member.value
    pairs = (
        inner.items()
        if isinstance(inner, dict)
        else enumerate(inner)
        if isinstance(inner, list)
        else ()
    )
    lines: dict[str | int, int] = {index: item.line for index, item in pairs}
    result.add(Statement(key, part, value, origin, written, lines))

"""What one source (a file, an overlay's case, the command line) states: dotted keys and values.

Spellings are understood here and unknown keys found. Must not know other sources, precedence, or
whether a value fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialsum.config.messages import describe_found, find_text_fault, show_value, suggest
from dialsum.config.schema import mapping_keys, schema_keys, schema_sections
from dialsum.config.spellings import SECTIONS, normalise_value, understand
from dialsum.config.yaml import Located, Origin, Problem


@dataclass(frozen=True)
class Statement:
    """One value for one key.

    Args:
        key: dotted key of the schema.
        part: name inside a key that holds a mapping (rouge1 in evaluation.target.minimum.rouge1),
            "" for all of it.
        written: the key as the source spells it.
        places: where each member stands where value is a mapping or list, by its name or index.
    """

    key: str
    part: str
    value: Any
    origin: Origin
    written: str
    places: Mapping[str | int, Origin] = field(default_factory=dict)

    @property
    def shown_key(self) -> str:
        """The dotted key, with the source's own spelling beside it where that differs."""
        dotted = f"{self.key}.{self.part}" if self.part else self.key
        return dotted if self.written == dotted else f"{dotted} (written {self.written})"


@dataclass
class Statements:
    """All that one source states, and what is wrong with it."""

    said: list[Statement] = field(default_factory=list)
    overruled: list[Statement] = field(default_factory=list)
    """Of those for one key on the command line all but the last."""
    claims: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    """Keys and sections that unknown ones were probably meant for: they are not missing as well."""
    unread: set[str] = field(default_factory=set)
    """Keys and sections ("": all) that are given here in a way that could not be read: nobody knows
    their values.
    """

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
            self.overruled.append(old)
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
    reading = _Reading(source)
    reading.walk(tree, "")
    return reading.result


@dataclass
class _Reading:
    """One source on its way to statements."""

    source: Path | Origin
    result: Statements = field(default_factory=Statements)

    def walk(self, tree: Located, section: str) -> None:
        """Take each member of a section ("" is the top level) for what it is."""
        if not tree.known:
            self.result.unread.add(section)
        for name, member in tree.value.items():
            written = f"{section}.{name}" if section else name
            if written in schema_sections():
                self._take_section(written, member, section=written)
            elif written in SECTIONS and (isinstance(member.value, dict) or not member.known):
                self._take_section(written, member, section=SECTIONS[written])
            elif known := _known(written):
                self._state(written, member, known=known, value=member.plain())
            else:
                self._take_spelling(written, member)

    def _origin(self, member: Located) -> Origin:
        return (
            self.source if isinstance(self.source, Origin) else Origin.at(self.source, member.line)
        )

    def _take_section(self, written: str, member: Located, *, section: str) -> None:
        origin = self._origin(member)
        if section != written:
            self.result.notes.append(f"{origin.text} section {written} -> {section}")
        if isinstance(member.value, dict):
            self.walk(member, section)
        elif not member.known:
            self.result.unread.add(section)
        elif member.value is not None:
            # A section whose keys are all commented out reads as null, and says nothing.
            found, meant = describe_found(member.plain()), "a section: its keys below it, indented"
            self.result.problems.append(Problem(origin, written, found, meant))
            self.result.meant.add(section)

    def _take_spelling(self, written: str, member: Located) -> None:
        """Take a key that is not the schema's own: a known spelling, or a problem."""
        origin, value, result = self._origin(member), member.plain(), self.result
        section, _, name = written.rpartition(".")
        in_known = not section or section in schema_sections()
        meaning = understand(section, name, value=value) if in_known else None
        if meaning is None:
            text, meant = suggest(written)
            result.meant.update(meant)
            what = "section" if isinstance(value, dict) and not section else "key"
            result.problems.append(Problem(origin, written, f"unknown {what}", text))
            return
        if not member.whole():
            result.unread.update(meaning.settings)
            return
        if meaning.refused:
            found = describe_found(value)
            result.problems.append(Problem(origin, written, found, meaning.refused))
        for key, meant_value in meaning.settings.items():
            self._state(written, member, known=(key, ""), value=meant_value)
        if meaning.said:
            result.notes.append(f"{origin.text} {written} {show_value(value)}: {meaning.said}")
        if meaning.claim:
            result.claims.append(Statement(meaning.claim, "", value, origin, written))

    def _state(self, written: str, member: Located, *, known: tuple[str, str], value: Any) -> None:
        """Add a statement; a note says what was written where that is not what is set."""
        (key, part), origin, found = known, self._origin(member), member.plain()
        if not member.whole():
            self.result.unread.add(key)
            return
        if faults := list(self._faulty_texts(written, member)):
            self.result.problems += faults
            self.result.unread.add(key)
            return
        value = normalise_value(key, value)
        dotted = f"{key}.{part}" if part else key
        if written != dotted or repr(value) != repr(found):
            note = f"{written} {show_value(found)} -> {dotted} {show_value(value)}"
            self.result.notes.append(f"{origin.text} {note}")
        statement = Statement(key, part, value, origin, written, self._places(member))
        self.result.add(statement)

    def _faulty_texts(self, written: str, member: Located) -> Iterator[Problem]:
        """Give each text in a value that no value can be."""
        if isinstance(member.value, dict | list):
            inner = member.value
            for part in inner.values() if isinstance(inner, dict) else inner:
                yield from self._faulty_texts(written, part)
        elif isinstance(member.value, str) and (fault := find_text_fault(member.value)):
            yield Problem(self._origin(member), written, *fault)

    def _places(self, member: Located) -> dict[str | int, Origin]:
        """Return where each part of a mapping or list stands."""
        inner = member.value
        if isinstance(inner, dict):
            return {name: self._origin(item) for name, item in inner.items()}
        parts = inner if isinstance(inner, list) else []
        return {index: self._origin(item) for index, item in enumerate(parts)}


def _known(dotted: str) -> tuple[str, str] | None:
    """Split a dotted name into a key and a part of its mapping; None where it is unknown."""
    if dotted in schema_keys():
        return dotted, ""
    key, _, part = dotted.rpartition(".")
    return (key, part) if key in mapping_keys() else None

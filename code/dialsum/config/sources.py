"""What each source of a config states, read on its own (a file, --set), and how the sources of one
experiment lie over one another.

Every value is held against the schema where it is read, whatever is laid over it later. Must not
know rules between keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dialsum.config.messages import (
    CLAIM,
    SECTIONS,
    describe_meant,
    find_text_fault,
    nearest,
    normalise_value,
    suggest,
    understand,
)
from dialsum.config.schema import (
    FILLED,
    UNFIT,
    Config,
    default_of,
    keys_under,
    mapping_keys,
    schema_keys,
    schema_sections,
)
from dialsum.config.yaml import (
    DEFAULT,
    SET,
    Origin,
    Problem,
    UnreadableError,
    Value,
    describe_found,
    read_document,
    read_yaml,
    show_value,
)
from dialsum.files import NotRegularError, TooLargeError
from dialsum.paths import PROJECT_ROOT, shown
from dialsum.text import shorten

SORTS = {type(None): "an empty file", str: "text without any `key: value`", list: "a list"}
"""What a file without a mapping is called."""


BRACES = str.maketrans("{}%", "   ")
"""What a prompt is filled in at is no slip there; a shell's $NAME is."""


@dataclass(frozen=True)
class Statement:
    """One value for one key.

    Args:
        key: dotted key of the schema.
        part: name inside a key that holds a mapping (rouge1 in evaluation.target.minimum.rouge1),
            "" for all of it.
        written: the key as the source spells it.
        rank: how late its source lies over the others.
        places: where each member stands where value is a mapping or list, by its name or index.
    """

    key: str
    part: str
    value: Any
    origin: Origin
    written: str
    rank: int = 0
    places: Mapping[str | int, Origin] = field(default_factory=dict)

    @property
    def shown_key(self) -> str:
        """The dotted key, with the source's own spelling beside it where that differs."""
        dotted = f"{self.key}.{self.part}" if self.part else self.key
        return dotted if self.written == dotted else f"{dotted} (written {self.written})"

    def find_faults(self) -> Iterator[Problem]:
        """Give what no run can have of the value, at the lines of wrong members if any."""
        value, path = self.value, tuple(self.key.split("."))
        texts = _texts(value)
        if self.key in FILLED:
            texts = (text.translate(BRACES) for text in texts)
        if odd := next(filter(None, map(find_text_fault, texts)), None):
            yield Problem(self.origin, self.written, *odd)
            return
        tree = {self.part: value} if self.part else value
        for name in reversed(path):
            tree = {name: tree}
        try:
            Config.model_validate(tree)
            return
        except ValidationError as error:
            # Other keys are missing, of course.
            faults = [item for item in error.errors() if item["loc"][: len(path)] == path]
        places = [self.places[name] for one in faults for name in one["loc"] if name in self.places]
        for fault in faults:
            found, meant = describe_found(value), describe_meant(self.key, value)
            if fault["type"] == UNFIT:
                found, meant = fault["ctx"]["found"], fault["ctx"]["meant"]
            for place in places or [self.origin]:
                yield Problem(place, self.shown_key, found, meant)


def _texts(value: Any) -> Iterator[str]:
    """Give every text inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _texts(member)


@dataclass
class Source:
    """One file as it stands, or the command line: what it states, and what is wrong with it."""

    file: Path | None = None
    statements: list[Statement] = field(default_factory=list)
    """Values that their keys can have."""
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    """Keys and sections that unknown ones were probably meant for: they are not missing as well."""
    unread: set[str] = field(default_factory=set)
    """Keys and sections ("": all) whose value is wrong, or could not be read: nobody knows it."""
    extends: Origin | None = None
    """The line that inherits."""
    base: Path | None = None
    """The file that it inherits from; None where that line names none."""
    complete_record: bool = False
    """`resolved: true`: every key is stated because a run wrote it down, also those without effect.
    """

    def read(self, tree: Value, section: str = "") -> None:
        """Take each member of a section ("": the whole source) for what it is; sections may be
        nested or dotted.
        """
        if not tree.known:
            self.unread.add(section)
        for name, member in tree.content.items():
            written = f"{section}.{name}" if section else name
            key, _, part = written.rpartition(".")
            if written in schema_sections():
                self._read_section(written, member, section=written)
            elif written in SECTIONS and (isinstance(member.content, dict) or not member.known):
                self._read_section(written, member, section=SECTIONS[written])
            elif written in schema_keys():
                self._state(written, member, key=written, value=member.plain())
            elif key in mapping_keys():
                self._state(written, member, key=key, part=part, value=member.plain())
            else:
                self._read_spelling(written, member)

    def _read_section(self, written: str, member: Value, *, section: str) -> None:
        if section != written:
            self.notes.append(f"{member.origin.text} section {written} -> {section}")
        if isinstance(member.content, dict):
            self.read(member, section)
        elif not member.known:
            self.unread.add(section)
        elif member.content is not None:
            # A section whose keys are all commented out reads as null, and says nothing.
            found, meant = describe_found(member.plain()), "a section: its keys below it, indented"
            self.problems.append(Problem(member.origin, written, found, meant))
            self.meant.add(section)

    def _read_spelling(self, written: str, member: Value) -> None:
        """Take a key that is not the schema's own: a known spelling, or a problem."""
        origin, value = member.origin, member.plain()
        section, _, name = written.rpartition(".")
        in_known = section in schema_sections()
        meaning = understand(section, name, value=value) if in_known else None
        if meaning is None:
            text, meant = suggest(written)
            self.meant.update(meant)
            what = "section" if isinstance(value, dict) and not section else "key"
            self.problems.append(Problem(origin, written, f"unknown {what}", text))
        elif not member.whole():
            self.unread.update(meaning.settings)
        elif meaning.refused:
            self.problems.append(Problem(origin, written, describe_found(value), meaning.refused))
        for key, meant_value in meaning.settings.items() if meaning else ():
            self._state(written, member, key=key, value=meant_value)
        if meaning and meaning.said and member.whole():
            self.notes.append(f"{origin.text} {written} {show_value(value)}: {meaning.said}")
            if name == CLAIM:
                self.statements.append(Statement(CLAIM, "", value, origin, written))

    def _state(self, written: str, member: Value, *, key: str, value: Any, part: str = "") -> None:
        """Add a statement; a note says what was written where that is not what is set."""
        if not member.whole():
            self.unread.add(key)
            return
        value, found, origin = normalise_value(key, value), member.plain(), member.origin
        places = {name: inner.origin for name, inner in member.members().items()}
        new = Statement(key, part, value, origin, written, places=places)
        if faults := list(new.find_faults()):
            self.problems += faults
            self.unread.add(key)
            return
        dotted = f"{key}.{part}" if part else key
        if written != dotted or repr(value) != repr(found):
            note = f"{written} {show_value(found)} -> {dotted} {show_value(value)}"
            self.notes.append(f"{origin.text} {note}")
        for old in self.statements:
            if (old.key, old.part) == (key, part):
                self._settle(old, new)
                return
        self.statements.append(new)

    def _settle(self, old: Statement, new: Statement) -> None:
        """Take one of two statements for one key: of a command line the later one wins."""
        this, other = (f"{one.written} {show_value(one.value)}" for one in (new, old))
        differ = repr(old.value) != repr(new.value)
        if self.file is None:
            self.statements[self.statements.index(old)] = new
            if differ:
                self.notes.append(f"{new.origin.text} {this} wins over {other}, given before it")
        elif differ:
            place = "" if old.origin == new.origin else f" in {old.origin.text}"
            found = f"{this}, but {other}{place}"
            self.problems.append(Problem(new.origin, new.key, found, "keep one of the two"))


def absolute(path: Path) -> Path:
    """Return path whole and without `..`; links stay, because a run is named as its file is."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow the links)


def read_source(file: Path, *, named_by: Origin | None = None) -> Source:
    """Read one file.

    Args:
        file: absolute path.
        named_by: the line that names it, where another file does.

    Raises:
        UnreadableError: there is no such file, no YAML in it, or no mapping.
    """
    try:
        tree, problems = read_yaml(file)
    except OSError as error:
        raise UnreadableError(_explain_missing(file, error, named_by=named_by)) from error
    if not isinstance(tree.content, dict):
        # Not quoted: what is no config may be anything, secrets too.
        found = SORTS.get(type(tree.content), "one number")
        meant = "sections such as `training:`, usually after `extends: ../base_config.yaml`"
        instead = [Problem(tree.origin, "", found, meant)] if tree.known else []
        raise UnreadableError(*problems, *instead)
    members = dict(tree.content)
    source = Source(file, problems=problems)
    resolved, extends = members.pop("resolved", None), members.pop("extends", None)
    if resolved and resolved.known:
        source.complete_record = resolved.content is True
        if not source.complete_record:
            meant = "true, as a run writes it into its resolved_config.yaml"
            found = describe_found(resolved.plain())
            problems.append(Problem(resolved.origin, "resolved", found, meant))
    if extends:
        source.extends = extends.origin
        if isinstance(extends.content, str) and extends.content.strip():
            source.base = absolute(file.parent / extends.content)
        elif extends.whole():
            found, meant = describe_found(extends.plain()), "one file name, relative to this file"
            problems.append(Problem(extends.origin, "extends", found, meant))
    source.read(replace(tree, content=members))
    return source


def read_overrides(overrides: Sequence[str]) -> Source:
    """Read the values of --set, each `key=value`; of two for one key the later one wins, said."""
    source = Source()
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            meant = "key=value, such as training.learning_rate=3e-5"
            source.problems.append(Problem(SET, "", f'"{shorten(text)}"', meant))
        else:
            source.read(Value({key: _read_value(value)}, SET))
    return source


def _read_value(text: str) -> Value:
    """Read a value of the command line as YAML where it is a scalar or in brackets, else as the
    text it is: `요약: ` would be a mapping, `- x` a list.
    """
    try:
        tree, problems = read_document(text, None)
    except UnreadableError:
        return Value(text, SET)
    start = text.lstrip()[:1]
    brackets = start in ("[", "{") and isinstance(tree.content, list | dict)
    quoted = start in ('"', "'") and isinstance(tree.content, str)
    plain = not isinstance(tree.content, list | dict | str) and (not text or text.strip())
    return tree if (brackets or quoted or plain) and not problems else Value(text, SET)


def _explain_missing(file: Path, error: OSError, *, named_by: Origin | None) -> Problem:
    """Say why a file cannot be read, with the names of files that may have been meant."""
    what = f"{shown(file)} " if named_by else ""

    def say(found: str, meant: str) -> Problem:
        return Problem(
            named_by or Origin.at(file), "extends" if named_by else "", what + found, meant
        )

    if file.is_dir():
        inside = ", ".join(sorted(path.name for path in file.glob("*.yaml")))
        return say("is a folder", f"one file in it: {inside}" if inside else "a YAML file")
    if isinstance(error, NotRegularError | TooLargeError):
        return say(f"{error.strerror}", "a YAML file")
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return say(f"cannot be read: {error.strerror}", "check its permissions")
    beside = sorted(path for path in file.parent.glob("*.yaml") if not path.name.startswith("."))
    ours = sorted((PROJECT_ROOT / "config").rglob("*.yaml"))
    by_stem = {path.stem: path for path in [*ours, *beside]}
    if near := nearest(re.sub(r"\.ya?ml$", "", file.name), by_stem, limit=3):
        # What a file names is looked for beside that file, so that only a whole path fits at once.
        name = str if named_by and named_by.file else shown
        meant = f"did you mean {' or '.join(name(by_stem[stem]) for stem in near)}?"
    elif beside:
        meant = f"the files there are {', '.join(path.name for path in beside)}"
    else:
        meant = "no YAML file lies there; the experiments are in config/experiments"
    return say("no such file", meant)


@dataclass
class Resolved:
    """The winning statement of every stated key of one experiment.

    Args:
        path: the experiment's file.
        complete_record: every key is stated because a run wrote it down.
        unread: keys whose value nobody knows.
    """

    path: Path
    complete_record: bool = False
    stated: dict[str, Statement] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)

    def lay(self, source: Source, rank: int) -> None:
        """Lay a source over what there is; rank grows with each source: the later ones win."""
        for key in {key for name in source.unread for key in keys_under(name)}:
            self.stated.pop(key, None)
            self.unread.add(key)
        for new in source.statements:
            if new.part:
                old = self.stated.get(new.key)
                before = old.value if old else default_of(new.key)
                places = {**(old.places if old else {}), new.part: new.origin}
                value = {**before, new.part: new.value}
                new = replace(new, part="", value=value, places=places)
            else:
                self.unread.discard(new.key)
            self.stated[new.key] = replace(new, rank=rank)
        self.notes += source.notes
        self.meant |= source.meant
        # A record that a run wrote stays one under other values: those state no key without effect
        # either.
        self.complete_record |= source.complete_record

    def value(self, key: str) -> Any:
        """Return a key's value, stated or by default; PydanticUndefined where one is required."""
        return self.stated[key].value if key in self.stated else default_of(key)

    def origin(self, key: str) -> Origin:
        """Return where a key's value stands."""
        return self.stated[key].origin if key in self.stated else DEFAULT

    def rank(self, key: str) -> int:
        """Return how late a key was stated: 0 by default, more with each source over another."""
        return self.stated[key].rank if key in self.stated else 0

"""Config files to checked configs with the origin of each value, or every problem at once.

The order in which sources win: the schema's default, the files that `extends` names, the
experiment's own file, overlays, --set. Must not know what a config is used for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from dialsum.config.check import check, check_source
from dialsum.config.messages import problem_lines, show_whole
from dialsum.config.resolve import Resolved, resolve
from dialsum.config.rules_effect import find_silent, note_silenced
from dialsum.config.schema import Config, schema_keys
from dialsum.config.sources import Source, UnreadableError, absolute, read_overrides, read_source
from dialsum.config.statements import Statement, Statements
from dialsum.config.yaml import Origin, Problem, dump_yaml_text
from dialsum.errors import ConfigError
from dialsum.paths import find_name_fault, shown
from dialsum.text_table import align

FITTED = (
    "training.dataloader_num_workers",
    "training.gradient_checkpointing",
    "training.per_device_eval_batch_size",
    "training.tf32",
)
"""What fits a run to its machine and changes none of its results: `auto` there is no value of the
experiment's own.
"""


@dataclass(frozen=True)
class Replaced:
    """A key whose value an overlay changed: dotted key, value without and with the overlay, the
    overlay's line.
    """

    key: str
    original: Any
    value: Any
    origin: Origin


@dataclass(frozen=True)
class LoadedConfig:
    """One experiment as it will run.

    Args:
        path: the experiment's file, absolute.
        config: the values.
        origins: where each dotted key's value was written.
        notes: what was understood as something else, with file and line.
        replaced: what overlays put in the place of values that would have had an effect.
        own_epochs: num_train_epochs as the experiment's files alone state it, if they do.
    """

    path: Path
    config: Config
    origins: dict[str, Origin]
    notes: list[str]
    replaced: list[Replaced] = field(default_factory=list)
    own_epochs: float | None = None

    @property
    def name(self) -> str:
        """The file's stem, by which its run is named."""
        return self.path.stem

    @property
    def sha256(self) -> str:
        """Hash of all values, wherever they were written: equal for equal runs."""
        values = json.dumps(self.config.model_dump(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(values.encode()).hexdigest()

    def changed(self, source: Source) -> LoadedConfig:
        """Return the config with other values laid over it; no file is read again.

        Raises ConfigError where they do not fit.
        """
        values = self.config.model_dump()
        # Every key is stated, as in a record, so that one without effect is no mistake.
        resolved = Resolved(self.path, complete_record=True)
        resolved.apply(
            Statements(
                said=[
                    Statement(key, "", reduce(getitem, key.split("."), values), origin, key)
                    for key, origin in self.origins.items()
                ]
            ),
            1,
        )
        resolved.apply(source.statements, 2)
        config, problems = check(resolved)
        if config is None:
            raise ConfigError(problem_lines(problems))
        origins = {key: resolved.origin(key) for key in schema_keys()}
        return replace(self, config=config, origins=origins, notes=[*self.notes, *resolved.notes])

    def explain(self, *, checkpoint: Sequence[str] = ()) -> str:
        """Return all values in the schema's order, each with its origin, then what was understood.

        Args:
            checkpoint: what the checkpoint's own files ask for beside them, as lines.
        """
        values = self.config.model_dump()
        rows = [
            (key, show_whole(reduce(getitem, key.split("."), values)), origin.text)
            for key, origin in self.origins.items()
        ]
        lines = [f"{self.name}  {shown(self.path)}"]
        section = ""
        for (key, *_), line in zip(rows, align(rows, left=range(3)), strict=True):
            if key.partition(".")[0] != section:
                lines.append("")
                section = key.partition(".")[0]
            lines.append(line)
        if self.notes:
            lines += ["", "understood:", *(f"  {note}" for note in self.notes)]
        if checkpoint:
            lines += ["", *checkpoint]
        return "\n".join([*lines, "", f"sha256 of these values: {self.sha256}"])

    def to_record(self) -> dict[str, Any]:
        """Return what a run of it needs, as plain data."""
        origins = {
            key: [origin.text, str(origin.file) if origin.file else None, origin.line]
            for key, origin in self.origins.items()
        }
        return {
            "file": str(self.path),
            "config": self.config.model_dump(),
            "origins": origins,
            "notes": self.notes,
        }

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> LoadedConfig:
        """Read what to_record wrote; ValueError, KeyError, TypeError where it is something else."""
        origins = {
            key: Origin(Path(file) if file else None, line, text)
            for key, (text, file, line) in content["origins"].items()
        }
        config = Config.model_validate(content["config"])
        return cls(Path(content["file"]), config, origins, content["notes"])


def load_configs(
    paths: Sequence[Path], *, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()
) -> list[LoadedConfig]:
    """Load experiments in the order given.

    Args:
        paths: their YAML files.
        overrides: `key=value` each, which win over every file.
        overlays: YAML files laid over every experiment, each with what it extends, the last one
            on top.

    Raises ConfigError with every problem of every file.
    """
    library = _Library()
    over = [
        one
        for path in overlays
        if (source := library.get(path))
        for one in library.chain(source)[0]
    ]
    command_line = read_overrides(overrides)
    library.problems += command_line.statements.problems
    loaded = [
        one
        for path in paths
        if (one := _load(path, library, overlays=over, overrides=command_line))
    ]
    for source in (*library.sources.values(), command_line):
        library.add_new(check_source(source))
    if library.problems:
        raise ConfigError(problem_lines(library.problems))
    return loaded


def load_config(
    path: Path, *, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()
) -> LoadedConfig:
    """Load one experiment; as load_configs."""
    return load_configs([path], overrides=overrides, overlays=overlays)[0]


def dump_yaml(config: Config, *, remarks: Sequence[str] = ()) -> str:
    """Return every value as a YAML file that loads to the same config.

    Args:
        remarks: lines that stand above as comments.
    """
    head = (
        "# Every value of one run, written by it. It can be run again as it stands.\n"
        + "".join(f"# {remark}\n" for remark in remarks)
        + "resolved: true  # all keys are stated, so one without effect here is no mistake\n"
    )
    return head + dump_yaml_text(config.model_dump())


@dataclass
class _Library:
    """The files of one call, each read once, and all that is wrong with any of them."""

    sources: dict[Path, Source] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def get(self, path: Path, *, named_by: Origin | None = None) -> Source | None:
        """Return a file's source; None, and its problems are taken, where it cannot be read."""
        path = absolute(path)
        if path not in self.sources:
            try:
                self.sources[path] = read_source(path, named_by=named_by)
            except UnreadableError as error:
                # Not kept: each line that names a missing file is a problem of its own.
                self.problems += error.problems
                return None
            self.problems += self.sources[path].statements.problems
        return self.sources[path]

    def add_new(self, problems: Iterable[Problem]) -> None:
        """Take problems, but none of a line and key that has one already."""
        known = {_place(problem) for problem in self.problems}
        self.problems += [one for one in problems if _place(one) not in known]

    def chain(self, source: Source) -> tuple[list[Source], bool]:
        """Return a file's source with all that it inherits, the last base first; and whether all
        could be read.
        """
        chain, seen = [source], [source.file]
        while source.extends is not None:
            if source.base is None:
                return chain, False
            if source.base in seen:
                circle = " → ".join(shown(file) for file in [*seen, source.base] if file)
                meant = "remove one `extends`"
                self.problems.append(
                    Problem(source.extends, "extends", f"a circle: {circle}", meant)
                )
                return chain, False
            base = self.get(source.base, named_by=source.extends)
            if base is None:
                return chain, False
            chain.insert(0, base)
            seen.append(base.file)
            source = base
        return chain, True


def _place(problem: Problem) -> tuple[Origin, str]:
    """Return where a problem is: its line, and its key without another spelling."""
    return problem.origin, problem.key.partition(" (written ")[0]


def _load(
    path: Path, library: _Library, *, overlays: Sequence[Source], overrides: Source
) -> LoadedConfig | None:
    """Load one file; None where anything is wrong, which the library then holds."""
    own = library.get(path)
    if fault := find_name_fault(path.stem):
        found = f"{fault}: no name for the folder of its run"
        library.problems.append(Problem(Origin.at(path), "", found, "rename the file"))
    if own is None:
        return None
    chain, complete = library.chain(own)
    file = absolute(path)
    files = resolve(file, chain, complete=complete)
    resolved = resolve(file, chain, overlays=overlays, overrides=overrides, complete=complete)
    config, problems = check(resolved)
    library.problems += problems
    if overlays:
        # What an overlay puts right here is still wrong in the file. It may well leave keys open
        # that only an overlay gives.
        library.add_new(check(files, open_keys=True)[1])
    if config is None:
        return None
    replaced: list[Replaced] = []
    if overlays:
        bare = resolve(file, chain, overrides=overrides)
        silent = find_silent(bare)
        replaced = [one for one in _replaced_by_overlays(bare, resolved) if one.key not in silent]
    return LoadedConfig(
        path=file,
        config=config,
        origins={key: resolved.origin(key) for key in schema_keys()},
        notes=_notes(resolved, files=files),
        replaced=replaced,
        own_epochs=files.stated["training.num_train_epochs"].value
        if "training.num_train_epochs" in files.stated
        else None,
    )


def _notes(resolved: Resolved, *, files: Resolved) -> list[str]:
    """Return what the sources' spellings were taken for, and what rules over what."""
    notes = list(resolved.notes)
    if resolved.value("model.trust_remote_code") is True:
        notes.append(
            f"WARNING: {resolved.origin('model.trust_remote_code').text} "
            "model.trust_remote_code: true: Python code that comes with "
            f"{resolved.value('model.checkpoint')} will run as you, with all your files and keys; "
            "leave it out unless you have read that code"
        )
    steps = resolved.value("training.max_steps")
    if steps is not None and "training.num_train_epochs" in resolved.stated:
        place = resolved.origin("training.max_steps").text
        epochs = resolved.value("training.num_train_epochs")
        notes.append(f"{place} max_steps {steps} rules over num_train_epochs {epochs:g}")
    return list(dict.fromkeys([*notes, *note_silenced(resolved, files=files)]))


def _replaced_by_overlays(without: Resolved, result: Resolved) -> Iterator[Replaced]:
    """Give each key whose value differs from the same config without overlays."""
    for key in schema_keys():
        before, after = without.value(key), result.value(key)
        if before == "auto" and key in FITTED:
            continue
        if repr(before) != repr(after):
            original = None if before is PydanticUndefined else before
            yield Replaced(key, original, after, result.origin(key))

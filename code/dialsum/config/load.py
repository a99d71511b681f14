"""Config files to checked configs with the origin of each value, or every problem at once.

The order in which sources win: the schema's default, the files that `extends` names, the
experiment's own file, overlays, --set. Must not know what a config is used for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from dialsum.config.messages import describe_key, problem_lines
from dialsum.config.rules import SWITCHES, find_conflicts, known_values, note_silenced
from dialsum.config.schema import Config, schema_keys
from dialsum.config.sources import (
    Resolved,
    Source,
    Statement,
    absolute,
    read_overrides,
    read_source,
)
from dialsum.config.yaml import (
    DEFAULT,
    Origin,
    Problem,
    UnreadableError,
    dump_yaml_text,
    show_whole,
)
from dialsum.errors import ConfigError
from dialsum.paths import find_name_fault, shown
from dialsum.text import align

FITTED = (
    "training.dataloader_num_workers",
    "training.gradient_checkpointing",
    "training.per_device_eval_batch_size",
    "training.tf32",
)
"""What fits a run to its machine and changes none of its results: `auto` there is no value of the
experiment's own.
"""


WITHOUT_OUTCOME: dict[str, Any] = {
    "general": {"label", "expected_minutes", "next"},
    "evaluation": {"target"},
    "tracking": True,
    "batch": True,
}
"""Sections and keys that decide nothing of what a run comes to."""


def _hash(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
        return _hash(self.config.model_dump())

    @property
    def outcome_sha256(self) -> str:
        """Hash of the values that decide what a run comes to: who watches it, how it is called and
        what the queue does around it may change, and it is the same run still."""
        return _hash(self.config.model_dump(exclude=WITHOUT_OUTCOME))

    @property
    def work_sha256(self) -> str:
        """Hash of the values that decide how long a run takes; its checkpoint's commit does not."""
        values = self.config.model_dump(exclude=WITHOUT_OUTCOME | {"model": {"revision"}})
        return _hash({**values, "gpus": self.config.batch.gpus_per_experiment})

    def value(self, key: str) -> Any:
        """Return the value of a dotted key."""
        return reduce(getattr, key.split("."), self.config)

    def with_model(self, origin: Origin, **values: Any) -> LoadedConfig:
        """Return it with other values in the section `model`, which are known to be fit."""
        model = self.config.model.model_copy(update=values)
        config = self.config.model_copy(update={"model": model})
        origins = self.origins | {f"model.{key}": origin for key in values}
        return replace(self, config=config, origins=origins)

    def changed(self, source: Source) -> LoadedConfig:
        """Return the config with other values laid over it; no file is read again.

        Raises:
            ConfigError: they do not fit.
        """
        # Every key is stated, as in a record, so that one without effect is no mistake.
        own = [Statement(key, "", self.value(key), at, key) for key, at in self.origins.items()]
        resolved = Resolved(self.path, complete_record=True)
        resolved.lay(Source(statements=own), 1)
        resolved.lay(source, 2)
        config, problems = _check(resolved)
        problems += [fault for one in source.statements for fault in one.find_faults()]
        if config is None or problems:
            raise ConfigError(problem_lines(problems))
        origins = {key: resolved.origin(key) for key in schema_keys()}
        return replace(self, config=config, origins=origins, notes=[*self.notes, *resolved.notes])

    def explain(self, *, checkpoint: Sequence[str] = ()) -> str:
        """Return all values in the schema's order, each with its origin, then what was understood.

        Args:
            checkpoint: what the checkpoint's own files ask for beside them, as lines.
        """
        rows = [(key, show_whole(self.value(key)), at.text) for key, at in self.origins.items()]
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

    Raises:
        ConfigError: with every problem of every file.
    """
    library = _Library()
    over = [one for path in overlays for one in library.chain(path)[0]]
    command_line = read_overrides(overrides)
    library.problems += command_line.problems
    loaded = [_load(path, library, overlays=over, overrides=command_line) for path in paths]
    if library.problems:
        raise ConfigError(problem_lines(library.problems))
    return [one for one in loaded if one]


def load_config(
    path: Path, *, overrides: Sequence[str] = (), overlays: Sequence[Path] = ()
) -> LoadedConfig:
    """Load one experiment; as load_configs."""
    return load_configs([path], overrides=overrides, overlays=overlays)[0]


STAND_INS: dict[str, Any] = {
    "tokenizer.encoder_max_len": 512,
    "tokenizer.decoder_max_len": 128,
    "training.learning_rate": 1e-4,
    "training.num_train_epochs": 1,
    "training.per_device_train_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
    "training.lr_scheduler_type": "linear",
    "training.eval_steps": 100,
    "qlora.use_qlora": False,
}
"""What stands for a required value that is absent or wrong while what is beside it is looked at."""


def load_without_wrong(
    path: Path, *, overrides: Sequence[str], overlays: Sequence[Path]
) -> LoadedConfig | None:
    """Load an experiment without what is wrong in it, to look at what is beside that; never to run.

    Returns:
        None where a file cannot be read, or no checkpoint is named.
    """
    library, file = _Library(), absolute(path)
    over = [one for overlay in overlays for one in library.chain(overlay)[0]]
    chain, _ = library.chain(file)  # without what it extends, where that cannot be read
    if file not in library.sources:
        return None
    # Every key may be stated here, with or without an effect.
    resolved = Resolved(file, complete_record=True)
    for rank, source in enumerate([*chain, *over, read_overrides(overrides)], start=1):
        # What is wrong leaves what it would have replaced.
        resolved.lay(replace(source, unread=set()), rank)
    for key in schema_keys():
        if resolved.value(key) is PydanticUndefined:
            if key not in STAND_INS:
                return None
            resolved.lay(Source(statements=[Statement(key, "", STAND_INS[key], DEFAULT, key)]), 0)
    for key, *_ in find_conflicts(known_values(resolved), resolved):
        resolved.stated.pop(key, None)
        if key in STAND_INS:
            resolved.lay(Source(statements=[Statement(key, "", STAND_INS[key], DEFAULT, key)]), 0)
    config, _ = _check(resolved)
    if config is None:
        return None
    origins = {key: resolved.origin(key) for key in schema_keys()}
    return LoadedConfig(file, config, origins, notes=[])


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

    def chain(self, path: Path) -> tuple[list[Source], bool]:
        """Return a file's source with all that it inherits, the last base first; and whether all
        could be read.
        """
        chain: list[Source] = []
        following: Path | None = absolute(path)
        named_by: Origin | None = None
        while following is not None:
            seen = [source.file for source in reversed(chain)]
            if named_by and following in seen:
                circle = " → ".join(shown(file) for file in [*seen, following] if file)
                meant = "remove one `extends`"
                self.problems.append(Problem(named_by, "extends", f"a circle: {circle}", meant))
                return chain, False
            if following not in self.sources:
                try:
                    source = self.sources[following] = read_source(following, named_by=named_by)
                except UnreadableError as error:
                    # Not kept: each line that names a missing file is a problem of its own.
                    self.problems += error.problems
                    return chain, False
                self.problems += source.problems
            source = self.sources[following]
            chain.insert(0, source)
            following, named_by = source.base, source.extends
        return chain, named_by is None


def _load(
    path: Path, library: _Library, *, overlays: Sequence[Source], overrides: Source
) -> LoadedConfig | None:
    """Load one file; None where anything is wrong, which the library then holds."""
    if fault := find_name_fault(path.stem):
        found = f"{fault}: no name for the folder of its run"
        library.problems.append(Problem(Origin.at(path), "", found, "rename the file"))
    file = absolute(path)
    chain, complete = library.chain(file)
    if file not in library.sources:
        return None

    def resolve(*, overlays: Sequence[Source] = (), overrides: Sequence[Source] = ()) -> Resolved:
        """Lay the sources over one another: files from the last base on, overlays, --set."""
        resolved = Resolved(file, unread=set() if complete else set(schema_keys()))
        for rank, source in enumerate([*chain, *overlays, *overrides], start=1):
            resolved.lay(source, rank)
        return resolved

    files, resolved = resolve(), resolve(overlays=overlays, overrides=[overrides])
    config, problems = _check(resolved)
    library.problems += problems
    if overlays:
        # What an overlay puts right here is still wrong in the file. It may well leave keys open
        # that only an overlay gives.
        known = {(problem.origin, problem.key) for problem in library.problems}
        _, problems = _check(files, open_keys=True)
        library.problems += [one for one in problems if (one.origin, one.key) not in known]
    if config is None:
        return None
    notes = list(resolved.notes)
    if config.model.trust_remote_code:
        notes.append(
            f"WARNING: {resolved.origin('model.trust_remote_code').text} "
            "model.trust_remote_code: true: Python code that comes with "
            f"{config.model.checkpoint} will run as you, with all your files and keys; leave it "
            "out unless you have read that code"
        )
    steps = config.training.max_steps
    if steps is not None and "training.num_train_epochs" in resolved.stated:
        place = resolved.origin("training.max_steps").text
        epochs = config.training.num_train_epochs
        notes.append(f"{place} max_steps {steps} rules over num_train_epochs {epochs:g}")
    notes += note_silenced(resolved, files=files)
    replaced = []
    if overlays:
        without = resolve(overrides=[overrides])
        silent = {key for one in SWITCHES if one.is_off(without) for key in one.silenced()}
        for key in schema_keys():
            before, after = without.value(key), resolved.value(key)
            if key in silent or repr(before) == repr(after) or (before == "auto" and key in FITTED):
                continue
            original = None if before is PydanticUndefined else before
            replaced.append(Replaced(key, original, after, resolved.origin(key)))
    own_epochs = files.stated.get("training.num_train_epochs")
    return LoadedConfig(
        path=file,
        config=config,
        origins={key: resolved.origin(key) for key in schema_keys()},
        notes=list(dict.fromkeys(notes)),
        replaced=replaced,
        own_epochs=own_epochs.value if own_epochs else None,
    )


def _check(resolved: Resolved, *, open_keys: bool = False) -> tuple[Config | None, list[Problem]]:
    """Return the config, or None and what is missing or does not fit together.

    Args:
        open_keys: a key without a value is no problem.
    """
    path = resolved.path
    missing = [key for key in schema_keys() if resolved.value(key) is PydanticUndefined]
    problems = [
        Problem(Origin.at(path), key, "not given", describe_key(key))
        for key in missing
        if not (open_keys or key in resolved.unread)
        # What an unknown key or section was probably meant for is not missing as well.
        if not any(key == name or key.startswith(f"{name}.") for name in resolved.meant)
    ]
    known = known_values(resolved)
    for key, found, meant in find_conflicts(known, resolved):
        stated = resolved.stated.get(key)
        origin = stated.origin if stated else Origin.at(path)
        if origin.file != path:
            # A line that several experiments share is wrong for this one.
            found = f"in {path.stem}: {found}"
        problems.append(Problem(origin, stated.shown_key if stated else key, found, meant))
    if problems or missing or resolved.unread:
        return None, problems
    return Config.model_validate(known.model_dump(warnings=False)), []

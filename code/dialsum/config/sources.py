"""The sources of a config, each read on its own: files and --set.

Must not know which source wins, nor whether a value fits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dialsum.config.messages import describe_found, nearest
from dialsum.config.statements import Statements, interpret
from dialsum.config.yaml import SET, Located, Origin, Problem, YamlError, parse_yaml, read_yaml
from dialsum.files import NotRegularError, TooLargeError, shorten
from dialsum.paths import PROJECT_ROOT, shown

SORTS = {type(None): "an empty file", str: "text without any `key: value`", list: "a list"}
"""What a file without a mapping is called."""


@dataclass
class Source:
    """One file as it stands, or the command line."""

    file: Path | None
    statements: Statements
    extends: Origin | None = None
    """The line that inherits."""
    base: Path | None = None
    """The file that it inherits from; None where that line names none."""
    complete_record: bool = False
    """`resolved: true`: every key is stated because a run wrote it down, also those without effect.
    """


class UnreadableError(Exception):
    """A source that could not be read at all, with the reasons."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.found for problem in problems))


def absolute(path: Path) -> Path:
    """Return path whole and without `..`; links stay, because a run is named as its file is."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow the links)


def read_source(file: Path, *, named_by: Origin | None = None) -> Source:
    """Read one file.

    Args:
        file: absolute path.
        named_by: the line that names it, where another file does.

    Raises UnreadableError where there is no such file, no YAML in it, or no mapping.
    """
    try:
        document = read_yaml(file)
    except YamlError as error:
        raise UnreadableError(error.problems) from error
    except OSError as error:
        raise UnreadableError([_explain_missing(file, error, named_by=named_by)]) from error
    tree, problems = document.tree, document.problems
    if not isinstance(tree.value, dict):
        # Not quoted: what is no config may be anything, secrets too.
        found = SORTS.get(type(tree.value), "one number")
        meant = "sections such as `training:`, usually after `extends: ../base_config.yaml`"
        instead = Problem(Origin.at(file, tree.line), "", found, meant)
        raise UnreadableError([*problems, instead] if tree.known else problems)
    members = dict(tree.value)
    reserved = {name: members.pop(name) for name in ("extends", "resolved") if name in members}
    source = Source(file, interpret(replace(tree, value=members), file))
    source.statements.problems += problems
    _take_reserved(source, file, reserved=reserved)
    return source


def read_overrides(overrides: Sequence[str]) -> Source:
    """Read the values of --set, each `key=value`; of two for one key the later one wins, said."""
    statements = Statements()
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key or not all(key.split(".")):
            meant = "key=value, such as training.learning_rate=3e-5"
            statements.problems.append(Problem(SET, "", f'"{shorten(text)}"', meant))
            continue
        one = interpret(Located({key: Located(_parse_value(value), 1)}, 1), SET)
        for statement in one.said:
            statements.overrule(statement)
        statements.claims += one.claims
        statements.notes += one.notes
        statements.problems += one.problems
        statements.meant |= one.meant
    return Source(None, statements)


def _parse_value(text: str) -> Any:
    """Read a value of the command line as YAML where it is a scalar or in brackets, else as the
    text it is.
    """
    try:
        tree = parse_yaml(text, Path("--set"))
    except YamlError:
        return text
    if text.strip() == "" and text:
        return text
    in_brackets = text.lstrip()[:1] in ("[", "{")
    in_quotes = text.lstrip()[:1] in ('"', "'")
    if isinstance(tree.value, list | dict) and not in_brackets:
        # `요약: ` would be a mapping, `- x` a list: a shell argument means its characters.
        return text
    if isinstance(tree.value, str) and not in_quotes:
        return text
    return tree.value


def _take_reserved(source: Source, file: Path, *, reserved: dict[str, Located]) -> None:
    """Take the top-level names that are no section: extends, resolved."""
    problems = source.statements.problems
    if (found := reserved.get("resolved")) and found.known:
        source.complete_record = found.value is True
        if found.value is not True:
            text = "true, as a run writes it into its resolved_config.yaml"
            problems.append(
                Problem(
                    Origin.at(file, found.line), "resolved", describe_found(found.plain()), text
                )
            )
    if found := reserved.get("extends"):
        origin = Origin.at(file, found.line)
        source.extends = origin
        if found.whole() and not (isinstance(found.value, str) and found.value.strip()):
            text = "one file name, relative to this file"
            problems.append(Problem(origin, "extends", describe_found(found.plain()), text))
        elif found.whole():
            source.base = absolute(file.parent / found.value)


def _explain_missing(file: Path, error: OSError, *, named_by: Origin | None) -> Problem:
    """Say why a file cannot be read, with the names of files that may have been meant."""
    origin, key = (named_by, "extends") if named_by else (Origin.at(file), "")
    what = f"{shown(file)} " if named_by else ""
    if file.is_dir():
        inside = sorted(path.name for path in file.glob("*.yaml"))
        meant = f"one file in it: {', '.join(inside)}" if inside else "a YAML file"
        return Problem(origin, key, f"{what}is a folder", meant)
    if isinstance(error, NotRegularError | TooLargeError):
        return Problem(origin, key, f"{what}{error.strerror}", "a YAML file")
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return Problem(
            origin, key, f"{what}cannot be read: {error.strerror}", "check its permissions"
        )
    beside = _yaml_files(file.parent)
    by_stem = {path.stem: path for path in [*_yaml_files(PROJECT_ROOT / "config"), *beside]}
    if near := nearest(re.sub(r"\.ya?ml$", "", file.name), by_stem, limit=3):
        meant = f"did you mean {' or '.join(shown(by_stem[stem]) for stem in near)}?"
    elif beside:
        meant = f"the files there are {', '.join(path.name for path in beside)}"
    else:
        meant = "no YAML file lies there; the experiments are in config/experiments"
    return Problem(origin, key, f"{what}no such file", meant)


def _yaml_files(folder: Path) -> list[Path]:
    """Return the YAML files of one folder; below the project's config, of its subfolders too."""
    pattern = "**/*.yaml" if folder == PROJECT_ROOT / "config" else "*.yaml"
    return sorted(folder.glob(pattern)) if folder.is_dir() else []

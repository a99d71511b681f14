"""Where a value was written, and one problem with it as a line for the user.

Must not know the schema, nor YAML: it only says things.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dialsum.paths import shown
from dialsum.printable import visible
from dialsum.reading import shorten
from dialsum.text_table import display_width, pad


@dataclass(frozen=True)
class Origin:
    """Where a value was written; text says it: `config/x.yaml:14`, `--set`, `default`."""

    file: Path | None
    line: int | None
    text: str

    @classmethod
    def at(cls, file: Path, line: int | None = None) -> Origin:
        """Name a line (from 1) of a file, or the file as a whole."""
        return cls(file, line, shown(file) if line is None else f"{shown(file)}:{line}")


SET = Origin(None, None, "--set")
DEFAULT = Origin(None, None, "default")


@dataclass(frozen=True)
class Problem:
    """One line of a ConfigError: where, which key, what was found, what is meant."""

    origin: Origin
    key: str
    found: str
    meant: str


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return one aligned line per problem, said once each, file by file and line by line."""
    unique = list(dict.fromkeys(map(_on_one_line, problems)))
    files = list(dict.fromkeys(problem.origin.file for problem in unique))
    ordered = sorted(
        unique,
        key=lambda p: (p.origin.file is None, files.index(p.origin.file), p.origin.line or 0),
    )
    place = max((display_width(p.origin.text) for p in ordered), default=0)
    key = max((display_width(p.key) for p in ordered), default=0)
    return [
        f"{pad(p.origin.text, place)}  {pad(p.key, key)}  {p.found} → {p.meant}"
        if p.key
        else f"{pad(p.origin.text, place)}  {p.found} → {p.meant}"
        for p in ordered
    ]


def _on_one_line(problem: Problem) -> Problem:
    origin = replace(problem.origin, text=visible(problem.origin.text))
    # A line of a .env that happens to be YAML has its secret behind the sign.
    name, sign, _ = problem.key.partition("=")
    key = shorten(visible(f"{name}{sign}…" if sign else name))
    return Problem(origin, key, visible(problem.found), visible(problem.meant))

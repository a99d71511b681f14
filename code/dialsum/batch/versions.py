"""Whether what is installed is what requirements.txt pins.

Standard library only and no import of the packages themselves: it runs before every batch.
Must not install anything.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dialsum.errors import EXIT_OK, EXIT_UNFIT, UnfitError, run_script
from dialsum.paths import PROJECT_ROOT

REPAIR = "bash scripts/setup_environment.sh --repair"
"""The command that puts every pin back; run in the project's folder."""

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+)")


@dataclass(frozen=True)
class Pin:
    """One package at one exact version, and the line that says so."""

    name: str
    version: str
    place: str


def read_pins(requirements: Path) -> list[Pin]:
    """Return the pins of a requirements file, those of a file included with `-r` in its place.

    Raises:
        UnfitError: the file is missing, or a line is neither a pin, a comment nor `-r FILE`.
    """
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UnfitError(
            f"{requirements}: no such file. It belongs to the project: "
            f"git checkout {requirements.name}"
        ) from error
    pins: list[Pin] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        if text.startswith("-r "):
            pins += read_pins(requirements.parent / text[3:].strip())
            continue
        match = _PIN.fullmatch(text)
        if match is None:
            raise UnfitError(
                f"{requirements}:{number}: {text!r} is no exact pin; write name==version  # reason"
            )
        pins.append(Pin(match["name"], match["version"], f"{requirements.name}:{number}"))
    return pins


def find_version_problems(requirements: Path) -> list[str]:
    """Compare this interpreter's packages with the pins; one sentence for each that differs.

    A local part (`2.13.0+cpu`) is another build of the same version and no difference.

    Raises:
        UnfitError: as read_pins.
    """
    found = (_find_problem(pin) for pin in read_pins(requirements))
    return [problem for problem in found if problem is not None]


def _find_problem(pin: Pin) -> str | None:
    pinned = f"{pin.place} pins {pin.version}; put it back: {REPAIR}"
    try:
        installed = importlib.metadata.version(pin.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{pin.name} is not installed, {pinned}"
    if installed.split("+", 1)[0] == pin.version.split("+", 1)[0]:
        return None
    return f"{pin.name} {installed} is installed, {pinned}"


def main(argv: Sequence[str] | None) -> int:
    """Print what differs from the files given (default: requirements.txt); 2 if anything does."""
    names = list(sys.argv[1:] if argv is None else argv)
    names = names or [str(PROJECT_ROOT / "requirements.txt")]
    problems = [problem for name in names for problem in find_version_problems(Path(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return EXIT_UNFIT if problems else EXIT_OK


if __name__ == "__main__":
    run_script(main)

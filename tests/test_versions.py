"""What is installed, held against the pins; and the pins themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.batch import versions
from dialsum.errors import UnfitError


def installed_version(name: str) -> str:
    return versions.importlib.metadata.version(name)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", []),
        ("# only a comment\n\n", []),
        ("pytest=={pytest}  # the tests\n", []),
        ("PyTest=={pytest}+cpu\n", []),
        ("pytest==0.9.4\n", ["pytest {pytest} is installed, r.txt:1 pins 0.9.4", "--repair"]),
        (
            "\nno-such-package-of-ours==1.0\n",
            ["no-such-package-of-ours is not installed, r.txt:2 pins 1.0", "--repair"],
        ),
        ("-r more.txt\n", ["more.txt:1 pins 0.0.1"]),
    ],
)
def test_installed_versions_are_compared_with_the_pins(
    lines: str, said: list[str], tmp_path: Path
) -> None:
    found = installed_version("pytest")
    (tmp_path / "more.txt").write_text("pytest==0.0.1\n", encoding="utf-8")
    (tmp_path / "r.txt").write_text(lines.format(pytest=found), encoding="utf-8")
    problems = versions.find_version_problems(tmp_path / "r.txt")
    assert len(problems) == bool(said)
    for words in said:
        assert words.format(pytest=found) in problems[0]


@pytest.mark.parametrize(
    "line", ["pytest>=1", "pytest", "pytest==1.*", "git+https://x/y", "pytest==1 ; x"]
)
def test_line_that_is_no_pin_is_refused_with_its_place(line: str, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(UnfitError, match=r"r\.txt:2: "):
        versions.read_pins(tmp_path / "r.txt")


def test_missing_requirements_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="no such file"):
        versions.read_pins(tmp_path / "r.txt")


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-gpu.txt", "requirements-dev.txt"]
)
def test_every_line_of_ours_is_one_exact_pin_with_its_reason(name: str, repository: Path) -> None:
    pins = versions.read_pins(repository / name)
    names = [pin.name.lower() for pin in pins]
    assert len(names) == len(set(names))
    for line in (repository / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "-r ")):
            assert line.partition("  # ")[2].strip(), line


def test_pins_hold_in_the_environment_that_runs_this(repository: Path) -> None:
    assert versions.find_version_problems(repository / "requirements.txt") == []

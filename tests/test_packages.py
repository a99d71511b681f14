"""The installed packages: held against the pins, and not changed under a program that uses them."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

from dialsum.packages import PIN, SETUP_LOCK, USE_LOCK, find_version_problems, use_environment

RICH = version("rich")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", []),
        ("# only a comment\n\n", []),
        (f"rich=={RICH}  # tables\n", []),
        (f"Rich=={RICH}+cpu\n", []),
        ("rich>=1\ngit+https://x/y\n", []),
        ("rich==0.9.4\n", [f"rich {RICH} is installed, r.txt:1 pins 0.9.4", "--repair"]),
        ("\nno-such-one==1.0\n", ["no-such-one is not installed, r.txt:2 pins 1.0", "--repair"]),
    ],
)
def test_installed_versions_are_compared_with_the_pins(
    lines: str, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "r.txt").write_text(lines, encoding="utf-8")
    problems = find_version_problems(tmp_path / "r.txt")
    assert len(problems) == bool(said)
    for words in said:
        assert words in problems[0]


def test_package_whose_description_is_lost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spoilt-1.0.dist-info").mkdir()
    (tmp_path / "spoilt-1.0.dist-info" / "METADATA").touch()
    (tmp_path / "r.txt").write_text("spoilt==1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = find_version_problems(tmp_path / "r.txt")
    assert problem.startswith("spoilt ") and "--repair" in problem


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "requirements-gpu.txt", "requirements-dev.txt", "requirements-ray.txt"],
)
def test_every_line_of_ours_is_one_exact_pin_with_its_reason(name: str, repository: Path) -> None:
    names = []
    for line in (repository / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "-r ")):
            pin = PIN.match(line)
            assert pin is not None and re.search(r"  # .", line), line
            names.append(pin[1].lower())
    assert names and len(names) == len(set(names))


def test_pins_hold_in_the_environment_that_runs_this(repository: Path) -> None:
    assert find_version_problems(repository / "requirements.txt") == []


USERS = [
    ("trainer.py", [], True),
    ("trainer.py", ["--explain"], True),
    ("auto_experiment_runner.py", [], True),
    ("auto_experiment_runner.py", ["--dry-run"], False),
    ("auto_experiment_runner.py", ["--explain"], False),
]


@pytest.mark.parametrize(("program", "options", "uses"), USERS)
def test_runs_say_that_they_use_their_environment(
    program: str, options: list[str], uses: bool, tmp_path: Path, repository: Path
) -> None:
    folder = tmp_path / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    (folder / SETUP_LOCK).touch()
    [packages] = folder.glob("lib/python3*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    script = [str(folder / "bin" / "python"), str(repository / "code" / program)]
    done = subprocess.run(
        [*script, "--config", "none.yaml", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert (folder / USE_LOCK).exists() is uses


def test_an_environment_of_somebody_else_is_not_written_to(tmp_path: Path) -> None:
    with use_environment(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_locked_is_used(tmp_path: Path) -> None:
    (tmp_path / SETUP_LOCK).touch()
    (tmp_path / USE_LOCK).mkdir()
    with use_environment(tmp_path):
        pass


def test_importing_the_set_up_needs_no_package(repository: Path) -> None:
    code = "import dialsum.batch.first_look, dialsum.packages, auto_experiment_runner"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(repository / "code")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

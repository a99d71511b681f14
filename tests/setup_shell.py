"""What the tests of the set-up share: a copy to run it in, and a PATH without Python.

Must not know what any test asserts.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BASH = shutil.which("bash") or "/bin/bash"
TOOLS = (
    "awk",
    "cat",
    "cut",
    "df",
    "dirname",
    "env",
    "find",
    "flock",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "sleep",
    "sort",
    "tail",
    "timeout",
    "tr",
    "uname",
    "wc",
)
COPIED = (
    "run_main_7_experiments.sh",
    "run_tests.sh",
    "pyproject.toml",
    "requirements.txt",
    "requirements-gpu.txt",
    "requirements-dev.txt",
    "scripts/setup_environment.sh",
    "scripts/setup",
    "code/dialsum/__init__.py",
    "code/dialsum/errors.py",
    "code/dialsum/paths.py",
    "code/dialsum/cli.py",
    "code/dialsum/environment_variables.py",
    "code/dialsum/printable.py",
    "code/dialsum/files.py",
    "code/dialsum/data",
    "code/dialsum/batch",
    "code/auto_experiment_runner.py",
)


def copy_setup(repository: Path, target: Path) -> Path:
    """Copy what the set-up needs from the repository to target, and return that."""
    for name in COPIED:
        source, copy = repository / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy)
    return target


def link_tools(folder: Path) -> Path:
    """Fill folder with links to the commands that the set-up uses, and no Python; return it."""
    folder.mkdir()
    for name in TOOLS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def write_program(path: Path, body: str) -> None:
    """Write a script of bash that can be run by name."""
    path.write_text(f"#!{BASH}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def run_script(
    script: Path, *arguments: str, tools: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with nothing on the PATH but tools, and a home folder with no settings."""
    return subprocess.run(
        [BASH, str(script), *arguments],
        cwd=tools,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tools), "HOME": str(tools.parent), **environment},
    )


def run_in_setup(
    clone: Path, command: str, *, tools: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run commands of bash after sourcing the set-up, as run_main_7_experiments.sh does."""
    script = clone / "probe.sh"
    source = f'source "{clone}/scripts/setup_environment.sh"'
    script.write_text(f"set -euo pipefail\n{source}\n{command}\n", encoding="utf-8")
    return run_script(script, tools=tools, **environment)

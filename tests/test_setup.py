"""The set-up from outside: which Python it takes, what it refuses. Only the slow test downloads."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from setup_shell import BASH, run_in_setup, run_script, write_program


def test_help_needs_nothing(clone: Path, tools: Path) -> None:
    done = run_script(clone / "run_main_7_experiments.sh", "--demo", "--help", tools=tools)
    assert done.returncode == 0
    assert "--demo" in done.stdout and "--data-dir" in done.stdout
    assert not (clone / ".venv").exists()


def test_a_clone_that_turns_line_ends_keeps_the_scripts(repository: Path, tmp_path: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("no git repository here that could be cloned")
    copy = tmp_path / "copy"
    git = ["git", "-c", "core.autocrlf=true"]
    subprocess.run([*git, "clone", "-q", str(repository), str(copy)], check=True)
    listed = subprocess.run(
        [*git, "-C", str(copy), "ls-files", "--eol"], capture_output=True, text=True, check=True
    ).stdout
    assert "w/lf" in listed and "w/crlf" not in listed and "w/mixed" not in listed
    for script in ("run_main_7_experiments.sh", "run_tests.sh", "scripts/setup_environment.sh"):
        done = subprocess.run(["bash", str(copy / script), "--help"], capture_output=True)
        assert done.returncode == 0, done.stderr


def test_help_names_every_option_of_the_runner(clone: Path, repository: Path, tools: Path) -> None:
    runner = repository / "code" / "auto_experiment_runner.py"
    asked = [sys.executable, str(runner), "--help"]
    theirs = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    ours = run_script(clone / "run_main_7_experiments.sh", "--help", tools=tools).stdout
    options = re.compile(r"(?m)^  (?:-\w, )?(--[a-z-]+)")
    assert set(options.findall(ours)) == set(options.findall(theirs)) - {"--config"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--demo", "--one-epok"], "has no option --one-epok; did you mean --one-epoch?"),
        (["demo"], "has no argument demo; did you mean --demo?"),
        (["--demo", "--datadir", "mine"], "has no option --datadir; did you mean --data-dir?"),
        (["--confg", "x.yaml"], "has no option --confg.\n"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--demo", "--resume"], "--resume is not built yet"),
        (["--demo", "--only", "9"], "--only '9': 9 is out of range"),
    ],
)
def test_wrong_option_is_refused_by_name_before_anything_is_installed(
    options: list[str], said: str, clone: Path, tools: Path
) -> None:
    script = clone / "run_main_7_experiments.sh"
    done = run_script(script, *options, tools=tools, PYTHON=sys.executable)
    assert done.returncode == 2
    assert said in done.stderr
    if not said.startswith("--"):
        assert done.stderr.startswith(f"error: bash {script}")
    for word in ("usage:", "--config", "auto_experiment_runner"):
        assert word not in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ({}, ["none is on the PATH", "python install 3.12"]),
        (
            {"python3.11": "echo 'pyenv: python3.11: command not found' >&2; exit 127"},
            ["none is on the PATH."],
        ),
        ({"python": "echo 2.7.18"}, ["2.7.18"]),
        ({"python3": "echo 3.10.2"}, ["python3 is 3.10.2", "python3 -m uv python install 3.12"]),
        (
            {"python3": "echo 3.13.1", "python3.10": "echo 3.10.2"},
            ["3.13.1", "3.10.2", "python-mecab-ko"],
        ),
    ],
)
def test_no_fitting_python_is_refused_with_the_way_to_get_one(
    programs: dict[str, str], said: list[str], clone: Path, tools: Path
) -> None:
    for name, body in programs.items():
        write_program(tools / name, body)
    done = run_script(clone / "run_main_7_experiments.sh", "--demo", tools=tools)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: Python 3.11 or 3.12 is needed")
    for words in said:
        assert words in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("programs", "python", "found"),
    [
        ({"python3": "echo 3.10.2", "python3.12": "echo 3.12.1"}, "", "python3.12 3.12.1"),
        ({"python3.11": "exit 127", "python3": "echo 3.11.9"}, "", "python3 3.11.9"),
        ({"python3.12": "echo 3.12.1", "mine": "echo 3.11.0"}, "mine", "mine 3.11.0"),
    ],
)
def test_first_fitting_python_is_taken(
    programs: dict[str, str], python: str, found: str, clone: Path, tools: Path
) -> None:
    for name, body in programs.items():
        write_program(tools / name, body)
    done = run_in_setup(
        clone, 'find_python; echo "${found_python##*/} $found_version"', tools=tools, PYTHON=python
    )
    assert done.stdout.strip() == found, done.stderr


@pytest.mark.parametrize("python", ["nowhere", "/nowhere/python3"])
def test_python_that_the_user_names_is_not_replaced(python: str, clone: Path, tools: Path) -> None:
    write_program(tools / "python3.11", "echo 3.11.9")
    done = run_script(clone / "run_main_7_experiments.sh", "--demo", tools=tools, PYTHON=python)
    assert done.returncode == 2
    assert f"{python} cannot be run" in done.stderr


def test_bare_clone_is_told_all_that_is_missing_before_anything_is_installed(
    clone: Path, tools: Path
) -> None:
    done = run_script(clone / "run_main_7_experiments.sh", tools=tools, PYTHON=sys.executable)
    assert done.returncode == 2
    for words in ("train.csv", "--data-dir", "no NVIDIA GPU", "--demo"):
        assert words in done.stderr
    assert not (clone / ".venv").exists()


def test_folder_that_no_environment_can_live_in_is_refused(clone: Path, tools: Path) -> None:
    renamed = clone.rename(clone.with_name("a:b"))
    done = run_script(renamed / "run_main_7_experiments.sh", "--demo", tools=tools)
    assert done.returncode == 2
    assert "has a colon" in done.stderr


def test_relative_data_folder_is_the_users_own(clone: Path, tools: Path) -> None:
    done = run_script(
        clone / "run_main_7_experiments.sh",
        "--demo",
        "--data-dir",
        "mine",
        tools=tools,
        PYTHON=sys.executable,
    )
    assert done.returncode == 2
    assert "there is no folder mine" in done.stderr


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda venv: (venv / "bin").mkdir(parents=True), "was not made by this project"),
        (lambda venv: venv.touch(), "is not a folder"),
    ],
)
def test_environment_of_somebody_else_is_left_alone(
    prepare: Callable[[Path], None], said: str, clone: Path, tools: Path
) -> None:
    prepare(clone / ".venv")
    done = run_script(clone / "scripts/setup_environment.sh", tools=tools, PYTHON=sys.executable)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (clone / ".venv" / ".dialsum").exists()


def test_python_without_its_venv_package_names_the_package(clone: Path, tools: Path) -> None:
    write_program(
        tools / "python3.11",
        f"""
      case $2 in venv | virtualenv) echo 'ensurepip is not available' >&2; exit 1 ;; esac
      if [[ $1 == -c ]]; then echo 3.11.2; else exec {shlex.quote(sys.executable)} "$@"; fi""",
    )
    done = run_script(clone / "scripts/setup_environment.sh", tools=tools)
    assert done.returncode == 2
    assert "sudo apt install python3.11-venv" in done.stderr
    assert not (clone / ".venv" / ".dialsum-ready").exists()


def test_script_names_seven_experiments_that_exist(repository: Path) -> None:
    text = (repository / "run_main_7_experiments.sh").read_text(encoding="utf-8")
    names = text.partition("experiments=(\n")[2].partition("\n)")[0].split()
    assert len(names) == len(set(names)) == 7
    for name in names:
        assert (repository / "config" / "experiments" / f"{name}.yaml").is_file(), name


def wait_for(path: Path, *, max_seconds: float) -> None:
    end = time.monotonic() + max_seconds
    while not path.exists():
        if time.monotonic() > end:
            pytest.fail(f"{path} was not there after {max_seconds} s")
        time.sleep(0.02)


@pytest.mark.slow
def test_environment_killed_while_installing_is_made_anew(clone: Path) -> None:
    site = (
        clone
        / ".venv"
        / "lib"
        / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        / "site-packages"
    )
    command = [BASH, str(clone / "scripts/setup_environment.sh")]
    environment = {**os.environ, "PYTHON": sys.executable, "CI": "true"}
    environment.pop("PYTHONPATH", None)
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    wait_for(site / "torch" / "lib", max_seconds=900)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (clone / ".venv" / ".dialsum-ready").exists()

    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "left half-made" in second.stderr
    python = str(clone / ".venv" / "bin" / "python")
    imported = subprocess.run(
        [python, "-P", "-c", "import torch, transformers, peft, dialsum; print(dialsum.__file__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.strip() == str(clone / "code" / "dialsum" / "__init__.py")

    third = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert third.stderr == ""

"""The set-up by shell: which Python, what is whole, what is refused. Nothing here downloads but the slow test."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
BASH = shutil.which("bash") or "/bin/bash"
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
    "code/dialsum/run",
)


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """A copy of what the set-up needs, below a folder with a space and Korean letters."""
    target = tmp_path / "새 폴더" / "dialsum"
    for name in COPIED:
        source, copy = repository / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy)
    return target


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for the PATH that holds the usual commands, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!{BASH}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def run_script(
    script: Path, *arguments: str, tools: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
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
    """Run a command of bash after sourcing the set-up, as run_main_7_experiments.sh does."""
    script = clone / "probe.sh"
    script.write_text(
        f'set -euo pipefail\nsource "{clone}/scripts/setup_environment.sh"\n{command}\n',
        encoding="utf-8",
    )
    return run_script(script, tools=tools, **environment)


def test_help_needs_nothing(clone: Path, tools: Path) -> None:
    done = run_script(clone / "run_main_7_experiments.sh", "--demo", "--help", tools=tools)
    assert done.returncode == 0
    assert "--demo" in done.stdout and "--data-dir" in done.stdout
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


@pytest.fixture
def whole(clone: Path, tools: Path) -> Path:
    """A clone whose .venv is finished as far as the stamps tell."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / ".venv" / ".dialsum").touch()
    done = run_in_setup(
        clone,
        "flavour=cpu torch_build=default; write_stamps dev; environment_is_whole dev",
        tools=tools,
    )
    assert done.returncode == 0, done.stderr
    return clone


def append(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")


def truncate(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:60], encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "main_is_whole", "dev_is_whole"),
    [
        (lambda root: None, True, True),
        (lambda root: (root / ".venv/.dialsum-ready").unlink(), False, False),
        (lambda root: truncate(root / ".venv/.dialsum-ready"), False, False),
        (lambda root: (root / ".venv/.dialsum-dev-ready").unlink(), True, False),
        (lambda root: append(root / "requirements.txt"), False, False),
        (lambda root: append(root / "pyproject.toml"), False, False),
        (lambda root: append(root / "requirements-dev.txt"), True, False),
        (lambda root: (root / ".venv/bin/python").unlink(), False, False),
    ],
    ids=[
        "nothing",
        "no stamp",
        "half a stamp",
        "no dev stamp",
        "pins",
        "project",
        "dev pins",
        "python gone",
    ],
)
def test_only_what_the_stamps_name_is_trusted(
    change: object, main_is_whole: bool, dev_is_whole: bool, whole: Path, tools: Path
) -> None:
    assert callable(change)
    change(whole)
    for wanted, expected in (("main", main_is_whole), ("dev", dev_is_whole)):
        done = run_in_setup(whole, f"environment_is_whole {wanted}", tools=tools)
        assert (done.returncode == 0) is expected, wanted


def test_environment_of_a_moved_folder_is_not_trusted(whole: Path, tools: Path) -> None:
    moved = whole.rename(whole.with_name("elsewhere"))
    assert run_in_setup(moved, "environment_is_whole main", tools=tools).returncode == 1


@pytest.mark.parametrize(
    ("listed", "backend", "expected"),
    [
        ("GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1)", "", 1),
        ("No devices were found", "", 0),
        ("", "cu126", 1),
    ],
)
def test_new_card_or_another_build_asks_for_another_environment(
    listed: str, backend: str, expected: int, whole: Path, tools: Path
) -> None:
    write_program(tools / "nvidia-smi", f"echo '{listed}'")
    done = run_in_setup(whole, "environment_is_whole main", tools=tools, UV_TORCH_BACKEND=backend)
    assert done.returncode == expected


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda venv: (venv / "bin").mkdir(parents=True), "was not made by this project"),
        (lambda venv: venv.touch(), "is not a folder"),
    ],
)
def test_environment_of_somebody_else_is_left_alone(
    prepare: object, said: str, clone: Path, tools: Path
) -> None:
    assert callable(prepare)
    prepare(clone / ".venv")
    done = run_script(clone / "scripts/setup_environment.sh", tools=tools, PYTHON=sys.executable)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (clone / ".venv" / ".dialsum").exists()


def test_python_without_its_venv_package_names_the_package(clone: Path, tools: Path) -> None:
    write_program(
        tools / "python3.11",
        f"""
      case "$1 $2" in "-m venv" | "-m virtualenv") echo 'ensurepip is not available' >&2; exit 1 ;; esac
      if [[ $1 == -c ]]; then echo 3.11.2; else exec {sys.executable} "$@"; fi""",
    )
    done = run_script(clone / "scripts/setup_environment.sh", tools=tools)
    assert done.returncode == 2
    assert "sudo apt install python3.11-venv" in done.stderr
    assert not (clone / ".venv" / ".dialsum-ready").exists()


def test_second_start_waits_for_the_first_and_takes_what_it_made(whole: Path, tools: Path) -> None:
    if not shutil.which("flock"):
        pytest.skip("no flock command here: the waiting is done with a folder instead")
    stamp = whole / ".venv" / ".dialsum-ready"
    finished = stamp.read_bytes()
    stamp.unlink()
    with (whole / ".venv" / ".dialsum").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [BASH, str(whole / "scripts/setup_environment.sh")],
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": str(tools), "HOME": str(tools.parent)},
        )
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        stamp.write_bytes(finished)
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert second.communicate(timeout=60)[1] == ""
    assert second.returncode == 0


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("", "other"),
        ("error: Failed to install: x\n  cause: No space left on device (os error 28)", "disk"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("error: Failed to fetch: `x`\n cause: dns error", "network"),
        (
            "NewConnectionError: Temporary failure in name resolution\nERROR: No matching distribution found",
            "network",
        ),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "network"),
        ("error: No solution found when resolving dependencies", "other"),
        ("ERROR: No matching distribution found for rich==99.1", "other"),
    ],
)
def test_failures_of_installers_are_told_apart(
    output: str, kind: str, clone: Path, tools: Path
) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / "setup.log").write_text(output + "\n", encoding="utf-8")
    done = run_in_setup(clone, "log_start=0; failure_kind", tools=tools)
    assert done.stdout == kind


@pytest.mark.parametrize(
    ("flavour", "environment", "needed"),
    [
        ("cpu", {}, True),
        ("gpu", {}, False),
        ("cpu", {"UV_FIND_LINKS": "{wheels}"}, False),
        ("cpu", {"UV_FIND_LINKS": "{empty}"}, True),
        ("cpu", {"UV_FIND_LINKS": "{empty},{wheels}"}, False),
        ("cpu", {"UV_FIND_LINKS": "file:///somewhere"}, False),
        ("cpu", {"UV_NO_INDEX": "1"}, False),
        ("cpu", {"UV_TORCH_BACKEND": "cu126"}, False),
    ],
)
def test_cpu_build_is_asked_for_where_nobody_else_decides(
    flavour: str,
    environment: dict[str, str],
    needed: bool,
    whole: Path,
    tools: Path,
    tmp_path: Path,
) -> None:
    wheels, empty = tmp_path / "wheels", tmp_path / "empty"
    wheels.mkdir()
    empty.mkdir()
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    (wheels / f"torch-2.13.0+cpu-{tag}-{tag}-any.whl").touch()
    settings = {
        name: value.format(wheels=wheels, empty=empty) for name, value in environment.items()
    }
    done = run_in_setup(
        whole, f"flavour={flavour} OSTYPE=linux-gnu; cpu_build_is_needed", tools=tools, **settings
    )
    assert (done.returncode == 0) is needed, done.stderr


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
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout.strip() == str(clone / "code" / "dialsum" / "__init__.py")

    third = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert third.stderr == ""

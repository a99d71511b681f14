"""The set-up from inside: what it trusts as whole, who waits for whom, what a failure was."""

from __future__ import annotations

import fcntl
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from setup_shell import BASH, run_in_setup, run_script, write_program


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
        (lambda _: None, True, True),
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
    change: Callable[[Path], None],
    main_is_whole: bool,
    dev_is_whole: bool,
    whole: Path,
    tools: Path,
) -> None:
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


@pytest.fixture
def usable(whole: Path, repository: Path) -> Path:
    """A finished clone with all of the program, whose Python has the packages; it has no data."""
    for name in ("code", "config"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, whole / name, dirs_exist_ok=True, ignore=ignored)
    python = whole / ".venv" / "bin" / "python"
    python.unlink()
    write_program(python, f'exec {shlex.quote(sys.executable)} "$@"')
    return whole


def test_dry_run_without_data_prints_the_plan_and_what_is_missing(
    usable: Path, tools: Path
) -> None:
    before = sorted(path for path in usable.rglob("*") if "__pycache__" not in path.parts)
    done = run_script(usable / "run_main_7_experiments.sh", "--dry-run", tools=tools)
    assert done.returncode == 2, done.stderr
    assert "7 experiments, as configured\n" in done.stdout
    for label in ("mT5_XLSum_1단계", "eenzeenee_T5", "배치_최적화"):
        assert label in done.stdout
    assert "there is no folder data." in done.stderr and "--data-dir DIR" in done.stderr
    assert "no NVIDIA GPU is visible" in done.stderr
    assert "would be refused" not in done.stdout and "2 problems found" in done.stderr
    after = sorted(path for path in usable.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_arguments_that_pytest_refuses_are_no_failed_tests(usable: Path, tools: Path) -> None:
    done = run_script(usable / "run_tests.sh", "--slow", tools=tools)
    assert done.returncode == 2, done.stderr
    assert "unrecognized arguments: --slow" in done.stderr
    assert done.stderr.count("no test was run") == 1
    assert "--fast, --long, --lint" in done.stderr
    assert "failed" not in done.stderr


def test_wrong_value_is_said_beside_what_is_missing(usable: Path, tools: Path) -> None:
    script = usable / "run_main_7_experiments.sh"
    done = run_script(script, "--set", "training.lr=1", "--only", "1", tools=tools)
    assert done.returncode == 2
    assert "3 problems found" in done.stderr
    for said in ("training.lr)", "there is no folder data.", "no NVIDIA GPU"):
        assert said in done.stderr


CHANGED = "updating .venv: the list of packages to install has changed"
TOOLS = "adding the tools of the tests (requirements-dev.txt) to .venv"


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda root: append(root / "requirements.txt"), (), CHANGED),
        (lambda root: append(root / "requirements-dev.txt"), ("--dev",), CHANGED),
        (lambda root: (root / ".venv/.dialsum-dev-ready").unlink(), ("--dev",), TOOLS),
    ],
    ids=["pins", "dev pins", "first tests"],
)
def test_update_of_the_environment_is_said_in_words_that_need_no_insider(
    change: Callable[[Path], None], options: tuple[str, ...], said: str, usable: Path, tools: Path
) -> None:
    change(usable)
    write_program(
        tools / "uv",
        """
      case "$*" in
        *--help*) echo ' --torch-backend' ;;
        --version) echo 'uv 0.13.8 (of some day)' ;;
      esac""",
    )
    script = usable / "scripts" / "setup_environment.sh"
    done = run_script(
        script, *options, tools=tools, PIP_FIND_LINKS="/wheels", PIP_CONFIG_FILE="/dev/null"
    )
    assert done.returncode == 0, done.stderr
    # On a busy machine bash itself sometimes complains of a process that is gone already.
    lines = [line for line in done.stderr.splitlines() if ": wait_for: No record" not in line]
    assert len(lines) == 3, done.stderr
    first, second, last = lines
    assert first == said
    assert second == "installing with uv 0.13.8, with this machine's own package sources"
    assert last.startswith("environment ready in ")


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("", "other"),
        ("error: Failed to install: x\n  cause: No space left on device (os error 28)", "disk"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("error: Failed to fetch: `x`\n cause: dns error", "network"),
        (
            "NewConnectionError: failure in name resolution\nERROR: No matching distribution",
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


def test_what_is_started_may_keep_bytecode(whole: Path, tools: Path) -> None:
    command = "ensure_environment main; printenv PYTHONDONTWRITEBYTECODE || echo kept"
    (tools / "printenv").symlink_to(shutil.which("printenv") or "/usr/bin/printenv")
    done = run_in_setup(whole, command, tools=tools, PYTHONDONTWRITEBYTECODE="1")
    assert (done.stdout, done.returncode) == ("kept\n", 0), done.stderr

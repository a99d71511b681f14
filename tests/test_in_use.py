"""The environment is not changed under a run, and no run starts while it is changed."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dialsum.batch.in_use import MADE_MARK, USE_LOCK, use_environment
from dialsum.errors import UnfitError
from setup_shell import run_in_setup, run_script

HOLDER = """
import sys
from pathlib import Path
from dialsum.batch.in_use import use_environment
with use_environment(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def made(clone: Path) -> Path:
    """A clone with the beginnings of a .venv that the set-up made."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / ".venv" / MADE_MARK).touch()
    return clone


@contextmanager
def running(clone: Path, repository: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that uses the clone's environment and is called as a run is."""
    script = clone / "trainer.py"
    script.write_text(HOLDER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script), str(clone / ".venv")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(repository / "code")},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("flock", [True, False])
def test_repair_is_refused_while_something_runs_and_free_after_its_kill(
    flock: bool, made: Path, repository: Path, tools: Path
) -> None:
    if flock and not shutil.which("flock"):
        pytest.skip("no flock command here: Python locks in its place")
    if not flock:
        (tools / "flock").unlink(missing_ok=True)
    script = made / "scripts" / "setup_environment.sh"
    with running(made, repository) as process:
        done = run_script(script, "--repair", tools=tools)
        assert done.returncode == 2, done.stderr
        assert f"process {process.pid}: " in done.stderr and "trainer.py" in done.stderr
        assert "Nothing was changed" in done.stderr
        assert not (made / ".venv" / "setup.log").exists()
    # Killed: the system gave its lock back, and its number is nobody's any more.
    done = run_in_setup(made, "claim_environment; echo claimed", tools=tools)
    assert done.stdout == "claimed\n", done.stderr


def test_what_is_whole_is_used_beside_a_run(made: Path, repository: Path, tools: Path) -> None:
    stamps = "flavour=cpu torch_build=default; write_stamps main"
    assert run_in_setup(made, stamps, tools=tools).returncode == 0
    with running(made, repository), use_environment(made / ".venv"):
        done = run_script(made / "scripts" / "setup_environment.sh", tools=tools)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_run_starts_while_the_environment_is_changed(made: Path) -> None:
    folder = made / ".venv"
    with (folder / USE_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnfitError, match="changing this environment"), use_environment(folder):
            raise AssertionError("used while it is changed")
    with use_environment(folder):
        pass


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
    (folder / MADE_MARK).touch()
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

"""The set-up through its doors: which Python and torch it takes, what it trusts, what it refuses.

Installers are stand-ins (setup_shell.py); only the slow test downloads.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from setup_shell import BASH, add_card, add_python, calls, run_script, write_program

SETUP = "scripts/setup_environment.sh"
MAIN = "run_main_7_experiments.sh"
PROJECT = "uv -q --no-deps --no-build-isolation -e ."


@pytest.fixture
def finished(clone: Path, tools: Path) -> Path:
    """A clone whose environment was made by the stand-in Python, with the tools of the tests."""
    add_python(clone, tools, packages=True)
    done = run_script(clone / SETUP, "--dev", tools=tools)
    assert done.returncode == 0, done.stderr
    calls(clone)
    return clone


def test_help_is_the_runner_s_and_makes_nothing(clone: Path, tools: Path) -> None:
    done = run_script(clone / MAIN, "--demo", "--help", tools=tools, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in ("--demo", "--data-dir", "one NVIDIA GPU"))
    assert "--config" not in done.stdout
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
    for script in (MAIN, "run_tests.sh", SETUP):
        done = subprocess.run(["bash", str(copy / script), "--help"], capture_output=True)
        assert done.returncode == 0, done.stderr


def test_script_names_seven_experiments_that_exist(repository: Path) -> None:
    text = (repository / MAIN).read_text(encoding="utf-8")
    names = text.partition("experiments=(\n")[2].partition("\n)")[0].split()
    assert len(names) == len(set(names)) == 7
    for name in names:
        assert (repository / "config" / "experiments" / f"{name}.yaml").is_file(), name


UNFIT = [
    (["--demo", "--one-epok"], ["has no option --one-epok; did you mean --one-epoch?"]),
    (["demo"], ["has no argument demo; did you mean --demo?"]),
    (["--demo", "--datadir", "mine"], ["has no option --datadir; did you mean --data-dir?"]),
    (["--confg", "x.yaml"], ["has no option --confg.\n"]),
    (["--seed", "x"], ["argument --seed: invalid int value: 'x'"]),
    (["--demo", "--nonsense"], ["has no option --nonsense"]),
    (["--demo", "--only", "9"], ["--only '9': 9 is out of range"]),
    ([], ["train.csv", "--data-dir", "no NVIDIA GPU", "--demo", "nothing was installed"]),
    (["--demo", "--data-dir", "mine"], ["there is no folder mine"]),
    (["--demo", "--set", "seed"], ["--set seed: no KEY=VALUE"]),
]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("options", "said"), UNFIT)
def test_what_is_unfit_is_said_before_anything_is_installed(
    options: list[str], said: list[str], whole: bool, clone: Path, tools: Path
) -> None:
    if whole and ("mine" in options or "seed" in options or not options):
        pytest.skip("the runner says these itself, in its own words")
    # This Python finds no package: the look needs none.
    add_python(clone, tools)
    if whole:
        assert run_script(clone / SETUP, tools=tools).returncode == 0
        calls(clone)
    done = run_script(clone / MAIN, *options, tools=tools)
    assert done.returncode == 2, done.stderr
    for words in said:
        assert words in done.stderr
    if "has no" in said[0]:
        assert done.stderr.startswith(f"error: bash {clone / MAIN} has no")
    for word in ("usage:", "--config", "auto_experiment_runner"):
        assert word not in done.stderr
    assert calls(clone) == []
    assert whole or not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("programs", "python", "said"),
    [
        ({}, "", ["none is on the PATH.", "uv python install 3.12", "python3.12-venv"]),
        ({"python3.11": "echo 'pyenv: not found' >&2; exit 127"}, "", ["none is on the PATH."]),
        ({"python": "echo Python 2.7.18 >&2"}, "", ["Python 2.7.18", "uv python install 3.12"]),
        (
            {"python3": "echo Python 3.13.1", "python": "echo Python 3.10.2"},
            "",
            ["3.13.1", "3.10.2", "python-mecab-ko"],
        ),
        ({"python3.11": "echo Python 3.11.9"}, "nowhere", ["names another: nowhere cannot be run"]),
        ({"python3.11": "echo Python 3.11.9"}, "/no/python3", ["/no/python3 cannot be run"]),
        (
            {"python3.11": "echo Python 3.11.9", "old": "echo Python 3.10.1"},
            "old",
            ["old is Python 3.10.1"],
        ),
    ],
)
def test_no_fitting_python_is_refused_with_the_way_to_get_one(
    programs: dict[str, str], python: str, said: list[str], clone: Path, tools: Path
) -> None:
    for name, body in programs.items():
        write_program(tools / name, body)
    done = run_script(clone / MAIN, "--demo", tools=tools, PYTHON=python)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: Python 3.11 or 3.12 is needed")
    for words in said:
        assert words in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("name", "others", "python"),
    [
        ("python3", {"python3.11": "exit 127", "python": "echo Python 3.12.1"}, ""),
        ("python3.12", {"python3": "echo Python 3.10.2"}, ""),
        ("python", {}, ""),
        ("mine", {"python3.12": "echo Python 3.12.1"}, "mine"),
    ],
)
def test_first_fitting_python_makes_the_environment(
    name: str, others: dict[str, str], python: str, clone: Path, tools: Path
) -> None:
    add_python(clone, tools).rename(tools / name)
    for other, body in others.items():
        write_program(tools / other, body)
    done = run_script(clone / SETUP, tools=tools, PYTHON=python)
    assert done.returncode == 0, done.stderr
    assert f"({tools / name}) and torch for cpu" in done.stderr
    # The one of an activated .venv is none that could make it anew.
    activated = {"PATH": f"{clone / '.venv' / 'bin'}:{tools}", "PYTHON": python}
    done = run_script(clone / SETUP, tools=tools, **activated, UV_TORCH_BACKEND="cu126")
    assert f"({tools / name}) and torch for cu126" in done.stderr


def test_folder_that_no_environment_can_live_in_is_refused(clone: Path, tools: Path) -> None:
    renamed = clone.rename(clone.with_name("a:b"))
    done = run_script(renamed / MAIN, "--demo", tools=tools)
    assert done.returncode == 2
    assert "has a colon" in done.stderr


@pytest.mark.parametrize(
    "prepare", [lambda venv: (venv / "bin").mkdir(parents=True), lambda venv: venv.touch()]
)
def test_environment_of_somebody_else_is_left_alone(
    prepare: Callable[[Path], None], clone: Path, tools: Path
) -> None:
    add_python(clone, tools)
    prepare(clone / ".venv")
    done = run_script(clone / SETUP, tools=tools)
    assert done.returncode == 2
    assert "was not made by this project" in done.stderr
    assert not (clone / ".venv" / ".dialsum").exists()


def test_python_without_its_venv_package_names_the_package(clone: Path, tools: Path) -> None:
    add_python(clone, tools)
    (clone / "venv.fails").write_text("ensurepip is not available")
    done = run_script(clone / SETUP, tools=tools)
    assert done.returncode == 2
    assert f"sudo apt install python3.{sys.version_info[1]}-venv" in done.stderr
    # uv makes one without that package.
    write_program(tools / "uv", f'rm "{clone}/venv.fails" && exec "$5" -m venv "$6"')
    assert run_script(clone / SETUP, tools=tools).returncode == 0


GENERAL = "uv -r requirements.txt"
GPU = "uv -r requirements-gpu.txt"


@pytest.mark.parametrize(
    ("driver", "environment", "fails", "asked"),
    [
        ("", {}, [], ["uv [cpu] -r requirements.txt"]),
        ("", {}, ["torch"], ["uv [cpu] -r requirements.txt", GENERAL]),
        ("", {"UV_TORCH_BACKEND": "cu126"}, [], ["uv [cu126] -r requirements-gpu.txt"]),
        ("", {"UV_FIND_LINKS": "/wheels"}, [], [GENERAL]),
        ("", {"UV_NO_INDEX": "1"}, [], [GENERAL]),
        ("580.95.05", {}, [], [GPU]),
        ("580.95.05", {"UV_TORCH_BACKEND": "cpu"}, [], ["uv [cpu] -r requirements.txt"]),
        ("570.86.10", {}, [], ["uv [cu126] -r requirements-gpu.txt"]),
        ("570.86.10", {}, ["torch"], ["uv [cu126] -r requirements-gpu.txt", GPU]),
        ("470.256", {}, [], ["uv [cpu] -r requirements.txt"]),
        ("580.95.05", {}, ["gpu"], [GPU, GENERAL]),
        ("", {}, ["uv"], ["pip -r requirements.txt"]),
    ],
)
def test_build_of_torch_fits_the_machine(
    driver: str,
    environment: dict[str, str],
    fails: list[str],
    asked: list[str],
    clone: Path,
    tools: Path,
) -> None:
    add_python(clone, tools)
    if driver:
        add_card(tools, driver)
    for step in fails:
        (clone / f"{step}.fails").write_text("error: No solution found")
    done = run_script(clone / SETUP, tools=tools, **environment)
    assert done.returncode == 0, done.stderr
    assert calls(clone)[:-1] == asked
    # Whatever was chosen, it is whole.
    again = run_script(clone / SETUP, tools=tools, **environment)
    assert (again.returncode, again.stderr, calls(clone)) == (0, "", [])


@pytest.mark.parametrize(
    ("listing", "environment", "wanted"),
    [
        ("", {}, ["UV_SYSTEM_CERTS=1"]),
        ("global.index-url='https://u:p=q@a/s'", {}, ["UV_DEFAULT_INDEX=https://u:p=q@a/s"]),
        (
            "global.index-url='https://a/s'",
            {"UV_DEFAULT_INDEX": "https://mine"},
            ["UV_DEFAULT_INDEX=https://mine"],
        ),
        (
            "global.extra-index-url='\\nhttps://a\\nhttps://b?x=1&y=2$(exit 3)'",
            {},
            ["UV_INDEX=https://a https://b?x=1&y=2$(exit 3)", "UV_INDEX_STRATEGY=unsafe-best"],
        ),
        (":env:.find-links='/a /b c'\nglobal.find-links='/d'", {}, ["UV_FIND_LINKS=/a,/b,c\n"]),
        ("global.find-links='/d'\ninstall.find-links='/e'", {}, ["UV_FIND_LINKS=/e\n"]),
        ("global.cert='/ca.pem'\nglobal.no-index='true'", {}, ["SSL_CERT_FILE=/ca.pem"]),
        (
            "global.proxy='http://p:1'\nglobal.trusted-host='a b:80'",
            {},
            ["ALL_PROXY=http://p:1", "UV_INSECURE_HOST=a b:80"],
        ),
        ("download.find-links='/a'", {}, []),
    ],
)
def test_uv_looks_where_pip_is_told_to(
    listing: str, environment: dict[str, str], wanted: list[str], clone: Path, tools: Path
) -> None:
    add_python(clone, tools)
    (clone / "pip_config").write_text(listing + "\n", encoding="utf-8")
    done = run_script(clone / SETUP, tools=tools, **environment)
    assert done.returncode == 0, done.stderr
    handed = (clone / "uv_environment.txt").read_text(encoding="utf-8")
    for words in wanted:
        assert words in handed
    assert ("UV_SYSTEM_CERTS" in handed) is ("SSL_CERT_FILE" not in handed)
    assert "/d" not in handed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("error: Failed to install: x\n  cause: No space left on device (os error 28)", "disk"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("error: Failed to fetch: `x`\n cause: dns error", "index could not be reached"),
        ("NewConnectionError: failure in name resolution", "index could not be reached"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "global.cert"),
        ("error: No solution found when resolving dependencies", "what the installer said"),
    ],
)
@pytest.mark.parametrize("step", ["uv", "install"])
def test_failure_of_an_installer_is_a_sentence_and_is_gone_on_with(
    words: str, said: str, step: str, clone: Path, tools: Path
) -> None:
    add_python(clone, tools)
    (clone / "install.fails").write_text(words)
    (clone / f"{step}.fails").write_text(words)
    done = run_script(clone / SETUP, tools=tools)
    assert done.returncode == 2
    assert words in done.stderr and said in done.stderr
    assert "not finished. Start again to go on" in done.stderr
    assert "taking the general one" not in done.stderr or said != "disk"
    for file in ("uv.fails", "install.fails"):
        (clone / file).unlink(missing_ok=True)
    again = run_script(clone / SETUP, tools=tools)
    assert again.returncode == 0, again.stderr
    assert "environment ready" in again.stderr


@pytest.mark.parametrize("disk", [2], indirect=True)
def test_full_disk_is_a_sentence(disk: Path, clone: Path, tools: Path) -> None:
    add_python(clone, tools)
    (clone / ".venv").symlink_to(disk)
    (disk / ".dialsum").touch()
    (clone / "install.fails").write_text("x" * 4_000_000)
    done = run_script(clone / SETUP, tools=tools)
    assert done.returncode == 2
    assert "no space left on the disk" in done.stderr


def append(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")


ANEW, UPDATED, WHOLE = "making .venv with", "updating .venv", ""


@pytest.mark.parametrize(
    ("change", "main", "dev"),
    [
        (lambda _: None, WHOLE, WHOLE),
        (lambda root: append(root / "requirements.txt"), UPDATED, UPDATED),
        (lambda root: append(root / "pyproject.toml"), UPDATED, UPDATED),
        (lambda root: append(root / "requirements-dev.txt"), WHOLE, UPDATED),
        (lambda root: (root / ".venv/.dialsum-dev").unlink(), WHOLE, UPDATED),
        (lambda root: (root / ".venv/.dialsum-main").unlink(), ANEW, ANEW),
        (lambda root: (root / ".venv/.dialsum-main").write_text("cpu\nPython"), ANEW, ANEW),
        (lambda root: (root / ".venv/bin/python").unlink(), ANEW, ANEW),
    ],
    ids=["nothing", "pins", "project", "dev pins", "no tools", "no stamp", "half", "no Python"],
)
def test_only_what_is_as_it_was_installed_is_trusted(
    change: Callable[[Path], None], main: str, dev: str, finished: Path, tools: Path
) -> None:
    change(finished)
    kept = shutil.copytree(finished / ".venv", finished / "kept")
    for options, expected in (((), main), (("--dev",), dev)):
        shutil.rmtree(finished / ".venv")
        shutil.copytree(kept, finished / ".venv")
        done = run_script(finished / SETUP, *options, tools=tools)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(expected) and bool(done.stderr) is bool(expected)
        assert bool(calls(finished)) is bool(expected)


def test_environment_of_a_moved_folder_is_made_anew(finished: Path, tools: Path) -> None:
    moved = finished.rename(finished.with_name("elsewhere"))
    add_python(moved, tools)
    assert run_script(moved / SETUP, tools=tools).stderr.startswith(ANEW)


@pytest.mark.parametrize(
    ("driver", "backend", "made"),
    [("580.1", "", "cu130"), ("", "cu126", "cu126"), ("", "cpu", ""), ("470.1", "", "")],
)
def test_new_card_or_another_build_asks_for_another_environment(
    driver: str, backend: str, made: str, finished: Path, tools: Path
) -> None:
    if driver:
        add_card(tools, driver)
    done = run_script(finished / SETUP, tools=tools, UV_TORCH_BACKEND=backend)
    assert (f"torch for {made}" in done.stderr) if made else (done.stderr == "")


def test_repair_puts_every_package_back(finished: Path, tools: Path) -> None:
    done = run_script(finished / SETUP, "--repair", tools=tools)
    assert done.returncode == 0, done.stderr
    assert calls(finished) == ["uv [cpu] -r requirements.txt --force-reinstall", PROJECT]


def wait_for(path: Path, *, max_seconds: float) -> None:
    end = time.monotonic() + max_seconds
    while not path.exists():
        if time.monotonic() > end:
            pytest.fail(f"{path} was not there after {max_seconds} s")
        time.sleep(0.02)


def start(script: Path, tools: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BASH, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": str(tools), "HOME": str(tools.parent)},
        start_new_session=True,
    )


def test_second_start_waits_for_the_first_and_takes_what_it_made(clone: Path, tools: Path) -> None:
    add_python(clone, tools)
    slow = "while [[ ! -e $root/go.txt ]]; do sleep 0.05; done\nfail install"
    stand_in = (clone / "uv.txt").read_text(encoding="utf-8").replace("fail install", slow)
    (clone / "uv.txt").write_text(stand_in, encoding="utf-8")
    with start(clone / SETUP, tools) as first:
        wait_for(clone / "calls.txt", max_seconds=60)
        with start(clone / SETUP, tools) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            (clone / "go.txt").touch()
            assert second.communicate(timeout=60)[1] == ""
        assert first.wait(timeout=60) == second.returncode == 0
    assert len(calls(clone)) == 2


def test_interrupted_set_up_says_so_and_is_gone_on_with(clone: Path, tools: Path) -> None:
    add_python(clone, tools)
    stand_in = (clone / "uv.txt").read_text(encoding="utf-8")
    asleep = ': >"$root/asleep.txt"\nexec sleep 60\n'
    (clone / "uv.txt").write_text(stand_in + asleep, encoding="utf-8")
    with start(clone / SETUP, tools) as first:
        wait_for(clone / "asleep.txt", max_seconds=60)
        os.killpg(first.pid, signal.SIGINT)
        said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert "interrupted; start again to go on" in said
    (clone / "uv.txt").write_text(stand_in, encoding="utf-8")
    assert run_script(clone / SETUP, tools=tools).returncode == 0


HOLDER = """
import sys
from pathlib import Path
from dialsum.packages import use_environment
with use_environment(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def running(clone: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that uses the clone's environment and is called as a run is."""
    script = clone / "trainer.py"
    script.write_text(HOLDER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script), str(clone / ".venv")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(clone / "code")},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_packages_are_not_changed_under_a_run(finished: Path, tools: Path) -> None:
    with running(finished) as process:
        assert run_script(finished / SETUP, tools=tools).stderr == ""  # whole: used beside the run
        (finished / ".venv" / "setup.log").unlink()
        done = run_script(finished / SETUP, "--repair", tools=tools)
        assert done.returncode == 2, done.stderr
        assert f"process {process.pid}: " in done.stderr and "trainer.py" in done.stderr
        assert "Nothing was changed" in done.stderr
        assert calls(finished) == []
        assert not (finished / ".venv" / "setup.log").exists()
    # Killed: the system gave its lock back, and its number is nobody's any more.
    assert run_script(finished / SETUP, "--repair", tools=tools).returncode == 0


def test_no_run_starts_while_packages_are_changed(finished: Path) -> None:
    with (finished / ".venv" / ".dialsum-use").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script = finished / "trainer.py"
        script.write_text(HOLDER, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script), str(finished / ".venv")],
            env={"PYTHONPATH": str(finished / "code")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1 and "changing this environment now" in done.stderr


def test_dry_run_without_data_prints_the_plan_and_what_is_missing(
    finished: Path, tools: Path
) -> None:
    def files() -> list[Path]:
        return sorted(path for path in finished.rglob("*") if "__pycache__" not in path.parts)

    before = files()
    done = run_script(finished / MAIN, "--dry-run", tools=tools)
    assert done.returncode == 2, done.stderr
    assert "7 experiments, as configured\n" in done.stdout
    for label in ("mT5_XLSum_1단계", "eenzeenee_T5", "배치_최적화"):
        assert label in done.stdout
    assert "there is no folder data." in done.stderr and "--data-dir DIR" in done.stderr
    assert "no NVIDIA GPU is visible" in done.stderr
    assert "would be refused" not in done.stdout and "2 problems found" in done.stderr
    assert files() == before


def test_wrong_value_is_said_beside_what_is_missing(finished: Path, tools: Path) -> None:
    done = run_script(finished / MAIN, "--set", "training.lr=1", "--only", "1", tools=tools)
    assert done.returncode == 2
    assert "3 problems found" in done.stderr
    for said in ("training.lr)", "there is no folder data.", "no NVIDIA GPU"):
        assert said in done.stderr


def test_arguments_that_pytest_refuses_are_no_failed_tests(finished: Path, tools: Path) -> None:
    done = run_script(finished / "run_tests.sh", "--slow", tools=tools)
    assert done.returncode == 2, done.stderr
    assert "unrecognized arguments: --slow" in done.stderr
    assert done.stderr.count("no test was run") == 1
    assert "--fast, --long, --lint" in done.stderr
    assert "failed" not in done.stderr


def test_what_is_started_may_keep_bytecode_and_imports_no_folder_of_a_shell(
    finished: Path, tools: Path
) -> None:
    runner = finished / "code" / "auto_experiment_runner.py"
    runner.write_text("import os\nprint(sorted(n for n in os.environ if 'PYTHON' in n))\n")
    (finished / MAIN).write_text(
        (finished / MAIN).read_text(encoding="utf-8").replace("PYTHONPATH=", "true || X=")
    )
    given = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/x", "PYTHONHOME": "/y"}
    done = run_script(finished / MAIN, "--demo", tools=tools, **given)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.slow
def test_environment_killed_while_installing_is_made_anew(clone: Path) -> None:
    site = (
        clone
        / ".venv"
        / "lib"
        / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        / "site-packages"
    )
    command = [BASH, str(clone / SETUP)]
    environment = {**os.environ, "PYTHON": sys.executable, "CI": "true"}
    environment.pop("PYTHONPATH", None)
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    wait_for(site / "torch" / "lib", max_seconds=900)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (clone / ".venv" / ".dialsum-main").exists()

    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert second.stderr.startswith(ANEW)
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

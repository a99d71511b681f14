"""The runner's command line: options, exit statuses, a bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from batch_world import REPOSITORY, write_configs, write_data
from test_config_files import experiments_of

RUNNER = REPOSITORY / "code" / "auto_experiment_runner.py"


def run(
    *arguments: str,
    script: Path = RUNNER,
    python: tuple[str, ...] = (sys.executable,),
    cwd: Path | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the runner, or another script."""
    return subprocess.run(
        [*python, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **variables},
    )


SEVEN = [str(path) for path in experiments_of(REPOSITORY / "run_main_7_experiments.sh")]
BARE = (sys.executable, "-I", "-S")
"""No site-packages at all, no PYTHONPATH either."""


OPTIONS = """--config -1 --one-epoch --demo --data-dir --dry-run --only --set --stop-on-error
--output-dir --runs-dir --log-dir --seed --explain"""


def test_help_needs_no_package_and_names_every_option() -> None:
    said = run("--help", python=BARE).stdout
    assert [option for option in OPTIONS.split() if option not in said] == []


BAD = [
    ([], "--config"),
    (["--config"], "expected at least one argument"),
    (["--config", "nowhere.yaml"], "nowhere.yaml"),
    (["--config", "a.yaml", "--only", "2"], "the experiments are 1 a"),
    (["--config", "a.yaml", "a.yaml"], "an experiment named 'a' is in this batch already"),
    (["--config", "a.yaml", "--set", "training.learnig_rate=1"], "learning_rate"),
    (["--config", "a.yaml", "--set", "rubbish"], "rubbish"),
    (["--config", "a.yaml", "--seed", "x"], "--seed"),
    (["--config", "a.yaml", "--data-dir", "nodata"], "nodata"),
    (["--config", "a.yaml", "--frobnicate"], "--frobnicate"),
    (["--config", "a.yaml", "--dem"], "--dem"),
    (["--started-as"], "has no option --started-as"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_arguments_are_exit_2_without_a_traceback(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    write_configs(tmp_path, "a")
    data = [] if "--data-dir" in arguments else ["--data-dir", str(write_data(tmp_path / "data"))]
    out = ["--output-dir", str(tmp_path / "out")]
    done = run(*arguments, *data, *out, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


TRAINER = REPOSITORY / "code" / "trainer.py"
COLLECT = REPOSITORY / "scripts" / "collect_results.py"
MISSPELT = [
    (
        RUNNER,
        ["--one-epok"],
        "auto_experiment_runner.py has no option --one-epok; did you mean --one-epoch?",
    ),
    (RUNNER, ["--config=a.yaml", "--datadir", "x"], "no option --datadir; did you mean --data-dir"),
    (RUNNER, ["--config=a.yaml", "--onyl=1,4"], "no option --onyl; did you mean --only?"),
    (RUNNER, ["--config=a.yaml", "--Dry_Run"], "no option --Dry_Run; did you mean --dry-run?"),
    (RUNNER, ["--config=a.yaml", "--dem"], "no option --dem; did you mean --demo?"),
    (RUNNER, ["--config=a.yaml", "-demo"], "no option -demo; did you mean --demo?"),
    (RUNNER, ["--config=a.yaml", "demo"], "no argument demo; did you mean --demo?"),
    (RUNNER, ["--config=a.yaml", "--qqq"], "auto_experiment_runner.py has no option --qqq.\n"),
    (RUNNER, ["--confg", "a.yaml", "--sed", "3"], "--sed; did you mean --seed?"),
    (TRAINER, ["--confg", "a.yaml"], "trainer.py has no option --confg; did you mean --config?"),
    (TRAINER, ["--config", "a.yaml", "--output", "x"], "--output; did you mean --output-dir?"),
    (
        COLLECT,
        ["--outptu", "x.csv"],
        "collect_results.py has no option --outptu; did you mean --output?",
    ),
]
"""Script, its options, and what must be said of them."""


@pytest.mark.parametrize(("script", "arguments", "said"), MISSPELT)
def test_a_misspelt_option_is_named_with_its_command_and_the_nearest_real_one(
    tmp_path: Path, script: Path, arguments: list[str], said: str
) -> None:
    done = run(*arguments, script=script, python=BARE, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "usage:" not in done.stderr
    assert "--help shows every option" in done.stderr


def test_one_run_alone_is_refused_as_a_batch_is_where_there_is_no_gpu(tmp_path: Path) -> None:
    config = ["--config", str(REPOSITORY / "config" / "experiments" / "01_mt5_xlsum.yaml")]
    sample = ["--data-dir", str(REPOSITORY / "data" / "sample")]
    out = ["--output-dir", str(tmp_path / "out")]
    refused = []
    for script in (RUNNER, TRAINER):
        python = (sys.executable, "-X", "importtime")
        where = {"cwd": tmp_path, "PATH": str(tmp_path)}
        done = run(*config, *sample, *out, script=script, python=python, **where)
        assert done.returncode == 2
        assert "| torch\n" not in done.stderr
        refused.append(done.stderr.partition("error: ")[2].partition("  GPU: ")[2].split("\n")[:4])
    assert refused[0] == refused[1]
    words = "\n".join(refused[0])
    for expected in ("no NVIDIA GPU is visible", "--set general.device=cpu", "--demo"):
        assert expected in words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", [RUNNER, TRAINER])
def test_wrong_values_missing_data_and_no_gpu_are_said_together(
    tmp_path: Path, script: Path
) -> None:
    config = ["--config", str(REPOSITORY / "config" / "experiments" / "01_mt5_xlsum.yaml")]
    wrong = ["--set", "foo", "--set", "training.lr=1", "--data-dir", "nodata"]
    done = run(*config, *wrong, script=script, cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: 4 problems found")
    for said in ('"foo"', "training.lr)", "there is no folder nodata", "no NVIDIA GPU"):
        assert said in done.stderr
    # A value that is right counts beside one that is wrong.
    done = run(
        *config,
        *wrong,
        "--set",
        "general.device=cpu",
        script=script,
        cwd=tmp_path,
        PATH=str(tmp_path),
    )
    assert done.stderr.startswith("error: 3 problems found")


def test_dry_run_of_the_seven_writes_nothing_and_needs_no_gpu(tmp_path: Path) -> None:
    before = sorted(REPOSITORY.glob("*"))
    data = ["--data-dir", str(write_data(tmp_path / "data"))]
    out = ["--output-dir", str(tmp_path / "out")]
    done = run("--config", *SEVEN, *data, *out, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "7 experiments, as configured" in done.stdout
    assert "nothing was written" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert sorted(REPOSITORY.glob("*")) == before


def test_dry_run_of_the_demo_shows_what_it_replaces(tmp_path: Path) -> None:
    out = ["--output-dir", str(tmp_path / "out"), "--only", "5"]
    done = run("--config", *SEVEN, *out, "--dry-run", "--demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 experiment of 7 (--only 5), demo on tiny checkpoints" in done.stdout
    assert "learning_rate 3e-05 -> " in done.stdout
    assert "5 starts from " in done.stdout and "/demo/checkpoints/bart" in done.stdout
    assert "tiny checkpoints will be made" in done.stdout
    assert not (tmp_path / "out").exists()


def test_explain_says_where_each_value_was_written(tmp_path: Path) -> None:
    [config] = write_configs(tmp_path, "a")
    done = run("--config", str(config), "--explain", "--seed", "9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["training.learning_rate", "0.001", "a.yaml:13"] in lines
    assert ["training.seed", "9", "--set"] in lines


def test_neither_runner_nor_its_modules_load_torch(tmp_path: Path) -> None:
    [config] = write_configs(tmp_path, "a")
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['x', '--config', {str(config)!r}, '--dry-run', '--data-dir',"
        f" {str(write_data(tmp_path / 'data'))!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(RUNNER)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print('status', end.code)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'peft'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["status 0", "heavy []"]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


SCRIPTS = [
    ("code/auto_experiment_runner.py", ["--config", "a.yaml"]),
    ("code/trainer.py", ["--config", "a.yaml"]),
    ("scripts/collect_results.py", ["--output", "x.csv"]),
    ("scripts/score.py", ["a.csv", "b.csv"]),
]


@pytest.mark.parametrize(("script", "arguments"), SCRIPTS)
def test_an_interpreter_without_the_packages_names_the_one_that_works(
    bare_python: str, script: str, arguments: list[str]
) -> None:
    done = run(*arguments, script=Path(script), python=(bare_python, "-E"), cwd=REPOSITORY)
    assert done.returncode == 2
    assert "lacks packages of this project" in done.stderr
    assert f".venv/bin/python {script} {' '.join(arguments)}" in done.stderr
    assert "Traceback" not in done.stderr

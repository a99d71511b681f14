"""What is checked before a start by the standard library alone: data, card, driver, versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dialsum.errors import UnfitError
from dialsum.run import first_look, pip_settings, versions
from dialsum.run.first_look import SmiGpu


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with sample data and no data of the user's."""
    for folder in ("data/sample", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        for name in first_look.DATA_FILES:
            (tmp_path / folder / name).touch()
    return tmp_path


def make_smi(folder: Path, *, output: str, status: int = 0) -> dict[str, str]:
    """Put an nvidia-smi that prints output into folder; return an environment that finds it."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!{shutil.which('bash')}\nprintf '%b' '{output}'\nexit {status}\n", encoding="utf-8"
    )
    program.chmod(0o755)
    return {"PATH": str(folder)}


RTX = "NVIDIA GeForce RTX 3090, 580.95.05\\n"


@pytest.mark.parametrize(
    ("arguments", "card", "expected"),
    [
        ([], "", ["data: ", "GPU: "]),
        ([], RTX, ["data: "]),
        (["--data-dir", "{mine}"], "", ["GPU: "]),
        (["--data-dir={mine}", "--one-epoch"], RTX, []),
        (["--data-dir", "{mine}", "--set", "general.device=cpu"], "", []),
        (["--data-dir", "{mine}", "--set=general.device=mps"], "", []),
        (["--data-dir", "{mine}", "--set", "general.device=cuda"], "", ["GPU: "]),
        (["--data-dir", "{mine}", "--dry-run"], "", []),
        (["--dry-run"], "", ["data: "]),
        (["--explain"], "", []),
        (["--demo"], "", []),
        (["--demo", "--data-dir", "{mine}"], "", []),
        (["--demo", "--data-dir", "{mine}/none"], "", ["data: there is no folder"]),
        (["--demo", "--data-dir", "{mine}/train.csv"], "", ["data: "]),
        (["--demo", "--unknown", "-1"], "", []),
    ],
)
def test_missing_things_are_listed_together(
    arguments: list[str], card: str, expected: list[str], project: Path
) -> None:
    environment = make_smi(project / "bin", output=card) if card else {"PATH": str(project)}
    filled = [argument.format(mine=project / "mine") for argument in arguments]
    problems = first_look.find_missing(filled, repository=project, environment=environment)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_only_the_files_that_are_missing_are_named(project: Path) -> None:
    (project / "mine" / "dev.csv").unlink()
    (problem,) = first_look.find_data_problems(project / "mine")
    assert problem.startswith("data: dev.csv not found")


@pytest.mark.parametrize(
    ("output", "status", "hidden", "names", "why"),
    [
        ("", 0, None, [], "ends with 0"),
        (
            "Failed to initialize NVML: Driver/library version mismatch\\n",
            18,
            None,
            [],
            "version mismatch",
        ),
        (RTX, 0, "-1", [], "hides every card"),
        (RTX, 0, "", [], "hides every card"),
        (RTX, 0, "0", ["NVIDIA GeForce RTX 3090"], ""),
        (RTX + "Tesla T4, 580.95.05\\n", 0, None, ["NVIDIA GeForce RTX 3090", "Tesla T4"], ""),
    ],
)
def test_nvidia_smi_is_believed_only_when_it_names_cards(
    output: str, status: int, hidden: str | None, names: list[str], why: str, tmp_path: Path
) -> None:
    environment = make_smi(tmp_path / "bin", output=output, status=status)
    if hidden is not None:
        environment["CUDA_VISIBLE_DEVICES"] = hidden
    answer = first_look.ask_nvidia_smi(environment)
    assert [gpu.name for gpu in answer.gpus] == names
    assert why in answer.why_none
    assert bool(answer.gpus) != bool(answer.why_none)


@pytest.mark.parametrize(
    ("driver", "cuda", "said"),
    [
        ("", "13.0", []),
        ("580.65.06", "13.0", []),
        ("610.10", "13.0", []),
        ("550.54.14", None, []),
        ("550.54.14", "12.6", []),
        ("550.54.14", "13.0", ["550.54.14", "580", "UV_TORCH_BACKEND=cu126", "nvidia-driver-580"]),
        ("470.256", "13.0", ["470.256", "nvidia-driver-580"]),
        ("470.256", "12.6", ["470.256", "nvidia-driver-525"]),
    ],
)
def test_driver_too_old_for_torch_is_said_with_the_way_out(
    driver: str, cuda: str | None, said: list[str]
) -> None:
    problems = first_look.find_driver_problems([SmiGpu("RTX 3090", driver)], cuda)
    assert len(problems) == bool(said)
    for words in said:
        assert words in problems[0]
    if driver.startswith("470"):
        assert "UV_TORCH_BACKEND" not in problems[0]


def test_no_card_has_no_driver_to_be_old() -> None:
    assert first_look.find_driver_problems([], "13.0") == []


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        (None, None),
        ("", None),
        (
            "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n",
            None,
        ),
        ("__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = '13.0'\n", "13.0"),
        ('cuda = "12.6"\n', "12.6"),
    ],
)
def test_cuda_of_torch_is_read_without_importing_it(
    text: str | None, cuda: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "version.py").write_text(text, encoding="utf-8")
    assert first_look.installed_torch_cuda(tmp_path) == cuda


@pytest.mark.parametrize(
    ("backend", "installed", "finished", "cuda"),
    [
        ("", None, False, first_look.PINNED_TORCH_CUDA),
        ("", "12.6", True, "12.6"),
        ("", "12.6", False, first_look.PINNED_TORCH_CUDA),
        ("cu126", "13.0", True, "12.6"),
        ("cpu", "13.0", True, None),
        ("auto", None, False, first_look.PINNED_TORCH_CUDA),
    ],
)
def test_cuda_that_the_next_start_will_use(
    backend: str, installed: str | None, finished: bool, cuda: str | None, tmp_path: Path
) -> None:
    torch = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "torch"
    torch.mkdir(parents=True)
    if installed:
        (torch / "version.py").write_text(f"cuda = '{installed}'\n", encoding="utf-8")
    if finished:
        (tmp_path / ".venv" / ".dialsum-ready").touch()
    assert first_look.expected_torch_cuda(tmp_path, {"UV_TORCH_BACKEND": backend}) == cuda


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


@pytest.mark.parametrize(
    ("listing", "settings"),
    [
        ("", {}),
        ("no equals sign\nglobalindex-url='x'\n", {}),
        ("global.index-url='https://a/simple'\n", {"index-url": "https://a/simple"}),
        ("global.find-links='\\n/a\\n/b'\n", {"find-links": "\n/a\n/b"}),
        ("global.timeout='5'\ninstall.timeout='6'\n", {"timeout": "6"}),
        (
            "install.timeout='6'\nglobal.timeout='5'\n:env:.default-timeout='180'\n",
            {"timeout": "180"},
        ),
        ("download.timeout='7'\n", {}),
        ("global.index-url='https://u:p=q@a/s'\n", {"index-url": "https://u:p=q@a/s"}),
    ],
)
def test_listing_of_pip_is_read_in_its_own_order(listing: str, settings: dict[str, str]) -> None:
    assert pip_settings.parse_pip_config(listing) == settings


SYSTEM = {"UV_SYSTEM_CERTS": "1"}


@pytest.mark.parametrize(
    ("settings", "environment", "wanted"),
    [
        ({}, {}, SYSTEM),
        ({"disable-pip-version-check": "1"}, {}, SYSTEM),
        ({"index-url": "https://a/simple"}, {}, SYSTEM | {"UV_DEFAULT_INDEX": "https://a/simple"}),
        ({"index-url": "https://a/simple"}, {"UV_DEFAULT_INDEX": "https://mine"}, SYSTEM),
        (
            {"extra-index-url": "https://a\n https://b"},
            {},
            SYSTEM | {"UV_INDEX": "https://a https://b", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        (
            {"find-links": "wheels /opt/w https://a"},
            {},
            SYSTEM | {"UV_FIND_LINKS": "/here/wheels,/opt/w,https://a"},
        ),
        (
            {"cert": "ca.pem", "client-cert": "/me.pem"},
            {},
            {"SSL_CERT_FILE": "/here/ca.pem", "SSL_CLIENT_CERT": "/me.pem"},
        ),
        ({"trusted-host": "a b:80"}, {}, SYSTEM | {"UV_INSECURE_HOST": "a b:80"}),
        (
            {"no-index": "true", "no-cache-dir": "1", "pre": "yes"},
            {},
            SYSTEM | {"UV_NO_INDEX": "1", "UV_NO_CACHE": "1", "UV_PRERELEASE": "allow"},
        ),
        ({"no-index": "false", "no-cache-dir": "0", "pre": ""}, {}, SYSTEM),
        ({"timeout": "180"}, {}, SYSTEM | {"UV_HTTP_TIMEOUT": "180"}),
        ({"timeout": "0.2"}, {}, SYSTEM | {"UV_HTTP_TIMEOUT": "1"}),
        ({"timeout": "soon"}, {}, SYSTEM),
        (
            {"proxy": "http://p:1"},
            {"HTTPS_PROXY": "http://q:2"},
            SYSTEM | {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"},
        ),
        ({"constraint": "c.txt"}, {}, SYSTEM | {"UV_CONSTRAINT": "/here/c.txt"}),
        ({"keyring-provider": "import"}, {}, SYSTEM | {"UV_KEYRING_PROVIDER": "subprocess"}),
        ({"keyring-provider": "disabled"}, {}, SYSTEM | {"UV_KEYRING_PROVIDER": "disabled"}),
    ],
)
def test_settings_of_pip_are_said_in_the_words_of_uv(
    settings: dict[str, str], environment: dict[str, str], wanted: dict[str, str]
) -> None:
    assert (
        pip_settings.translate_pip_settings(settings, environment, folder=Path("/here")) == wanted
    )


def test_shell_can_evaluate_what_pip_is_told(repository: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(repository / "code"),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": "https://a/s?x=1&y='2' https://b $(exit 3)",
    }
    script = (
        'set -eu; lines="$("$0" -P -m dialsum.run.pip_settings)"; eval "$lines"; '
        'printf "%s|%s|%s" "$UV_INDEX" "$UV_INDEX_STRATEGY" "$pip_settings"'
    )
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", script, sys.executable],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout == "https://a/s?x=1&y='2' https://b $(exit 3)|unsafe-best-match|extra-index-url"
    )

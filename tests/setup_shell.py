"""What the tests of the set-up share: a copy to run it in, and machines with stand-in installers.

The stand-in Python makes environments at once, with pip and uv that install nothing; what they are
asked goes to calls.txt in the copy, and files of these names there say how they answer:

    pip_config      what `pip config list` prints
    venv.fails, uv.fails, install.fails, gpu.fails, torch.fails   words of that step's failure

Must not know what any test asserts.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

BASH = shutil.which("bash") or "/bin/bash"
TOOLS = (
    "awk cat cp cut df dirname env find grep head ls mkdir mv rm sed sleep sort tail tee touch tr"
)
COPIED = (
    "run_main_7_experiments.sh",
    "run_tests.sh",
    "pyproject.toml",
    "requirements.txt",
    "requirements-gpu.txt",
    "requirements-dev.txt",
    "requirements-ray.txt",
    "scripts/setup_environment.sh",
    "code",
    "config",
)
REAL = shlex.quote(sys.executable)
STAND_IN_PYTHON = f"""
root="$(cat "${{0%/*}}/root.txt")"
fail() {{ if [[ -e $root/$1.fails ]]; then cat "$root/$1.fails" >&2; exit 1; fi; }}
case "$*" in
  "-m venv "*)
    fail venv
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    cp "${{0%/*}}/root.txt" "$3/bin"
    touch "$3/pyvenv.cfg"
    ;;
  "-m pip config list") cat "$root/pip_config" ;;
  "-m pip install -q uv=="*)
    fail uv
    cp "$root/uv.txt" "${{0%/*}}/uv"
    ;;
  "-m pip install"*)
    echo "pip ${{*:4}}" >>"$root/calls.txt"
    fail install
    ;;
  *) exec {REAL} FLAGS "$@" ;;
esac
"""
STAND_IN_UV = f"""#!{BASH}
root="$(cat "${{0%/*}}/root.txt")"
echo "uv ${{UV_TORCH_BACKEND:+[$UV_TORCH_BACKEND] }}${{*:5}}" >>"$root/calls.txt"
env | grep -E '^(UV|SSL|ALL_PROXY)' | sort >"$root/uv_environment.txt"
fail() {{ if [[ -e $root/$1.fails ]]; then cat "$root/$1.fails" >&2; exit 1; fi; }}
if [[ -n ${{UV_TORCH_BACKEND:-}} ]]; then fail torch; fi
case "$*" in *requirements-gpu.txt*) fail gpu ;; esac
fail install
"""


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
    for name in TOOLS.split():
        (folder / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    return folder


def write_program(path: Path, body: str) -> Path:
    """Write a script of bash that can be run by name; return its path."""
    path.write_text(f"#!{BASH}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def add_python(clone: Path, tools: Path, *, packages: bool = False) -> Path:
    """Put a stand-in python3.11 on the PATH and return it.

    Args:
        packages: whether what it runs finds the packages of this environment.
    """
    (tools / "root.txt").write_text(f"{clone}\n", encoding="utf-8")
    (clone / "pip_config").touch()
    (clone / "uv.txt").write_text(STAND_IN_UV, encoding="utf-8")
    (clone / "uv.txt").chmod(0o755)
    return write_program(
        tools / "python3.11", STAND_IN_PYTHON.replace("FLAGS", "" if packages else "-S")
    )


def add_card(tools: Path, driver: str) -> None:
    """Put an nvidia-smi on the PATH that names one card with that driver."""
    write_program(
        tools / "nvidia-smi",
        'if [[ $1 == -L ]]; then echo "GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1)"\n'
        f'else echo "NVIDIA GeForce RTX 3090, {driver}"; fi',
    )


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


def calls(clone: Path) -> list[str]:
    """Return what the stand-in installers were asked since the last time, and forget it."""
    path = clone / "calls.txt"
    said = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return said

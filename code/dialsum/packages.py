"""The packages of the environment: equal to their pins, and not changed while a program uses them.

Two locks of the system, which go with the process however it ends, lie in a .venv that
scripts/setup_environment.sh made. Standard library only: the set-up runs this as a module to take
both. Must not install anything, nor know what a program does with the packages.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from dialsum.errors import EXIT_OK, UnfitError, run_script

REPAIR = "bash scripts/setup_environment.sh --repair"
"""The command that puts every pin back; run in the project's folder."""
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+]+)\s*(#|$)")
SETUP_LOCK = ".dialsum"
"""One set-up at a time holds it. Only an environment that the set-up made has it; others are
nobody's to change."""
USE_LOCK = ".dialsum-use"
"""Programs share it, the set-up takes it alone. Each program adds its process number, for whoever
is refused."""


PACKAGES = {
    **{
        name: name
        for name in (
            "torch",
            "transformers",
            "peft",
            "bitsandbytes",
            "datasets",
            "accelerate",
            "unsloth",
            "numpy",
            "tokenizers",
            "sentencepiece",
            "safetensors",
            "wandb",
        )
    },
    "python-mecab-ko": "mecab",
    "python-mecab-ko-dic": "mecab_ko_dic",
}
"""The packages that decide a result, each with the name that it is imported by."""


def find_version_problems(requirements: Path) -> list[str]:
    """Compare this interpreter's packages with the pins; one sentence for each that differs.

    A local part (`2.13.0+cpu`) is another build of the same version and no difference; a line that
    is no exact pin asks for no version.
    """
    problems = []
    for number, line in enumerate(requirements.read_text(encoding="utf-8").splitlines(), start=1):
        if not (pin := PIN.match(line)):
            continue
        name, pinned = pin[1], pin[2]
        try:
            # None where a damaged installation has lost its description.
            installed = str(version(name))
            if installed.split("+")[0] == pinned.split("+")[0]:
                continue
            found = f"{name} {installed} is installed"
        except PackageNotFoundError:
            found = f"{name} is not installed"
        problems.append(
            f"{found}, {requirements.name}:{number} pins {pinned}; put it back: {REPAIR}"
        )
    return problems


def find_shadowed_packages() -> list[str]:
    """Say which packages Python would import from elsewhere than where they are installed.

    Their recorded version would be that of a package which did not run. Nothing is imported.
    """
    problems = []
    for package, module in PACKAGES.items():
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            continue
        # An editable install stands elsewhere by the user's wish.
        if "editable" in (installed.read_text("direct_url.json") or ""):
            continue
        folder = Path(str(installed.locate_file(""))).resolve()
        spec = find_spec(module)
        places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
        found = next((Path(place).resolve() for place in places if place), None)
        if found is not None and folder not in found.parents:
            problems.append(
                f"{found}: Python would import this in place of {package} {installed.version}, "
                f"which is installed in {folder}; rename it or move it away"
            )
    return problems


@contextmanager
def use_environment(folder: Path | None = None) -> Iterator[None]:
    """Keep the set-up from changing the environment until the block ends.

    Does nothing in an environment that the set-up did not make, nor where no lock can be had.

    Args:
        folder: the environment; this interpreter's own when absent.

    Raises:
        UnfitError: the set-up is changing it now.
    """
    folder = folder or Path(sys.prefix)
    if not (folder / SETUP_LOCK).exists():
        yield
        return
    try:
        lock = (folder / USE_LOCK).open("ab", buffering=0)
    except OSError:
        yield  # an environment that cannot be written cannot be changed either
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            lock.write(f"{os.getpid()}\n".encode())
        except BlockingIOError:
            raise UnfitError(
                f"{folder}: the set-up is changing this environment now; start again when it "
                "has ended. Nothing was started."
            ) from None
        except OSError:
            pass  # a file system without locks, or a full disk: the run goes on without
        yield


def main(argv: Sequence[str] | None) -> int:
    """Lock one of the descriptors that the set-up opened, for as long as the set-up keeps it open.

    `wait N`: until no other set-up holds SETUP_LOCK; `claim N`: USE_LOCK, at once or not at all.

    Raises:
        UnfitError: a program uses the environment.
    """
    action, number = sys.argv[1:] if argv is None else argv
    descriptor = int(number)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if action == "claim":
            raise UnfitError(
                ".venv is in use; its packages cannot be changed while this runs in it:\n"
                + "".join(f"    {user}\n" for user in _list_users(descriptor))
                + "  Wait for its end, or stop it, then start again. Nothing was changed."
            ) from None
        print(
            "another start is setting up this environment; waiting for it to end",
            file=sys.stderr,
            flush=True,
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
    return EXIT_OK


def _list_users(descriptor: int) -> list[str]:
    """Return one line for each program that said that it runs in the environment, and does."""
    size = os.fstat(descriptor).st_size
    found = []
    for pid in sorted({int(word) for word in os.pread(descriptor, size, 0).split()}):
        try:
            os.kill(pid, 0)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except ProcessLookupError:
            continue
        except OSError:
            words = ""  # of another user, or no /proc here
        # A number that has gone to another program since is no user of the environment.
        if not words or "trainer.py" in words or "auto_experiment_runner.py" in words:
            found.append(f"process {pid}: {words[:160]}")
    return found or ["a process that did not leave its number"]


if __name__ == "__main__":
    run_script(main)

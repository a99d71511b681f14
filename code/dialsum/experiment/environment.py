"""What a run ran on: versions, machine, commit and command line, for environment.json.

Must not know the run itself.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dialsum.environment_variables import record_variables
from dialsum.paths import PROJECT_ROOT, RunPaths, relative
from dialsum.record import SCHEMA_VERSION

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


def describe_environment(
    *, started: datetime, paths: RunPaths, seed: int, devices: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the record of this machine and these libraries.

    Args:
        started: when the run began; names its folder once a newer run replaces it.
        paths: the run's; what will stand as its model is known as its own from its first moment.
        devices: as dialsum.machine.devices lists them.
    """
    versions = {}
    for package, module in PACKAGES.items():
        with suppress(metadata.PackageNotFoundError):
            # What was imported says so itself; what comes later is what stands here
            # (find_shadowed_packages).
            imported = getattr(sys.modules.get(module), "__version__", None)
            versions[package] = str(imported or metadata.version(package))
    return {
        "schema_version": SCHEMA_VERSION,
        "started_at": started.isoformat(timespec="seconds"),
        "seed": seed,
        "model": relative(paths.model, paths.folder),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "devices": devices,
        "commit": _commit(),
        "argv": sys.argv,
        "variables": record_variables(os.environ),
    }


def find_shadowed_packages() -> list[str]:
    """Say which packages Python would import from elsewhere than where they are installed.

    Their recorded version would be that of a package which did not run. Nothing is imported.
    """
    problems = []
    for package, module in PACKAGES.items():
        try:
            installed = metadata.distribution(package)
        except metadata.PackageNotFoundError:
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


def _commit() -> str | None:
    """Return the project's commit, with `+changes` where files differ from it; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
        return f"{commit}+changes" if changes else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(PROJECT_ROOT), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()

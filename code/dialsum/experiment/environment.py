"""What a run ran on: versions, machine, commit and command line, for environment.json.

Must not know the run itself.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dialsum.paths import PROJECT_ROOT, RunPaths
from dialsum.record.read import SCHEMA_VERSION

PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "datasets", "accelerate", "unsloth", "numpy",
    "tokenizers", "sentencepiece", "python-mecab-ko", "python-mecab-ko-dic", "wandb",
)


def describe_environment(
    *, started: datetime, paths: RunPaths, seed: int, devices: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the record of this machine and these libraries.

    Args:
        started: when the run began; names its folder once a newer run replaces it.
        paths: the run's; what will stand as its model is known as its own from its first moment.
        devices: as dialsum.device lists them.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "schema_version": SCHEMA_VERSION,
        "started_at": started.isoformat(timespec="seconds"), "seed": seed,
        "model": Path(os.path.relpath(paths.model, paths.folder)).as_posix(),
        "python": platform.python_version(), "platform": platform.platform(),
        "cpu_count": os.cpu_count(), "packages": versions, "devices": devices,
        "commit": _commit(), "argv": sys.argv,
    }


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
        capture_output=True, text=True, check=True, timeout=10,
    )
    return done.stdout.strip()

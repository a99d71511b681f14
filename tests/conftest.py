"""Fixtures that many tests share: where the project is, and the real data beside it, if any."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapted_models import Build, make_build
from setup_shell import copy_setup, link_tools
from small_models import KINDS, Checkpoints, train_sample_tokenizer, write_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests run beside each other: threads that spin while they wait would take the processors from one
# another. On a quiet machine spinning is the faster way, so a run by itself keeps it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Signals that whatever started the tests ignores (nohup, a background job) would stay ignored in
# the processes that are asked to stop.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and tokenizers beside the checkout; skips where there is none."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data" / "ko" / "train.csv").is_file():
        pytest.skip(f"no real data at {folder}: this test measures on it and nothing stands in")
    return folder


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of so many MiB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """A copy of what the set-up needs, below a folder with a space and Korean letters."""
    return copy_setup(repository, tmp_path / "새 폴더" / "dialsum")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for the PATH that holds the usual commands, and no Python."""
    return link_tools(tmp_path / "bin")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Return the folder of a sort of checkpoint, written once; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizers = {kind: train_sample_tokenizer(kind) for kind in ("unigram", "bpe")}

    def folder(sort: str, file: str = "safetensors") -> Path:
        place = root / f"{sort}_{file}"
        if not place.is_dir():
            write_checkpoint(place, sort, tokenizer=tokenizers[KINDS[sort]], file=file)
        return place

    return folder


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return the maker of adapted models; each call loads one anew."""
    return make_build(tmp_path_factory.mktemp("adapted"))

"""Checkpoints of the Hugging Face hub: found in its cache, or downloaded into it, at one commit.

Only the files that a run reads are fetched, and one format of weights. Must not import a library
that loads models.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Model
from dialsum.errors import UnfitError, first_line
from dialsum.models.checkpoint_files import (
    ADAPTER,
    CONFIG,
    choose_files,
    find_absent_files,
    weight_files,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

HUB = "https://huggingface.co"
SECONDS_FOR_AN_ANSWER = 30.0
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", flags=re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_offline(environment: Mapping[str, str]) -> bool:
    """Say whether the network is forbidden, by the hub's own variable."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def find_hub_cache(environment: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's library keeps downloads, by its own rules."""
    if cache := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    home = (
        environment.get("HF_HOME")
        or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    )
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def find_snapshot(name: str, revision: str | None, environment: Mapping[str, str]) -> Path | None:
    """Return the folder of a checkpoint in the hub's cache; None where it is absent or not whole.

    Args:
        revision: commit, branch or tag; None stands for the main branch.
        environment: environment variables, which say where the cache is.
    """
    folder = find_hub_cache(environment) / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    reference = folder / "refs" / commit
    if not COMMIT.fullmatch(commit):
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="ascii", errors="replace").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() and not find_absent_files(snapshot) else None


def fetch_snapshot(
    asked: Model, *, environment: Mapping[str, str], say: Callable[[str], object] = print
) -> Path:
    """Return the folder of a hub checkpoint: from the cache where it is whole, else downloaded.

    Args:
        asked: its name as checkpoint, its revision, and whether its own code is wanted.
        environment: environment variables: cache, endpoint, token, whether there is a network.
        say: told what is downloaded, and how much, before it is.

    Raises:
        UnfitError: no such name or revision, no leave, no network, too small a disk; what to do.
    """
    name, revision = asked.checkpoint, asked.revision
    place = f"model.checkpoint {name}"
    if found := find_snapshot(name, revision, environment):
        return found
    if not NAME.fullmatch(name):
        raise UnfitError(f"{place}: no hub name, which is OWNER/NAME of letters, digits, - _ .")
    if is_offline(environment):
        raise UnfitError(explain_offline(name, environment))
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    endpoint = environment.get("HF_ENDPOINT") or HUB
    token = environment.get("HF_TOKEN") or None
    cache = find_hub_cache(environment)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info = HfApi(endpoint=endpoint, token=token).model_info(
            name, revision=revision, files_metadata=True, timeout=SECONDS_FOR_AN_ANSWER
        )
        wanted = _choose(info, asked)
        _check_space(info, wanted, cache, place=place, say=say)
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache,
                allow_patterns=wanted,
                endpoint=endpoint,
                token=token,
            )
        )
    except UnfitError:
        raise
    except Exception as error:  # the library raises of many kinds, those of its HTTP client too
        explained = _explain(error, asked, endpoint=endpoint, cache=cache)
        if explained is None:
            raise
        raise UnfitError(f"{place}: {explained}") from error


def _cache_variable(environment: Mapping[str, str]) -> str:
    """Return the variable that decides where the hub's cache is."""
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    return next((name for name in names if environment.get(name)), "HF_HOME")


def explain_offline(name: str, environment: Mapping[str, str]) -> str:
    """Say that a checkpoint is not in the cache, whole, and may not be downloaded."""
    return (
        f"model.checkpoint {name}: not in the cache {find_hub_cache(environment)}, or not all of "
        "it, and HF_HUB_OFFLINE forbids its download; unset HF_HUB_OFFLINE, set "
        f"{_cache_variable(environment)} to where it is, or give a local folder"
    )


def _choose(info: ModelInfo, asked: Model) -> list[str]:
    """Return the files to download; refuse a repository without any weights that are read."""
    names = [one.rfilename for one in info.siblings or []]
    if ADAPTER in names and CONFIG not in names:
        return [ADAPTER]
    if CONFIG not in names or not weight_files(names):
        lacks = "config.json" if CONFIG not in names else "model.safetensors or pytorch_model.bin"
        there = ", ".join(sorted(names)[:10]) or "nothing"
        raise UnfitError(
            f"model.checkpoint {asked.checkpoint}: the hub's repository has no {lacks} (it has "
            f"{there}); give another checkpoint"
        )
    return choose_files(names, code=asked.trust_remote_code)


def _check_space(
    info: ModelInfo, wanted: list[str], cache: Path, *, place: str, say: Callable[[str], object]
) -> None:
    """Say how much is downloaded; refuse what the disk cannot hold."""
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or []}
    snapshot = cache / f"models--{info.id.replace('/', '--')}" / "snapshots" / str(info.sha)
    absent = [name for name in wanted if not (snapshot / name).exists()]
    needed = sum(sizes[name] for name in absent)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UnfitError(
            f"{place}: its {len(absent)} files take {_show_bytes(needed)}, but {cache} has "
            f"{_show_bytes(free)} free; free space there, or set {_cache_variable(os.environ)} "
            "to a larger disk"
        )
    say(
        f"downloading {place.removeprefix('model.checkpoint ')} at {str(info.sha)[:12]}: "
        f"{len(absent)} files, {_show_bytes(needed)}, into {cache} ({_show_bytes(free)} free)"
    )


def _show_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _explain(error: Exception, asked: Model, *, endpoint: str, cache: Path) -> str | None:
    """Say in words why a checkpoint was not fetched; None for a fault that is none of these."""
    import httpx
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = "give a token that may read it: HF_TOKEN in the environment or in .env"
    page = f"{endpoint}/{asked.checkpoint}"
    if isinstance(error, GatedRepoError):
        return f"is behind a licence; accept it at {page}, then {token}"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {asked.revision!r}; mend model.revision, or leave it out"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no such model, or it is private; check its name at {page}, or {token}"
    if isinstance(error, HfHubHTTPError):
        status = _status(error)
        if status in (401, 403):
            return f"the hub refuses the token that it was given ({status}); {token}, or unset it"
        return f"the hub answers {status or first_line(error)}; start again in some minutes"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        variable = _cache_variable(os.environ)
        return f"the disk of {cache} is full; free space there, or set {variable} to a larger one"
    if isinstance(error, httpx.HTTPError | LocalEntryNotFoundError | ConnectionError):
        cause = _find_cause(error)
        if isinstance(cause, httpx.RemoteProtocolError | httpx.ReadError | httpx.ReadTimeout):
            return (
                f"the connection to {endpoint} broke off ({first_line(cause)}); start again: what "
                f"has come is kept in {cache}"
            )
        return (
            f"{endpoint} cannot be reached ({first_line(cause)}), and {cache} does not hold it; "
            "check the network, or copy the cache of a machine that has it"
        )
    return None


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _find_cause(error: BaseException) -> BaseException:
    """Return the HTTP client's own error, which says in its words what the network did."""
    import httpx

    while not isinstance(error, httpx.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return error

"""Where a checkpoint lies (a folder, the hub's cache, a download), and which files of it are read.

Of a hub checkpoint only those are fetched, of weights one format, at one commit. Must not import a
library that loads models.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Model
from dialsum.errors import UnfitError, first_line
from dialsum.files import SAFETENSORS, TORCH, read_regular, shorten
from dialsum.paths import project_path, shown

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
WEIGHTS = {"model.safetensors": SAFETENSORS, "pytorch_model.bin": TORCH}
"""Names of weight files in the order in which they are looked for, and the kind that each is."""
SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
TOKENIZERS = ("tokenizer.json", *SENTENCEPIECE, "vocab.json", "vocab.txt")
"""Any one of these is a tokenizer."""
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
)
HUB = "https://huggingface.co"
SECONDS_FOR_AN_ANSWER = 30.0
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", flags=re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_checkpoint(checkpoint: str) -> str | Path:
    """Return the local folder that a checkpoint names, or the name itself for the hub.

    Raises:
        UnfitError: a file, what looks like a folder and is none, or a folder without config.json.
    """
    for folder in (Path(checkpoint).expanduser(), project_path(checkpoint)):
        if folder.is_file():
            raise UnfitError(
                f"model.checkpoint {checkpoint}: is a file; give the folder that holds it, with "
                "config.json, weights and tokenizer"
            )
        if not folder.is_dir():
            continue
        if (folder / CONFIG).is_file():
            return folder
        if (folder / ADAPTER).is_file():
            raise UnfitError(explain_adapter(folder, place=f"model.checkpoint {shown(folder)}"))
        raise UnfitError(
            f"model.checkpoint {folder}: this folder has no config.json, so it holds no checkpoint"
        )
    if checkpoint.startswith((".", "/")) or not NAME.fullmatch(checkpoint):
        raise UnfitError(
            f"model.checkpoint {checkpoint}: no such folder (and no hub name, which is OWNER/NAME)"
        )
    return checkpoint


def choose_files(names: Collection[str], *, code: bool = False) -> list[str]:
    """Return those of a checkpoint's files that a run reads: of weights, one format alone.

    Args:
        names: all that there are; those in subfolders are never read.
        code: its own Python files too (model.trust_remote_code).
    """
    wanted = [CONFIG, ADAPTER, *TOKENIZERS, *BESIDE, *weight_files(names)]
    if code:
        wanted += [name for name in names if name.endswith(".py") and "/" not in name]
    return [name for name in dict.fromkeys(wanted) if name in names]


def weight_files(names: Collection[str]) -> list[str]:
    """Return the weight files that are read: one, or an index and its shards; [] for none."""
    for whole in WEIGHTS:
        if whole in names:
            return [whole]
        if (index := f"{whole}.index.json") in names:
            stem, _, ending = whole.rpartition(".")
            shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{ending}")
            return [index, *sorted(name for name in names if shard.fullmatch(name))]
    return []


def absent_shards(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the files that an index of weights in folder names and that are not among names.

    Raises:
        ValueError: it is no such index.
    """
    index = weight_files(set(names))[0]
    if not index.endswith(".index.json"):
        return []
    try:
        return sorted({*json.loads(read_regular(folder / index))["weight_map"].values()} - {*names})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights") from error


def explain_adapter(folder: Path, *, place: str) -> str:
    """Say that a folder holds an adapter, of which base, and what to do."""
    try:
        found: Any = json.loads(read_regular(folder / ADAPTER, max_bytes=10**7))
    except (OSError, ValueError, RecursionError):
        found = None
    found = found if isinstance(found, dict) else {}
    sort = shorten(str(found.get("peft_type") or "PEFT"), limit=20).replace("LORA", "LoRA")
    base = found.get("base_model_name_or_path")
    if isinstance(base, str) and base.strip():
        whose, give = f"which belongs on {shorten(base)}", shorten(base)
    else:
        whose, give = "which does not name its base", "the checkpoint that it was trained on"
    return (
        f"{place}: holds {'an' if sort[0] in 'AEIO' else 'a'} {sort} adapter ({ADAPTER}), {whose}, "
        f"and no whole model; give the base (model.checkpoint: {give}), or merge the two first (a "
        "model of this program: merge_adapter, docs/training.md; another: peft's merge_and_unload "
        "and save_pretrained) and give the merged folder"
    )


def is_offline(environment: Mapping[str, str]) -> bool:
    """Say whether the network is forbidden, by the hub's own variable."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def find_hub_cache(environment: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's library keeps downloads, by its own rules."""
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    if not cache:
        home = environment.get("XDG_CACHE_HOME") or "~/.cache"
        cache = f"{environment.get('HF_HOME') or f'{home}/huggingface'}/hub"
    return Path(os.path.expandvars(cache)).expanduser()


def find_folder(asked: Model, *, environment: Mapping[str, str]) -> Path | None:
    """Return the folder in which a checkpoint lies: its own, or that in the hub's cache.

    Args:
        asked: its name as checkpoint, and its revision: commit, branch or tag.
        environment: environment variables, which say where the cache is.

    Returns:
        None for a hub name that was not downloaded yet, or not to its end.

    Raises:
        UnfitError: it looks like a folder and is none, or a folder without config.json.
    """
    source = resolve_checkpoint(asked.checkpoint)
    if isinstance(source, Path):
        return source
    folder = find_hub_cache(environment) / f"models--{source.replace('/', '--')}"
    commit = asked.revision or "main"
    if not COMMIT.fullmatch(commit):
        reference = folder / "refs" / commit
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="ascii", errors="replace").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() and _is_whole(snapshot) else None


def _is_whole(folder: Path) -> bool:
    """Say whether a folder of the hub's cache has what a run reads: no download that broke off."""
    names = {path.name for path in folder.iterdir() if path.exists()}
    if CONFIG not in names or not weight_files(names) or not names.intersection(TOKENIZERS):
        return ADAPTER in names and CONFIG not in names
    try:
        return not absent_shards(folder, names)
    except ValueError:
        return False


def fetch_folder(
    asked: Model, *, environment: Mapping[str, str], say: Callable[[str], object] = print
) -> Path:
    """Return the folder of a checkpoint as find_folder does; download what is absent.

    Args:
        asked: its name as checkpoint, its revision, and whether its own code is wanted.
        environment: environment variables: cache, endpoint, token, whether there is a network.
        say: told what is downloaded, and how much, before it is.

    Raises:
        UnfitError: as find_folder; no such name or revision, no leave, no network, too small a
            disk; what to do.
    """
    if found := find_folder(asked, environment=environment):
        return found
    name, revision = asked.checkpoint, asked.revision
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
        _check_space(info, wanted, cache, asked=asked, say=say)
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
        raise UnfitError(f"model.checkpoint {name}: {explained}") from error


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
    info: ModelInfo, wanted: list[str], cache: Path, *, asked: Model, say: Callable[[str], object]
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
            f"model.checkpoint {asked.checkpoint}: its {len(absent)} files take "
            f"{_show_bytes(needed)}, but {cache} has {_show_bytes(free)} free; free space there, "
            f"or set {_cache_variable(os.environ)} to a larger disk"
        )
    say(
        f"downloading {asked.checkpoint} at {str(info.sha)[:12]}: "
        f"{len(absent)} files, {_show_bytes(needed)}, into {cache} ({_show_bytes(free)} free)"
    )


def _show_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _explain(error: Exception, asked: Model, *, endpoint: str, cache: Path) -> str | None:
    """Say in words why a checkpoint was not fetched; None for a fault that is none of these."""
    import httpx
    from huggingface_hub import errors

    token = "give a token that may read it: HF_TOKEN in the environment or in .env"
    page = f"{endpoint}/{asked.checkpoint}"
    if isinstance(error, errors.GatedRepoError):
        return f"is behind a licence; accept it at {page}, then {token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {asked.revision!r}; mend model.revision, or leave it out"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no such model, or it is private; check its name at {page}, or {token}"
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return f"the hub refuses the token that it was given ({status}); {token}, or unset it"
        return f"the hub answers {status or first_line(error)}; start again in some minutes"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        variable = _cache_variable(os.environ)
        return f"the disk of {cache} is full; free space there, or set {variable} to a larger one"
    if isinstance(error, httpx.HTTPError | errors.LocalEntryNotFoundError | ConnectionError):
        # The HTTP client's own error says in its words what the network did.
        cause: BaseException = error
        while not isinstance(cause, httpx.HTTPError) and cause.__cause__ is not None:
            cause = cause.__cause__
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

"""Where a checkpoint lies (a folder, the hub's cache, a download), and what its files hold.

Of a hub checkpoint only what a run reads is fetched, of weights one format, at one commit. A few
bytes of each file are looked at, so that gigabytes cost no time. Must not import a library that
loads models: it runs before every batch as well as in every run.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from dialsum.config.schema import Config, Model
from dialsum.errors import UnfitError, first_line
from dialsum.files import BINARY, JSON, SAFETENSORS, TEXT, TORCH, Look, look_at, read_regular
from dialsum.machine.devices import Choice
from dialsum.machine.flops import Attention, Product
from dialsum.machine.memory import BASE_SIZES, Size
from dialsum.models.families import FAMILIES, Family, get_family
from dialsum.paths import PROJECT_ROOT, project_path, shown
from dialsum.text import say_first, shorten, show_bytes

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
BANS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
SECONDS_FOR_AN_ANSWER = 30.0
SECONDS_FOR_A_LOOK = 1.5  # of a dry run, which downloads nothing
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", flags=re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_PARSED_BYTES = 2**20
"""JSON up to this size is read whole: a tokenizer.json of megabytes would cost a dry run time."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""
MAX_SIZE = 10**7
"""Beyond any layer, vocabulary or length that there is: the number was spoilt."""
LONGEST_VALUE = 40
"""Characters of a checkpoint's own value that a message gives."""
AGAIN = "copy the checkpoint again"
DECODER_START = "decoder_start_token_id"
SEARCH = "generation_config.json"


def resolve_checkpoint(checkpoint: str) -> str | Path:
    """Return the local folder that a checkpoint names, or the name itself for the hub.

    Raises:
        UnfitError: a file, what looks like a folder and is none, or a folder without config.json.
    """
    for folder in (Path(checkpoint).expanduser(), project_path(checkpoint)):
        if folder.is_file():
            raise UnfitError(
                f"model.checkpoint {checkpoint}: is a file; give the folder that holds it, with "
                f"config.json, weights and tokenizer{_explain_gguf([folder.name])}"
            )
        if not folder.is_dir():
            continue
        if (folder / CONFIG).is_file():
            return folder
        if (folder / ADAPTER).is_file():
            raise UnfitError(explain_adapter(folder, place=f"model.checkpoint {shown(folder)}"))
        raise UnfitError(
            f"model.checkpoint {folder}: this folder has no config.json, so it holds no checkpoint"
            f"{_explain_gguf(path.name for path in folder.iterdir())}"
        )
    if checkpoint.startswith((".", "/")) or not NAME.fullmatch(checkpoint):
        raise UnfitError(
            f"model.checkpoint {checkpoint}: no such folder (and no hub name, which is OWNER/NAME)"
        )
    return checkpoint


def _explain_gguf(names: Iterable[str]) -> str:
    """Return what to do about llama.cpp's files among some, as an end of a message."""
    found = sorted(name for name in names if name.endswith(".gguf"))
    if not found:
        return ""
    return (
        f"; {found[0]} is in llama.cpp's form, quantised for writing and not for training: give "
        "the checkpoint that it was made from, with safetensors"
    )


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


def find_shard_problem(folder: Path, names: Iterable[str]) -> str | None:
    """Say which files an index of weights in folder names that are not among names."""
    index = weight_files({*names})[0]
    if not index.endswith(".index.json"):
        return None
    try:
        named = json.loads(read_regular(folder / index))["weight_map"].values()
        absent = sorted({*named} - {*names})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return f"{index} is no index of weights; {AGAIN}"
    if not absent:
        return None
    names = say_first(absent, limit=1)
    return f"{names} of the files that its index of weights names absent; {AGAIN}"


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


def find_ban() -> str | None:
    """Return the variable that forbids the network, by the hub library's own rule; None: none."""
    name = next((name for name in BANS if os.environ.get(name)), BANS[0])
    return name if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") else None


def find_hub_cache() -> Path:
    """Return the folder in which the hub's library keeps downloads, by its own rules."""
    known = os.environ
    cache = known.get("HF_HUB_CACHE") or known.get("HUGGINGFACE_HUB_CACHE")
    if not cache:
        home = known.get("XDG_CACHE_HOME") or "~/.cache"
        cache = f"{known.get('HF_HOME') or f'{home}/huggingface'}/hub"
    return Path(os.path.expandvars(cache)).expanduser()


def find_folder(asked: Model) -> Path | None:
    """Return the folder in which a checkpoint lies: its own, or that in the hub's cache.

    Args:
        asked: its name as checkpoint, and its revision: commit, branch or tag.

    Returns:
        None for a hub name that was not downloaded yet, or not to its end.

    Raises:
        UnfitError: it looks like a folder and is none, or a folder without config.json.
    """
    source = resolve_checkpoint(asked.checkpoint)
    if isinstance(source, Path):
        return source
    folder = find_hub_cache() / f"models--{source.replace('/', '--')}"
    commit = asked.revision or "main"
    if not COMMIT.fullmatch(commit):
        reference = folder / "refs" / commit
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="ascii", errors="replace").strip()
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    # What a run reads has to be there: a download may have broken off.
    names = {path.name for path in snapshot.iterdir() if path.exists()}
    if CONFIG not in names or not weight_files(names) or not names.intersection(TOKENIZERS):
        return snapshot if ADAPTER in names and CONFIG not in names else None
    return None if find_shard_problem(snapshot, names) else snapshot


def fetch_folder(asked: Model, *, say: Callable[[str], object] = print) -> Path:
    """Return the folder of a checkpoint as find_folder does; download what is absent.

    Args:
        asked: its name as checkpoint, its revision, and whether its own code is wanted.
        say: told what is downloaded, and how much, before it is.

    Raises:
        UnfitError: as find_folder; no such name or revision, no leave, no network, too small a
            disk; what to do.
    """
    if found := find_folder(asked):
        return found
    name, revision = asked.checkpoint, asked.revision
    if ban := find_ban():
        raise UnfitError(explain_ban(name, ban=ban))
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    token = os.environ.get("HF_TOKEN") or None
    cache = find_hub_cache()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info = HfApi(endpoint=endpoint, token=token).model_info(
            name, revision=revision, files_metadata=True, timeout=SECONDS_FOR_AN_ANSWER
        )
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or []}
        if ADAPTER in sizes and CONFIG not in sizes:
            wanted = [ADAPTER]
        elif CONFIG not in sizes or not weight_files(sizes):
            lacks = "model.safetensors or pytorch_model.bin" if CONFIG in sizes else CONFIG
            there = ", ".join(sorted(sizes)[:10]) or "nothing"
            raise UnfitError(
                f"model.checkpoint {name}: the hub's repository has no {lacks} (it has {there}); "
                f"give another checkpoint{_explain_gguf(sizes)}"
            )
        else:
            wanted = choose_files(sizes, code=asked.trust_remote_code)
        commit = str(info.sha)
        snapshot = cache / f"models--{info.id.replace('/', '--')}" / "snapshots" / commit
        absent = [one for one in wanted if not (snapshot / one).exists()]
        needed = sum(sizes[one] for one in absent)
        existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise UnfitError(
                f"model.checkpoint {name}: its {len(absent)} files take {show_bytes(needed)}, but "
                f"{cache} has {show_bytes(free)} free; free space there, or set "
                f"{_cache_variable()} to a larger disk"
            )
        say(
            f"downloading {name} at {commit[:12]}: {len(absent)} files, {show_bytes(needed)}, "
            f"into {cache} ({show_bytes(free)} free)"
        )
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


def ask_hub(
    asked: Sequence[Model], *, seconds: float = SECONDS_FOR_A_LOOK
) -> list[tuple[str | None, str]]:
    """Ask the hub whether it would give checkpoints that are not here, all at the same time.

    Returns:
        Of each what is wrong, None where nothing is known to be; and else what is known: how much
        it is, or that the hub did not answer in time, which says nothing.
    """
    from huggingface_hub import HfApi, errors  # noqa: F401 - seconds that are not the hub's

    found: dict[int, tuple[str | None, str]] = {}

    def ask(at: int) -> None:
        found[at] = _ask_hub(asked[at], seconds)

    # A name server that is silent knows no limit of time.
    threads = [Thread(target=ask, args=(at,), daemon=True) for at in range(len(asked))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    unknown = (None, f"unknown: the hub did not answer in {seconds:g} s")
    return [found.get(at, unknown) for at in range(len(asked))]


def _ask_hub(asked: Model, seconds: float) -> tuple[str | None, str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    endpoint, token = os.environ.get("HF_ENDPOINT") or HUB, os.environ.get("HF_TOKEN") or None
    try:
        info = HfApi(endpoint=endpoint, token=token).model_info(
            asked.checkpoint, revision=asked.revision, files_metadata=True, timeout=seconds
        )
    except Exception as error:  # as in fetch_folder
        said = _explain(error, asked, endpoint=endpoint, cache=find_hub_cache())
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
            return said, ""
        return None, f"unknown: {said or first_line(error)}"
    if info.gated and token is None:
        page = f"{endpoint}/{asked.checkpoint}"
        return f"is behind a licence: accept it at {page}, then give HF_TOKEN, here or in .env", ""
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or []}
    wanted = choose_files(sizes, code=asked.trust_remote_code)
    return None, f"{show_bytes(sum(sizes[one] for one in wanted))} to download"


def _cache_variable() -> str:
    """Return the variable that decides where the hub's cache is."""
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    return next((name for name in names if os.environ.get(name)), "HF_HOME")


def explain_ban(name: str, *, ban: str) -> str:
    """Say that a checkpoint is not in the cache, whole, and may not be downloaded.

    Args:
        ban: the variable that forbids it.
    """
    return (
        f"model.checkpoint {name}: not in the cache {find_hub_cache()}, or not all of "
        f"it, and {ban} forbids its download; unset {ban}, set "
        f"{_cache_variable()} to where it is, or give a local folder"
    )


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
        variable = _cache_variable()
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


def find_checkpoint_problems(
    folder: Path, config: Config | None, *, place: str | None = None
) -> list[str]:
    """Hold a checkpoint's folder against its experiment, as far as that needs no weights.

    Args:
        config: of the experiment; None where a tool reads the checkpoint.
        place: how messages name the checkpoint, where that is not by its folder.

    Returns:
        What is absent, is not what its name says, broke off, or does not suit the experiment.
    """
    place = place or f"model.checkpoint {shown(folder)}"
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        return [f"{place}: cannot be read: {error.strerror or error}"]
    weights = weight_files(names)
    if ADAPTER in names and (CONFIG not in names or not weights):
        return [explain_adapter(folder, place=place)]
    if not weights:
        return [
            f"{place}: no model.safetensors and no pytorch_model.bin (found "
            f"{', '.join(sorted(names)) or 'nothing'}); weights in other pickles are not read, "
            f"since a pickle can run any code{_explain_gguf(names)}"
        ]
    wrong = {}
    for name in choose_files(names):
        try:
            problem = _find_problem(folder / name)
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}; {AGAIN}"
        if problem:
            wrong[name] = f"{place}: {name} {problem}"
    problems = [*wrong.values()]
    if weights[0] not in wrong and (problem := find_shard_problem(folder, names)):
        problems.append(f"{place}: {problem}")
    if not names.intersection(TOKENIZERS):
        problems.append(
            f"{place}: holds no tokenizer ({', '.join(TOKENIZERS)}); copy the tokenizer's files of "
            "this checkpoint to its weights"
        )
    if CONFIG not in wrong and config is not None:
        problems += _find_config_problems(folder, config, place=place)
    if ADAPTER in names:
        problems.append(
            f"{place}: beside the weights lies {ADAPTER}, and the library would put that adapter "
            "on them unasked; move it and its weights out of this folder, or merge them first"
        )
    return problems


def _find_problem(path: Path) -> str | None:
    """Say what is wrong with one file; None where nothing shows."""
    look = look_at(path)
    if path.name.endswith(".json"):
        return _find_json_problem(look)
    kind = {".safetensors": SAFETENSORS, ".bin": TORCH}.get(path.suffix)
    if kind is None:
        pieces = path.name in SENTENCEPIECE
        if look.kind in ((BINARY,) if pieces else (TEXT, JSON)):
            return None
        wanted = "a SentencePiece model" if pieces else "a text file"
        return look.explain(wanted=wanted, otherwise=AGAIN)
    if look.kind == kind:
        return _find_break(look)
    right = next((name for name, kind in WEIGHTS.items() if kind == look.kind), None)
    return look.explain(
        wanted=f"weights in {'safetensors' if kind == SAFETENSORS else 'a pickle of torch'}",
        otherwise=f"rename it to {right}" if right else AGAIN,
    )


def _find_json_problem(look: Look) -> str | None:
    if look.kind == TEXT and look.size < 10 and look.path.read_bytes().strip() == b"null":
        return None  # as some checkpoints have for no tokens added
    if look.kind != JSON:
        return look.explain(wanted="JSON", otherwise=AGAIN)
    with look.path.open("rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            return "begins with a byte order mark, which JSON may not have; save it as plain UTF-8"
        file.seek(max(0, look.size - 64))
        end = file.read().rstrip()[-1:]
    if end not in (b"}", b"]"):
        return f"breaks off in the middle; {AGAIN}"
    if look.size <= MAX_PARSED_BYTES:
        try:
            json.loads(read_regular(look.path))
        except (ValueError, RecursionError) as error:
            return f"is no valid JSON ({first_line(error)}); {AGAIN}"
    return None


def _find_break(look: Look) -> str | None:
    """Say where a weight file ends too early: a copy or download that broke off."""
    try:
        with look.path.open("rb") as file:
            if look.kind == SAFETENSORS:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
                header.pop("__metadata__", None)
                ends = [one["data_offsets"][1] for one in header.values()]
                stated = 8 + length + max(ends, default=0)
                if look.size != stated:
                    return f"has {look.size:,} bytes where its header states {stated:,}; {AGAIN}"
            elif file.read(2) == b"PK":  # a pickle of the old form says nothing of its length
                zipfile.ZipFile(file).close()
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return f"has a damaged header; {AGAIN}"
    except zipfile.BadZipFile:
        return f"breaks off in the middle, after {look.size:,} bytes; {AGAIN}"
    return None


def read_own_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Return what a checkpoint's config.json says, or another JSON file of it, as it stands there.

    Raises:
        UnfitError: it cannot be read, or holds no mapping.
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}, not names with values")
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise UnfitError(
            f"model.checkpoint {shown(folder)}: its {name} cannot be read "
            f"({first_line(error)}); {AGAIN}"
        ) from error
    return found


def _find_config_problems(folder: Path, config: Config, *, place: str) -> list[str]:
    """Hold type, bits, start, sizes and positions of a checkpoint's config against the experiment.

    A key that is absent has the family's default.
    """
    family = get_family(config.model.architecture)
    try:
        own = read_own_config(folder)
    except UnfitError as error:
        return [str(error)]
    if not own.get("model_type"):
        return [f"{place}: its config.json names no model_type, so it is no checkpoint's; {AGAIN}"]
    if own["model_type"] not in family.model_classes:
        return [
            f"{place} is of type {own['model_type']!r}, but model.architecture says "
            f"{config.model.architecture!r}; {_advise_on_type(own['model_type'])}"
        ]
    own = {**family.defaults, **own}
    problems = []
    if bits := own.get("quantization_config"):
        method = bits.get("quant_method", "no method named") if isinstance(bits, dict) else "?"
        problems.append(
            f"{place}: its config.json has a quantization_config ({method}), by which "
            "its weights are held in bits and qlora.load_in_4bit would be overruled; give the "
            "checkpoint in floats, or delete that key if its weights are floats"
        )
    if not family.decoder_only and own[DECODER_START] is None:
        problems.append(
            f"{place}: its config.json has no {DECODER_START}; add the one that it was trained "
            "with (T5: the padding id, BART: the end id)"
        )
    try:
        measure_size(own, family=family)
    except UnfitError as error:
        problems.append(f"{place}: {error}; {AGAIN}")
    limit = own.get(family.position_limit) if family.position_limit else None
    longest = config.tokenizer.encoder_max_len + config.tokenizer.decoder_max_len
    if family.decoder_only and isinstance(limit, int) and longest > limit:
        problems.append(
            f"tokenizer.encoder_max_len and decoder_max_len together, {longest}, are beyond the "
            f"{limit} positions of {place}, which hold prompt and summary; lower encoder_max_len "
            f"to at most {limit - config.tokenizer.decoder_max_len}"
        )
        return problems
    problems += [
        f"tokenizer.{key} {asked} is beyond the {limit} positions of {place}; set "
        f"tokenizer.{key} to at most {limit}"
        for key in ("encoder_max_len", "decoder_max_len")
        if isinstance(limit, int) and (asked := getattr(config.tokenizer, key)) > limit
    ]
    return problems


def _advise_on_type(model_type: str) -> str:
    """Say which model.architecture serves a model_type, or that none does."""
    own = [family.name for family in FAMILIES.values() if model_type in family.model_classes]
    if own:
        return f"set model.architecture to what the checkpoint is: {' or '.join(own)}"
    known = sorted({name for family in FAMILIES.values() for name in family.model_classes})
    return f"none serves it: give a checkpoint of type {', '.join(known)}"


@dataclass(frozen=True)
class Shape:
    """What a checkpoint's config.json says of its sizes.

    Args:
        layers: of the encoder and of the decoder.
        heads: the most that a layer has.
        head_width: of one head.
        kept_heads: heads of keys and values, of which queries share some.
        attention: weights of one attention's four matrices.
        forward: weights of the feed-forward matrices of a layer of the encoder and of the decoder.
        positions: weights of learned positions.
        tied: the head is the input embeddings.
    """

    width: int
    vocabulary: int
    layers: tuple[int, int]
    heads: int
    head_width: int
    kept_heads: int
    attention: int
    forward: tuple[int, int]
    positions: int
    tied: bool


def _read_shape(own: Mapping[str, Any], *, family: Family) -> Shape:
    own = {**family.defaults, **own}

    def get(key: str) -> int:
        value = own[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
            raise UnfitError(f"its config.json says {key}: {str(value)[:20]}, which is no size")
        return value

    if family.decoder_only:
        return _read_decoder_shape(own, get, family=family)
    width = get("d_model")
    if family.name == "bart":
        layers = get("encoder_layers"), get("decoder_layers")
        heads = max(get("encoder_attention_heads"), get("decoder_attention_heads"))
        attention, head_width = 4 * width * width, width // heads
        forward = 2 * width * get("encoder_ffn_dim"), 2 * width * get("decoder_ffn_dim")
        positions = 2 * get("max_position_embeddings") * width
    else:
        decoder = "num_layers" if own.get("num_decoder_layers") is None else "num_decoder_layers"
        layers = get("num_layers"), get(decoder)
        heads = get("num_heads")
        head_width = get("d_kv")
        attention = 4 * width * heads * head_width
        gated = str(own["feed_forward_proj"]).startswith("gated")
        forward = ((3 if gated else 2) * width * get("d_ff"),) * 2
        positions = 0
    tied = own.get("tie_word_embeddings") is not False
    return Shape(
        width,
        get("vocab_size"),
        layers,
        heads,
        head_width,
        heads,
        attention,
        forward,
        positions,
        tied,
    )


def _read_decoder_shape(
    own: Mapping[str, Any], get: Callable[[str], int], *, family: Family
) -> Shape:
    """Return the shape of a decoder alone.

    Args:
        get: a size by its key.
    """
    if "n_embd" in family.defaults:
        width, layers, heads = get("n_embd"), get("n_layer"), get("n_head")
        kept, head_width = heads, width // heads
        forward = 2 * width * (4 * width if own.get("n_inner") is None else get("n_inner"))
        positions = get("n_positions") * width
    else:
        width, layers = get("hidden_size"), get("num_hidden_layers")
        heads = get("num_attention_heads")
        kept = heads if own.get("num_key_value_heads") is None else get("num_key_value_heads")
        head_width = width // heads if own.get("head_dim") is None else get("head_dim")
        forward, positions = 3 * width * get("intermediate_size"), 0
    return Shape(
        width,
        get("vocab_size"),
        (0, layers),
        heads,
        head_width,
        kept,
        2 * width * head_width * (heads + kept),
        (0, forward),
        positions,
        own.get("tie_word_embeddings") is not False,
    )


def measure_size(own: Mapping[str, Any], *, family: Family) -> Size:
    """Count a checkpoint's parameters and layers from its config.json.

    Biases and norms, below one in a hundred, are left out.

    Args:
        own: the content of its config.json; a key that is absent has the family's default.

    Raises:
        UnfitError: a size is no whole number from 1 to MAX_SIZE.
    """
    shape = _read_shape(own, family=family)
    parameters = (
        (1 if shape.tied else 2) * shape.vocabulary * shape.width
        + shape.positions
        + shape.layers[0] * (shape.attention + shape.forward[0])
        + shape.layers[1] * ((1 if family.decoder_only else 2) * shape.attention + shape.forward[1])
    )
    return Size(parameters, shape.layers, shape.width, shape.heads, shape.vocabulary)


def measure_products(own: Mapping[str, Any], *, family: Family, learns: bool) -> list[Product]:
    """Return what multiplies every token by config.json alone: the matrices of each side as one,
    those of adapters left out.

    Args:
        own: as of measure_size.
        learns: all of them do, as in full fine-tuning.

    Raises:
        UnfitError: as measure_size.
    """
    shape = _read_shape(own, family=family)
    encoder, decoder = shape.layers
    head = shape.vocabulary * shape.width
    if family.decoder_only:
        blocks = decoder * (shape.attention + shape.forward[1])
        return [Product("both", blocks, learns), Product("target", head, learns)]
    crossing = decoder * shape.attention // 2  # of its cross-attention, keys and values of inputs
    read = encoder * (shape.attention + shape.forward[0]) + crossing
    written = decoder * (2 * shape.attention + shape.forward[1]) - crossing
    return [Product("input", read, learns), Product("target", written + head, learns)]


def measure_attention(own: Mapping[str, Any], *, family: Family) -> Attention:
    """Return what a checkpoint's attention computes and keeps.

    Raises:
        UnfitError: as measure_size.
    """
    shape = _read_shape(own, family=family)
    return Attention(
        *shape.layers,
        width=shape.heads * shape.head_width,
        kept_width=shape.kept_heads * shape.head_width,
        decoder_only=family.decoder_only,
    )


@cache
def read_published(checkpoint: str) -> dict[str, Any] | None:
    """Return the config.json of a checkpoint as config/architectures has it; None: no file there
    names it."""
    for path in (PROJECT_ROOT / "config" / "architectures").glob("*.json"):
        said = json.loads(path.read_text(encoding="utf-8"))
        if checkpoint in said["checkpoints"]:
            found: dict[str, Any] = said["config"]
            return found
    return None


def find_size(config: Config) -> Choice[Size]:
    """Return what memory goes by, the sizes in a checkpoint's own config.json, and why these.

    A hub checkpoint that was not downloaded yet has them as published. One that nobody here knows,
    or that says no sizes, is taken for the base size of its family, and that is the reason given.
    """
    family = get_family(config.model.architecture)
    unknown = f"taken for a base-size {family.name}"
    try:
        folder = find_folder(config.model)
        if folder is None:
            absent = f"{config.model.checkpoint} is not downloaded yet"
            published = read_published(config.model.checkpoint)
            if published is None:
                return Choice(BASE_SIZES[family.name], f"{absent}, {unknown}")
            size = measure_size(published, family=family)
            return Choice(size, f"{size.describe()} as published; {absent}")
        size = measure_size(read_own_config(folder), family=family)
    except UnfitError as error:
        return Choice(BASE_SIZES[family.name], f"{error}; {unknown}")
    return Choice(size, f"{size.describe()} by its config.json")


def describe_own_search(folder: Path, config: Config) -> list[tuple[str, str, str]]:
    """Say what a checkpoint's files would have generation do where something else is done here.

    Nothing of it acts but the token that decoding starts with, which the weights were trained for.
    The library takes generation_config.json where there is one, else old keys of config.json; only
    its pipelines read what config.json has for the task of summarisation.

    Returns:
        Key, the checkpoint's value with its file, and ours.

    Raises:
        UnfitError: a file cannot be read.
    """
    own = read_own_config(folder)
    name = SEARCH if (folder / SEARCH).is_file() else CONFIG
    tasks = own.get("task_specific_params")
    task = tasks.get("summarization") if isinstance(tasks, dict) else None
    asked = config.generation
    drawn = asked.mbr_temperature is not None
    draw = "generation.mbr_temperature" if drawn else ""
    longest = asked.max_new_tokens or config.tokenizer.decoder_max_len
    length = "generation.max_new_tokens" if asked.max_new_tokens else "tokenizer.decoder_max_len"
    ours: dict[str, tuple[Any, str]] = {
        "num_beams": (asked.num_beams, "generation.num_beams"),
        "no_repeat_ngram_size": (asked.no_repeat_ngram_size, "generation.no_repeat_ngram_size"),
        "length_penalty": (asked.length_penalty, "generation.length_penalty"),
        "repetition_penalty": (asked.repetition_penalty, "generation.repetition_penalty"),
        "early_stopping": (asked.early_stopping, "generation.early_stopping"),
        "max_length": (longest, length),
        "max_new_tokens": (longest, length),
        "min_length": (asked.min_new_tokens, "generation.min_new_tokens"),
        "min_new_tokens": (asked.min_new_tokens, "generation.min_new_tokens"),
        "prefix": (config.tokenizer.input_prefix, "tokenizer.input_prefix"),
        "do_sample": (drawn, draw),
        "temperature": (asked.mbr_temperature or 1.0, draw),
        "top_k": (0 if drawn else 50, ""),
        "top_p": (1.0, ""),
        "encoder_no_repeat_ngram_size": (0, ""),
        "num_beam_groups": (1, ""),
        "diversity_penalty": (0.0, ""),
        "forced_bos_token_id": (None, ""),
        "forced_eos_token_id": (None, ""),
        "bad_words_ids": (None, ""),
        "suppress_tokens": (None, ""),
        "begin_suppress_tokens": (None, ""),
    }
    rows = []
    for found, place in (
        (own if name == CONFIG else read_own_config(folder, name), name),
        (task if isinstance(task, dict) else {}, f"{CONFIG}, for pipelines"),
    ):
        for key, (value, where) in ours.items():
            if found.get(key) is not None and found[key] != value:
                here = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
                here = f"here {here}" + (f" ({where})" if where else "")
                rows.append((key, f"{_show_own(key, found[key], folder)} ({place})", here))
    whole = {**get_family(config.model.architecture).defaults, **own}
    start = whole.get(DECODER_START)
    if start not in (None, whole["pad_token_id"], whole["eos_token_id"]):
        token = _show_own(DECODER_START, start, folder)
        rows.append((DECODER_START, f"{token} ({CONFIG})", "kept, as trained"))
    return rows


def _show_own(key: str, value: Any, folder: Path) -> str:
    """Return a checkpoint's value, with its token where it is the number of a special one."""
    text = shorten(json.dumps(value), limit=LONGEST_VALUE)
    if key.endswith("_token_id") and (folder / TOKENIZERS[0]).is_file():
        for one in read_own_config(folder, TOKENIZERS[0]).get("added_tokens") or []:
            if isinstance(one, dict) and one.get("id") == value:
                token = str(one.get("content"))
                return f"{text}, " + "".join(c if c.isprintable() else "?" for c in token)
    return text


def refuse_foreign_tokenizer(
    vocabulary: Mapping[str, int], *, rows: int, source: str | Path
) -> None:
    """Refuse a checkpoint's tokenizer that has pieces without a row in its embeddings.

    Fewer pieces than rows are usual: mT5 has 250,100 for 250,112.

    Args:
        vocabulary: piece to id, before any token is added.
        rows: vocab_size of the checkpoint's config.json, which its embeddings must have.

    Raises:
        UnfitError: with both numbers.
    """
    needed = max(vocabulary.values(), default=-1) + 1
    if needed > rows:
        raise UnfitError(
            f"model.checkpoint {source}: its tokenizer has pieces up to number {needed - 1:,}, but "
            f"its embeddings have {rows:,} rows (vocab_size in config.json): tokenizer and weights "
            "are of two checkpoints. Copy the tokenizer's files of this one again"
        )

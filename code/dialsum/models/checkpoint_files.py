"""The files of a checkpoint: which of them are read, and whether each is what its name says, whole.

A few bytes of each are looked at, so that gigabytes cost no time. Must not import a library that
loads models, nor know an experiment.
"""

from __future__ import annotations

import codecs
import json
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from dialsum.errors import first_line
from dialsum.paths import shown
from dialsum.reading import (
    BINARY,
    JSON,
    SAFETENSORS,
    TEXT,
    TORCH,
    Look,
    look_at,
    read_regular,
    shorten,
)

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
WEIGHTS = (("model.safetensors", SAFETENSORS), ("pytorch_model.bin", TORCH))
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
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""
MAX_PARSED_BYTES = 2**20
"""JSON up to this size is read whole: a tokenizer.json of megabytes would cost a dry run time."""
MAX_DEPTH = 100
"""Levels of a checkpoint's JSON: the libraries, called from deep within, break at some hundreds."""
AGAIN = "copy the checkpoint again"


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
    for whole, _ in WEIGHTS:
        index = f"{whole}.index.json"
        if whole in names:
            return [whole]
        if index in names:
            stem, _, ending = whole.rpartition(".")
            shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{ending}")
            return [index, *sorted(name for name in names if shard.fullmatch(name))]
    return []


def find_file_problems(folder: Path, *, place: str) -> list[str]:
    """Look at each file of a checkpoint's folder that would be read.

    Args:
        place: how messages name the checkpoint.

    Returns:
        What is no such file, broke off or is absent; [] where all are what they claim to be.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        return [f"{place}: cannot be read: {error.strerror or error}"]
    weights = weight_files(names)
    if ADAPTER in names and (CONFIG not in names or not weights):
        return [explain_adapter(folder, place=place)]
    problems = []
    for name in choose_files(names):
        try:
            problem = _find_problem(folder / name)
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}; {AGAIN}"
        if problem:
            problems.append(f"{place}: {name} {problem}")
    if weights and weights[0].endswith(".index.json") and not problems:
        problems += [f"{place}: {problem}" for problem in _find_absent(folder / weights[0], names)]
    if CONFIG in names and weights and not names.intersection(TOKENIZERS):
        problems.append(
            f"{place}: holds no tokenizer ({', '.join(TOKENIZERS)}); copy the tokenizer's files of "
            "this checkpoint to its weights"
        )
    return problems


def explain_adapter(folder: Path, *, place: str) -> str:
    """Say that a folder holds an adapter, of which base, and what to do."""
    try:
        found: Any = json.loads(read_regular(folder / ADAPTER, max_bytes=10**7))
    except (OSError, ValueError, RecursionError):
        found = None
    found = found if isinstance(found, dict) else {}
    base = found.get("base_model_name_or_path")
    sort = shorten(str(found.get("peft_type") or "PEFT"), limit=20).replace("LORA", "LoRA")
    if not isinstance(base, str) or not base.strip():
        whose, give = "which does not name its base", "the checkpoint that it was trained on"
    else:
        whose, give = f"which belongs on {shorten(base)}", shorten(base)
    article = "an" if sort[0] in "AEIO" else "a"
    return (
        f"{place}: holds {article} {sort} adapter ({ADAPTER}), {whose}, and no whole model; "
        f"give the base (model.checkpoint: {give}), or merge the two first (a model of this "
        "program: merge_adapter, docs/training.md; another: peft's merge_and_unload and "
        "save_pretrained) and give the merged folder"
    )


def _find_problem(path: Path) -> str | None:
    """Say what is wrong with one file; None where nothing shows."""
    look = look_at(path)
    if path.name.endswith(".json"):
        return _find_json_problem(look)
    kind = next((kind for name, kind in WEIGHTS if path.suffix == Path(name).suffix), None)
    if kind is None:
        right = (BINARY,) if path.name in SENTENCEPIECE else (TEXT, JSON)
        if look.kind in right:
            return None
        wanted = "a SentencePiece model" if path.name in SENTENCEPIECE else "a text file"
        return look.explain(wanted=wanted, otherwise=AGAIN)
    if look.kind != kind:
        return look.explain(
            wanted=f"weights in {'safetensors' if kind == SAFETENSORS else 'a pickle of torch'}",
            otherwise=_rename(path) if look.kind in (SAFETENSORS, TORCH) else AGAIN,
        )
    return _find_break(look)


def _rename(path: Path) -> str:
    other = next(name for name, _ in WEIGHTS if Path(name).suffix != path.suffix)
    return f"rename it to {other}"


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
    if look.size > MAX_PARSED_BYTES:
        return None
    try:
        content = json.loads(read_regular(look.path))
    except RecursionError:
        return f"is nested too deep to be read; {AGAIN}"
    except ValueError as error:
        return f"is no valid JSON ({first_line(error)}); {AGAIN}"
    return f"is nested too deep to be read; {AGAIN}" if _is_deeper(content, MAX_DEPTH) else None


def _is_deeper(content: Any, levels: int) -> bool:
    """Say whether lists and mappings stand within each other beyond so many levels."""
    within = [content]
    for _ in range(levels):
        within = [
            child
            for one in within
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in within)


def _find_break(look: Look) -> str | None:
    """Say where a weight file ends too early: a copy or download that broke off."""
    if look.kind == TORCH:
        with look.path.open("rb") as file:
            if file.read(2) != b"PK":
                return None  # a pickle of the old form says nothing of its length
        try:
            zipfile.ZipFile(look.path).close()
        except (zipfile.BadZipFile, ValueError):
            return f"breaks off in the middle, after {look.size:,} bytes; {AGAIN}"
        return None
    with look.path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        tensors = json.loads(header)
        data = max(
            (one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"),
            default=0,
        )
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return f"has a damaged header; {AGAIN}"
    expected = 8 + length + data
    if look.size == expected:
        return None
    return f"has {look.size:,} bytes where its header states {expected:,}; {AGAIN}"


def _find_absent(index: Path, names: Iterable[str]) -> Iterator[str]:
    """Name the shards of an index that are not there."""
    try:
        shards = set(json.loads(read_regular(index))["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        yield f"{index.name} is no index of weights; {AGAIN}"
        return
    absent = sorted(shards.difference(names))
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        yield f"{absent[0]}{more} of the {len(shards)} files of {index.name} absent; {AGAIN}"


def find_absent_files(folder: Path) -> bool:
    """Say whether a folder of the hub's cache lacks what a run reads: a download that broke off."""
    names = {path.name for path in folder.iterdir() if path.exists()}
    weights = weight_files(names)
    if ADAPTER in names and CONFIG not in names:
        return False
    if CONFIG not in names or not weights or not names.intersection(TOKENIZERS):
        return True
    return weights[0].endswith(".index.json") and any(_find_absent(folder / weights[0], names))


def name_place(folder: Path) -> str:
    """Return how messages name a checkpoint of a local folder."""
    return f"model.checkpoint {shown(folder)}"

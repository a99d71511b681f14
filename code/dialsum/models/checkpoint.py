"""What a checkpoint's folder holds, as far as it shows without loading: files, config, sizes.

Must not import a library that loads models: it runs before every batch as well as in every run.
"""

from __future__ import annotations

import codecs
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import UnfitError, first_line
from dialsum.files import BINARY, JSON, SAFETENSORS, TEXT, TORCH, Look, look_at, read_regular
from dialsum.machine.devices import Choice
from dialsum.machine.memory import BASE_SIZES, Size
from dialsum.models.families import get_family, measure_size
from dialsum.models.hub import (
    ADAPTER,
    AGAIN,
    CONFIG,
    SENTENCEPIECE,
    TOKENIZERS,
    WEIGHTS,
    _find_absent,
    choose_files,
    explain_adapter,
    find_folder,
    weight_files,
)
from dialsum.paths import shown

LENGTHS = ("encoder_max_len", "decoder_max_len")
DECODER_START = "decoder_start_token_id"
SEARCH = "generation_config.json"
TASK = "task_specific_params"
TOKENIZER = "tokenizer.json"
LONGEST_VALUE = 40
"""Characters of a checkpoint's own value that a message gives."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""
MAX_PARSED_BYTES = 2**20
"""JSON up to this size is read whole: a tokenizer.json of megabytes would cost a dry run time."""
MAX_DEPTH = 100
"""Levels of a checkpoint's JSON: the libraries, called from deep within, break at some hundreds."""


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


def weight_format(source: str | Path) -> str | None:
    """Say which weight file of a local folder is read; None for a hub name: the library looks.

    Raises:
        UnfitError: the folder holds neither safetensors nor pytorch_model.bin.
    """
    if not isinstance(source, Path):
        return None
    if form := find_weights(source):
        return form
    found = sorted(path.name for path in source.iterdir() if path.is_file())
    raise UnfitError(
        f"{source}: no model.safetensors and no pytorch_model.bin "
        f"(found {', '.join(found) or 'nothing'}); "
        "weights in other pickles are not read, since a pickle can run any code"
    )


def find_weights(folder: Path) -> str | None:
    """Say which weight file of a folder is read; None where it holds none."""
    files = weight_files({path.name for path in folder.iterdir()})
    if not files:
        return None
    return "safetensors" if files[0].startswith("model.safetensors") else "pytorch_model.bin"


def read_own_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Return what a checkpoint's config.json says, or another JSON file of it, as it stands there.

    Raises:
        UnfitError: it cannot be read, or holds no mapping.
    """
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnfitError(
            f"model.checkpoint {shown(folder)}: its {name} cannot be read "
            f"({first_line(error)}); copy the checkpoint again"
        ) from error
    if not isinstance(found, dict):
        raise UnfitError(
            f"model.checkpoint {shown(folder)}: its {name} cannot be read (it holds a "
            f"{type(found).__name__}, not names with values); copy the checkpoint again"
        )
    return found


def find_size(config: Config, *, environment: Mapping[str, str]) -> Choice[Size]:
    """Return what memory goes by, the sizes in a checkpoint's own config.json, and why these.

    A hub checkpoint that was not downloaded yet, or one that says no sizes, is taken for the base
    size of its family, and that is the reason given.

    Args:
        environment: environment variables, which say where the hub's cache is.
    """
    family = get_family(config.model.architecture)
    if config.model.initialise == "tiny":
        tiny = config.model.tiny
        own = {
            "vocab_size": config.tokenizer.vocab_size,
            "d_model": tiny.d_model,
            "d_ff": tiny.d_ff,
            "num_heads": tiny.heads,
            "d_kv": max(1, tiny.d_model // tiny.heads),
            "num_layers": tiny.layers,
            "encoder_layers": tiny.layers,
            "decoder_layers": tiny.layers,
            "encoder_ffn_dim": tiny.d_ff,
            "decoder_ffn_dim": tiny.d_ff,
            "encoder_attention_heads": tiny.heads,
            "decoder_attention_heads": tiny.heads,
            "max_position_embeddings": config.tokenizer.encoder_max_len,
            "tie_word_embeddings": family.name == "bart",
        }
        size = measure_size(own, family=family)
        return Choice(size, f"{size.describe()} by model.tiny")
    unknown = f"taken for a base-size {family.name}"
    try:
        folder = find_folder(config, environment=environment)
        if folder is None:
            why = f"{config.model.checkpoint} is not downloaded yet, {unknown}"
            return Choice(BASE_SIZES[family.name], why)
        size = measure_size(read_own_config(folder), family=family)
    except UnfitError as error:
        return Choice(BASE_SIZES[family.name], f"{error}; {unknown}")
    return Choice(size, f"{size.describe()} by its config.json")


def find_folder_problems(
    folder: Path, config: Config, *, source: str | Path | None = None
) -> list[str]:
    """Hold a checkpoint's folder against the experiment, as far as that needs no weights.

    Args:
        source: what to call it in messages, where that is not the folder.

    Raises:
        UnfitError: its config.json cannot be read.
    """
    problems = find_config_problems(read_own_config(folder), config, source=source or folder)
    if (folder / ADAPTER).is_file():
        problems.append(
            f"model.checkpoint {shown(folder)}: beside the weights lies {ADAPTER}, and the library "
            "would put that adapter on them unasked; move it and its weights out of this folder, "
            "or merge them first"
        )
    return problems


def find_config_problems(
    own: Mapping[str, Any], config: Config, *, source: str | Path
) -> list[str]:
    """Hold a checkpoint's own config against the experiment's.

    Looked at are type, bits, start, sizes and positions.

    Args:
        own: the content of its config.json; a key that is absent has the family's default.
        source: hub name or local folder, for the messages.
    """
    family = get_family(config.model.architecture)
    place = f"model.checkpoint {shown(source) if isinstance(source, Path) else source}"
    if not own.get("model_type"):
        return [
            f"{place}: its config.json names no model_type, so it is no checkpoint's; copy the "
            "checkpoint again"
        ]
    if own["model_type"] != family.model_type:
        return [
            f"{place} is of type {own['model_type']!r}, but model.architecture says "
            f"{config.model.architecture!r}; set model.architecture to what the checkpoint is"
        ]
    own = {**family.defaults, **own}
    problems = []
    if own.get("quantization_config"):
        problems.append(
            f"{place}: its config.json has a quantization_config ({_name_method(own)}), by which "
            "its weights are held in bits and qlora.load_in_4bit would be overruled; give the "
            "checkpoint in floats, or delete that key if its weights are floats"
        )
    if own[DECODER_START] is None:
        problems.append(
            f"{place}: its config.json has no {DECODER_START}; add the one that it was trained "
            "with (T5: the padding id, BART: the end id)"
        )
    try:
        measure_size(own, family=family)
    except UnfitError as error:
        problems.append(f"{place}: {error}; copy the checkpoint again")
    limit = own.get(family.position_limit) if family.position_limit else None
    problems += [
        f"tokenizer.{key} {asked} is beyond the {limit} positions of {place}; set "
        f"tokenizer.{key} to at most {limit}"
        for key in LENGTHS
        if isinstance(limit, int) and (asked := getattr(config.tokenizer, key)) > limit
    ]
    return problems


def _name_method(own: Mapping[str, Any]) -> str:
    found = own["quantization_config"]
    return str(found.get("quant_method", "no method named")) if isinstance(found, dict) else "?"


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
    family = get_family(config.model.architecture)
    name = SEARCH if (folder / SEARCH).is_file() else CONFIG
    said = own if name == CONFIG else read_own_config(folder, name)
    tasks = own.get(TASK)
    task = tasks.get("summarization") if isinstance(tasks, dict) else None
    ours = _our_search(config)
    rows = [
        (key, f"{_show_own(key, found[key], folder)} ({place})", f"here {_show_ours(ours[key])}")
        for found, place in (
            (said, name),
            (task if isinstance(task, dict) else {}, f"{CONFIG}, for pipelines"),
        )
        for key in ours
        if found.get(key) is not None and found[key] != ours[key][0]
    ]
    whole = {**family.defaults, **own}
    start = whole[DECODER_START]
    if start not in (None, whole["pad_token_id"], whole["eos_token_id"]):
        token = _show_own(DECODER_START, start, folder)
        rows.append((DECODER_START, f"{token} ({CONFIG})", "kept, as trained"))
    return rows


def _our_search(config: Config) -> dict[str, tuple[Any, str]]:
    """Return the keys that a checkpoint may set, each with our value and the key that says it."""
    asked = config.generation
    longest = asked.max_new_tokens or config.tokenizer.decoder_max_len
    where = "generation.max_new_tokens" if asked.max_new_tokens else "tokenizer.decoder_max_len"
    named = {
        key: (getattr(asked, key), f"generation.{key}")
        for key in (
            "num_beams",
            "no_repeat_ngram_size",
            "length_penalty",
            "repetition_penalty",
            "early_stopping",
        )
    }
    return named | {
        "max_length": (longest, where),
        "max_new_tokens": (longest, where),
        "min_length": (asked.min_new_tokens, "generation.min_new_tokens"),
        "min_new_tokens": (asked.min_new_tokens, "generation.min_new_tokens"),
        "prefix": (config.tokenizer.input_prefix, "tokenizer.input_prefix"),
        "do_sample": (False, ""),
        "encoder_no_repeat_ngram_size": (0, ""),
        "num_beam_groups": (1, ""),
        "diversity_penalty": (0.0, ""),
        **dict.fromkeys(
            (
                "forced_bos_token_id",
                "forced_eos_token_id",
                "bad_words_ids",
                "suppress_tokens",
                "begin_suppress_tokens",
            ),
            (None, ""),
        ),
    }


def _show_ours(ours: tuple[Any, str]) -> str:
    value, key = ours
    return ("nothing" if value is None else json.dumps(value, ensure_ascii=False)) + (
        f" ({key})" if key else ""
    )


def _show_own(key: str, value: Any, folder: Path) -> str:
    """Return a checkpoint's value, with its token where it is the number of a special one."""
    text = json.dumps(value)
    if len(text) > LONGEST_VALUE:
        text = f"{text[:LONGEST_VALUE]}…"
    if not key.endswith("_token_id") or not (folder / TOKENIZER).is_file():
        return text
    added = read_own_config(folder, TOKENIZER).get("added_tokens")
    names = {one.get("id"): one.get("content") for one in added or [] if isinstance(one, dict)}
    if not isinstance(value, int) or value not in names:
        return text
    return f"{text}, " + "".join(one if one.isprintable() else "?" for one in str(names[value]))

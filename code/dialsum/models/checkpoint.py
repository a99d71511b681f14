"""What a checkpoint's folder holds, as far as it shows without loading: files, config, sizes.

A few bytes of each file are looked at, so that gigabytes cost no time. Must not import a library
that loads models: it runs before every batch as well as in every run.
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
from dialsum.files import (
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
from dialsum.machine.devices import Choice
from dialsum.machine.memory import BASE_SIZES, Size
from dialsum.models.families import Family, get_family
from dialsum.models.hub import (
    ADAPTER,
    CONFIG,
    SENTENCEPIECE,
    TOKENIZERS,
    WEIGHTS,
    absent_shards,
    choose_files,
    explain_adapter,
    find_folder,
    weight_files,
)
from dialsum.paths import shown

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
            "since a pickle can run any code"
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
    if weights[0] not in wrong:
        problems += [f"{place}: {problem}" for problem in _find_absent_shards(folder, names)]
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


def _find_absent_shards(folder: Path, names: set[str]) -> list[str]:
    try:
        absent = absent_shards(folder, names)
    except ValueError as error:
        return [f"{error}; {AGAIN}"]
    if not absent:
        return []
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return [f"{absent[0]}{more} of the files that its index of weights names absent; {AGAIN}"]


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
    if own["model_type"] != family.name:
        return [
            f"{place} is of type {own['model_type']!r}, but model.architecture says "
            f"{config.model.architecture!r}; set model.architecture to what the checkpoint is"
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
    if own[DECODER_START] is None:
        problems.append(
            f"{place}: its config.json has no {DECODER_START}; add the one that it was trained "
            "with (T5: the padding id, BART: the end id)"
        )
    try:
        measure_size(own, family=family)
    except UnfitError as error:
        problems.append(f"{place}: {error}; {AGAIN}")
    limit = own.get(family.position_limit) if family.position_limit else None
    problems += [
        f"tokenizer.{key} {asked} is beyond the {limit} positions of {place}; set "
        f"tokenizer.{key} to at most {limit}"
        for key in ("encoder_max_len", "decoder_max_len")
        if isinstance(limit, int) and (asked := getattr(config.tokenizer, key)) > limit
    ]
    return problems


def measure_size(own: Mapping[str, Any], *, family: Family) -> Size:
    """Count a checkpoint's parameters and layers from its config.json.

    Biases and norms, below one in a hundred, are left out.

    Args:
        own: the content of its config.json; a key that is absent has the family's default.

    Raises:
        UnfitError: a size is no whole number from 1 to MAX_SIZE.
    """
    own = {**family.defaults, **own}

    def get(key: str) -> int:
        value = own[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
            raise UnfitError(f"its config.json says {key}: {str(value)[:20]}, which is no size")
        return value

    width, vocabulary = get("d_model"), get("vocab_size")
    if family.name == "bart":
        layers = get("encoder_layers"), get("decoder_layers")
        heads = max(get("encoder_attention_heads"), get("decoder_attention_heads"))
        attention = 4 * width * width
        forward = 2 * width * get("encoder_ffn_dim"), 2 * width * get("decoder_ffn_dim")
        positions = 2 * get("max_position_embeddings") * width
    else:
        decoder = "num_layers" if own.get("num_decoder_layers") is None else "num_decoder_layers"
        layers = get("num_layers"), get(decoder)
        heads = get("num_heads")
        attention = 4 * width * heads * get("d_kv")
        gated = str(own["feed_forward_proj"]).startswith("gated")
        forward = ((3 if gated else 2) * width * get("d_ff"),) * 2
        positions = 0
    matrices = 2 if own.get("tie_word_embeddings") is False else 1
    parameters = (
        matrices * vocabulary * width
        + positions
        + layers[0] * (attention + forward[0])
        + layers[1] * (2 * attention + forward[1])
    )
    return Size(parameters, layers, width, heads, vocabulary)


def find_size(config: Config, *, environment: Mapping[str, str]) -> Choice[Size]:
    """Return what memory goes by, the sizes in a checkpoint's own config.json, and why these.

    A hub checkpoint that was not downloaded yet, or one that says no sizes, is taken for the base
    size of its family, and that is the reason given.

    Args:
        environment: environment variables, which say where the hub's cache is.
    """
    family = get_family(config.model.architecture)
    unknown = f"taken for a base-size {family.name}"
    try:
        folder = find_folder(config.model, environment=environment)
        if folder is None:
            why = f"{config.model.checkpoint} is not downloaded yet, {unknown}"
            return Choice(BASE_SIZES[family.name], why)
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
        "do_sample": (False, ""),
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
    start = whole[DECODER_START]
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

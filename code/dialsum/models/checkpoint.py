"""What a checkpoint is, as far as it shows without loading: where it lies, its files, its config.

Must not import a library that loads models: it runs before every batch as well as in every run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import UnfitError, first_line
from dialsum.machine.devices import Choice
from dialsum.machine.memory import BASE_SIZES, Size
from dialsum.models.checkpoint_files import (
    ADAPTER,
    CONFIG,
    explain_adapter,
    name_place,
    weight_files,
)
from dialsum.models.families import HEAD, Family, get_family, measure_size
from dialsum.models.hub import NAME, fetch_snapshot, find_snapshot
from dialsum.paths import project_path, shown

LENGTHS = ("encoder_max_len", "decoder_max_len")
DECODER_START = "decoder_start_token_id"
SEARCH = "generation_config.json"
TASK = "task_specific_params"
TOKENIZER = "tokenizer.json"
LONGEST_VALUE = 40
"""Characters of a checkpoint's own value that a message gives."""
SHOWN_NAMES = 3
"""How many names of weights a message gives."""


def resolve_checkpoint(checkpoint: str) -> str | Path:
    """Return the local folder that a checkpoint names, or the name itself for the hub.

    Raises:
        UnfitError: a file, what looks like a folder and is none, or a folder without config.json.
    """
    for folder in (Path(checkpoint).expanduser(), project_path(checkpoint)):
        if folder.is_dir():
            if not (folder / CONFIG).is_file():
                if (folder / ADAPTER).is_file():
                    raise UnfitError(explain_adapter(folder, place=name_place(folder)))
                raise UnfitError(
                    f"model.checkpoint {folder}: this folder has no config.json, so it holds no "
                    "checkpoint"
                )
            return folder
        if folder.is_file():
            raise UnfitError(
                f"model.checkpoint {checkpoint}: is a file; give the folder that holds it, with "
                "config.json, weights and tokenizer"
            )
    if checkpoint.startswith((".", "/")) or not NAME.fullmatch(checkpoint):
        raise UnfitError(
            f"model.checkpoint {checkpoint}: no such folder (and no hub name, which is OWNER/NAME)"
        )
    return checkpoint


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


def find_folder(config: Config, *, environment: Mapping[str, str]) -> Path | None:
    """Return the folder in which an experiment's checkpoint lies: its own, or the hub's cache.

    Args:
        environment: environment variables, which say where the cache is.

    Returns:
        None for a hub name that was not downloaded yet, or not to its end.

    Raises:
        UnfitError: it looks like a folder and is none, or a folder without config.json.
    """
    source = resolve_checkpoint(config.model.checkpoint)
    if isinstance(source, Path):
        return source
    return find_snapshot(source, config.model.revision, environment)


def fetch_folder(
    config: Config, *, environment: Mapping[str, str], say: Callable[[str], object] = print
) -> Path:
    """Return the folder of an experiment's checkpoint as find_folder does; download what is absent.

    Raises:
        UnfitError: as find_folder, and where it cannot be downloaded.
    """
    source = resolve_checkpoint(config.model.checkpoint)
    if isinstance(source, Path):
        return source
    return fetch_snapshot(config.model, environment=environment, say=say)


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


def find_weight_problems(
    report: Mapping[str, Collection[Any]], *, family: Family, own: Mapping[str, Any]
) -> str | None:
    """Say which weights of a file are not those of its model; None where all fit.

    Args:
        report: as the library gives it of a load: `missing_keys` and `unexpected_keys` are names,
            `mismatched_keys` a name with its shape in the file and in the model.
        own: the content of the checkpoint's config.json.
    """
    absent = set(report["missing_keys"])
    unused = {name for name in report["unexpected_keys"] if not _fits(family.unused, name)}
    if (prefix := _find_prefix(absent, unused, family)) is not None:
        return (
            f"the names of {len(unused)} weights begin with {prefix!r}, such as {min(unused)}, and "
            "the model's do not, so none of them would be read; save the state_dict of the model "
            "itself, not of what it was wrapped in, or take that beginning off the names"
        )
    if list_held_embeddings(report, family=family, own=own):
        absent.difference_update(family.embeddings)
    if _ties_head(own):
        absent.discard(HEAD)
    absent = {name for name in absent if not _fits(family.absent, name)}
    sizes = [
        f"{name} ({_show_shape(held)} in the file, {_show_shape(asked)} by config.json)"
        for name, held, asked in sorted(report["mismatched_keys"])
    ]
    parts = [
        f"{len(names)} {said} ({show_names(names)})"
        for names, said in (
            (sorted(absent), "absent"),
            (sorted(unused), "unused"),
            (sizes, "of another size"),
        )
        if names
    ]
    if not parts:
        return None
    return (
        f"its weights are not those that its config.json describes: {'; '.join(parts)}. What "
        "is absent would begin at random, what is unused would be lost. Copy config.json and "
        "weights of one checkpoint again"
    )


def list_held_embeddings(
    report: Mapping[str, Collection[Any]], *, family: Family, own: Mapping[str, Any]
) -> list[str]:
    """Return the names under which a file holds the one matrix of input embeddings.

    `save_model` of safetensors keeps any one name of a matrix that has several: of a tied model it
    may be the head's.

    Args:
        report: as find_weight_problems has it.
        own: the content of the checkpoint's config.json.
    """
    held = [name for name in family.embeddings if name not in report["missing_keys"]]
    if not held and _ties_head(own) and HEAD not in report["missing_keys"]:
        return [HEAD]
    return held


def _ties_head(own: Mapping[str, Any]) -> bool:
    return own.get("tie_word_embeddings") is not False


def _fits(pattern: str | None, name: str) -> bool:
    return pattern is not None and re.search(pattern, name) is not None


def _find_prefix(absent: Collection[str], unused: Collection[str], family: Family) -> str | None:
    """Return what stands before every unused name, where names without it are the absent ones."""
    known = {*absent, *(name.removeprefix(f"{family.base}.") for name in absent)}
    first = min(unused, default="")
    for dot in re.finditer(r"\.", first):
        prefix = first[: dot.end()]
        if all(name.startswith(prefix) for name in unused) and any(
            name.removeprefix(prefix) in known for name in unused
        ):
            return prefix
    return None


def show_names(names: list[str]) -> str:
    """Return names of weights as a message gives them: the first few."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _show_shape(shape: Collection[int]) -> str:
    return " x ".join(str(size) for size in shape)


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

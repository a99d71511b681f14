"""What is said of a config: spellings that people carry over from transformers, PEFT and guides and
what each means here, types of keys in plain words, near keys, problem lines.

A spelling is understood only where its meaning is certain; where it is not, the text says what to
write. Must not know files or rules. The words come from the schema's annotations, so that they
cannot fall behind it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

from dialsum.config.schema import json_schema, schema_keys, schema_sections
from dialsum.config.yaml import Problem, quote
from dialsum.text import SURROGATE, shorten, visible


@dataclass(frozen=True)
class Meaning:
    """What a spelling comes to: settings by dotted key; or said, why none is needed; or refused,
    what to write.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    refused: str = ""


RENAMED = {
    "alpha": "qlora.lora_alpha",
    "batch_size": "training.per_device_train_batch_size",
    "data_path": "data.data_dir",
    "dropout_rate": "model.dropout",
    "epochs": "training.num_train_epochs",
    "eval_batch_size": "training.per_device_eval_batch_size",
    "generation_num_beams": "generation.num_beams",
    "label_smoothing": "training.label_smoothing_factor",
    "lora_r": "qlora.lora_rank",
    "lr": "training.learning_rate",
    "lr_scheduler": "training.lr_scheduler_type",
    "max_source_length": "tokenizer.encoder_max_len",
    "max_target_length": "tokenizer.decoder_max_len",
    "model_name": "model.checkpoint",
    "model_name_or_path": "model.checkpoint",
    "num_epochs": "training.num_train_epochs",
    "patience": "training.early_stopping_patience",
    "pretrained_model_name_or_path": "model.checkpoint",
    "r": "qlora.lora_rank",
    "random_seed": "training.seed",
    "source_prefix": "tokenizer.input_prefix",
    "train_batch_size": "training.per_device_train_batch_size",
    "wandb_entity": "tracking.entity",
    "wandb_project": "tracking.project",
}
SECTIONS = {"lora": "qlora", "peft": "qlora", "wandb": "tracking"}
"""Other names of whole sections."""

ONLY_UNDER = {"alpha": ("qlora",), "r": ("qlora", ""), "patience": ("training", "")}
"""Names so short that elsewhere they could mean something else ("" is the top level)."""

CLAIM = "greater_is_better"
"""True or false only once all values are known; rules.py holds it against the metric."""
METRIC = "training.metric_for_best_model"
KEPT = "tokenizer.long_dialogues_keep"
PROMPT = "training.prompt_loss_weight"
SAMPLING = "training.train_sampling_strategy"
TRAINS = "a run always trains, evaluates and predicts"
ADAMW = "AdamW always runs with the library's 0.9, 0.999, 1e-8"
MOVED = "an earlier run is moved to previous/, never overwritten"
FOLLOWS = "it follows from model.architecture"
ALWAYS = {
    "load_best_model_at_end": (True, "the best checkpoint is always the one used"),
    "predict_with_generate": (True, "evaluation always generates"),
    "save_safetensors": (True, "weights are always written as safetensors"),
    "do_train": (True, TRAINS),
    "do_eval": (True, TRAINS),
    "do_predict": (True, TRAINS),
    "push_to_hub": (False, "nothing is ever uploaded"),
    "bnb_4bit_quant_type": ("nf4", "4-bit is always NF4"),
    "bias": ("none", "adapters never train biases"),
    "adam_beta1": (0.9, ADAMW),
    "adam_beta2": (0.999, ADAMW),
    "adam_epsilon": (1e-8, ADAMW),
}
"""Switches of other programs that are no choice here: the one value that is accepted, and why."""

_CPU = {
    True: Meaning({"general.device": "cpu"}),
    False: Meaning(said="general.device takes a GPU by itself where there is one"),
}
BY_VALUE: dict[str, tuple[dict[Any, Meaning], str]] = {
    "group_by_length": (
        {True: Meaning({SAMPLING: "token_budget"}), False: Meaning({SAMPLING: "random"})},
        f"{SAMPLING}: token_budget or random",
    ),
    "completion_only_loss": (
        {True: Meaning({PROMPT: 0.0}), False: Meaning({PROMPT: 1.0})},
        f"{PROMPT}: 0, or 1 for false",
    ),
    "task_type": (
        dict.fromkeys(("SEQ_2_SEQ_LM", "CAUSAL_LM"), Meaning(said=FOLLOWS)),
        f"remove it: {FOLLOWS}",
    ),
    "no_cuda": (_CPU, "general.device: cpu or auto"),
    "use_cpu": (_CPU, "general.device: cpu or auto"),
    "overwrite_output_dir": (
        dict.fromkeys((True, False), Meaning(said=MOVED)),
        f"remove it: {MOVED}",
    ),
    CLAIM: (
        dict.fromkeys((True, False), Meaning(said=f"follows from {METRIC}")),
        f"remove it: it follows from {METRIC}",
    ),
    # The library names the side that is cut off.
    "truncation_side": (
        {"right": Meaning({KEPT: "start"}), "left": Meaning({KEPT: "end"})},
        f"{KEPT}: both_ends, start or end",
    ),
}
"""Spellings whose meaning depends on the value; second: what to write in the place of another."""
for _name, (_accepted, _why) in ALWAYS.items():
    BY_VALUE[_name] = ({_accepted: Meaning(said=_why)}, f"remove it: {_why}")
for _name, _key in (
    ("eval_strategy", "training.eval_steps"),
    ("evaluation_strategy", "training.eval_steps"),
    ("logging_strategy", "training.logging_steps"),
    ("save_strategy", "training.save_steps"),
):
    _off = f"remove it: it cannot be switched off; a large {_key} leaves the end only"
    BY_VALUE[_name] = (
        {
            "steps": Meaning(said=f"{_key} counts steps here, always"),
            **dict.fromkeys(("no", False), Meaning(refused=_off)),
        },
        f"remove it and set {_key}; an epoch has rows / (batch × accumulation) steps",
    )

_BEAMS = "training_num_beams (during training) or generation.num_beams (reported scores)"
_EARLY = "training.early_stopping_patience stops training, generation.early_stopping a search"
_LENGTHS = "tokenizer.encoder_max_len (input), tokenizer.decoder_max_len (target)"
_MAKE_TINY = (
    "remove it; scripts/make_tiny_checkpoints.py OUT --data TRAIN makes tiny checkpoints, and "
    "model.checkpoint: OUT/ARCHITECTURE takes one"
)
_TOOLS = {
    "model.initialise": _MAKE_TINY,
    "model.tiny": _MAKE_TINY,
    "tokenizer.train_on_data": _MAKE_TINY,
    "tokenizer.vocab_size": _MAKE_TINY,
    "tokenizer.trim_vocabulary": "remove it; scripts/trim_vocabulary.py CHECKPOINT OUT --data FILE "
    "cuts a checkpoint, and model.checkpoint: OUT takes it",
}
WRITE_INSTEAD = {
    "dropout": "model.dropout (the network's own) or qlora.lora_dropout (the adapters')",
    "logging_dir": "remove it: TensorBoard events go to logs/ in the run's own folder",
    "max_length": _LENGTHS,
    "max_seq_length": _LENGTHS,
    "output_dir": "remove it, and give --output-dir on the command line",
    "run_name": "general.label names the run",
    "truncation": f"{KEPT}: both_ends, start or end, the part that is kept",
    "evaluation.num_beams": f"evaluation.{_BEAMS}",
    "training.early_stopping": _EARLY,
    "early_stopping": _EARLY,
    "cases": "remove it: config/demo/NAME.yaml holds what is one experiment's own",
    **_TOOLS,
    **{key.partition(".")[2]: said for key, said in _TOOLS.items()},
}
"""Names that could mean several things, or that another place decides (dotted: only there)."""


def understand(section: str, name: str, *, value: Any) -> Meaning | None:
    """Return what `name: value` means under section ("" at the top level); None where nobody can
    tell.
    """
    dotted = f"{section}.{name}" if section else name
    if dotted == "generation.max_length" or name in (
        "generation_max_length",
        "generate_max_length",
    ):
        # The library's max_length counts the token that starts the decoder, which is not a new one.
        longest = value - 1 if isinstance(value, int) and not isinstance(value, bool) else value
        return Meaning({"generation.max_new_tokens": longest})
    if refused := WRITE_INSTEAD.get(dotted):
        return Meaning(refused=refused)
    if section not in ONLY_UNDER.get(name, (section,)):
        return None
    if name == "warmup_ratio":
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1:
            return Meaning(refused="a share below 1, or training.warmup_steps in steps")
        return Meaning({"training.warmup_steps": value})
    if name == "report_to":
        names = {str(one).lower() for one in (value if isinstance(value, list) else [value])}
        names = {"wandb", "tensorboard"} if names == {"all"} else names
        if not names <= {"wandb", "tensorboard"} and names != {"none"}:
            return Meaning(refused="wandb, tensorboard, both in a list, all or none")
        return Meaning({f"tracking.{one}": one in names for one in ("wandb", "tensorboard")})
    if name in BY_VALUE:
        meanings, otherwise = BY_VALUE[name]
        same = (m for one, m in meanings.items() if type(one) is type(value) and one == value)
        return next(same, Meaning(refused=otherwise))
    if refused := WRITE_INSTEAD.get(name):
        return Meaning(refused=refused)
    key = RENAMED.get(name) or bare_names().get(name)
    return Meaning({key: value}) if key else None


def normalise_value(key: str, value: Any) -> Any:
    """Return value as this program spells it: `eval_rougeL`, the library's name of a metric, is
    rougeL, PEFT's `init_lora_weights: true` is default, `group_by_length` is token_budget.
    """
    if key == METRIC and isinstance(value, str):
        return value.removeprefix("eval_")
    if key == SAMPLING and value == "group_by_length":
        return "token_budget"
    if key == "qlora.init_lora_weights" and value is True:
        return "default"
    return value


@cache
def bare_names() -> dict[str, str]:
    """Return the last names that one key alone has, with that key: seed -> training.seed.

    Keys in subsections are left out.
    """
    count = Counter(key.rpartition(".")[2] for key in schema_keys())
    names = {key.rpartition(".")[2]: key for key in schema_keys() if key.count(".") == 1}
    return {name: key for name, key in names.items() if count[name] == 1}


NEAR = 0.7
"""Likeness, 0 to 1, from which a name counts as a slip of another."""
TYPES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "null": "null",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
WRITTEN_OUT = 1e12  # no whole number of a config is larger
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
LOOKS_BOOLEAN = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}


class Conflict(NamedTuple):
    """What is wrong with a dotted key beside others: what was found, and what is meant."""

    key: str
    found: str
    meant: str


INTERPOLATION = re.compile(
    r"\$\{[^}]*\}?|(?<![^\s/])\$[A-Za-z_]\w*|\$\([^)]*\)?"
    r"|\{\{.*?\}\}|\{[A-Za-z_][A-Za-z0-9_.]*\}|%\(\w+\)s"
)
"""Of Hydra and shells, of Jinja and Python; `{요약}` is text."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def find_text_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a text, wherever it stands, and what is meant."""
    if found := INTERPOLATION.search(text):
        return (
            f"{quote(found[0])}, which nothing fills in",
            "the value itself; `extends` inherits whole files, and a shell fills in "
            '--set KEY="$NAME"',
        )
    if found := CONTROL.search(text):
        return f"the control character U+{ord(found[0]):04X} in the text", "remove it"
    if found := SURROGATE.search(text):
        return (
            f"half a character (U+{ord(found[0]):04X}) in the text",
            "UTF-8 text; an emoji as itself, or as both of its halves",
        )
    return None


def describe_type(key: str) -> str:
    """Say what a key takes: `a whole number (≥ 1) or auto`."""
    return _words(json_schema(key))


def describe_key(key: str) -> str:
    """Say what a key takes, and what the schema says below it."""
    said = " ".join(json_schema(key)["description"].split())
    return f"{describe_type(key)}: {said.rstrip('.')}"


def describe_meant(key: str, value: Any) -> str:
    """Say what a key takes, and how this wrong value becomes right where that is plain."""
    schema, meant = json_schema(key), describe_type(key)
    members = _choices(schema.get("items", {}))
    if isinstance(value, list) and members:
        wrong = [item for item in value if isinstance(item, str) and item not in members]
        near = list(dict.fromkeys(name for item in wrong for name in nearest(item, members)))
        return f"{meant}; did you mean {' and '.join(near)}?" if near else meant
    number = value if isinstance(value, float) else None
    if isinstance(value, str):
        # A comma counts as one of thousands only where it can be no decimal one.
        text = value.strip()
        with suppress(ValueError):
            number = float(text.replace(",", "") if THOUSANDS.fullmatch(text) else text)
    number = number if "number" in meant else None
    if number is not None and not math.isfinite(number):
        return f"{meant}; {shorten(str(value))} is not a finite number"
    if isinstance(value, float) and value.is_integer() and "whole number" in meant:
        return meant if abs(value) > WRITTEN_OUT else f"{meant}: write {value:.0f}"
    if not isinstance(value, str):
        return meant
    if meant.startswith("true") and (boolean := LOOKS_BOOLEAN.get(value.lower())):
        return f"{meant}: write {boolean}"
    if value in members:
        return f"{meant}: write [{value}]"
    if near := nearest(value, _choices(schema)):
        return f"{meant}; did you mean {near[0]}?"
    if number is not None:
        plain = value.replace("_", "").replace(",", "").strip()
        return f"{meant}: write {shorten(plain)}{' without quotes' if plain == value else ''}"
    return meant


def _choices(schema: dict[str, Any]) -> list[str]:
    """Return the words of which a value may be one."""
    if "const" in schema:
        return [schema["const"]]
    return [
        *schema.get("enum", []),
        *(name for one in schema.get("anyOf", []) for name in _choices(one)),
    ]


def _words(schema: dict[str, Any]) -> str:
    """Say what a part of JSON Schema allows."""
    if "anyOf" in schema:
        # bool | Literal["auto"] reads best as one list of words
        return _either([word for one in schema["anyOf"] for word in _words(one).split(" or ")])
    if choices := _choices(schema):
        return _either(choices)
    if schema["type"] == "array":
        member = _words(schema["items"])
        members = member if _choices(schema["items"]) else _plural(member)
        return (
            f"a list of {schema['minItems']} {members}"
            if "minItems" in schema
            else f"a list of {members}"
        )
    if schema["type"] == "object":
        names = _words(schema["propertyNames"]) if "propertyNames" in schema else "names"
        values = schema["additionalProperties"]
        return f"a mapping of {names} to {'values' if values is True else _plural(_words(values))}"
    bounds = [f"{sign} {schema[name]:,}" for name, sign in BOUNDS.items() if name in schema]
    return TYPES[schema["type"]] + (f" ({', '.join(bounds)})" if bounds else "")


def _plural(words: str) -> str:
    """Return `numbers (≥ 0)` for `a number (≥ 0)`."""
    noun, space, bounds = words.removeprefix("a ").partition(" (")
    return f"{noun}s{space}{bounds}"


def _either(words: Sequence[str]) -> str:
    """Join words with commas and a last `or`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def nearest(name: str, candidates: Iterable[str], *, limit: int = 1) -> list[str]:
    """Return the candidates most like name, best first; none where all are too unlike."""
    known = {one.lower(): one for one in candidates}
    return [known[one] for one in get_close_matches(name.lower(), known, n=limit, cutoff=NEAR)]


def suggest(key: str) -> tuple[str, list[str]]:
    """Say in words what an unknown dotted key may have meant; second: those keys or sections, if
    any is near.
    """
    section, _, name = key.rpartition(".")
    inside = schema_sections().get(section)
    if inside is None:
        if near := nearest(section, schema_sections()):
            return f"did you mean the section {near[0]}?", near
    elif near := nearest(name, inside) or [
        one for one in inside if set(name.lower().split("_")) <= set(one.lower().split("_"))
    ]:  # as `max_len` in `encoder_max_len`
        prefix = f"{section}." if section else ""
        return f"did you mean {' or '.join(near)}?", [prefix + found for found in near]
    last_names = {known.rpartition(".")[2]: known for known in reversed(schema_keys())}
    if near := [last_names[found] for found in nearest(name, last_names)]:
        return f"did you mean {near[0]}?", near
    what = f"{section} knows" if section and inside else "the sections are"
    return f"{what} {', '.join(inside or schema_sections()[''])}", []


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return one aligned line per problem, said once each, file by file and line by line."""
    from rich.cells import cell_len, set_cell_size

    rows: dict[tuple[str, str, str], Problem] = {}
    for one in problems:
        # A line of a .env that happens to be YAML has its secret behind the sign.
        name, sign, _ = one.key.partition("=")
        key = shorten(visible(f"{name}{sign}…" if sign else name))
        said = visible(f"{one.found} → {one.meant}")
        rows.setdefault((visible(one.origin.text), key, said), one)
    files = list(dict.fromkeys(one.origin.file for one in rows.values()))
    ordered = sorted(
        rows,
        key=lambda row: (
            (origin := rows[row].origin).file is None,
            files.index(origin.file),
            origin.line or 0,
        ),
    )
    widths = [max((cell_len(row[at]) for row in ordered), default=0) for at in (0, 1)]
    lines = []
    for place, key, said in ordered:
        head = [set_cell_size(place, widths[0]), *([set_cell_size(key, widths[1])] if key else [])]
        lines.append("  ".join([*head, said]))
    return lines

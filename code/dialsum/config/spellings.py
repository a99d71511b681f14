"""What people carry over from transformers, PEFT and guides, and what each spelling means here.

Only where the meaning is certain; where it is not, the text says what to write. Must not know files
or lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dialsum.config.schema import schema_keys


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
SAMPLING = "training.train_sampling_strategy"
TRAINS = "a run always trains, evaluates and predicts"
ADAMW = "AdamW always runs with the library's 0.9, 0.999, 1e-8"
MOVED = "an earlier run is moved to previous/, never overwritten"
ALWAYS = {
    "load_best_model_at_end": (True, "the best checkpoint is always the one used"),
    "predict_with_generate": (True, "evaluation always generates"),
    "save_safetensors": (True, "weights are always written as safetensors"),
    "do_train": (True, TRAINS),
    "do_eval": (True, TRAINS),
    "do_predict": (True, TRAINS),
    "push_to_hub": (False, "nothing is ever uploaded"),
    "bnb_4bit_quant_type": ("nf4", "4-bit is always NF4"),
    "task_type": ("SEQ_2_SEQ_LM", "every model here is an encoder-decoder"),
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
        return _report_to(value)
    if name in BY_VALUE:
        meanings, otherwise = BY_VALUE[name]
        same = (m for one, m in meanings.items() if type(one) is type(value) and one == value)
        return next(same, Meaning(refused=otherwise))
    if refused := WRITE_INSTEAD.get(name):
        return Meaning(refused=refused)
    key = RENAMED.get(name) or bare_names().get(name)
    return Meaning({key: value}) if key else None


def _report_to(value: Any) -> Meaning:
    names = {str(item).lower() for item in (value if isinstance(value, list) else [value])}
    if names == {"all"}:
        names = {"wandb", "tensorboard"}
    if not names <= {"wandb", "tensorboard"} and names != {"none"}:
        return Meaning(refused="wandb, tensorboard, both in a list, all or none")
    return Meaning(
        {"tracking.wandb": "wandb" in names, "tracking.tensorboard": "tensorboard" in names}
    )


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

"""Keys that another key silences: stated all the same, they would be accepted and then ignored.

A value that an earlier source gave is no mistake: switching adapters off with --set need not take
their rank away. Must not know files or YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dialsum.config.describe import show_value
from dialsum.config.keys import schema_keys
from dialsum.config.problems import Problem
from dialsum.config.view import Rule, View


@dataclass(frozen=True)
class Switch:
    """A key that at one value takes the effect of others away.

    Args:
        key: dotted key.
        off: the value at which it does so.
        why: what is the case then.
        silences: dotted keys; one that ends in a dot stands for its whole section.
    """

    key: str
    off: Any
    why: str
    silences: tuple[str, ...]


SWITCHES = (
    Switch("qlora.use_qlora", False, "every weight is trained, without adapters", ("qlora.",)),
    Switch("model.initialise", "pretrained", "the checkpoint has its own size", ("model.tiny.",)),
    Switch("model.initialise", "tiny", "no checkpoint is loaded", ("model.revision",)),
    Switch("model.initialise", "tiny", "model.tiny.dropout counts", ("model.dropout",)),
    Switch(
        "tokenizer.train_on_data",
        False,
        "the checkpoint's tokenizer is loaded",
        ("tokenizer.vocab_size",),
    ),
    Switch(
        "tokenizer.train_on_data",
        True,
        "a tokenizer trained on the data has no other pieces",
        ("tokenizer.trim_vocabulary",),
    ),
    Switch(
        "training.early_stopping_patience",
        None,
        "training never stops early",
        ("training.early_stopping_threshold",),
    ),
    Switch(
        "generation.num_beams",
        1,
        "greedy search has no beams to weigh",
        ("generation.length_penalty", "generation.early_stopping"),
    ),
    Switch("data.test_file", None, "no test rows are read", ("data.max_test_rows",)),
    Switch("tracking.wandb", False, "W&B is off", ("tracking.project", "tracking.entity")),
)


def keys_have_an_effect(view: View) -> Iterator[Problem]:
    """Refuse each key that is stated beside, or after, what silences it."""
    if view.resolved.complete_record:
        return
    for switch in SWITCHES:
        if switch.key not in view.invalid and _is(view[switch.key], switch.off):
            yield from _silenced(view, switch)


def _silenced(view: View, switch: Switch) -> Iterator[Problem]:
    rank = view.resolved.rank
    keys = [
        key
        for key in schema_keys()
        if key != switch.key
        and any(
            key == name or (name.endswith(".") and key.startswith(name)) for name in switch.silences
        )
    ]
    for key in keys:
        if key in view.invalid or not view.stated(key) or rank(key) < rank(switch.key):
            continue
        # null and false ask for nothing, so nothing is ignored.
        if view[key] is None or view[key] is False:
            continue
        found = (
            f"{show_value(view[key])} has no effect under {switch.key}: {show_value(switch.off)}"
        )
        yield view.problem(
            key, f"{found} ({switch.why})", meant=f"remove it, or change {switch.key}"
        )


def _is(value: Any, off: Any) -> bool:
    return type(value) is type(off) and value == off


EFFECT_RULES: tuple[Rule, ...] = (keys_have_an_effect,)

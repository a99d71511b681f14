"""Keys that another key silences: stated all the same, they would be accepted and then ignored.

A value that an earlier source gave is no mistake: switching adapters off with --set need not take
their rank away; that it has no effect then is said. Must not know YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.config.messages import show_value
from dialsum.config.resolve import Resolved
from dialsum.config.schema import default_of, keys_under
from dialsum.config.view import Rule, View
from dialsum.config.yaml import Problem


@dataclass(frozen=True)
class Switch:
    """A key that at one value takes the effect of others away.

    Args:
        key: dotted key.
        off: the value at which it does so.
        why: what is the case then.
        silences: dotted keys and sections.
    """

    key: str
    off: Any
    why: str
    silences: tuple[str, ...]

    def silenced(self) -> list[str]:
        """Return every key that it silences."""
        return [key for name in self.silences for key in keys_under(name) if key != self.key]


SWITCHES = (
    Switch("qlora.use_qlora", False, "every weight is trained, without adapters", ("qlora",)),
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
NO_WARMUP = Switch(
    "training.lr_scheduler_type", "constant", "it has no warm-up", ("training.warmup_steps",)
)
"""Stated beside the shape, a warm-up has a rule of its own, which names the shape that has one."""


def keys_have_an_effect(view: View) -> Iterator[Problem]:
    """Refuse each key that is stated beside, or after, what silences it."""
    if view.resolved.complete_record:
        return
    for switch in SWITCHES:
        if view.knows(switch.key) and _is(view[switch.key], switch.off):
            yield from _silenced(view, switch)


def _silenced(view: View, switch: Switch) -> Iterator[Problem]:
    rank = view.resolved.rank
    for key in switch.silenced():
        if not view.knows(key) or not view.stated(key) or rank(key) < rank(switch.key):
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


def note_silenced(resolved: Resolved, *, files: Resolved) -> list[str]:
    """Say which keys have no effect any more.

    Args:
        files: what the experiment's files alone come to, without overlays and --set.
    """
    notes = []
    for switch in (*SWITCHES, NO_WARMUP):
        if not _is(resolved.value(switch.key), switch.off):
            continue
        if _is(files.value(switch.key), switch.off):
            continue
        rank = resolved.rank(switch.key)
        keys = [key for key in switch.silenced() if 0 < resolved.rank(key) < rank]
        if names := [_short(key, switch.key) for key in keys if _asks(resolved, key)]:
            verb = "have" if len(names) > 1 else "has"
            notes.append(
                f"{resolved.origin(switch.key).text} {switch.key} {show_value(switch.off)}:"
                f" {', '.join(names)} {verb} no effect ({switch.why})"
            )
    return [*notes, *_note_whole_paths(resolved, files)]


def _note_whole_paths(resolved: Resolved, files: Resolved) -> Iterator[str]:
    """Another folder changes nothing where every file is named with its own."""
    key = "data.data_dir"
    names = [resolved.value(f"data.{kind}_file") for kind in ("train", "dev", "test")]
    whole = all(Path(name).is_absolute() for name in names if name)
    if whole and resolved.value(key) != files.value(key):
        why = "train_file, dev_file and test_file are whole paths"
        yield f"{resolved.origin(key).text} {key}: it has no effect ({why})"


def find_silent(resolved: Resolved) -> set[str]:
    """Return every key whose value, stated or not, has no effect."""
    off = [switch for switch in SWITCHES if _is(resolved.value(switch.key), switch.off)]
    return {key for switch in off for key in switch.silenced()}


def _asks(resolved: Resolved, key: str) -> bool:
    """Say whether a value asks for something: inherited ones that equal the default do not."""
    value = resolved.value(key)
    if value is None or value is False or value == "auto":
        return False
    return resolved.origin(key).file == resolved.path or value != default_of(key)


def _short(key: str, beside: str) -> str:
    """Return a key without its section where it shares that with the key named beside it."""
    section, _, name = key.rpartition(".")
    return name if section == beside.rpartition(".")[0] else key


def _is(value: Any, off: Any) -> bool:
    return type(value) is type(off) and value == off


EFFECT_RULES: tuple[Rule, ...] = (keys_have_an_effect,)

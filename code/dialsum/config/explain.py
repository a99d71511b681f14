"""A loaded config as text: every key, its value, and where that was written.

Must not know how it was loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialsum.config.describe import show_whole
from dialsum.config.read import LoadedConfig
from dialsum.paths import shown
from dialsum.text_table import align


def explain(loaded: LoadedConfig, *, checkpoint: Sequence[str] = ()) -> str:
    """Return all values of one experiment in the schema's order, each with its origin, then what
    was understood.

    Args:
        checkpoint: what the checkpoint's own files ask for beside them, as lines.
    """
    rows = [
        (key, show_whole(_value(loaded, key)), origin.text)
        for key, origin in loaded.origins.items()
    ]
    lines = [f"{loaded.name}  {shown(loaded.path)}", ""]
    section = ""
    for key, line in zip(loaded.origins, align(rows, left=range(3)), strict=True):
        first = key.partition(".")[0]
        if section and first != section:
            lines.append("")
        section = first
        lines.append(line)
    if loaded.notes:
        lines += ["", "understood:", *(f"  {note}" for note in loaded.notes)]
    if checkpoint:
        lines += ["", *checkpoint]
    lines += ["", f"sha256 of these values: {loaded.sha256}"]
    return "\n".join(lines)


def _value(loaded: LoadedConfig, key: str) -> Any:
    value: Any = loaded.config
    for name in key.split("."):
        value = getattr(value, name)
    return value

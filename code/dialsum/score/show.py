"""Lays scores out as lines: never one without its recipe, interval and floors.

Must not compute scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    ("rouge1", "R1"),
    ("rouge2", "R2"),
    ("rougeL", "RL"),
    ("rougeLsum", "RLsum"),
    ("rouge_mean", "mean"),
)
FLOORS = (("constant", "constant"), ("lead2", "lead-2"))


def describe_measured(*, rows: int | None, num_beams: int | None) -> str:
    """Say on how many rows scores stand and how these were written; what is unknown is left out."""
    parts = [] if rows is None else [f"{rows:,} rows"]
    if num_beams is not None:
        parts.append("greedy" if num_beams == 1 else f"{num_beams} beams")
    return ", ".join(parts)


def format_final(dev: Mapping[str, Any]) -> str:
    """Return the one line that closes a run: its dev scores, what they stand on, and their floor.

    Args:
        dev: `evaluation.dev` of a record; what is absent is left out.
    """
    rows, beams = dev.get("rows"), dev.get("num_beams")
    measured = describe_measured(
        rows=rows if isinstance(rows, int) else None,
        num_beams=beams if isinstance(beams, int) else None,
    )
    shown = [(title, dev[key]) for key, title in COLUMNS if key in dev and key != "rougeLsum"]
    # A score that is not finite stands in the record by its name.
    scores = ", ".join(f"{title} {value:.2f}" for title, value in shown if _is_number(value))
    scores += "".join(f", {title} {value}" for title, value in shown if not _is_number(value))
    floor: Any = dev
    for key in ("floors", "constant", "rouge_mean"):
        floor = floor.get(key) if isinstance(floor, Mapping) else None
    beside = f" (constant sentence: mean {floor:.2f})" if _is_number(floor) else ""
    place = f"dev ({measured})" if measured else "dev"
    return f"{place}: {scores.removeprefix(', ') or 'without scores'}{beside}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def format_scores(block: Mapping[str, Any], *, name: str = "predictions") -> str:
    """Return one table of all scales, then signatures with their constants.

    Args:
        block: the record; a scale or floor that is absent is not shown.
        name: how the scored system is called in its row.
    """
    scales = [block, *(block[key] for key in ("tags_one", "whitespace") if key in block)]
    interval = f"mean's {block['confidence']['level_percent']} % interval"
    table = [["", *(title for _, title in COLUMNS), interval]]
    for scale in scales:
        low, high = scale["confidence"]["rouge_mean"]
        table.append([_scale_name(scale)])
        table.append([f"  {name}", *_numbers(scale), f"{low:.2f} - {high:.2f}"])
        table.extend(
            [f"  {title}", *_numbers(floor)]
            for key, title in FLOORS
            if (floor := scale.get("floors", {}).get(key))
        )
    lines = _align(table)
    lines.append("")
    for scale in scales:
        constant = scale.get("floors", {}).get("constant")
        lines.append(scale["signature"])
        if constant:
            lines.append(f"  constant: {constant['text']}")
    foreign = f"{block['foreign_script_rate']:.1f} %"
    lines.append(f"{foreign} of the predictions hold letters that are neither Hangul nor Latin")
    return "\n".join(lines)


def _scale_name(scale: Mapping[str, Any]) -> str:
    fields = dict(field.split(":", 1) for field in scale["signature"].split("|") if ":" in field)
    return f"{fields['tok']}, tags {fields['tags']}"


def _numbers(scores: Mapping[str, Any]) -> list[str]:
    return [f"{scores[key]:.2f}" if key in scores else "" for key, _ in COLUMNS]


def _align(table: list[list[str]]) -> list[str]:
    # A line that is a heading alone may be longer than the first column of the others.
    widths = [
        max(len(row[place]) for row in table if len(row) > max(place, 1))
        for place in range(len(table[0]))
    ]
    lines = []
    for row in table:
        numbers = [cell.rjust(widths[place]) for place, cell in enumerate(row[1:], start=1)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return lines

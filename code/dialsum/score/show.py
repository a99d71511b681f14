"""Lays scores out as lines: never one without its recipe, interval and floors.

Must not compute scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dialsum.score.show_unseen import format_slices, format_unseen
from dialsum.score.verdicts import explain_real, say_against_constant, say_difference, sum_up
from dialsum.text_table import align

COLUMNS = (
    ("rouge1", "R1"),
    ("rouge2", "R2"),
    ("rougeL", "RL"),
    ("rougeLsum", "RLsum"),
    ("rouge_mean", "mean"),
)
FLOORS = {
    "constant": "constant",
    "lead1": "lead-1",
    "lead2": "lead-2",
    "lead3": "lead-3",
    "longest": "longest utterance",
    "random": "another row's summary",
}
BESIDE = ("constant", "lead2")
"""The floors of the scales beside the asked one; the record has all."""
CEILING = "human ceiling"


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
    """Return one table of all scales, signatures with their constants, and what ROUGE does not see.

    Args:
        block: the record; a scale or floor that is absent is not shown.
        name: how the scored system is called in its row.
    """
    scales = list_scales(block)
    interval = f"mean's {block['confidence']['level_percent']} % interval"
    table = [["", *(title for _, title in COLUMNS), interval, "over floor"]]
    for scale in scales:
        low, high = scale["confidence"]["rouge_mean"]
        table.append([describe_scale_name(scale)])
        ends = f"{low:.2f} - {high:.2f}"
        table.append([f"  {name}", *score_cells(scale), ends, describe_over_floor(scale)])
        floors = _floor_rows(scale, keys=FLOORS if scale is block else _floors_beside(scale))
        table += [[*row, ""] for row in floors]
    lines = [*_align(table), "", *explain_words(block)]
    if "against_constant" in block:
        lines += explain_real(block["rows"])
    lines.append("")
    for scale in scales:
        constant = scale.get("floors", {}).get("constant")
        lines.append(scale["signature"])
        if constant:
            lines.append(f"  constant: {constant['text']}")
        lines += [f"  {said}" for said in say_against_constant(scale, name=name)]
    lines += format_unseen({name: block})
    lines += format_slices(block)
    return "\n".join(lines)


def list_scales(block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the block of the asked scale and those that stand beside it."""
    return [block, *(block[key] for key in ("tags_one", "whitespace") if key in block)]


def describe_over_floor(scale: Mapping[str, Any]) -> str:
    """Return the mean's place between best floor and ceiling, with the floor's name."""
    corrected = scale.get("corrected", {})
    if "rouge_mean" not in corrected:
        return ""
    return f"{corrected['rouge_mean']:.1f} % ({FLOORS[corrected['floor']]})"


def _floors_beside(scale: Mapping[str, Any]) -> list[str]:
    best = scale.get("corrected", {}).get("floor")
    return [key for key in FLOORS if key in BESIDE or key == best]


def format_comparison(found: Mapping[str, Any], blocks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return rankings on each scale with the verdict on every difference, in plain words.

    Args:
        found: as compare_reports returns it.
        blocks: name of each system to its record.
    """
    lines = sum_up(found, blocks)
    for key, scale in found["scales"].items():
        table = [["", *(title for _, title in COLUMNS), "mean's 95 % interval", "over floor"]]
        of_scale = {name: blocks[name].get(key, blocks[name]) for name in scale["systems"]}
        for rank, (name, one) in enumerate(scale["systems"].items(), start=1):
            low, high = one["confidence"]
            ends = f"{low:.2f} - {high:.2f}"
            over = describe_over_floor(of_scale[name])
            table.append([f"  {rank}  {name}", *score_cells(of_scale[name]), ends, over])
        first = next(iter(of_scale.values()))
        table += [[*row, ""] for row in _floor_rows(first, keys=_floors_beside(first))]
        lines += [describe_scale_name(scale), *align(table, left=(0,)), ""]
        lines += [f"  {say_difference(one)}" for one in scale["differences"]]
        for name, block in of_scale.items():
            lines += [f"  {said}" for said in say_against_constant(block, name=name)]
        constant = first.get("floors", {}).get("constant")
        lines += [f"  constant: {constant['text']}"] if constant else []
        lines += [f"  {scale['signature']}", ""]
    lines += format_unseen(blocks)
    lines += ["", *explain_words(next(iter(blocks.values()))), *explain_real(found["rows"])]
    return "\n".join(lines)


def explain_words(block: Mapping[str, Any]) -> list[str]:
    """Say what the words of the tables mean that a newcomer cannot know."""
    floors = block.get("floors", {})
    said = []
    if "tags:split" in block["signature"] and "tags_one" in block:
        mecab = "tok:mecab" in block["signature"]
        split = (
            "breaks into four morphemes, as the competition counts it"
            if mecab
            else ("is text like any other")
        )
        said.append(f"tags split: #Person1# {split}; tags one: it is one token")
    if "corrected" in block:
        said.append(
            "over floor: where the mean stands between the scale's best floor, named beside it, "
            "and " + (f"the {CEILING}" if "ceiling" in block else "100")
        )
    if "constant" in floors:
        said.append(
            "constant: one text for every row, the best that a search on the train summaries "
            "found: what saying nothing earns"
        )
    if "lead2" in floors:
        said.append("lead-2: the first two turns of each dialogue as they stand")
    said.append("RLsum: ROUGE-L line by line; the same as RL where summaries have one line")
    if "ceiling" in block:
        said.append(f"{CEILING}: each reference scored against the other ones of its row")
    return said


def _floor_rows(scale: Mapping[str, Any], *, keys: Iterable[str]) -> list[list[str]]:
    rows = [
        [f"  {FLOORS[key]}", *score_cells(floor), ""]
        for key in keys
        if (floor := scale.get("floors", {}).get(key))
    ]
    human = scale.get("ceiling", {}).get("human")
    return [*rows, [f"  {CEILING}", *score_cells(human), ""]] if human else rows


def describe_scale_name(scale: Mapping[str, Any]) -> str:
    """Return the tokeniser and treatment of tags that a signature names."""
    fields = dict(field.split(":", 1) for field in scale["signature"].split("|") if ":" in field)
    return f"{fields['tok']}, tags {fields['tags']}"


def score_cells(scores: Mapping[str, Any]) -> list[str]:
    """Return the scores of COLUMNS with two decimals; empty where there is none."""
    return [f"{scores[key]:.2f}" if key in scores else "" for key, _ in COLUMNS]


def _align(table: list[list[str]]) -> list[str]:
    # A line that is a heading alone may be longer than the first column of the others.
    headings = {place: row[0] for place, row in enumerate(table) if len(row) == 1}
    lines = align([row for row in table if len(row) > 1], left=(0,))
    for place, heading in headings.items():
        lines.insert(place, heading)
    return lines

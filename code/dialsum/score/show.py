"""Lays scores out as lines: never one without its recipe, interval and floors.

Must not compute scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dialsum.score.statistics import ALPHA, TRIALS
from dialsum.text_table import align

MOST_ROWS = 1_000_000
"""Beyond this many more rows nobody will settle it."""


def explain_real(rows: int) -> list[str]:
    """Say what REAL and NOT SETTLED mean.

    Args:
        rows: on which systems were compared.
    """
    return [
        f"REAL: equally good systems would differ so on these {rows:,} rows in less than "
        f"{100 * ALPHA:g} % of cases; NOT SETTLED: they easily would,",
        "so that either may be the better one. (Paired approximate randomisation on the mean of "
        f"ROUGE-1, -2, -L, {TRIALS:,} trials;",
        "p over a scale's pairs of systems is corrected by Holm's method, p against the constant "
        "stands alone.)",
    ]


def say_against_constant(block: Mapping[str, Any], *, name: str) -> list[str]:
    """Say whether a system is better than one text for all rows, where that was tested."""
    found = block.get("against_constant")
    if found is None:
        return []
    return [_say_gap(name, "the constant text", found, p=found["p"])]


def say_difference(one: Mapping[str, Any]) -> str:
    """Say in a sentence whether a difference is real, and what would settle it."""
    return _say_gap(one["first"], one["second"], one, p=one["p_holm"])


def _say_gap(first: str, second: str, found: Mapping[str, Any], *, p: float) -> str:
    ends = f"({found['low']:.2f} to {found['high']:.2f})"
    verdict = describe_verdict(real=found["real"], more_rows=found.get("more_rows"))
    if not found["real"]:
        gap = f"{first} and {second} differ by {found['points']:+.2f} points {ends}"
    elif found["points"] < 0:
        gap = f"{first} is BEHIND {second} by {-found['points']:.2f} points {ends}"
    else:
        gap = f"{first} is ahead of {second} by {found['points']:.2f} points {ends}"
    return f"{gap}, p = {p:.4f}: {verdict}"


def sum_up(found: Mapping[str, Any], blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the answer to a comparison: the best system, and what its lead is worth.

    Args:
        found: as compare_reports returns it; its first scale decides.
        blocks: name of each system to its record.
    """
    scale = next(iter(found["scales"].values()))
    best, *others = scale["systems"]
    over = [one for one in scale["differences"] if one["first"] == best]
    settled = [one["second"] for one in over if one["real"]]
    open_ones = [name for name in others if name not in settled]
    lines = [f"Best on the scale asked for: {best}."]
    if settled:
        lines.append(f"  Its lead is REAL over {', '.join(settled)}.")
    if open_ones:
        lines.append(f"  NOT SETTLED whether it is better than {', '.join(open_ones)}.")
    against = blocks[best].get("against_constant")
    if against is not None and not (against["real"] and against["points"] > 0):
        lines.append("  But it is not shown to beat one constant text for all rows.")
    order = {key: list(one["systems"]) for key, one in found["scales"].items()}
    if len(set(map(tuple, order.values()))) > 1:
        lines.append("  With each tag as one token the order is another: see below.")
    return [*lines, ""]


def describe_verdict(*, real: bool, more_rows: int | None) -> str:
    """Return REAL, or that a difference is not settled and what would settle it."""
    if real:
        return "REAL"
    if more_rows is None:
        return "NOT SETTLED: no difference was seen"
    if more_rows > MOST_ROWS:
        return "NOT SETTLED: no realistic number of rows would tell"
    return f"NOT SETTLED: about {_round_up(more_rows):,} more rows would tell"


def _round_up(count: int) -> int:
    """Return a count to two digits: it is an estimate."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


EXAMPLES = 2
LONGEST_EXAMPLE = 20


def format_unseen(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of what ROUGE does not see, systems side by side with the references.

    Args:
        blocks: name of each system to its record.
    """
    first = next(iter(blocks.values())).get("unseen")
    if not first:
        return []
    table = [["what ROUGE does not see", *blocks, "references", "unit"]]
    if len(blocks) == 1:
        table[0].append("for instance")
    for key, measure in first.items():
        values = [block["unseen"].get(key, {}).get("value") for block in blocks.values()]
        if all(value is None for value in values):
            continue
        row = [f"  {measure['title']}", *map(_short, values), _short(measure.get("references"))]
        row.append(_unit(measure, first))
        if len(blocks) == 1:
            row.append(", ".join(_example(one) for one in measure["worst"][:EXAMPLES]))
        table.append(row)
    left = (0, len(table[0]) - 1) if len(blocks) > 1 else (0, len(blocks) + 2, len(blocks) + 3)
    return ["", *align(table, left=left)]


def _unit(measure: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    rows, measured = measures["empty"]["rows_measured"], measure["rows_measured"]
    return str(measure["unit"]) + (f", {measured} rows" if measured < rows else "")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _example(row: Mapping[str, Any]) -> str:
    what = row["what"]
    if len(what) > LONGEST_EXAMPLE:
        what = f"{what[:LONGEST_EXAMPLE]}…"
    return f"{row['name']} ({what})" if what else str(row["name"])


def format_slices(block: Mapping[str, Any]) -> list[str]:
    """Return the table of slices: rouge_mean of the asked scale where it acts."""
    slices = block.get("slices")
    if not slices:
        return []
    table = [["mean by slice", "rows", "mean", "95 % interval", "constant"]]
    by = ""
    for one in slices:
        if one["by"] != by:
            by = one["by"]
            table.append([f"{by}", "", "", "", ""])
        low, high = one["confidence"]
        table.append(
            [
                f"  {one['value']}",
                f"{one['rows']}{' few' if one['few'] else ''}",
                f"{one['rouge_mean']:.2f}",
                f"{low:.2f} - {high:.2f}",
                f"{one['constant']:.2f}" if "constant" in one else "",
            ]
        )
    few = any(one["few"] for one in slices)
    said = ["few: under 20 rows, which say little"] if few else []
    return ["", *align(table, left=(0,)), *said]


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

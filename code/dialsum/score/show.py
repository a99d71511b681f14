"""Lays scores out as lines or a page: never one without its recipe, interval and floors.

Must not compute scores.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from dialsum.files import write_report
from dialsum.score.api import BESIDE
from dialsum.score.form import FAULTS
from dialsum.score.rows import FEW_ROWS, Rows
from dialsum.score.statistics import ALPHA, HALVES, TRIALS, find_leaders
from dialsum.text import align, shorten

Block = Mapping[str, Any]
"""A record of score_report, or the part of it that is of one scale."""

COLUMNS = {
    "rouge1": "R1",
    "rouge2": "R2",
    "rougeL": "RL",
    "rougeLsum": "RLsum",
    "rouge_mean": "mean",
}
FLOORS = {
    "constant": "constant",
    "lead1": "lead-1",
    "lead2": "lead-2",
    "lead3": "lead-3",
    "longest": "longest utterance",
    "random": "another row's summary",
}
FLOORS_SHOWN = ("constant", "lead2")
"""The floors of the scales beside the asked one; the record has all."""
CEILING = "human ceiling"
WHAT_BESIDE = {
    "content": "nouns, verbs, adjectives, numbers of the reference in it (F1, rare weigh more)",
    "meaning": "likeness of sentence vectors to the reference's, tags apart (cosine x 100)",
}
"""What each score beside ROUGE is."""
TINY = 0.5
"""Points of a mean that nobody would notice in the summaries."""
MORE_ROWS = (
    "More rows: for 80 % power, if the difference is as large as seen; testing again after adding "
    "rows needs a correction."
)
WIDTH = 118
"""Of paragraphs on a terminal."""
LEAST_READING = 0.05
"""Seen: 0.001 of a model that wrote one sentence for all rows, 1.1 of one that reads."""
MOST_ROWS = 1_000_000
"""Beyond this many more rows nobody will settle it."""
EXAMPLES = 2
DIFFERING = 3
LONGEST_TEXT = 160
LONGEST_EXAMPLE = 20
TEMPLATE = Path(__file__).with_name("page.html")


def describe_measured(
    *, rows: int | None, num_beams: int | None, mbr_temperature: float | None = None
) -> str:
    """Say on how many rows scores stand and how these were written; what is unknown is left out."""
    parts = [] if rows is None else [f"{rows:,} rows"]
    if mbr_temperature is not None:
        parts.append(f"best of {num_beams} drawn at {mbr_temperature:g}")
    elif num_beams is not None:
        parts.append("greedy" if num_beams == 1 else f"{num_beams} beams")
    return ", ".join(parts)


def reads(reading: Mapping[str, float]) -> bool:
    """Say whether a model tells a row's own dialogue from another row's.

    Args:
        reading: dev loss a token, in nats, with each: `own`, `foreign`.
    """
    return reading["foreign"] - reading["own"] >= LEAST_READING


def describe_reading(reading: Mapping[str, float]) -> str:
    """Say how a model takes its own dialogues and other rows' (see reads)."""
    own, foreign = reading["own"], reading["foreign"]
    told = f"dev loss {own:.3f} with the own dialogue, {foreign:.3f} with another row's"
    return told if reads(reading) else f"{told}: it does NOT read the dialogue"


def format_final(dev: Mapping[str, Any]) -> str:
    """Return the one line that closes a run: its dev scores, what they stand on, and their floor.

    Args:
        dev: `evaluation.dev` of a record; what is absent is left out.
    """
    rows, beams = dev.get("rows"), dev.get("num_beams")
    measured = describe_measured(
        rows=rows if isinstance(rows, int) else None,
        num_beams=beams if isinstance(beams, int) else None,
        mbr_temperature=dev.get("mbr_temperature"),
    )
    shown = [
        (title, dev[key]) for key, title in COLUMNS.items() if key in dev and key != "rougeLsum"
    ]
    # A score that is not finite stands in the record by its name.
    told = [
        f"{title} {value:.2f}" if isinstance(value, (int, float)) else f"{title} {value}"
        for title, value in shown
    ]
    floor: Any = dev
    for key in ("floors", "constant", "rouge_mean"):
        floor = floor.get(key) if isinstance(floor, Mapping) else None
    beside = f" (constant sentence: mean {floor:.2f})" if isinstance(floor, (int, float)) else ""
    place = f"dev ({measured})" if measured else "dev"
    return f"{place}: {', '.join(told) or 'without scores'}{beside}"


def format_scores(block: Block, *, name: str = "predictions") -> str:
    """Return one table of all scales, signatures with their constants, and what ROUGE does not see.

    Args:
        block: the record; a scale or floor that is absent is not shown.
        name: how the scored system is called in its row.
    """
    scales = list_scales(block)
    table = [score_titles(f"mean's {block['confidence']['level_percent']} % interval")]
    headings: dict[int, str] = {}
    for scale in scales:
        headings[len(table) + len(headings)] = name_scale(scale)
        floors = FLOORS if scale is block else _floors_beside(scale)
        table += _indent(score_table(scale, name=name, floors=floors))
    lines = align(table, left=(0,))
    # Headings may be longer than the first column.
    for place, heading in headings.items():
        lines.insert(place, heading)
    for key, what in WHAT_BESIDE.items():
        if key in block:
            table = [beside_titles(key), *_indent(beside_table(block, key, name=name))]
            lines += [
                "",
                f"{key}: {what}",
                *align(table, left=(0,)),
                f"  {block[key]['signature']}",
            ]
    lines += ["", *form] if (form := say_form(block)) else []
    lines += ["", *explain_words(block)]
    if "against_constant" in block:
        lines += [line for one in explain_real(block["rows"]) for line in wrap(one, WIDTH)]
    lines.append("")
    for scale in scales:
        said = [*_say_constant(scale), *say_against_constant(scale, name=name)]
        lines += [scale["signature"], *(f"  {line}" for line in said)]
    return "\n".join([*lines, *_format_unseen({name: block}), *_format_slices(block)])


def format_comparison(found: Mapping[str, Any], blocks: Mapping[str, Block]) -> str:
    """Return rankings on each scale with the verdict on every difference, in plain words.

    Args:
        found: as compare_reports returns it.
        blocks: name of each system to its record.
    """
    lines = [*sum_up(found, blocks), ""]
    for key, scale in found["scales"].items():
        of_scale = {name: blocks[name].get(key, blocks[name]) for name in scale["systems"]}
        first, *_ = of_scale.values()
        ranked = [
            score_table(block, name=f"{rank}  {name}")[0]
            for rank, (name, block) in enumerate(of_scale.items(), start=1)
        ]
        floors = score_table(first, name="", floors=_floors_beside(first))[1:]
        table = [score_titles("mean's 95 % interval"), *_indent([*ranked, *floors])]
        lines += [name_scale(scale), *align(table, left=(0,)), ""]
        said = [say_stability(scale["stability"])]
        said += [say_difference(one) for one in scale["differences"]]
        for name, block in of_scale.items():
            said += say_against_constant(block, name=name)
        said += [*_say_constant(first), scale["signature"]]
        lines += [*(f"  {line}" for line in said), ""]
    for key, what in WHAT_BESIDE.items():
        if (beside := found.get(key)) is None:
            continue
        table = [beside_titles(key)]
        for rank, name in enumerate(beside["systems"], start=1):
            table += _indent(beside_table(blocks[name], key, name=f"{rank}  {name}")[:1])
        table += _indent(beside_table(next(iter(blocks.values())), key, name="")[1:])
        said = [say_stability(beside["stability"])]
        said += [say_difference(one) for one in beside["differences"]]
        lines += [f"{key}: {what}", *align(table, left=(0,)), ""]
        lines += [*(f"  {line}" for line in [*said, beside["signature"]]), ""]
    for name, block in blocks.items():
        lines += [f"{name}: {line}" for line in say_form(block)]
    explained = explain_words(next(iter(blocks.values())))
    explained += [line for one in explain_real(found["rows"]) for line in wrap(one, WIDTH)]
    return "\n".join([*lines, *_format_unseen(blocks), "", *explained])


def list_scales(block: Block) -> list[Block]:
    """Return the block of the asked scale and those that stand beside it."""
    return [block, *(block[key] for key in ("tags_one", "whitespace") if key in block)]


def name_scale(scale: Block) -> str:
    """Return the tokeniser and treatment of tags that a signature names."""
    fields = dict(field.split(":", 1) for field in scale["signature"].split("|") if ":" in field)
    return f"{fields['tok']}, tags {fields['tags']}"


def score_titles(interval: str) -> list[str]:
    """Return the titles of score_table."""
    return ["", *COLUMNS.values(), interval, "over floor"]


def score_table(
    scale: Block, *, name: str, floors: Collection[str] = tuple(FLOORS)
) -> list[list[str]]:
    """Return the scores of a scale with two decimals: the system's, its floors', the ceiling's.

    `over floor` is the mean's place between best floor and ceiling, with the floor's name.
    """

    def cells(scores: Mapping[str, Any]) -> list[str]:
        return [f"{scores[key]:.2f}" if key in scores else "" for key in COLUMNS]

    corrected = scale.get("corrected", {})
    over = ""
    if "rouge_mean" in corrected:
        over = f"{corrected['rouge_mean']:.1f} % ({FLOORS[corrected['floor']]})"
    ends = format_ends(scale["confidence"].get("rouge_mean"))
    table = [[name, *cells(scale), ends, over]]
    for key in floors:
        if floor := scale.get("floors", {}).get(key):
            table.append([FLOORS[key], *cells(floor), "", ""])
    if human := scale.get("ceiling", {}).get("human"):
        table.append([CEILING, *cells(human), "", ""])
    return table


def format_ends(interval: Sequence[float] | None) -> str:
    """Return an interval; nothing of a single row, which has none."""
    return "" if interval is None else "{:.2f} - {:.2f}".format(*interval)


def say_form(block: Block) -> list[str]:
    """Say which faults of form the predictions have, and what they would have without."""
    if "form" not in block:
        return []
    form, rows = block["form"], block["rows"]
    counts = form["faults"]
    faults = [f"{said} in {counts[fault]:,}" for fault, said in FAULTS.items() if fault in counts]
    names = {"asked": "the mean", "tags_one": "with tags as one", "whitespace": "on whitespace"}
    scales = {"asked": block} | {key: block[key] for key in names if key in block}
    gains = [
        f"{names[key]} {without:.2f} ({scales[key]['rouge_mean']:.2f} as it is)"
        for key, without in form["rouge_mean_without"].items()
    ]
    return [
        f"faults of form in {form['rows']:,} of {rows:,} rows: {'; '.join(faults)}",
        f"without them (broken tags apart) {', '.join(gains)}",
    ]


def beside_titles(key: str) -> list[str]:
    """Return the titles of beside_table."""
    return ["", BESIDE[key].replace("f1", "F1"), "95 % interval"]


def beside_table(block: Block, key: str, *, name: str) -> list[list[str]]:
    """Return one of BESIDE of the system, its floors and the ceiling."""
    found, score = block[key], BESIDE[key]
    beside = {**found.get("floors", {}), **found.get("ceiling", {})}
    titles = {**FLOORS, "human": CEILING}
    ends = format_ends(found["confidence"].get(score))
    floors = [[titles[key], f"{value:.2f}", ""] for key, value in beside.items()]
    return [[name, f"{found[score]:.2f}", ends], *floors]


def _floors_beside(scale: Block) -> list[str]:
    best = scale.get("corrected", {}).get("floor")
    return [key for key in FLOORS if key in FLOORS_SHOWN or key == best]


def _indent(table: list[list[str]]) -> list[list[str]]:
    return [[f"  {first}", *rest] for first, *rest in table]


def _say_constant(scale: Block) -> list[str]:
    constant = scale.get("floors", {}).get("constant")
    return [f"constant: {constant['text']}"] if constant else []


def explain_words(block: Block) -> list[str]:
    """Say what the words of the tables mean that a newcomer cannot know."""
    said = []
    if "tags:split" in block["signature"] and "tags_one" in block:
        split = "is text like any other"
        if "tok:mecab" in block["signature"]:
            split = "breaks into four morphemes, as the competition counts it"
        said.append(f"tags split: #Person1# {split}; tags one: it is one token")
    if "corrected" in block:
        said.append(
            "over floor: where the mean stands between the scale's best floor, named beside it, "
            "and " + (f"the {CEILING}" if "ceiling" in block else "100")
        )
    if "constant" in block.get("floors", {}):
        said.append(
            "constant: one text for every row, the best that a search on the train summaries "
            "found: what saying nothing earns"
        )
    if "lead2" in block.get("floors", {}):
        said.append("lead-2: the first two turns of each dialogue as they stand")
    said.append("RLsum: ROUGE-L line by line; the same as RL where summaries have one line")
    if "ceiling" in block:
        said.append(f"{CEILING}: each reference scored against the other ones of its row")
    return said


def explain_real(rows: int) -> list[str]:
    """Say what verdicts on systems mean that were compared on so many rows; a paragraph each."""
    return [
        f"REAL: equally good systems would differ so on these {rows:,} rows in less than "
        f"{100 * ALPHA:g} % of cases; NOT SETTLED: they easily would, so that either may be the "
        "better one. (Paired approximate randomisation on the mean of ROUGE-1, -2, -L, "
        f"{TRIALS:,} trials; p over a scale's pairs of systems is corrected by Holm's method, p "
        "against the constant stands alone.)",
        f"LEVEL: the interval lies within {TINY:g} points; tiny: the difference does.",
        MORE_ROWS,
    ]


def sum_up(found: Mapping[str, Any], blocks: Mapping[str, Block]) -> list[str]:
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
    if len({tuple(one["systems"]) for one in found["scales"].values()}) > 1:
        lines.append("  With each tag as one token the order is another: see below.")
    for key in BESIDE:
        if list(found.get(key, scale)["systems"]) != list(scale["systems"]):
            lines.append(f"  By {key} the order is another: see below.")
    return lines


def say_stability(wins: Mapping[str, float]) -> str:
    """Say in how many random halves of the rows the best stays the best, and of whom it cannot be
    told otherwise.

    Args:
        wins: as count_wins gives them, the best first.
    """
    best, leaders = next(iter(wins)), find_leaders(wins)
    said = f"{best} is the best in {wins[best]:.0f} % of {HALVES:,} random halves of the rows"
    if len(leaders) > 1:
        together = sum(wins[name] for name in leaders)
        said += f"; no one winner: {', '.join(leaders)} ({together:.0f} % together)"
    return said


def say_against_constant(block: Block, *, name: str) -> list[str]:
    """Say whether a system is better than one text for all rows, where that was tested."""
    if "against_constant" not in block:
        return []
    names = {"first": name, "second": "the constant text"}
    return [say_difference({**names, **block["against_constant"]})]


def say_difference(found: Mapping[str, Any]) -> str:
    """Say in a sentence whether a difference is real, and what would settle it."""
    first, second, p = found["first"], found["second"], found.get("p_holm", found["p"])
    ends = f"({found['low']:.2f} to {found['high']:.2f})"
    verdict = describe_verdict(found)
    if not found["real"]:
        gap = f"{first} and {second} differ by {found['points']:+.2f} points {ends}"
    elif found["points"] < 0:
        gap = f"{first} is BEHIND {second} by {-found['points']:.2f} points {ends}"
    else:
        gap = f"{first} is ahead of {second} by {found['points']:.2f} points {ends}"
    return f"{gap}, p = {p:.4f}: {verdict}"


def describe_verdict(found: Mapping[str, Any]) -> str:
    """Return REAL, LEVEL, or that a difference is not settled and what would settle it.

    Args:
        found: points, low, high, real, rows, more_rows of a Difference; the last may be absent.
    """
    more_rows, rows = found.get("more_rows"), found.get("rows")
    if found["real"]:
        return "REAL, but tiny" if abs(found["points"]) < TINY else "REAL"
    if rows is not None and rows < FEW_ROWS:
        return f"NOT SETTLED: {rows} rows say little"
    if found["low"] > -TINY and found["high"] < TINY:
        return f"LEVEL: they differ by less than {TINY:g} points"
    if more_rows is None:
        return "NOT SETTLED: no difference was seen"
    if more_rows > MOST_ROWS:
        return "NOT SETTLED: no realistic number of rows would tell"
    # To two digits: it is an estimate.
    step = int(10 ** max(len(str(more_rows)) - 2, 0))
    rows = "1 more row" if more_rows == 1 else f"{-(-more_rows // step) * step:,} more rows"
    return f"NOT SETTLED: about {rows} would tell"


def _format_unseen(blocks: Mapping[str, Block]) -> list[str]:
    """Return the table of what ROUGE does not see, systems side by side with the references."""
    measures = next(iter(blocks.values())).get("unseen")
    if not measures:
        return []
    alone = len(blocks) == 1
    table = [["what ROUGE does not see", *blocks, "references", "unit"]]
    table[0] += ["for instance"] if alone else []
    for key, measure in measures.items():
        values = [block["unseen"].get(key, {}).get("value") for block in blocks.values()]
        if all(value is None for value in values):
            continue
        measured = measure["rows_measured"]
        part = f", {measured} rows" if measured < measures["empty"]["rows_measured"] else ""
        numbers = [
            "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
            for value in (*values, measure.get("references"))
        ]
        row = [f"  {measure['title']}", *numbers, f"{measure['unit']}{part}"]
        if alone:
            row.append(", ".join(map(_say_example, measure["worst"][:EXAMPLES])))
        table.append(row)
    left = range(len(blocks) + 2, len(table[0]))
    return ["", *align(table, left=(0, *left))]


def _say_example(row: Mapping[str, Any]) -> str:
    what = row["what"]
    if len(what) > LONGEST_EXAMPLE:
        what = f"{what[:LONGEST_EXAMPLE]}…"
    return f"{row['name']} ({what})" if what else str(row["name"])


def _format_slices(block: Block) -> list[str]:
    """Return the table of slices: rouge_mean of the asked scale where it acts."""
    slices = block.get("slices")
    if not slices:
        return []
    table = [["mean by slice", "rows", "mean", "95 % interval", "constant"]]
    by = ""
    for one in slices:
        if one["by"] != by:
            by = one["by"]
            table.append([by, "", "", "", ""])
        table.append(
            [
                f"  {one['value']}",
                f"{one['rows']}{' few' if one['few'] else ''}",
                f"{one['rouge_mean']:.2f}",
                format_ends(one.get("confidence")),
                f"{one['constant']:.2f}" if "constant" in one else "",
            ]
        )
    few = any(one["few"] for one in slices)
    said = ["few: under 20 rows, which say little"] if few else []
    return ["", *align(table, left=(0,)), *said]


def format_differing(blocks: Mapping[str, Block], systems: Mapping[str, Rows]) -> list[str]:
    """Return the rows in which the first system and each other one differ most, with what they
    say there.

    Args:
        blocks, systems: name of each system to its record, and to its rows.
    """
    lines: list[str] = []
    first, *others = blocks
    for other in others:
        lines += ["", f"rows where {first} and {other} differ most, by the mean asked for"]
        for row, gap in find_differing(blocks[first], blocks[other]):
            lines.append(f"  {systems[first].name(row)}: {gap:+.2f}")
            for name in (first, other):
                text = " ".join(systems[name].predictions[row].split()) or "(empty)"
                lines.append(f"    {name}: {shorten(text, limit=LONGEST_TEXT)}")
    return lines


def find_differing(one: Block, other: Block) -> list[tuple[int, float]]:
    """Return the rows that one system does most better in than another, then those that it does
    most worse in: their places, and by how many points."""
    pairs = zip(one["per_row"]["rouge_mean"], other["per_row"]["rouge_mean"], strict=True)
    gaps = sorted(((mine - theirs, at) for at, (mine, theirs) in enumerate(pairs)), reverse=True)
    ahead = [(at, gap) for gap, at in gaps[:DIFFERING] if gap > 0]
    return ahead + [(at, gap) for gap, at in gaps[::-1][:DIFFERING] if gap < 0]


def find_typical(block: Block) -> dict[str, list[int]]:
    """Return the places of the best, middling and worst rows by the mean asked for."""
    means = block["per_row"]["rouge_mean"]
    order = sorted(range(len(means)), key=lambda row: -means[row])
    middle = max(0, len(order) // 2 - DIFFERING // 2)
    return {
        "best": order[:DIFFERING],
        "middling": order[middle : middle + DIFFERING],
        "worst": order[::-1][:DIFFERING],
    }


def draw_scale(blocks: Mapping[str, Block]) -> dict[str, Any]:
    """Return what a chart of the asked scale shows: `most`, the end of its axis, and `rows`, each
    system's mean with its interval, then the floors' of the first."""
    first = next(iter(blocks.values()))
    rows = [
        (name, block["rouge_mean"], block["confidence"].get("rouge_mean"))
        for name, block in blocks.items()
    ]
    floors = first.get("floors", {})
    rows += [(FLOORS[key], floors[key]["rouge_mean"], None) for key in FLOORS if key in floors]
    ends = [ends[1] if ends else value for _, value, ends in rows]
    return {"most": max(10.0, 10.0 * math.ceil(max(ends) / 10.0)), "rows": rows}


def is_page(head: bytes) -> bool:
    """Say whether a file's first bytes are those of a page of write_page."""
    return head.startswith(TEMPLATE.read_bytes().partition(b"<style>")[0])


def write_page(
    path: Path,
    blocks: Mapping[str, Block],
    comparison: Mapping[str, Any] | None = None,
    *,
    systems: Mapping[str, Rows],
) -> None:
    """Write scores as one HTML page without network: tables, the worst rows with their text.

    Args:
        blocks: name of each system to its record (see score_report).
        comparison: of these systems (see compare_reports); None: there is one.
        systems: the rows of each, for the texts of the worst.

    Raises:
        DiskFullError, RunError: the file cannot be written.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    called = (
        *(format_ends, sum_up, say_difference, say_against_constant, say_stability, say_form),
        *(list_scales, name_scale, score_titles, score_table, beside_titles, beside_table),
        *(explain_words, explain_real, find_differing, find_typical, draw_scale),
    )
    environment.globals |= {one.__name__: one for one in called}
    environment.globals["WHAT_BESIDE"] = WHAT_BESIDE
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    texts = {
        name: {
            rows.name(row): ("\n".join(references), rows.dialogues[row] if rows.dialogues else "")
            for row, references in enumerate(rows.references)
        }
        for name, rows in systems.items()
    }
    page = template.render(blocks=blocks, comparison=comparison, texts=texts, systems=systems)
    write_report(path, page + "\n")

"""Scores as one HTML page without network: tables, and each measure's worst rows with their text.

Must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dialsum.files import write_report
from dialsum.score.rows import Rows
from dialsum.score.show import (
    CEILING,
    COLUMNS,
    FLOORS,
    describe_over_floor,
    describe_scale_name,
    explain_real,
    explain_words,
    list_scales,
    say_against_constant,
    say_difference,
    score_cells,
    sum_up,
)

BEGIN = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Scores</title>'
"""Every page begins so, and is known by it."""
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, details td, details th { text-align: left; vertical-align: top; }
details td { white-space: pre-line; }
tr.floor td { opacity: .7; }
code { font-size: 85%; overflow-wrap: anywhere; }
details { margin: .3rem 0; }
summary { cursor: pointer; }
"""


def write_page(
    path: Path,
    blocks: Mapping[str, Mapping[str, Any]],
    comparison: Mapping[str, Any] | None = None,
    *,
    systems: Mapping[str, Rows],
) -> None:
    """Write the page.

    Args:
        blocks: name of each system to its record (see score_report).
        comparison: of these systems (see compare_reports); None: there is one.
        systems: the rows of each, for the texts of the worst.

    Raises:
        DiskFullError, RunError: the file cannot be written.
    """
    body = [f"<h1>{escape(', '.join(blocks))}</h1>"]
    first = next(iter(blocks.values()))
    body += [_comparison(comparison, blocks)] if comparison else []
    body.append(_lines([*explain_words(first), *explain_real(first["rows"])]))
    for name, block in blocks.items():
        body += [f"<h2>{escape(name)}: {block['rows']:,} rows</h2>", _scales(block, name)]
        body += [_unseen(block, systems[name]), _slices(block)]
    page = (
        f"{BEGIN}<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, body))
        + "\n</body></html>\n"
    )
    write_report(path, page)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table; each row has a class and its cells, escaped here."""
    lines = ["<table><tr>", *(f"<th>{escape(cell)}</th>" for cell in head), "</tr>"]
    for kind, cells in rows:
        lines.append(f'<tr class="{kind}">')
        lines += [f"<td>{escape(cell)}</td>" for cell in cells]
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def _scales(block: Mapping[str, Any], name: str) -> str:
    parts = []
    for scale in list_scales(block):
        low, high = scale["confidence"]["rouge_mean"]
        ends = f"{low:.2f} - {high:.2f}"
        rows = [("run", [name, *score_cells(scale), ends, describe_over_floor(scale)])]
        rows += [
            ("floor", [title, *score_cells(floor), "", ""])
            for key, title in FLOORS.items()
            if (floor := scale.get("floors", {}).get(key))
        ]
        human = scale.get("ceiling", {}).get("human")
        rows += [("floor", [CEILING, *score_cells(human), "", ""])] if human else []
        head = ["", *(title for _, title in COLUMNS), "95 % interval of the mean", "over floor"]
        parts += [f"<h3>{escape(describe_scale_name(scale))}</h3>", _table(head, rows)]
        parts.append(f"<p><code>{escape(scale['signature'])}</code></p>")
        constant = scale.get("floors", {}).get("constant")
        parts += [f"<p>constant: {escape(constant['text'])}</p>"] if constant else []
        parts.append(_lines(say_against_constant(scale, name=name)))
    return "".join(parts)


def _unseen(block: Mapping[str, Any], rows: Rows) -> str:
    parts = ["<h3>What ROUGE does not see</h3>"]
    figures = [
        ("", [one["title"], _short(one.get("value")), _short(one.get("references")), one["unit"]])
        for one in block["unseen"].values()
    ]
    parts.append(_table(["", "predictions", "references", "unit"], figures))
    places = {rows.name(row): row for row in range(len(rows))}
    head = ["row", "value", "what", "prediction", "reference", "dialogue"]
    for one in block["unseen"].values():
        if one["worst"]:
            listed = [("", _worst_cells(row, rows, places[row["name"]])) for row in one["worst"]]
            parts.append(
                f"<details><summary>{escape(one['title'])}: the worst rows</summary>"
                f"{_table(head, listed)}</details>"
            )
    return "".join(parts)


def _worst_cells(found: Mapping[str, Any], rows: Rows, row: int) -> list[str]:
    dialogue = "" if rows.dialogues is None else rows.dialogues[row]
    references = "\n".join(rows.references[row])
    return [
        str(found["name"]),
        f"{found['value']:g}",
        found["what"],
        found["text"],
        references,
        dialogue,
    ]


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _slices(block: Mapping[str, Any]) -> str:
    if not block.get("slices"):
        return ""
    rows = [
        (
            "",
            [
                f"{one['by']}: {one['value']}",
                f"{one['rows']}{' (few)' if one['few'] else ''}",
                f"{one['rouge_mean']:.2f}",
                "{:.2f} - {:.2f}".format(*one["confidence"]),
                _short(one.get("constant")),
            ],
        )
        for one in block["slices"]
    ]
    head = ["", "rows", "mean", "95 % interval", "constant"]
    return f"<h3>Mean by slice</h3>{_table(head, rows)}"


def _comparison(found: Mapping[str, Any], blocks: Mapping[str, Mapping[str, Any]]) -> str:
    parts = ["<h2>Which differences are real</h2>", _lines(sum_up(found, blocks))]
    for key, scale in found["scales"].items():
        rows = [
            ("", [name, f"{one['rouge_mean']:.2f}", "{:.2f} - {:.2f}".format(*one["confidence"])])
            for name, one in scale["systems"].items()
        ]
        parts += [f"<h3>{escape(describe_scale_name(scale))}</h3>"]
        parts.append(_table(["", "mean", "95 % interval"], rows))
        parts.append(_lines([say_difference(one) for one in scale["differences"]]))
        for name in scale["systems"]:
            of_scale = blocks[name].get(key, blocks[name])
            parts.append(_lines(say_against_constant(of_scale, name=name)))
    return "".join(parts)

"""Scores as one HTML page without network: tables, and each measure's worst rows with their text.

Must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dialsum.atomic import write_text
from dialsum.score.show import CEILING, COLUMNS, FLOORS, describe_scale_name
from dialsum.score.verdicts import say_difference

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.text { text-align: left; }
tr.floor td { opacity: .7; }
code { font-size: 85%; overflow-wrap: anywhere; }
details { margin: .3rem 0; }
summary { cursor: pointer; }
.real { font-weight: bold; }
"""


def write_page(
    path: Path, blocks: Mapping[str, Mapping[str, Any]], comparison: Mapping[str, Any] | None = None
) -> None:
    """Write the page.

    Args:
        blocks: name of each system to its record (see score_report).
        comparison: of these systems (see compare_reports); None: there is one.

    Raises:
        DiskFullError, RunError: the file cannot be written.
    """
    body = [f"<h1>{escape(', '.join(blocks))}</h1>"]
    body += [_comparison(comparison)] if comparison else []
    for name, block in blocks.items():
        body += [f"<h2>{escape(name)}: {block['rows']:,} rows</h2>", _scales(block, name)]
        body += [_unseen(block), _slices(block)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Scores</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, body)) + "\n</body></html>\n"
    )  # fmt: skip
    write_text(path, page)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table; each row has a class and its cells, escaped here."""
    lines = ["<table><tr>", *(f"<th>{escape(cell)}</th>" for cell in head), "</tr>"]
    for kind, cells in rows:
        lines.append(f'<tr class="{kind}">')
        lines += [f"<td>{escape(cell)}</td>" for cell in cells]
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def _numbers(scores: Mapping[str, Any]) -> list[str]:
    return [f"{scores[key]:.2f}" if key in scores else "" for key, _ in COLUMNS]


def _scales(block: Mapping[str, Any], name: str) -> str:
    parts = []
    for scale in (block, *(block[key] for key in ("tags_one", "whitespace") if key in block)):
        low, high = scale["confidence"]["rouge_mean"]
        rows = [("run", [name, *_numbers(scale), f"{low:.2f} - {high:.2f}"])]
        rows += [
            ("floor", [title, *_numbers(floor), ""])
            for key, title in FLOORS.items() if (floor := scale.get("floors", {}).get(key))
        ]  # fmt: skip
        human = scale.get("ceiling", {}).get("human")
        rows += [("floor", [CEILING, *_numbers(human), ""])] if human else []
        head = ["", *(title for _, title in COLUMNS), "95 % interval of the mean"]
        parts += [f"<h3>{escape(describe_scale_name(scale))}</h3>", _table(head, rows)]
        parts.append(f"<p><code>{escape(scale['signature'])}</code></p>")
        constant = scale.get("floors", {}).get("constant")
        parts += [f"<p>constant: {escape(constant['text'])}</p>"] if constant else []
    return "".join(parts)


def _unseen(block: Mapping[str, Any]) -> str:
    parts = ["<h3>What ROUGE does not see</h3>"]
    rows = [
        ("", [one["title"], _short(one.get("value")), _short(one.get("references")), one["unit"]])
        for one in block["unseen"].values()
    ]
    parts.append(_table(["", "predictions", "references", "unit"], rows))
    for one in block["unseen"].values():
        if not one["worst"]:
            continue
        cells = "".join(
            f"<tr><td>{escape(str(row['name']))}</td><td>{row['value']:g}</td>"
            f'<td class="text">{escape(row["what"])}</td>'
            f'<td class="text">{escape(row["text"])}</td></tr>'
            for row in one["worst"]
        )
        parts.append(
            f"<details><summary>{escape(one['title'])}: the worst rows</summary>"
            f"<table>{cells}</table></details>"
        )
    return "".join(parts)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _slices(block: Mapping[str, Any]) -> str:
    if not block.get("slices"):
        return ""
    rows = [
        ("", [
            f"{one['by']}: {one['value']}", f"{one['rows']}{' (few)' if one['few'] else ''}",
            f"{one['rouge_mean']:.2f}", "{:.2f} - {:.2f}".format(*one["confidence"]),
            _short(one.get("constant")),
        ])
        for one in block["slices"]
    ]  # fmt: skip
    head = ["", "rows", "mean", "95 % interval", "constant"]
    return f"<h3>Mean by slice</h3>{_table(head, rows)}"


def _comparison(found: Mapping[str, Any]) -> str:
    parts = ["<h2>Which differences are real</h2>"]
    for scale in found["scales"].values():
        rows = [
            ("", [name, f"{one['rouge_mean']:.2f}", "{:.2f} - {:.2f}".format(*one["confidence"])])
            for name, one in scale["systems"].items()
        ]
        parts += [f"<h3>{escape(describe_scale_name(scale))}</h3>"]
        parts.append(_table(["", "mean", "95 % interval"], rows))
        parts += [
            f'<p class="{"real" if one["real"] else ""}">{escape(say_difference(one))}</p>'
            for one in scale["differences"]
        ]
    return "".join(parts)

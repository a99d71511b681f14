"""Scores as one HTML page without network: tables, and each measure's worst rows with their text.

Must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.files import write_report
from dialsum.score import show
from dialsum.score.rows import Rows

TEMPLATE = Path(__file__).with_name("page.html")


def is_page(head: bytes) -> bool:
    """Say whether a file's first bytes are those of a page that stands here."""
    return head.startswith(TEMPLATE.read_bytes().partition(b"<style>")[0])


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
    from jinja2 import Environment

    places = {
        name: {rows.name(row): row for row in range(len(rows))} for name, rows in systems.items()
    }

    def find_texts(system: str, name: str) -> tuple[str, str]:
        """Return the references and the dialogue of a row."""
        rows, row = systems[system], places[system][name]
        return "\n".join(rows.references[row]), rows.dialogues[row] if rows.dialogues else ""

    def decimals(value: float | None = None) -> str:
        return f"{value:.2f}" if isinstance(value, float) else ""

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        blocks=blocks, comparison=comparison, say=show, find_texts=find_texts, decimals=decimals
    )
    write_report(path, page + "\n")

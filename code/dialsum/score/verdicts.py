"""Words for what a comparison found: real, or what would settle it.

Must not know how anything was tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_ROWS = 1_000_000
"""Beyond this many more rows nobody will settle it."""


def explain_real(found: Mapping[str, Any]) -> list[str]:
    """Say what REAL means."""
    return [
        f"REAL: equally good systems would show such a gap on these {found['rows']} rows in less "
        f"than {100 * found['alpha']:g} % of cases",
        "(paired approximate randomisation on the mean of ROUGE-1, -2 and -L, "
        f"{found['trials']:,} trials; Holm's correction over a scale's pairs of systems).",
    ]


def say_against_constant(block: Mapping[str, Any], *, name: str) -> list[str]:
    """Say whether a system is better than one sentence for all rows, where that was tested."""
    found = block.get("against_constant")
    if found is None:
        return []
    ends = f"({found['low']:.2f} to {found['high']:.2f})"
    verdict = "REAL" if found["real"] else "NOT SETTLED"
    side = "ahead of" if found["points"] >= 0 else "BEHIND"
    gap = f"{name} is {side} the constant text by {abs(found['points']):.2f} points {ends}"
    return [f"{gap}: {verdict}, p = {found['p']:.4f}"]


def say_difference(one: Mapping[str, Any]) -> str:
    """Say in a sentence whether a difference is real, and what would settle it."""
    gap = f"{one['first']} is ahead of {one['second']} by {one['points']:.2f} points"
    verdict = describe_verdict(real=one["real"], more_rows=one.get("more_rows"))
    return f"{gap} ({one['low']:.2f} to {one['high']:.2f}): {verdict}, p = {one['p_holm']:.4f}"


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

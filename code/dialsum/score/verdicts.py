"""Words for what a comparison found: real, or what would settle it.

Must not know how anything was tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialsum.score.compare import ALPHA, TRIALS

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

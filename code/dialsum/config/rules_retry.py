"""What must hold between batch.retry and the values that its rungs halve.

Must not know files or YAML, nor when an attempt is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from dialsum.config.ladder import ALPHA, BATCH, RANK, RETRY, count_halvings
from dialsum.config.problems import Problem
from dialsum.config.view import Rule, View


def retried_rank_is_there(view: View) -> Iterator[Problem]:
    """Without adapters there is no rank to halve."""
    if "rank_half" in view[RETRY] and not view["qlora.use_qlora"]:
        found = "rank_half, but every weight is trained, without a rank (qlora.use_qlora: false)"
        yield view.problem(RETRY, found, meant="without rank_half, or use_qlora: true")


def retried_rank_can_be_halved(view: View) -> Iterator[Problem]:
    """Rank and alpha stay whole, and alpha / r what it was."""
    if view["qlora.use_qlora"]:
        for key in (RANK, ALPHA):
            yield from _too_often(view, "rank_half", key=key)


def retried_batch_can_be_halved(view: View) -> Iterator[Problem]:
    """A batch of odd size has no half that keeps the effective one."""
    if view[BATCH] != "auto":
        yield from _too_often(view, "batch_half", key=BATCH)


def _too_often(view: View, rung: str, *, key: str) -> Iterator[Problem]:
    asked, value = view[RETRY].count(rung), view[key]
    possible = count_halvings(value)
    if asked <= possible:
        return
    times = "" if asked == 1 else f" {asked} times"
    steps = " -> ".join(str(value // 2**n) for n in range(possible + 1))
    how = f"can be halved {possible} times only ({steps})" if possible else "has no half"
    meant = f"at most {possible} {rung}" if possible else f"without {rung}"
    yield view.problem(
        RETRY,
        f"{rung}{times}, but {key} {value} {how}",
        meant=f"{meant}, or {key} {2**asked}, or a multiple of it",
    )


RETRY_RULES: tuple[Rule, ...] = (
    retried_rank_is_there,
    retried_rank_can_be_halved,
    retried_batch_can_be_halved,
)

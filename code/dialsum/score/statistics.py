"""What a mean over rows is worth: its interval, and which differences between systems are real.

Must not know what the scores measure, nor how anything is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL_PERCENT = 95
RESAMPLES = 1000
RESAMPLES_AT_ONCE = 100
"""Bounds the memory for long files."""
ALPHA = 0.05
"""Chance of calling any difference real among systems that are all equal."""
TRIALS = 10_000
SIGNS_AT_ONCE = 4_000_000
"""Bounds the memory."""
POWER = 0.8
"""Chance that the rows named as enough would show a difference of the size seen."""
HALVES = 1000
STABLE = 90.0
"""Percent of the halves in which a winner must win, to be called one."""
SEED = 0


def percentile_intervals(per_row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 95 % percentile bootstrap interval of each column's mean; seeded.

    Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

    Args:
        per_row: [rows, columns], at least one row.

    Returns:
        [columns, 2]: lower and upper end, in the unit of per_row.
    """
    import numpy as np

    rows = len(per_row)
    generator = np.random.default_rng(SEED)
    means = []
    for _ in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        # How often each row is drawn says all about a resample's mean.
        counts = [
            np.bincount(generator.integers(0, rows, rows), minlength=rows)
            for _ in range(RESAMPLES_AT_ONCE)
        ]
        means.append(np.stack(counts) @ per_row / rows)
    tail = (100.0 - LEVEL_PERCENT) / 2.0
    ends: NDArray[np.float64] = np.percentile(np.concatenate(means), [tail, 100.0 - tail], axis=0)
    return ends.T


@dataclass(frozen=True)
class Difference:
    """Two systems on the same rows.

    Attributes:
        first, second: their names; the first has the higher mean.
        points: mean of the first less that of the second.
        low, high: 95 % bootstrap interval of that, rows drawn in pairs.
        p: of the two-sided approximate randomisation test.
        p_holm: corrected for all pairs that were compared.
        real: p_holm is at most ALPHA.
        rows: on which it was measured.
        more_rows: that would probably settle it, if it is as large as it seems; None where it is
            real, or no difference was seen.
    """

    first: str
    second: str
    points: float
    low: float
    high: float
    p: float
    p_holm: float
    real: bool
    rows: int
    more_rows: int | None


def compare_systems(
    scores: Mapping[str, NDArray[np.float64]], *, best_only: bool = False
) -> list[Difference]:
    """Compare every two systems, or the best with every other.

    Approximate randomisation (Noreen 1989; Riezler and Maxwell 2005, "On Some Pitfalls in Automatic
    Evaluation and Significance Testing for MT"), with Holm's correction (1979).

    Args:
        scores: system to its rows' scores, the same rows in the same order: [rows].
        best_only: only the pairs with the best are compared, and corrected for.

    Returns:
        One entry a pair, systems in the order of their means.
    """
    import numpy as np

    ranked = sorted(scores, key=lambda name: -float(scores[name].mean()))
    pairs = [pair for pair in combinations(ranked, 2) if pair[0] == ranked[0] or not best_only]
    if not pairs:
        return []
    gaps = np.stack([scores[one] - scores[other] for one, other in pairs], axis=1)
    rows, ends, p = len(gaps), percentile_intervals(gaps), randomisation_p(gaps)
    differences = []
    for place, p_holm in enumerate(holm(p)):
        gap, real = gaps[:, place], p_holm <= ALPHA
        needed = None if real else rows_to_settle(gap, alpha=ALPHA / len(pairs))
        difference = Difference(
            *pairs[place],
            points=float(gap.mean()),
            low=float(ends[place, 0]),
            high=float(ends[place, 1]),
            p=p[place],
            p_holm=p_holm,
            real=real,
            rows=rows,
            more_rows=None if needed is None else max(needed - rows, 1),
        )
        differences.append(difference)
    return differences


def count_wins(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return in how many of HALVES random halves of the rows each system is the best, percent.

    What a ranking on half of a test set, shown while the other half decides, is worth. Of equal
    means the one that is named first is the best; seeded.

    Args:
        scores: as of compare_systems.
    """
    import numpy as np

    rows = np.stack(list(scores.values()), axis=1)
    generator, half = np.random.default_rng(SEED), max(1, len(rows) // 2)
    wins = np.zeros(len(scores), dtype=np.int64)
    for _ in range(HALVES):
        drawn = generator.permutation(len(rows))[:half]
        wins[rows[drawn].mean(axis=0).argmax()] += 1
    return {name: 100.0 * int(won) / HALVES for name, won in zip(scores, wins, strict=True)}


def find_leaders(wins: Mapping[str, float]) -> list[str]:
    """Return the fewest systems that together are the best in STABLE percent of the halves; one
    where the order is stable.

    Args:
        wins: as count_wins gives them.
    """
    leaders, together = list[str](), 0.0
    for name in sorted(wins, key=lambda name: -wins[name]):
        leaders.append(name)
        together += wins[name]
        if together >= STABLE:
            break
    return leaders


def randomisation_p(gaps: NDArray[np.float64], *, trials: int = TRIALS) -> list[float]:
    """Return the chance of a mean as far from 0 if the two systems' scores were exchangeable.

    Args:
        gaps: differences of the rows' scores, one column for each pair of systems: [rows, pairs].

    Returns:
        p of each column, two-sided, (1 + as extreme) / (1 + trials); seeded.
    """
    import numpy as np

    rows = len(gaps)
    generator = np.random.default_rng(SEED)
    # Sums of the same numbers in another order differ in the last bits.
    least = np.abs(gaps.sum(axis=0)) * (1 - 1e-9) - 1e-12
    extreme = np.zeros(gaps.shape[1], dtype=np.int64)
    at_once = max(1, SIGNS_AT_ONCE // rows)
    for start in range(0, trials, at_once):
        count = min(at_once, trials - start)
        bits = np.unpackbits(
            np.frombuffer(generator.bytes(count * ((rows + 7) // 8)), np.uint8).reshape(count, -1),
            axis=1,
            count=rows,
        )
        # A sum with random signs is twice that of the chosen rows less that of all.
        drawn = 2 * (bits.astype(np.float64) @ gaps) - gaps.sum(axis=0)
        extreme += (np.abs(drawn) >= least).sum(axis=0)
    return [(1 + int(count)) / (1 + trials) for count in extreme]


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected so that the chance of any false finding stays (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def rows_to_settle(gaps: NDArray[np.float64], *, alpha: float = ALPHA) -> int | None:
    """Return how many rows would show a difference of this size with a chance of POWER.

    The normal approximation of a paired test: n = ((z_(1 - alpha/2) + z_power) sd / mean)².

    Returns:
        None where the mean is 0 or nothing varies.
    """
    from statistics import NormalDist

    mean, spread = float(gaps.mean()), float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
    if mean == 0.0 or spread == 0.0:
        return None
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(POWER)
    return math.ceil((z * spread / mean) ** 2)

"""How far a corpus score may be off because the rows are a sample: percentile bootstrap over rows.

Must not know what the scores measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL_PERCENT = 95
RESAMPLES = 1000
SEED = 0
CHUNK = 100  # resamples drawn at once; bounds the memory for long files


def bootstrap_means(
    per_row: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """Return the column means of seeded resamples of the rows, drawn with replacement.

    Args:
        per_row: [rows, columns], at least one row.

    Returns:
        [resamples, columns].
    """
    import numpy as np

    rows = len(per_row)
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, CHUNK):
        # How often each row is drawn says all about a resample's mean.
        counts = np.stack(
            [
                np.bincount(generator.integers(0, rows, rows), minlength=rows)
                for _ in range(min(CHUNK, resamples - start))
            ]
        )
        means.append(counts @ per_row / rows)
    return np.concatenate(means)


def percentile_intervals(
    per_row: NDArray[np.float64],
    *,
    level_percent: float = LEVEL_PERCENT,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> NDArray[np.float64]:
    """Return the percentile bootstrap interval of each column's mean.

    Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

    Returns:
        [columns, 2]: lower and upper end, in the unit of per_row.
    """
    import numpy as np

    tail = (100.0 - level_percent) / 2.0
    ends: NDArray[np.float64] = np.percentile(
        bootstrap_means(per_row, resamples=resamples, seed=seed), [tail, 100.0 - tail], axis=0
    )
    return ends.T

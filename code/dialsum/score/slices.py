"""Groups of rows in which a change can be seen to act: topics, speakers, lengths.

Must not know scores.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dialsum.score.rows import Rows
from dialsum.score.speakers import find_speakers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_ROWS = 20
"""Below this many rows a slice's mean says little, and is marked."""
MOST_TOPICS, TOPIC_ROWS = 10, 5
"""The most frequent topics of at least so many rows; real data has a topic of its own for almost
every row."""


@dataclass(frozen=True)
class Slice:
    """Some of the rows.

    Attributes:
        by: topic, speakers or length.
        value: which of them.
        places: of the rows, ascending.
    """

    by: str
    value: str
    places: NDArray[np.int64]

    @property
    def few(self) -> bool:
        """Whether there are too few rows to say much."""
        return len(self.places) < LEAST_ROWS


def slice_rows(rows: Rows) -> list[Slice]:
    """Return the slices of the rows: by topic where topics are given, the rest with dialogues.

    A kind of slice that all rows would be in is left out.
    """
    labels: dict[str, list[str]] = {}
    if rows.topics is not None:
        counts = Counter(filter(None, rows.topics)).most_common(MOST_TOPICS)
        often = {topic for topic, count in counts if count >= TOPIC_ROWS}
        labels["topic"] = [
            topic if topic in often else "other topics" if topic else "no topic"
            for topic in rows.topics
        ]
    if rows.dialogues is not None:
        labels["speakers"] = [str(len(find_speakers(one))) for one in rows.dialogues]
        labels["length"] = _quartiles([len(one) for one in rows.dialogues])
    return [
        one for by, values in labels.items() if len(set(values)) > 1 for one in _group(by, values)
    ]


def _quartiles(lengths: list[int]) -> list[str]:
    """Name the quarter of the dialogues that each is in, by characters, shortest first."""
    import numpy as np

    ends = [int(end) for end in np.quantile(lengths, (0.25, 0.5, 0.75), method="lower")]
    starts = [min(lengths), *(end + 1 for end in ends)]
    names = [
        f"{start}-{end} characters"
        for start, end in zip(starts, [*ends, max(lengths)], strict=True)
    ]
    return [names[sum(length > end for end in ends)] for length in lengths]


def _group(by: str, values: list[str]) -> list[Slice]:
    import numpy as np

    counts = Counter(values)
    if by == "topic":
        order = sorted(
            counts, key=lambda value: (value in ("other topics", "no topic"), -counts[value], value)
        )
    else:
        order = sorted(counts, key=lambda value: int(value.split("-")[0]))
    column = np.array(values)
    return [Slice(by, value, np.flatnonzero(column == value)) for value in order]

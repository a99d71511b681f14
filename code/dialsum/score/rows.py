"""The rows that are scored: predictions, references, what is known of their dialogues; and slices.

Must not know files, nor how anything is scored.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dialsum.data.tags import SPEAKER
from dialsum.errors import DataError, raise_problems
from dialsum.text import SURROGATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW_ROWS = 20
"""Below this many rows a mean says little."""
MOST_TOPICS, TOPIC_ROWS = 10, 5
"""The most frequent topics of at least so many rows; real data has a topic of its own for almost
every row."""


@dataclass(frozen=True)
class Rows:
    """Aligned texts.

    Args:
        predictions: one text a row; an empty one scores 0.
        references: the row's reference summaries, equally many in each row.
        dialogues: one a row, empty where it is not known: what needs one leaves that row out;
            None: what needs them is left out.
        topics: one a row, empty where a row has none; None: no row has.
        names: the rows' ids, for lists of them; None: they are numbered from 1.
    """

    predictions: Sequence[str]
    references: Sequence[Sequence[str]]
    dialogues: Sequence[str] | None = None
    topics: Sequence[str] | None = None
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.predictions)

    def name(self, row: int) -> str:
        """Return a row's id, or its number."""
        return f"row {row + 1}" if self.names is None else self.names[row]

    def composed(self) -> Rows:
        """Return the same rows in composed Unicode (NFC), in which every figure is taken."""

        def compose(texts: Sequence[str]) -> list[str]:
            return [unicodedata.normalize("NFC", SURROGATE.sub("\ufffd", text)) for text in texts]

        return replace(
            self,
            predictions=compose(self.predictions),
            references=[compose(texts) for texts in self.references],
            dialogues=compose(self.dialogues) if self.dialogues and any(self.dialogues) else None,
        )

    def references_sha256(self) -> str:
        """Return a hash of the references in their order, which runs must share to be compared."""
        told = "\0".join("\1".join(texts) for texts in self.references)
        return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()

    def check(self) -> None:
        """Refuse rows that cannot be scored.

        Raises:
            DataError: no rows; unequal counts; rows with no, empty, or unequally many references;
                values that are no text.
        """
        count = len(self.predictions)
        if count == 0 and len(self.references) == 0:
            raise DataError(["there is nothing to score: 0 predictions and 0 references"])
        if count != len(self.references):
            counts = f"{count} predictions, but references for {len(self.references)} rows"
            raise DataError([f"{counts}; give one prediction for each row"])
        for what in ("dialogues", "topics", "names"):
            beside = getattr(self, what)
            if beside is not None and len(beside) != count:
                raise DataError(
                    [f"{len(beside)} {what} for {count} predictions; give one for each"]
                )
        expected = len(self.references[0])
        problems = []
        pairs = zip(self.predictions, self.references, strict=True)
        for row, (prediction, texts) in enumerate(pairs, start=1):
            if not isinstance(prediction, str):
                problems.append(f"row {row}: the prediction is {prediction!r}, not text")
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                problems.append(
                    f"row {row}: the references are {str(texts)[:60]!r}, not a list of texts; put "
                    "a single reference into a list, too"
                )
            elif not texts or len(texts) != expected:
                problems.append(
                    f"row {row}: {len(texts)} references where row 1 has {expected}; every row "
                    "needs one or more, and equally many"
                )
            elif any(not text.strip() for text in texts):
                problems.append(f"row {row}: a reference is empty; every reference needs text")
        raise_problems(problems)


def slice_rows(rows: Rows) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Group the rows so that a change can be seen to act: by topic, speakers and length.

    Topics count where they are given, the rest with dialogues. A kind of slice that all rows would
    be in is left out.

    Returns:
        `topic`, `speakers` or `length`; which of them; the places of its rows, ascending.
    """
    import numpy as np

    labels: dict[str, list[str]] = {}
    if rows.topics is not None:
        most = Counter(filter(None, rows.topics)).most_common(MOST_TOPICS)
        often = {topic for topic, count in most if count >= TOPIC_ROWS}
        labels["topic"] = [
            topic if topic in often else "other topics" if topic else "no topic"
            for topic in rows.topics
        ]
    if rows.dialogues is not None:
        labels["speakers"] = [str(len(find_speakers(one))) for one in rows.dialogues]
        labels["length"] = _name_quarters([len(one) for one in rows.dialogues])
    slices = []
    for by, values in labels.items():
        if len(counts := Counter(values)) < 2:
            continue
        if by == "topic":
            rest = ("other topics", "no topic")
            keys = [(value in rest, -count, value) for value, count in counts.items()]
            order = [value for *_, value in sorted(keys)]
        else:
            order = sorted(counts, key=lambda value: int(value.split("-")[0]))
        column = np.array(values)
        slices += [(by, value, np.flatnonzero(column == value)) for value in order]
    return slices


def find_speakers(text: str) -> set[int]:
    """Return the numbers of the speakers whose tags stand in a text."""
    return {int(number) for number in SPEAKER.findall(text)}


def _name_quarters(lengths: list[int]) -> list[str]:
    """Name the quarter of the dialogues that each is in, by characters, shortest first."""
    import numpy as np

    ends = [int(end) for end in np.quantile(lengths, (0.25, 0.5, 0.75), method="lower")]
    starts = [min(lengths), *(end + 1 for end in ends)]
    names = [
        f"{start}-{end} characters"
        for start, end in zip(starts, [*ends, max(lengths)], strict=True)
    ]
    return [names[sum(length > end for end in ends)] for length in lengths]

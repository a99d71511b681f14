"""The rows that are scored: predictions, references, and what is known of their dialogues.

Must not know files, nor how anything is scored.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dialsum.data.cleaning import SURROGATE
from dialsum.data.tables import raise_problems
from dialsum.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Aligned texts.

    Args:
        predictions: one text a row; an empty one scores 0.
        references: the row's reference summaries, equally many in each row.
        dialogues: one a row; None: what needs them is left out.
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
            dialogues=None if self.dialogues is None else compose(self.dialogues),
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
        _check_counts(self)
        _check_texts(self)


def _check_counts(rows: Rows) -> None:
    count = len(rows.predictions)
    if count == 0 and len(rows.references) == 0:
        raise DataError(["there is nothing to score: 0 predictions and 0 references"])
    if count != len(rows.references):
        counts = f"{count} predictions, but references for {len(rows.references)} rows"
        raise DataError([f"{counts}; give one prediction for each row"])
    for what in ("dialogues", "topics", "names"):
        beside = getattr(rows, what)
        if beside is not None and len(beside) != count:
            raise DataError([f"{len(beside)} {what} for {count} predictions; give one for each"])


def _check_texts(rows: Rows) -> None:
    expected = len(rows.references[0])
    problems = []
    pairs = zip(rows.predictions, rows.references, strict=True)
    for row, (prediction, texts) in enumerate(pairs, start=1):
        if not isinstance(prediction, str):
            problems.append(f"row {row}: the prediction is {prediction!r}, not text")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            problems.append(
                f"row {row}: the references are {str(texts)[:60]!r}, not a list of texts; put a "
                "single reference into a list, too"
            )
        elif not texts or len(texts) != expected:
            problems.append(
                f"row {row}: {len(texts)} references where row 1 has {expected}; every row needs "
                "one or more, and equally many"
            )
        elif any(not text.strip() for text in texts):
            problems.append(f"row {row}: a reference is empty; every reference needs text")
    raise_problems(problems)

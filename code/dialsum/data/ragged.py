"""Token ids of many rows in two flat arrays: an object per row would take eight times the memory.

Must not know what the ids mean, nor where the arrays lie (in memory, or mapped from a file).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence[list[int]]):
    """Rows of token ids; a row is read as a list.

    Args:
        values: the ids of all rows, one after another, int32.
        offsets: where each row begins, and last where the last one ends, int64, [rows + 1].
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> TokenRows:
        """Copy lists of ids."""
        kept = list(rows)
        lengths = np.fromiter(map(len, kept), dtype=np.int64, count=len(kept))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        values = np.fromiter(chain.from_iterable(kept), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def join(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Return the rows of all parts, in order."""
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), *map(np.asarray, lengths)]).cumsum()
        values = [part.values[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *values]), offsets)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row, int32, [rows]."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def longest(self) -> int:
        """Tokens of the longest row; 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> list[int] | TokenRows:
        """Return a row as a list, or a slice of rows, which shares its ids with this one."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return TokenRows.from_lists(self[row] for row in range(start, stop, step))
            return TokenRows(self.values, self.offsets[start : max(start, stop) + 1])
        row = range(len(self))[index]
        ids: list[int] = self.values[self.offsets[row] : self.offsets[row + 1]].tolist()
        return ids

    def __iter__(self) -> Iterator[list[int]]:
        return (self[row] for row in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Take only these rows along to another process, not all that the arrays hold."""
        first, last = self.offsets[0], self.offsets[-1]
        return TokenRows, (np.array(self.values[first:last]), self.offsets - first)

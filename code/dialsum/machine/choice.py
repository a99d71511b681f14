"""A value that was chosen for the user, with its reason.

Must not know what is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

AS_ASKED = "as asked"


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value that was chosen for the user, or for a wish that could not be met, and why.

    Args:
        value: what is used.
        why: half a sentence.
        requested: what was asked for; None where nothing was (`auto`).
    """

    value: T
    why: str
    requested: object = None

    @property
    def fell_back(self) -> bool:
        """Whether something else was asked for."""
        return self.requested is not None and self.requested != self.value

    def to_record(self) -> dict[str, Any]:
        """Return requested, used and why, as they stand in result.json."""
        requested = "auto" if self.requested is None else self.requested
        return {"requested": requested, "used": self.value, "why": self.why}

"""The values of one experiment as rules see them, and how a rule says what is wrong.

Must not know any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import PydanticUndefined

from dialsum.config.resolve import Resolved
from dialsum.config.yaml import Origin, Problem


class NotKnownError(Exception):
    """A key has no valid value, so that no rule about it can be asked."""


class View:
    """The values of one experiment as rules see them.

    Args:
        resolved: the stated values.
        invalid: keys whose value does not fit the schema; asking for one, or for one that could
            not be read, raises NotKnownError.
    """

    def __init__(self, resolved: Resolved, invalid: set[str]) -> None:
        self.resolved, self.invalid = resolved, invalid

    def __getitem__(self, key: str) -> Any:
        value = self.resolved.value(key)
        if key in self.invalid or key in self.resolved.unread or value is PydanticUndefined:
            raise NotKnownError(key)
        return value

    def knows(self, key: str) -> bool:
        """Say whether a key has a valid value, so that a rule about several can leave it out."""
        try:
            self[key]
        except NotKnownError:
            return False
        return True

    def stated(self, key: str) -> bool:
        """Say whether any source gives the key."""
        return self.resolved.rank(key) > 0

    def problem(self, key: str, found: str, *, meant: str) -> Problem:
        """Say a problem at the line that states the key, or at the file where none does."""
        stated, path = self.resolved.stated.get(key), self.resolved.path
        origin = stated.origin if stated else Origin.at(path)
        if origin.file != path:
            # A line that several experiments share is wrong for this one.
            found = f"in {path.stem}: {found}"
        return Problem(origin, stated.shown_key if stated else key, found, meant)


Rule = Callable[[View], Iterator[Problem]]
"""A rule gives its problems; it may ask for any key, and is left out where one has no valid value.
"""

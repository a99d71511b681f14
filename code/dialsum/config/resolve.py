"""One config out of its sources: who wins for each key.

Must not know whether a value fits: check.py asks that of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialsum.config.schema import default_of, keys_under, schema_keys
from dialsum.config.sources import Source
from dialsum.config.statements import Statement, Statements
from dialsum.config.yaml import DEFAULT, Origin

NOTHING = Source(None, Statements())


@dataclass
class Resolved:
    """The winning statement of every stated key of one experiment.

    Args:
        path: the experiment's file.
        unread: keys that were given in a way, or perhaps in a file, that could not be read.
        complete_record: every key is stated because a run wrote it down.
    """

    path: Path
    complete_record: bool = False
    stated: dict[str, Statement] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    claims: list[Statement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)

    def apply(self, statements: Statements, rank: int) -> None:
        """Lay a source over what there is; rank grows with each source: the later ones win."""
        for key in {key for name in statements.unread for key in keys_under(name)}:
            self.stated.pop(key, None)
            self.ranks.pop(key, None)
            self.unread.add(key)
        for new in statements.said:
            if not new.part:
                self.unread.discard(new.key)
            if new.part:
                old = self.stated.get(new.key)
                before = old.value if old else default_of(new.key)
                # Places of other parts stay known, so that each can be named when it is wrong.
                places = {**(old.places if old else {}), new.part: new.origin}
                value = {**(before if isinstance(before, dict) else {}), new.part: new.value}
                new = Statement(new.key, "", value, new.origin, new.written, places)
            self.stated[new.key] = new
            self.ranks[new.key] = rank
        self.claims += statements.claims
        self.notes += statements.notes
        self.meant |= statements.meant

    def value(self, key: str) -> Any:
        """Return a key's value, stated or by default; PydanticUndefined where one is required."""
        return self.stated[key].value if key in self.stated else default_of(key)

    def origin(self, key: str) -> Origin:
        """Return where a key's value stands."""
        return self.stated[key].origin if key in self.stated else DEFAULT

    def rank(self, key: str) -> int:
        """Return how late a key was stated: 0 by default, more with each source over another."""
        return self.ranks.get(key, 0)

    def nested(self) -> dict[str, Any]:
        """Return the stated values as the sections that the schema takes."""
        tree: dict[str, Any] = {}
        for key, statement in self.stated.items():
            *sections, name = key.split(".")
            place = tree
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = statement.value
        return tree


def resolve(
    path: Path,
    chain: Sequence[Source],
    *,
    overlays: Sequence[Source] = (),
    overrides: Source = NOTHING,
    complete: bool = True,
) -> Resolved:
    """Lay the sources over one another: files from the last base on, then overlays, then --set.

    Args:
        complete: False where a base of the chain could not be read, so that it may give any key.
    """
    result = Resolved(path)
    result.unread = set() if complete else set(schema_keys())
    # A record that a run wrote stays one under other values: those state no key without effect
    # either.
    result.complete_record = any(source.complete_record for source in chain)
    rank = 0
    for rank, source in enumerate(chain, start=1):
        result.apply(source.statements, rank)
    for overlay in overlays:
        result.apply(overlay.statements, rank := rank + 1)
    result.apply(overrides.statements, rank + 1)
    return result

"""The recipe of a score as one line, and the rule that only equal recipes may stand in one ranking.

Must not know how a score is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dialsum.errors import DataError

VERSION = "1"
"""Of all that the other fields do not name; raise it when the same input scores otherwise."""
AGGREGATES = ("mean", "max")
"""How the scores of several references become one: their mean, as the competition does, or the
best, as rouge_score's score_multi does."""


@dataclass(frozen=True)
class Signature:
    """What was done to get a score; two scores are comparable only where these are equal.

    Attributes:
        tokenizer: name with versions, e.g. mecab-ko-1.3.7/dic-2.1.1.
        tags: `split` (text like any other), `one` (each #Tag# one token) or `removed`.
        references: how many references each row has.
        case: `kept` or `lower`.
        aggregate: one of AGGREGATES; of a single reference both are the same.
    """

    tokenizer: str
    tags: str
    references: int
    case: str
    aggregate: str = "mean"

    def __str__(self) -> str:
        several = f",{self.aggregate}" if self.references > 1 else ""
        return (
            f"rouge|tok:{self.tokenizer}|refs:{self.references}{several}|tags:{self.tags}"
            f"|case:{self.case}|nfc|v{VERSION}"
        )


def require_same_signature(signatures: Mapping[str, Signature | str]) -> None:
    """Refuse to compare scores that were made by different recipes.

    Args:
        signatures: name of what was scored (an experiment, a file) to its signature, as object or
            as text.

    Raises:
        DataError: one line per recipe, with who has it and which fields differ from the first.
    """
    groups: dict[str, list[str]] = {}
    for name, signature in signatures.items():
        groups.setdefault(str(signature), []).append(name)
    if len(groups) < 2:
        return
    first = next(iter(groups))
    problems = []
    for text, names in groups.items():
        differing = [field for field in text.split("|") if field not in first.split("|")]
        problems.append(
            f"{', '.join(names)}: {text}"
            + (f"  (differs in {', '.join(differing)})" if differing else "")
        )
    raise DataError(
        problems,
        summary=f"scores with {len(groups)} different signatures cannot be ranked together; "
        "score the predictions again with one tokenizer and treatment of tags:",
    )

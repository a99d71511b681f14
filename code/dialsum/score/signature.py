"""The recipe of a score as one line, and the rule that only equal recipes may stand in one ranking.

Must not know how a score is computed.
"""

from __future__ import annotations

from collections.abc import Mapping

from dialsum.errors import DataError, UnfitError
from dialsum.score.tokenise import load_tokeniser

VERSION = "1"
"""Of all that the other fields do not name; raise it when the same input scores otherwise."""
AGGREGATES = ("mean", "max")
"""How the scores of several references become one: their mean, as the competition does, or the
best, as rouge_score's score_multi does."""


def make_signature(tokenizer: str, tags: str, *, references: int, aggregate: str = "mean") -> str:
    """Return what is done to get a score; two scores are comparable only where these are equal.

    Args:
        tokenizer, tags: as load_tokeniser takes them.
        references: how many each row has.
        aggregate: one of AGGREGATES; of a single reference both are the same.

    Raises:
        UnfitError: an unknown tokenizer, treatment of tags or aggregate, or a missing library.
    """
    if aggregate not in AGGREGATES:
        raise UnfitError(
            f"aggregate {aggregate!r} is unknown; choose one of {', '.join(AGGREGATES)}"
        )
    tokeniser = load_tokeniser(tokenizer, tags=tags)
    several = f",{aggregate}" if references > 1 else ""
    return (
        f"rouge|tok:{tokeniser.label}|refs:{references}{several}|tags:{tags}"
        f"|case:{tokeniser.case}|nfc|v{VERSION}"
    )


def require_same_signature(signatures: Mapping[str, str]) -> None:
    """Refuse to compare scores that were made by different recipes.

    Args:
        signatures: name of what was scored (an experiment, a file) to its signature.

    Raises:
        DataError: one line per recipe, with who has it and which fields differ from the first.
    """
    groups: dict[str, list[str]] = {}
    for name, signature in signatures.items():
        groups.setdefault(signature, []).append(name)
    if len(groups) < 2:
        return
    first = next(iter(groups)).split("|")
    problems = []
    for text, names in groups.items():
        differing = ", ".join(field for field in text.split("|") if field not in first)
        problems.append(
            f"{', '.join(names)}: {text}" + (f"  (differs in {differing})" if differing else "")
        )
    raise DataError(
        problems,
        summary=f"scores with {len(groups)} different signatures cannot be ranked together; "
        "score the predictions again with one tokenizer and treatment of tags:",
    )

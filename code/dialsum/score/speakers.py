"""Who did what: speakers that a summary makes up, and what a score sees of their being exchanged.

Must not know how a score is made.
"""

from __future__ import annotations

from dialsum.data.tags import SPEAKER


def find_speakers(text: str) -> set[int]:
    """Return the numbers of the speakers whose tags stand in a text."""
    return {int(number) for number in SPEAKER.findall(text)}


def find_unknown_speakers(text: str, source: str) -> list[str]:
    """Return the speaker tags of a text that its dialogue has not, each once."""
    known = find_speakers(source)
    return list(
        dict.fromkeys(
            match.group() for match in SPEAKER.finditer(text) if int(match.group(1)) not in known
        )
    )


def exchange_speakers(text: str, source: str) -> str:
    """Give each speaker of a text the tag of the next one, the last one that of the first.

    Args:
        source: the dialogue, or whatever tells who takes part; #Person1# and #Person2# always do.
    """
    after = successors(text, source)
    return SPEAKER.sub(lambda match: after.get(match.group(), match.group()), text)


def successors(text: str, source: str) -> dict[str, str]:
    """Return for each speaker's tag of a text or its source the one it is exchanged for."""
    speakers = sorted(find_speakers(source) | find_speakers(text) | {1, 2})
    tags = [f"#Person{number}#" for number in speakers]
    return dict(zip(tags, [*tags[1:], tags[0]], strict=True))

"""The one grammar of tags: speakers and masks between two marks, and how they go wrong.

Every part that looks for tags, from tokens over scores to submissions, asks here. Must not know
which tags there are.

A tag is a name between two marks: `#Person1#`, `#PhoneNumber#`, `#고객명#`; or one of AI-Hub's,
with a sign and at times a second name: `#@이름#`, `#@시스템#사진#`. A name is a Latin or Hangul
letter and at most 29 more letters, digits or underscores. A name that begins with a Latin capital
or `@` is a tag wherever it stands; of another (`#맛집#`) the marks in its word must pair, or it is
a chain of hashtags (`#맛집#카페#여행`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_LETTER = "A-Za-z가-힣"
_REST = f"[{_LETTER}0-9_]{{0,29}}"
_NAME = f"[{_LETTER}]{_REST}"
# Of `#@이름#과#@이름#` and `#@이름#과#고객명#` the particle is no second name.
_SIGNED = rf"#@{_NAME}#(?:{_NAME}#(?!@|{_NAME}#))?"
_CAPITAL = f"#[A-Z]{_REST}#"

_CERTAIN = re.compile(f"{_SIGNED}|{_CAPITAL}")
_PAIRED = re.compile(f"#{_NAME}#")
_MARKED_WORD = re.compile(r"\S*#\S*")
_TAG = f"(?:{_SIGNED}|#{_NAME}#)"

SPEAKER = re.compile(r"#Person(\d{1,4})#", re.ASCII)
"""A numbered speaker, as the data has them."""
SPEAKER_IN_ANY_CASE = re.compile(r"#person\d+#", re.IGNORECASE | re.ASCII)
TURN_START = re.compile(rf"\s*({_TAG})\s*[:：]\s*")
"""What stands before what is said in a turn."""

_PARTICLES = (
    "에게서|에게는|에게도|에게만|에게로|에게|에서|에|한테서|한테|께서|께|은|는|이라고|이나|이랑|이며|이|가|을|를|과의|과는|과|"
    "와의|와는|와|의|도|만|으로|로|랑|하고|부터|까지|보다|처럼|같이|마다|조차|마저|밖에|나|라고|며"
)
_GAP = re.compile(rf"(?<=#)[ \t]+(?=(?:{_PARTICLES})(?![가-힣]))")

_LOOSE = re.compile(r"#[^\s#]{1,30}#|#[^#\n]{1,30}#(?=\s*[:：])|Person\d+")
"""What a text may write for a tag, in no grammar; with a space only where a colon follows."""
_MARKED_RUN = re.compile(r"[\w@]+#[\w@#]*|#[\w@][\w@#]*")
"""Hashtags, `C#`, `#1`."""
_SPACED = re.compile(r"(?<!\w)#@?\w[\w ]{0,28}\w#")
_LONE_MARK = re.compile(r"(?<![\w#@])#(?![\w#@])")
_ENDED_RUN = re.compile(r"(#\w*?(?:\d|\w\w))([가-힣]{1,3})")
_MISSPELT = re.compile(r"#(?!(?-i:Person)\d+#)person\d+#", re.IGNORECASE)
_BARE_SPEAKER = re.compile(r"Person\d")


def tag_spans(text: str) -> list[tuple[int, int]]:
    """Return where the tags of a text begin and end, in order."""
    marks = text.count("#")
    if marks < 2:
        return []
    certain = [match.span() for match in _CERTAIN.finditer(text)]
    if sum(text.count("#", *span) for span in certain) == marks:
        return certain
    return sorted([*certain, *_paired_spans(text, certain)])


def _paired_spans(text: str, certain: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Return the tags of words whose marks, certain tags left out, pair."""
    rest = _blank(text, certain, "\0")
    for word in _MARKED_WORD.finditer(rest):
        if rest.count("#", *word.span()) % 2 == 0:
            yield from (match.span() for match in _PAIRED.finditer(rest, *word.span()))


def _blank(text: str, spans: list[tuple[int, int]], filling: str) -> str:
    parts, place = [], 0
    for start, end in spans:
        parts += [text[place:start], filling * (end - start)]
        place = end
    return "".join([*parts, text[place:]])


def has_tag(text: str) -> bool:
    """Say whether a text has a tag."""
    return _CERTAIN.search(text) is not None or bool(tag_spans(text))


def find_tags(text: str) -> list[str]:
    """Return the tags of a text, in order and as often as they stand there."""
    return [text[start:end] for start, end in tag_spans(text)]


def without_tags(text: str, filling: str = " ") -> str:
    """Return a text with `filling` in the place of each tag."""
    parts, place = [], 0
    for start, end in tag_spans(text):
        parts += [text[place:start], filling]
        place = end
    return "".join([*parts, text[place:]])


def join_particles(text: str) -> str:
    """Return a text without the blanks between a tag and its particle: `#Person1# 에게`."""
    ends = {end for _, end in tag_spans(text)}
    return _GAP.sub(lambda gap: "" if gap.start() in ends else gap.group(), text)


def loose_tags(text: str) -> set[str]:
    """Return what may stand for a tag in a text, in the grammar or not: `#1호차#`, `Person1`, and
    all else that it writes with marks, without particles: `#고객 A#`, `#맛집#카페`, `C#`."""
    bare = without_tags(text, "\n")
    runs = set(_MARKED_RUN.findall(_SPACED.sub("\n", bare)))
    runs |= {run[: run.rindex("#") + 1] for run in runs if not run.startswith("#")}
    return {*find_tags(text), *_LOOSE.findall(text), *_SPACED.findall(bare), *runs}


def has_broken_tag(text: str, *, source: str = "", known: Collection[str] = ()) -> bool:
    """Say whether a text holds a tag that was meant and is not right: `#Person1`, `Person1`, `#`.

    Args:
        source: the dialogue; what it writes with marks is right here, too, with other endings
            (`#101호예요`, `#101호다`), and so is a mark alone.
        known: loose tags of the data, which are right as well.
    """
    bare = without_tags(text)
    if not ("#" in bare or _MISSPELT.search(text) or _BARE_SPEAKER.search(bare)):
        return False  # nothing that would have to be right
    own = loose_tags(source)
    right = sorted({*own, *_stems(own), *known}, key=len, reverse=True)
    if _LONE_MARK.search(source):
        text = _LONE_MARK.sub(" ", text)
    for one in right:
        text = text.replace(one, " ") if "#" in one else text
    bare = without_tags(text)
    for one in right:
        bare = bare.replace(one, " ")
    return bool("#" in bare or _MISSPELT.search(text) or _BARE_SPEAKER.search(bare))


def _stems(runs: Collection[str]) -> Iterator[str]:
    """Return hashtags and numbers (`#101호예요`) without the last letters, which may be endings."""
    for run in runs:
        if found := _ENDED_RUN.fullmatch(run):
            stem, ending = found.groups()
            yield from (stem + ending[:kept] for kept in range(len(ending)))

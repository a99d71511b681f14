"""Turns a text into the tokens that ROUGE counts: four tokenisers, three treatments of tags.

Must not know what is done with the tokens. Every choice here is part of a score's signature.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from dialsum.errors import UnfitError

TOKENIZERS = ("mecab", "whitespace", "char", "english")
TAG_TREATMENTS = ("split", "one", "removed")
# #Person1#, #PhoneNumber# …: Latin letters and digits between two marks, as the data has them.
TAG = re.compile(r"#[A-Za-z][A-Za-z0-9_]*#")

Cutter = Callable[[str], list[str]]


@dataclass(frozen=True)
class Tokeniser:
    """A way of cutting text, with the name that it has in a signature.

    Attributes:
        label: name and version, e.g. mecab-ko-1.3.7-dic-2.1.1.
        tags: what happens to tags, one of TAG_TREATMENTS.
        case: `kept` or `lower`.
        cut: normalised text to tokens, tags being text like any other.
        cut_around_tags: normalised text to tokens, each tag one token spelt as in the text.
    """

    label: str
    tags: str
    case: str
    cut: Cutter
    cut_around_tags: Cutter

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text; none for an empty one."""
        text = normalise(text)
        if self.tags == "split" or TAG.search(text) is None:
            return self.cut(text)
        tokens = self.cut_around_tags(text)
        if self.tags == "removed":
            return [token for token in tokens if TAG.fullmatch(token) is None]
        return tokens if self.case == "kept" else [token.lower() for token in tokens]


def load_tokeniser(name: str = "mecab", *, tags: str = "split") -> Tokeniser:
    """Return a tokeniser ready for use; its library is loaded here and not before.

    Args:
        name: one of TOKENIZERS. `english` is rouge_score's own, with its Porter stemmer.
        tags: one of TAG_TREATMENTS.

    Raises:
        UnfitError: an unknown name, or a library that is not installed, with the line that installs
            it.
    """
    if tags not in TAG_TREATMENTS:
        raise UnfitError(
            f"tags {tags!r} is no treatment of tags; choose one of {', '.join(TAG_TREATMENTS)}"
        )
    if name == "mecab":
        analyser = _load_mecab()
        return Tokeniser(analyser.label, tags, "kept", analyser.cut, analyser.cut_around_tags)
    if name == "whitespace":
        return Tokeniser("whitespace", tags, "kept", str.split, _cut_segments(str.split))
    if name == "char":
        return Tokeniser("char", tags, "kept", _cut_characters, _cut_segments(_cut_characters))
    if name == "english":
        label, cut = _load_english()
        return Tokeniser(label, tags, "lower", cut, _cut_segments(cut))
    raise UnfitError(f"tokenizer {name!r} is unknown; choose one of {', '.join(TOKENIZERS)}")


def normalise(text: str) -> str:
    """Compose Hangul and accents (NFC), fold white space to single spaces, none at the ends.

    NUL counts as white space: mecab takes it as the end of the text and drops the rest without a
    word.
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("\0", " ").split())


def split_lines(text: str) -> list[str]:
    """Split a text into the lines that ROUGE-Lsum takes as sentences; empty ones are left out."""
    return [
        line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()
    ]


def _cut_characters(text: str) -> list[str]:
    return [char for char in text if not char.isspace()]


def _cut_segments(cut: Cutter) -> Cutter:
    """Make a cutter that keeps tags whole and gives what stands between them to `cut`."""

    def cut_around_tags(text: str) -> list[str]:
        tokens: list[str] = []
        place = 0
        for match in TAG.finditer(text):
            tokens += [*cut(text[place : match.start()]), match.group()]
            place = match.end()
        return tokens + cut(text[place:])

    return cut_around_tags


class _Mecab:
    """mecab-ko with its own dictionary; keeps its last analyses, as scales share texts."""

    def __init__(self) -> None:
        from importlib.metadata import version

        import mecab

        self.label = f"mecab-ko-{version('python-mecab-ko')}-dic-{version('python-mecab-ko-dic')}"
        self._analyser = mecab.MeCab()
        self._parse = functools.lru_cache(maxsize=8192)(self._parse_anew)

    def cut(self, text: str) -> list[str]:
        return [text[start:end] for start, end in self._parse(text)]

    def cut_around_tags(self, text: str) -> list[str]:
        """Join the morphemes that a tag fell into; all else stays as analysed in context.

        A morpheme that reaches over a tag's edge (`.#` in `.#Person1#`) is cut there.
        """
        spans = self._parse(text)

        def clip(low: int, high: int) -> list[str]:
            clipped = [(max(start, low), min(end, high)) for start, end in spans]
            return [text[start:end] for start, end in clipped if start < end]

        tokens: list[str] = []
        place = 0
        for match in TAG.finditer(text):
            tokens += [*clip(place, match.start()), match.group()]
            place = match.end()
        return tokens + clip(place, len(text))

    def _parse_anew(self, text: str) -> tuple[tuple[int, int], ...]:
        return tuple(
            (morpheme.span.start, morpheme.span.end) for morpheme in self._analyser.parse(text)
        )


@functools.cache
def _load_mecab() -> _Mecab:
    try:
        return _Mecab()
    except ImportError as error:
        raise _missing("python-mecab-ko", "mecab", error) from error


@functools.cache
def _load_english() -> tuple[str, Cutter]:
    try:
        from rouge_score import tokenizers
    except ImportError as error:
        raise _missing("rouge-score", "english", error) from error
    from importlib.metadata import version

    cut: Cutter = tokenizers.DefaultTokenizer(use_stemmer=True).tokenize
    return f"rouge_score-{version('rouge-score')}-porter", cut


def _missing(package: str, tokenizer: str, error: ImportError) -> UnfitError:
    return UnfitError(
        f"tokenizer {tokenizer!r} needs the package {package} ({error}): "
        "python -m pip install -r requirements.txt; whitespace and char work without it"
    )

"""Turns a text into the tokens that ROUGE counts: five tokenisers, three treatments of tags.

Must not know what is done with the tokens. Every choice here is part of a score's signature.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dialsum.data.cleaning import SURROGATE
from dialsum.data.tags import find_tags, tag_spans
from dialsum.errors import UnfitError

KEPT_TEXTS = 1 << 14
"""Analyses kept at a time; about 5 KB each."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The morphemes of one text.

    Attributes:
        spans: the characters of each, from and to; they never overlap.
        kinds: part of speech of each in the Sejong set (NNP, SN, EF …); merged ones are joined by
            `+`.
    """

    spans: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]

    def surfaces(self, text: str) -> list[str]:
        """Return the morphemes as they stand in the text."""
        return [text[start:end] for start, end in self.spans]


class Mecab:
    """mecab-ko with its own dictionary.

    The package's own parse() makes three objects of each morpheme and takes four times as long as
    mecab itself; a test holds that what is read here from its lattice is the same.
    """

    def __init__(self) -> None:
        from importlib.metadata import version

        from mecab import MeCab
        from mecab.utils import create_lattice

        dictionary = version("python-mecab-ko-dic")
        self.label = f"mecab-ko-{version('python-mecab-ko')}/dic-{dictionary}"
        self._make_lattice = create_lattice
        self._tagger: Any = MeCab()._tagger
        self.analyse = functools.lru_cache(maxsize=KEPT_TEXTS)(self._analyse_anew)

    def _analyse_anew(self, text: str) -> Analysis:
        lattice: Any = self._make_lattice(text)
        if not self._tagger.parse(lattice):
            raise RuntimeError(f"mecab cannot analyse {text[:80]!r}: {self._tagger.what()}")
        spans, kinds = [], []
        for span, node in lattice:
            spans.append(span)
            kinds.append(sys.intern(node.feature.partition(",")[0]))
        return Analysis(tuple(spans), tuple(kinds))


class Kiwi:
    """Kiwi (kiwipiepy) with its own model; it gives dictionary forms: 갔다 is 가 + 었 + 다."""

    def __init__(self) -> None:
        from importlib.metadata import version

        import kiwipiepy

        model = version("kiwipiepy_model")
        self.label = f"kiwi-{version('kiwipiepy')}/model-{model}"
        self._analyser: Any = kiwipiepy.Kiwi(num_workers=1)
        self.cut = functools.lru_cache(maxsize=KEPT_TEXTS)(self._cut_anew)

    def _cut_anew(self, text: str) -> list[str]:
        return [one.form for one in self._analyser.tokenize(text)]


@functools.cache
def load_mecab() -> Mecab:
    """Return mecab-ko, loaded once.

    Raises:
        UnfitError: it is not installed.
    """
    try:
        return Mecab()
    except ImportError as error:
        raise missing_package("python-mecab-ko", "mecab", error) from error


@functools.cache
def load_kiwi() -> Kiwi:
    """Return Kiwi, loaded once (a second, 200 MB).

    Raises:
        UnfitError: it is not installed; it is optional.
    """
    try:
        return Kiwi()
    except ImportError as error:
        raise missing_package("kiwipiepy", "kiwi", error, file="requirements-kiwi.txt") from error


def missing_package(
    package: str, tokenizer: str, error: ImportError, *, file: str = "requirements.txt"
) -> UnfitError:
    """Return the error that says how to get what a tokeniser needs."""
    return UnfitError(
        f"tokenizer {tokenizer!r} needs the package {package} ({error}): "
        f"python -m pip install -r {file}; whitespace and char work without it"
    )


TOKENIZERS = ("mecab", "kiwi", "whitespace", "char", "english")
TAG_TREATMENTS = ("split", "one", "removed")

Cutter = Callable[[str], list[str]]


@dataclass(frozen=True)
class Tokeniser:
    """A way of cutting text, with the name that it has in a signature.

    Attributes:
        label: name and version, e.g. mecab-ko-1.3.7/dic-2.1.1.
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
        tags = [] if self.tags == "split" else find_tags(text)
        if not tags:
            return self.cut(text)
        tokens = self.cut_around_tags(text)
        if self.tags == "removed":
            waiting = iter([*tags, None])
            tag = next(waiting)
            kept = []
            for token in tokens:
                if token == tag:
                    tag = next(waiting)
                else:
                    kept.append(token)
            return kept
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
        return Tokeniser(load_mecab().label, tags, "kept", _cut_mecab, _cut_mecab_around_tags)
    if name == "kiwi":
        kiwi = load_kiwi()
        return Tokeniser(kiwi.label, tags, "kept", kiwi.cut, _cut_segments(kiwi.cut))
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
    word. Half a character (a lone surrogate), which no library takes, becomes U+FFFD.
    """
    whole = SURROGATE.sub("\ufffd", text)
    return " ".join(unicodedata.normalize("NFC", whole).replace("\0", " ").split())


def has_hangul(text: str) -> bool:
    """Say whether a text has a Hangul syllable."""
    return any("가" <= char <= "힣" for char in text)


def split_lines(text: str) -> list[str]:
    """Split a text into the lines that ROUGE-Lsum takes as sentences; empty ones are left out."""
    if "\n" not in text and "\r" not in text:
        return [text] if text.strip() else []
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
        for start, end in tag_spans(text):
            tokens += [*cut(text[place:start]), text[start:end]]
            place = end
        return tokens + cut(text[place:])

    return cut_around_tags


def _cut_mecab(text: str) -> list[str]:
    return load_mecab().analyse(text).surfaces(text)


def _cut_mecab_around_tags(text: str) -> list[str]:
    """Join the morphemes that a tag fell into; all else stays as analysed in context.

    A morpheme that reaches over a tag's edge (`.#` in `.#Person1#`) is cut there.
    """
    tags = tag_spans(text)
    tokens: list[str] = []
    waiting = 0
    for start, end in load_mecab().analyse(text).spans:
        while start < end and waiting < len(tags):
            low, high = tags[waiting]
            if end <= low:
                break
            if start < low:
                tokens.append(text[start:low])
            if end < high:
                start = end
                break
            tokens.append(text[low:high])
            waiting += 1
            start = max(start, high)
        if start < end:
            tokens.append(text[start:end])
    return tokens


@functools.cache
def _load_english() -> tuple[str, Cutter]:
    try:
        from rouge_score import tokenizers
    except ImportError as error:
        raise missing_package("rouge-score", "english", error) from error
    from importlib.metadata import version

    cut: Cutter = tokenizers.DefaultTokenizer(use_stemmer=True).tokenize
    return f"rouge_score-{version('rouge-score')}-porter", cut

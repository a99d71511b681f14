"""Turns a text into the tokens that ROUGE counts: five tokenisers, three treatments of tags.

Must not know what the tokens are for. Every choice here is part of a score's signature. Analyses of
texts are kept, as several scales and measures ask for the same ones.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from dialsum.data.cleaning import SURROGATE
from dialsum.data.tags import find_tags, tag_spans
from dialsum.errors import UnfitError

TOKENIZERS = ("mecab", "kiwi", "whitespace", "char", "english")
TAG_TREATMENTS = ("split", "one", "removed")
KEPT_TEXTS = 1 << 14
"""Analyses kept at a time; about 5 KB each."""

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
            for tag in tags:
                tokens.remove(tag)
            return tokens
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
    loaders: dict[str, Callable[[], tuple[str, Cutter]]] = {
        "mecab": _load_mecab_cutter,
        "kiwi": _load_kiwi,
        "whitespace": lambda: (name, str.split),
        "char": lambda: (name, lambda text: list(text.replace(" ", ""))),
        "english": _load_english,
    }
    if name not in loaders:
        raise UnfitError(f"tokenizer {name!r} is unknown; choose one of {', '.join(TOKENIZERS)}")
    try:
        label, cut = loaders[name]()
    except ImportError as error:
        package = {"mecab": "python-mecab-ko", "kiwi": "kiwipiepy"}.get(name, "rouge-score")
        file = "requirements-kiwi.txt" if name == "kiwi" else "requirements.txt"
        raise UnfitError(
            f"tokenizer {name!r} needs the package {package} ({error}): "
            f"python -m pip install -r {file}; whitespace and char work without it"
        ) from error
    around = _cut_mecab_around_tags if name == "mecab" else functools.partial(_cut_segments, cut)
    return Tokeniser(label, tags, "lower" if name == "english" else "kept", cut, around)


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
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()]


class Analysis(NamedTuple):
    """The morphemes of one text.

    Attributes:
        spans: the characters of each, from and to; they never overlap.
        kinds: part of speech of each in the Sejong set (NNP, SN, EF …); merged ones are joined by
            `+`.
    """

    spans: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]


@functools.lru_cache(maxsize=KEPT_TEXTS)
def analyse(text: str) -> Analysis:
    """Return the morphemes of a normalised text by mecab-ko with its own dictionary.

    The package's own parse() makes three objects of each morpheme and takes four times as long as
    mecab itself; a test holds that what is read here from its lattice is the same.
    """
    tagger, make_lattice = _load_mecab()
    lattice = make_lattice(text)
    if not tagger.parse(lattice):
        raise RuntimeError(f"mecab cannot analyse {text[:80]!r}: {tagger.what()}")
    spans, kinds = [], []
    for span, node in lattice:
        spans.append(span)
        kinds.append(sys.intern(node.feature.partition(",")[0]))
    return Analysis(tuple(spans), tuple(kinds))


@functools.cache
def _load_mecab() -> tuple[Any, Any]:
    from mecab import MeCab
    from mecab.utils import create_lattice

    return MeCab()._tagger, create_lattice


def _load_mecab_cutter() -> tuple[str, Cutter]:
    _load_mecab()
    versions = version("python-mecab-ko"), version("python-mecab-ko-dic")
    return "mecab-ko-{}/dic-{}".format(*versions), _cut_mecab


def _cut_mecab(text: str) -> list[str]:
    return [text[start:end] for start, end in analyse(text).spans]


def _cut_mecab_around_tags(text: str) -> list[str]:
    """Join the morphemes that a tag fell into; all else stays as analysed in context.

    A morpheme that reaches over a tag's edge (`.#` in `.#Person1#`) is cut there.
    """
    tags = tag_spans(text)
    tokens: list[str] = []
    waiting = 0
    for start, end in analyse(text).spans:
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


def _cut_segments(cut: Cutter, text: str) -> list[str]:
    """Keep tags whole and cut what stands between them."""
    tokens: list[str] = []
    place = 0
    for start, end in tag_spans(text):
        tokens += [*cut(text[place:start]), text[start:end]]
        place = end
    return tokens + cut(text[place:])


@functools.cache
def _load_kiwi() -> tuple[str, Cutter]:
    """Load Kiwi with its own model (a second, 200 MB); it is optional.

    It gives dictionary forms: 갔다 is 가 + 었 + 다.
    """
    import kiwipiepy

    analyser: Any = kiwipiepy.Kiwi(num_workers=1)

    @functools.lru_cache(maxsize=KEPT_TEXTS)
    def cut(text: str) -> list[str]:
        return [one.form for one in analyser.tokenize(text)]

    return f"kiwi-{version('kiwipiepy')}/model-{version('kiwipiepy_model')}", cut


@functools.cache
def _load_english() -> tuple[str, Cutter]:
    from rouge_score import tokenizers

    cut: Cutter = tokenizers.DefaultTokenizer(use_stemmer=True).tokenize
    return f"rouge_score-{version('rouge-score')}-porter", cut

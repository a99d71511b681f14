"""Korean morphemes by mecab-ko or by Kiwi: the pieces of a text, and what each is.

Must not know tags, scores, nor what the morphemes are for. Analyses are kept, as several scales and
measures ask for the same texts.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any

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

"""ROUGE-1, -2, -L and -Lsum of many pairs of texts at once, on five tokenisers and three treatments
of tags; equal to the package rouge_score. A score's recipe is one line: only equal recipes may
stand in one ranking.

A token is one character of a string here: rapidfuzz then compares two texts without hashing a
token, and numpy reads thousands of texts as one array. Analyses of texts are kept, as several
scales and measures ask for the same ones. Must not know files.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from dialsum.data.tags import find_tags, tag_spans
from dialsum.errors import DataError, UnfitError
from dialsum.text import SURROGATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Grams = tuple[NDArray[np.uint64], NDArray[np.uint64]]
    """The place of each gram's text, and the gram's number."""

TOKENIZERS = ("mecab", "kiwi", "whitespace", "char", "english")
TAG_TREATMENTS = ("split", "one", "removed")
KEPT_TEXTS = 1 << 14
"""Analyses kept at a time; about 5 KB each."""

VERSION = "1"
"""Of all that the other fields do not name; raise it when the same input scores otherwise."""
AGGREGATES = ("mean", "max")
"""How the scores of several references become one: their mean, as the competition does, or the
best, as rouge_score's score_multi does."""
METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
FIRST = 0x10000
"""The character of token 0: from here on none is a surrogate."""
TOKEN_BITS = 20
"""Of a token's number: beyond FIRST + 2²⁰ there are no characters, and chr() refuses."""

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
            f"python -m pip install -r {file}"
            + ("" if name == "mecab" else "; mecab, whitespace and char work without it")
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
        stems: each as the dictionary has it; of merged ones the first (`샀` is `사`).
    """

    spans: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    stems: tuple[str, ...]


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
    spans, kinds, stems = [], [], []
    for span, node in lattice:
        spans.append(span)
        kind = sys.intern(node.feature.partition(",")[0])
        kinds.append(kind)
        stem = text[slice(*span)]
        if "+" in kind:
            parts = node.feature.rpartition(",")[2]
            stem = parts.partition("/")[0] if "/" in parts else stem
        stems.append(sys.intern(stem))
    return Analysis(tuple(spans), tuple(kinds), tuple(stems))


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


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A text made ready for being compared often.

    Attributes:
        tokens: one character for each token, in order.
        lines: the same of each line; one entry where the text is a single line.
    """

    tokens: str
    lines: tuple[str, ...]


class Numbers(dict[str, str]):
    """Token to the character that stands for it; a new one gets the next."""

    def __missing__(self, token: str) -> str:
        """Number a token that was not seen before."""
        self[token] = character = chr(FIRST + len(self))
        return character


@dataclass
class TextPreparer:
    """Tokenises texts and numbers their tokens; texts are comparable only within one preparer.

    Attributes:
        tokeniser: cuts the text.
        known: the tokens of all texts so far.
    """

    tokeniser: Tokeniser
    known: Numbers = field(default_factory=Numbers)

    def prepare(self, text: str) -> PreparedText:
        """Tokenise one text, whole and by lines."""
        tokens = self._number(text)
        lines = split_lines(text)
        if len(lines) < 2:
            return PreparedText(tokens, (tokens,))
        return PreparedText(tokens, tuple(self._number(line) for line in lines))

    def prepare_all(self, texts: Sequence[str]) -> list[PreparedText]:
        """Tokenise many texts, equal ones once."""
        prepared = {text: self.prepare(text) for text in dict.fromkeys(texts)}
        return [prepared[text] for text in texts]

    def _number(self, text: str) -> str:
        return "".join(map(self.known.__getitem__, self.tokeniser(text)))


def score_pairs(
    predictions: Sequence[PreparedText], references: Sequence[PreparedText]
) -> NDArray[np.float64]:
    """Score each prediction against the reference at its place.

    Lin (2004), "ROUGE: a Package for Automatic Evaluation of Summaries".

    Returns:
        [pairs, len(METRICS), 3]: precision, recall and F1 as fractions 0-1.
    """
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cpdist

    left, right = ([one.tokens for one in texts] for texts in (predictions, references))
    rows = len(left)
    tokens = [np.fromiter(map(len, texts), np.int64, rows) for texts in (left, right)]
    pairs = [np.maximum(lengths - 1, 0) for lengths in tokens]
    lcs = cpdist(left, right, scorer=LCSseq.similarity, dtype=np.int64)
    ones, twos = zip(read_grams(left), read_grams(right), strict=True)
    by_lines = [lcs.copy(), *(lengths.copy() for lengths in tokens)]
    for place, (one, other) in enumerate(zip(predictions, references, strict=True)):
        if len(one.lines) > 1 or len(other.lines) > 1:
            for column, value in zip(by_lines, _lines_overlap(one.lines, other.lines), strict=True):
                column[place] = value
    counts = [
        (_matched(*ones, row_bit=TOKEN_BITS, rows=rows), *tokens),
        (_matched(*twos, row_bit=2 * TOKEN_BITS, rows=rows), *pairs),
        (lcs, *tokens),
        by_lines,
    ]
    # Precision, recall and F1, 0 where nothing matches.
    rates = [
        (
            matched / np.maximum(predicted, 1),
            matched / np.maximum(expected, 1),
            2 * matched / np.maximum(predicted + expected, 1),
        )
        for matched, predicted, expected in counts
    ]
    return np.array(rates).transpose(2, 0, 1)


def score_rows(
    predictions: Sequence[PreparedText],
    references: Sequence[Sequence[PreparedText]],
    *,
    aggregate: str = "mean",
) -> NDArray[np.float64]:
    """Score every prediction against all references of its row.

    Args:
        references: the first of every row, the second of every row, and so on.
        aggregate: mean of the references' scores, or max: those of the one with the best F1.

    Returns:
        [rows, len(METRICS), 3]: precision, recall and F1 on the scale 0-100.
    """
    import numpy as np

    by_reference = np.stack([score_pairs(predictions, column) for column in references])
    if aggregate == "mean":
        rates = by_reference.mean(axis=0)
    else:
        best = by_reference[..., 2].argmax(axis=0)
        rates = np.take_along_axis(by_reference, best[None, ..., None], axis=0)[0]
    scaled: NDArray[np.float64] = 100.0 * rates
    return scaled


def read_grams(texts: Sequence[str]) -> tuple[Grams, Grams]:
    """Return the tokens of all texts, and each two in a row: the place of the text, the number."""
    import numpy as np

    data = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4")
    ids = data.astype(np.uint64) - np.uint64(FIRST)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    inside = rows[1:] == rows[:-1]
    pairs = (ids[:-1] << np.uint64(TOKEN_BITS)) | ids[1:]
    return (rows, ids), (rows[1:][inside], pairs[inside])


def _matched(left: Grams, right: Grams, *, row_bit: int, rows: int) -> NDArray[np.int64]:
    """Count, text by text, the grams that both sides have, clipped to the smaller count."""
    import numpy as np

    keys = [(of << np.uint64(row_bit)) | grams for of, grams in (left, right)]
    one = np.uint64(1)
    both = np.concatenate([keys[0] << one, (keys[1] << one) | one])
    if not len(both):
        return np.zeros(rows, dtype=np.int64)
    both.sort(kind="stable")  # four times as fast on what is in the order of rows already
    grams = both >> one
    starts = np.flatnonzero(np.concatenate([[True], grams[1:] != grams[:-1]]))
    of_right = np.add.reduceat((both & one).astype(np.int64), starts)
    of_left = np.diff(starts, append=len(grams)) - of_right
    row = (grams[starts] >> np.uint64(row_bit)).astype(np.int64)
    shared = np.minimum(of_left, of_right)
    return np.bincount(row, weights=shared, minlength=rows).astype(np.int64)


def _lines_overlap(prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int, int]:
    """Count the union of each reference line's LCS with all predicted lines.

    Lin (2004), section 3.2; each token counts as often as both texts have it, as in ROUGE 1.5.5.
    There may be several longest common subsequences, and another choice gives another union: it is
    rouge_score's own.

    Returns:
        Matched tokens, tokens of the prediction, tokens of the reference.
    """
    from rouge_score.rouge_scorer import _union_lcs

    predicted, expected = Counter("".join(prediction)), Counter("".join(reference))
    union = Counter(token for line in reference for token in _union_lcs(line, list(prediction)))
    matched = (union & predicted).total()
    return matched, predicted.total(), expected.total()


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

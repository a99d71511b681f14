"""What ROUGE does not see: scripts, speakers, facts, form; taken row by row, told as figures.

Facts are what can be looked up: names, numbers, times and masks. One of a prediction that its
dialogue lacks is unsupported; one of the reference that the prediction lacks is missed. No model
decides: numbers, times and masks count as found rather once too often, so that not all that is
wrong is reported; a name counts as lacking where it stands in another script.

Must not know scores, nor how figures are shown.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dialsum.data.cleaning import split_lines
from dialsum.data.tags import (
    SPEAKER,
    SPEAKER_IN_ANY_CASE,
    TURN_START,
    find_tags,
    join_particles,
    tag_spans,
    without_tags,
)
from dialsum.score.content import find_content
from dialsum.score.numbers import (
    CLOCK,
    find_times,
    imply_times,
    numbers_counted,
    numbers_in_digits,
    numbers_in_words,
    numbers_with_units,
)
from dialsum.score.rouge import analyse, has_hangul, load_tokeniser, normalise
from dialsum.score.rows import Rows, find_speakers
from dialsum.text import VIETNAMESE, script_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("names", "numbers", "units", "times", "masks")
Facts = Mapping[str, Mapping[Any, str]]
"""What a text states: kind to value to spelling. The value of a number is a float, a time is `7:30`
of twelve hours, a weekday or a word such as 내일; a unit is a number's value with its unit; names
and masks stand for themselves."""


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        title: how a table calls it.
        unit: of the figure, and of a row's value.
        worst: which rows are listed: those with the highest values, the lowest, or those furthest
            from 1.
        limit: rows at least as bad as this are listed and no others.
    """

    title: str
    unit: str
    worst: Literal["high", "low", "far"] = "high"
    limit: float = 1e-9


ROWS, FACTS = "% of rows", "% of facts"
MEASURES: dict[str, Measure] = {
    "empty": Measure("empty", ROWS),
    "foreign_script": Measure("foreign script", ROWS),
    "speakers_unknown": Measure("speakers not in the dialogue", ROWS),
    "speaker_exchange": Measure(
        "score lost when speakers are exchanged", "points", worst="low", limit=-1e-9
    ),
    "speaker_fit": Measure(
        "speakers' words are their own", "-100 to 100", worst="low", limit=-1e-9
    ),
    **{f"{kind}_unsupported": Measure(f"{kind} not in the dialogue", ROWS) for kind in KINDS},
    **{f"{kind}_missed": Measure(f"{kind} of the reference missed", FACTS) for kind in KINDS},
    "length_ratio": Measure("length over the reference's", "times", worst="far", limit=1.5),
    "shared": Measure("the same text for another row", ROWS),
    "repetition": Measure("repeated 3-grams", "% of 3-grams"),
    "copied": Measure("3-grams copied", "% of 3-grams", limit=50.0),
    "unfinished": Measure("no end of sentence", ROWS),
    "chrf": Measure("chrF2", "0-100", worst="low", limit=100.0),
}
"""In the order of tables. `speaker_exchange` comes of scores, all others are taken here; `shared`
of all rows together."""
NEEDS_DIALOGUE = (
    "speakers_unknown",
    "speaker_fit",
    *(f"{kind}_unsupported" for kind in KINDS),
    "copied",
)
WORST_ROWS = 5
NAN = float("nan")
HOME = ("hangul", "latin", "digits", "punctuation", "symbols", "control")
"""What a Korean summary may hold of all that script_of tells apart."""
LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]{2,}")
GRAM = 3
CLOSING = "\"'”’」』)]}>» "
ENDS = ".!?…。！？"
SIGNS = ("Sm", "So", "Sk", "Mn", "Cf")
"""Unicode's categories of `~`, emoji and their modifiers: after one nothing was cut off."""
SENTENCE_ENDS = ("EF", "ETN")
"""Kinds of the last morpheme of a sentence: a final ending, or a noun made of a verb (함)."""
FINAL_SYLLABLES = "다요죠까함됨임음"
VERBAL_SYLLABLES = "함됨"
"""Where no full stop follows, mecab takes these for connective endings and for nouns."""

Figures = Mapping[tuple[str, str], "NDArray[Any]"]
"""`value`, `what` or `reference` with a key of MEASURES: what the predictions have, in its unit;
what is behind that in a few words, empty where the text says it; what the first references have in
their place: [rows]. A value is NaN where a row has nothing to measure."""


def measure_rows(rows: Rows) -> dict[tuple[str, str], NDArray[Any]]:
    """Take every measure of rows in composed Unicode; without dialogues, what needs none."""
    import numpy as np
    from sacrebleu.metrics.chrf import CHRF

    cut, chrf = load_tokeniser("mecab", tags="one"), CHRF()
    taken: dict[tuple[str, str], list[Any]] = defaultdict(list)
    dialogues: Sequence[str | None] = rows.dialogues or [None] * len(rows)
    for text, references, dialogue in zip(
        rows.predictions, rows.references, dialogues, strict=True
    ):
        tokens, *expected = [cut(one) for one in (text, *references)]
        lengths = [len(one) for one in expected]
        facts = agreed_facts(references)
        source = None
        if dialogue:
            source = dialogue, set(_grams(cut(dialogue))), words_of_speakers(dialogue)
        for key, value, what in _measure(text, tokens, source, lengths=lengths, facts=facts):
            taken["value", key].append(value)
            taken["what", key].append(what)
        beside = _measure(references[0], expected[0], source, lengths=lengths, facts=facts)
        for key, value, _ in beside:
            taken["reference", key].append(value)
        if rows.dialogues is not None and source is None:
            for key in NEEDS_DIALOGUE:
                taken["value", key].append(NAN)
                taken["what", key].append("")
                taken["reference", key].append(NAN)
        taken["value", "chrf"].append(chrf.sentence_score(text, list(references)).score)
    return {
        (sort, key): np.array(values, dtype=object if sort == "what" else np.float32)
        for (sort, key), values in taken.items()
    }


def count_distinct(texts: Sequence[str]) -> int:
    """Return how many of the texts differ, blanks aside."""
    return len(set(map(normalise, texts)))


def find_shared(texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
    """Return 100 for each row whose text, blanks aside, another row has too, 0 for others, NaN for
    empty ones; and of how many rows it is."""
    import numpy as np

    bare = [normalise(text) for text in texts]
    counts = Counter(bare)
    values = [100.0 * (counts[text] > 1) if text else NAN for text in bare]
    what = [f"{counts[text]} rows" if text and counts[text] > 1 else "" for text in bare]
    return np.array(values, dtype=np.float32), np.array(what, dtype=object)


def _measure(
    text: str,
    tokens: Sequence[str],
    source: tuple[str, set[tuple[str, ...]], Mapping[str, Counter[str]]] | None,
    *,
    lengths: Sequence[int],
    facts: Facts,
) -> Iterator[tuple[str, float, str]]:
    """Give key, value and what is behind it of every measure that is no score.

    Args:
        source: the dialogue, its three-token sequences, and what each speaker says; or None.
        lengths: of the row's references, in tokens.
        facts: what these state.
    """
    empty = not text.strip()
    yield "empty", 100.0 * empty, ""
    foreign = find_foreign(text, source and source[0])
    told = "; ".join(f"{script} {' '.join(what)}" for script, what in foreign.items())
    yield "foreign_script", 100.0 * bool(foreign), told
    for kind, missed in find_lacking(facts, text).items():
        share = 100.0 * len(missed) / len(facts[kind]) if facts[kind] else NAN
        yield f"{kind}_missed", share, ", ".join(missed)
    yield "length_ratio", len(tokens) * len(lengths) / (sum(lengths) or 1), ""
    grams = _grams(tokens)
    repeated = 1.0 - len(set(grams)) / len(grams) if grams else 0.0
    most = " ".join(Counter(grams).most_common(1)[0][0]) if repeated else ""
    yield "repetition", 100.0 * repeated, most
    unfinished = is_unfinished(text)
    end = f"… {normalise(text)[-20:]}" if unfinished else ""
    yield "unfinished", NAN if empty else 100.0 * unfinished, end
    if source is None:
        return
    dialogue, known, said = source
    unknown = find_unknown_speakers(text, dialogue)
    yield "speakers_unknown", 100.0 * bool(unknown), " ".join(unknown)
    yield "speaker_fit", *find_speaker_fit(text, said)
    for kind, lacking in find_lacking(find_facts(text), dialogue).items():
        yield f"{kind}_unsupported", 100.0 * bool(lacking), ", ".join(lacking)
    copied = sum(gram in known for gram in grams)
    yield "copied", 100.0 * (copied / len(grams)) if grams else 0.0, ""


def _grams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[shift:] for shift in range(GRAM)), strict=False))


def describe_unseen(figures: Figures, rows: Rows) -> dict[str, Any]:
    """Return each measure: its figure, the same of the references, and its worst rows."""
    import numpy as np

    found: dict[str, Any] = {}
    for key, measure in MEASURES.items():
        values = figures.get(("value", key))
        if values is None:
            continue
        found[key] = {"title": measure.title, "unit": measure.unit}
        for name, taken in (("value", values), ("references", figures.get(("reference", key)))):
            if taken is not None and not np.isnan(taken).all():
                found[key][name] = round(float(np.nanmean(taken.astype(np.float64))), 4)
        whats = figures.get(("what", key))
        found[key]["rows_measured"] = int((~np.isnan(values)).sum())
        found[key]["worst"] = [
            {
                "name": rows.name(row),
                "value": round(float(values[row]), 2),
                "what": "" if whats is None else whats[row],
                "text": rows.predictions[row],
            }
            for row in _worst(values, measure)
        ]
    return found


def _worst(values: NDArray[Any], measure: Measure) -> list[int]:
    import numpy as np

    if measure.worst == "far":
        with np.errstate(divide="ignore"):
            badness, limit = np.abs(np.log(values)), float(np.log(measure.limit))
        # Empty ones have a measure of their own.
        badness = np.where(np.isinf(badness), 0.0, badness)
    else:
        sign = 1.0 if measure.worst == "high" else -1.0
        badness, limit = sign * values, sign * measure.limit
    badness = np.where(np.isnan(badness), -np.inf, badness)
    order = np.argsort(-badness, kind="stable")[:WORST_ROWS]
    return [int(row) for row in order if badness[row] >= limit]


def find_foreign(text: str, source: str | None = None) -> dict[str, list[str]]:
    """Return what of a text is in a foreign script, by script; Latin in whole words.

    Args:
        text: a prediction; its tags do not count.
        source: the dialogue. What stands there is not foreign. Latin words are looked at only where
            there is a source and it is Korean.

    Returns:
        Script (latin, vietnamese, han, kana, cyrillic, thai, other) to what was found, in order
        and each once; no empty lists.
    """
    found: dict[str, list[str]] = {}
    text = unicodedata.normalize("NFC", without_tags(text))
    known = "" if source is None else unicodedata.normalize("NFC", source)
    # Most texts are Hangul, ASCII and punctuation; a set of their letters is quickly gone through.
    for letter in dict.fromkeys(text):
        script = script_of(letter)
        if script not in HOME and letter not in known:
            found.setdefault(script, []).append(letter)
    if known and has_hangul(known):
        lower = known.lower()
        words = dict.fromkeys(
            word
            for word in LATIN_WORD.findall(text)
            if word.lower() not in lower and not VIETNAMESE & set(word)
        )
        if words:
            found["latin"] = list(words)
    return found


def find_unknown_speakers(text: str, source: str) -> list[str]:
    """Return the speaker tags of a text that its dialogue has not, each once."""
    known = find_speakers(source)
    found = [match.group() for match in SPEAKER.finditer(text) if int(match[1]) not in known]
    return list(dict.fromkeys(found))


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


def split_claims(text: str) -> list[tuple[str, str]]:
    """Return what a text says of each speaker who is a subject in it: the tag, and the words up to
    the next one's."""
    text = join_particles(text)
    subjects = list(SUBJECT.finditer(text))
    ends = [*(match.start() for match in subjects[1:]), len(text)]
    return [(match[1], text[match.end() : end]) for match, end in zip(subjects, ends, strict=False)]


def words_of_speakers(dialogue: str) -> dict[str, Counter[str]]:
    """Return the content of each speaker's turns, by tag."""
    said: dict[str, list[str]] = {}
    speaker = None
    for line in split_lines(dialogue):
        if start := TURN_START.match(line):
            speaker, line = start[1], line[start.end() :]
        if speaker is not None:
            said.setdefault(speaker, []).append(line)
    return {tag: Counter(find_content(" ".join(lines))) for tag, lines in said.items()}


def find_speaker_fit(text: str, said: Mapping[str, Counter[str]]) -> tuple[float, str]:
    """Return how far the words that a text gives to speakers are their own, and which are not.

    Of each word of a claim that somebody says: (own - other) / (own + other) of how often the
    speaker and that other one says it who says it most.

    Args:
        said: as words_of_speakers gives it.

    Returns:
        The mean times 100, from -100 (all are others') to 100, NaN where no word tells; the tags
        with the words that others say more.
    """
    shares: list[float] = []
    foreign: dict[str, list[str]] = {}
    for tag, claim in split_claims(text):
        if tag not in said or len(said) < 2:
            continue
        for stem in find_content(claim):
            own = said[tag][stem]
            other = max(words[stem] for name, words in said.items() if name != tag)
            if own + other:
                shares.append((own - other) / (own + other))
                if other > own:
                    foreign.setdefault(tag, []).append(stem)
    value = 100.0 * sum(shares) / len(shares) if shares else NAN
    return value, "; ".join(f"{tag} {' '.join(stems)}" for tag, stems in foreign.items())


def is_unfinished(text: str) -> bool:
    """Say whether a text stops before its sentence does; an empty one does not.

    A full stop, question or exclamation mark ends a sentence, in quotes or brackets too; without
    one, a Korean text must end in a final ending (`간다`) or a noun made of a verb (`함`).
    """
    text = normalise(text)
    bare = text.rstrip(CLOSING)
    if not bare or bare[-1] in ENDS or unicodedata.category(bare[-1]) in SIGNS:
        return False
    if not has_hangul(bare[-1]):
        return True
    spans, kinds, _ = analyse(text)
    words = (at for at in reversed(range(len(kinds))) if not kinds[at].startswith("S"))
    if (last := next(words, None)) is None:
        return True
    start, end = spans[last]
    if bare[-1] in FINAL_SYLLABLES:
        # 바다, 담요 and 책임 are words of their own; 향함 mecab takes for one.
        own = kinds[last].startswith("NN") and end - start > 1
        return own and bare[-1] not in VERBAL_SYLLABLES
    return not any(one in kinds[last].split("+")[-1] for one in SENTENCE_ENDS)


SUBJECT = re.compile(r"(#Person\d{1,4}#)(?:은|는|이|가|께서|도)(?![가-힣])", re.ASCII)
AFTER_NAMES = ("J", "VCP", "XSN", "NNP", "S", "NNB", "NNG")
"""What may follow a name without a space: particles, the copula, 님, other nouns, marks."""
GAP = "#"
"""Stands where a tag or time was: what follows begins no word, it may be a particle."""
SENTENCE_START = re.compile(r"(?:^|[.!?:\n]\s*|[\"'“‘(]\s*)$")


def find_facts(text: str) -> Facts:
    """Return the facts of a text (spelling as it is, composed)."""
    text = join_particles(normalise(text))
    return {"names": _find_names(text), **_find_all_but_names(text)}


@functools.lru_cache(maxsize=1 << 10)
def _find_all_but_names(text: str) -> Facts:
    bare = without_tags(text, GAP)
    masks = [tag for tag in find_tags(text) if SPEAKER_IN_ANY_CASE.fullmatch(tag) is None]
    return {
        "numbers": numbers_counted(bare) | numbers_in_digits(CLOCK.sub(GAP, bare)),
        "units": numbers_with_units(CLOCK.sub(GAP, bare)),
        "times": {time: time for time in find_times(bare)},
        "masks": {mask: mask for mask in masks},
    }


def find_lacking(stated: Facts, text: str) -> dict[str, list[str]]:
    """Return which facts a text lacks, by kind, as they were spelt.

    A name is there where its letters are, in any case; a number where its value is, in digits or in
    words.
    """
    text = normalise(text)
    lower, found = text.lower(), _find_all_but_names(text)
    numbers: set[float] = set(found["numbers"])
    if not numbers.issuperset(stated["numbers"]):
        # An hour may be repeated as a bare number, and a number be part of an hour.
        numbers |= numbers_in_words(without_tags(text, GAP).lower()) | set(numbers_in_digits(lower))
    units: dict[float, set[str]] = defaultdict(set)
    for value, unit in found["units"]:
        units[value].add(unit)
    times = {*found["times"], *imply_times(text)} if stated["times"] else set()
    return {
        "names": sorted(name for name in stated["names"] if name.lower() not in lower),
        "numbers": [spelt for value, spelt in stated["numbers"].items() if value not in numbers],
        "units": [
            spelt
            for (value, unit), spelt in stated["units"].items()
            if units[value] and unit not in units[value]
        ],
        "times": sorted(stated["times"].keys() - times),
        "masks": sorted(stated["masks"].keys() - found["masks"].keys()),
    }


def agreed_facts(references: Sequence[str]) -> Facts:
    """Return the facts that all references of a row state: what a summary ought to say."""
    agreed = find_facts(references[0])
    for other in references[1:]:
        lacking = find_lacking(agreed, other)
        agreed = {
            kind: {fact: spelt for fact, spelt in facts.items() if spelt not in lacking[kind]}
            for kind, facts in agreed.items()
        }
    return agreed


@functools.lru_cache(maxsize=1 << 10)
def _find_names(text: str) -> dict[str, str]:
    """Return proper nouns of two syllables or more, and Latin words with a capital inside of a
    sentence.

    A proper noun begins a word and ends it, but for particles and the like: mecab takes pieces of
    words that it does not know (알`립니`다, `패셔`너블) for names.
    """
    tags = tag_spans(text)
    spans, kinds, _ = analyse(text)
    korean = has_hangul(text)
    names: list[tuple[int, int]] = []
    following = zip((*spans[1:], (-1, -1)), (*kinds[1:], ""), strict=True)
    for (start, end), kind, (after, its_kind) in zip(spans, kinds, following, strict=False):
        proper = "NNP" in kind or (
            kind == "SL"
            and text[start].isupper()
            and (korean or SENTENCE_START.search(text[:start]) is None)
        )
        if not proper or any(start < high and low < end for low, high in tags):
            continue
        inside = after[0] == end and not its_kind.startswith(AFTER_NAMES)
        goes_on = bool(names) and names[-1][1] == start
        if inside or (start and text[start - 1].isalpha() and not goes_on):
            continue
        if goes_on:
            names[-1] = (names[-1][0], end)
        else:
            names.append((start, end))
    return {text[start:end]: text[start:end] for start, end in names if end - start > 1}

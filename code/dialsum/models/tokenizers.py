"""Tokenizers: load or train one, add the dialogue's tags as ordinary tokens, prove text survives.

Must not know models. tokenizer_files.py reads and mends what a checkpoint has; added here are line
ends, which T5's lose, and the special tokens that a bare tokenizer.json does not name (KoBART).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.data.encode import fold_spaces
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.models.tokenizer_files import ROLES, TokenizerFiles, mend
from dialsum.reading import shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NEWLINE = "\n"
SPECIAL_NAMES = {
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "mask_token": "<mask>",
}
TINY_SPECIALS = {
    "unigram": ["<pad>", "</s>", "<unk>"],
    "bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
"""Special tokens of a tokenizer trained here, in the order of ids that T5 and BART have."""


PROBE = "가 a\U0010fffd"
"""Some text with a character that no vocabulary has: without its unknown token one breaks here."""


def fold_text(text: str) -> str:
    """Return text in NFKC, every run of white space folded to one space: what must survive."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def load_tokenizer(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a checkpoint's own tokenizer and give it the form that every later step relies on.

    Args:
        source: hub name or local folder.

    Raises:
        UnfitError: there is none, it cannot be read, or it has no end or padding token.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        files = TokenizerFiles(source, revision=revision, trust_remote_code=trust_remote_code)
        described = files.describe()
        known = _pieces(described)
        names = {role: files.named(role) for role in ROLES}
        usual = {role: name for role, name in SPECIAL_NAMES.items() if names[role] not in known}
        roles = {role: name for role, name in (names | usual).items() if name in known}
        backend = Tokenizer.from_str(json.dumps(mend(described, roles=roles)))
        backend.encode(PROBE)
        if not described["model"]["vocab"]:
            raise ValueError("its vocabulary is empty")
    except UnfitError:
        raise
    except BaseException as error:
        # The library raises whatever it likes, and panics with what is not even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UnfitError(
            f"{source}: no tokenizer could be loaded ({type(error).__name__}: {first_line(error)})"
            ". Give a hub name that can be reached (or is in the cache), or a local folder that "
            "holds a whole tokenizer.json or spiece.model."
        ) from error
    for role in ("pad_token", "eos_token"):
        if role not in roles:
            raise UnfitError(f"{source}: the tokenizer has no {role} ({SPECIAL_NAMES[role]})")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        **{role: roles[role] for role in SPECIAL_NAMES if role in roles},
    )


def _pieces(described: Mapping[str, Any]) -> set[str]:
    """Return all pieces and added tokens of a tokenizer in the form of tokenizer.json."""
    vocabulary = described["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        vocabulary = (piece for piece, _ in vocabulary)
    return {*vocabulary, *(token["content"] for token in described.get("added_tokens") or [])}


def add_dialogue_tokens(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[str]:
    """Add tags and masks as ordinary tokens, and a line end where the tokenizer would lose it.

    Ordinary, never special: `skip_special_tokens` would delete them from every summary.

    Returns:
        The tokens that are new, in the order of their ids.
    """
    from tokenizers import AddedToken

    vocabulary = tokenizer.get_vocab()
    wanted = [token for token in tokens if token not in vocabulary]
    sample = f"가{NEWLINE}나"
    if NEWLINE not in tokenizer.decode(tokenizer(sample)["input_ids"], skip_special_tokens=True):
        wanted.append(NEWLINE)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in wanted])
    return wanted


MOST_UNKNOWN_TOKENS, MOST_UNKNOWN_TEXTS = 0.05, 0.20
"""Shares of unknown tokens, and of texts that hold one, beyond which nothing can be learnt."""
SHOWN_EXAMPLES, SHOWN_CHARACTERS = 3, 80


@dataclass(frozen=True)
class RoundTrip:
    """How many texts come back from encoding as they went in (spaces folded, NFKC)."""

    texts: int
    failed: list[tuple[str, str]]
    """Text and what came back, where they differ though every piece is known."""
    with_unknown: int
    """Texts with a piece that the vocabulary lacks; they cannot come back whole."""
    tokens: int = 0
    unknown_tokens: int = 0
    unknown_examples: tuple[tuple[str, str], ...] = ()
    """The first of those texts, and as what they are read."""
    unknown_pieces: tuple[str, ...] = ()
    """What of the first of those texts is unknown, each once."""

    @property
    def lacks_the_language(self) -> bool:
        """Say whether so much is unknown that the vocabulary is not one for these texts."""
        return (
            self.unknown_tokens > MOST_UNKNOWN_TOKENS * self.tokens
            or self.with_unknown > MOST_UNKNOWN_TEXTS * self.texts
        )

    def describe_unknown(self) -> str:
        """Say how much the vocabulary lacks, and what of the first texts."""
        shown = ", ".join(repr(shorten(piece, limit=20)) for piece in self.unknown_pieces)
        share = self.unknown_tokens / self.tokens
        # Next to nothing must not read as nothing.
        of_tokens = f"{share:.2%}" if share >= 0.0001 else "under 0.01%"
        return (
            f"{self.with_unknown:,} of {self.texts:,} summaries "
            f"({self.with_unknown / self.texts:.1%}) hold text that the tokenizer's vocabulary "
            f"lacks, {of_tokens} of all their tokens, such as {shown}"
        )

    def show_unknown(self) -> str:
        """Show the first of those texts, and as what they are read."""
        return "; ".join(
            f"{text[:SHOWN_CHARACTERS]!r} is read as {back[:SHOWN_CHARACTERS]!r}"
            for text, back in self.unknown_examples
        )


def check_round_trip(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> RoundTrip:
    """Encode and decode every text and compare."""
    items = [fold_spaces(text) for text in texts]
    failed: list[tuple[str, str]] = []
    examples: list[tuple[str, str]] = []
    pieces: list[str] = []
    with_unknown = tokens = lost = 0
    unknown = tokenizer.unk_token_id
    hidden = {*tokenizer.all_special_ids} - {unknown}
    encodings = tokenizer(items).encodings or [] if items else []
    for text, encoding in zip(items, encodings, strict=True):
        ids = encoding.ids
        tokens += len(ids)
        if unknown in ids:
            with_unknown += 1
            lost += ids.count(unknown)
            if len(examples) < SHOWN_EXAMPLES:
                read = tokenizer.decode([one for one in ids if one not in hidden])
                examples.append((text, str(read).strip()))
                pieces += [
                    text[start:end].strip()
                    for one, (start, end) in zip(ids, encoding.offsets, strict=True)
                    if one == unknown
                ]
            continue
        back = str(tokenizer.decode(ids, skip_special_tokens=True))
        if fold_text(back) != fold_text(text):
            failed.append((text, back))
    return RoundTrip(
        texts=len(items),
        failed=failed,
        with_unknown=with_unknown,
        tokens=tokens,
        unknown_tokens=lost,
        unknown_examples=tuple(examples),
        unknown_pieces=tuple(dict.fromkeys(pieces))[:SHOWN_EXAMPLES],
    )


def train_tokenizer(
    texts: Iterable[str], *, kind: str, vocab_size: int, exclude: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of a family's kind on texts (the demo's; a real checkpoint brings its own).

    Args:
        kind: unigram (as T5, mT5) or bpe (as KoBART).
        vocab_size: pieces at most; small data yields fewer.
        exclude: tokens that are added later and must not be learnt in pieces.

    Raises:
        RunError: vocab_size is below the number of different characters in texts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = TINY_SPECIALS[kind]
    tags = re.compile("|".join(re.escape(token) for token in exclude)) if exclude else None
    lines = [
        line
        for text in texts
        for line in (tags.sub(NEWLINE, text) if tags else text).splitlines()
        if line
    ]
    trainer: Any
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
    else:
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=specials, show_progress=False
        )
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    try:
        backend.train_from_iterator(lines, trainer)
    except Exception as error:  # the library raises nothing more special
        raise RunError(
            f"no {kind} tokenizer of {vocab_size} pieces could be trained on {len(lines):,} lines "
            f"({first_line(error)}); set tokenizer.vocab_size higher"
        ) from error
    if kind == "unigram":
        _put_pieces_in_order(backend, len(specials))
    named = {key: name for key, name in SPECIAL_NAMES.items() if name in specials}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        **named,
    )


def _put_pieces_in_order(backend: Any, special_count: int) -> None:
    """Give a trained unigram model the ids and scores that it has whenever it is trained again.

    The trainer gives the characters that were too rare to be learned the lowest score, then 0.0001
    more, then 0.0002 more, in the order of a hash map: two runs on the same texts get other ids,
    and so other weights in a model that is built around them.
    """
    from tokenizers import models

    trained = json.loads(backend.to_str())["model"]
    specials = [(piece, score) for piece, score in trained["vocab"][:special_count]]
    # Sums over that hash map differ in the last digits.
    scores = {piece: round(score, 6) for piece, score in trained["vocab"][special_count:]}
    lowest = min(scores.values(), default=0.0)
    steps = {piece: (score - lowest) / 1e-4 for piece, score in scores.items() if len(piece) == 1}
    rare = sorted(piece for piece, step in steps.items() if abs(step - round(step)) < 0.02)
    scores |= dict(zip(rare, sorted(scores[piece] for piece in rare), strict=True))
    pieces = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    backend.model = models.Unigram([*specials, *pieces], trained["unk_id"])

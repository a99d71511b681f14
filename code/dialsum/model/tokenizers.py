"""Tokenizers: load or train one, add the dialogue's tags as ordinary tokens, prove text survives.

Must not know models. Three faults of the stock tokenizers are mended here: a space put after every
added token (`#Person1# 은`), line ends lost (T5 family), and special tokens that a bare
tokenizer.json does not name (KoBART).
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

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NEWLINE = "\n"
PROBE = "건강검진을 받으러 왔다."
"""Hangul that a tokenizer of Korean encodes in whole pieces."""
SPECIAL_NAMES = {
    "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
    "bos_token": "<s>", "mask_token": "<mask>",
}
TINY_SPECIALS = {
    "unigram": ["<pad>", "</s>", "<unk>"],
    "bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
"""Special tokens of a tokenizer trained here, in the order of ids that T5 and BART have."""


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
        UnfitError: there is none, it is no fast tokenizer, or it has no end or padding token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        loaded: Any = AutoTokenizer.from_pretrained(
            str(source), revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UnfitError(
            f"{source}: no tokenizer could be loaded ({first_line(error)}). Give a hub name that "
            "can be reached (or is in the cache), or a local folder that holds tokenizer.json or "
            "spiece.model."
        ) from error
    if not getattr(loaded, "is_fast", False):
        raise UnfitError(
            f"{source}: {type(loaded).__name__} is a slow tokenizer; a tokenizer.json is needed"
        )
    backend = _true_backend(loaded, source, revision)
    vocabulary = backend.get_vocab()
    names = {key: _special_token(loaded, key, vocabulary) for key in SPECIAL_NAMES}
    for key in ("pad_token", "eos_token"):
        if names[key] is None:
            raise UnfitError(f"{source}: the tokenizer has no {key} ({SPECIAL_NAMES[key]})")
    keep_spelling_after_added_tokens(backend)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False,
        model_max_length=int(1e9), **{key: name for key, name in names.items() if name is not None},
    )


def _true_backend(loaded: Any, source: str | Path, revision: str | None) -> Any:
    """Return the tokenizer as its tokenizer.json has it, where the library made another of it.

    From a config.json of BART it builds RoBERTa's byte-level tokenizer around any vocabulary:
    KoBART's then splits Hangul into unknown bytes, and nothing says so.
    """
    from tokenizers import Tokenizer
    from transformers.utils.hub import cached_file

    path = cached_file(
        str(source), "tokenizer.json", revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return loaded.backend_tokenizer
    own = Tokenizer.from_file(str(path))
    both = [
        one.encode(PROBE, add_special_tokens=False).ids for one in (own, loaded.backend_tokenizer)
    ]
    return loaded.backend_tokenizer if both[0] == both[1] else own


def _special_token(tokenizer: Any, key: str, vocabulary: Mapping[str, int]) -> str | None:
    """Return the token that a tokenizer names for a role, else the usual one if it has that."""
    named = getattr(tokenizer, key, None)
    if named and str(named) in vocabulary:
        return str(named)
    usual = SPECIAL_NAMES[key]
    return usual if usual in vocabulary else None


def keep_spelling_after_added_tokens(backend: Any) -> None:
    """Make a Metaspace tokenizer put its word mark only where the text has a space.

    The stock setting (`prepend_scheme="always"`, for mT5 after a split on white space) starts a new
    word after every added token: `#Person1#은` comes back as `#Person1# 은`. With "first" the text
    comes back as it was. Tokenizers of another kind are left as they are.
    """
    from tokenizers import decoders, pre_tokenizers

    if "Metaspace" not in str(backend.pre_tokenizer):
        return
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=True
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first", split=True)


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


@dataclass(frozen=True)
class RoundTrip:
    """How many texts come back from encoding as they went in (spaces folded, NFKC)."""

    texts: int
    failed: list[tuple[str, str]]
    """Text and what came back, where they differ though every piece is known."""
    with_unknown: int
    """Texts with a piece that the vocabulary lacks; they cannot come back whole."""


def check_round_trip(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> RoundTrip:
    """Encode and decode every text and compare."""
    items = [fold_spaces(text) for text in texts]
    failed, unknown = [], 0
    for text, ids in zip(items, tokenizer(items)["input_ids"] if items else [], strict=True):
        if tokenizer.unk_token_id in ids:
            unknown += 1
            continue
        back = str(tokenizer.decode(ids, skip_special_tokens=True))
        if fold_text(back) != fold_text(text):
            failed.append((text, back))
    return RoundTrip(texts=len(items), failed=failed, with_unknown=unknown)


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
        line for text in texts
        for line in (tags.sub(NEWLINE, text) if tags else text).splitlines() if line
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
        tokenizer_object=backend, clean_up_tokenization_spaces=False,
        model_max_length=int(1e9), **named,
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

"""Tokenizers: load or train one, add the dialogue's tags as ordinary tokens, prove text survives.

Must not know models. What a checkpoint has is read and mended; added here are line
ends, which T5's lose, and the special tokens that a bare tokenizer.json does not name (KoBART).
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.data.encode import fold_spaces
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.files import shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROLES = ("pad_token", "eos_token", "unk_token", "bos_token", "mask_token", "sep_token", "cls_token")
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Pieces that spell, byte by byte of UTF-8, a character without a piece of its own."""
MARK = re.compile(r"<[|/]?\w+\|?>|\[\w+\]")
"""A special token that is a mark, such as </s>, <|end|>, <extra_id_0> or [CLS], and no text."""
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
SENTENCEPIECE_UNIGRAM = 1
UNKNOWN, CONTROL = 2, 3  # types of pieces in a sentencepiece model


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


class TokenizerFiles:
    """The files of a tokenizer, in a folder or on the hub.

    Args:
        source: hub name or local folder.
    """

    def __init__(
        self, source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
    ) -> None:
        self.source, self.revision = str(source), revision
        self.trust_remote_code = trust_remote_code
        self.config = self._read_settings("tokenizer_config.json")
        self.special = self._read_settings("special_tokens_map.json")

    def find(self, name: str) -> Path | None:
        """Return where a file lies on this machine, fetched if need be; None: there is none."""
        from transformers.utils.hub import cached_file

        path = cached_file(
            self.source,
            name,
            revision=self.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if path is None else Path(path)

    def _read_settings(self, name: str) -> dict[str, Any]:
        """Return a JSON file's object, empty where the file is absent or holds null.

        Raises:
            UnfitError: it is no JSON, or no object.
        """
        path = self.find(name)
        if path is None:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnfitError(
                f"{path}: no JSON ({error}); replace it with the checkpoint's own {name}"
            ) from error
        if not isinstance(found, dict | None):
            raise UnfitError(
                f"{path}: holds a {type(found).__name__} where an object {{…}} is needed; "
                f"replace it with the checkpoint's own {name}"
            )
        return found or {}

    def named(self, role: str) -> str | None:
        """Return the token that the files name for a role, such as pad_token."""
        for settings in (self.config, self.special):
            token = settings.get(role)
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str) and content:
                return content
        return None

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer as its files have it, and nothing mended.

        Raises:
            UnfitError: the sentencepiece model is of another kind, or its added tokens have gaps.
            Exception: whatever a library raises.
        """
        whole = self.find("tokenizer.json")
        if whole is not None:
            found: dict[str, Any] = json.loads(whole.read_text(encoding="utf-8"))
            return found
        pieces = self.find("spiece.model")
        return self._ask_library() if pieces is None else self._describe_pieces(pieces)

    def _ask_library(self) -> dict[str, Any]:
        from transformers import AutoTokenizer

        loaded: Any = AutoTokenizer.from_pretrained(
            self.source, revision=self.revision, trust_remote_code=self.trust_remote_code
        )
        if not getattr(loaded, "is_fast", False):
            raise UnfitError(
                f"{self.source}: {type(loaded).__name__} is a slow tokenizer; a tokenizer.json is "
                "needed"
            )
        names = type(loaded).vocab_files_names.values()
        if not any(self.find(name) for name in names):
            # The library makes one of special tokens alone.
            raise UnfitError(
                f"{self.source}: no tokenizer could be loaded: none of {', '.join(names)} is there"
            )
        self.special |= {role: str(getattr(loaded, role, None) or "") for role in ROLES}
        found: dict[str, Any] = json.loads(loaded.backend_tokenizer.to_str())
        return found

    def _describe_pieces(self, path: Path) -> dict[str, Any]:
        """Describe the tokenizer of a T5's sentencepiece model, which ends each text."""
        from sentencepiece import sentencepiece_model_pb2

        module: Any = sentencepiece_model_pb2
        model = module.ModelProto()
        model.ParseFromString(path.read_bytes())
        if model.trainer_spec.model_type != SENTENCEPIECE_UNIGRAM:
            raise UnfitError(
                f"{path}: a sentencepiece model of another kind than unigram; give a folder with "
                "the tokenizer.json that the library writes of it"
            )
        vocabulary = [(piece.piece, piece.score) for piece in model.pieces]
        special = [at for at, piece in enumerate(model.pieces) if piece.type in (UNKNOWN, CONTROL)]
        if not any("<extra_id_" in piece for piece, _ in vocabulary):
            # T5's lie behind its pieces and stand in no file; mT5's are pieces.
            asked = self.config.get("extra_ids")
            count = 100 if asked is None else int(asked)
            special += range(len(vocabulary), len(vocabulary) + count)
            vocabulary += [(f"<extra_id_{one}>", 0.0) for one in reversed(range(count))]
        end = self.named("eos_token") or "</s>"
        closing = {"SpecialToken": {"id": end, "type_id": 0}}
        first, second = ({"Sequence": {"id": one, "type_id": 0}} for one in "AB")
        ids = {piece: at for at, (piece, _) in enumerate(vocabulary)}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                *(_added(at, vocabulary[at][0], special=True) for at in special),
                *self._tokens_added_later(ids),
            ],
            "normalizer": _normalize(model.normalizer_spec),
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE],
            },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [first, closing],
                "pair": [first, closing, second, closing],
                "special_tokens": {end: {"id": end, "ids": [ids[end]], "tokens": [end]}},
            },
            "decoder": METASPACE,
            "model": {
                "type": "Unigram",
                "unk_id": model.trainer_spec.unk_id,
                "vocab": vocabulary,
                "byte_fallback": model.trainer_spec.byte_fallback,
            },
        }

    def _tokens_added_later(self, pieces: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return the tokens that stand beside a sentencepiece model, in the order of their ids."""
        added = {
            int(at): _added(int(at), token["content"], special=bool(token.get("special")))
            for at, token in (self.config.get("added_tokens_decoder") or {}).items()
        } | {
            at: _added(at, content, special=False)
            for content, at in self._read_settings("added_tokens.json").items()
        }
        later = [added[at] for at in sorted(added) if added[at]["content"] not in pieces]
        ids = [token["id"] for token in later]
        if ids != [*range(len(pieces), len(pieces) + len(later))]:
            raise UnfitError(
                f"{self.source}: its added tokens have ids {str(ids)[:40]}, which do not follow "
                f"its {len(pieces):,} pieces; give a folder with the tokenizer.json that the "
                "checkpoint was trained with"
            )
        return later


def _normalize(spec: Any) -> dict[str, Any] | None:
    """Describe how a sentencepiece model normalises a text.

    The library maps character by character. Of NFKC's rules, those of several are left: the ㅋㅠ
    of `ㅋㅋㅠㅠ` is 큐 to sentencepiece.
    """
    if not spec.precompiled_charsmap:
        return None
    charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
    mapped = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    if "nfkc" not in spec.name:
        return mapped
    return {"type": "Sequence", "normalizers": [mapped, {"type": "NFC"}]}


def _added(at: int, content: str, *, special: bool) -> dict[str, Any]:
    return {
        "id": at,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def mend(described: dict[str, Any], *, roles: Mapping[str, str]) -> dict[str, Any]:
    """Return a tokenizer under which any text comes back from encoding as it was.

    Texts are neither cut nor padded; byte pieces spell what has no piece of its own; an emoji or
    `:)` that a vocabulary calls special is text, which decoding keeps; and a Metaspace puts its
    word mark only where the text has a space, not (`prepend_scheme="always"`) after every added
    token too, which makes `#Person1# 은` of `#Person1#은`.

    Args:
        described: as in tokenizer.json; it is not changed.
        roles: the tokens that stay special whatever they look like, by their role.
    """
    marks = set(roles.values())
    model, tokens = dict(described["model"]), described.get("added_tokens") or []
    mended = described | {
        "truncation": None,
        "padding": None,
        "model": model,
        "added_tokens": [
            token
            | {
                "special": token["special"]
                and (token["content"] in marks or MARK.fullmatch(token["content"]) is not None)
            }
            for token in tokens
        ],
    }
    spelled_in_bytes = model.get("type") == "Unigram" and has_byte_pieces(model["vocab"])
    if spelled_in_bytes:
        model["byte_fallback"] = True
    splitting = json.dumps(described.get("pre_tokenizer"))
    if "Metaspace" in splitting:
        if "WhitespaceSplit" in splitting:
            # What is left of it: several spaces, also those made of U+200B, are one.
            one = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
            before = [described["normalizer"]] if described.get("normalizer") else []
            mended["normalizer"] = {"type": "Sequence", "normalizers": [*before, one]}
        mended |= {"pre_tokenizer": METASPACE, "decoder": METASPACE}
        if spelled_in_bytes:
            # In a text <0x41> is six characters, not the piece of that name.
            apart = {
                "type": "Split",
                "pattern": {"Regex": "(?<=<0)x(?=[0-9A-F]{2}>)"},
                "behavior": "MergedWithPrevious",
                "invert": False,
            }
            mended |= {
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [METASPACE, apart]},
                "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]},
            }
    return mended


def has_byte_pieces(vocabulary: Any) -> bool:
    """Say whether a unigram model's pieces and scores hold one for each byte."""
    names = {piece for piece, _ in vocabulary if len(piece) == len(BYTE_PIECES[0])}
    return names.issuperset(BYTE_PIECES)

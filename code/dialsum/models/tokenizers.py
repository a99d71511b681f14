"""Tokenizers: load one, add the dialogue's tags as ordinary tokens, prove text survives.

tokenizer.json says what a checkpoint's tokenizer is, else spiece.model does. The library goes by
the class that the config names instead: it cannot make T5's of a byte-level BPE, makes RoBERTa's of
KoBART's pieces, and loses the byte pieces of mT5. It is asked only where there is neither file. A
tokenizer is held here in the form of tokenizer.json, as a dictionary; what files get wrong is
mended. Must not know models.
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

from dialsum.data.cleaning import fold_spaces
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.text import shorten

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
"""What a role's token is called where no file names it, as in a bare tokenizer.json (KoBART)."""
OTHER_NAMES = {
    "pad_token": ("<|finetune_right_pad_id|>", "<|endoftext|>"),
    "eos_token": ("<|endoftext|>",),
}
"""What else it may be called: Llama 3 names no padding, GPT-2 nothing at all."""
IMAGES = ("<image_soft_token>",)
"""Places of pictures, which Gemma 3's tokenizers have and its text models have no row for."""
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Pieces that spell, byte by byte of UTF-8, a character without a piece of its own."""
MARK = re.compile(r"<[|/]?\w+\|?>|\[\w+\]")
"""A special token that is a mark, such as </s>, <|end|>, <extra_id_0> or [CLS], and no text."""
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
SENTENCEPIECE_UNIGRAM = 1
UNKNOWN, CONTROL = 2, 3  # types of pieces in a sentencepiece model
PROBE = "가 a\U0010fffd"
"""Some text with a character that no vocabulary has: without its unknown token one breaks here."""
MOST_UNKNOWN_TOKENS, MOST_UNKNOWN_TEXTS = 0.05, 0.20
"""Shares of unknown tokens, and of texts that hold one, beyond which nothing can be learnt."""
SHOWN_EXAMPLES, SHOWN_CHARACTERS = 3, 80


def load_tokenizer(
    folder: str | Path, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a checkpoint's own tokenizer and give it the form that every later step relies on.

    One without a token for padding fills up with its end: what is padding, masks say.

    Raises:
        UnfitError: there is none, it cannot be read, or it has no end token.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    try:
        config = _read_settings(folder / "tokenizer_config.json")
        named = _name_roles(_read_settings(folder / "special_tokens_map.json"))
        if (folder / "tokenizer.json").is_file():
            described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        elif (folder / "spiece.model").is_file():
            end = (named | _name_roles(config)).get("eos_token", SPECIAL_NAMES["eos_token"])
            described = _describe_pieces(folder, config, end=end)
        else:
            loaded = _ask_library(folder, trust_remote_code=trust_remote_code)
            described = json.loads(loaded.backend_tokenizer.to_str())
            said = loaded.special_tokens_map.items()
            named |= _name_roles({role: str(token) for role, token in said})
        named |= _name_roles(config)
        known = _list_pieces(described)
        roles = {}
        for role in dict.fromkeys((*SPECIAL_NAMES, *named)):
            others = (SPECIAL_NAMES.get(role), *OTHER_NAMES.get(role, ()))
            found = next((name for name in (named.get(role), *others) if name in known), None)
            if found is not None:
                roles[role] = found
        if "eos_token" in roles:
            roles.setdefault("pad_token", roles["eos_token"])
        backend = Tokenizer.from_str(json.dumps(_mend(described, marks={*roles.values()})))
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
            f"{folder}: no tokenizer could be loaded ({type(error).__name__}: {first_line(error)})"
            ". Give a hub name that can be reached (or is in the cache), or a local folder that "
            "holds a whole tokenizer.json or spiece.model."
        ) from error
    if "eos_token" not in roles:
        raise UnfitError(
            f"{folder}: the tokenizer has no eos_token, so that no summary could end; name it in "
            f"tokenizer_config.json, or add {SPECIAL_NAMES['eos_token']}"
        )
    return _wrap(
        backend,
        {role: roles[role] for role in SPECIAL_NAMES if role in roles},
        template=_read_template(folder, config),
    )


def _read_template(folder: Path, config: Mapping[str, Any]) -> Any:
    """Return a checkpoint's template of conversations, one or several by name; None for none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        return {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
    return found if isinstance(found, str) else None


def _wrap(backend: Any, roles: Mapping[str, str], *, template: Any) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        chat_template=template,
        **roles,
    )


def _read_settings(path: Path) -> dict[str, Any]:
    """Return a JSON file's object, empty where the file is absent or holds null.

    Raises:
        UnfitError: it is no JSON, or no object.
    """
    if not path.is_file():
        return {}
    advice = f"replace it with the checkpoint's own {path.name}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnfitError(f"{path}: no JSON ({error}); {advice}") from error
    if not isinstance(found, dict | None):
        kind = type(found).__name__
        raise UnfitError(f"{path}: holds a {kind} where an object {{…}} is needed; {advice}")
    return found or {}


def _name_roles(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the tokens that a file names, by their role, such as pad_token."""
    named = {
        role: token.get("content") if isinstance(token, dict) else token
        for role, token in settings.items()
        if role in (*SPECIAL_NAMES, "sep_token", "cls_token")
    }
    return {role: name for role, name in named.items() if isinstance(name, str) and name}


def _list_pieces(described: Mapping[str, Any]) -> set[str]:
    """Return all pieces and added tokens of a tokenizer."""
    vocabulary = described["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        vocabulary = (piece for piece, _ in vocabulary)
    return {*vocabulary, *(token["content"] for token in described.get("added_tokens") or [])}


def _ask_library(folder: Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    if not getattr(loaded, "is_fast", False):
        raise UnfitError(
            f"{folder}: {type(loaded).__name__} is a slow tokenizer; a tokenizer.json is needed"
        )
    names = type(loaded).vocab_files_names.values()
    if not any((folder / name).is_file() for name in names):
        # The library makes one of special tokens alone.
        raise UnfitError(
            f"{folder}: no tokenizer could be loaded: none of {', '.join(names)} is there"
        )
    return loaded


def _describe_pieces(folder: Path, config: Mapping[str, Any], *, end: str) -> dict[str, Any]:
    """Describe the tokenizer of a T5's sentencepiece model, which ends each text.

    Raises:
        UnfitError: the model is of another kind, or its added tokens have gaps.
    """
    from sentencepiece import sentencepiece_model_pb2

    module: Any = sentencepiece_model_pb2
    model = module.ModelProto()
    model.ParseFromString((folder / "spiece.model").read_bytes())
    if model.trainer_spec.model_type != SENTENCEPIECE_UNIGRAM:
        raise UnfitError(
            f"{folder / 'spiece.model'}: a sentencepiece model of another kind than unigram; give "
            "a folder with the tokenizer.json that the library writes of it"
        )
    vocabulary = [(piece.piece, piece.score) for piece in model.pieces]
    special = [at for at, piece in enumerate(model.pieces) if piece.type in (UNKNOWN, CONTROL)]
    if not any("<extra_id_" in piece for piece, _ in vocabulary):
        # T5's lie behind its pieces and stand in no file; mT5's are pieces.
        asked = config.get("extra_ids")
        count = 100 if asked is None else int(asked)
        special += range(len(vocabulary), len(vocabulary) + count)
        vocabulary += [(f"<extra_id_{one}>", 0.0) for one in reversed(range(count))]
    ids = {piece: at for at, (piece, _) in enumerate(vocabulary)}
    added = [_describe_token(at, vocabulary[at][0], special=True) for at in special]
    # Tokens that stand beside the model, in the order of their ids.
    beside = {
        int(at): _describe_token(int(at), token["content"], special=bool(token.get("special")))
        for at, token in (config.get("added_tokens_decoder") or {}).items()
    } | {
        at: _describe_token(at, content, special=False)
        for content, at in _read_settings(folder / "added_tokens.json").items()
    }
    later = [beside[at] for at in sorted(beside) if beside[at]["content"] not in ids]
    numbers = [token["id"] for token in later]
    if numbers != [*range(len(ids), len(ids) + len(later))]:
        raise UnfitError(
            f"{folder}: its added tokens have ids {str(numbers)[:40]}, which do not follow "
            f"its {len(ids):,} pieces; give a folder with the tokenizer.json that the checkpoint "
            "was trained with"
        )
    # The library maps character by character. Of NFKC's rules, those of several are left: the ㅋㅠ
    # of `ㅋㅋㅠㅠ` is 큐 to sentencepiece.
    normalizer: dict[str, Any] | None = None
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        charsmap = base64.b64encode(charsmap).decode()
        normalizer = {"type": "Precompiled", "precompiled_charsmap": charsmap}
        if "nfkc" in model.normalizer_spec.name:
            normalizer = {"type": "Sequence", "normalizers": [normalizer, {"type": "NFC"}]}
    closing = {"SpecialToken": {"id": end, "type_id": 0}}
    first, second = ({"Sequence": {"id": one, "type_id": 0}} for one in "AB")
    splitting = [{"type": "WhitespaceSplit"}, METASPACE]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*added, *later],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitting},
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


def _describe_token(at: int, content: str, *, special: bool) -> dict[str, Any]:
    sides = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": at, "content": content, **sides, "special": special}


def _mend(described: Mapping[str, Any], *, marks: set[str]) -> dict[str, Any]:
    """Return a tokenizer under which any text comes back from encoding as it was.

    Texts are neither cut nor padded; byte pieces spell what has no piece of its own; an emoji or
    `:)` that a vocabulary calls special is text, which decoding keeps; and a Metaspace puts its
    word mark only where the text has a space, not (`prepend_scheme="always"`) after every added
    token too, which makes `#Person1# 은` of `#Person1#은`. Places of pictures go.

    Args:
        described: as in tokenizer.json; it is not changed.
        marks: tokens that stay special whatever they look like.
    """
    model = dict(described["model"])
    mended = {**described, "truncation": None, "padding": None, "model": model}
    mended["added_tokens"] = [
        token
        | {
            "special": token["special"]
            and (token["content"] in marks or MARK.fullmatch(token["content"]) is not None)
        }
        for token in described.get("added_tokens") or []
        if token["content"] not in IMAGES
    ]
    spelled_in_bytes = model.get("type") == "Unigram" and {
        piece for piece, _ in model["vocab"] if len(piece) == len(BYTE_PIECES[0])
    }.issuperset(BYTE_PIECES)
    if spelled_in_bytes:
        model["byte_fallback"] = True
    splitting = json.dumps(described.get("pre_tokenizer"))
    if "Metaspace" not in splitting:
        return mended
    if "WhitespaceSplit" in splitting:
        # What is left of it: several spaces, also those made of U+200B, are one.
        one = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        before = [described["normalizer"]] if described.get("normalizer") else []
        mended["normalizer"] = {"type": "Sequence", "normalizers": [*before, one]}
    mended["pre_tokenizer"] = mended["decoder"] = METASPACE
    if spelled_in_bytes:
        # In a text <0x41> is six characters, not the piece of that name.
        apart = {
            "type": "Split",
            "pattern": {"Regex": "(?<=<0)x(?=[0-9A-F]{2}>)"},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        mended["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [METASPACE, apart]}
        mended["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]}
    return mended


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


def fold_text(text: str) -> str:
    """Return text in NFKC, every run of white space folded to one space: what must survive."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


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

    def judge(self, source: Path) -> list[str]:
        """Return what should be known of it, as sentences.

        Args:
            source: the checkpoint's folder.

        Raises:
            RunError: the tokenizer is none for these texts.
        """
        lost = f"{len(self.failed)} of {self.texts} summaries do not survive the tokenizer"
        example = "such as {!r} -> {!r}".format(*self.failed[0]) if self.failed else ""
        if 2 * len(self.failed) > self.texts:
            raise RunError(
                f"{lost} of {source}, {example}: it is not the one that the checkpoint was trained "
                "with. Give a folder with the right tokenizer.json as model.checkpoint"
            )
        if self.lacks_the_language:
            raise RunError(self.describe_lack(source))
        said = [self.describe_unknown()] if self.with_unknown else []
        return [*said, f"{lost}, {example}"] if self.failed else said

    def describe_lack(self, source: object) -> str:
        """Say of a vocabulary that lacks the language what it lacks and what to do."""
        return (
            f"{source} lacks the data's language, so nothing can be learnt: give a checkpoint "
            "whose vocabulary holds it as model.checkpoint, such as google/mt5-small (many "
            f"languages) or paust/pko-t5-base (Korean). {self.describe_unknown()}: "
            f"{self.show_unknown()}"
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

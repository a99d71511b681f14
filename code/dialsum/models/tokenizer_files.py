"""A tokenizer as a checkpoint's own files describe it, with what those files get wrong mended.

Must not know data. tokenizer.json says what the tokenizer is, else spiece.model does. The library
goes by the class that the config names instead: it cannot make T5's of a byte-level BPE, makes
RoBERTa's of KoBART's pieces, and loses the byte pieces of mT5. It is asked only where there is
neither file. A tokenizer is held here in the form of tokenizer.json, as a dictionary.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialsum.errors import UnfitError

ROLES = ("pad_token", "eos_token", "unk_token", "bos_token", "mask_token", "sep_token", "cls_token")
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Pieces that spell, byte by byte of UTF-8, a character without a piece of its own."""
MARK = re.compile(r"<[|/]?\w+\|?>|\[\w+\]")
"""A special token that is a mark, such as </s>, <|end|>, <extra_id_0> or [CLS], and no text."""
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
SENTENCEPIECE_UNIGRAM = 1
UNKNOWN, CONTROL = 2, 3  # types of pieces in a sentencepiece model


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

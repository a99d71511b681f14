"""Which pieces a summary may hold: none that no target holds, bytes only as whole characters, and
letters of the scripts that were asked for.

Nothing else keeps a model from writing T5's `<extra_id_0>`, a row of its embeddings that no piece
has, half of a character where pieces are bytes, or a word of Chinese. Must not know models.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from dialsum.models.tokenizers import BYTE_PIECES
from dialsum.text import script_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PLACEHOLDER = re.compile(r"▁?(<extra_id_\d+>|<unused\d+>|\[unused\d+\])")
"""A piece that stands for text left out in pre-training, or for nothing yet."""
LONGEST = 4
"""Bytes of a character at most."""


def read_bytes(content: bytes, scripts: frozenset[str] | None = None) -> bytes | None:
    """Return what of a character bytes begin and do not end; None where they are no text.

    Args:
        content: UTF-8 from the start of a character on.
        scripts: those that characters may be of (see script_of); None: all but control.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(content)
    except UnicodeDecodeError:
        return None
    begun = decoder.getstate()[0]
    if not fits(text, scripts) or (scripts and begun and begun not in _beginnings(scripts)):
        return None
    return begun


def fits(text: str, scripts: frozenset[str] | None) -> bool:
    """Say whether all of a text is of some scripts; None: of any but control."""
    found = {script_of(char) for char in text}
    return "control" not in found if scripts is None else found <= scripts


@cache
def _beginnings(scripts: frozenset[str]) -> frozenset[bytes]:
    """Return what may stand of a character of some scripts before its last byte."""
    every = map(chr, range(0x80, sys.maxunicode + 1))
    spelled = [char.encode() for char in every if script_of(char) in scripts]
    return frozenset(char[:stop] for char in spelled for stop in range(1, len(char)))


def count_lacking(begun: bytes) -> int:
    """Return how many bytes the character begun still needs."""
    if not begun:
        return 0
    return 2 + (begun[0] >= 0xE0) + (begun[0] >= 0xF0) - len(begun)


@dataclass(frozen=True)
class WritablePieces:
    """What generation may write with a tokenizer.

    Args:
        never: ids that no summary may hold at any place.
        rows: rows of the embeddings from this one on have no piece.
        parts: ids of pieces that may be a part of a character, with their bytes.
        scripts: those that characters may be of; None: all.
    """

    never: frozenset[int]
    rows: int
    parts: Mapping[int, bytes]
    scripts: frozenset[str] | None = None
    _known: dict[bytes, Mapping[int, bytes]] = field(default_factory=dict, compare=False)

    def after(self, begun: bytes) -> Mapping[int, bytes]:
        """Return what is begun after each part that may come where so much of a character is.

        An alphabet may lack bytes: a character that nothing could end is not begun.
        """
        if begun not in self._known:
            read = {at: read_bytes(begun + part, self.scripts) for at, part in self.parts.items()}
            self._known[begun] = {
                at: then for at, then in read.items() if then is not None and self._can_end(then)
            }
        return self._known[begun]

    def _can_end(self, begun: bytes) -> bool:
        """Say whether parts that lead nowhere else can end what is begun of a character."""
        lacking = count_lacking(begun)
        return not lacking or any(
            len(part) <= lacking
            and (then := read_bytes(begun + part, self.scripts)) is not None
            and self._can_end(then)
            for part in self.parts.values()
        )

    def begun_by(self, written: Sequence[int]) -> bytes:
        """Return what of a character is begun by ids that all were writable."""
        start = len(written)
        while start and written[start - 1] in self.parts:
            start -= 1
        begun = b""
        for one in written[start:]:
            begun = self.after(begun).get(one, b"")
        return begun

    def may_follow(self, begun: bytes, *, left: int) -> list[int]:
        """Return the parts that may come where so much of a character is begun.

        Args:
            left: tokens that may still be written: a character that they cannot end is not begun.
        """
        return [one for one, then in self.after(begun).items() if count_lacking(then) < left]


def find_writable(
    tokenizer: PreTrainedTokenizerFast,
    *,
    decoder_only: bool = False,
    scripts: Collection[str] | None = None,
) -> WritablePieces:
    """Find what a summary may hold; a tokenizer's answer is kept for the searches that follow.

    Special tokens cannot stand in one but those that the tokenizer itself puts there (of a decoder
    alone the end of a text only) and the unknown token, unless that is the padding token too
    (pko-t5). Added tokens that are not special (tags) can, whatever their letters.

    Args:
        scripts: those that characters may be of (see script_of); None: all.
    """
    asked = None if scripts is None else frozenset(scripts)
    return _find_writable(tokenizer, len(tokenizer), decoder_only, asked)


@lru_cache(maxsize=4)
def _find_writable(
    tokenizer: PreTrainedTokenizerFast, _: int, decoder_only: bool, scripts: frozenset[str] | None
) -> WritablePieces:
    vocabulary = tokenizer.get_vocab()
    rows = max(vocabulary.values()) + 1
    held = {tokenizer.unk_token_id, *([] if decoder_only else tokenizer("")["input_ids"])}
    held = (held - {tokenizer.pad_token_id}) | {tokenizer.eos_token_id}
    special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    never = special - held
    never |= {at for piece, at in vocabulary.items() if PLACEHOLDER.fullmatch(piece)}
    never |= {*range(rows)}.difference(vocabulary.values())
    decoder = str(tokenizer.backend_tokenizer.decoder)
    added = tokenizer.added_tokens_decoder
    plain = {piece: at for piece, at in vocabulary.items() if at not in added}
    if "ByteLevel" in decoder:
        letters = _letters_of_bytes()
        spelled = {
            at: bytes(letters[letter] for letter in piece)
            for piece, at in plain.items()
            if letters.keys() >= {*piece}
        }
        parts = {at: part for at, part in spelled.items() if read_bytes(part) != b""}
        texts = {at: part.decode() for at, part in spelled.items() if at not in parts}
    else:
        of_bytes = (
            {plain[piece]: byte for byte, piece in enumerate(BYTE_PIECES) if piece in plain}
            if "ByteFallback" in decoder
            else {}
        )
        # Of ASCII only what has no piece of its own is spelled so: in small vocabularies.
        single = [f"a{chr(byte)}a" for byte in range(0x80) if fits(chr(byte), scripts)]
        used = {one for ids in tokenizer(single)["input_ids"] for one in ids}
        never |= {at for at, byte in of_bytes.items() if byte < 0x80} - used
        parts = {at: bytes([byte]) for at, byte in of_bytes.items() if byte >= 0x80}
        texts = {at: piece.replace("▁", " ") for piece, at in plain.items() if at not in of_bytes}
    if scripts is not None:
        never |= {at for at, text in texts.items() if at not in held and not fits(text, scripts)}
    parts = {at: part for at, part in parts.items() if at not in never}
    return WritablePieces(never=frozenset(never), rows=rows, parts=parts, scripts=scripts)


def _letters_of_bytes() -> dict[str, int]:
    """Return the byte that each letter of a byte-level piece stands for (GPT-2's table)."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    letters = dict(zip(map(chr, printed), printed, strict=True))
    return letters | {chr(0x100 + at): byte for at, byte in enumerate(others)}

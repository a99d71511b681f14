"""Which pieces a summary may be written in: those that a target can hold, bytes only as whole text.

Must not know models or searches. Nothing else keeps a model from writing T5's `<extra_id_0>`, a row
of its embeddings that no piece has, or half of a character where pieces are bytes. What may follow
is decided by a small machine that reads UTF-8: its state is what the character begun still needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING

from dialsum.models.tokenizers import BYTE_PIECES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PLACEHOLDER = re.compile(r"▁?(<extra_id_\d+>|<unused\d+>|\[unused\d+\])")
"""A piece that stands for text left out in pre-training, or for nothing yet."""
WHOLE, WRONG = 0, 9
"""The states between two characters, and after a byte that cannot come."""
LONGEST = 4
"""Bytes of a character at most."""
MORE = (0, 1, 2, 3, 1, 2, 2, 3, 3)
"""Bytes that a character still needs in each state."""
FOLLOWERS = (
    range(0),
    range(0x80, 0xC0),
    range(0x80, 0xC0),
    range(0x80, 0xC0),
    range(0xA0, 0xC0),
    range(0xA0, 0xC0),
    range(0x80, 0xA0),
    range(0x90, 0xC0),
    range(0x80, 0x90),
    range(0),
)
"""Bytes that may come in each state. Fewer in the five before WRONG: behind C2 stand control
characters, behind E0 and F0 shorter ones spelled too long, behind ED halves of surrogates, behind
F4 what Unicode does not have."""
NARROW = {0xC2: 4, 0xE0: 5, 0xED: 6, 0xF0: 7, 0xF4: 8}


def read_byte(state: int, byte: int) -> int:
    """Return the state of a text after one more byte, WRONG where it cannot come or could not."""
    if byte in FOLLOWERS[state]:
        return MORE[state] - 1
    if state != WHOLE:
        return WRONG
    if byte < 0x80:
        return WHOLE if byte in b"\t\n" or 0x20 <= byte < 0x7F else WRONG
    if byte in NARROW:
        return NARROW[byte]
    return 1 + (byte >= 0xE0) + (byte >= 0xF0) if 0xC2 < byte < 0xF4 else WRONG


@dataclass(frozen=True)
class WritablePieces:
    """What generation may write with a tokenizer.

    Args:
        never: ids that no target holds at any place.
        rows: rows of the embeddings from this one on have no piece.
        parts: ids of pieces that may be a part of a character.
        after: for each state, the state after each part that may come in it.
    """

    never: frozenset[int]
    rows: int
    parts: frozenset[int]
    after: tuple[Mapping[int, int], ...]

    def state_of(self, written: Sequence[int]) -> int:
        """Return the state after ids that all were writable."""
        start = len(written)
        while start and written[start - 1] in self.parts:
            start -= 1
        state = WHOLE
        for one in written[start:]:
            state = self.after[state].get(one, WHOLE)
        return state

    def may_follow(self, state: int, *, left: int) -> list[int]:
        """Return the parts that may come in a state.

        Args:
            left: tokens that may still be written: a character that they cannot end is not begun.
        """
        return [one for one, then in self.after[state].items() if MORE[then] < left]


def find_writable(tokenizer: PreTrainedTokenizerFast) -> WritablePieces:
    """Find what a target that a tokenizer encoded can hold.

    Special tokens cannot stand in one but those that the tokenizer itself puts there and the
    unknown token, unless that is the padding token too (pko-t5).
    """
    vocabulary = tokenizer.get_vocab()
    rows = max(vocabulary.values()) + 1
    held = {*tokenizer("")["input_ids"], tokenizer.eos_token_id, tokenizer.unk_token_id}
    special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    never = special - (held - {tokenizer.pad_token_id})
    never |= {at for piece, at in vocabulary.items() if PLACEHOLDER.fullmatch(piece)}
    never |= {*range(rows)}.difference(vocabulary.values())
    decoder = str(tokenizer.backend_tokenizer.decoder)
    if "ByteFallback" in decoder:
        contents = {vocabulary[BYTE_PIECES[byte]]: bytes([byte]) for byte in range(0x80, 0x100)}
        # Of ASCII only what has no piece of its own is spelled so: in small vocabularies.
        single = [f"a{chr(byte)}a" for byte in range(0x80) if read_byte(WHOLE, byte) == WHOLE]
        spelled = {one for ids in tokenizer(single)["input_ids"] for one in ids}
        never |= {vocabulary[piece] for piece in BYTE_PIECES[:0x80]} - spelled
    else:
        contents = _find_parts(tokenizer, vocabulary) if "ByteLevel" in decoder else {}
    after: list[dict[int, int]] = [{} for _ in MORE]
    for state, at in product(range(len(MORE)), contents.keys() - never):
        then = reduce(read_byte, contents[at], state)
        if then != WRONG:
            after[state][at] = then
    # An alphabet may lack bytes: a character that nothing could end is not begun.
    for _ in MORE:
        ending = {WHOLE, *(state for state, found in enumerate(after) if found)}
        after = [{at: then for at, then in found.items() if then in ending} for found in after]
    parts = frozenset().union(*after)
    return WritablePieces(
        never=frozenset(never | (contents.keys() - parts)),
        rows=rows,
        parts=parts,
        after=tuple(after),
    )


def _find_parts(
    tokenizer: PreTrainedTokenizerFast, vocabulary: Mapping[str, int]
) -> dict[int, bytes]:
    """Return the bytes of each piece of a byte-level tokenizer that is no text by itself."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printed]
    letters = dict(zip(map(chr, printed), printed, strict=True))
    letters |= {chr(0x100 + at): byte for at, byte in enumerate(others)}
    added = tokenizer.added_tokens_decoder
    found = {
        at: bytes(letters[letter] for letter in piece)
        for piece, at in vocabulary.items()
        if at not in added and letters.keys() >= {*piece}
    }
    return {
        at: content for at, content in found.items() if reduce(read_byte, content, WHOLE) != WHOLE
    }

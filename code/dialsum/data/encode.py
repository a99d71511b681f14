"""Dialogues and summaries as token ids: prefix, what is kept of long ones, end tokens, counts.

Must not know models, training or files; the tokenizer is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data.dialogues import Dialogue
from dialsum.data.encoded import Counts, EncodedSplit
from dialsum.data.prompts import build_input
from dialsum.data.ragged import TokenRows
from dialsum.data.turns import Kept, find_turns, keep_part
from dialsum.errors import RunError

__all__ = ["EncodeSettings", "EncodedSplit", "encode_rows", "fold_spaces"]

ENCODING_VERSION = 1
"""Raised with every change of what encode_rows makes of the same rows; a test holds it to that.
Rows that an earlier version encoded are then encoded again."""

CHUNK_ROWS = 1024
"""Rows given to the tokenizer at once: enough for all of its threads. Its own objects take thirty
times the memory of the ids."""


@dataclass(frozen=True)
class EncodeSettings:
    """What the config says of encoding; names and meaning as in its tokenizer section."""

    prefix: str
    encoder_max_len: int
    decoder_max_len: int
    keep: KeptPart = "both_ends"

    @classmethod
    def from_config(cls, asked: Tokenizer) -> EncodeSettings:
        """Take what counts here of the tokenizer section."""
        return cls(
            prefix=asked.input_prefix,
            encoder_max_len=asked.encoder_max_len,
            decoder_max_len=asked.decoder_max_len,
            keep=asked.long_dialogues_keep,
        )


def encode_rows(
    rows: Sequence[Dialogue],
    tokenizer: Any,
    *,
    prefix: str,
    encoder_max_len: int,
    decoder_max_len: int,
    keep: KeptPart = "both_ends",
) -> EncodedSplit:
    """Encode a split; every input and target ends in the tokenizer's end token where that has one.

    KoBART's tokenizer adds no end token by itself: a target without one teaches the model never to
    stop, so it is added to targets always. Inputs get what the checkpoint's tokenizer gives them,
    as in its pre-training. The tokenizer's own threads use all cores.

    Args:
        keep: the part of a too long dialogue that stays; of a summary it is always the start.

    Raises:
        RunError: the prefix leaves no room for a dialogue that has to be cut.
    """
    settings = EncodeSettings(prefix, encoder_max_len, decoder_max_len, keep)
    inputs, targets, counts = [], [], Counts()
    has_targets = all(row.summary is not None for row in rows)
    for chunk in _chunks(rows):
        ids, counted = _encode_inputs(chunk, tokenizer, settings)
        inputs.append(TokenRows.from_lists(ids))
        counts = counts.plus(counted)
        if has_targets:
            summaries = [row.summary or "" for row in chunk]
            ids, counted = _encode_targets(summaries, tokenizer, max_length=decoder_max_len)
            targets.append(TokenRows.from_lists(ids))
            counts = counts.plus(counted)
    return EncodedSplit(
        TokenRows.join(inputs), TokenRows.join(targets) if has_targets else None, counts
    )


def _chunks(rows: Sequence[Dialogue]) -> Iterator[Sequence[Dialogue]]:
    return (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))


def _encode_targets(
    texts: Sequence[str], tokenizer: Any, *, max_length: int
) -> tuple[list[list[int]], Counts]:
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    ids = tokenizer([fold_spaces(text) for text in texts], return_attention_mask=False)["input_ids"]
    bodies = [row[:-1] if row and row[-1] == end else row for row in ids]
    over = [len(body) + 1 - max_length for body in bodies if len(body) + 1 > max_length]
    return [[*body[: max_length - 1], end] for body in bodies], Counts(
        truncated_targets=len(over),
        left_out_target_tokens=sum(over),
        unknown_targets=sum(unknown in row for row in ids),
    )


def _encode_inputs(
    rows: Sequence[Dialogue], tokenizer: Any, settings: EncodeSettings
) -> tuple[list[list[int]], Counts]:
    texts = [fold_spaces(build_input(settings.prefix, row.dialogue)) for row in rows]
    encoded: list[list[int]] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    counts = Counts(unknown_inputs=sum(unknown in ids for ids in encoded))
    long = [at for at, ids in enumerate(encoded) if len(ids) > settings.encoder_max_len]
    if not long:
        return encoded, counts
    # Where each token stands in the text is asked for these few only.
    offsets = tokenizer(
        [texts[at] for at in long], return_attention_mask=False, return_offsets_mapping=True
    )["offset_mapping"]
    for at, places in zip(long, offsets, strict=True):
        shorter, counted = _shorten(texts[at], encoded[at], places, settings)
        encoded[at] = shorter
        counts = counts.plus(counted)
    return encoded, counts


def _shorten(
    text: str, ids: list[int], offsets: Sequence[tuple[int, int]], settings: EncodeSettings
) -> tuple[list[int], Counts]:
    """Return an input with its prefix and end token, and as much of its dialogue as there is room.

    Args:
        offsets: characters of text that each id stands for.
    """
    start = len(fold_spaces(build_input(settings.prefix, "x"))) - 1
    found = find_turns(text, offsets, start=start)
    first, last = found.span if found else (len(ids), len(ids))
    room = settings.encoder_max_len - first - (len(ids) - last)
    if found is None or room < 1:
        raise RunError(
            f"tokenizer.encoder_max_len {settings.encoder_max_len}: tokenizer.input_prefix "
            f"{settings.prefix!r} and the end token take {len(ids) - last + first} tokens, so that "
            "none is left for a dialogue; shorten the prefix or allow longer inputs, such as 512"
        )
    kept: Kept = keep_part(found, room, part=settings.keep)
    body = [token for begin, stop in kept.spans for token in ids[begin:stop]]
    return [*ids[:first], *body, *ids[last:]], Counts(
        truncated_inputs=1,
        left_out_turns=kept.turns_left_out,
        inputs_cut_inside=int(kept.inside),
        left_out_input_tokens=last - first - len(body),
    )


def fold_spaces(text: str) -> str:
    """Fold runs of white space to one space, line ends kept: a tokenizer may keep each of them."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))

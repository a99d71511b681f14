"""Dialogues and summaries as token ids: end tokens, truncation, unknown pieces, and the counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pytest

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data import encode as encode_module
from dialsum.data.cleaning import fold_spaces
from dialsum.data.encode import ENCODING_VERSION, EncodedSplit, TokenIds, encode_rows
from dialsum.data.rows import Dialogue
from dialsum.errors import RunError
from word_tokenizer import (
    END,
    KOBART_LIKE,
    NEWLINE,
    T5_LIKE,
    UNKNOWN,
    WORDS,
    WordTokenizer,
    rows,
    word,
)

BOTH = pytest.mark.parametrize("tokenizer", [T5_LIKE, KOBART_LIKE], ids=["t5", "kobart"])


def encode(
    items: Sequence[Dialogue],
    tokenizer: WordTokenizer,
    *,
    prefix: str = "",
    inputs: int = 8,
    targets: int = 4,
    keep: KeptPart = "start",
) -> EncodedSplit:
    """Encode with short limits, a limit of one token too."""
    asked = Tokenizer.model_construct(
        encoder_max_len=inputs,
        decoder_max_len=targets,
        long_dialogues_keep=keep,
        input_prefix=prefix,
    )
    return encode_rows(items, tokenizer, asked)


def lists(rows: TokenIds | None) -> list[list[int]]:
    """Return ids as lists, which compare."""
    return [ids.tolist() for ids in rows or []]


@BOTH
def test_no_rows_are_no_rows(tokenizer: WordTokenizer) -> None:
    encoded = encode([], tokenizer)
    assert len(encoded) == 0
    assert (len(encoded.input_lengths), len(encoded.target_lengths)) == (0, 0)
    assert set(encoded.to_record().values()) == {0}
    assert lists(encoded.first(3).inputs) == []


@pytest.mark.parametrize(
    ("words", "targets", "ids"),
    [
        (0, 4, [END]),
        (1, 4, [word(0), END]),
        (3, 4, [word(0), word(1), word(2), END]),
        (4, 4, [word(0), word(1), word(2), END]),
        (9, 4, [word(0), word(1), word(2), END]),
        (3, 2, [word(0), END]),
        (3, 1, [END]),
    ],
)
@BOTH
def test_every_target_ends_whatever_its_length(
    tokenizer: WordTokenizer, words: int, targets: int, ids: list[int]
) -> None:
    encoded = encode(rows(("w1", " ".join(WORDS[:words]))), tokenizer, targets=targets)
    assert lists(encoded.targets) == [ids]
    assert encoded.counts.truncated_targets == (words >= targets)
    assert encoded.counts.left_out_target_tokens == max(0, words + 1 - targets)


@pytest.mark.parametrize(
    ("tokenizer", "words", "length", "ends", "cut"),
    [
        (T5_LIKE, 7, 8, True, 0),
        (T5_LIKE, 8, 8, True, 1),
        (T5_LIKE, 10, 8, True, 1),
        (KOBART_LIKE, 7, 7, False, 0),
        (KOBART_LIKE, 8, 8, False, 0),
        (KOBART_LIKE, 9, 8, False, 1),
    ],
)
def test_inputs_end_as_the_tokenizer_ends_them(
    tokenizer: WordTokenizer, words: int, length: int, ends: bool, cut: int
) -> None:
    encoded = encode(rows((" ".join(WORDS[:words]), "w1")), tokenizer, inputs=8)
    (ids,) = lists(encoded.inputs)
    assert len(ids) == length
    assert (ids[-1] == END) == ends
    assert ids[: length - ends] == [word(number) for number in range(length - ends)]
    assert encoded.counts.truncated_inputs == cut
    assert encoded.counts.left_out_input_tokens == cut * (words - (length - ends))


FOUR_TURNS = "A: w1 w2\nB: w3\nA: w4 w5 w6\nB: w7"
ONE_TURN = "A: w0 w1 w2 w3 w4 w5 w6 w7 w8"


@pytest.mark.parametrize(
    ("dialogue", "room", "keep", "kept", "turns", "inside"),
    [
        # One token of room, for one giant turn and for many.
        (ONE_TURN, 1, "both_ends", "A:", 0, 1),
        (ONE_TURN, 1, "start", "A:", 0, 1),
        (ONE_TURN, 1, "end", "w8", 0, 1),
        (FOUR_TURNS, 1, "both_ends", "A:", 3, 1),
        (FOUR_TURNS, 1, "end", "w7", 3, 1),
        # One giant turn is cut inside; its end says who speaks.
        (ONE_TURN, 4, "both_ends", "A: w0 w7 w8", 0, 1),
        (ONE_TURN, 5, "both_ends", "A: w0 w1 w7 w8", 0, 1),
        (ONE_TURN, 4, "start", "A: w0 w1 w2", 0, 1),
        (ONE_TURN, 4, "end", "A: w6 w7 w8", 0, 1),
        # Whole turns; from both ends in turn, the start first, line ends between them.
        (FOUR_TURNS, 3, "both_ends", "A: w1 w7", 2, 1),
        (FOUR_TURNS, 5, "both_ends", "A: w1 | B: w7", 2, 1),
        (FOUR_TURNS, 6, "both_ends", "A: w1 w2 | B: w7", 2, 0),
        (FOUR_TURNS, 9, "both_ends", "A: w1 w2 | B: w3 | B: w7", 1, 0),
        (FOUR_TURNS, 11, "both_ends", "A: w1 w2 | B: w3 | B: w7", 1, 0),
        (FOUR_TURNS, 6, "start", "A: w1 w2 | B: w3", 2, 0),
        (FOUR_TURNS, 11, "start", "A: w1 w2 | B: w3 | A: w4 w5 w6", 1, 0),
        (FOUR_TURNS, 2, "end", "B: w7", 3, 0),
        (FOUR_TURNS, 7, "end", "A: w4 w5 w6 | B: w7", 2, 0),
        (FOUR_TURNS, 9, "end", "A: w4 w5 w6 | B: w7", 2, 0),
        # A giant among short ones: whole turns alone would waste the room.
        (f"B: w1\n{ONE_TURN}\nB: w9", 10, "both_ends", "B: w1 | B: w9", 1, 0),
        (f"B: w1\n{ONE_TURN}\nB: w9", 11, "both_ends", "B: w1 | A: w0 w6 w7 w8 | B: w9", 0, 1),
        (f"B: w1\n{ONE_TURN}\nB: w9", 8, "start", "B: w1 | A: w0 w1 w2 w3", 1, 1),
        (f"B: w1\n{ONE_TURN}\nB: w9", 8, "end", "A: w5 w6 w7 w8 | B: w9", 1, 1),
        # A giant at one end: the other end gets at most half.
        (f"{ONE_TURN}\nB: w3\nB: w4\nB: w5", 9, "both_ends", "A: w0 w1 w2 w3 w4 | B: w5", 2, 1),
        (f"B: w3\nB: w4\nB: w5\n{ONE_TURN}", 9, "both_ends", "B: w3 | A: w4 w5 w6 w7 w8", 2, 1),
        # Two giants: the start of one, the end of the other, and who said it.
        (
            f"{ONE_TURN}\n{ONE_TURN.replace('A', 'B')}",
            9,
            "both_ends",
            "A: w0 w1 w2 w3 | B: w7 w8",
            0,
            1,
        ),
        # A line that nobody is said to speak.
        ("w0 w1 w2 w3 w4 w5", 4, "end", "w2 w3 w4 w5", 0, 1),
    ],
)
@pytest.mark.parametrize("prefix", ["", "w9 w9 "])
@BOTH
def test_long_dialogues_keep_what_is_asked(
    tokenizer: WordTokenizer,
    prefix: str,
    dialogue: str,
    room: int,
    keep: KeptPart,
    kept: str,
    turns: int,
    inside: int,
) -> None:
    ends = int(tokenizer is T5_LIKE)
    limit = len(prefix.split()) + room + ends
    encoded = encode(rows((dialogue, "w1")), tokenizer, prefix=prefix, inputs=limit, keep=keep)
    (ids,) = lists(encoded.inputs)
    assert tokenizer.read(ids) == f"{prefix}{kept}{' <end>' * ends}"
    assert len(ids) <= limit
    whole = encode(rows((dialogue, "w1")), tokenizer, prefix=prefix, inputs=99)
    counts = encoded.counts
    assert (counts.left_out_turns, counts.inputs_cut_inside) == (turns, inside)
    assert counts.truncated_inputs == 1
    assert counts.left_out_input_tokens == int(whole.input_lengths[0]) - len(ids)


@pytest.mark.parametrize("keep", ["both_ends", "start", "end"])
@BOTH
def test_a_dialogue_that_fits_exactly_is_not_cut(tokenizer: WordTokenizer, keep: KeptPart) -> None:
    whole = encode(rows((FOUR_TURNS, "w1")), tokenizer, prefix="w9 ", inputs=99)
    length = int(whole.input_lengths[0])
    same = encode(rows((FOUR_TURNS, "w1")), tokenizer, prefix="w9 ", inputs=length, keep=keep)
    assert (lists(same.inputs), same.counts) == (lists(whole.inputs), whole.counts)
    cut = encode(rows((FOUR_TURNS, "w1")), tokenizer, prefix="w9 ", inputs=length - 1, keep=keep)
    assert cut.counts.truncated_inputs == 1


@pytest.mark.parametrize("keep", ["both_ends", "start", "end"])
@pytest.mark.parametrize(("tokenizer", "takes"), [(T5_LIKE, 4), (KOBART_LIKE, 3)])
def test_a_prefix_that_leaves_no_room_is_said(
    tokenizer: WordTokenizer, takes: int, keep: KeptPart
) -> None:
    items = rows(("w1", "w1"), (FOUR_TURNS, "w1"))
    for limit in (1, takes):
        with pytest.raises(RunError) as caught:
            encode(items, tokenizer, prefix="w9 w8 w7 ", inputs=limit, keep=keep)
        text = str(caught.value)
        assert f"encoder_max_len {limit}" in text
        assert "'w9 w8 w7 '" in text
        assert f"take {takes} tokens" in text
    encoded = encode(items, tokenizer, prefix="w9 w8 w7 ", inputs=takes + 1, keep=keep)
    assert [len(ids) for ids in encoded.inputs] == [takes + 1] * 2


def test_rows_are_counted_once_and_per_split() -> None:
    long, strange = " ".join(WORDS), "네 네 네"
    encoded = encode(
        rows(("w1", "w1"), (long, "w1 w2 w3 w4"), (strange, strange), (f"{long} 네", "네")), T5_LIKE
    )
    assert encoded.to_record() == {
        "rows": 4,
        "longest_input_tokens": 8,
        "truncated_inputs": 2,
        "left_out_turns": 0,
        "inputs_cut_inside": 2,
        "left_out_input_tokens": 7,
        "unknown_inputs": 2,
        "truncated_targets": 1,
        "left_out_target_tokens": 1,
        "unknown_targets": 2,
        "longest_target_tokens": 4,
    }


def test_rows_of_several_chunks_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    items = rows(*((f"w{n % 10} {'w1 ' * (n % 12)}", f"w{n % 7}") for n in range(23)))
    whole = encode(items, T5_LIKE)
    monkeypatch.setattr(encode_module, "CHUNK_ROWS", 5)
    parts = encode(items, T5_LIKE)
    assert lists(parts.inputs) == lists(whole.inputs)
    assert lists(parts.targets) == lists(whole.targets)
    assert parts.counts == whole.counts


def test_test_rows_have_no_targets_and_no_counts_of_them() -> None:
    encoded = encode(rows(("w1", None), ("w2", None)), T5_LIKE)
    assert encoded.targets is None
    assert encoded.target_lengths.tolist() == [0, 0]
    record = encoded.to_record()
    assert (record["rows"], record["longest_input_tokens"], len(record)) == (2, 2, 7)
    assert not any("target" in name for name in record)


def test_first_rows_keep_the_counts_of_the_whole() -> None:
    encoded = encode(rows(("w1", "w1"), (" ".join(WORDS), "w2")), T5_LIKE)
    first = encoded.first(1)
    assert (lists(first.inputs), lists(first.targets)) == ([[word(1), END]], [[word(1), END]])
    assert (first.input_lengths.tolist(), first.target_lengths.tolist()) == ([2], [2])
    assert first.counts == encoded.counts
    assert first.counts.truncated_inputs == 1
    assert encode(rows(("w1", None)), T5_LIKE).first(1).targets is None


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("", ""),
        (" \t ", ""),
        ("\n", "\n"),
        ("w1  w2\tw3", "w1 w2 w3"),
        ("  w1 \n\n w2  ", "w1\n\nw2"),
        ("w1\u3000w2\u00a0w3", "w1 w2 w3"),
    ],
)
def test_spaces_are_folded_and_line_ends_kept(text: str, folded: str) -> None:
    assert fold_spaces(text) == folded


def test_line_ends_and_folded_spaces_reach_the_tokenizer() -> None:
    encoded = encode(rows(("w1:  w2 \nw3", "w1   w2\nw3")), T5_LIKE, targets=8)
    assert lists(encoded.inputs) == [[UNKNOWN, word(2), NEWLINE, word(3), END]]
    assert lists(encoded.targets) == [[word(1), word(2), NEWLINE, word(3), END]]


VERSION_MADE = (1, "4b2bc84a7f1b9169")
"""ENCODING_VERSION, and the start of the hash of what it makes of the rows below."""


def test_another_encoding_is_another_version() -> None:
    # Rows that an earlier program kept must not pass for this one's.
    items = rows(
        (FOUR_TURNS, "w1 w2"), (ONE_TURN, "w1 w2 w3 w4"), ("A:  w1 \n\nw2 네", ""), ("w1", "네")
    )
    made = []
    for keep in ("both_ends", "start", "end"):
        for tokenizer in (T5_LIKE, KOBART_LIKE):
            for limit in range(4, 14):
                encoded = encode(items, tokenizer, prefix="w9 ", inputs=limit, keep=keep)
                targets = lists(encoded.targets)
                made.append([lists(encoded.inputs), targets, encoded.to_record()])
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]
    assert (ENCODING_VERSION, digest) == VERSION_MADE, (
        "encode_rows makes something else of the same rows: raise ENCODING_VERSION, and put both "
        "into VERSION_MADE"
    )

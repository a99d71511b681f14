"""Dialogues and summaries as token ids: end tokens, truncation, unknown pieces, and the counts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from dialsum.data.dialogues import Dialogue
from dialsum.data.encode import EncodedSplit, encode_rows, fold_spaces

WORDS = [f"w{number}" for number in range(10)]
END, UNKNOWN, NEWLINE = 1, 2, 3


class WordTokenizer:
    """A tokenizer of ten words and the line end, called as those of transformers are.

    Args:
        adds_end: put the end token after every text, as T5's does and KoBART's does not.
    """

    eos_token_id, unk_token_id = END, UNKNOWN

    def __init__(self, *, adds_end: bool) -> None:
        vocabulary = {
            word: row for row, word in enumerate(["<pad>", "</s>", "<unk>", "\n", *WORDS])
        }
        self._backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        self._backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self._backend.add_tokens([AddedToken("\n", normalized=False)])
        if adds_end:
            self._backend.post_processor = processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", END)]
            )

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [self._backend.encode(text).ids for text in texts]}


T5_LIKE, KOBART_LIKE = WordTokenizer(adds_end=True), WordTokenizer(adds_end=False)


def word(number: int) -> int:
    """Return the id of a word."""
    return 4 + number


def rows(*pairs: tuple[str, str | None]) -> list[Dialogue]:
    """Return dialogues with their summaries."""
    return [
        Dialogue(fname=f"d_{row}", dialogue=dialogue, summary=summary, topic=None, row=row)
        for row, (dialogue, summary) in enumerate(pairs, start=1)
    ]


def encode(
    items: Sequence[Dialogue], tokenizer: WordTokenizer, *, prefix: str = "", inputs: int = 8,
    targets: int = 4,
) -> EncodedSplit:  # fmt: skip
    """Encode with short limits."""
    return encode_rows(
        items, tokenizer, prefix=prefix, encoder_max_len=inputs, decoder_max_len=targets
    )


@pytest.mark.parametrize("tokenizer", [T5_LIKE, KOBART_LIKE], ids=["t5", "kobart"])
def test_no_rows_are_no_rows(tokenizer: WordTokenizer) -> None:
    encoded = encode([], tokenizer)
    assert len(encoded) == 0
    assert encoded.to_record() == {
        "rows": 0, "truncated_inputs": 0, "unknown_inputs": 0, "longest_input_tokens": 0,
        "truncated_targets": 0, "unknown_targets": 0, "longest_target_tokens": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "ids", "cut"),
    [
        (0, [END], 0),
        (1, [word(0), END], 0),
        (3, [word(0), word(1), word(2), END], 0),
        (4, [word(0), word(1), word(2), END], 1),
        (9, [word(0), word(1), word(2), END], 1),
    ],
)
@pytest.mark.parametrize("tokenizer", [T5_LIKE, KOBART_LIKE], ids=["t5", "kobart"])
def test_every_target_ends_whatever_its_length(
    tokenizer: WordTokenizer, words: int, ids: list[int], cut: int
) -> None:
    encoded = encode(rows(("w1", " ".join(WORDS[:words]))), tokenizer, targets=4)
    assert encoded.targets == [ids]
    assert encoded.truncated_targets == cut


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
    (ids,) = encoded.inputs
    assert len(ids) == length
    assert (ids[-1] == END) == ends
    assert ids[: length - ends] == [word(number) for number in range(length - ends)]
    assert encoded.truncated_inputs == cut


def test_prefix_counts_into_the_limit_and_stands_first() -> None:
    items = rows((" ".join(WORDS[:4]), "w1"))
    assert encode(items, T5_LIKE, prefix="w9: ").inputs == [
        [UNKNOWN, *(word(number) for number in range(4)), END]
    ]
    cut = encode(items, T5_LIKE, prefix="w9 w8 ", inputs=5)
    assert cut.inputs == [[word(9), word(8), word(0), word(1), END]]
    assert (cut.truncated_inputs, encode(items, T5_LIKE, inputs=5).truncated_inputs) == (1, 0)


def test_rows_are_counted_once_and_per_split() -> None:
    long, strange = " ".join(WORDS), "네 네 네"
    encoded = encode(
        rows(("w1", "w1"), (long, "w1 w2 w3 w4"), (strange, strange), (f"{long} 네", "네")),
        T5_LIKE,
    )
    assert encoded.to_record() == {
        "rows": 4, "truncated_inputs": 2, "unknown_inputs": 2, "longest_input_tokens": 8,
        "truncated_targets": 1, "unknown_targets": 2, "longest_target_tokens": 4,
    }  # fmt: skip


def test_test_rows_have_no_targets_and_no_counts_of_them() -> None:
    encoded = encode(rows(("w1", None), ("w2", None)), T5_LIKE)
    assert encoded.targets is None
    assert encoded.to_record() == {
        "rows": 2, "truncated_inputs": 0, "unknown_inputs": 0, "longest_input_tokens": 2,
    }  # fmt: skip


def test_first_rows_keep_the_counts_of_the_whole() -> None:
    encoded = encode(rows(("w1", "w1"), (" ".join(WORDS), "w2")), T5_LIKE)
    first = encoded.first(1)
    assert (first.inputs, first.targets) == ([[word(1), END]], [[word(1), END]])
    assert first.truncated_inputs == encoded.truncated_inputs == 1
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
    assert encoded.inputs == [[UNKNOWN, word(2), NEWLINE, word(3), END]]
    assert encoded.targets == [[word(1), word(2), NEWLINE, word(3), END]]

"""Every row at hand, encoded and decoded again: inputs, targets, and what the decoder is given.

The real tokenizers and rows are used where they are; those of the sample show the same elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data.cleaning import fold_spaces
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS, EncodedSplit, build_input, encode_rows
from dialsum.data.rows import Dialogue, Kind, load_split
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from small_models import KINDS, SAMPLE, make_model, sample_texts
from small_tokenizers import train_tokenizer

pytestmark = pytest.mark.training

REAL = {"mt5": "mt5", "bart": "kobart"}
"""Folder of the real tokenizer of each family."""
PREFIX = {"mt5": "summarize: ", "bart": ""}
FILES: tuple[Kind, ...] = ("train", "dev", "test")
NO_LIMIT = 100_000


@cache
def trained(family: str) -> Any:
    """Return a tokenizer of a family's kind, trained on sample and prefix, tags added."""
    tokenizer = train_tokenizer(
        [*sample_texts(), PREFIX[family]],
        kind=KINDS[family],
        vocab_size=1000,
        exclude=STANDARD_DIALOGUE_TOKENS,
    )
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    return tokenizer


@cache
def real(family: str, shared: Path) -> Any:
    """Return the real tokenizer of a family, tags added."""
    tokenizer = load_tokenizer(shared / "tokenizers" / REAL[family])
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    return tokenizer


@cache
def read(folder: Path) -> list[tuple[Kind, list[Dialogue]]]:
    """Return the rows of a folder's three files."""
    return [(kind, load_split(folder / f"{kind}.csv", kind=kind).rows) for kind in FILES]


def fold(text: str) -> str:
    """Return text as it must come back."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Return the text of ids, the end token left out."""
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def encode(
    rows: list[Dialogue],
    tokenizer: Any,
    family: str,
    *,
    inputs: int = NO_LIMIT,
    targets: int = NO_LIMIT,
    keep: KeptPart = "both_ends",
) -> EncodedSplit:
    """Encode as an experiment of the family does."""
    asked = Tokenizer(
        encoder_max_len=inputs,
        decoder_max_len=targets,
        long_dialogues_keep=keep,
        input_prefix=PREFIX[family],
    )
    return encode_rows(rows, tokenizer, asked)


def known(tokenizer: Any, split: Any) -> Iterator[tuple[int, list[int]]]:
    """Give the rows of one side that have no unknown piece, which cannot come back."""
    return ((at, ids.tolist()) for at, ids in enumerate(split) if tokenizer.unk_token_id not in ids)


def adds_end(tokenizer: Any) -> bool:
    """Say whether a tokenizer puts an end token after what it encodes, as real T5's does."""
    return bool(tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id)


@cache
def whole(folder: Path, tokenizer: Any, family: str) -> list[EncodedSplit]:
    """Return a folder's files without any limit."""
    return [encode(rows, tokenizer, family) for _, rows in read(folder)]


def check_both_sides(folder: Path, tokenizer: Any, family: str, *, most_unknown: int) -> int:
    """Decode both sides of every row of a folder, and return how many rows there are."""
    seen = unknown = 0
    for (_, rows), encoded in zip(read(folder), whole(folder, tokenizer, family), strict=True):
        assert (encoded.counts.truncated_inputs, encoded.counts.truncated_targets) == (0, 0)
        for at, ids in known(tokenizer, encoded.inputs):
            asked = fold(build_input(PREFIX[family], rows[at].dialogue))
            assert fold(decode(tokenizer, ids)) == asked
            assert (ids[-1] == tokenizer.eos_token_id) == adds_end(tokenizer)
        for at, ids in known(tokenizer, encoded.targets or []):
            assert fold(decode(tokenizer, ids)) == fold(rows[at].summary or "")
            assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
        seen += len(rows)
        unknown += encoded.counts.unknown_inputs + encoded.counts.unknown_targets
    assert unknown <= most_unknown
    return seen


def check_cuts(
    folder: Path, tokenizer: Any, family: str, *, keep: KeptPart, inputs: int
) -> tuple[int, int]:
    """Hold what stays of long dialogues against their turns.

    Returns:
        How many were cut, and how many of them inside of a turn.
    """
    cut = inside = 0
    for (_, rows), full in zip(read(folder), whole(folder, tokenizer, family), strict=True):
        encoded = encode(rows, tokenizer, family, inputs=inputs, targets=12, keep=keep)
        cut += encoded.counts.truncated_inputs
        inside += encoded.counts.inputs_cut_inside
        assert encoded.counts.truncated_inputs == sum(full.input_lengths > inputs)
        for at, ids in enumerate(map(np.ndarray.tolist, encoded.inputs)):
            assert len(ids) <= inputs
            assert (ids[-1] == tokenizer.eos_token_id) == adds_end(tokenizer)
            if full.input_lengths[at] <= inputs:
                assert ids == full.inputs[at].tolist()
            elif tokenizer.unk_token_id not in ids:
                text = decode(tokenizer, ids)
                assert text.startswith(PREFIX[family])
                check_turns(text.removeprefix(PREFIX[family]), rows[at].dialogue, keep=keep)
        if full.targets is None or encoded.targets is None:
            continue
        assert encoded.counts.truncated_targets == sum(full.target_lengths > 12)
        for at, ids in enumerate(map(np.ndarray.tolist, encoded.targets)):
            assert ids == [*full.targets[at][:-1][:11], tokenizer.eos_token_id]
    return cut, inside


def check_turns(kept: str, dialogue: str, *, keep: KeptPart) -> None:
    """Hold the lines that stay against a dialogue's own: in order, whole but where it was cut."""
    own = [fold(line) for line in fold_spaces(dialogue).split("\n")]
    lines = [fold(line) for line in kept.strip().split("\n")]
    partly = [line for line in lines if line not in own]
    assert len(partly) <= (2 if keep == "both_ends" else 1)
    rest = iter(own)
    assert all(line in rest for line in lines if line in own)
    for line in partly:
        # Who speaks is never lost.
        assert line.split()[0] in {one.split()[0] for one in own}
    if keep != "end":
        assert fold(kept)[:9] == fold(dialogue)[:9]
    if keep != "start":
        assert fold(kept)[-9:] == fold(dialogue)[-9:]


@pytest.mark.parametrize("family", REAL)
def test_both_sides_of_the_sample_come_back(family: str) -> None:
    assert check_both_sides(SAMPLE, trained(family), family, most_unknown=100) == 760


@pytest.mark.parametrize("family", REAL)
def test_both_sides_of_every_real_row_come_back(family: str, shared_dir: Path) -> None:
    tokenizer = real(family, shared_dir)
    folder = shared_dir / "data" / "ko"
    assert check_both_sides(folder, tokenizer, family, most_unknown=20) == 2465
    assert check_both_sides(SAMPLE, tokenizer, family, most_unknown=20) == 760


@pytest.mark.parametrize("keep", ["both_ends", "start", "end"])
@pytest.mark.parametrize("family", REAL)
def test_long_dialogues_of_the_sample_keep_their_turns(family: str, keep: KeptPart) -> None:
    cut, inside = check_cuts(SAMPLE, trained(family), family, keep=keep, inputs=120)
    assert 0 <= inside < cut
    assert cut > 100


@pytest.mark.parametrize("keep", ["both_ends", "start", "end"])
@pytest.mark.parametrize("family", REAL)
def test_long_real_dialogues_keep_their_turns(
    family: str, keep: KeptPart, shared_dir: Path
) -> None:
    folder, tokenizer = shared_dir / "data" / "ko", real(family, shared_dir)
    cut, inside = check_cuts(folder, tokenizer, family, keep=keep, inputs=120)
    assert cut > 1000
    assert 0 < inside < cut / 20
    # At the experiments' own length whole turns are enough.
    cut, inside = check_cuts(folder, tokenizer, family, keep=keep, inputs=512)
    assert cut > 3
    assert inside == 0


@pytest.mark.parametrize("sort", KINDS)
def test_the_decoder_begins_and_ends_as_its_family_does(sort: str) -> None:
    """Labels end in the end token and are padded with -100; the decoder is given its own start."""
    import torch

    from dialsum.train.loss import IGNORED
    from dialsum.train.task import BatchShape, SummaryTask

    tokenizer = trained("bart" if sort == "bart" else "mt5")
    rows = read(SAMPLE)[0][1][:6]
    limit = int(sorted(encode(rows, tokenizer, "bart").target_lengths)[3])
    encoded = encode(rows, tokenizer, "bart", targets=limit)
    assert 0 < encoded.counts.truncated_targets < 6
    assert encoded.targets is not None
    model = make_model(sort, tokenizer=tokenizer, width=16)
    start, end, pad = (
        {"bart": tokenizer.eos_token_id}.get(sort, tokenizer.pad_token_id),
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    batch = SummaryTask(
        encoded, names=[], sha256="", shape=BatchShape(6, 1, 512, 128), seed=1, pad_token_id=pad
    )[range(6)]
    given = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    assert given.shape == batch["labels"].shape == (6, int(encoded.target_lengths.max()))
    for row, ids in enumerate(map(np.ndarray.tolist, encoded.targets)):
        labels = batch["labels"][row].tolist()
        assert labels == ids + [IGNORED] * (len(labels) - len(ids))
        assert ids[-1] == end
        assert given[row].tolist() == [start, *ids, *[pad] * len(labels)][: len(labels)]
    with torch.no_grad():
        explicit = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=given,
        ).logits
        ours = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")})
    assert torch.equal(ours.logits, explicit)

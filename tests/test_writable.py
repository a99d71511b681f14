"""Which pieces may be written: none that no target holds, and bytes only as whole characters."""

from __future__ import annotations

import json
import sys
import tempfile
import unicodedata
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.generate import (
    MORE,
    WHOLE,
    WRONG,
    GenerationSettings,
    find_writable,
    generate,
    read_byte,
)
from dialsum.models.tokenizers import BYTE_PIECES, add_dialogue_tokens, fold_text, load_tokenizer
from dialsum.models.trim import trim_tokenizer
from small_models import KINDS, make_model, sample_texts, train_sample_tokenizer


def is_text(content: bytes) -> bool:
    """Say whether bytes are whole characters, none of them a control character."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not any(one not in "\t\n" and unicodedata.category(one) == "Cc" for one in text)


def state_of(content: bytes) -> int:
    """Return the state after bytes."""
    return reduce(read_byte, content, WHOLE)


def test_every_character_and_no_other_bytes_are_text() -> None:
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        content = chr(code).encode()
        assert (state_of(content) == WHOLE) == is_text(content), hex(code)
        for stop in range(1, len(content)):
            if is_text(content):
                assert MORE[state_of(content[:stop])] == len(content) - stop


def test_what_is_no_utf_8_cannot_come() -> None:
    cut = [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc2\x80", b"\xe0\x80\x80", b"\xed\xa0\x80"]
    long = [b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff\x80A"]
    for content in (*cut, *long, b"\xff", b"\xebA", b"\xeb\xeb", b"\x00", b"\x7f", b"\r"):
        assert not is_text(content)
        assert state_of(content) == WRONG


def byte_level() -> Any:
    """Return a byte-level tokenizer as pko-t5's: few merges, <pad> is the unknown token too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    sentinels = [f"<extra_id_{one}>" for one in range(3)]
    backend.train_from_iterator(
        sample_texts(),
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=["<pad>", "</s>", *sentinels],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<pad>"
    )


def byte_fallback() -> Any:
    """Return a unigram tokenizer with byte pieces and sentinels that are pieces, as mT5's."""
    described = json.loads(train_sample_tokenizer("unigram").backend_tokenizer.to_str())
    described["model"]["vocab"] += [(piece, 0.0) for piece in BYTE_PIECES]
    described["model"]["vocab"] += [(f"▁<extra_id_{one}>", 0.0) for one in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
        return load_tokenizer(folder)


def trimmed_bytes() -> Any:
    """Return the same cut to a few texts."""
    texts = sample_texts()[:40]
    return trim_tokenizer(
        byte_fallback(), texts=texts, new_tokens=STANDARD_DIALOGUE_TOKENS
    ).tokenizer


MAKERS = {"level": byte_level, "fallback": byte_fallback, "trimmed": trimmed_bytes}


@pytest.mark.training
@pytest.mark.parametrize("kind", MAKERS)
def test_every_text_can_be_written(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    writable = find_writable(tokenizer)
    for text in [*sample_texts(), "뵀다 뷁쀍 \U0001f9cc é"]:
        ids = tokenizer(text)["input_ids"]
        assert fold_text(tokenizer.decode(ids, skip_special_tokens=True)) == fold_text(text)
        for at, one in enumerate(ids):
            state = writable.state_of(ids[:at])
            assert one not in writable.never
            assert one in writable.after[state] or (state == WHOLE and one not in writable.parts)
        assert writable.state_of(ids) == WHOLE


@pytest.mark.training
@pytest.mark.parametrize("kind", MAKERS)
def test_what_no_target_holds_is_never_written(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    never = tokenizer.convert_ids_to_tokens(sorted(find_writable(tokenizer).never))
    held = {"level": {"</s>"}, "fallback": {"</s>", "<unk>"}, "trimmed": {"</s>", "<unk>"}}[kind]
    assert "<pad>" in never and not held & set(never)
    sentinels = [piece for piece in tokenizer.get_vocab() if "<extra_id_" in piece]
    assert set(sentinels) <= set(never)
    assert sentinels or kind == "trimmed"
    # A control character; a line end and a capital letter are spelled so in this small vocabulary.
    assert ("<0x00>" in never) == (kind != "level")
    assert not {"<0x0A>", "<0x51>"} & set(never)


@pytest.mark.training
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("kind", [*MAKERS, "mt5", "bart"])
def test_a_model_that_wants_them_writes_whole_text(kind: str, beams: int) -> None:
    import torch

    make = MAKERS.get(kind, lambda: train_sample_tokenizer(KINDS[kind]))
    tokenizer = make()
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    writable = find_writable(tokenizer)
    torch.manual_seed(7)
    model = make_model("mt5", tokenizer=tokenizer, width=32)
    model.resize_token_embeddings(len(tokenizer) + 9)
    wanted = [*writable.never, *range(len(tokenizer), len(tokenizer) + 9)]
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.normal_()
        head[wanted] *= 20
        head[sorted(writable.parts)] *= 10
    for most in (3, 24):
        written = generate(
            model,
            tokenizer,
            [tokenizer(text)["input_ids"] for text in sample_texts()[:6]],
            settings=GenerationSettings(
                num_beams=beams, max_new_tokens=most, no_repeat_ngram_size=2
            ),
            batch_size=6,
        )
        for text in written:
            assert "\ufffd" not in text and "<0x" not in text and "<extra_id_" not in text
        assert any(written)


@pytest.mark.parametrize("name", ["mt5", "pko_t5", "kobart"])
def test_every_real_summary_can_be_written(name: str, shared_dir: Path) -> None:
    from dialsum.data.tables import read_rows

    tokenizer = load_tokenizer(shared_dir / "tokenizers" / name)
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    writable = find_writable(tokenizer)
    assert len(writable.never) >= 100
    rows = read_rows(shared_dir / "data" / "ko" / "train.csv", required=["summary", "dialogue"])
    for row in rows:
        for text in (row.values["summary"], row.values["dialogue"]):
            ids = tokenizer(text)["input_ids"]
            assert not writable.never.intersection(ids)
            assert writable.state_of(ids) == WHOLE
            bodies = [at for at, one in enumerate(ids) if one in writable.parts]
            for at in bodies:
                assert ids[at] in writable.after[writable.state_of(ids[:at])]

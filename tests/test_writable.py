"""Which pieces may be written: none that no target holds, and bytes only as whole characters."""

from __future__ import annotations

import json
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.generate import GenerationSettings, generate
from dialsum.models.tokenizers import BYTE_PIECES, add_dialogue_tokens, fold_text, load_tokenizer
from dialsum.models.trim import trim_tokenizer
from dialsum.models.writable import count_lacking, find_writable, read_bytes
from dialsum.text import script_of
from small_models import KINDS, make_model, sample_texts, train_sample_tokenizer


def is_text(content: bytes) -> bool:
    """Say whether bytes are whole characters, none of them a control character."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not any(one not in "\t\n" and unicodedata.category(one) == "Cc" for one in text)


def test_every_character_and_no_other_bytes_are_text() -> None:
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        content = chr(code).encode()
        assert (read_bytes(content) == b"") == is_text(content), hex(code)
        for stop in range(1, len(content)):
            assert read_bytes(content[:stop]) == content[:stop]
            assert count_lacking(content[:stop]) == len(content) - stop


def test_what_is_no_utf_8_cannot_come() -> None:
    cut = [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc2\x80", b"\xe0\x80\x80", b"\xed\xa0\x80"]
    long = [b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff\x80A"]
    for content in (*cut, *long, b"\xff", b"\xebA", b"\xeb\xeb", b"\x00", b"\x7f", b"\r"):
        assert not is_text(content)
        assert read_bytes(content) is None


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
            begun = writable.begun_by(ids[:at])
            assert one not in writable.never
            assert one in writable.after(begun) or not (begun or one in writable.parts)
        assert not writable.begun_by(ids)


KOREAN = ("hangul", "latin", "digits", "punctuation")


def test_scripts_are_told_apart() -> None:
    told = {
        "hangul": "가ㄱᄀ",
        "latin": "aéＡ",
        "digits": "1٣½Ⅷ",
        "punctuation": ".#·「 \n₩+",
        "symbols": "😀℃µ™\u200d",
        "han": "中",
        "kana": "あアｱ",
        "vietnamese": "ệơ",
        "cyrillic": "ж",
        "thai": "ก",
        "other": "αא",
        "control": "\x00\r\x1b",
    }
    for script, chars in told.items():
        assert {script_of(char) for char in chars} == {script}, script


def test_a_character_of_another_script_is_not_begun() -> None:
    scripts = frozenset(KOREAN)
    for char in "가힣aé1.「₩":
        content = char.encode()
        assert read_bytes(content, scripts) == b""
        for stop in range(1, len(content)):
            assert read_bytes(content[:stop], scripts) == content[:stop]
    assert read_bytes("中".encode(), scripts) is None
    assert read_bytes("中".encode()[:1], scripts) is None
    assert read_bytes("あ".encode()[:2], scripts) is None
    assert read_bytes("가".encode() + "中".encode()[:1], scripts) is None


@pytest.mark.training
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("kind", [*MAKERS, "mt5", "bart"])
def test_only_allowed_scripts_are_written(kind: str, beams: int) -> None:
    """A model that wants anything writes foreign letters until it is told not to."""
    import torch

    make = MAKERS.get(kind, lambda: train_sample_tokenizer(KINDS[kind]))
    tokenizer = make()
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    torch.manual_seed(3)
    model = make_model("mt5", tokenizer=tokenizer, width=32)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.normal_()
        head[sorted(find_writable(tokenizer).parts)] *= 6
    inputs = [tokenizer(text)["input_ids"] for text in sample_texts()[:24]]
    found = {}
    for scripts in (None, KOREAN, ("hangul", "punctuation")):
        settings = GenerationSettings(num_beams=beams, max_new_tokens=32, allowed_scripts=scripts)
        written = generate(model, tokenizer, inputs, settings=settings, batch_size=24)
        assert all(written)
        for tag in STANDARD_DIALOGUE_TOKENS:
            written = [text.replace(tag, " ") for text in written]
        found[scripts] = {script_of(char) for text in written for char in text}
    assert found[KOREAN] <= {*KOREAN}
    assert found["hangul", "punctuation"] <= {"hangul", "punctuation"}
    if kind in ("level", "fallback"):
        assert found[None] - {*KOREAN}, "this says nothing where the model writes nothing foreign"


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


@pytest.mark.parametrize("scripts", [None, KOREAN])
@pytest.mark.parametrize("name", ["mt5", "pko_t5", "kobart"])
def test_every_real_summary_can_be_written(
    name: str, scripts: tuple[str, ...] | None, shared_dir: Path
) -> None:
    from dialsum.data.tables import read_rows

    tokenizer = load_tokenizer(shared_dir / "tokenizers" / name)
    add_dialogue_tokens(tokenizer, STANDARD_DIALOGUE_TOKENS)
    writable = find_writable(tokenizer, scripts=scripts)
    assert len(writable.never) >= 100
    rows = read_rows(shared_dir / "data" / "ko" / "train.csv", required=["summary", "dialogue"])
    for row in rows:
        for text in (row.values["summary"], row.values["dialogue"]):
            if scripts and not {script_of(char) for char in text} <= {*scripts}:
                continue
            ids = tokenizer(text)["input_ids"]
            assert not writable.never.intersection(ids)
            assert not writable.begun_by(ids)
            bodies = [at for at, one in enumerate(ids) if one in writable.parts]
            for at in bodies:
                assert ids[at] in writable.after(writable.begun_by(ids[:at]))

"""A cut vocabulary: which pieces stay, and that texts are spelled as before."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.rows import load_splits
from dialsum.errors import UnfitError
from dialsum.models.tokenizers import (
    SPECIAL_NAMES,
    add_dialogue_tokens,
    check_round_trip,
    load_tokenizer,
)
from dialsum.models.trim import HANGUL, MULTIPLE, TrimmedTokenizer, trim_checkpoint, trim_tokenizer
from foreign_tokenizer import ENGLISH, RUSSIAN, TAGS, foreign
from small_models import sample_texts, tiny_checkpoint


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that tokenizer."""
    folder = tmp_path_factory.mktemp("foreign")
    foreign().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cut(foreign_folder: Path) -> TrimmedTokenizer:
    """That tokenizer cut to the sample's texts."""
    return trim_tokenizer(load_tokenizer(foreign_folder), texts=sample_texts(), new_tokens=TAGS)


def unigram(pieces: list[tuple[str, float]], *, end: str = "</s>") -> Any:
    """Return a unigram tokenizer of given pieces that ends each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [piece for piece, _ in pieces]
    backend = Tokenizer(models.Unigram(pieces, names.index("<unk>")))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.add_special_tokens(["<pad>", end, "<unk>"])
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, backend.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token=end, unk_token="<unk>"
    )


SPECIALS = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]


def test_no_text_at_all_keeps_what_any_text_needs(foreign_folder: Path) -> None:
    trimmed = trim_tokenizer(load_tokenizer(foreign_folder), texts=[], new_tokens=TAGS)
    assert (trimmed.used, trimmed.tokens) == (0, 0)
    assert check_round_trip(trimmed.tokenizer, [ENGLISH, RUSSIAN]).failed == []


def test_only_longer_pieces_of_other_scripts_go(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    tokenizer = load_tokenizer(foreign_folder)
    before, after = tokenizer.get_vocab(), cut.tokenizer.get_vocab()
    gone = set(before) - set(after)
    assert len(gone) > 60
    assert "▁tomorrow" in gone
    assert [piece for piece in gone if len(piece) == 1 or HANGUL.fullmatch(piece)] == []
    assert {"<pad>", "</s>", "<unk>"} <= set(after)
    assert len(cut.tokenizer) == len(cut.kept)
    added = add_dialogue_tokens(copy.deepcopy(cut.tokenizer), TAGS)
    assert (len(cut.kept) + len(added)) % MULTIPLE == 0
    # In the order of their ids, as the network's rows will be.
    assert sorted(after, key=after.__getitem__) == sorted(
        (set(before) & set(after)), key=before.__getitem__
    )
    assert [before[piece] for piece in sorted(after, key=after.__getitem__)] == cut.kept


def test_every_text_of_the_sample_is_spelled_as_before(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    texts = sample_texts()
    assert len(texts) == 1200
    for tags in ((), TAGS):  # as a run adds them, and without
        whole, less = load_tokenizer(foreign_folder), copy.deepcopy(cut.tokenizer)
        assert add_dialogue_tokens(whole, tags) == add_dialogue_tokens(less, tags)
        for text in texts:
            old, new = (one.convert_ids_to_tokens(one(text)["input_ids"]) for one in (whole, less))
            assert old == new


def test_text_with_cut_pieces_is_spelled_by_its_characters(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    tokenizer = load_tokenizer(foreign_folder)
    trip = check_round_trip(cut.tokenizer, [ENGLISH, RUSSIAN])
    assert (trip.failed, trip.with_unknown) == ([], 0)
    assert len(cut.tokenizer(ENGLISH)["input_ids"]) > 2 * len(tokenizer(ENGLISH)["input_ids"])


def test_the_same_texts_give_the_same_pieces(foreign_folder: Path) -> None:
    texts = sample_texts()
    first, again = (
        trim_tokenizer(load_tokenizer(foreign_folder), texts=some, new_tokens=TAGS)
        for some in (texts, texts[::-1])
    )
    assert again.kept == first.kept
    to_text = [one.tokenizer.backend_tokenizer.to_str() for one in (first, again)]
    assert to_text[0] == to_text[1]


def test_the_tokenizer_that_was_cut_is_as_it_was(foreign_folder: Path) -> None:
    tokenizer = load_tokenizer(foreign_folder)
    before = tokenizer.backend_tokenizer.to_str()
    trim_tokenizer(tokenizer, texts=sample_texts()[:9], new_tokens=TAGS)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("prefix", ["", "the weather: "])
def test_a_cut_tokenizer_stays_as_it_is_on_disk(
    prefix: str, foreign_folder: Path, tmp_path: Path
) -> None:
    texts = [prefix + text for text in sample_texts()]
    whole = load_tokenizer(foreign_folder)
    trimmed = trim_tokenizer(whole, texts=texts, new_tokens=TAGS).tokenizer
    trimmed.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mt5"}), encoding="utf-8")
    again = load_tokenizer(tmp_path)
    assert again(texts)["input_ids"] == trimmed(texts)["input_ids"]
    assert again.get_vocab() == trimmed.get_vocab()
    assert set(add_dialogue_tokens(again, TAGS)) >= set(TAGS)
    text = "#Person1#은 웃었다.\n#Person2#: 네, 알겠습니다."
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text


def wide(count: int) -> list[tuple[str, float]]:
    """Return many pieces of two Latin letters, which no text here uses, and single characters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [one + two for one in letters for two in letters][:count]
    single = [(one, -9.0) for one in f"{letters}0A<>/_#"]
    return [*single, *((pair, -12.0) for pair in pairs)]


def pieces_of(tokenizer: Any, text: str) -> list[str]:
    """Return how a text is spelled, its end included."""
    found: list[str] = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    return found


def test_an_unknown_character_costs_what_it_did() -> None:
    # What it costs follows from the lowest score of all, here that of a piece that no text uses:
    # -110, and -30 without it. Then ? and 나다라 would be better than ?나, 다, 라.
    pieces = [
        *SPECIALS,
        *wide(600),
        ("▁", -1.0),
        ("나", -15.0),
        ("다", -10.0),
        ("라", -10.0),
        ("?나", -20.0),
        ("나다라", -5.0),
        ("xyz", -100.0),
    ]
    tokenizer = unigram(pieces)
    spelled = ["▁", "?나", "다", "라", "</s>"]
    assert pieces_of(tokenizer, " ?나다라") == spelled
    trimmed = trim_tokenizer(tokenizer, texts=[" ?나다라"])
    assert len(trimmed.tokenizer) < 200
    assert pieces_of(trimmed.tokenizer, " ?나다라") == spelled
    assert "xyz" in trimmed.tokenizer.get_vocab()
    lower = unigram([*pieces[:-1], ("xyz", -12.0)])
    assert pieces_of(lower, " ?나다라") == ["▁", "<unk>", "나다라", "</s>"]


def test_tokens_get_their_new_ids_wherever_they_stand() -> None:
    # Special tokens behind the pieces, as T5's masks; the template that ends a text names an id.
    pieces = [*wide(600), ("<unk>", 0.0), ("<pad>", 0.0), ("▁가", -3.0), ("▁", -2.0), ("가", -3.0)]
    tokenizer = unigram(pieces, end="</end>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra_id_0>", "<extra_id_1>"]})
    end = tokenizer.eos_token_id
    assert end >= len(pieces)
    trimmed = trim_tokenizer(tokenizer, texts=["가 가"], new_tokens=["#Person1#"])
    add_dialogue_tokens(trimmed.tokenizer, ["#Person1#"])
    assert len(trimmed.tokenizer) == MULTIPLE
    assert (trimmed.tokenizer.pad_token, trimmed.tokenizer.unk_token) == ("<pad>", "<unk>")
    assert trimmed.tokenizer.pad_token_id == trimmed.kept.index(tokenizer.pad_token_id)
    assert trimmed.tokenizer.eos_token_id == trimmed.kept.index(end)
    assert pieces_of(trimmed.tokenizer, "가 #Person1#<extra_id_1>") == [
        "▁가",
        "▁",
        "#Person1#",
        "<extra_id_1>",
        "</end>",
    ]


@pytest.mark.parametrize(
    ("piece", "stays"),
    [
        ("<0x0A>", True),
        ("<0x0a>", False),
        ("한국어", True),
        ("▁한국어", True),
        ("ㅋㅋ", True),
        ("ьé", True),
        ("é", True),
        ("abc", False),
        ("▁abc", False),
        ("0A0", False),
        ("漢a", True),
    ],
)
def test_what_is_not_used_stays_where_smaller_pieces_could_not_do(piece: str, stays: bool) -> None:
    # 漢a: no piece holds 漢 alone, so that nothing else could spell it.
    hangul = [(one, -9.0) for one in "한국어ㅋ"]
    pieces = [*SPECIALS, *wide(600), *hangul, ("▁", -2.0), (piece, -9.0)]
    trimmed = trim_tokenizer(unigram(pieces), texts=["zz"]).tokenizer
    assert (piece in trimmed.get_vocab()) == stays
    assert len(trimmed) == MULTIPLE - 1  # a run adds the line end


def test_ids_that_the_checkpoint_names_stay() -> None:
    tokenizer = unigram([*SPECIALS, *wide(600), ("▁", -2.0)])
    start = tokenizer.convert_tokens_to_ids("xb")
    assert start not in trim_tokenizer(tokenizer, texts=["a"]).kept
    assert start in trim_tokenizer(tokenizer, texts=["a"], more_ids=[start]).kept


def test_other_vocabularies_are_refused() -> None:
    from tokenizers import models

    tokenizer = unigram(SPECIALS)
    tokenizer.backend_tokenizer.model = models.WordLevel({"<unk>": 2}, unk_token="<unk>")
    with pytest.raises(UnfitError, match="tokenizer is WordLevel, neither Unigram"):
        trim_tokenizer(tokenizer, texts=["가"])


@pytest.mark.training
@pytest.mark.parametrize(
    "name", ["gpt2", "kogpt2", "llama", "qwen", "gemma", "bart", "gpt2 without head"]
)
def test_of_merged_pieces_those_stay_that_others_are_made_of(name: str, tmp_path: Path) -> None:
    """Texts are spelled as before, others wholly; the model says what it said of the kept."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    source, texts = tiny_checkpoint(name.split()[0]), sample_texts()
    if name.endswith("head"):
        whole = AutoModelForCausalLM.from_pretrained(source)
        source = Path(shutil.copytree(source, tmp_path / "source"))
        whole.base_model.save_pretrained(source)
    out = tmp_path / "out"
    used, others = texts[:40], [*texts[40:200], ENGLISH, RUSSIAN]
    told = trim_checkpoint(source, out, texts=used, new_tokens=TAGS)
    assert told.pieces < told.pieces_before
    whole, less = load_tokenizer(source), load_tokenizer(out)
    for text in used:
        ids = [tokenizer(text)["input_ids"] for tokenizer in (whole, less)]
        assert whole.convert_ids_to_tokens(ids[0]) == less.convert_ids_to_tokens(ids[1])
    lost = [check_round_trip(tokenizer, others) for tokenizer in (whole, less)]
    assert (lost[1].failed, lost[1].with_unknown) == (lost[0].failed, lost[0].with_unknown)
    assert less.chat_template == whole.chat_template
    for key in SPECIAL_NAMES:
        assert getattr(less, key) == getattr(whole, key)
    kind = AutoModelForSeq2SeqLM if name == "bart" else AutoModelForCausalLM
    kept = [whole.convert_tokens_to_ids(piece) for piece in less.convert_ids_to_tokens(range(300))]
    models = [kind.from_pretrained(folder).eval() for folder in (source, out)]
    with torch.no_grad():
        before, after = (
            model(torch.tensor([tokenizer(used[0])["input_ids"]])).logits
            for model, tokenizer in zip(models, (whole, less), strict=True)
        )
    assert after.shape[-1] == told.pieces
    assert torch.allclose(after[..., :300], before[..., kept], atol=1e-5)
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        ids = [getattr(model.config, key) for model in models]
        spelled = [
            tokenizer.convert_ids_to_tokens(one) if one is not None else None
            for one, tokenizer in zip(ids, (whole, less), strict=True)
        ]
        assert spelled[0] == spelled[1]


def test_an_ending_that_cannot_be_renumbered_is_refused() -> None:
    from tokenizers import processors

    tokenizer = unigram(SPECIALS)
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(
        ("</s>", 1), ("<pad>", 0)
    )
    with pytest.raises(UnfitError, match="ends texts by BertProcessing"):
        trim_tokenizer(tokenizer, texts=["가"])


def test_the_real_vocabulary_spells_every_real_row_as_before(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ko"
    splits = load_splits(folder / "train.csv", folder / "dev.csv", test=folder / "test.csv")
    rows = [row for split in splits.present for row in split.rows]
    texts = ["요약: " + row.dialogue for row in rows]
    texts += [row.summary or "" for row in splits.train.rows]
    summaries = [row.summary or "" for row in splits.dev.rows]
    tokenizer = load_tokenizer(shared_dir / "tokenizers" / "mt5")
    trimmed = trim_tokenizer(tokenizer, texts=texts, new_tokens=TAGS)
    assert 4_000 < trimmed.used < len(trimmed.kept) < 25_000
    trip = check_round_trip(trimmed.tokenizer, summaries)
    assert (trip.failed, trip.with_unknown) == ([], 0)
    scripts = ["漢字와 ひらがな", "Привет, мир", "สวัสดี", "İstanbul’da 1,234.56 ₩", "🙂 ㅋㅋ 뷁"]
    for text in scripts:
        unknown = [one.unk_token_id for one in (tokenizer, trimmed.tokenizer)]
        counts = [
            one(text)["input_ids"].count(lost)
            for one, lost in zip((tokenizer, trimmed.tokenizer), unknown, strict=True)
        ]
        assert counts[0] == counts[1], text

"""A cut vocabulary: which pieces stay, that texts are spelled and scored as before, and reloading.

The tokenizers here know English and Russian besides the sample's Korean, as mT5's does: that is
what there is to cut.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.prompts import STANDARD_DIALOGUE_TOKENS
from dialsum.data.splits import load_splits
from dialsum.errors import UnfitError
from dialsum.model.tokenizers import (
    add_dialogue_tokens,
    check_round_trip,
    load_tokenizer,
    train_tokenizer,
)
from dialsum.model.trim import KeptPieces
from dialsum.model.trim_tokenizer import (
    HANGUL,
    MULTIPLE,
    TrimmedTokenizer,
    trim_tokenizer,
)
from small_models import (
    SAMPLE,
    SPARE_ROWS,
    make_config,
    read_weights,
    sample_texts,
    train_sample_tokenizer,
    write_checkpoint,
)
from trainer_runs import REPOSITORY, command, read_result, read_summaries, run

ENGLISH = "the weather report said that tomorrow every Person would get another PhoneNumber again"
RUSSIAN = "сегодня утром погода хорошая поэтому станция снова открыта для всех пассажиров"
UNTIED_AND_TIED = ["mt5", "t5", "t5_v1_1"]
TAGS = STANDARD_DIALOGUE_TOKENS


@cache
def foreign() -> Any:
    """Return a tokenizer of Korean, English and Russian, without dialogue tokens; not to change.

    The foreign pieces stand before the Korean ones, so that nearly every id changes in a cut.
    """
    from tokenizers import models

    tokenizer = train_sample_tokenizer("unigram")
    own = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    korean: list[tuple[str, float]] = [tuple(one) for one in own["vocab"]]
    words = [f"▁{word}" for word in (*ENGLISH.split(), *RUSSIAN.split())]
    parts = {
        word[start:stop] for word in words for start in range(len(word))
        for stop in range(start + 1, len(word) + 1)
    } - {piece for piece, _ in korean}  # fmt: skip
    other = [(part, -9.0 if len(part) > 1 else -14.0) for part in sorted(parts)]
    tokenizer.backend_tokenizer.model = models.Unigram(
        [*korean[:3], *other, *korean[3:]], own["unk_id"]
    )
    return tokenizer


def loaded(folder: Path, tags: tuple[str, ...] = TAGS) -> tuple[Any, list[str]]:
    """Return a folder's tokenizer with the tags, and which tokens are new."""
    tokenizer = load_tokenizer(folder)
    return tokenizer, add_dialogue_tokens(tokenizer, tags)


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that tokenizer."""
    folder = tmp_path_factory.mktemp("foreign")
    foreign().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cut(foreign_folder: Path) -> TrimmedTokenizer:
    """That tokenizer cut to the sample's texts."""
    tokenizer, new = loaded(foreign_folder)
    return trim_tokenizer(tokenizer, texts=sample_texts(), new_tokens=new)


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


@pytest.mark.parametrize("ids", [(), (0,), (0, 1, 2), (3, 5, 6, 7, 11), (8, 10)])
def test_kept_pieces_come_back_from_their_record(ids: tuple[int, ...]) -> None:
    kept = KeptPieces(ids=ids, before=12)
    record = json.loads(json.dumps(kept.to_record()))
    assert KeptPieces.from_record(record) == kept
    assert kept.new_ids() == {old: new for new, old in enumerate(ids)}


def test_a_damaged_list_of_kept_pieces_is_refused() -> None:
    record = KeptPieces(ids=(3, 5, 6, 7), before=12).to_record()
    record["ids"] = record["ids"].replace("5-7", "5-6")
    with pytest.raises(UnfitError, match="holds 3 ids, not 4"):
        KeptPieces.from_record(record)


def test_no_text_at_all_keeps_what_any_text_needs(foreign_folder: Path) -> None:
    tokenizer, new = loaded(foreign_folder)
    trimmed = trim_tokenizer(tokenizer, texts=[], new_tokens=new)
    assert trimmed.used == 0
    assert trimmed.tokens_per_character == (0.0, 0.0)
    assert check_round_trip(trimmed.tokenizer, [ENGLISH, RUSSIAN]).failed == []


def test_only_longer_pieces_of_other_scripts_go(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    tokenizer, new = loaded(foreign_folder)
    before, after = tokenizer.get_vocab(), cut.tokenizer.get_vocab()
    gone = set(before) - set(after)
    assert len(gone) > 60
    assert "▁tomorrow" in gone
    assert [piece for piece in gone if len(piece) == 1 or HANGUL.fullmatch(piece)] == []
    assert {*new, "<pad>", "</s>", "<unk>"} <= set(after)
    assert len(cut.tokenizer) == len(cut.kept) + len(new)
    assert len(cut.tokenizer) % MULTIPLE == 0
    # In the order of their ids, the new tokens last, as the network's rows will be.
    assert sorted(after, key=after.__getitem__) == sorted(
        (set(before) & set(after)), key=before.__getitem__
    )
    assert [before[piece] for piece in sorted(set(after) - set(new), key=after.__getitem__)] == [
        *cut.kept.ids
    ]


def renumbered(tokenizer: Any, ids: list[int], cut: TrimmedTokenizer) -> list[int]:
    """Return what ids of the whole tokenizer are in the cut one, by their pieces."""
    found: list[int] = cut.tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids))
    return found


def test_every_text_of_the_sample_is_spelled_as_before(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    tokenizer, _ = loaded(foreign_folder)
    texts = sample_texts()
    assert len(texts) == 1200
    for text in texts:
        old, new = tokenizer(text)["input_ids"], cut.tokenizer(text)["input_ids"]
        assert renumbered(tokenizer, old, cut) == new
    before, after = cut.tokens_per_character
    assert before == after > 0


def test_text_with_cut_pieces_is_spelled_by_its_characters(
    cut: TrimmedTokenizer, foreign_folder: Path
) -> None:
    tokenizer, _ = loaded(foreign_folder)
    trip = check_round_trip(cut.tokenizer, [ENGLISH, RUSSIAN, f"#Person1#: {ENGLISH}"])
    assert (trip.failed, trip.with_unknown) == ([], 0)
    assert len(cut.tokenizer(ENGLISH)["input_ids"]) > 2 * len(tokenizer(ENGLISH)["input_ids"])


def test_checked_texts_choose_no_pieces_and_are_counted(foreign_folder: Path) -> None:
    tokenizer, new = loaded(foreign_folder)
    texts = sample_texts()
    trimmed = trim_tokenizer(
        tokenizer, texts=texts, checked=[texts[0], ENGLISH], new_tokens=new
    )
    assert trimmed.respelled == 1
    assert trimmed.tokens_per_character[0] < trimmed.tokens_per_character[1]
    assert trimmed.kept == trim_tokenizer(tokenizer, texts=texts, new_tokens=new).kept
    said = trimmed.describe(bytes_before=8_000_000, bytes_after=2_000_000)
    assert "1 of the dev summaries" in said and "8 MB, now 2 MB" in said
    assert "\n" not in said


def test_the_same_texts_give_the_same_pieces(foreign_folder: Path) -> None:
    tokenizer, new = loaded(foreign_folder)
    texts = sample_texts()
    first = trim_tokenizer(tokenizer, texts=texts, new_tokens=new)
    again = trim_tokenizer(loaded(foreign_folder)[0], texts=texts[::-1], new_tokens=new)
    assert again.kept == first.kept
    to_text = [one.tokenizer.backend_tokenizer.to_str() for one in (first, again)]
    assert to_text[0] == to_text[1]


def test_the_tokenizer_that_was_cut_is_as_it_was(foreign_folder: Path) -> None:
    tokenizer, new = loaded(foreign_folder)
    before = tokenizer.backend_tokenizer.to_str()
    trim_tokenizer(tokenizer, texts=sample_texts()[:9], new_tokens=new)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("prefix", ["", "the weather: "])
def test_a_cut_tokenizer_stays_as_it_is_on_disk(
    prefix: str, foreign_folder: Path, tmp_path: Path
) -> None:
    tokenizer, new = loaded(foreign_folder)
    texts = [prefix + text for text in sample_texts()]
    trimmed = trim_tokenizer(tokenizer, texts=texts, new_tokens=new).tokenizer
    trimmed.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mt5"}), encoding="utf-8")
    again = load_tokenizer(tmp_path)
    assert again(texts)["input_ids"] == trimmed(texts)["input_ids"]
    assert again.get_vocab() == trimmed.get_vocab()
    assert add_dialogue_tokens(again, TAGS) == []
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
        *SPECIALS, *wide(600), ("▁", -1.0), ("나", -15.0), ("다", -10.0), ("라", -10.0),
        ("?나", -20.0), ("나다라", -5.0), ("xyz", -100.0),
    ]  # fmt: skip
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
    new = add_dialogue_tokens(tokenizer, ["#Person1#"])
    trimmed = trim_tokenizer(tokenizer, texts=["가 가"], new_tokens=new)
    assert len(trimmed.tokenizer) == MULTIPLE
    assert (trimmed.tokenizer.pad_token, trimmed.tokenizer.unk_token) == ("<pad>", "<unk>")
    assert trimmed.tokenizer.pad_token_id == trimmed.kept.ids.index(tokenizer.pad_token_id)
    assert trimmed.tokenizer.eos_token_id == trimmed.kept.ids.index(end)
    assert pieces_of(trimmed.tokenizer, "가 #Person1#<extra_id_1>") == [
        "▁가", "▁", "#Person1#", "<extra_id_1>", "</end>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("piece", "stays"),
    [
        ("<0x0A>", True), ("<0x0a>", False), ("한국어", True), ("▁한국어", True), ("ㅋㅋ", True),
        ("ьé", True), ("é", True), ("abc", False), ("▁abc", False), ("0A0", False), ("漢a", True),
    ],
)  # fmt: skip
def test_what_is_not_used_stays_where_smaller_pieces_could_not_do(piece: str, stays: bool) -> None:
    # 漢a: no piece holds 漢 alone, so that nothing else could spell it.
    hangul = [(one, -9.0) for one in "한국어ㅋ"]
    pieces = [*SPECIALS, *wide(600), *hangul, ("▁", -2.0), (piece, -9.0)]
    trimmed = trim_tokenizer(unigram(pieces), texts=["zz"]).tokenizer
    assert (piece in trimmed.get_vocab()) == stays
    assert len(trimmed) == MULTIPLE


def test_ids_that_the_checkpoint_names_stay() -> None:
    tokenizer = unigram([*SPECIALS, *wide(600), ("▁", -2.0)])
    start = tokenizer.convert_tokens_to_ids("xb")
    assert start not in trim_tokenizer(tokenizer, texts=["a"]).kept.ids
    assert start in trim_tokenizer(tokenizer, texts=["a"], more_ids=[start]).kept.ids


def test_a_merged_vocabulary_is_refused() -> None:
    tokenizer = train_tokenizer(sample_texts()[:50], kind="bpe", vocab_size=900)
    with pytest.raises(UnfitError, match="tokenizer is BPE, not Unigram") as caught:
        trim_tokenizer(tokenizer, texts=["가"])
    assert "tokenizer.trim_vocabulary: true" in str(caught.value)


def test_an_ending_that_cannot_be_renumbered_is_refused() -> None:
    from tokenizers import processors

    tokenizer = unigram(SPECIALS)
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(
        ("</s>", 1), ("<pad>", 0)
    )
    with pytest.raises(UnfitError, match="ends texts by BertProcessing"):
        trim_tokenizer(tokenizer, texts=["가"])


def real_texts(shared: Path) -> tuple[list[str], list[str]]:
    """Return what chooses pieces of the real rows, and the dev summaries."""
    folder = shared / "data" / "ko"
    splits = load_splits(folder / "train.csv", folder / "dev.csv", test=folder / "test.csv")
    assert splits.test is not None
    rows = [*splits.train.rows, *splits.dev.rows, *splits.test.rows]
    texts = ["요약: " + row.dialogue for row in rows]
    texts += [row.summary or "" for row in splits.train.rows]
    return texts, [row.summary or "" for row in splits.dev.rows]


def test_the_real_vocabulary_spells_every_real_row_as_before(shared_dir: Path) -> None:
    texts, summaries = real_texts(shared_dir)
    tokenizer, new = loaded(shared_dir / "tokenizers" / "mt5")
    trimmed = trim_tokenizer(tokenizer, texts=texts, checked=summaries, new_tokens=new)
    assert trimmed.kept.before == 250_100
    assert 4_000 < trimmed.used < len(trimmed.kept) < 25_000
    old = tokenizer(texts)["input_ids"]
    new_ids = trimmed.tokenizer(texts)["input_ids"]
    pieces = [tokenizer.convert_ids_to_tokens(row) for row in old]
    assert pieces == [trimmed.tokenizer.convert_ids_to_tokens(row) for row in new_ids]
    # One dev summary has a Latin name that no other text has; it takes another piece or two.
    assert trimmed.respelled == 1
    before, after = trimmed.tokens_per_character
    assert 0.5 < before < after < before + 1e-5
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


@pytest.mark.parametrize(
    "sets",
    [
        {"tokenizer.trim_vocabulary": True},
        {"tokenizer.trim_vocabulary": True, "model.architecture": "t5"},
        {"tokenizer.trim_vocabulary": False, "model.architecture": "bart"},
    ],
)
def test_the_key_is_taken_where_it_can_serve(sets: dict[str, Any]) -> None:
    assert problems(sets) == []


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"tokenizer.trim_vocabulary": True, "model.architecture": "bart"}, "nearly all Korean"),
        (
            {
                "tokenizer.trim_vocabulary": True, "tokenizer.train_on_data": True,
                "model.initialise": "tiny",
            },
            "has no other pieces",
        ),
        ({"tokenizer.trim_vocabulary": 1}, "true or false"),
    ],
)  # fmt: skip
def test_the_key_is_refused_where_it_cannot_serve(sets: dict[str, Any], said: str) -> None:
    found = problems(sets)
    assert len(found) == 1
    assert "tokenizer.trim_vocabulary" in found[0] and said in found[0]


def problems(sets: dict[str, Any]) -> list[str]:
    """Return what is said of an experiment with these values over its own."""
    from dialsum.config.read import load_config
    from dialsum.errors import ConfigError

    path = REPOSITORY / "config" / "experiments" / "01_mt5_xlsum_korean_adapted.yaml"
    if "model.architecture" in sets:
        sets = sets | {"model.checkpoint": "some/other"}
    try:
        load_config(path, overrides=[f"{key}={json.dumps(sets[key])}" for key in sets])
    except ConfigError as error:
        return error.problems
    return []


def test_the_demo_takes_the_key_of_an_experiment_away() -> None:
    from dialsum.config.read import load_config

    folder = REPOSITORY / "config"
    path = folder / "experiments" / "01_mt5_xlsum_korean_adapted.yaml"
    found = load_config(path, overlays=[folder / "demo.yaml"]).config
    assert found.tokenizer.train_on_data is True


# Networks


@pytest.fixture(scope="module")
def checkpoints(foreign_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a sort of checkpoint around that tokenizer, written once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(sort: str) -> Path:
        place = root / sort
        if not place.is_dir():
            write_checkpoint(place, sort, tokenizer=load_tokenizer(foreign_folder), width=32)
        return place

    return folder


QLORA = {
    "float": {},
    "4-bit": {"use_qlora": True, "load_in_4bit": True},
    "8-bit": {"use_qlora": True, "load_in_4bit": False, "load_in_8bit": True},
}


def load_whole(folder: Path, sort: str, **sections: Any) -> tuple[Any, Any]:
    """Load a checkpoint with the tags; return model and tokenizer."""
    import torch

    from dialsum.model.load import load_model

    tokenizer, new = loaded(folder)
    model = load_model(
        folder, config=make_config(sort, folder, **sections), tokenizer=tokenizer,
        new_tokens=new, device="cpu", dtype=torch.float32,
    )  # fmt: skip
    return model, tokenizer


def load_cut(
    folder: Path, sort: str, *, more_ids: tuple[int, ...] = (), **sections: Any
) -> tuple[Any, TrimmedTokenizer]:
    """Load a checkpoint with the tags, cut to the sample's texts; return model and tokenizer."""
    import torch

    from dialsum.model.load import load_model

    tokenizer, new = loaded(folder)
    trimmed = trim_tokenizer(
        tokenizer, texts=sample_texts(), new_tokens=new, more_ids=more_ids
    )
    model = load_model(
        folder, config=make_config(sort, folder, **sections), tokenizer=trimmed.tokenizer,
        new_tokens=new, device="cpu", dtype=torch.float32, kept=trimmed.kept,
    )  # fmt: skip
    return model, trimmed


def all_kept(trimmed: TrimmedTokenizer) -> list[int]:
    """Return the ids in the whole model of every row of the cut one, new tokens included."""
    new = len(trimmed.tokenizer) - len(trimmed.kept)
    return [*trimmed.kept.ids, *range(trimmed.kept.before, trimmed.kept.before + new)]


@pytest.mark.training
@pytest.mark.parametrize("bits", QLORA)
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_kept_and_new_rows_are_those_of_the_whole_model(
    sort: str, bits: str, checkpoints: Any
) -> None:
    import torch

    whole, _ = load_whole(checkpoints(sort), sort, qlora=QLORA[bits])
    less, trimmed = load_cut(checkpoints(sort), sort, qlora=QLORA[bits])
    ids = all_kept(trimmed)
    assert less.tied == whole.tied == (sort == "t5")
    for place in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(whole.model, place)().weight, getattr(less.model, place)().weight
        assert torch.equal(old[ids], new)
        assert len(old) > 1.2 * len(new)
    model = less.model
    rows = len(trimmed.tokenizer)
    assert model.config.vocab_size == model.get_output_embeddings().out_features == rows
    for stack in (model.encoder, model.decoder, model):
        layer = stack.get_input_embeddings()
        assert layer.num_embeddings == rows
        assert layer.weight is model.get_input_embeddings().weight
    matrices = 1 if sort == "t5" else 2
    found = less.trimmed
    assert found.bytes_before - found.bytes_after == matrices * 32 * 4 * (
        trimmed.kept.before + SPARE_ROWS - len(trimmed.kept)
    )


@pytest.mark.training
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_a_cut_model_without_new_tokens_loads_like_any_checkpoint(
    sort: str, checkpoints: Any, tmp_path: Path
) -> None:
    import torch

    from dialsum.model.load import load_model
    from dialsum.model.save import save_weights

    folder = checkpoints(sort)
    trimmed = trim_tokenizer(load_tokenizer(folder), texts=sample_texts())
    options: dict[str, Any] = {"new_tokens": [], "device": "cpu", "dtype": torch.float32}
    cut_model: Any = load_model(
        folder, config=make_config(sort, folder), tokenizer=trimmed.tokenizer,
        kept=trimmed.kept, **options,
    ).model  # fmt: skip
    assert cut_model.config.vocab_size == len(trimmed.kept) == len(trimmed.tokenizer)
    save_weights(cut_model, tmp_path)
    trimmed.tokenizer.save_pretrained(tmp_path)
    again: Any = load_model(
        tmp_path, config=make_config(sort, tmp_path), tokenizer=load_tokenizer(tmp_path), **options
    ).model
    for name, weight in cut_model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def answers(model: Any, rows: list[list[int]], targets: list[list[int]]) -> list[Any]:
    """Return the logits of each row's target."""
    import torch

    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([row]), labels=torch.tensor([target])).logits[0]
            for row, target in zip(rows, targets, strict=True)
        ]


@pytest.mark.training
@pytest.mark.parametrize("bits", QLORA)
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_kept_pieces_have_the_scores_that_they_had(
    sort: str, bits: str, checkpoints: Any
) -> None:
    import torch

    whole, tokenizer = load_whole(checkpoints(sort), sort, qlora=QLORA[bits])
    less, trimmed = load_cut(checkpoints(sort), sort, qlora=QLORA[bits])
    texts = sample_texts()[:24]
    dialogues, summaries = texts[::2], texts[1::2]
    assert any("\n" in text for text in dialogues)
    old = answers(whole.model, *(tokenizer(side)["input_ids"] for side in (dialogues, summaries)))
    new = answers(
        less.model, *(trimmed.tokenizer(side)["input_ids"] for side in (dialogues, summaries))
    )
    ids = all_kept(trimmed)
    for before, after in zip(old, new, strict=True):
        assert torch.allclose(before[:, ids], after, atol=1e-6, rtol=1e-6)
        # Probabilities grow by what the removed pieces had, the same factor for every piece.
        log_before, log_after = (one.log_softmax(dim=-1) for one in (before[:, ids], after))
        assert torch.allclose(log_before, log_after, atol=1e-5)
        gain = after.log_softmax(dim=-1) - before.log_softmax(dim=-1)[:, ids]
        mass = before.softmax(dim=-1)[:, ids].sum(dim=-1, keepdim=True)
        assert torch.allclose(gain, -mass.log().expand_as(gain), atol=1e-5)
        assert gain.min() > 1e-4


def written(model: Any, tokenizer: Any, texts: list[str], *, banned: list[int]) -> list[str]:
    """Return greedy answers, each text by itself, without the banned ids."""
    import torch

    found = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            out = model.generate(
                input_ids=ids, max_new_tokens=8, do_sample=False, num_beams=1,
                suppress_tokens=banned or None,
            )
            found.append(" ".join(tokenizer.convert_ids_to_tokens(out[0].tolist())))
    return found


@pytest.mark.training
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_greedy_answers_of_kept_pieces_are_the_same(sort: str, checkpoints: Any) -> None:
    whole, tokenizer = load_whole(checkpoints(sort), sort)
    texts = sample_texts()[:16]
    free = written(whole.model, tokenizer, texts, banned=[])
    # What random weights like to say is foreign. Some of it stays, or there was nothing to compare.
    liked = tokenizer.convert_tokens_to_ids(sorted({*" ".join(free[:6]).split()}))
    less, trimmed = load_cut(checkpoints(sort), sort, more_ids=tuple(liked))
    ours = written(less.model, trimmed.tokenizer, texts, banned=[])
    ids = set(all_kept(trimmed))
    gone = [one for one in range(whole.model.config.vocab_size) if one not in ids]
    assert ours == written(whole.model, tokenizer, texts, banned=gone)
    # Free to choose, the whole model says the same up to the first piece that was cut.
    vocabulary, said = trimmed.tokenizer.get_vocab(), 0
    for one, other in zip(free, ours, strict=True):
        kept = list(takewhile(vocabulary.__contains__, one.split()))
        assert other.split()[: len(kept)] == kept
        said += len(kept) - 1
    assert said > 10


@pytest.mark.training
def test_a_start_of_decoding_behind_the_cut_is_renumbered(
    checkpoints: Any, tmp_path: Path
) -> None:
    import torch

    from dialsum.model.load import load_model

    folder = shutil.copytree(checkpoints("mt5"), tmp_path / "start")
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer, new = loaded(folder)
    start = tokenizer.convert_tokens_to_ids("▁tomorrow")
    (folder / "config.json").write_text(
        json.dumps(described | {"decoder_start_token_id": start}), encoding="utf-8"
    )
    options: dict[str, Any] = {
        "config": make_config("mt5", folder), "new_tokens": new, "device": "cpu",
        "dtype": torch.float32,
    }
    trimmed = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new, more_ids=[start])
    model: Any = load_model(
        folder, tokenizer=trimmed.tokenizer, kept=trimmed.kept, **options
    ).model
    now = trimmed.tokenizer.convert_tokens_to_ids("▁tomorrow")
    assert now != start
    assert model.config.decoder_start_token_id == now
    assert model.generation_config.decoder_start_token_id == now
    without = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new)
    with pytest.raises(UnfitError, match=f"decoder_start_token_id {start} is not among"):
        load_model(folder, tokenizer=without.tokenizer, kept=without.kept, **options)


@pytest.mark.training
def test_inputs_and_train_summaries_choose_pieces_dev_summaries_none(checkpoints: Any) -> None:
    from dialsum.experiment.prepare import prepare_tokenizer

    splits = load_splits(SAMPLE / "train.csv", SAMPLE / "dev.csv", test=SAMPLE / "test.csv")
    assert splits.test is not None
    # One foreign word each: nothing else in the sample uses it.
    for split, side, word in (
        (splits.train, "dialogue", "weather"), (splits.train, "summary", "report"),
        (splits.dev, "dialogue", "every"), (splits.dev, "summary", "another"),
        (splits.test, "dialogue", "сегодня"),
    ):  # fmt: skip
        split.rows[0] = replace(split.rows[0], **{side: f"#Person1#: 네 {word}"})
    asked = {"trim_vocabulary": True, "input_prefix": "станция "}
    config = make_config("mt5", checkpoints("mt5"), tokenizer=asked)
    found = prepare_tokenizer(config, splits, tiny_folder=Path("unused"))
    vocabulary = found.tokenizer.get_vocab()
    stay = ["weather", "report", "every", "сегодня", "станция"]
    assert [word for word in stay if f"▁{word}" not in vocabulary] == []
    assert "▁another" not in vocabulary and "▁would" not in vocabulary
    assert found.trimmed is not None and found.trimmed.respelled == 1
    assert found.tag_ids == sorted(vocabulary[tag] for tag in TAGS)


@pytest.mark.training
def test_another_checkpoint_than_the_list_was_made_for_is_refused(
    checkpoints: Any, tmp_path: Path
) -> None:
    import torch

    from dialsum.model.load import load_model

    tokenizer, new = loaded(checkpoints("mt5"))
    trimmed = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new)
    small = train_tokenizer(sample_texts(), kind="unigram", vocab_size=900, exclude=TAGS)
    other = write_checkpoint(tmp_path / "other", "mt5", tokenizer=small)
    with pytest.raises(UnfitError, match=f"was cut from {trimmed.kept.before:,}"):
        load_model(
            other, config=make_config("mt5", other), tokenizer=trimmed.tokenizer, new_tokens=new,
            device="cpu", dtype=torch.float32, kept=trimmed.kept,
        )


# Whole experiments

ULTIMATE, FIRST = "01_mt5_xlsum_ultimate", "01_mt5_xlsum_optimized_v2"
SMALL_T5 = "02_eenzeenee_t5_rtx3090"
EXPERIMENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "adapter on embeddings and head, 4-bit": (ULTIMATE, "mt5", ()),
    "adapter beside rows of new tokens, 8-bit": (
        FIRST, "mt5", ("qlora.load_in_4bit=false", "qlora.load_in_8bit=true"),
    ),
    "every weight": (SMALL_T5, "t5", ("qlora.use_qlora=false",)),
    "tiny base with trained embeddings": (
        SMALL_T5, "t5",
        ("model.initialise=tiny", "model.tiny.d_model=32", "model.tiny.layers=1",
         "qlora.train_embeddings=true"),
    ),
}  # fmt: skip


def train_cut(name: str, folder: Path, checkpoint: Path) -> list[str]:
    """Return the command of an experiment that cuts its checkpoint's vocabulary."""
    experiment, _, options = EXPERIMENTS[name]
    sets = (
        f"model.checkpoint={checkpoint}", "tokenizer.trim_vocabulary=true",
        "training.learning_rate=5e-3", "generation.num_beams=2", *options,
    )  # fmt: skip
    line = command(experiment, folder, demo=False)
    for one in sets:
        line += ["--set", one]
    return line


@pytest.fixture(scope="module")
def runs(checkpoints: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of finished runs by their names above."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    for name, (_, sort, _) in EXPERIMENTS.items():
        folders[name] = root / name.replace(" ", "_") / "run"
        done = run(train_cut(name, folders[name], checkpoints(sort)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("vocabulary cut from") == 1
    return folders


@pytest.mark.training
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_record_says_what_was_cut(name: str, runs: dict[str, Path]) -> None:
    model = read_result(runs[name])["model"]
    found = model["vocabulary_trimmed"]
    assert found["tokens_per_character"] == found["tokens_per_character_before"] > 0
    assert found["respelled_dev_summaries"] == 0
    assert found["pieces_used"] < found["pieces"] < 0.95 * found["pieces_before"]
    assert found["bytes"] < 0.95 * found["bytes_before"]
    assert model["vocabulary"] == found["pieces"] + model["tokens_added"]


@pytest.mark.training
def test_saved_models_predict_the_same_in_a_new_process(runs: dict[str, Path]) -> None:
    script = REPOSITORY / "tests" / "predict_again.py"
    done = run([sys.executable, str(script), *map(str, runs.values())])
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, folder in runs.items():
        said = list(read_summaries(folder / "results" / "predictions_dev.csv").values())
        assert any(said), name
        assert answers[str(folder)]["loaded"] == said, name
        # Without what was learned the answers are others, or this would prove nothing.
        assert answers[str(folder)].get("base") != said, name


@pytest.mark.training
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_saved_model_is_whole(name: str, runs: dict[str, Path]) -> None:
    folder = runs[name] / "model"
    info = json.loads((folder / "model_info.json").read_text(encoding="utf-8"))
    kept = KeptPieces.from_record(info["kept_pieces"])
    assert len(load_tokenizer(folder)) == len(kept) + len(info["tokens_added"])
    if info["kind"] == "full":
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert described["vocab_size"] == len(load_tokenizer(folder))
        weights = read_weights(folder)
        rows = {len(one) for name, one in weights.items() if "shared" in name or "head" in name}
        assert rows == {described["vocab_size"]}

"""A cut vocabulary: which pieces stay, and that texts are spelled as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.load import load_config
from dialsum.data.rows import load_splits
from dialsum.errors import ConfigError, UnfitError
from dialsum.models.tokenizers import (
    add_dialogue_tokens,
    check_round_trip,
    load_tokenizer,
    train_tokenizer,
)
from dialsum.models.trim import HANGUL, MULTIPLE, KeptPieces, TrimmedTokenizer, trim_tokenizer
from foreign_tokenizer import ENGLISH, RUSSIAN, TAGS, foreign, loaded
from small_models import REPOSITORY, sample_texts


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
    trimmed = trim_tokenizer(tokenizer, texts=texts, checked=[texts[0], ENGLISH], new_tokens=new)
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
    new = add_dialogue_tokens(tokenizer, ["#Person1#"])
    trimmed = trim_tokenizer(tokenizer, texts=["가 가"], new_tokens=new)
    assert len(trimmed.tokenizer) == MULTIPLE
    assert (trimmed.tokenizer.pad_token, trimmed.tokenizer.unk_token) == ("<pad>", "<unk>")
    assert trimmed.tokenizer.pad_token_id == trimmed.kept.ids.index(tokenizer.pad_token_id)
    assert trimmed.tokenizer.eos_token_id == trimmed.kept.ids.index(end)
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
                "tokenizer.trim_vocabulary": True,
                "tokenizer.train_on_data": True,
                "model.initialise": "tiny",
            },
            "has no other pieces",
        ),
        ({"tokenizer.trim_vocabulary": 1}, "true or false"),
    ],
)
def test_the_key_is_refused_where_it_cannot_serve(sets: dict[str, Any], said: str) -> None:
    found = problems(sets)
    assert len(found) == 1
    assert "tokenizer.trim_vocabulary" in found[0] and said in found[0]


def problems(sets: dict[str, Any]) -> list[str]:
    """Return what is said of an experiment with these values over its own."""
    path = REPOSITORY / "config" / "experiments" / "01_mt5_xlsum_korean_adapted.yaml"
    if "model.architecture" in sets:
        sets = sets | {"model.checkpoint": "some/other"}
    try:
        load_config(path, overrides=[f"{key}={json.dumps(sets[key])}" for key in sets])
    except ConfigError as error:
        return error.problems
    return []


def test_the_demo_takes_the_key_of_an_experiment_away() -> None:
    folder = REPOSITORY / "config"
    path = folder / "experiments" / "01_mt5_xlsum_korean_adapted.yaml"
    found = load_config(path, overlays=[folder / "demo.yaml"]).config
    assert found.tokenizer.train_on_data is True

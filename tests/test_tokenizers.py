"""Text survives the tokenizers: tags as they were spelled, line ends, every summary at hand.

Needs transformers, no torch model. The real tokenizers and summaries are used where they are; the
ones trained on the sample show the same elsewhere.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.cleaning import fold_spaces
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.data.tables import read_rows
from dialsum.errors import UnfitError
from dialsum.models.tokenizers import add_dialogue_tokens, check_round_trip, load_tokenizer
from small_models import KINDS, SAMPLE, sample_texts, train_sample_tokenizer

pytestmark = pytest.mark.training

TAGS = STANDARD_DIALOGUE_TOKENS
REAL = {"mt5": "mt5", "bart": "kobart", "t5": "pko_t5"}
"""Folder of the real tokenizer of each family."""
TEXT = "#Person1#은 #Person2#에게 #PhoneNumber#를 알려 준다.\n#Person2#: 네"


@cache
def trained(family: str) -> Any:
    """Return a tokenizer of a family's kind, trained on the sample, tags added."""
    tokenizer = train_sample_tokenizer(KINDS[family])
    add_dialogue_tokens(tokenizer, TAGS)
    return tokenizer


@cache
def real(family: str, shared: Path) -> Any:
    """Return the real tokenizer of a family, tags added."""
    tokenizer = load_tokenizer(shared / "tokenizers" / REAL[family])
    add_dialogue_tokens(tokenizer, TAGS)
    return tokenizer


@cache
def summaries(folder: Path) -> list[str]:
    """Return every summary of a folder's train, dev and test references."""
    files = ("train.csv", "dev.csv", "test_references.csv")
    return [
        row.values["summary"]
        for name in files
        for row in read_rows(folder / name, required=["fname", "summary"])
    ]


def fold(text: str) -> str:
    """Return text as it must come back."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def survivors(tokenizer: Any, texts: list[str]) -> tuple[int, int]:
    """Count the texts that do not come back though all their pieces are known, and the unknown."""
    changed = unknown = 0
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        unknown += tokenizer.unk_token_id in ids
        back = tokenizer.decode(ids, skip_special_tokens=True)
        changed += tokenizer.unk_token_id not in ids and fold(back) != fold(text)
    return changed, unknown


def reload_by_library(folder: Path) -> Any:
    """Load a saved tokenizer as anybody does."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


TRAINED = [family for family in REAL if family != "t5"]
"""Families whose kind of tokenizer the demo trains."""


def save(tokenizer: Any, folder: Path, *, family: str) -> Path:
    """Save a tokenizer beside the config.json of a model of its family, as a checkpoint has it."""
    import transformers

    tokenizer.save_pretrained(folder)
    description = {"model_type": family, "transformers_version": transformers.__version__}
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


@pytest.mark.parametrize("family", TRAINED)
def test_every_summary_of_the_sample_survives(family: str) -> None:
    texts = summaries(SAMPLE)
    assert len(texts) == 760
    changed, unknown = survivors(trained(family), texts)
    assert changed == 0
    # Only what the train rows never held: names and places of dev and test.
    assert unknown < 40
    trip = check_round_trip(trained(family), texts)
    assert (trip.texts, trip.failed, trip.with_unknown) == (760, [], unknown)


@pytest.mark.parametrize("family", REAL)
def test_every_real_summary_survives_the_real_tokenizers(family: str, shared_dir: Path) -> None:
    tokenizer = real(family, shared_dir)
    for folder, count in ((shared_dir / "data" / "ko", 2465), (SAMPLE, 760)):
        texts = summaries(folder)
        assert len(texts) == count
        changed, unknown = survivors(tokenizer, texts)
        assert (changed, unknown) == (0, 0)
        trip = check_round_trip(tokenizer, texts)
        assert (trip.texts, trip.failed, trip.with_unknown) == (count, [], unknown)


@pytest.mark.parametrize("family", TRAINED)
def test_the_stock_setting_loses_most_real_summaries(family: str, shared_dir: Path) -> None:
    # What is mended here: a space after each added token. Without this, the tests above prove
    # little.
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = shared_dir / "tokenizers" / REAL[family]
    if family == "bart":
        stock: Any = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>"
        )
    else:
        stock = AutoTokenizer.from_pretrained(folder)
    stock.add_tokens(list(TAGS))
    texts = [
        row.values["summary"]
        for row in read_rows(
            shared_dir / "data" / "ko" / "train.csv", required=["fname", "summary"]
        )
    ]
    assert survivors(stock, texts)[0] > 1700
    assert "#Person1# 은" in stock.decode(stock(TEXT)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("family", TRAINED)
def test_check_round_trip_finds_what_the_stock_setting_loses(family: str) -> None:
    from tokenizers import decoders, pre_tokenizers

    stock = copy.deepcopy(trained(family))
    stock.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    stock.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trip = check_round_trip(stock, [TEXT, "네, 알겠습니다.", "쀍"])
    assert [text for text, _ in trip.failed] == [TEXT]
    assert "#Person1# 은" in trip.failed[0][1]
    assert (trip.texts, trip.with_unknown) == (3, 1)


def check_spelling(tokenizer: Any) -> None:
    """Hold a tokenizer against everything that must be true of one with tags."""
    ids = tokenizer(TEXT)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert back == TEXT
    pieces = tokenizer.convert_ids_to_tokens(ids)
    for tag in ("#Person1#", "#Person2#", "#PhoneNumber#"):
        assert tag in pieces
    vocabulary = tokenizer.get_vocab()
    assert not {vocabulary[tag] for tag in TAGS} & set(tokenizer.all_special_ids)
    assert not any(tokenizer.added_tokens_decoder[vocabulary[tag]].special for tag in TAGS)


@pytest.mark.parametrize("reload", [load_tokenizer, reload_by_library])
@pytest.mark.parametrize("family", TRAINED)
def test_trained_tokenizers_stay_as_they_are_on_disk(
    family: str, reload: Any, tmp_path: Path
) -> None:
    check_saving(trained(family), reload, tmp_path, family=family, texts=summaries(SAMPLE)[600:])


@pytest.mark.parametrize("reload", [load_tokenizer, reload_by_library])
@pytest.mark.parametrize("family", REAL)
def test_real_tokenizers_stay_as_they_are_on_disk(
    family: str, reload: Any, shared_dir: Path, tmp_path: Path
) -> None:
    texts = summaries(shared_dir / "data" / "ko")
    check_saving(real(family, shared_dir), reload, tmp_path, family=family, texts=texts)


def check_saving(before: Any, reload: Any, folder: Path, *, family: str, texts: list[str]) -> None:
    """Hold a tokenizer that was saved and loaded again against what it was."""
    check_spelling(before)
    after = reload(save(before, folder, family=family))
    check_spelling(after)
    assert after(texts)["input_ids"] == before(texts)["input_ids"]
    assert survivors(after, texts)[0] == 0


@pytest.mark.parametrize("family", REAL)
def test_real_special_tokens_are_known(family: str, shared_dir: Path) -> None:
    # KoBART's folder is a bare tokenizer.json that names none of them.
    tokenizer = real(family, shared_dir)
    unknown = {"t5": None}.get(family, "<unk>")
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<pad>", "</s>")
    assert tokenizer.unk_token == unknown
    ends = tokenizer("네")["input_ids"][-1] == tokenizer.eos_token_id
    assert ends == (family != "bart")


@pytest.mark.parametrize("family", REAL)
def test_only_what_is_missing_becomes_a_token(family: str, shared_dir: Path) -> None:
    tokenizer = load_tokenizer(shared_dir / "tokenizers" / REAL[family])
    before = len(tokenizer)
    added = add_dialogue_tokens(tokenizer, TAGS)
    # mT5 reads a line end as a space; KoBART has a piece for it.
    assert added == [*TAGS, *{"mt5": ["\n"]}.get(family, [])]
    assert tokenizer.convert_tokens_to_ids(added) == list(range(before, before + len(added)))
    assert add_dialogue_tokens(tokenizer, TAGS) == []


@pytest.mark.parametrize("family", TRAINED)
def test_tags_are_not_learnt_in_pieces(family: str) -> None:
    tokenizer = train_sample_tokenizer(KINDS[family])
    learnt = [piece for piece in tokenizer.get_vocab() if "Person" in piece or "Phone" in piece]
    assert learnt == []
    assert tokenizer.pad_token_id == {"mt5": 0, "bart": 1}[family]


def write_tokenizer(folder: Path, *, specials: tuple[str, ...]) -> Path:
    """Write a bare tokenizer.json with a few words."""
    from tokenizers import Tokenizer, models

    words = [*specials, "가", "나"]
    backend = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8"
    )
    return folder


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnfitError, match="has no eos_token, so that no summary could end"
    ) as caught:
        load_tokenizer(write_tokenizer(tmp_path, specials=("<pad>", "<unk>")))
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_without_padding_fills_up_with_its_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, specials=("</s>", "<unk>")))
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="no tokenizer could be loaded") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "tokenizer.json" in str(caught.value)


def test_a_tokenizer_that_brings_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "own_tokenizer.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n", encoding="utf-8"
    )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "OwnTokenizer",
                "auto_map": {"AutoTokenizer": ["own_tokenizer.OwnTokenizer", None]},
            }
        ),
        encoding="utf-8",
    )
    with pytest.raises(UnfitError, match="no tokenizer could be loaded"):
        load_tokenizer(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "tokenizer_config",
    [None, {}, {"bos_token": "<s>", "eos_token": "</s>"}, {"tokenizer_class": "BartTokenizer"}],
)
def test_bare_kobart_folder_keeps_hangul(
    shared_dir: Path, tmp_path: Path, tokenizer_config: dict[str, str] | None
) -> None:
    """A tokenizer.json beside a BART config.json is read as it is, not made into RoBERTa's."""
    source = shared_dir / "tokenizers" / "kobart" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(source.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}), encoding="utf-8")
    if tokenizer_config is not None:
        text = json.dumps(tokenizer_config)
        (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    trip = check_round_trip(tokenizer, ["건강검진을 받으러 왔다."])
    assert (trip.failed, trip.with_unknown) == ([], 0)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<pad>")


@cache
def every_text(shared: Path) -> list[str]:
    """Return all that stands in the Korean files and the English ones."""
    found = []
    for name in ("train", "dev", "test", "test_references"):
        for row in read_rows(shared / "data" / "ko" / f"{name}.csv", required=["fname"]):
            found += [text for column, text in row.values.items() if column != "fname"]
    for name in ("dev", "test"):
        lines = (shared / "data" / "en" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        found += [text for line in lines for text in json.loads(line).values()]
    return [fold_spaces(str(text)) for text in found]


def test_mt5_reads_and_writes_every_text_as_sentencepiece_does(shared_dir: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = shared_dir / "tokenizers" / "mt5"
    theirs = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    ours = load_tokenizer(folder)
    texts = every_text(shared_dir)
    assert len(texts) > 13_000
    ids = ours(texts, add_special_tokens=False)["input_ids"]
    assert ids == theirs.encode(texts)
    assert [ours.decode(row) for row in ids] == theirs.decode(ids)
    in_bytes = [row for row in ids if any(3 <= one < 259 for one in row)]
    assert len(in_bytes) >= 8
    assert not any(ours.unk_token_id in row for row in ids)


@pytest.mark.parametrize(
    "text",
    [
        "다시 뵀다",
        "뵀뷁쀍",
        "\U0001f9cc 쀍",
        "a \u200b b",
        "\u200ba",
        "½ Ⅷ ㎏",
        "<0x41> a<0xEB>b",
        "<0xZZ>",
        "ㅋㅋㅠㅠ",
        "ㅋㅖ ㅎㅏㄴ",
        "ｶﾞ か\u3099",
    ],
)
def test_mt5_reads_rare_text_as_sentencepiece_does(text: str, shared_dir: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = shared_dir / "tokenizers" / "mt5"
    theirs = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    ours = load_tokenizer(folder)
    ids = ours(text, add_special_tokens=False)["input_ids"]
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)


def test_rare_syllables_stand_between_tags(shared_dir: Path) -> None:
    tokenizer = real("mt5", shared_dir)
    text = "#Person1#뵀 뵀다.\n뷁#Person2#"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def write_pko(folder: Path, source: Path, *, tokenizer_class: str | None) -> Path:
    """Write what a pko-t5 checkpoint has: a byte-level BPE under T5's name, cut to 128 tokens."""
    described = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    described["truncation"] = {
        "direction": "Right",
        "max_length": 128,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    config = {"unk_token": "<pad>", "tokenizer_class": tokenizer_class}
    for name, content in (
        ("tokenizer.json", described),
        ("config.json", {"model_type": "t5"}),
        ("tokenizer_config.json", {key: value for key, value in config.items() if value}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("tokenizer_class", ["T5Tokenizer", "T5TokenizerFast", None])
def test_a_byte_level_tokenizer_under_t5_s_name_is_what_its_file_says(
    tokenizer_class: str | None, shared_dir: Path, tmp_path: Path
) -> None:
    source = shared_dir / "tokenizers" / "pko_t5"
    tokenizer = load_tokenizer(write_pko(tmp_path, source, tokenizer_class=tokenizer_class))
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(source / "tokenizer.json"))
    own.no_truncation()
    texts = every_text(shared_dir)[:500]
    ids = tokenizer(texts)["input_ids"]
    assert ids == [own.encode(text).ids for text in texts]
    assert max(map(len, ids)) > 128
    assert tokenizer.unk_token_id == tokenizer.pad_token_id == 0
    # The unknown token is the padding token: nothing here is unknown, and nothing is padding.
    trip = check_round_trip(tokenizer, texts)
    assert (trip.failed, trip.with_unknown, trip.unknown_tokens) == ([], 0, 0)
    add_dialogue_tokens(tokenizer, TAGS)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    for again in (
        reload(save(tokenizer, tmp_path, family="t5"))
        for reload in (load_tokenizer, reload_by_library)
    ):
        check_spelling(again)
        assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
        assert again.unk_token_id == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("added_tokens.json", "null", None),
        ("tokenizer_config.json", "null", None),
        ("special_tokens_map.json", "null", None),
        ("special_tokens_map.json", "[1]", "holds a list"),
        ("tokenizer_config.json", "{", "no JSON"),
        ("tokenizer.json", "{}", "no tokenizer could be loaded (KeyError"),
        ("tokenizer.json", "null", "no tokenizer could be loaded (TypeError"),
        ("tokenizer.json", "{", "no tokenizer could be loaded (JSONDecodeError"),
        ("tokenizer.json", '{"model": {"type": "None", "vocab": {}}}', "(Exception: "),
        (
            "tokenizer.json",
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": [], "unk_token": '
            '"<unk>"}, "added_tokens": [{"id": 0, "content": "</s>", "special": true, '
            '"single_word": false, "lstrip": false, "rstrip": false, "normalized": false}, '
            '{"id": 1, "content": "<pad>", "special": true, "single_word": false, '
            '"lstrip": false, "rstrip": false, "normalized": false}]}',
            "no tokenizer could be loaded (Exception: ",
        ),
        (
            "tokenizer.json",
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
            "(ValueError: its vocabulary is empty)",
        ),
    ],
)
def test_whatever_is_wrong_in_a_file_becomes_a_sentence(
    name: str, content: str, said: str | None, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, specials=("<pad>", "</s>", "<unk>"))
    (tmp_path / name).write_text(content, encoding="utf-8")
    if said is None:
        assert load_tokenizer(tmp_path).pad_token == "<pad>"
        return
    with pytest.raises(UnfitError) as caught:
        load_tokenizer(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_becomes_a_sentence(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, specials=("<pad>", "</s>", "<unk>"))
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "Z2FyYmFnZQ=="}
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(UnfitError, match="PanicException: Precompiled"):
        load_tokenizer(tmp_path)


def test_a_folder_that_names_a_family_alone_has_no_tokenizer(tmp_path: Path) -> None:
    # The library makes a T5 tokenizer of a hundred special tokens, under which all is unknown.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    with pytest.raises(UnfitError, match=r"no tokenizer could be loaded: none of spiece\.model"):
        load_tokenizer(tmp_path)


def train_pieces(folder: Path, *, byte_fallback: bool) -> Path:
    """Write a small spiece.model as T5's, trained on the sample."""
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(sample_texts()),
        model_prefix=str(folder / "spiece"),
        vocab_size=1500,
        byte_fallback=byte_fallback,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return folder


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_sentencepiece_model_alone_is_a_tokenizer(byte_fallback: bool, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    train_pieces(tmp_path, byte_fallback=byte_fallback)
    theirs = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    ours = load_tokenizer(tmp_path)
    # T5's sentinels lie behind the pieces, the last one first.
    assert len(ours) == len(theirs) + 100
    assert ours.convert_ids_to_tokens([len(theirs), len(ours) - 1]) == [
        "<extra_id_99>",
        "<extra_id_0>",
    ]
    texts = [fold_spaces(text).replace("\n", " ") for text in sample_texts()]
    texts += ["뵀다 뷁"] if byte_fallback else []
    ids = ours(texts)["input_ids"]
    assert ids == [[*row, theirs.eos_id()] for row in theirs.encode(texts)]
    known = [row for row in ids if ours.unk_token_id not in row]
    assert len(known) > 600
    assert [ours.decode(row, skip_special_tokens=True) for row in known] == theirs.decode(known)
    assert byte_fallback == (len(known) == len(ids))
    # A null beside the pieces says as much as no word.
    nulls = {"added_tokens_decoder": None, "extra_ids": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(nulls), encoding="utf-8")
    assert load_tokenizer(tmp_path).get_vocab() == ours.get_vocab()


def test_tokens_beside_a_sentencepiece_model_keep_their_ids(tmp_path: Path) -> None:
    train_pieces(tmp_path, byte_fallback=True)
    before = len(load_tokenizer(tmp_path))
    path = tmp_path / "added_tokens.json"
    path.write_text(json.dumps({"#Person2#": before + 1, "#Person1#": before}), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids(["#Person1#", "#Person2#"]) == [before, before + 1]
    text = "#Person1#은 #Person2#에게 뵀다"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    path.write_text(json.dumps({"#Person1#": before + 7}), encoding="utf-8")
    with pytest.raises(UnfitError, match="which do not follow its") as caught:
        load_tokenizer(tmp_path)
    assert str(before + 7) in str(caught.value)


SMILES = ["네 :) 좋아요", "😀", "BIG 8-O ㅠㅠ", "왜ㅜㅜ ^^", "#Person1#은 😇라고 했다 :-)"]


@pytest.mark.parametrize("text", SMILES)
def test_emoji_that_kobart_calls_special_are_text(text: str, shared_dir: Path) -> None:
    tokenizer = real("bart", shared_dir)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert check_round_trip(tokenizer, [text]).failed == []
    marks = ["<s>", "</s>", "<usr>", "<pad>", "<unused7>", "<mask>"]
    left = tokenizer.decode(tokenizer.convert_tokens_to_ids(marks), skip_special_tokens=True)
    assert left == ""


@pytest.mark.parametrize(
    ("texts", "lacks"),
    [
        ([], False),
        (["가 나"], False),
        (["가 쀍"], True),
        # One text of five, in which one token of twenty is unknown: as much as is let through.
        (["가 " * 15 + "쀍", *["가"] * 4], False),
        (["가 " * 60 + "쀍", *["가"] * 3], True),
        (["쀍", *["가"] * 9], True),
    ],
)
def test_a_vocabulary_that_lacks_the_language(
    texts: list[str], lacks: bool, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "</s>", "<unk>", "가", "나"]
    backend = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    trip = check_round_trip(load_tokenizer(tmp_path), texts)
    assert trip.lacks_the_language == lacks
    if lacks:
        assert f"'{texts[0][:80]}' is read as" in trip.show_unknown()
    if trip.with_unknown:
        # The warning of a few names what is unknown, and repeats no summary.
        said = trip.describe_unknown()
        assert said.startswith(f"1 of {len(texts)} summaries (")
        assert said.endswith("of all their tokens, such as '쀍'")


@pytest.mark.parametrize("family", TRAINED)
def test_what_is_unknown_is_cut_out_of_its_text(family: str) -> None:
    texts = [f"#Person1#은 {piece} 그렇게  말했다." for piece in ("쀍", "쀍", "鬱", "👾")]
    assert check_round_trip(trained(family), texts).unknown_pieces == ("쀍", "鬱")

"""Encoded rows kept from run to run: never stale, whole or absent, in bounds, never in the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.schema import Tokenizer
from dialsum.data import encode as encode_cache
from dialsum.data.encode import OWN_FOLDER, EncodedSplit, encode_splits
from dialsum.data.rows import Dialogue
from word_tokenizer import END, WORDS, WordTokenizer, rows

SETTINGS = Tokenizer(input_prefix="w9 ", encoder_max_len=8, decoder_max_len=4)
ITEMS = rows(
    ("A: w1\nB: w2", "w3"), ("A: w1 w2 w3\nB: w4\nA: w5 w6 w7", "w1 w2 w3 w4"), ("네", "w2")
)


def encode(
    items: Sequence[Dialogue], folder: Path | None, **changes: Any
) -> tuple[EncodedSplit, list[str]]:
    """Encode as a run does; return the split, and what is said of the cache."""
    splits, warnings = encode_splits(
        {"dev": items}, WordTokenizer(adds_end=True), SETTINGS, folder=folder, **changes
    )
    return splits["dev"], warnings


def content(split: EncodedSplit) -> tuple[Any, ...]:
    """Return all that an encoded split says."""
    targets = None if split.targets is None else [ids.tolist() for ids in split.targets]
    lengths = (split.input_lengths.tolist(), split.target_lengths.tolist())
    return [ids.tolist() for ids in split.inputs], targets, split.counts, lengths


def how(split: EncodedSplit) -> str:
    """Return where a split came from."""
    assert split.cache is not None
    return split.cache["how"]


def kept(folder: Path) -> list[Path]:
    """Return the files of a cache."""
    return sorted((folder / OWN_FOLDER).iterdir())


@pytest.mark.parametrize(
    "items", [[], rows(("w1", None)), rows(("", "")), ITEMS], ids=["none", "test", "empty", "usual"]
)
def test_what_is_read_is_what_was_made(items: Sequence[Dialogue], tmp_path: Path) -> None:
    plain = encode(items, None)[0]
    assert plain.cache is None
    assert "cache" not in plain.to_record()
    made = encode(items, tmp_path / "new" / "folder")[0]
    read = encode(items, tmp_path / "new" / "folder")[0]
    assert (how(made), how(read)) == ("made", "read")
    assert content(plain) == content(made) == content(read)
    assert made.to_record()["cache"]["key"] == read.to_record()["cache"]["key"]
    assert len(kept(tmp_path / "new" / "folder")) == 1


def key(items: Sequence[Dialogue], folder: Path, tokenizer: Any = None, **asked: Any) -> str:
    """Return what rows are kept under, with other settings where some are given."""
    tokenizer = tokenizer or WordTokenizer(adds_end=True)
    settings = SETTINGS.model_copy(update=asked)
    cache = encode_splits({"dev": items}, tokenizer, settings, folder=folder)[0]["dev"].cache
    assert cache is not None
    return cache["key"]


def changed(**changes: Any) -> WordTokenizer:
    """Return the tokenizer with other attributes."""
    tokenizer = WordTokenizer(adds_end=True)
    vars(tokenizer).update(changes)
    return tokenizer


def test_other_rows_have_another_key(tmp_path: Path) -> None:
    renamed = [replace(row, fname=f"x{row.fname}", topic="t", row=row.row + 5) for row in ITEMS]
    assert key(renamed, tmp_path) == key(ITEMS, tmp_path)
    texts = [(row.dialogue, row.summary) for row in ITEMS]
    others = [
        *(ITEMS, ITEMS[:2], ITEMS[::-1], [*ITEMS, ITEMS[0]]),
        *(rows(("A: w1\nB: w2 ", "w3"), *texts[1:]), rows(("A: w1\nB: w2", "w4"), *texts[1:])),
        *(rows(*((text, None) for text, _ in texts)), rows(*((b or "", a) for a, b in texts))),
        # Texts cannot run into each other.
        *(rows(("ab", "c")), rows(("a", "bc")), rows(("a", "")), rows(("a", None))),
        *(rows(("a", "b"), ("c", "d")), rows(("a", "b"), ("c", "d"), ("", ""))),
        *(rows(('a", "b', "c")), rows(("a", 'b", "c'))),
        *(rows(("a\nb", "c")), rows(("a\\nb", "c"))),
    ]
    assert len({key(items, tmp_path) for items in others}) == len(others)


def test_another_tokenizer_setting_or_library_has_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = WordTokenizer(adds_end=True)
    tagged.backend_tokenizer.add_tokens(["#Person1#"])
    tokenizers = [
        WordTokenizer(adds_end=False),
        WordTokenizer(adds_end=True, words=[*WORDS[:-1], "z"]),
        WordTokenizer(adds_end=True, words=WORDS[::-1]),
        *(tagged, changed(eos_token_id=END + 1), changed(unk_token_id=0)),
        changed(split_special_tokens=True),
    ]
    settings: list[dict[str, Any]] = [
        *({}, {"input_prefix": "w9"}, {"encoder_max_len": 9}, {"decoder_max_len": 5}),
        {"long_dialogues_keep": "start"},
    ]
    keys = [key(ITEMS, tmp_path, tokenizer) for tokenizer in tokenizers]
    keys += [key(ITEMS, tmp_path, **asked) for asked in settings]
    assert key(ITEMS, tmp_path, dialogue_tokens="data") in keys  # the tokenizer says which it has
    monkeypatch.setattr(encode_cache, "ENCODING_VERSION", -1)
    keys.append(key(ITEMS, tmp_path))
    monkeypatch.setattr(encode_cache, "version", lambda name: f"0.0 of {name}")
    keys.append(key(ITEMS, tmp_path))
    assert len(set(keys)) == len(keys)


def flip(data: bytes) -> bytes:
    """Return the bytes with one bit changed, in the ids."""
    at = data.index(encode(ITEMS, None)[0].inputs[1].tobytes())
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"x",
        lambda data: data[: len(data) // 2],
        flip,
        lambda data: data + b"\0",
    ],
    ids=["emptied", "one byte", "cut short", "one bit", "longer"],
)
def test_a_damaged_file_is_said_and_made_again(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    made = content(encode(ITEMS, tmp_path)[0])
    (path,) = kept(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    split, (warning,) = encode(ITEMS, tmp_path)
    assert (content(split), how(split)) == (made, "made")
    assert f"{path.name}: damaged" in warning
    assert kept(tmp_path) == [path]
    after, warnings = encode(ITEMS, tmp_path)
    assert (content(after), how(after), warnings) == (made, "read", [])


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    asked = {"train": ITEMS, "dev": ITEMS[:1], "test": ITEMS[1:]}
    splits, (warning,) = encode_splits(
        asked, WordTokenizer(adds_end=True), SETTINGS, folder=tmp_path / "file" / "cache"
    )
    assert [how(split) for split in splits.values()] == ["made, not kept"] * 3
    assert content(splits["train"]) == content(encode(ITEMS, None)[0])
    assert "data.cache_dir" in warning
    assert str(tmp_path / "file") in warning


def test_the_files_used_longest_ago_go_first(tmp_path: Path) -> None:
    folder = tmp_path / OWN_FOLDER
    paths = {count: folder / f"{key(ITEMS[:count], tmp_path)}.ids" for count in (1, 2, 3)}
    for age, count in enumerate((3, 2, 1)):
        os.utime(paths[count], (1000 - age, 1000 - age))
    encode(ITEMS[:1], tmp_path)  # the oldest, read again, is the newest now
    size = paths[3].stat().st_size
    encode(ITEMS[::-1], tmp_path, limit_bytes=3 * size)
    assert {count for count, path in paths.items() if path.exists()} == {1, 3}
    # What was written last stays, whatever its size; what a killed writer left goes as a file does.
    (folder / f".{'0' * 32}.ids.ab12_x.tmp").write_bytes(b"x" * size)
    encode(ITEMS[1:], tmp_path, limit_bytes=0)
    assert len(kept(tmp_path)) == 1
    assert how(encode(ITEMS[1:], tmp_path)[0]) == "read"


def test_what_it_did_not_write_is_never_removed(tmp_path: Path) -> None:
    """Other names, in its folder too; and a link of its own name, with what that leads to."""
    names = ["thesis.tmp", "embeddings.ids", f"{'0' * 31}.ids", f"x{'0' * 32}.ids", ".hidden.tmp"]
    (tmp_path / OWN_FOLDER).mkdir()
    foreign = [folder / name for folder in (tmp_path, tmp_path / OWN_FOLDER) for name in names]
    for path in foreign:
        path.write_bytes(b"x" * 5000)
        os.utime(path, (1000, 1000))
    link = tmp_path / OWN_FOLDER / f"{'1' * 32}.ids"
    link.symlink_to(foreign[0])
    encode(ITEMS, tmp_path, limit_bytes=0)
    encode(ITEMS[:1], tmp_path, limit_bytes=0)  # over the limit: ours go
    assert all(path.read_bytes() == b"x" * 5000 for path in foreign)
    assert link.is_symlink()
    assert len(kept(tmp_path)) == len(names) + 2

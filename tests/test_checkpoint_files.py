"""Each file of a checkpoint is looked at: what is not what its name says is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from dialsum.batch.checkpoints import find_model_problems
from dialsum.models.checkpoint import find_checkpoint_problems
from small_models import make_config
from test_preflight import pretrained
from test_reading import LFS

PIECES = b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02" * 4
PAGE = b"<!DOCTYPE html>\n<html><title>Hugging Face</title></html>"


def safetensors(*, missing: int = 0) -> bytes:
    """Return a weight file of one tensor, its last bytes missing."""
    header = json.dumps(
        {"__metadata__": {}, "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}
    ).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(32)
    return whole[: len(whole) - missing]


def torch_zip() -> bytes:
    """Return what torch.save writes, as to its form."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(400))
    return buffer.getvalue()


def write(folder: Path, **files: bytes | None) -> Path:
    """Write a whole checkpoint, files of it replaced (`__` for a dot) or absent."""
    named = {name.replace("__", "."): content for name, content in files.items()}
    whole = {
        "config.json": b'{"model_type": "bart"}',
        "model.safetensors": safetensors(),
        "tokenizer.json": b'{"version": "1.0"}\n',
        "spiece.model": PIECES,
        "added_tokens.json": b"null\n",
        "merges.txt": b"#version: 0.2\na b\n",
    } | named
    folder.mkdir(exist_ok=True)
    for name, content in whole.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def look(folder: Path) -> list[str]:
    """Hold a folder against an experiment with BART."""
    return find_checkpoint_problems(folder, make_config("bart", folder), place="X")


RIGHT = [
    {},
    {"model__safetensors": None, "pytorch_model__bin": torch_zip()},
    {"model__safetensors": None, "pytorch_model__bin": pickle.dumps({}, protocol=2)},
    {"tokenizer__json": None},
    {"spiece__model": None},
    {"pytorch_model__bin": LFS},  # not read beside safetensors
    {
        "model__safetensors": None,
        "model-00001-of-00001__safetensors": safetensors(),
        "model__safetensors__index__json": b'{"weight_map": {"a": "model-00001-of-00001'
        b'.safetensors"}}',
    },
]


@pytest.mark.parametrize("files", RIGHT)
def test_a_whole_checkpoint_is_fit(files: dict[str, bytes | None], tmp_path: Path) -> None:
    assert look(write(tmp_path / "model", **files)) == []


WRONG: list[tuple[dict[str, bytes | None], str]] = [
    ({"model__safetensors": LFS}, "X: model.safetensors is a Git LFS pointer, a note that stands"),
    ({"model__safetensors": LFS}, "git lfs install && git lfs pull"),
    ({"spiece__model": LFS}, "X: spiece.model is a Git LFS pointer"),
    ({"tokenizer__json": LFS}, "X: tokenizer.json is a Git LFS pointer"),
    ({"model__safetensors": PAGE}, "model.safetensors is a web page (HTML or XML), not weights"),
    ({"config__json": PAGE}, "config.json is a web page (HTML or XML), not JSON; download"),
    ({"spiece__model": b"Entry not found"}, "spiece.model is a server's refusal in place"),
    ({"model__safetensors": gzip.compress(b"x")}, "is packed by gzip, not weights in safetensors"),
    ({"tokenizer__json": gzip.compress(b"{}")}, "tokenizer.json is packed by gzip, not JSON"),
    ({"model__safetensors": b'{"a": 1}\n{"b": 2}\n'}, "is JSON Lines, not weights in safetensors"),
    ({"tokenizer__json": b'{"a": 1}\n{"b": 2}\n'}, "is JSON Lines, not JSON; copy"),
    ({"config__json": b"model_type: bart\n"}, "config.json is text, not JSON; copy"),
    ({"config__json": b""}, "config.json is empty; copy"),
    ({"model__safetensors": b""}, "model.safetensors is empty; copy the checkpoint again"),
    ({"model__safetensors": safetensors(missing=1)}, "where its header states"),
    ({"model__safetensors": safetensors(missing=60)}, "has a damaged header"),
    ({"model__safetensors": torch_zip()}, "not weights in safetensors; rename it to pytorch_model"),
    (
        {"model__safetensors": None, "pytorch_model__bin": safetensors()},
        "is weights in safetensors, not weights in a pickle of torch; rename it to model.safetens",
    ),
    (
        {"model__safetensors": None, "pytorch_model__bin": torch_zip()[:-30]},
        "pytorch_model.bin breaks off in the middle, after",
    ),
    ({"tokenizer__json": b'{"version": "1.0", "model": {"ty'}, "tokenizer.json breaks off"),
    ({"merges__txt": PAGE}, "merges.txt is a web page"),
    ({"spiece__model": b"some text"}, "spiece.model is text, not a SentencePiece model"),
    ({"tokenizer__json": None, "spiece__model": None}, "X: holds no tokenizer"),
    (
        {
            "model__safetensors": None,
            "model__safetensors__index__json": b'{"weight_map": {"a": "model-00001-of-00002.'
            b'safetensors", "b": "other"}}',
        },
        "model-00001-of-00002.safetensors and 1 more of the files that its index",
    ),
    (
        {"model__safetensors": None, "model__safetensors__index__json": b'{"weights": 1}'},
        "model.safetensors.index.json is no index of weights",
    ),
    *(
        (
            {f"{name}__json": b'{"a": ' + b"[" * depth + b"]" * depth + b"}"},
            f"{name}.json is no valid JSON (maximum recursion depth",
        )
        for depth in (100_000,)
        for name in (
            "config",
            "tokenizer",
            "tokenizer_config",
            "special_tokens_map",
            "generation_config",
            "added_tokens",
        )
    ),
    ({"generation_config__json": b'{"a" 1}'}, "generation_config.json is no valid JSON (Expecting"),
    ({"tokenizer_config__json": b'{"a": "\xff"}'}, "tokenizer_config.json is no valid JSON ('utf"),
    ({"tokenizer__json": b"\xef\xbb\xbf{}"}, "tokenizer.json begins with a byte order mark"),
]


@pytest.mark.parametrize(("files", "words"), WRONG)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    files: dict[str, bytes | None], words: str, tmp_path: Path
) -> None:
    [problem] = look(write(tmp_path / "model", **files))
    assert words in problem


def test_a_pipe_in_a_checkpoint_is_never_opened(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model__safetensors=None)
    os.mkfifo(folder / "model.safetensors")
    [problem] = look(folder)
    assert "model.safetensors cannot be read: is a pipe, no regular file" in problem


ADAPTERS = [
    (b'{"peft_type": "LORA", "base_model_name_or_path": "a/b"}', "holds a LoRA adapter", "on a/b"),
    (b'{"peft_type": "IA3", "base_model_name_or_path": ""}', "an IA3 adapter", "not name its base"),
    (b"{", "a PEFT adapter", "does not name its base"),
    (b"[]", "a PEFT adapter", "does not name its base"),
]


@pytest.mark.parametrize(("content", "what", "whose"), ADAPTERS)
@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_is_called_one(
    with_config: bool, content: bytes, what: str, whose: str, tmp_path: Path
) -> None:
    weights = {"model__safetensors": None, "adapter_model__safetensors": safetensors()}
    folder = write(tmp_path / "adapter", adapter_config__json=content, **weights)
    if not with_config:
        (folder / "config.json").unlink()
    [problem], _ = find_model_problems(pretrained(tmp_path, str(folder)))
    assert str(folder) in problem
    assert what in problem
    assert whose in problem
    assert "merge the two first" in problem


def test_every_real_layout_is_fit(shared_dir: Path, tmp_path: Path) -> None:
    for name in ("mt5", "kobart", "pko_t5"):
        folder = tmp_path / name
        write(folder, tokenizer__json=None, spiece__model=None, added_tokens__json=None)
        for path in (shared_dir / "tokenizers" / name).iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        config = make_config("mt5" if name == "mt5" else "bart", folder)
        said = json.dumps({"model_type": config.model.architecture})
        (folder / "config.json").write_text(said)
        assert find_checkpoint_problems(folder, config) == []

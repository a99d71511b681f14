"""The door to files: what is no file is never opened, and the first bytes say what a file is."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dialsum import files
from dialsum.batch.first_look import find_data_problems
from dialsum.config.load import load_config
from dialsum.data.tables import read_rows
from dialsum.errors import ConfigError, DataError, DiskFullError, RunError, UnfitError
from dialsum.files import (
    NotRegularError,
    TooLargeError,
    look_at,
    read_regular,
    refuse_foreign,
    write_json,
)
from dialsum.text import shorten

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = b"fname,dialogue,summary\n" + b"a,#Person1#: b,c\n" * 40
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"


def zipped(*names: str) -> bytes:
    """Return a zip archive that holds files of these names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
    return buffer.getvalue()


def tarred() -> bytes:
    """Return a tar archive of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train.csv"), io.BytesIO())
    return buffer.getvalue()


KINDS = [
    (b"", "empty"),
    (b" \n", "empty"),
    (b"\xef\xbb\xbf", "empty"),
    (ROWS, "text"),
    (b"\xef\xbb\xbf" + ROWS, "text"),
    ("fname,dialogue\na,안녕\n".encode("cp949"), "text"),
    ("fname,dialogue\na,안녕\n".encode("utf-16"), "UTF-16"),
    ("fname,dialogue\na,안녕\n".encode("utf-16-le"), "UTF-16"),
    (b"[laughs] hello\n", "text"),
    (b"{curly} text\n", "text"),
    (b"<3 you\n", "text"),
    (b"BZ is a name,b\n", "text"),
    (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", "binary"),
    (b'{"a": 1}', "json"),
    (b'{\n  "a": 1\n}\n', "json"),
    (b"[1, 2]", "json"),
    (b'{"a": 1}\n{"a": 2}\n', "json lines"),
    (LFS, "lfs"),
    (b"<!doctype HTML><html>", "page"),
    (b"\xef\xbb\xbf\n<html lang='ko'>", "page"),
    (b"<!-- saved from url=(0041) --><html>", "page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "page"),
    (b"Entry not found", "refusal"),
    (b"Access to model meta-llama/x is restricted", "refusal"),
    (gzip.compress(ROWS, mtime=0), "gzip"),
    (bz2.compress(ROWS), "bzip2"),
    (lzma.compress(ROWS), "xz"),
    (tarred(), "tar"),
    (zipped("train.csv", "dev.csv"), "zip"),
    (zipped("docProps/app.xml", "xl/workbook.xml"), "excel"),
    (zipped("[Content_Types].xml", "xl/workbook.xml")[:80], "excel"),
    (zipped("archive/data.pkl", "archive/data/0"), "torch"),
    (zipped("archive/data.pkl", "archive/data/0")[:60], "torch"),
    (pickle.dumps({"a": 1}), "torch"),
    (pickle.dumps({"a": 1}, protocol=2), "torch"),
    ((16).to_bytes(8, "little") + b'{"a": [1, 2, 3]}', "safetensors"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "ole"),
]


@pytest.mark.parametrize(
    ("content", "kind"), KINDS, ids=[f"{kind}-{at}" for at, (_, kind) in enumerate(KINDS)]
)
def test_a_file_is_told_by_its_first_bytes(content: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    look = look_at(path)
    assert (look.kind, look.size) == (kind, len(content))
    assert look.explain(wanted="a CSV file", otherwise="mend it").startswith("is ")


def make_socket(path: Path) -> None:
    """Leave a socket at a path, as a program that died does."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


NO_FILES: list[tuple[Callable[[Path], object], str]] = [
    (os.mkfifo, "a pipe"),
    (lambda path: path.symlink_to("/dev/zero"), "a device"),
    (make_socket, "a socket"),
]


@pytest.mark.parametrize(("make", "word"), NO_FILES)
def test_what_is_no_file_is_never_opened(
    make: Callable[[Path], object], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("train.csv")
    make(path)
    for read in (look_at, read_regular):
        with pytest.raises(NotRegularError, match=f"is {word}, no regular file"):
            read(path)
    with pytest.raises(DataError, match=f"train.csv: cannot be read: is {word}"):
        read_rows(path, required=("fname",))
    said = find_data_problems(Path())
    assert f"train.csv: is {word}, no regular file." in said[0]
    assert "dev.csv, test.csv not found" in said[1]
    base = Path("pipe.yaml")
    make(base)
    own = Path("own.yaml")
    own.write_text("extends: pipe.yaml\n", encoding="utf-8")
    for config, place in ((own, "own.yaml:1  extends  pipe.yaml is"), (base, "pipe.yaml  is")):
        with pytest.raises(ConfigError) as caught:
            load_config(config)
        assert f"{place} {word}, no regular file → a YAML file" in str(caught.value)


@pytest.mark.parametrize("first", [b"", b"a: 1\n"])
def test_what_waits_for_more_at_its_end_is_no_file(
    first: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's log passes for a regular file, as does this pipe here."""
    monkeypatch.setattr(files, "_check_regular", lambda _: 0)
    path = tmp_path / "log.yaml"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        for read in (look_at, read_regular, lambda path: read_regular(path, max_bytes=100)):
            os.write(writer, first)
            with pytest.raises(NotRegularError, match="is a stream, no regular file"):
                read(path)
        with pytest.raises(UnfitError, match="is a stream, no regular file; give another name"):
            refuse_foreign(path, is_ours=lambda _: True)
        with pytest.raises(ConfigError, match="is a stream, no regular file → a YAML file"):
            load_config(path)
    finally:
        os.close(writer)


def test_a_yaml_file_of_a_megabyte_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# comment\n" * 100_001)
    with pytest.raises(ConfigError, match=r"holds 1,000,010 bytes, more than the 1,000,000"):
        load_config(path)
    assert len(read_regular(path)) == 1_000_010
    with pytest.raises(TooLargeError):
        read_regular(path, max_bytes=1_000_009)
    # Its size is stated as zero.
    with pytest.raises(TooLargeError):
        read_regular(Path("/proc/self/status"), max_bytes=10)


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
def test_the_command_that_unpacks_a_table_unpacks_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my data" / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(ROWS, mtime=0))
    with pytest.raises(DataError) as caught:
        read_rows(path, required=("fname",))
    said = caught.value.problems[0]
    assert "is packed by gzip, not a text file" in said
    command = said.partition("unpack it to ")[2].partition(": ")[2]
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "my data" / "train.csv").read_bytes() == ROWS
    assert len(read_rows(tmp_path / "my data" / "train.csv", required=("fname",))) == 40


@pytest.mark.parametrize(
    ("content", "words"),
    [(LFS, "git lfs pull"), (gzip.compress(ROWS, mtime=0), "unpack it"), (b"<html>", "/resolve/")],
)
def test_the_first_look_sees_what_lies_in_the_place_of_a_table(
    content: bytes, words: str, tmp_path: Path
) -> None:
    for name in ("train.csv", "dev.csv", "test.csv"):
        (tmp_path / name).write_bytes(ROWS)
    assert find_data_problems(tmp_path) == []
    (tmp_path / "dev.csv").write_bytes(content)
    [problem] = find_data_problems(tmp_path)
    assert "dev.csv" in problem and not problem.endswith(".")  # the end may be a command
    assert words in problem


SECRET = "hf_SeCrEtToKeN"
SECRETS = [
    f"HF_TOKEN={SECRET}\n",
    f"HF_TOKEN={SECRET}\nWANDB_API_KEY={SECRET}\n",
    f"HF_TOKEN={SECRET}: x\n",
    f'A=1\nCREDENTIALS={{"key": "{SECRET}"}}\n',
    f'CREDENTIALS={SECRET}{{"key": 1}}\n',
    f"HF_TOKEN=*{SECRET}\n",
    f"*{SECRET}\n",
    f"!{SECRET}! x\n",
    f"- {SECRET}\n- {SECRET}\n",
    f'"{SECRET}\n',
    f"root:x:0:0:{SECRET}:/root:/bin/bash\nnobody:x:1:1::/:/bin/false\n",
    f"machine a.b login c\n  password {SECRET}\n",
    f"export HF_TOKEN='{SECRET}'\n\tTAB={SECRET}\n",
    f"token: {SECRET}\n",
    f"[default]\nkey = {SECRET}: a: b\n",
    f"{SECRET}\n",
    f"a,{SECRET}\nb,c,d\n",
    f'HF_TOKEN,{SECRET}\n"open\n',
    f'{{"token": "{SECRET}"}}\n',
    f"seed: {SECRET}\nwandb: {SECRET}\ngeneral: {SECRET}\n",
    f"{SECRET}: 1\ntracking: {{wandb: {SECRET}}}\nextends: {SECRET}\n",
    f'"{SECRET}"\n["{SECRET}"]\n{{"fname": {{"key": "{SECRET}"}}}}\n{{"fname": ["{SECRET}"]}}\n',
]


@pytest.mark.parametrize("content", SECRETS)
@pytest.mark.parametrize("where", ["config", "extends", "train_file", "score", "json lines"])
def test_what_is_another_file_is_never_quoted(where: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / (".env.jsonl" if where == "json lines" else ".env")
    path.write_text(content, encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text(f"extends: {path}\n", encoding="utf-8")
    with pytest.raises((ConfigError, DataError)) as caught:
        if where in ("config", "extends"):
            load_config(path if where == "config" else own)
        else:
            read_rows(path, required=("fname", "summary" if where == "score" else "dialogue"))
    assert SECRET not in str(caught.value)
    assert ".env" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HF_TOKEN: {}: x\n", "x.yaml:1  a second colon: HF_TOKEN: … →"),
        ("a:\n    b: 1\n  wandb: {}\n", "x.yaml:3  indentation that fits no line above: wandb: …"),
        ("a:\n    b: 1\n  - {}\n", "x.yaml:3  indentation that fits no line above →"),
        ("a: {}\n  {} b: c\n", "x.yaml:2  a second colon →"),
        ("a: *{}\n", "x.yaml:1  not YAML: found undefined alias →"),
        ("a: !{} 1\n", "a tag (!) →"),
        ("a: !!int {}\n", "a tag (!) →"),
        ("a: !{}!b 1\n", "x.yaml:1  not YAML: found undefined tag handle →"),
        ("a: &{0} 1\nb: &{0} 1\n", "x.yaml"),
        ("a: [{}\nb: ]\n", "x.yaml"),
        ('a: "{}\n', "x.yaml"),
        ("a: '{}' {}\n", "x.yaml"),
        ("a: |{}\n", "x.yaml"),
        ("a: @{}\n", "x.yaml"),
        ("a: %{}\n", "x.yaml"),
    ],
)
def test_of_a_line_that_is_no_yaml_only_the_key_is_quoted(
    text: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text.replace("{}", SECRET).replace("{0}", SECRET), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


LONG = "x" * 500


@pytest.mark.parametrize(
    "text",
    [
        f"training:\n  learning_rate: {LONG}\n",
        f"training:\n  {LONG}: 1\n",
        f"{LONG}: 1\n",
        f"training: {LONG}\n",
        f"model: [{LONG}]\n",
        f"training:\n  {LONG}: 1: 2\n",
        f"training:\n  optim: {LONG}\n",
        f"training:\n  bf16: [{LONG}, {LONG}]\n",
        f"extends: [{LONG}]\n",
    ],
)
def test_messages_shorten_what_they_quote(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "x" * 20 in str(caught.value)
    assert "x" * 81 not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides=[LONG, f"training.learning_rate={LONG}"])
    assert "x" * 81 not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "no space left"), (errno.EIO, "Input/output error. Give")]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match=said) as caught:
        write_json(path, {"a": 2})
    assert isinstance(caught.value, DiskFullError) == (code == errno.ENOSPC)
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_shortened_text_has_no_more_than_was_asked() -> None:
    assert shorten("가" * 80) == "가" * 80
    assert shorten("가" * 81) == "가" * 79 + "…"

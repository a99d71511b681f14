"""The CSV border: what is read, and what is refused with file, line and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.data.tables import TableRow, read_rows
from dialsum.errors import DataError

HEADER = "fname,summary\n"

REFUSED = [
    (b"", ["is empty", "'fname', 'summary'"]),
    (HEADER.encode(), ["no data row"]),
    ((HEADER + "\n\n").encode(), ["no data row"]),
    (b"\xef\xbb\xbf", ["is empty"]),
    ((HEADER + "a,안녕하세요\n").encode("cp949"), ["cp949", "iconv -f cp949 -t UTF-8"]),
    ((HEADER + "a,안녕\n").encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
    ((HEADER + "a,안녕\n").encode("utf-16-le"), ["UTF-16"]),
    (HEADER.encode() + b"a,\xff\xff\n", [":2", "0xff", "UTF-8"]),
    ((HEADER + "a,b\nc,d\0e\n").encode(), [":3", "NUL"]),
    (b"<!DOCTYPE html>\n<html>a,b\n", ["a web page", "/resolve/"]),
    (b'{"fname": "a"}\n{"fname": "b"}\n', ["JSON, not CSV", ".jsonl"]),
    (b"HF_TOKEN=hf_a\nb\n", [":1", "none of the columns 'fname', 'summary'"]),
    (b"fname,text\na,b\n", [":1", "'summary'", "'fname', 'text'"]),
    (b"fname,Summary\na,b\n", ["did you mean 'Summary'", "Rename it to 'summary'"]),
    (b"fname\tsummary\na\tb\n", ["separated by tabs"]),
    (b"fname;summary\na;b\n", ["separated by semicolons"]),
    (b"fname,summary,fname\na,b,c\n", ["'fname' stands twice"]),
    (b"fname,summary\na,b\nc,d,e\n", [":3", "3 cells where the header has 2", "'c'"]),
    (b"fname,summary\na\n", [":2", "1 cells where the header has 2"]),
    (b'fname,summary\na,b\nc,"d\ne,f\n', [":3", "never closed"]),
    (b'fname,summary\na,"b"c"\n', [":2", "double it"]),
    (b"fname,summary,\na,b,c\n", [":2", "cell 3 ('c')", "without a name"]),
]


@pytest.mark.parametrize(("content", "words"), REFUSED)
def test_refuses_with_place_and_way_out(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(path, required=("fname", "summary"))
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


ACCEPTED = [
    (b"fname,summary\na,b\n", {"fname": "a", "summary": "b"}),
    (b"fname,summary\na,b", {"fname": "a", "summary": "b"}),
    (b"\xef\xbb\xbffname,summary\na,b\n", {"fname": "a", "summary": "b"}),
    (b",fname,summary\n0,a,b\n", {"fname": "a", "summary": "b"}),
    (b"Unnamed: 0,fname,summary\n0,a,b\n", {"fname": "a", "summary": "b"}),
    (b"fname,summary,\na,b,\n", {"fname": "a", "summary": "b"}),
    (b"fname , summary\na, b \n", {"fname": "a", "summary": " b "}),
    (b'fname,summary\r\na,"b\r\nc"\r\n', {"fname": "a", "summary": "b\r\nc"}),
    (b'fname,summary\na,"b\rc"\n', {"fname": "a", "summary": "b\rc"}),
    (b"fname,summary,topic\na,b,c\n", {"fname": "a", "summary": "b", "topic": "c"}),
    (b"fname,summary\na,\n", {"fname": "a", "summary": ""}),
    (b'fname,summary\na,"say ""b"""\n', {"fname": "a", "summary": 'say "b"'}),
    (b"fname,summary\na," + b"x" * 300_000, {"fname": "a", "summary": "x" * 300_000}),
]


@pytest.mark.parametrize(("content", "values"), ACCEPTED)
def test_reads_cells_untouched(tmp_path: Path, content: bytes, values: dict[str, str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert read_rows(path, required=("fname", "summary")) == [TableRow(1, 2, values)]


def test_lines_are_those_on_which_rows_start(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('fname,summary\na,"1\n2\n3"\n\nb,x\nc,"y\nz"\nd,w\n', encoding="utf-8")
    rows = read_rows(path, required=("fname",))
    assert [(row.number, row.line, row.values["fname"]) for row in rows] == [
        (1, 2, "a"),
        (2, 6, "b"),
        (3, 7, "c"),
        (4, 9, "d"),
    ]


@pytest.mark.parametrize(
    ("make", "words"), [(Path.exists, "no such file"), (Path.mkdir, "is a folder")]
)
def test_refuses_what_is_no_file(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "dev.csv"
    make(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"dev\.csv: {words}"):
        read_rows(path, required=("fname",))


def test_all_broken_rows_are_told_up_to_ten(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "a\n" * 12, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(path, required=("fname",))
    text = str(caught.value)
    assert text.startswith("12 problems found")
    assert f"{path}:11 " in text and f"{path}:12 " not in text
    assert "… and 2 more" in text

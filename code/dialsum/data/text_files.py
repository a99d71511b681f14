"""Reads a text file whole as UTF-8, and says of anything else what it is.

Must not know what the text is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from dialsum.errors import DataError
from dialsum.reading import (
    BINARY,
    EMPTY,
    HEAD_BYTES,
    JSON,
    JSON_LINES,
    TEXT,
    UTF16,
    Look,
    look_at,
    read_regular,
    tell_kind,
)

WRITTEN = (TEXT, UTF16, EMPTY, JSON, JSON_LINES, BINARY)
"""Kinds of which the text itself says what is wrong with it."""


def read_text_file(path: Path) -> str:
    """Read a UTF-8 text file, with or without BOM; line ends stay as they are.

    Raises:
        DataError: no such file, no regular one, unreadable, packed or another sort of file by its
            first bytes, or not UTF-8 (the encoding is named).
    """
    return decode_text(read_file_bytes(path), path)


def read_file_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: it does not exist, is a folder, a pipe or a device, or cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError([_explain_unread(path, error)]) from None


def check_files(paths: Iterable[Path]) -> None:
    """Refuse files that cannot be read, before any is.

    Raises:
        DataError: as read_file_bytes, for every one of them.
    """
    problems = []
    for path in dict.fromkeys(paths):
        try:
            look_at(path)
        except OSError as error:
            problems.append(_explain_unread(path, error))
    if problems:
        raise DataError(problems)


def _explain_unread(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        return f"{path}: no such file" + (
            f"; did you mean {path.with_name(near[0])}?" if near else ""
        )
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder; a file is wanted here"
    return f"{path}: cannot be read: {error.strerror or error}"


def decode_text(content: bytes, path: Path) -> str:
    """Decode a text file as UTF-8, a BOM removed; name and refuse what is none.

    Raises:
        DataError: with the sort of file or the encoding that it seems to be, and what mends it.
    """
    kind = tell_kind(content[:HEAD_BYTES], path)
    if kind not in WRITTEN:
        look = Look(path, len(content), kind)
        said = look.explain(wanted="a text file such as CSV", otherwise="give the table as CSV")
        raise DataError([f"{path}: {said}"])
    if kind == UTF16:
        raise DataError([_wrong_encoding(path, "UTF-16")])
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        problem = (
            f"{path}:{line}  holds a NUL byte (0x00): the file is damaged or is no text; "
            f"write it anew, or remove them: tr -d '\\000' < '{path}' > clean.csv"
        )
        raise DataError([problem])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if _decodes_as(content, "cp949"):
            raise DataError([_wrong_encoding(path, "cp949")]) from None
        line = content.count(b"\n", 0, error.start) + 1
        problem = (
            f"{path}:{line}  is not UTF-8 (byte 0x{content[error.start]:02x}) and no encoding that "
            "is known here (cp949, UTF-16); save it as UTF-8"
        )
        raise DataError([problem]) from None


def _wrong_encoding(path: Path, encoding: str) -> str:
    korean = " (Korean Windows, Excel)" if encoding == "cp949" else ""
    return (
        f"{path}: is not UTF-8 but {encoding}{korean}; convert it: "
        f"iconv -f {encoding} -t UTF-8 '{path}' > utf8.csv && mv utf8.csv '{path}'"
        "   (in Excel: Save as -> CSV UTF-8)"
    )


def _decodes_as(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _names_beside(path: Path) -> list[str]:
    try:
        return [other.name for other in path.parent.iterdir()]
    except OSError:
        return []

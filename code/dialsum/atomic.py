"""Whole-file writes: temporary name, flush to disk, rename. A reader never sees half of a file.

Must not know what is written. Also holds the one way in which records become JSON.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialsum.errors import DiskFullError, RunError
from dialsum.printable import escape_in_quotes, printable

FORMULA = re.compile("[=+\\-@\t\r＝＋－＠]")
"""How a cell begins that a spreadsheet takes for a formula; East Asian ones know wide signs too."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write content to path in one piece, making its folder.

    Raises:
        DiskFullError: no space; the old file, if any, still stands.
        RunError: the folder or file cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        give_usual_mode(temporary)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(path) from error
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Give another place with --output-dir, or mend its permissions."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def give_usual_mode(path: Path) -> None:
    """Let a file be read by whom this user's files are: temporary files begin as private ones."""
    current = os.umask(0)
    os.umask(current)
    path.chmod(0o666 & ~current)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with \\n line ends, in one piece (errors as write_bytes)."""
    write_bytes(path, text.encode("utf-8"))


def write_report(path: Path, text: str) -> None:
    """Write text that people read on a terminal (errors as write_bytes)."""
    write_text(path, printable(text))


def to_plain(value: Any) -> Any:
    """Turn numpy and torch scalars, paths, sets and tuples into what JSON can hold.

    A float that is not finite becomes its name ("nan", "inf"): strict JSON has no word for it, and
    a record that says nothing would hide it. None entries of a mapping are left out: what is not
    known is absent.
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (set, frozenset)):
        return [to_plain(item) for item in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "item"):
        return to_plain(value.item())
    raise TypeError(f"cannot put {type(value).__name__} into a record: {value!r}")


def dump_json(value: Any) -> str:
    """Return value as the JSON text that every record has: UTF-8, two spaces, one line end."""
    return _to_json(value, indent=2) + "\n"


def _to_json(value: Any, *, indent: int | None = None) -> str:
    text = json.dumps(to_plain(value), ensure_ascii=False, indent=indent, allow_nan=False)
    return escape_in_quotes(text)


def write_json(path: Path, value: Any) -> None:
    """Write a record as JSON in one piece (errors as write_bytes)."""
    write_text(path, dump_json(value))


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line with a single write, so that a reader sees whole lines only.

    Raises:
        DiskFullError, RunError: as write_bytes.
    """
    line = _to_json(value) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8"))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(path) from error
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a UTF-8 CSV, quoted where needed, in one piece (errors as write_bytes); cells stand as
    they are."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_table_for_people(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV that people open in a spreadsheet (errors as write_bytes).

    Text that a spreadsheet would run as a formula gets an apostrophe before it; control characters
    become escapes.
    """
    write_csv(path, [str(_tame(name)) for name in header], ([*map(_tame, row)] for row in rows))


def _tame(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    return printable("'" + cell if FORMULA.match(cell) and not _is_number(cell) else cell)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

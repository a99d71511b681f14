"""Files: what lies at a path, told before it is read; text and bytes; whole-file writes.

A pipe or a device is never opened for reading: it would hold a night up. The first bytes say what
a file is, whatever its name claims. A write goes to a temporary name, to the disk, then to its own
name: a reader never sees half of a file. Standard library only: it runs on a fresh clone.
Must not know what a file is for.
"""

from __future__ import annotations

import csv
import difflib
import errno
import io
import json
import math
import os
import re
import shlex
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dialsum.errors import DataError, DiskFullError, RunError, UnfitError
from dialsum.text import escape_in_quotes, printable

"""The most of a file's or a command line's text that a message repeats."""
HEAD_BYTES = 4096
TEXT, UTF16, EMPTY, BINARY = "text", "UTF-16", "empty", "binary"
JSON, JSON_LINES, LFS, PAGE, REFUSAL = "json", "json lines", "lfs", "page", "refusal"
SAFETENSORS, TORCH, EXCEL, ZIP = "safetensors", "torch", "excel", "zip"

_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"%PDF-", "pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"SQLite format 3\0", "sqlite"),
    (b"\x89HDF\r\n", "hdf5"),
    (b"GGUF", "gguf"),
    (b"\x89PNG\r\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"\x93NUMPY", "numpy"),
    *((b"\x80" + bytes([protocol]), TORCH) for protocol in range(2, 6)),
)
_HUB_REFUSALS = re.compile(
    rb"Entry not found|Repository not found|Invalid username or password|Not Found|"
    rb"Access to (model|this) |Invalid credentials|Unauthorized|Forbidden"
)
_FETCH = "download the file itself (on huggingface.co the link with /resolve/, not /blob/)"
_UNPACK = "unpack it to {{out}}: {program} -dc {{path}} > {{new}} && mv {{new}} {{out}}"
_WORDS = {
    LFS: (
        "a Git LFS pointer, a note that stands for a file",
        "fetch the file itself: git lfs install && git lfs pull, in the clone that it is of",
    ),
    PAGE: ("a web page (HTML or XML)", _FETCH),
    REFUSAL: ("a server's refusal in place of a file", _FETCH),
    "gzip": ("packed by gzip", _UNPACK.format(program="gzip")),
    "bzip2": ("packed by bzip2", _UNPACK.format(program="bzip2")),
    "xz": ("packed by xz", _UNPACK.format(program="xz")),
    "zstd": ("packed by zstd", _UNPACK.format(program="zstd")),
    "7z": ("a 7z archive", "unpack it, and name a file of those in it: 7z x {path}"),
    "rar": ("a RAR archive", "unpack it, and name a file of those in it: unrar x {path}"),
    "tar": ("a tar archive", "unpack it, and name a file of those in it: tar -xf {path}"),
    ZIP: ("a zip archive", "unpack it, and name a file of those in it: unzip {path}"),
    EXCEL: ("an Excel workbook", "in Excel: Save as -> CSV UTF-8 (comma delimited)"),
    "ole": (
        "a document of an old office program (.xls, .doc, .hwp)",
        "save it anew: from Excel as CSV UTF-8 (comma delimited)",
    ),
    JSON: ("JSON", ""),
    JSON_LINES: ("JSON Lines", ""),
    "pdf": ("a PDF document", ""),
    "image": ("an image", ""),
    "sqlite": ("an SQLite database", ""),
    "parquet": ("a Parquet table", "write it as CSV: pandas.read_parquet(…).to_csv(…)"),
    "arrow": ("an Arrow table", "write it as CSV: datasets.Dataset.from_file(…).to_csv(…)"),
    "numpy": ("a NumPy array", ""),
    "hdf5": ("HDF5, as TensorFlow writes weights", ""),
    "gguf": ("GGUF, as llama.cpp reads weights", ""),
    SAFETENSORS: ("weights in safetensors", ""),
    TORCH: ("a pickle, as torch.save writes weights", ""),
    UTF16: ("text in UTF-16", "save it as UTF-8"),
    EMPTY: ("empty", ""),
    TEXT: ("text", ""),
    BINARY: ("no text", ""),
}


class NotRegularError(OSError):
    """A pipe, a device or a socket where a file is wanted; reading it may never end."""


class TooLargeError(OSError):
    """More bytes than a file of this sort can have."""


@dataclass(frozen=True)
class Look:
    """What lies at a path, by its size and its first bytes.

    Attributes:
        size: in bytes.
        kind: one of this module's names: TEXT, JSON, SAFETENSORS, "gzip" ….
    """

    path: Path
    size: int
    kind: str

    def explain(self, *, wanted: str, otherwise: str) -> str:
        """Say that it is not what is wanted, and how to come by that.

        Args:
            wanted: such as `a CSV file`.
            otherwise: what to do where its kind has no way out of its own.
        """
        found, way_out = _WORDS[self.kind]
        out = self.path.with_name(re.sub(r"(?<=.)\.(gz|bz2|xz|zst)$", "", self.path.name))
        names = {"path": self.path, "out": out, "new": f"{out}.new"}
        way_out = way_out.format(**{key: shlex.quote(str(name)) for key, name in names.items()})
        found += "" if self.kind == EMPTY else f", not {wanted}"
        return f"is {found}; {way_out or otherwise}"


def look_at(path: Path) -> Look:
    """Look at a file, a few thousand bytes of it at most.

    Raises:
        OSError: it is absent, a folder, unreadable, or no regular file (NotRegularError).
    """
    size = _check_regular(path)
    return Look(path, size, tell_kind(_read(path, HEAD_BYTES), path))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: as look_at.
    """
    _check_regular(path)
    return open(path, "rb", opener=_without_waiting)


def read_regular(path: Path, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file whole.

    Args:
        max_bytes: the most that a file of this sort can have.

    Raises:
        OSError: as look_at; TooLargeError beyond max_bytes.
    """
    size = _check_regular(path)
    if max_bytes is None:
        return _read(path, -1)
    # Files of /proc say that they have no bytes, and have many.
    content = _read(path, max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        found = f"holds {max(size, len(content)):,} bytes, more than the {max_bytes:,} that it may"
        raise TooLargeError(errno.EFBIG, found, str(path))
    return content


def refuse_foreign(path: Path, *, is_ours: Callable[[bytes], bool]) -> None:
    """Refuse to write over a file that this program did not write; an empty one is nobody's.

    Args:
        is_ours: tells it by its first HEAD_BYTES bytes.

    Raises:
        UnfitError: somebody else's file stands there, or something that cannot be looked at.
    """
    try:
        _check_regular(path)
        head = _read(path, HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnfitError(f"{path}: {error.strerror or error}; give another name") from error
    if head and not is_ours(head):
        raise UnfitError(
            f"{path}: was not written by this command and would be lost; it was not touched. "
            "Give another name, or move it away"
        )


def tell_kind(head: bytes, path: Path) -> str:
    """Say what a file is by its first bytes; of a zip archive, its list of names decides.

    Args:
        head: its first HEAD_BYTES bytes, or all of it.
        path: the file itself.
    """
    if not head:
        return EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _tell_zip(head, path)
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return "bzip2"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length < 2**32:
        return SAFETENSORS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return EMPTY
    if re.match(rb"<(!--|(!doctype|html|head|body|\?xml|error)\b)", text, flags=re.IGNORECASE):
        return PAGE
    if len(head) < 512 and _HUB_REFUSALS.match(text):
        return REFUSAL
    if re.match(rb"\{\s*[\"}]|\[\s*[\[{\"\]\d]", text):
        first, end, rest = text.partition(b"\n")
        lines = end and first.rstrip().endswith((b"}", b"]")) and rest.lstrip()[:1] in (b"{", b"[")
        return JSON_LINES if lines else JSON
    # Without a mark at its start, UTF-16 shows by a NUL beside separators and line ends.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (
        re.search(rb"[,:]\0|\0[,:]", head) and re.search(rb"\n\0|\0\n", head)
    ):
        return UTF16
    return BINARY if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head[:512]) else TEXT


def _check_regular(path: Path) -> int:
    """Return the size of a regular file in bytes; raise OSError for what is none."""
    found = path.stat()
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    sort = {"p": "a pipe", "s": "a socket"}.get(stat.filemode(found.st_mode)[0], "a device")
    raise NotRegularError(errno.EINVAL, f"is {sort}, no regular file", str(path))


def _read(path: Path, most: int) -> bytes:
    """Read what passes for a regular file: all of it (-1), or the first bytes.

    The kernel's log in /proc passes for one, and waits for more at its end.
    """
    parts = []
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        while part := file.read(most):
            parts.append(part)
            most -= len(part) if most > 0 else 0
    if part is None:
        raise NotRegularError(errno.EINVAL, "is a stream, no regular file", str(path))
    return b"".join(parts)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _tell_zip(head: bytes, path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        # Its list of names stands at its end: a download that broke off has none.
        names = [head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")]
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return TORCH
    # Of a broken workbook, only the name that every office program writes first is left.
    excel = any(name.startswith("xl/") for name in names) or names == ["[Content_Types].xml"]
    return EXCEL if excel else ZIP


def read_text_file(path: Path, content: bytes | None = None) -> str:
    """Read a UTF-8 text file, with or without BOM; line ends stay as they are.

    Args:
        content: its bytes, where they were read already.

    Raises:
        DataError: no such file, no regular one, unreadable, packed or another sort of file by its
            first bytes, or not UTF-8 (the encoding is named).
    """
    content = read_file_bytes(path) if content is None else content
    kind = tell_kind(content[:HEAD_BYTES], path)
    # Of these kinds the text itself says what is wrong with it.
    if kind not in (TEXT, UTF16, EMPTY, JSON, JSON_LINES, BINARY):
        look = Look(path, len(content), kind)
        said = look.explain(wanted="a text file such as CSV", otherwise="give the table as CSV")
        raise DataError([f"{path}: {said}"])
    if kind != UTF16 and b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        problem = (
            f"{path}:{line}  holds a NUL byte (0x00): the file is damaged or is no text; "
            f"write it anew, or remove them: tr -d '\\000' < '{path}' > clean.csv"
        )
        raise DataError([problem])
    try:
        if kind != UTF16:
            return content.decode("utf-8-sig")
        encoding = UTF16
    except UnicodeDecodeError as error:
        try:
            content.decode("cp949")
        except UnicodeDecodeError:
            line = content.count(b"\n", 0, error.start) + 1
            problem = (
                f"{path}:{line}  is not UTF-8 (byte 0x{content[error.start]:02x}) and no encoding "
                "that is known here (cp949, UTF-16); save it as UTF-8"
            )
            raise DataError([problem]) from None
        encoding = "cp949"
    korean = " (Korean Windows, Excel)" if encoding == "cp949" else ""
    raise DataError(
        [
            f"{path}: is not UTF-8 but {encoding}{korean}; convert it: "
            f"iconv -f {encoding} -t UTF-8 '{path}' > utf8.csv && mv utf8.csv '{path}'"
            "   (in Excel: Save as -> CSV UTF-8)"
        ]
    )


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
        beside: list[str] = []
        with suppress(OSError):
            beside = [other.name for other in path.parent.iterdir()]
        near = difflib.get_close_matches(path.name, beside, n=1)
        return f"{path}: no such file" + (
            f"; did you mean {path.with_name(near[0])}?" if near else ""
        )
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder; a file is wanted here"
    return f"{path}: cannot be read: {error.strerror or error}"


FORMULA = re.compile("[=+\\-@\t\r＝＋－＠]")
"""How a cell begins that a spreadsheet takes for a formula; East Asian ones know wide signs too."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write content to path in one piece, making its folder.

    Raises:
        DiskFullError: no space; the old file, if any, still stands.
        RunError: the folder or file cannot be written.
    """
    with _writing(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            give_usual_mode(Path(name))
            Path(name).replace(path)
            sync_folder(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


_HALF_WRITTEN = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", flags=re.DOTALL)


def find_half_written(folder: Path, names: Iterable[str] | None = None) -> list[Path]:
    """Return what write_bytes left in a folder of files that it was killed over; none where there
    is no such folder.

    Args:
        names: of the files that were to come of them; None: any.
    """
    try:
        found = [(path, _HALF_WRITTEN.fullmatch(path.name)) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    wanted = None if names is None else set(names)
    return [path for path, name in found if name and (wanted is None or name[1] in wanted)]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder of a file; say what keeps the file from being written (as write_bytes)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(path) from error
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Give another place with --output-dir, or mend its permissions."
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a draft beside out that becomes it where the block ends well, and goes where not.

    Raises:
        UnfitError: out holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UnfitError(f"{out}: is there already; name a new or empty folder")
    draft = out.with_name(f"{out.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True)
    try:
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line with a single write, so that a reader sees whole lines only.

    Raises:
        DiskFullError, RunError: as write_bytes.
    """
    line = _to_json(value) + "\n"
    with _writing(path), path.open("ab", buffering=0) as file:
        file.write(line.encode("utf-8"))


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

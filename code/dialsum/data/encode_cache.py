"""Encoded rows kept from run to run: Arrow files, mapped into memory when read.

Must not know what encoding does (encode.py). A file is named by a hash of all that its content
depends on, so that it cannot be stale, and by a hash of its own bytes, so that a damaged one is
seen. Only files under such names, in a folder of their own, are ever removed. Arrow is read and
written by pyarrow itself: `datasets` on top of it takes a second to import, keeps a cache of its
own that nothing bounds, and cannot see a damaged file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dialsum.atomic import write_bytes
from dialsum.data.dialogues import Dialogue
from dialsum.data.encode import ENCODING_VERSION, EncodeSettings, encode_rows
from dialsum.data.encoded import CacheUse, Counts, EncodedSplit
from dialsum.data.ragged import TokenRows
from dialsum.errors import RunError, first_line
from dialsum.paths import shown

OWN_FOLDER = "dialsum-rows"
"""Made inside the folder that is asked for, which may hold anything."""

LIMIT_BYTES = 2**30
"""The files read longest ago go when all together take more: 12,457 rows take 15 MB."""

HASH_LENGTH = 32
LEFT_BEHIND_SECONDS = 3600
"""Age from which a temporary file is no process's that still writes it."""

_KEPT = rf"[0-9a-f]{{{HASH_LENGTH}}}-[0-9a-f]{{{HASH_LENGTH}}}\.arrow"
KEPT_NAME = re.compile(_KEPT)
TEMPORARY_NAME = re.compile(rf"\.{_KEPT}\.\w+\.tmp")
"""As atomic.write_bytes names what it has not finished."""


@dataclass
class CachedEncoder:
    """Encodes splits, or reads what an earlier run made of the same rows.

    Args:
        tokenizer: as it is now; it must not be changed while this is used.
        settings: of the encoding.
        folder: encoded rows are kept in OWN_FOLDER there; None: they are not.
        limit_bytes: what all files may take together; the newest always stays.
    """

    tokenizer: Any
    settings: EncodeSettings
    folder: Path | None
    limit_bytes: int = LIMIT_BYTES
    warnings: list[str] = field(default_factory=list)
    """What the user should know, each said once: the run goes on in any case."""

    def __post_init__(self) -> None:
        self._fingerprint = ""
        if self.folder is not None:
            self.folder = self.folder / OWN_FOLDER
            self._fingerprint = fingerprint(self.tokenizer, self.settings)

    def encode(self, rows: Sequence[Dialogue]) -> EncodedSplit:
        """Return a split as token ids.

        Raises:
            RunError: as encode_rows; never for the cache's sake.
        """
        if self.folder is None:
            return encode_rows(rows, self.tokenizer, **asdict(self.settings))
        key = make_key(self._fingerprint, rows)
        found = self._read(self.folder, key)
        if found is not None:
            return replace(found, cache=CacheUse(key, "read"))
        made = encode_rows(rows, self.tokenizer, **asdict(self.settings))
        if not self._keep(self.folder, key, made):
            return replace(made, cache=CacheUse(key, "made, not kept"))
        # From the file, so that its pages are shared with other processes and need no memory here.
        return replace(self._read(self.folder, key) or made, cache=CacheUse(key, "made"))

    def _read(self, folder: Path, key: str) -> EncodedSplit | None:
        """Return what is kept under a key; a damaged file is said and removed."""
        for path in sorted(folder.glob(f"{key}-*.arrow")):
            try:
                if _own_file(path, KEPT_NAME) is None:
                    continue
                found = read_split(path, digest=path.stem.partition("-")[2])
                if found is not None:
                    # Used now: the last to go. A folder that can only be read serves all the same.
                    with suppress(OSError):
                        os.utime(path)
                    return found
                self._warn(f"{shown(path)}: damaged; its rows are encoded again")
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # another process tidied up
            except OSError as error:
                self._warn(
                    f"{shown(path)}: cannot be used ({error.strerror or error}); "
                    "its rows are encoded again"
                )
        return None

    def _keep(self, folder: Path, key: str, made: EncodedSplit) -> bool:
        content = dump_split(made)
        path = folder / f"{key}-{_hash(content)}.arrow"
        try:
            write_bytes(path, content)
        except RunError as error:
            self._warn(
                f"encoded rows cannot be kept in {shown(folder)} "
                f"({getattr(error.__cause__, 'strerror', None) or first_line(error)}), so that "
                "every run encodes them again; set data.cache_dir to a folder that can be written "
                "and has room, or to null"
            )
            return False
        try:
            remove_oldest(folder, keep=path, limit_bytes=self.limit_bytes)
        except OSError as error:
            self._warn(
                f"{shown(folder)}: old encoded rows cannot be removed "
                f"({error.strerror or error}); remove them yourself"
            )
        return True

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def fingerprint(tokenizer: Any, settings: EncodeSettings) -> str:
    """Return a hash of all but the rows that token ids depend on.

    The tokenizer counts as its tokenizer.json would say it, with the few settings that are none of
    that file's and the versions of the libraries that act on it.
    """
    description = {
        "version": ENCODING_VERSION,
        "settings": asdict(settings),
        "tokenizer": _hash(tokenizer.backend_tokenizer.to_str().encode()),
        "end": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        "libraries": [version(name) for name in ("tokenizers", "transformers")],
    }
    return _hash(json.dumps(description, sort_keys=True).encode())


def make_key(fingerprint: str, rows: Sequence[Dialogue]) -> str:
    """Return what encoded rows are kept under; names and topics of rows are not encoded."""
    texts = [text for row in rows for text in (row.dialogue, row.summary)]
    # The lengths say where one text ends and the next begins.
    lengths = [None if text is None else len(text) for text in texts]
    whole = "".join([json.dumps([fingerprint, *lengths]), *filter(None, texts)])
    return _hash(whole.encode("utf-8", "surrogatepass"))


def _hash(content: bytes | Any) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_LENGTH]


def dump_split(split: EncodedSplit) -> bytes:
    """Return a split as the bytes of an Arrow file; the counts stand in its schema."""
    import pyarrow as pa

    columns = {"inputs": split.inputs}
    if split.targets is not None:
        columns["targets"] = split.targets
    counts = json.dumps(asdict(split.counts)).encode()
    batch = pa.record_batch(
        [_to_arrow(rows) for rows in columns.values()], names=list(columns)
    ).replace_schema_metadata({"counts": counts})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _to_arrow(rows: TokenRows) -> Any:
    """Return rows as a column. From buffers: pyarrow imports pandas to look at a numpy array."""
    import pyarrow as pa

    first, last = rows.offsets[0], rows.offsets[-1]
    offsets, values = pa.py_buffer(rows.offsets - first), pa.py_buffer(rows.values[first:last])
    ids = pa.Array.from_buffers(pa.int32(), last - first, [None, values])
    column = pa.large_list(pa.int32())
    return pa.LargeListArray.from_buffers(column, len(rows), [None, offsets], children=[ids])


def _from_arrow(column: Any) -> TokenRows:
    if not len(column):
        return TokenRows.from_lists([])
    _, offsets, _, values = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64, count=len(column) + 1)
    return TokenRows(np.frombuffer(values or b"", dtype=np.int32, count=int(ends[-1])), ends)


def read_split(path: Path, *, digest: str) -> EncodedSplit | None:
    """Map a file of dump_split into memory; None if its bytes are not those that were written.

    The bytes are checked before Arrow looks at them: it trusts the lengths that it finds there.
    """
    import pyarrow as pa

    if not path.stat().st_size:
        return None
    content = pa.memory_map(str(path)).read_buffer()
    if _hash(content) != digest:
        return None
    batch = pa.ipc.open_file(content).get_batch(0)
    columns = {
        name: _from_arrow(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    counts = Counts(**json.loads(batch.schema.metadata[b"counts"]))
    return EncodedSplit(columns["inputs"], columns.get("targets"), counts)


def remove_oldest(
    folder: Path, *, keep: Path, limit_bytes: int, now: Callable[[], float] = time.time
) -> None:
    """Remove the files used longest ago until the rest fits, and what killed writers left.

    Only what this module writes: other names and links stay, and do not count.

    Args:
        keep: stays whatever its size.
    """
    files = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process tidied up
            if (state := _own_file(path, KEPT_NAME)) is not None:
                files.append((path != keep, -state.st_mtime, state.st_size, path))
                continue
            left = _own_file(path, TEMPORARY_NAME)
            if left is not None and now() - left.st_mtime > LEFT_BEHIND_SECONDS:
                path.unlink()
    total = 0
    for other, _, size, path in sorted(files):
        total += size
        if other and total > limit_bytes:
            path.unlink(missing_ok=True)


def _own_file(path: Path, name: re.Pattern[str]) -> os.stat_result | None:
    """Return the state of a regular file under such a name; None: it is none of these."""
    if name.fullmatch(path.name) is None:
        return None
    state = path.lstat()
    return state if stat.S_ISREG(state.st_mode) else None

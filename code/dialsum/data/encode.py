"""Dialogues and summaries as token ids: prefix, what is kept of long ones, end tokens, counts.

Must not know models or training; the tokenizer is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data.prompts import Kept, build_input, find_turns, keep_part
from dialsum.data.rows import Dialogue
from dialsum.errors import RunError, first_line
from dialsum.files import write_bytes
from dialsum.paths import shown


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence[list[int]]):
    """Rows of token ids; a row is read as a list.

    Args:
        values: the ids of all rows, one after another, int32.
        offsets: where each row begins, and last where the last one ends, int64, [rows + 1].
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> TokenRows:
        """Copy lists of ids."""
        kept = list(rows)
        lengths = np.fromiter(map(len, kept), dtype=np.int64, count=len(kept))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        values = np.fromiter(chain.from_iterable(kept), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def join(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Return the rows of all parts, in order."""
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), *map(np.asarray, lengths)]).cumsum()
        values = [part.values[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate([np.zeros(0, dtype=np.int32), *values]), offsets)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row, int32, [rows]."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def longest(self) -> int:
        """Tokens of the longest row; 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> list[int] | TokenRows:
        """Return a row as a list, or a slice of rows, which shares its ids with this one."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return TokenRows.from_lists(self[row] for row in range(start, stop, step))
            return TokenRows(self.values, self.offsets[start : max(start, stop) + 1])
        row = range(len(self))[index]
        ids: list[int] = self.values[self.offsets[row] : self.offsets[row + 1]].tolist()
        return ids

    def __iter__(self) -> Iterator[list[int]]:
        return (self[row] for row in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Take only these rows along to another process, not all that the arrays hold."""
        first, last = self.offsets[0], self.offsets[-1]
        return TokenRows, (np.array(self.values[first:last]), self.offsets - first)


@dataclass(frozen=True)
class Counts:
    """What was cut and what the vocabulary lacks, in a whole split.

    Args:
        truncated_inputs, truncated_targets: rows that were longer.
        left_out_turns: turns of the dialogues of which nothing was kept.
        inputs_cut_inside: dialogues of which a turn was cut inside.
        left_out_input_tokens, left_out_target_tokens: tokens that were cut.
        unknown_inputs, unknown_targets: rows with at least one piece that the vocabulary lacks.
    """

    truncated_inputs: int = 0
    left_out_turns: int = 0
    inputs_cut_inside: int = 0
    left_out_input_tokens: int = 0
    unknown_inputs: int = 0
    truncated_targets: int = 0
    left_out_target_tokens: int = 0
    unknown_targets: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums."""
        more = asdict(other)
        return Counts(**{name: count + more[name] for name, count in asdict(self).items()})


@dataclass(frozen=True)
class CacheUse:
    """Where an encoded split came from.

    Args:
        key: stands for rows, tokenizer and settings.
        how: read from the cache, made and kept there, or made and not kept.
    """

    key: str
    how: str


@dataclass(frozen=True)
class EncodedSplit:
    """One split as token ids.

    Args:
        inputs: end token included where the tokenizer gives one, at most encoder_max_len long.
        targets: the same for the summaries, always with an end token, at most decoder_max_len
            long; None without summaries.
        counts: of the whole split, whatever part of it this is.
        cache: None where none was asked for.
    """

    inputs: TokenRows
    targets: TokenRows | None
    counts: Counts
    cache: CacheUse | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_lengths(self) -> NDArray[np.int32]:
        """Tokens of each input, int32, [rows]."""
        return self.inputs.lengths

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target, int32, [rows]; zeros without summaries."""
        if self.targets is None:
            return np.zeros(len(self), dtype=np.int32)
        return self.targets.lengths

    def first(self, rows: int) -> EncodedSplit:
        """Return the first rows; the counts stay those of the whole split."""
        targets = None if self.targets is None else self.targets[:rows]
        return replace(self, inputs=self.inputs[:rows], targets=targets)

    def describe(self) -> str:
        """Say in one line how many rows there are, how long, what was cut, and if it was read."""
        counts = self.counts
        cut = f"{counts.truncated_inputs} inputs"
        if counts.truncated_inputs:
            inside = counts.inputs_cut_inside
            cut += f" ({counts.left_out_turns} turns left out, {inside} cut inside a turn)"
        if self.targets is not None:
            cut += f", {counts.truncated_targets} targets"
        source = f"; {self.cache.how} (cache {self.cache.key[:8]})" if self.cache else ""
        return f"{len(self):,} rows, longest input {self.inputs.longest} tokens; cut: {cut}{source}"

    def to_record(self) -> dict[str, Any]:
        """Return the counts as they stand in result.json."""
        record: dict[str, Any] = {
            "rows": len(self),
            "longest_input_tokens": self.inputs.longest,
            **asdict(self.counts),
        }
        if self.targets is None:
            record = {name: value for name, value in record.items() if "target" not in name}
        else:
            record["longest_target_tokens"] = self.targets.longest
        if self.cache is not None:
            record["cache"] = asdict(self.cache)
        return record


ENCODING_VERSION = 1
"""Raised with every change of what encode_rows makes of the same rows; a test holds it to that.
Rows that an earlier version encoded are then encoded again."""

CHUNK_ROWS = 1024
"""Rows given to the tokenizer at once: enough for all of its threads. Its own objects take thirty
times the memory of the ids."""


@dataclass(frozen=True)
class EncodeSettings:
    """What the config says of encoding; names and meaning as in its tokenizer section."""

    prefix: str
    encoder_max_len: int
    decoder_max_len: int
    keep: KeptPart = "both_ends"

    @classmethod
    def from_config(cls, asked: Tokenizer) -> EncodeSettings:
        """Take what counts here of the tokenizer section."""
        return cls(
            prefix=asked.input_prefix,
            encoder_max_len=asked.encoder_max_len,
            decoder_max_len=asked.decoder_max_len,
            keep=asked.long_dialogues_keep,
        )


def encode_rows(
    rows: Sequence[Dialogue],
    tokenizer: Any,
    *,
    prefix: str,
    encoder_max_len: int,
    decoder_max_len: int,
    keep: KeptPart = "both_ends",
) -> EncodedSplit:
    """Encode a split; every input and target ends in the tokenizer's end token where that has one.

    KoBART's tokenizer adds no end token by itself: a target without one teaches the model never to
    stop, so it is added to targets always. Inputs get what the checkpoint's tokenizer gives them,
    as in its pre-training. The tokenizer's own threads use all cores.

    Args:
        keep: the part of a too long dialogue that stays; of a summary it is always the start.

    Raises:
        RunError: the prefix leaves no room for a dialogue that has to be cut.
    """
    settings = EncodeSettings(prefix, encoder_max_len, decoder_max_len, keep)
    inputs, targets, counts = [], [], Counts()
    has_targets = all(row.summary is not None for row in rows)
    for chunk in _chunks(rows):
        ids, counted = _encode_inputs(chunk, tokenizer, settings)
        inputs.append(TokenRows.from_lists(ids))
        counts = counts.plus(counted)
        if has_targets:
            summaries = [row.summary or "" for row in chunk]
            ids, counted = _encode_targets(summaries, tokenizer, max_length=decoder_max_len)
            targets.append(TokenRows.from_lists(ids))
            counts = counts.plus(counted)
    return EncodedSplit(
        TokenRows.join(inputs), TokenRows.join(targets) if has_targets else None, counts
    )


def _chunks(rows: Sequence[Dialogue]) -> Iterator[Sequence[Dialogue]]:
    return (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))


def _encode_targets(
    texts: Sequence[str], tokenizer: Any, *, max_length: int
) -> tuple[list[list[int]], Counts]:
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    ids = tokenizer([fold_spaces(text) for text in texts], return_attention_mask=False)["input_ids"]
    bodies = [row[:-1] if row and row[-1] == end else row for row in ids]
    over = [len(body) + 1 - max_length for body in bodies if len(body) + 1 > max_length]
    return [[*body[: max_length - 1], end] for body in bodies], Counts(
        truncated_targets=len(over),
        left_out_target_tokens=sum(over),
        unknown_targets=sum(unknown in row for row in ids),
    )


def _encode_inputs(
    rows: Sequence[Dialogue], tokenizer: Any, settings: EncodeSettings
) -> tuple[list[list[int]], Counts]:
    texts = [fold_spaces(build_input(settings.prefix, row.dialogue)) for row in rows]
    encoded: list[list[int]] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    counts = Counts(unknown_inputs=sum(unknown in ids for ids in encoded))
    long = [at for at, ids in enumerate(encoded) if len(ids) > settings.encoder_max_len]
    if not long:
        return encoded, counts
    # Where each token stands in the text is asked for these few only.
    offsets = tokenizer(
        [texts[at] for at in long], return_attention_mask=False, return_offsets_mapping=True
    )["offset_mapping"]
    for at, places in zip(long, offsets, strict=True):
        shorter, counted = _shorten(texts[at], encoded[at], places, settings)
        encoded[at] = shorter
        counts = counts.plus(counted)
    return encoded, counts


def _shorten(
    text: str, ids: list[int], offsets: Sequence[tuple[int, int]], settings: EncodeSettings
) -> tuple[list[int], Counts]:
    """Return an input with its prefix and end token, and as much of its dialogue as there is room.

    Args:
        offsets: characters of text that each id stands for.
    """
    start = len(fold_spaces(build_input(settings.prefix, "x"))) - 1
    found = find_turns(text, offsets, start=start)
    first, last = found.span if found else (len(ids), len(ids))
    room = settings.encoder_max_len - first - (len(ids) - last)
    if found is None or room < 1:
        raise RunError(
            f"tokenizer.encoder_max_len {settings.encoder_max_len}: tokenizer.input_prefix "
            f"{settings.prefix!r} and the end token take {len(ids) - last + first} tokens, so that "
            "none is left for a dialogue; shorten the prefix or allow longer inputs, such as 512"
        )
    kept: Kept = keep_part(found, room, part=settings.keep)
    body = [token for begin, stop in kept.spans for token in ids[begin:stop]]
    return [*ids[:first], *body, *ids[last:]], Counts(
        truncated_inputs=1,
        left_out_turns=kept.turns_left_out,
        inputs_cut_inside=int(kept.inside),
        left_out_input_tokens=last - first - len(body),
    )


def fold_spaces(text: str) -> str:
    """Fold runs of white space to one space, line ends kept: a tokenizer may keep each of them."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


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
"""As files.write_bytes names what it has not finished."""


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

"""Dialogues and summaries as token ids, kept from run to run.

A row's ids are a view into one flat array: lists of them would take eight times the memory. Kept
rows lie in Arrow files, mapped into memory when read. Such a file is named by a hash of all that
its content depends on, so that it cannot be stale, and by a hash of its own bytes, so that a
damaged one is seen. Only files under such names, in a folder of their own, are ever removed.
pyarrow writes and reads them: `datasets`, which builds on it, takes as long to import as half of
the encoding of 12,457 rows, 80 MB of memory, and trusts a damaged file.

Must not know models or training; the tokenizer is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data.prompts import build_input, find_turns, keep_part
from dialsum.data.rows import Dialogue
from dialsum.errors import RunError, first_line
from dialsum.files import write_bytes
from dialsum.paths import shown

ENCODING_VERSION = 1
"""Raised with every change of what encode_rows makes of the same rows; a test holds it to that.
Rows that an earlier version encoded are then encoded again."""

CHUNK_ROWS = 1024
"""Rows given to the tokenizer at once: enough for all of its threads. Its own objects take thirty
times the memory of the ids."""

OWN_FOLDER = "dialsum-rows"
"""Made inside the folder that is asked for, which may hold anything."""

LIMIT_BYTES = 2**30
"""The files read longest ago go when all together take more: 12,457 rows take 15 MB."""

LEFT_BEHIND_SECONDS = 3600
"""Age from which a temporary file is no process's that still writes it."""

_HASH_LENGTH = 32
_KEPT_NAME = rf"[0-9a-f]{{{_HASH_LENGTH}}}-[0-9a-f]{{{_HASH_LENGTH}}}\.arrow"
_TEMPORARY_NAME = rf"\.{_KEPT_NAME}\.\w+\.tmp"  # as files.write_bytes names what it writes

TokenIds = list[NDArray[np.int32]]
"""The ids of each row."""


@dataclass(frozen=True)
class EncodeSettings:
    """What the config's tokenizer section says of encoding."""

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

    def plus(self, **more: int) -> Counts:
        """Return the sums."""
        return replace(self, **{name: getattr(self, name) + n for name, n in more.items()})


@dataclass(frozen=True)
class EncodedSplit:
    """One split as token ids.

    Args:
        inputs: end token included where the tokenizer gives one, at most encoder_max_len long.
        targets: the same for the summaries, always with an end token, at most decoder_max_len
            long; None without summaries.
        counts: of the whole split, whatever part of it this is.
        cache: None where none was asked for; its key, and how: read from the cache, made and kept
            there, or made and not kept.
    """

    inputs: TokenIds
    targets: TokenIds | None
    counts: Counts
    cache: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_lengths(self) -> NDArray[np.int32]:
        """Tokens of each input, [rows]."""
        return np.fromiter(map(len, self.inputs), np.int32, count=len(self))

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target, [rows]; zeros without summaries."""
        if self.targets is None:
            return np.zeros(len(self), np.int32)
        return np.fromiter(map(len, self.targets), np.int32, count=len(self))

    def first(self, rows: int) -> EncodedSplit:
        """Return the first rows; the counts stay those of the whole split."""
        targets = None if self.targets is None else self.targets[:rows]
        return replace(self, inputs=self.inputs[:rows], targets=targets)

    def describe(self) -> str:
        """Say in one line how many rows there are, how long, what was cut, and if it was read."""
        counts, longest = self.counts, self.input_lengths.max(initial=0)
        cut = f"{counts.truncated_inputs} inputs"
        if counts.truncated_inputs:
            inside = counts.inputs_cut_inside
            cut += f" ({counts.left_out_turns} turns left out, {inside} cut inside a turn)"
        if self.targets is not None:
            cut += f", {counts.truncated_targets} targets"
        source = f"; {self.cache['how']} (cache {self.cache['key'][:8]})" if self.cache else ""
        return f"{len(self):,} rows, longest input {longest} tokens; cut: {cut}{source}"

    def to_record(self) -> dict[str, Any]:
        """Return the counts as they stand in result.json."""
        record: dict[str, Any] = {
            "rows": len(self),
            "longest_input_tokens": int(self.input_lengths.max(initial=0)),
            **asdict(self.counts),
        }
        if self.targets is None:
            record = {name: value for name, value in record.items() if "target" not in name}
        else:
            record["longest_target_tokens"] = int(self.target_lengths.max(initial=0))
        return record | ({"cache": self.cache} if self.cache else {})


def encode_rows(rows: Sequence[Dialogue], tokenizer: Any, settings: EncodeSettings) -> EncodedSplit:
    """Encode a split; every input and target ends in the tokenizer's end token where that has one.

    KoBART's tokenizer adds no end token by itself: a target without one teaches the model never to
    stop, so it is added to targets always. Inputs get what the checkpoint's tokenizer gives them,
    as in its pre-training. The tokenizer's own threads use all cores.

    Raises:
        RunError: the prefix leaves no room for a dialogue that has to be cut.
    """
    inputs, targets, counts = [], [], Counts()
    has_targets = all(row.summary is not None for row in rows)
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        ids, counts = _encode_inputs(chunk, tokenizer, settings, counts)
        inputs.append(_flatten(ids))
        if has_targets:
            ids, counts = _encode_targets(chunk, tokenizer, settings, counts)
            targets.append(_flatten(ids))
    return EncodedSplit(_join(inputs), _join(targets) if has_targets else None, counts)


def _encode_targets(
    rows: Sequence[Dialogue], tokenizer: Any, settings: EncodeSettings, counts: Counts
) -> tuple[list[list[int]], Counts]:
    end, unknown, most = tokenizer.eos_token_id, tokenizer.unk_token_id, settings.decoder_max_len
    texts = [fold_spaces(row.summary or "") for row in rows]
    ids = tokenizer(texts, return_attention_mask=False)["input_ids"]
    bodies = [row[:-1] if row and row[-1] == end else row for row in ids]
    over = [len(body) + 1 - most for body in bodies if len(body) + 1 > most]
    return [[*body[: most - 1], end] for body in bodies], counts.plus(
        truncated_targets=len(over),
        left_out_target_tokens=sum(over),
        unknown_targets=sum(unknown in row for row in ids),
    )


def _encode_inputs(
    rows: Sequence[Dialogue], tokenizer: Any, settings: EncodeSettings, counts: Counts
) -> tuple[list[list[int]], Counts]:
    texts = [fold_spaces(build_input(settings.prefix, row.dialogue)) for row in rows]
    encoded: list[list[int]] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    unknown, most = tokenizer.unk_token_id, settings.encoder_max_len
    counts = counts.plus(unknown_inputs=sum(unknown in ids for ids in encoded))
    long = [at for at, ids in enumerate(encoded) if len(ids) > most]
    if not long:
        return encoded, counts
    # Where each token stands in the text is asked for these few only.
    offsets = tokenizer(
        [texts[at] for at in long], return_attention_mask=False, return_offsets_mapping=True
    )["offset_mapping"]
    dialogue_start = len(fold_spaces(build_input(settings.prefix, "x"))) - 1
    for at, places in zip(long, offsets, strict=True):
        ids = encoded[at]
        found = find_turns(texts[at], places, start=dialogue_start)
        first, last = found.span if found else (len(ids), len(ids))
        room = most - first - (len(ids) - last)
        if found is None or room < 1:
            raise RunError(
                f"tokenizer.encoder_max_len {most}: tokenizer.input_prefix "
                f"{settings.prefix!r} and the end token take {len(ids) - last + first} tokens, so "
                "that none is left for a dialogue; shorten the prefix or allow longer inputs, such "
                "as 512"
            )
        kept = keep_part(found, room, part=settings.keep)
        body = [token for begin, stop in kept.spans for token in ids[begin:stop]]
        encoded[at] = [*ids[:first], *body, *ids[last:]]
        counts = counts.plus(
            truncated_inputs=1,
            left_out_turns=kept.turns_left_out,
            inputs_cut_inside=int(kept.inside),
            left_out_input_tokens=last - first - len(body),
        )
    return encoded, counts


def fold_spaces(text: str) -> str:
    """Fold runs of white space to one space, line ends kept: a tokenizer may keep each of them."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def _flatten(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids of all rows in one array, and the length of each row."""
    lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int32, count=int(lengths.sum())), lengths


def _join(parts: Sequence[tuple[NDArray[np.int32], NDArray[np.int64]]]) -> TokenIds:
    if not parts:
        return []
    values, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _split(values, np.cumsum(lengths))


def _split(values: NDArray[np.int32], ends: NDArray[np.int64]) -> TokenIds:
    starts = [0, *ends.tolist()]
    return [values[start:end] for start, end in pairwise(starts)]


def encode_splits(
    splits: Mapping[str, Sequence[Dialogue]],
    tokenizer: Any,
    settings: EncodeSettings,
    *,
    folder: Path | None,
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[dict[str, EncodedSplit], list[str]]:
    """Encode splits, or read what an earlier run made of the same rows.

    Args:
        folder: encoded rows are kept in OWN_FOLDER there; None: they are not.
        limit_bytes: what all files may take together; the newest always stays.

    Returns:
        The splits, and what the user should know of the cache, each said once.

    Raises:
        RunError: as encode_rows; never for the cache's sake.
    """
    if folder is None:
        return {kind: encode_rows(rows, tokenizer, settings) for kind, rows in splits.items()}, []
    encoded: dict[str, EncodedSplit] = {}
    warnings: list[str] = []
    own, base = folder / OWN_FOLDER, fingerprint(tokenizer, settings)
    for kind, rows in splits.items():
        key = make_key(base, rows)
        found, how = _read_kept(own, key, warnings), "read"
        if found is None:
            made = encode_rows(rows, tokenizer, settings)
            how = "made" if _keep(own, key, made, limit_bytes, warnings) else "made, not kept"
            # From the file, so that other processes share its pages and it needs no memory here.
            found = (_read_kept(own, key, warnings) if how == "made" else None) or made
        encoded[kind] = replace(found, cache={"key": key, "how": how})
    return encoded, list(dict.fromkeys(warnings))


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
    return hashlib.sha256(content).hexdigest()[:_HASH_LENGTH]


def _read_kept(folder: Path, key: str, warnings: list[str]) -> EncodedSplit | None:
    """Return what is kept under a key; a damaged file is said and removed."""
    for path in sorted(folder.glob(f"{key}-*.arrow")):
        try:
            if _own_file(path, _KEPT_NAME) is None:
                continue
            found = _map_file(path)
            if found is not None:
                # Used now: the last to go. A folder that can only be read serves all the same.
                with suppress(OSError):
                    os.utime(path)
                return found
            warnings.append(f"{shown(path)}: damaged; its rows are encoded again")
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # another process tidied up
        except OSError as error:
            warnings.append(
                f"{shown(path)}: cannot be used ({error.strerror or error}); "
                "its rows are encoded again"
            )
    return None


def _map_file(path: Path) -> EncodedSplit | None:
    """Map a kept file into memory; None if its bytes are not those that were written.

    The bytes are checked before Arrow looks at them: it trusts the lengths that it finds there.
    """
    import pyarrow as pa

    if not path.stat().st_size:
        return None
    content = pa.memory_map(str(path)).read_buffer()
    if _hash(content) != path.stem.partition("-")[2]:
        return None
    batch = pa.ipc.open_file(content).get_batch(0)
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        _, ends, _, values = column.buffers()
        offsets = np.frombuffer(ends, np.int64, count=len(column) + 1) if len(column) else [0]
        ids = np.frombuffer(values or b"", np.int32, count=int(offsets[-1]))
        columns[name] = _split(ids, np.asarray(offsets[1:]))
    counts = Counts(**json.loads(batch.schema.metadata[b"counts"]))
    return EncodedSplit(columns["inputs"], columns.get("targets"), counts)


def _keep(
    folder: Path, key: str, made: EncodedSplit, limit_bytes: int, warnings: list[str]
) -> bool:
    """Write a split as an Arrow file, the counts in its schema; say whether that went well."""
    import pyarrow as pa

    columns = {"inputs": made.inputs, "targets": made.targets}
    arrays = {name: _to_arrow(rows) for name, rows in columns.items() if rows is not None}
    schema = {"counts": json.dumps(asdict(made.counts)).encode()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema.with_metadata(schema)) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema))
    content = sink.getvalue()
    path = folder / f"{key}-{_hash(content)}.arrow"
    try:
        write_bytes(path, content)
    except RunError as error:
        warnings.append(
            f"encoded rows cannot be kept in {shown(folder)} "
            f"({getattr(error.__cause__, 'strerror', None) or first_line(error)}), so that "
            "every run encodes them again; set data.cache_dir to a folder that can be written "
            "and has room, or to null"
        )
        return False
    try:
        remove_oldest(folder, keep=path, limit_bytes=limit_bytes)
    except OSError as error:
        warnings.append(
            f"{shown(folder)}: old encoded rows cannot be removed "
            f"({error.strerror or error}); remove them yourself"
        )
    return True


def _to_arrow(rows: TokenIds) -> Any:
    """Return rows as a column. From buffers: pyarrow imports pandas to look at a numpy array."""
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    values = np.concatenate([np.zeros(0, np.int32), *rows])
    ids = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
    return pa.LargeListArray.from_buffers(
        pa.large_list(pa.int32()), len(rows), [None, pa.py_buffer(offsets)], children=[ids]
    )


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
            if (state := _own_file(path, _KEPT_NAME)) is not None:
                files.append((path != keep, -state.st_mtime, state.st_size, path))
                continue
            left = _own_file(path, _TEMPORARY_NAME)
            if left is not None and now() - left.st_mtime > LEFT_BEHIND_SECONDS:
                path.unlink()
    total = 0
    for other, _, size, path in sorted(files):
        total += size
        if other and total > limit_bytes:
            path.unlink(missing_ok=True)


def _own_file(path: Path, name: str) -> os.stat_result | None:
    """Return the state of a regular file under such a name; None: it is none of these."""
    if re.fullmatch(name, path.name) is None:
        return None
    state = path.lstat()
    return state if stat.S_ISREG(state.st_mode) else None

"""Rows as token ids: the text that a model reads, what stays of it where it is too long, and token
ids kept from run to run.

A row's ids are a view into an array of many rows: lists of them would take eight times the memory.
Must not know models or training; the tokenizer is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialsum.config.schema import KeptPart, Tokenizer
from dialsum.data.cleaning import fold_spaces
from dialsum.data.prompts import Frame
from dialsum.data.rows import Dialogue
from dialsum.data.tags import find_tags
from dialsum.errors import RunError, first_line
from dialsum.files import write_bytes
from dialsum.paths import shown

STANDARD_DIALOGUE_TOKENS: tuple[str, ...] = (
    *(f"#Person{number}#" for number in range(1, 8)),
    "#PhoneNumber#",
    "#Address#",
    "#PersonName#",
    "#CardNumber#",
    "#Email#",
    "#PassportNumber#",
    "#DateOfBirth#",
    "#CarNumber#",
    "#SSN#",
)
"""Speaker tags (dialogues have two to seven speakers) and the masks of the competition's data."""

LEAST_TEXTS_WITH_TAG = 2
"""A tag is part of how the data is written and so comes again; once, it is a hashtag or a slip."""


def build_input(prefix: str, dialogue: str) -> str:
    """Return the text that the encoder reads; the prefix keeps its last space."""
    return prefix + dialogue


def find_dialogue_tokens(texts: Iterable[str]) -> list[str]:
    """Return every tag (tags.py) that stands in at least two of the texts, sorted.

    Args:
        texts: dialogues and summaries, cleaned.
    """
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(find_tags(text)))
    return sorted(tag for tag, count in seen.items() if count >= LEAST_TEXTS_WITH_TAG)


def dialogue_tokens(asked: Tokenizer, rows: Iterable[Dialogue]) -> list[str]:
    """Return the tags and masks that become tokens: the standard ones, the rows' too if asked."""
    if asked.dialogue_tokens == "none":
        return []
    if asked.dialogue_tokens == "standard":
        return list(STANDARD_DIALOGUE_TOKENS)
    texts = (text for row in rows for text in (row.dialogue, row.summary or ""))
    return list(dict.fromkeys([*STANDARD_DIALOGUE_TOKENS, *find_dialogue_tokens(texts)]))


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

HEAD = 2 + 8
"""Numbers at the start of a kept file: rows, sides, and Counts."""

_OWN_NAME = re.compile(r"\.?[0-9a-f]{32}(-[0-9a-f]{32}\.int32|\.ids)(\.\w+\.tmp)?")
"""A kept file, an earlier version's, or what a killed process left of one (files.write_bytes)."""

LEAST_FILLED = 0.5
"""Share of the room below which whole turns alone would waste it: then the turn that does not fit
is cut inside."""

Span = tuple[int, int]
"""First token, and the one after the last."""

TokenIds = list[NDArray[np.int32]]
"""The ids of each row."""


@dataclass
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

    @cached_property
    def input_lengths(self) -> NDArray[np.int32]:
        """Tokens of each input, [rows]."""
        return np.array([len(ids) for ids in self.inputs], np.int32)

    @cached_property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target, [rows]; zeros without summaries."""
        targets = [()] * len(self) if self.targets is None else self.targets
        return np.array([len(ids) for ids in targets], np.int32)

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

    def list_cut_targets(self, kind: str) -> list[str]:
        """Say of a split, if any of its summaries are cut, how many: where one is cut the model
        learns to end."""
        if self.targets is None or not (cut := self.counts.truncated_targets):
            return []
        return [
            f"{kind}: {cut:,} of {len(self):,} summaries are longer than tokenizer.decoder_max_len "
            "and are cut there, in mid-sentence; raise it"
        ]

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


def encode_splits(
    splits: Mapping[str, Sequence[Dialogue]],
    tokenizer: Any,
    asked: Tokenizer,
    *,
    frame: Frame | None = None,
    folder: Path | None,
    keep: bool = True,
    limit_bytes: int = LIMIT_BYTES,
) -> tuple[dict[str, EncodedSplit], list[str]]:
    """Encode splits, or read what an earlier run made of the same rows.

    Args:
        frame: as of encode_rows.
        folder: encoded rows are kept in OWN_FOLDER there; None: they are not.
        keep: write there; else what is there is read, and nothing changed.
        limit_bytes: what all files may take together; the newest always stays.

    Returns:
        The splits, and what the user should know of the cache, each said once.

    Raises:
        RunError: as encode_rows; never for the cache's sake.
    """
    frame = frame or Frame.of_prefix(asked.input_prefix)
    if folder is None:
        return {
            kind: encode_rows(rows, tokenizer, asked, frame=frame) for kind, rows in splits.items()
        }, []
    # All but the rows that ids depend on: the tokenizer as its tokenizer.json would say it, the few
    # settings that are none of that file's, and the libraries that act on it.
    base = _hash(
        ENCODING_VERSION,
        asked.model_dump(exclude={"dialogue_tokens"}),
        asdict(frame),
        tokenizer.backend_tokenizer.to_str(),
        [tokenizer.eos_token_id, tokenizer.unk_token_id],
        bool(getattr(tokenizer, "split_special_tokens", False)),
        [version(name) for name in ("tokenizers", "transformers")],
    )
    encoded: dict[str, EncodedSplit] = {}
    warnings: list[str] = []
    for kind, rows in splits.items():
        about = [getattr(row, frame.subject_of) for row in rows] if frame.subject_of else []
        key = _hash(base, *([row.dialogue, row.summary] for row in rows), *about)
        path = folder / OWN_FOLDER / f"{key}.ids"
        found, how = _read_kept(path, warnings, touch=keep), "read"
        if found is None:
            found = encode_rows(rows, tokenizer, asked, frame=frame)
            kept = keep and _keep(path, found, limit_bytes, warnings)
            how = "made" if kept else "made, not kept"
        encoded[kind] = replace(found, cache={"key": key, "how": how})
    return encoded, list(dict.fromkeys(warnings))


def _hash(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read_kept(path: Path, warnings: list[str], *, touch: bool) -> EncodedSplit | None:
    """Return what is kept in a file; None, and a warning, where it is not what was written."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warnings.append(
            f"{shown(path)}: cannot be used ({error.strerror or error}); its rows are encoded again"
        )
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        warnings.append(f"{shown(path)}: damaged; its rows are encoded again")
        return None
    # Used now: the last to go. A folder that can only be read serves all the same.
    with suppress(OSError):
        if touch:
            os.utime(path)
    values = np.frombuffer(content, np.int32, offset=32)
    rows, sides, *counts = values[:HEAD].tolist()
    start = HEAD + rows * sides
    ids = _split(values, start + np.cumsum([0, *values[HEAD:start]]))
    return EncodedSplit(ids[:rows], ids[rows:] if sides == 2 else None, Counts(*counts))


def _keep(path: Path, made: EncodedSplit, limit_bytes: int, warnings: list[str]) -> bool:
    """Write a split as int32, behind their hash: rows, sides, the counts, the length of each row of
    each side, and all ids; say whether that went well. Then remove the files used longest ago until
    the rest fits; only what this module writes is ever removed, and no link."""
    ids = [*made.inputs, *(made.targets or [])]
    head = [len(made), 1 if made.targets is None else 2, *astuple(made.counts), *map(len, ids)]
    content = np.concatenate([np.array(head, np.int32), *ids]).tobytes()
    try:
        write_bytes(path, hashlib.sha256(content).digest() + content)
    except RunError as error:
        warnings.append(
            f"encoded rows cannot be kept in {shown(path.parent)} "
            f"({getattr(error.__cause__, 'strerror', None) or first_line(error)}), so that "
            "every run encodes them again; set data.cache_dir to a folder that can be written "
            "and has room, or to null"
        )
        return False
    total = len(content)
    try:
        own = [
            (file.stat().st_mtime, file.stat().st_size, file)
            for file in path.parent.iterdir()
            if _OWN_NAME.fullmatch(file.name) and file.is_file() and not file.is_symlink()
        ]
        for _, size, file in sorted(own, reverse=True):
            total += size if file != path else 0
            if total > limit_bytes and file != path:
                file.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # another process tidied up
    except OSError as error:
        warnings.append(
            f"{shown(path.parent)}: old encoded rows cannot be removed "
            f"({error.strerror or error}); remove them yourself"
        )
    return True


def encode_rows(
    rows: Sequence[Dialogue], tokenizer: Any, asked: Tokenizer, *, frame: Frame | None = None
) -> EncodedSplit:
    """Encode a split; every input and target ends in the tokenizer's end token where that has one.

    A decoder alone gets prompts as inputs: each is tokenised apart from its target, so that what is
    learned is the summary with its end and nothing else.

    KoBART's tokenizer adds no end token by itself: a target without one teaches the model never to
    stop, so it is added to targets always. Inputs get what the checkpoint's tokenizer gives them,
    as in its pre-training. The tokenizer's own threads use all cores.

    Args:
        frame: what stands around each dialogue; None: the prefix of asked.

    Raises:
        RunError: the prefix or prompt leaves no room for a dialogue that has to be cut.
    """
    frame = frame or Frame.of_prefix(asked.input_prefix)
    inputs: TokenIds = []
    targets: TokenIds | None = [] if all(row.summary is not None for row in rows) else None
    counts = Counts()
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        inputs += _flatten(_encode_inputs(chunk, tokenizer, asked, counts, frame))
        if targets is not None:
            targets += _flatten(_encode_targets(chunk, tokenizer, asked, counts, frame))
    return EncodedSplit(inputs, targets, counts)


def _encode_targets(
    rows: Sequence[Dialogue], tokenizer: Any, asked: Tokenizer, counts: Counts, frame: Frame
) -> list[list[int]]:
    end, most = tokenizer.eos_token_id, asked.decoder_max_len
    texts = [fold_spaces(row.summary or "") for row in rows]
    ids = tokenizer(texts, return_attention_mask=False, add_special_tokens=frame.special)[
        "input_ids"
    ]
    bodies = [row[:-1] if row and row[-1] == end else row for row in ids]
    over = [len(body) + 1 - most for body in bodies if len(body) + 1 > most]
    counts.truncated_targets += len(over)
    counts.left_out_target_tokens += sum(over)
    counts.unknown_targets += sum(tokenizer.unk_token_id in row for row in ids)
    return [[*body[: most - 1], end] for body in bodies]


def _encode_inputs(
    rows: Sequence[Dialogue], tokenizer: Any, asked: Tokenizer, counts: Counts, frame: Frame
) -> list[list[int]]:
    built = [frame.build(row) for row in rows]
    texts = [text for text, _, _ in built]
    options = {"return_attention_mask": False, "add_special_tokens": frame.special}
    encoded: list[list[int]] = tokenizer(texts, **options)["input_ids"]
    most = asked.encoder_max_len
    counts.unknown_inputs += sum(tokenizer.unk_token_id in ids for ids in encoded)
    long = [at for at, ids in enumerate(encoded) if len(ids) > most]
    if not long:
        return encoded
    # Where each token stands in the text is asked for these few only.
    offsets = tokenizer([texts[at] for at in long], return_offsets_mapping=True, **options)[
        "offset_mapping"
    ]
    for at, places in zip(long, offsets, strict=True):
        ids = encoded[at]
        text, start, stop = built[at]
        found = find_turns(text, places, start=start, stop=stop)
        first, last = found.span if found else (len(ids), len(ids))
        room = most - first - (len(ids) - last)
        while True:
            if found is None or room < 1:
                raise RunError(
                    f"tokenizer.encoder_max_len {most}: {frame.describe()} "
                    f"{len(ids) - last + first} tokens, so that none is left for a dialogue; "
                    "shorten it or allow longer inputs, such as 512"
                )
            spans, left_out, inside = keep_part(found, room, part=asked.long_dialogues_keep)
            body = [token for begin, end in spans for token in ids[begin:end]]
            kept = [*ids[:first], *body, *ids[last:]]
            if frame.special:
                break
            # A token may hold the end of a dialogue and what follows it: put together anew, the
            # text is spelled as if the dialogue had been that short.
            parts = (text[places[a][0] : places[b - 1][1] if b < last else stop] for a, b in spans)
            cut = text[:start] + "".join(parts).strip("\n") + text[stop:]
            kept = tokenizer([cut], **options)["input_ids"][0]
            if len(kept) <= most:
                break
            room -= len(kept) - most
        encoded[at] = kept
        counts.truncated_inputs += 1
        counts.left_out_turns += left_out
        counts.inputs_cut_inside += inside
        counts.left_out_input_tokens += len(ids) - len(kept)
    return encoded


def _flatten(rows: Sequence[Sequence[int]]) -> TokenIds:
    """Return rows as views into one array."""
    ends = np.cumsum([0, *map(len, rows)])
    return _split(np.fromiter(chain.from_iterable(rows), np.int32, count=int(ends[-1])), ends)


def _split(values: NDArray[np.int32], ends: NDArray[np.int64]) -> TokenIds:
    return [values[start:end] for start, end in pairwise(ends.tolist())]


@dataclass(frozen=True)
class TurnTokens:
    """Where the turns of one dialogue stand among the tokens of its input.

    Args:
        text: the whole input.
        turns: tokens of each turn, in order, one turn at least; a line end between two is a token
            of its own (T5) or the end of the turn before (KoBART).
        begins: the character at which each token of the input begins.
    """

    text: str
    turns: list[Span]
    begins: Sequence[int]

    @property
    def span(self) -> Span:
        """All tokens of the dialogue; before and after them stands what is never cut."""
        return self.turns[0][0], self.turns[-1][1]

    def starts_word(self, token: int) -> bool:
        """Say whether a word begins with a token, or the space before a word does."""
        at = self.begins[token]
        if at == 0 or self.text[at].isspace():
            return True
        # mT5 writes some words as a space of its own and the rest: the space is where they begin.
        return self.text[at - 1].isspace() and self.begins[token - 1] != at - 1

    def ends(self, head: int, tail: int) -> list[Span]:
        """Return the tokens of the first and of the last turns, with the line end before the latter
        where something stands before it."""
        start, stop = self.span
        head_stop = self.turns[head - 1][1] if head else start
        if not tail:
            return [(start, head_stop), (stop, stop)]
        first = len(self.turns) - tail
        tail_start = self.turns[first - 1][1] if head and first else self.turns[first][0]
        return [(start, head_stop), (tail_start, stop)]

    def speaker(self, turn: Span) -> Span:
        """Return the tokens of the name with which a turn begins (`#Person1#:`), if it has one."""
        start, stop = turn
        after = next((at for at in range(start + 1, stop) if self.starts_word(at)), start)
        named = self.text[self.begins[start] : self.begins[after]].rstrip().endswith(":")
        return start, after if named else start


def find_turns(
    text: str, offsets: Sequence[Span], *, start: int, stop: int | None = None
) -> TurnTokens | None:
    """Find the turns of an input, which are the lines of its dialogue.

    Args:
        text: the whole input.
        offsets: characters of every token, from and to; (0, 0) for one that stands for no text.
        start: where the dialogue begins in text. A token that also holds the last character before
            it, or the first one after it, is none of the dialogue's.
        stop: where it ends; None: with the text.

    Returns:
        None where no token is the dialogue's.
    """
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    end = len(text) if stop is None else stop
    inside = (places[:, 0] >= start) & (places[:, 1] <= end)
    own = np.flatnonzero((places[:, 1] > places[:, 0]) & inside)
    if not len(own):
        return None
    first, stop = int(own[0]), int(own[-1]) + 1
    # Tokens that stand for no text, such as a bare word mark, are where the one before them is.
    places[first:stop] = np.maximum.accumulate(places[first:stop], axis=0)
    lines = text[start:end].split("\n")
    starts = np.fromiter(accumulate((len(line) + 1 for line in lines), initial=start), np.int64)
    line_stops = starts[1:] - 1
    begins = np.searchsorted(places[first:stop, 1], starts[:-1], side="right") + first
    stops = np.searchsorted(places[first:stop, 0], line_stops, side="left") + first
    lines_tokens = zip(begins.tolist(), stops.tolist(), strict=True)
    turns = [(begin, stop) for begin, stop in lines_tokens if begin < stop]
    return TurnTokens(text, turns, places[:, 0].tolist()) if turns else None


def keep_part(found: TurnTokens, room: int, *, part: KeptPart) -> tuple[list[Span], int, bool]:
    """Choose which tokens of a dialogue stay, by whole turns where that fills half of the room.

    Args:
        found: a dialogue of more than room tokens.
        room: tokens that it may have, 1 or more.
        part: start and end keep the turns at that end; both_ends takes them from both in turn, so
            that about as many tokens come from each, and cuts a first or last turn inside where the
            two do not fit whole.

    Returns:
        The tokens that stay, in order; of how many turns nothing stays; whether one was cut inside.
    """
    head, tail = _count_turns(found, room, part)
    one_end_is_missing = part == "both_ends" and not (head and tail)
    if one_end_is_missing:
        half = (room - 1) // 2  # of a room with a line end between the two
        head, tail = _count_turns(found, half, "start")[0], _count_turns(found, half, "end")[1]
    spans = found.ends(head, tail)
    if one_end_is_missing or _size(spans) < LEAST_FILLED * room:
        spans = _fill(found, room, part=part, head=head, tail=tail)
    spans = [span for span in spans if span[1] > span[0]]
    kept = [
        sum(max(0, min(turn[1], stop) - max(turn[0], start)) for start, stop in spans)
        for turn in found.turns
    ]
    inside = any(0 < size < turn[1] - turn[0] for size, turn in zip(kept, found.turns, strict=True))
    return spans, kept.count(0), inside


def _count_turns(found: TurnTokens, room: int, part: KeptPart) -> tuple[int, int]:
    """Return how many whole turns fit at the start and at the end."""
    head = tail = 0
    while head + tail < len(found.turns):
        at_start, at_end = found.ends(head, tail)
        one_more = [(head + 1, tail), (head, tail + 1)]
        if part != "both_ends":
            one_more = [one_more[part == "end"]]
        elif _size([at_start]) > _size([at_end]):
            one_more.reverse()
        fitting = [counts for counts in one_more if _size(found.ends(*counts)) <= room]
        if not fitting:
            break
        head, tail = fitting[0]
    return head, tail


def _fill(found: TurnTokens, room: int, *, part: KeptPart, head: int, tail: int) -> list[Span]:
    """Return whole turns and, in the room that they leave, parts of the turns between them.

    No word is cut in two unless it takes half of the room. A turn that loses its start keeps the
    name of its speaker.
    """
    first, last = found.span
    start = found.ends(head, tail)[0][1]
    between = len(found.turns) - tail - 1
    stop = found.turns[between][1]
    # A line end before the tail counts now: something will stand before it.
    left = room - (start - first) - (last - stop if tail else 0)
    if left < 1:
        return found.ends(head, tail)
    if part == "both_ends" and bool(head) == bool(tail):
        at_start = (left + 1) // 2
    else:
        # The end of which nothing whole is kept gets all of it.
        at_start = left if part == "start" or (part == "both_ends" and tail) else 0
    at_end = left - at_start
    head_stop = start + next(
        (n for n in range(at_start, at_start // 2, -1) if found.starts_word(start + n)), at_start
    )
    name = found.speaker(found.turns[between])
    if head_stop > first and between:
        name = (found.turns[between - 1][1], name[1])
    if head_stop > name[0] or _size([name]) >= at_end:
        name = (stop, stop)
    at_end -= _size([name])
    tail_start = stop - next(
        (n for n in range(at_end, at_end // 2, -1) if found.starts_word(stop - n)), at_end
    )
    return [(first, head_stop), name, (tail_start, last if tail else stop)]


def _size(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)

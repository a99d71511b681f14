"""A checkpoint cut to the vocabulary that its texts need: folder in, folder out.

Of a unigram tokenizer (T5, mT5) removing pieces takes candidates away from the search for the best
spelling, and changes no score: a text whose best spelling is kept whole is spelled as before. Two
things would spoil that, and are kept: the piece of the lowest score, from which that of an unknown
character follows, and every single character, without which one would become unknown. Of a BPE
(Gemma, Llama, Qwen, GPT-2, BART) a kept piece keeps all that it can be merged from: a merge that
goes made no part of a text whose pieces stay, so that the others go on as before.

The scores (logits) of the kept pieces are what they were. Their probabilities are larger by one
factor at each place, since what the removed pieces had is shared out among the rest; an order among
kept pieces, and with it greedy and beam search among them, stays. Must not know experiments.
"""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.data.cleaning import fold_spaces
from dialsum.errors import ProblemsError, UnfitError
from dialsum.files import give_usual_mode, new_folder, write_json
from dialsum.models.checkpoint import (
    CONFIG,
    find_checkpoint_problems,
    read_own_config,
    weight_files,
)
from dialsum.models.families import FAMILIES, HEAD_BIAS, HEAD_WEIGHT
from dialsum.models.load import read_tensors
from dialsum.models.tokenizers import SPECIAL_NAMES, add_dialogue_tokens, load_tokenizer
from dialsum.paths import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORD_MARK = "▁"
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
HANGUL = re.compile(
    WORD_MARK + r"?[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc]+"
)
MULTIPLE = 64
"""Rows are kept in a multiple of this: GPUs multiply such matrices faster."""

CHUNK_TEXTS = 1024
"""Texts given to the tokenizer at once; its own objects take thirty times the memory of the ids."""


@dataclass(frozen=True)
class Trimmed:
    """What was cut.

    Args:
        pieces_before, pieces, pieces_used: of the vocabulary; used: how many the texts need.
        tokens_per_character: of the texts, before the cut as after it.
        bytes_before, bytes_after: of embeddings and head.
    """

    pieces_before: int
    pieces: int
    pieces_used: int
    tokens_per_character: float
    bytes_before: int
    bytes_after: int

    def describe(self) -> str:
        """Say in one line what was cut."""
        return (
            f"vocabulary cut from {self.pieces_before:,} to {self.pieces:,} pieces, "
            f"{self.pieces_used:,} of them in the data, spelled as before "
            f"({self.tokens_per_character:.4f} tokens a character); embeddings and head "
            f"{self.bytes_before / 1e6:,.0f} MB, now {self.bytes_after / 1e6:,.0f} MB"
        )


def trim_checkpoint(
    source: Path, out: Path, *, texts: Sequence[str], new_tokens: Sequence[str] = ()
) -> Trimmed:
    """Write a checkpoint whose vocabulary holds what texts need: config, safetensors, tokenizer.

    Args:
        source: folder of a checkpoint.
        out: a new or empty folder; it is there whole or not at all.
        texts: those whose spelling must stay, with these tokens added or without.
        new_tokens: tokens that a run will add; the pieces that spell them stay.

    Raises:
        UnfitError: no such checkpoint, damaged files, a tokenizer that is neither unigram nor BPE,
            one whose texts would be spelled in another way, or out holds something.
    """
    from safetensors.torch import save_file

    if problems := find_checkpoint_problems(source, None, place=shown(source)):
        raise ProblemsError(problems)
    own = read_own_config(source)
    named = [one for key, said in own.items() for one in _list_tokens(key, said)]
    with new_folder(out) as draft:
        tokenizer = load_tokenizer(source)
        cut = trim_tokenizer(tokenizer, texts=texts, new_tokens=new_tokens, more_ids=named)
        new_ids = {old: place for place, old in enumerate(cut.kept)}
        tensors, sizes = _cut_weights(source, own, kept=cut.kept, before=len(tokenizer))
        save_file(tensors, str(draft / "model.safetensors"), metadata={"format": "pt"})
        give_usual_mode(draft / "model.safetensors")
        cut.tokenizer.save_pretrained(draft)
        own.pop("tokenizer_class", None)
        for name in (CONFIG, "generation_config.json"):
            if (source / name).is_file():
                asked = own if name == CONFIG else read_own_config(source, name)
                write_json(draft / name, _renumber(asked, new_ids, rows=len(cut.kept), name=name))
    return Trimmed(
        pieces_before=len(tokenizer),
        pieces=len(cut.kept),
        pieces_used=cut.used,
        tokens_per_character=cut.tokens / max(1, sum(map(len, texts))),
        bytes_before=sizes[0],
        bytes_after=sizes[1],
    )


@dataclass(frozen=True)
class TrimmedTokenizer:
    """A tokenizer after it was cut.

    Args:
        kept: ids that stay, ascending; the new id of each is its place.
        used: how many of them the texts use.
        tokens: of all texts.
    """

    tokenizer: PreTrainedTokenizerFast
    kept: list[int]
    used: int
    tokens: int


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    *,
    texts: Sequence[str],
    new_tokens: Sequence[str] = (),
    more_ids: Iterable[int] = (),
) -> TrimmedTokenizer:
    """Return a tokenizer with the pieces that texts use and those that any other text needs.

    Args:
        tokenizer: it is not changed.
        texts, new_tokens: as of trim_checkpoint.
        more_ids: ids that the checkpoint's config names, such as the decoder's start.

    Raises:
        UnfitError: as of trim_checkpoint.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    _require_pieces(described)
    before = len(tokenizer)
    tagged = copy.deepcopy(tokenizer)
    new = add_dialogue_tokens(tagged, new_tokens)
    plain_ids, tagged_ids = (list(_encode(one, texts)) for one in (tokenizer, tagged))
    used = {one for rows in (plain_ids, tagged_ids) for row in rows for one in row if one < before}
    spelling = {
        piece.id
        for token in new
        if token.strip()
        for piece in tokenizer.backend_tokenizer.model.tokenize(token.strip())
    }
    needed = {*used, *spelling, *tokenizer.added_tokens_decoder, *more_ids}
    kept = _choose(described["model"], needed, tokenizer=tokenizer, new=len(new))
    new_ids = {old: place for place, old in enumerate(kept)}
    trimmed = _rebuild(tokenizer, described, new_ids)
    _require_same_spelling(trimmed, texts, old=plain_ids, new_ids=new_ids)
    tagged = copy.deepcopy(trimmed)
    add_dialogue_tokens(tagged, new_tokens)
    added = {before + place: len(kept) + place for place in range(len(new))}
    _require_same_spelling(tagged, texts, old=tagged_ids, new_ids=new_ids | added)
    return TrimmedTokenizer(trimmed, kept, len(used), sum(map(len, tagged_ids)))


def _require_pieces(described: dict[str, Any]) -> None:
    kind = described["model"]["type"]
    if kind not in ("Unigram", "BPE"):
        raise UnfitError(
            f"this checkpoint's tokenizer is {kind}, neither Unigram (T5, mT5) nor BPE (Gemma, "
            "Llama, Qwen, GPT-2, BART)"
        )
    for processor in _list_processors(described):
        if processor["type"] not in ("TemplateProcessing", "RobertaProcessing", "ByteLevel"):
            raise UnfitError(
                f"this checkpoint's tokenizer ends texts by {processor['type']}, whose ids cannot "
                "be renumbered"
            )


def _list_processors(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what puts a tokenizer's own tokens around a text."""
    last = described["post_processor"]
    if last is None:
        return []
    return last["processors"] if last["type"] == "Sequence" else [last]


def _list_pieces(model: dict[str, Any]) -> list[str]:
    """Return the pieces in the order of their ids."""
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
        raise UnfitError("this checkpoint's tokenizer leaves out ids among its pieces")
    return pieces


def _list_merges(model: dict[str, Any]) -> list[Sequence[str]]:
    """Return which two pieces become one, in the order of their ranks; a unigram has none."""
    merges = model.get("merges", [])
    return [one.split(" ") if isinstance(one, str) else one for one in merges]


def _encode(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """Give the ids of each text as the program encodes it."""
    left = iter(texts)
    while chunk := [fold_spaces(text) for text in islice(left, CHUNK_TEXTS)]:
        yield from tokenizer(chunk, return_attention_mask=False)["input_ids"]


def _choose(
    model: dict[str, Any], needed: set[int], *, tokenizer: PreTrainedTokenizerFast, new: int
) -> list[int]:
    """Return the ids to keep, ascending.

    Kept besides the needed ones: special, added and byte pieces; each single character, so that no
    character which could be written becomes unknown; all of Hangul, since a summary may need a word
    that no text at hand has (1,850 longer pieces, 0.7 % of mT5's). Longer pieces of other scripts,
    of digits and of marks are nearly all of a multilingual vocabulary: each is still spelled by its
    characters. The same texts give the same pieces, in whatever order.
    """
    pieces, before = _list_pieces(model), len(tokenizer)
    characters = {piece for piece in pieces if len(piece) == 1}
    ids = {*needed, *range(len(pieces), before)}
    if model["type"] == "Unigram":
        ids |= {model["unk_id"], min(range(len(pieces)), key=lambda one: model["vocab"][one][1])}
    elif model["unk_token"] in model["vocab"]:
        ids.add(model["vocab"][model["unk_token"]])
    decoder = tokenizer.backend_tokenizer.decoder
    for one, piece in enumerate(pieces):
        # The last: a piece with a character that stands nowhere alone could not be spelled.
        if (
            len(piece) == 1
            or HANGUL.fullmatch(piece)
            or (decoder is not None and HANGUL.fullmatch(decoder.decode([piece]).strip()))
            or BYTE.fullmatch(piece)
            or not characters.issuperset(piece)
        ):
            ids.add(one)
    parts: dict[str, list[int]] = defaultdict(list)
    for pair in _list_merges(model):
        parts["".join(pair)] += [model["vocab"][part] for part in pair]
    left = [one for one in ids if one < len(pieces)]
    while left:
        more = {*parts[pieces[left.pop()]]} - ids
        ids |= more
        left += more
    rest = (one for one in range(before) if one not in ids)
    ids.update(list(islice(rest, -(len(ids) + new) % MULTIPLE)))
    return sorted(ids)


def _rebuild(
    tokenizer: Any, described: dict[str, Any], new_ids: dict[int, int]
) -> PreTrainedTokenizerFast:
    """Make the tokenizer again with the pieces of new_ids, under their new ids.

    Raises:
        UnfitError: the library gives a piece another id.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    described = copy.deepcopy(described)
    model = described["model"]
    if model["type"] == "Unigram":
        pieces = len(model["vocab"])
        model["vocab"] = [model["vocab"][old] for old in sorted(new_ids) if old < pieces]
        model["unk_id"] = new_ids[model["unk_id"]]
    else:
        kept = {piece: new_ids[old] for piece, old in model["vocab"].items() if old in new_ids}
        model["vocab"] = kept
        model["merges"] = [
            pair for pair in _list_merges(model) if kept.keys() >= {*pair, "".join(pair)}
        ]
    for token in described["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    for processor in _list_processors(described):
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [new_ids[old] for old in token["ids"]]
        for end in {"cls", "sep"} & processor.keys():
            name, old = processor[end]
            processor[end] = [name, new_ids[old]]
    described["truncation"] = described["padding"] = None
    names = {key: getattr(tokenizer, key) for key in SPECIAL_NAMES}
    trimmed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        chat_template=tokenizer.chat_template,
        **{key: name for key, name in names.items() if name is not None},
    )
    wanted = {piece: new_ids[old] for piece, old in tokenizer.get_vocab().items() if old in new_ids}
    if trimmed.get_vocab() != wanted:
        wrong = sorted(set(trimmed.get_vocab().items()) ^ set(wanted.items()))[:3]
        raise UnfitError(
            f"this checkpoint's tokenizer numbers its pieces in a way of its own (such as {wrong})"
        )
    return trimmed


def _require_same_spelling(
    trimmed: Any, texts: Sequence[str], *, old: Sequence[list[int]], new_ids: dict[int, int]
) -> None:
    """Hold every text against its ids before."""
    for text, before, now in zip(texts, old, _encode(trimmed, texts), strict=True):
        if [new_ids[token] for token in before] != now:
            raise UnfitError(
                "the cut would spell a text in other pieces: "
                f"{trimmed.convert_ids_to_tokens(now)[:40]} for {text[:80]!r}"
            )


def _cut_weights(
    source: Path, own: dict[str, Any], *, kept: Sequence[int], before: int
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return all weights, those of embeddings and head with the kept rows alone, and the bytes of
    these before and after.

    Spare rows beyond the tokenizer's pieces go. Of weights that share memory the first is returned.
    """
    import torch

    kind = str(own.get("model_type"))
    family = next((one for one in FAMILIES.values() if kind in one.model_classes), None)
    if family is None:
        raise UnfitError(f"{source}: config.json says model_type {kind!r}, which is not supported")
    matrices = {*family.embeddings, HEAD_WEIGHT}
    # GPT-2's file holds the model without its head, whose names lack a part.
    matrices |= {name.removeprefix(f"{family.base}.") for name in matrices}
    ids, tensors = torch.tensor(kept), {}
    seen: dict[int, Any] = {}  # held, so that no other gets their place in memory
    old_bytes = new_bytes = 0
    for file in weight_files({path.name for path in source.iterdir()}):
        if file.endswith(".json"):
            continue
        for name, tensor in read_tensors(source / file):
            if tensor.data_ptr() in seen:
                continue
            if name in matrices:
                if len(tensor) < before:
                    raise UnfitError(
                        f"{source}: {name} has {len(tensor):,} rows for a tokenizer of {before:,} "
                        "pieces: they are not of one checkpoint"
                    )
                seen[tensor.data_ptr()] = tensor
                old_bytes += tensor.nbytes
                tensor = tensor.index_select(0, ids)
                new_bytes += tensor.nbytes
            elif name == HEAD_BIAS:
                tensor = tensor.index_select(1, ids)
            tensors[name] = tensor.contiguous()
    if not old_bytes:
        wanted = " or ".join(family.embeddings)
        raise UnfitError(f"{source}: its weights hold no {wanted}, so that no rows could be cut")
    return tensors, (old_bytes, new_bytes)


def _renumber(
    asked: dict[str, Any], new_ids: dict[int, int], *, rows: int, name: str
) -> dict[str, Any]:
    """Return a config whose ids and rows are those after the cut."""
    for key, said in asked.items():
        named = _list_tokens(key, said)
        for old in named:
            if old not in new_ids:
                raise UnfitError(f"{name}: {key} {old} is not among the kept pieces")
        if named:
            asked[key] = [new_ids[old] for old in named] if named == said else new_ids[said]
    return asked | ({"vocab_size": rows} if "vocab_size" in asked else {})


def _list_tokens(key: str, value: Any) -> list[int]:
    """Return the ids that an entry of a config names."""
    if not key.endswith(("_token_id", "_token_ids")):
        return []
    return [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]

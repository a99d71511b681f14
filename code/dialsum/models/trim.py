"""Cut a network's vocabulary: input embeddings and head lose the rows of pieces that do not stay.

Must not know how pieces are chosen (trim.py), nor data.

The scores (logits) of the kept pieces are what they were. Their probabilities are larger by one
factor at each place, since what the removed pieces had is shared out among the rest; an order among
kept pieces, and with it greedy and beam search among them, stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from dialsum.data.encode import fold_spaces
from dialsum.errors import UnfitError
from dialsum.models.tokenizers import SPECIAL_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class KeptPieces:
    """Which pieces of a checkpoint stay. A piece's new id is its place among them.

    Args:
        ids: ids in the checkpoint, ascending.
        before: pieces that the checkpoint's tokenizer has, with ids from 0.
    """

    ids: tuple[int, ...]
    before: int

    def __len__(self) -> int:
        return len(self.ids)

    def new_ids(self) -> dict[int, int]:
        """Return the new id for each kept id of the checkpoint."""
        return {old: new for new, old in enumerate(self.ids)}

    def to_record(self) -> dict[str, Any]:
        """Return what from_record needs; the ids as ranges, `0-258 261 …`."""
        spans: list[list[int]] = []
        for one in self.ids:
            if spans and spans[-1][1] == one - 1:
                spans[-1][1] = one
            else:
                spans.append([one, one])
        words = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
        return {"pieces_before": self.before, "pieces": len(self), "ids": " ".join(words)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> KeptPieces:
        """Read what to_record wrote.

        Raises:
            UnfitError: it does not hold as many ids as it says.
        """
        ids: list[int] = []
        for word in record["ids"].split():
            first, _, last = word.partition("-")
            ids.extend(range(int(first), int(last or first) + 1))
        if len(ids) != record["pieces"]:
            raise UnfitError(
                f"the list of kept pieces holds {len(ids):,} ids, not {record['pieces']:,} as it "
                "says: the saved model is damaged; save it again"
            )
        return cls(ids=tuple(ids), before=record["pieces_before"])


@dataclass(frozen=True)
class TrimmedRows:
    """What became of a network's embeddings and head.

    Args:
        means: of each matrix (the embeddings', then that of a head of its own) the mean row of all
            pieces that it had: where a new token starts that no piece spells.
        bytes_before: size of embeddings and head.
        bytes_after: the same, now.
    """

    means: list[Any]
    bytes_before: int
    bytes_after: int

    def sizes(self) -> dict[str, int]:
        """Return both sizes by name."""
        return {"bytes_before": self.bytes_before, "bytes_after": self.bytes_after}


def trim_rows(model: Any, kept: KeptPieces) -> TrimmedRows:
    """Keep the rows of these pieces in embeddings and head, tied or not, under their new ids.

    Spare rows beyond the tokenizer's pieces go. One matrix is cut at a time, so that no more than
    its kept rows are held twice.

    Raises:
        UnfitError: the network has other rows than the list was made for, or its config names a
            token that is not kept.
    """
    import torch

    layers = [model.get_input_embeddings()]
    if model.get_output_embeddings().weight is not layers[0].weight:
        layers.append(model.get_output_embeddings())
    means, before, after = [], 0, 0
    for layer in layers:
        _require_rows(layer.weight, kept)
        with torch.no_grad():
            means.append(layer.weight[: kept.before].mean(dim=0))
        before += layer.weight.nbytes
        _cut(model, layer.weight, kept)
        after += layer.weight.nbytes
    if layers[0].weight.is_cuda:
        torch.cuda.empty_cache()
    model.config.vocab_size = len(kept)
    _renumber_config(model.config, kept)
    return TrimmedRows(means=means, bytes_before=before, bytes_after=after)


def _require_rows(weight: Any, kept: KeptPieces) -> None:
    if not weight.is_floating_point():
        raise UnfitError(
            f"tokenizer.trim_vocabulary: true, but embeddings or head are held as {weight.dtype}: "
            "their rows cannot be taken apart; set it to false"
        )
    if len(weight) < kept.before:
        raise UnfitError(
            f"the checkpoint has rows for {len(weight):,} pieces, but its vocabulary was cut from "
            f"{kept.before:,}: it is not the one that the list of kept pieces was made for"
        )


def _cut(model: Any, weight: Any, kept: KeptPieces) -> None:
    """Put the kept rows of a matrix into every layer that holds it."""
    import torch

    ids = torch.tensor(kept.ids, device=weight.device)
    rows = torch.nn.Parameter(
        weight.detach().index_select(0, ids), requires_grad=weight.requires_grad
    )
    for layer in model.modules():
        if getattr(layer, "weight", None) is weight:
            layer.weight = rows
            size = "num_embeddings" if hasattr(layer, "num_embeddings") else "out_features"
            setattr(layer, size, len(kept))


def _renumber_config(config: Any, kept: KeptPieces) -> None:
    new_ids = kept.new_ids()
    for name, old in named_token_ids(config).items():
        if old not in new_ids:
            raise UnfitError(f"config.json: {name} {old} is not among the kept pieces")
        setattr(config, name, new_ids[old])


def named_token_ids(config: Any) -> dict[str, int]:
    """Return the ids that a checkpoint's config names, such as decoder_start_token_id."""
    return {
        name: value
        for name, value in config.to_dict().items()
        if name.endswith("_token_id") and isinstance(value, int)
    }


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
class TrimmedTokenizer:
    """A tokenizer after it was cut, with what that did.

    Args:
        tokenizer: kept pieces, then the tokens that were added to it.
        kept: the checkpoint's ids that stay.
        used: how many of them the texts use.
        tokens_per_character: of all texts, before and after.
        respelled: dev summaries that are now spelled in other, smaller pieces.
    """

    tokenizer: PreTrainedTokenizerFast
    kept: KeptPieces
    used: int
    tokens_per_character: tuple[float, float]
    respelled: int

    def describe(self, *, bytes_before: int, bytes_after: int) -> str:
        """Say in one line what was cut; bytes are those of embeddings and head."""
        before, after = (f"{value:.4f}" for value in self.tokens_per_character)
        spelling = before if before == after else f"{before}, now {after}"
        other = f" ({self.respelled} of the dev summaries differ)" if self.respelled else ""
        return (
            f"vocabulary cut from {self.kept.before:,} to {len(self.kept):,} pieces, "
            f"{self.used:,} of them in the data; {spelling} tokens a character as before{other}; "
            f"embeddings and head {bytes_before / 1e6:,.0f} MB, now {bytes_after / 1e6:,.0f} MB"
        )

    def to_record(self, *, bytes_before: int, bytes_after: int) -> dict[str, Any]:
        """Return the same for result.json."""
        before, after = self.tokens_per_character
        return {
            "pieces_before": self.kept.before,
            "pieces": len(self.kept),
            "pieces_used": self.used,
            "tokens_per_character_before": round(before, 6),
            "tokens_per_character": round(after, 6),
            "respelled_dev_summaries": self.respelled,
            "bytes_before": bytes_before,
            "bytes": bytes_after,
        }


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    *,
    texts: Sequence[str],
    checked: Sequence[str] = (),
    new_tokens: Sequence[str] = (),
    more_ids: Iterable[int] = (),
) -> TrimmedTokenizer:
    """Return a tokenizer with the pieces that texts use and those that any other text needs.

    Kept besides the used ones: special, added and byte pieces; each single character, so that no
    character which could be written becomes unknown; all of Hangul, since a summary may need a word
    that no text at hand has (1,850 longer pieces, 0.7 % of mT5's). Longer pieces of other scripts,
    of digits and of marks are nearly all of a multilingual vocabulary: each is still spelled by its
    characters. The same texts give the same pieces, in whatever order.

    Args:
        tokenizer: with the new tokens added; it is not changed.
        texts: those whose spelling must stay.
        checked: texts that choose nothing; those now spelled in smaller pieces are counted.
        new_tokens: tokens that the checkpoint does not have.
        more_ids: ids that the checkpoint's config names, such as the decoder's start.

    Raises:
        UnfitError: no unigram tokenizer, or one whose texts would be spelled in another way.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    _require_unigram(described)
    before = len(tokenizer) - len(new_tokens)
    own = list(_encode(tokenizer, texts))
    used = {token for row in own for token in row if token < before}
    spelling = {
        piece.id
        for token in new_tokens
        for piece in tokenizer.backend_tokenizer.model.tokenize(token.strip())
    }
    added = {one for one in tokenizer.added_tokens_decoder if one < before}
    needed = used | spelling | added | set(more_ids)
    ids = _choose(described["model"], needed, before=before, new=len(new_tokens))
    kept = KeptPieces(ids=tuple(ids), before=before)
    new_ids = kept.new_ids() | {before + at: len(kept) + at for at in range(len(new_tokens))}
    trimmed = _rebuild(tokenizer, described, new_ids)
    tokens = _require_same_spelling(trimmed, texts, own=own, new_ids=new_ids)
    respelled, old, new = _count_respelled(tokenizer, trimmed, checked, new_ids=new_ids)
    characters = max(1, sum(map(len, (*texts, *checked))))
    return TrimmedTokenizer(
        tokenizer=trimmed,
        kept=kept,
        used=len(used),
        respelled=respelled,
        tokens_per_character=((tokens + old) / characters, (tokens + new) / characters),
    )


def _require_unigram(described: dict[str, Any]) -> None:
    kind = described["model"]["type"]
    if kind != "Unigram":
        raise UnfitError(
            f"tokenizer.trim_vocabulary: true, but this checkpoint's tokenizer is {kind}, not "
            "Unigram as mT5's: its pieces are made from one another, so that few can go. "
            "Set it to false"
        )
    processor = (described["post_processor"] or {}).get("type")
    if processor not in (None, "TemplateProcessing"):
        raise UnfitError(
            f"tokenizer.trim_vocabulary: true, but this checkpoint's tokenizer ends texts by "
            f"{processor}, whose ids cannot be renumbered; set it to false"
        )


def _encode(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """Give the ids of each text as the program encodes it."""
    left = iter(texts)
    while chunk := [fold_spaces(text) for text in islice(left, CHUNK_TEXTS)]:
        yield from tokenizer(chunk, return_attention_mask=False)["input_ids"]


def _choose(model: dict[str, Any], needed: set[int], *, before: int, new: int) -> list[int]:
    """Return the ids to keep, ascending."""
    vocabulary: list[tuple[str, float]] = model["vocab"]
    characters = {piece for piece, _ in vocabulary if len(piece) == 1}
    lowest = min(range(len(vocabulary)), key=lambda one: vocabulary[one][1])
    ids = {*needed, model["unk_id"], lowest, *range(len(vocabulary), before)}
    for one, (piece, _) in enumerate(vocabulary):
        # The last: a piece with a character that stands nowhere alone could not be spelled.
        if (
            len(piece) == 1
            or HANGUL.fullmatch(piece)
            or BYTE.fullmatch(piece)
            or not characters.issuperset(piece)
        ):
            ids.add(one)
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

    model = described["model"]
    pieces = len(model["vocab"])
    model["vocab"] = [model["vocab"][old] for old in sorted(new_ids) if old < pieces]
    model["unk_id"] = new_ids[model["unk_id"]]
    for token in described["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    for token in ((described["post_processor"] or {}).get("special_tokens") or {}).values():
        token["ids"] = [new_ids[old] for old in token["ids"]]
    described["truncation"] = described["padding"] = None
    names = {key: getattr(tokenizer, key) for key in SPECIAL_NAMES}
    trimmed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        **{key: name for key, name in names.items() if name is not None},
    )
    wanted = {piece: new_ids[old] for piece, old in tokenizer.get_vocab().items() if old in new_ids}
    if trimmed.get_vocab() != wanted:
        wrong = sorted(set(trimmed.get_vocab().items()) ^ set(wanted.items()))[:3]
        raise UnfitError(
            f"tokenizer.trim_vocabulary: true, but this checkpoint's tokenizer numbers its pieces "
            f"in a way of its own (such as {wrong}); set it to false"
        )
    return trimmed


def _require_same_spelling(
    trimmed: Any, texts: Sequence[str], *, own: Sequence[list[int]], new_ids: dict[int, int]
) -> int:
    """Hold every text against its ids before, and return the number of all tokens."""
    for text, old, new in zip(texts, own, _encode(trimmed, texts), strict=True):
        if [new_ids[token] for token in old] != new:
            raise UnfitError(
                "tokenizer.trim_vocabulary: true would spell a text in other pieces: "
                f"{trimmed.convert_ids_to_tokens(new)[:40]} for {text[:80]!r}; set it to false"
            )
    return sum(map(len, own))


def _count_respelled(
    tokenizer: Any, trimmed: Any, checked: Sequence[str], *, new_ids: dict[int, int]
) -> tuple[int, int, int]:
    """Return the texts spelled otherwise than before, and all texts' tokens before and after."""
    respelled = before = after = 0
    for old, new in zip(_encode(tokenizer, checked), _encode(trimmed, checked), strict=True):
        respelled += [new_ids.get(token) for token in old] != new
        before, after = before + len(old), after + len(new)
    return respelled, before, after

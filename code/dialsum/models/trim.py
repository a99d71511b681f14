"""Cut a network's vocabulary: input embeddings and head lose the rows of pieces that do not stay.

Must not know how pieces are chosen (trim_tokenizer.py), nor data.

The scores (logits) of the kept pieces are what they were. Their probabilities are larger by one
factor at each place, since what the removed pieces had is shared out among the rest; an order among
kept pieces, and with it greedy and beam search among them, stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dialsum.errors import UnfitError
from dialsum.models.embeddings import is_tied


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
    if not is_tied(model):
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

"""An adapter put into the weights of its base, and what proves that the model stays the same.

Merging adds an adapter to the weight of its layer. Where that weight is also another layer's (the
input embeddings of encoder and decoder, a tied head), the other layer gets it too: measured on
small tied models with adapters on embeddings and head, logits move by 1 to 12 times their spread,
and nothing says so. So every merge is held against what the model said before.

Must not know files (models/merge.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import RunError, UnfitError
from dialsum.files import new_folder, write_json
from dialsum.models.load import dequantise, quiet_libraries
from dialsum.models.save import (
    SavedFolder,
    attach_adapter,
    load_saved_base,
    load_saved_model,
    read_saved,
    save_weights,
)

TOLERANCE = 1e-3
"""Largest difference of two logits that counts as rounding, as a share of their standard deviation.
Merging in float32 moves them by about 1e-6 of it."""
TokenRow = tuple[Sequence[int], Sequence[int]]
"""Token ids of an input and of its target."""


def compute_logits(model: Any, rows: Sequence[TokenRow]) -> list[Any]:
    """Return the logits of each row, [target length, vocabulary], in float32 on the CPU.

    Each row goes alone, without padding.
    """
    import torch

    model.eval()
    found = []
    with torch.inference_mode():
        for source, target in rows:
            inputs = torch.tensor([list(source)], device=model.device)
            labels = torch.tensor([list(target)], device=model.device)
            found.append(model(input_ids=inputs, labels=labels).logits[0].float().cpu())
    return found


def measure_shift(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Return the largest difference of two answers, in standard deviations of the first."""
    import torch

    spread = float(torch.cat([row.flatten() for row in before]).std())
    largest = max(
        float((one - other).abs().max()) for one, other in zip(before, after, strict=True)
    )
    return largest / spread if largest == largest else float("inf")


def require_same(before: Sequence[Any], after: Sequence[Any], *, what: str, advice: str) -> float:
    """Return the shift between two answers of what must be one model.

    Args:
        what: what was done between them, as the message says it.
        advice: what the user can do.

    Raises:
        RunError: the shift is above rounding; with the figure.
    """
    shift = measure_shift(before, after)
    if shift > TOLERANCE:
        raise RunError(
            f"{what} would change the model: on {len(before)} rows its logits move by up to "
            f"{shift:.2g} standard deviations ({TOLERANCE:g} is rounding); nothing was written. "
            f"{advice}"
        )
    return shift


def merge_into_base(adapted: Any, *, untie: bool) -> Any:
    """Return the base of an adapted float model with the adapter in its weights.

    Args:
        untie: first give embeddings of encoder and decoder and the head a weight of their own each;
            those that come out of the merge alike share one again.
    """
    base = adapted.get_base_model()
    places = _embedding_places(base)
    if untie:
        _untie(places)
    merged = adapted.merge_and_unload(safe_merge=True)
    # What learned whole comes out of PEFT as a weight of its own in each place.
    _tie_what_is_alike(merged)
    return merged


def _embedding_places(model: Any) -> dict[str, Any]:
    """Return the layers that may share one weight, by name, their adapters taken off."""
    inner = model.model if hasattr(model, "model") else model
    layers = {
        "shared": inner.shared,
        "encoder": inner.encoder.embed_tokens,
        "decoder": inner.decoder.embed_tokens,
        "head": model.lm_head,
    }
    return {name: _innermost(layer) for name, layer in layers.items()}


def _innermost(layer: Any) -> Any:
    while hasattr(layer, "base_layer") or hasattr(layer, "original_module"):
        layer = layer.base_layer if hasattr(layer, "base_layer") else layer.original_module
    return layer


def _untie(places: dict[str, Any]) -> None:
    import torch

    for name, layer in places.items():
        if name != "shared":
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)


def _tie_what_is_alike(merged: Any) -> None:
    """Let equal weights be one again; `shared` computes nothing and follows the encoder's."""
    import torch

    places = _embedding_places(merged)
    encoder = places["encoder"].weight
    places["shared"].weight = encoder
    for name in ("decoder", "head"):
        if torch.equal(places[name].weight, encoder):
            places[name].weight = encoder
    merged.config.tie_word_embeddings = places["head"].weight is encoder


MANY_ROWS = 32
"""Rows that are compared at most; each costs four forward passes."""
KEEP_IT = "Base and adapter serve as they are: keep them beside each other"


@dataclass(frozen=True)
class MergeReport:
    """What a merge changed; each shift is the largest of a logit, in standard deviations of all.

    Args:
        rows: rows compared.
        merge: from adapter beside base, in float32, to the merged model as it was loaded from disk.
        quantisation: from the model as it was trained, on its 4- or 8-bit base, to that in float32.
        same_choices: share of target places where the first and the last rank one piece highest.
    """

    rows: int
    merge: float
    quantisation: float
    same_choices: float


def merge_adapter(
    folder: Path,
    out: Path,
    *,
    config: Config,
    rows: Sequence[tuple[str, str]],
    device: str = "cpu",
    dtype: Any = None,
    untie: bool = False,
) -> MergeReport:
    """Write a saved adapter and its base as one model: float32 weights, tokenizer, model_info.json.

    The base is the very one that the adapter learned on: 4- and 8-bit weights become the floats
    that they stand for. What learned beside the adapter is in the merged weights too.

    Args:
        folder: as save_model wrote it.
        out: new folder.
        config: the run's resolved config.
        rows: inputs, with their prefix, and targets on which the models are compared.
        dtype: torch dtype of the run's unquantised weights; float32 when None.
        untie: give embeddings and head weights of their own, as adapters on them need.

    Raises:
        UnfitError: no adapter in folder, out exists, or no rows.
        RunError: the merged model would not say the same, with the figure; out is not there.
    """
    quiet_libraries()
    saved = read_saved(folder)
    if saved.kind != "adapter":
        raise UnfitError(f"{folder}: a {saved.kind} model was saved here, no adapter to merge")
    tokens = _encode(saved, rows, config=config)
    place = _Place(config=config, device=device, dtype=dtype)
    with new_folder(out) as draft:
        as_trained = compute_logits(place.load(folder), tokens)
        merged, before = _merge(saved, place=place, tokens=tokens, untie=untie)
        _write(merged, saved, draft)
        after = compute_logits(replace(place, dtype=None).load(draft), tokens)
        shift = require_same(
            before, after, what=f"loading the merged model of {folder} from disk", advice=KEEP_IT
        )
        report = MergeReport(
            rows=len(tokens),
            merge=shift,
            quantisation=measure_shift(as_trained, before),
            same_choices=_share_of_same_choices(as_trained, after),
        )
        _write_info(saved, draft, report)
    return report


@dataclass(frozen=True)
class _Place:
    """How and where models are loaded to be compared."""

    config: Config
    device: str
    dtype: Any

    def load(self, folder: Path) -> Any:
        """Return a saved model as it predicts."""
        return load_saved_model(
            folder, config=self.config, device=self.device, dtype=self._torch_dtype()
        )[0]

    def load_float_base(self, saved: SavedFolder) -> Any:
        """Return the base that an adapter learned on, its bits as the floats they stand for."""
        base = load_saved_base(
            saved, config=self.config, device=self.device, dtype=self._torch_dtype()
        )
        dequantise(base)
        return base

    def _torch_dtype(self) -> Any:
        import torch

        return self.dtype or torch.float32


def _merge(
    saved: SavedFolder, *, place: _Place, tokens: Sequence[TokenRow], untie: bool
) -> tuple[Any, list[Any]]:
    """Return the merged model, and what base and adapter said before they were merged."""
    adapted = attach_adapter(place.load_float_base(saved), saved.folder).float()
    before = compute_logits(adapted, tokens)
    merged = merge_into_base(adapted, untie=untie)
    advice = (
        KEEP_IT
        if untie
        else (
            "An adapter on embeddings or head shares its weight with other layers: merge with "
            f"--untie (untie=True), which gives each its own. {KEEP_IT}"
        )
    )
    require_same(
        before, compute_logits(merged, tokens), what=f"merging {saved.folder}", advice=advice
    )
    return merged, before


def _encode(
    saved: SavedFolder, rows: Sequence[tuple[str, str]], *, config: Config
) -> list[TokenRow]:
    if not rows:
        raise UnfitError("no rows were given, and without any nothing can be compared")
    limits = (config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len)
    source, target = (
        saved.tokenizer(
            [row[side] for row in rows[:MANY_ROWS]], truncation=True, max_length=limits[side]
        )["input_ids"]
        for side in (0, 1)
    )
    tokens = list(zip(source, target, strict=True))
    if new := saved.tokenizer.convert_tokens_to_ids(list(saved.info["tokens_added"])):
        # What learned of them shows nowhere else if the rows at hand hold none.
        tokens.append((new[: limits[0]], new[: limits[1]]))
    return tokens


def _write(merged: Any, saved: SavedFolder, folder: Path) -> None:
    save_weights(merged, folder)
    saved.tokenizer.save_pretrained(folder)
    _write_info(saved, folder)


def _write_info(saved: SavedFolder, folder: Path, report: MergeReport | None = None) -> None:
    info = saved.info | {"kind": "full", "base": ".", "merged": True}
    if report is not None:
        info["merge"] = asdict(report)
    write_json(folder / "model_info.json", info)


def _share_of_same_choices(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Return the share of places at which two answers rank the same piece highest."""
    import torch

    same = torch.cat(
        [
            one.argmax(dim=-1) == other.argmax(dim=-1)
            for one, other in zip(before, after, strict=True)
        ]
    )
    return float(same.float().mean())

"""An adapter put into the weights of its base, and what proves that the model stays the same.

Merging adds an adapter to the weight of its layer. Where that weight is also another layer's (the
input embeddings of encoder and decoder, a tied head), the other layer gets it too: measured on
small tied models with adapters on embeddings and head, logits move by 1 to 12 times their spread,
and nothing says so. So every merge is held against what the model said before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.errors import RunError, UnfitError
from dialsum.files import new_folder
from dialsum.models.families import get_family
from dialsum.models.load import dequantise, quiet_libraries
from dialsum.models.save import (
    attach_adapter,
    load_saved_model,
    read_info,
    save_weights,
    write_info,
)
from dialsum.models.tokenizers import load_tokenizer

TOLERANCE = 1e-3
"""Largest difference of two logits that counts as rounding, as a share of their standard deviation.
Merging in float32 moves them by about 1e-6 of it."""
MANY_ROWS = 32
"""Rows that are compared at most; each costs four forward passes."""
KEEP_IT = "Base and adapter serve as they are: keep them beside each other"
TokenRow = tuple[Sequence[int], Sequence[int]]
"""Token ids of an input and of its target."""


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
        rows: inputs, with their prefix or as whole prompts, and targets on which the models are
            compared.
        dtype: torch dtype of the run's unquantised weights; float32 when None.
        untie: give embeddings and head weights of their own, as adapters on them need.

    Raises:
        UnfitError: no adapter in folder, out exists, or no rows.
        RunError: the merged model would not say the same, with the figure; out is not there.
    """
    import torch

    quiet_libraries()
    info = read_info(folder)
    if info["kind"] != "adapter":
        raise UnfitError(f"{folder}: a {info['kind']} model was saved here, no adapter to merge")
    if not rows:
        raise UnfitError("no rows were given, and without any nothing can be compared")
    tokenizer, asked = load_tokenizer(folder), config.tokenizer
    limits = asked.encoder_max_len, asked.decoder_max_len
    special = not get_family(config.model.architecture).decoder_only
    sides = [
        tokenizer(
            [row[side] for row in rows[:MANY_ROWS]],
            truncation=True,
            max_length=limit,
            add_special_tokens=special,
        )
        for side, limit in enumerate(limits)
    ]
    tokens: list[TokenRow] = list(zip(*(side["input_ids"] for side in sides), strict=True))
    new: Any = tokenizer.convert_tokens_to_ids(info["tokens_added"])
    if new:
        # What learned of them shows nowhere else if the rows at hand hold none.
        tokens.append((new[: limits[0]], new[: limits[1]]))
    place: dict[str, Any] = {"config": config, "device": device}
    own = dtype or torch.float32
    advice = KEEP_IT
    if not untie:
        advice = (
            "An adapter on embeddings or head shares its weight with other layers: merge with "
            f"--untie (untie=True), which gives each its own. {KEEP_IT}"
        )
    with new_folder(out) as draft:
        as_trained = compute_logits(load_saved_model(folder, **place, dtype=own)[0], tokens)
        base, _ = load_saved_model(folder, **place, dtype=own, with_adapter=False)
        dequantise(base)
        adapted = attach_adapter(base, folder).float()
        before = compute_logits(adapted, tokens)
        merged = merge_into_base(adapted, untie=untie)
        _require_same(before, compute_logits(merged, tokens), f"merging {folder}", advice)
        save_weights(merged, draft)
        tokenizer.save_pretrained(draft)
        info |= {"kind": "full", "base": ".", "merged": True}
        write_info(draft, info)
        loaded = load_saved_model(draft, **place, dtype=torch.float32)[0]
        after = compute_logits(loaded, tokens)
        same = [
            one.argmax(dim=-1) == other.argmax(dim=-1)
            for one, other in zip(as_trained, after, strict=True)
        ]
        report = MergeReport(
            rows=len(sides[0]["input_ids"]),
            merge=_require_same(
                before, after, f"loading the merged model of {folder} from disk", KEEP_IT
            ),
            quantisation=measure_shift(as_trained, before),
            same_choices=float(torch.cat(same).float().mean()),
        )
        write_info(draft, info | {"merge": asdict(report)})
    return report


def compute_logits(model: Any, rows: Sequence[TokenRow]) -> list[Any]:
    """Return the logits of each row, [target length, vocabulary], in float32 on the CPU.

    Each row goes alone, without padding.
    """
    import torch

    model.eval()
    found = []
    with torch.inference_mode():
        for source, target in rows:
            if model.config.is_encoder_decoder:
                inputs = torch.tensor([list(source)], device=model.device)
                labels = torch.tensor([list(target)], device=model.device)
                logits = model(input_ids=inputs, labels=labels).logits[0]
            else:
                whole = torch.tensor([[*source, *target]], device=model.device)
                logits = model(input_ids=whole).logits[0, len(source) - 1 : -1]
            found.append(logits.float().cpu())
    return found


def measure_shift(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Return the largest difference of two answers, in standard deviations of the first."""
    import torch

    spread = float(torch.cat([row.flatten() for row in before]).std())
    largest = max(
        float((one - other).abs().max()) for one, other in zip(before, after, strict=True)
    )
    return largest / spread if largest == largest else float("inf")


def _require_same(before: Sequence[Any], after: Sequence[Any], what: str, advice: str) -> float:
    """Return the shift between two answers of what must be one model.

    Args:
        what: what was done between them, as the message says it.

    Raises:
        RunError: the shift is above rounding; with the figure.
    """
    shift = measure_shift(before, after)
    if shift > TOLERANCE:
        raise RunError(
            f"{what} would change the model: its logits move by up to "
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
    import torch

    if untie:
        for name, layer in _embedding_places(adapted.get_base_model()).items():
            if name != "shared":
                own = layer.weight.detach().clone()
                layer.weight = torch.nn.Parameter(own, requires_grad=False)
    merged = adapted.merge_and_unload(safe_merge=True)
    # What learned whole comes out of PEFT as a weight of its own in each place. `shared` computes
    # nothing and follows that of what reads.
    places = _embedding_places(merged)
    reading = places["reading"].weight
    for name, layer in places.items():
        if name == "shared" or torch.equal(layer.weight, reading):
            layer.weight = reading
    merged.config.tie_word_embeddings = places["head"].weight is reading
    return merged


def _embedding_places(model: Any) -> dict[str, Any]:
    """Return the layers that may share one weight, by name, their adapters taken off."""
    if model.config.is_encoder_decoder:
        inner = model.model if hasattr(model, "model") else model
        layers = {
            "shared": inner.shared,
            "reading": inner.encoder.embed_tokens,
            "decoder": inner.decoder.embed_tokens,
            "head": model.lm_head,
        }
    else:
        layers = {"reading": model.get_input_embeddings(), "head": model.lm_head}
    for name, layer in layers.items():
        while hasattr(layer, "base_layer") or hasattr(layer, "original_module"):
            layer = layer.base_layer if hasattr(layer, "base_layer") else layer.original_module
        layers[name] = layer
    return layers

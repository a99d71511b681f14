"""How much arithmetic and memory traffic a run needs, and how much of a card's peak that is.

Must know devices by their names only. No torch: layers are told by what they have.

Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B): the FLOPs that a step needs by
its mathematics, over its time, over the card's peak. A matrix of w weights costs 2 w per token
going forward, 2 w for the gradient of its input, and 2 w for its own gradient where it learns: 6 w
in full fine-tuning, as there; 4 w for a frozen one under adapters. Attention costs 12 n m width a
layer for n queries and m keys (4 forward, twice that backward), half of it where a decoder stands
alone and each token sees those before it only. Padding, what gradient checkpointing computes again,
embeddings and norms are not counted.

Writing a summary reads every matrix of the decoder once a token, for all rows of a batch together,
and what was kept of the tokens before (Pope et al. 2022, Efficiently Scaling Transformer
Inference): it takes at least as long as its arithmetic at the card's peak, or its traffic at the
memory's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

CROSS_INPUTS = (
    ".EncDecAttention.k",
    ".EncDecAttention.v",
    ".encoder_attn.k_proj",
    ".encoder_attn.v_proj",
)
"""Layers of the decoder that read the encoder's output."""

TERA = 1e12
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989.4, "tf32": 494.7, "fp32": 66.9, "memory": 4800},
    "H100 80GB HBM3": {"bf16": 989.4, "tf32": 494.7, "fp32": 66.9, "memory": 3350},
    "H100 NVL": {"bf16": 835.5, "tf32": 417.5, "fp32": 60.0, "memory": 3900},
    "H100 PCIe": {"bf16": 756.0, "tf32": 378.0, "fp32": 51.2, "memory": 2000},
    "A100-SXM4-40GB": {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5, "memory": 1555},
    "A100-SXM4-80GB": {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5, "memory": 2039},
    "A100-PCIE-40GB": {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5, "memory": 1555},
    "A100 80GB PCIe": {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5, "memory": 1935},
    "A10": {"bf16": 125.0, "tf32": 62.5, "fp32": 31.2, "memory": 600},
    "L4": {"bf16": 121.0, "tf32": 60.0, "fp32": 30.3, "memory": 300},
    "L40S": {"bf16": 362.0, "tf32": 183.0, "fp32": 91.6, "memory": 864},
    "RTX A6000": {"bf16": 154.8, "tf32": 77.4, "fp32": 38.7, "memory": 768},
    "RTX 3090": {"bf16": 71.0, "tf32": 35.6, "fp32": 35.6, "memory": 936},
    "RTX 4090": {"bf16": 165.2, "tf32": 82.6, "fp32": 82.6, "memory": 1008},
}
"""Peak TFLOP/s of dense products (no sparsity, sums in fp32), and GB/s of its memory, by the name
that the driver gives, without NVIDIA and GeForce. From NVIDIA's data sheets of H200, H100, A100,
A10, L4 and L40S, and the appendices of its GA102 and Ada architecture papers (RTX A6000, RTX 3090,
RTX 4090)."""


@dataclass(frozen=True)
class Product:
    """Matrices that multiply every token of one side.

    Args:
        side: whose tokens: input, target, or both where a decoder reads them as one text.
        weights: numbers in the matrix.
        learns: its own gradient is computed, too.
    """

    side: Literal["input", "target", "both"]
    weights: int
    learns: bool


@dataclass(frozen=True)
class Attention:
    """What attention computes, and keeps of the tokens before.

    Args:
        encoder, decoder: layers of each; of a decoder alone 0 and its layers.
        width: of the queries of all heads together.
        kept_width: of their keys, and of their values; less where queries share them.
        decoder_only: dialogue and summary are one text to it.
    """

    encoder: int
    decoder: int
    width: int
    kept_width: int
    decoder_only: bool = False

    def count_pairs(self, ins: int, outs: int) -> float:
        """Return the pairs of query and key of a row, in all layers."""
        if self.decoder_only:
            return self.decoder * (ins + outs) ** 2 / 2
        return self.encoder * ins * ins + self.decoder * outs * (outs + ins)


def find_products(
    layers: Iterable[tuple[str, Any]], *, decoder_only: bool = False
) -> list[Product]:
    """Return the linear layers of a model, those of adapters among them.

    Args:
        layers: what model.named_modules() gives. A layer that wraps another (PEFT's) is passed
            over: the one inside counts.
    """
    products = []
    for name, layer in layers:
        if not hasattr(layer, "weight") or hasattr(layer, "base_layer"):
            continue
        if hasattr(layer, "in_features") and hasattr(layer, "out_features"):
            weights = int(layer.in_features) * int(layer.out_features)
        elif hasattr(layer, "nx") and hasattr(layer, "nf"):  # GPT-2's Conv1D
            weights = int(layer.nx) * int(layer.nf)
        else:
            continue
        side = _side_of(name, decoder_only=decoder_only)
        products.append(Product(side, weights, learns=bool(layer.weight.requires_grad)))
    return products


def _side_of(name: str, *, decoder_only: bool) -> Literal["input", "target", "both"]:
    if decoder_only:
        return "target" if "lm_head" in name else "both"
    in_decoder = "decoder." in name or "lm_head" in name
    return "target" if in_decoder and not any(one in name for one in CROSS_INPUTS) else "input"


def count_flops(
    products: Iterable[Product],
    *,
    attention: Attention,
    inputs: Iterable[int],
    targets: Iterable[int],
    backward: bool = True,
) -> float:
    """Return the FLOPs of training once on some rows, forward and backward, or of a loss alone.

    Args:
        inputs, targets: tokens of each row, padding not counted.
    """
    per_token = {"input": 0.0, "target": 0.0, "both": 0.0}
    for product in products:
        per_token[product.side] += 2 * product.weights * (1 + backward * (1 + product.learns))
    total = 0.0
    for ins, outs in zip(inputs, targets, strict=True):
        ins, outs = int(ins), int(outs)
        total += per_token["input"] * ins + per_token["target"] * outs
        total += per_token["both"] * (ins + outs)
        total += (12 if backward else 4) * attention.count_pairs(ins, outs) * attention.width
    return total


def count_writing(
    products: Iterable[Product],
    *,
    attention: Attention,
    rows: Iterable[tuple[int, int]],
    batch: int,
    beams: int,
    weight_bytes: float,
) -> tuple[float, float]:
    """Return the FLOPs, and the bytes that are read, of writing summaries.

    Beams of a row share what is kept of its input, and a row that has ended costs no arithmetic.

    Args:
        rows: tokens of each row's input and of its summary.
        batch: rows that are written together, those of long inputs first.
        weight_bytes: of a weight of a matrix, as it is held; what is kept of tokens takes 2 a
            number.
    """
    weights = {"input": 0, "target": 0, "both": 0}
    for product in products:
        weights[product.side] += product.weights
    reading, each = weights["input"] + weights["both"], weights["target"] + weights["both"]
    order, kept = sorted(rows, reverse=True), 2 * 2 * attention.decoder * attention.kept_width
    flops = moved = 0.0
    for start in range(0, len(order), batch):
        together = order[start : start + batch]
        moved += weight_bytes * reading
        moved += weight_bytes * each * max(outs for _, outs in together)
        for ins, outs in together:
            pairs = attention.count_pairs(ins, 0) + attention.decoder * beams * outs * (
                ins + outs / 2
            )
            flops += 2 * reading * ins + 2 * each * outs * beams + 4 * pairs * attention.width
            moved += kept * outs * (ins + beams * outs / 2)
    return flops, moved


def name_product(precision: str, *, tf32: bool) -> str:
    """Return in what matrices are multiplied: bf16, tf32 or fp32."""
    return "tf32" if precision == "fp32" and tf32 else precision


def describe_speed(
    *, steps: int, seconds: float, tokens: int, flops: float, peak: float | None
) -> dict[str, Any]:
    """Return the figures of some timed steps, as JSON is to hold them.

    Args:
        tokens, flops: of all those steps, padding not counted.
        peak: FLOP/s of the device; None: not known, and no utilisation is told.
    """
    return {
        "seconds_per_step": seconds / steps,
        "tokens_per_second": tokens / seconds,
        "model_flops_per_second": flops / seconds,
        "mfu": flops / seconds / peak if peak else None,
    }


def find_peak(device: str, *, precision: str) -> float | None:
    """Return a device's peak in FLOP/s; None where the table does not know it.

    Args:
        device: as the driver names it.
        precision: bf16, fp16 (as fast on these), tf32 or fp32.
    """
    peak = _find(device).get("bf16" if precision == "fp16" else precision)
    return None if peak is None else peak * TERA


def find_bandwidth(device: str) -> float | None:
    """Return the bytes a second of a device's memory; None where the table does not know it."""
    found = _find(device).get("memory")
    return None if found is None else found * 1e9


def _find(device: str) -> dict[str, float]:
    return PEAKS.get(device.removeprefix("NVIDIA ").removeprefix("GeForce ").strip(), {})

"""A frozen base in 4 or 8 bits (bitsandbytes), and back to floats.

Must not know checkpoints (load.py) nor adapters (adapt.py).
"""

from __future__ import annotations

from typing import Any, Literal

from dialsum.config.schema import Qlora

Bits = Literal[4, 8]


def choose_bits(asked: Qlora) -> Bits | None:
    """Return the bits of a weight of the frozen base; None where it is not quantised."""
    if not asked.use_qlora:
        return None
    if asked.load_in_4bit:
        return 4
    return 8 if asked.load_in_8bit else None


def describe_quantisation(bits: Bits, *, compute: Any) -> Any:
    """Return the library's description of a quantised base.

    4 bits: NF4 with double quantisation (Dettmers et al. 2023, QLoRA). 8 bits: LLM.int8 (Dettmers
    et al. 2022), which leaves columns of the input with a value above 6 in floats.

    Args:
        compute: torch dtype in which 4-bit layers multiply: bfloat16 or float32, else float32.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute if compute == torch.bfloat16 else torch.float32,
    )


def compute_as_in_training(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU.

    Its layout for CPUs with AVX512-BF16 stays once the model trains again, though no gradient comes
    back through it (BART stops with an error, T5 learns wrongly in silence); it rounds the scales
    of the blocks, too, and needs layers of a multiple of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def dequantise(model: Any) -> None:
    """Give a quantised model float32 weights, each the value that its bits stand for."""
    import torch

    if getattr(model, "hf_quantizer", None) is not None:
        model.dequantize(dtype=torch.float32)
        # What is left would still call the model quantised.
        for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
            model.__dict__.pop(mark, None)
    model.float()

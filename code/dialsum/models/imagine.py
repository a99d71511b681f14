"""A checkpoint's network without its weights: every layer in the type and size that it would be
loaded in, from its config.json alone.

Must be called where tensors have no content (train/simulation.py). Must not read weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch.utils._python_dispatch import _disable_current_modes

from dialsum.config.schema import Bits, Config
from dialsum.models.families import get_family
from dialsum.models.load import (
    compute_as_in_training,
    describe_quantisation,
    forget_own_search,
    give_rows,
)


def imagine_model(
    library_config: Any, own: Mapping[str, Any], *, config: Config, dtype: torch.dtype, rows: int
) -> Any:
    """Return what load_model would, all of it on the CPU and without content.

    Args:
        library_config: the library's, of the checkpoint's config.json.
        own: what config.json says, with the family's defaults.
        dtype: of weights that are not quantised.
        rows: tokens of the tokenizer, new ones included.
    """
    family, bits = get_family(config.model.architecture), config.qlora.bits
    asked = copy.deepcopy(library_config)
    asked.tie_word_embeddings = True
    if config.model.dropout is not None:
        asked.update(dict.fromkeys(family.dropout, config.model.dropout))
    with _disable_current_modes(), torch.device("meta"):
        model = getattr(transformers, family.model_classes[asked.model_type])._from_config(
            asked, attn_implementation="sdpa", dtype=dtype
        )
        if own.get("tie_word_embeddings") is False:
            head = model.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
        if bits is not None:
            leave_room_for_bits(model, bits, dtype=dtype)
    fill(model)
    if bits == 4:
        compute_as_in_training(model)
    give_rows(model, rows)
    pad, end = name_ends(own)
    forget_own_search(model, pad=pad, end=end)
    return model.eval()


def name_ends(own: Mapping[str, Any]) -> tuple[int, int]:
    """Return ids that stand for padding and end, of which a config.json may name none or several:
    what they are costs nothing."""
    end = own["eos_token_id"]
    end = end[0] if isinstance(end, list) else end
    pad = own["pad_token_id"]
    return (end or 0) if pad is None else pad, end or 0


def leave_room_for_bits(model: Any, bits: Bits, *, dtype: torch.dtype) -> None:
    """Put quantised layers where the library would."""
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(
        describe_quantisation(bits, compute=dtype), pre_quantized=False
    )
    quantizer.preprocess_model(model=model, device_map={"": "cpu"})
    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)


def fill(model: torch.nn.Module) -> None:
    """Put tensors without content in the place of those without a device."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for name, empty in place.items():
                if empty is None:
                    continue
                if id(empty) not in made:
                    made[id(empty)] = _make(module, empty)
                place[name] = made[id(empty)]


def _make(module: Any, empty: Any) -> Any:
    shape, dtype, kind = tuple(empty.shape), empty.dtype, type(empty).__name__
    if kind == "Params4bit":
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(
            torch.empty((module.out_features, module.in_features), dtype=dtype),
            blocksize=empty.blocksize,
            compress_statistics=empty.compress_statistics,
            quant_type=empty.quant_type,
        )
        made: Any = torch.nn.Parameter(packed, requires_grad=False)
        made.quant_state, made.bnb_quantized, made.module = state, True, module
        made.compress_statistics, made.quant_type = empty.compress_statistics, empty.quant_type
        made.blocksize, made.quant_storage = empty.blocksize, empty.quant_storage
        module.quant_state = state
        return made
    if kind == "Int8Params":
        weight = torch.empty(shape, dtype=torch.int8)
        made = torch.nn.Parameter(weight, requires_grad=False)
        made.CB, made.SCB = made.data, torch.empty(shape[0])
        made.has_fp16_weights = False
        # Which columns of an input are outliers only its content says: none are.
        module.state.threshold = 0.0
        return made
    if kind == "Tensor":  # a buffer
        return torch.empty(shape, dtype=dtype)
    return torch.nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=empty.requires_grad)

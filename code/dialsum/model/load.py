"""Load a checkpoint: config checked, weights read safely, 4-bit if asked, rows for new tokens.

Must not know LoRA (adapt.py) nor data.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.model.checkpoint import find_checked_keys, find_config_problems, weight_format
from dialsum.model.embeddings import add_rows, keep_head_as_it_is
from dialsum.model.families import Family, get_family

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class LoadedModel:
    """A model as loaded.

    Args:
        model: on its device, in evaluation mode.
        weights: file format that was read: safetensors, or pytorch_model.bin (weights only).
        tied: the head is the input embeddings.
        quantised: the blocks' linear layers are held in 4 bits.
    """

    model: PreTrainedModel
    weights: str
    tied: bool
    quantised: bool


def read_model_config(source: str | Path, config: Config) -> Any:
    """Read a checkpoint's config.json and check it against the experiment.

    Raises:
        UnfitError: unreachable, another architecture, own code without leave, inputs beyond its
            positions, or no word on how decoding starts.
    """
    from transformers import AutoConfig

    family = get_family(config.model.architecture)
    try:
        found: Any = AutoConfig.from_pretrained(
            str(source), revision=config.model.revision,
            trust_remote_code=config.model.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise UnfitError(
            f"model.checkpoint {source}: its config could not be read "
            f"({first_line(error)}). "
            "Check the name and the network (or HF_HOME's cache), or give a local folder."
        ) from error
    own = {key: getattr(found, key, None) for key in find_checked_keys(family)}
    if problems := find_config_problems(own, config, source=source):
        raise UnfitError("; ".join(problems))
    return found


def load_model(
    source: str | Path, *, config: Config, tokenizer: PreTrainedTokenizerFast,
    new_tokens: Sequence[str], device: str, dtype: Any,
) -> LoadedModel:
    """Load the network, quantised if asked, with a row for every token.

    Args:
        new_tokens: tokens added to the tokenizer; their rows start as the mean of the pieces that
            spelled them.
        device: torch device, such as cuda:0 or cpu.
        dtype: torch dtype of weights that are not quantised.

    Raises:
        UnfitError, RunError: unreadable weights.
    """
    family = get_family(config.model.architecture)
    model_config = read_model_config(source, config)
    if config.model.dropout is not None:
        name = "dropout" if family.name == "bart" else "dropout_rate"
        setattr(model_config, name, config.model.dropout)
    quantise = config.qlora.use_qlora and config.qlora.load_in_4bit
    model, weights = _read_weights(
        source, family=family, model_config=model_config, config=config, device=device,
        dtype=dtype, quantise=quantise,
    )
    tied = keep_head_as_it_is(model)
    add_rows(model, tokenizer, new_tokens)
    _use_tokenizer_ids(model, tokenizer)
    return LoadedModel(model=model, weights=weights, tied=tied, quantised=quantise)


def _read_weights(
    source: str | Path, *, family: Family, model_config: Any, config: Config, device: str,
    dtype: Any, quantise: bool,
) -> tuple[PreTrainedModel, str]:
    """Read safetensors where there are any, else pytorch_model.bin with weights_only."""
    import transformers
    from safetensors import SafetensorError

    # The library would start a thread that asks the hub to convert a checkpoint; nobody asked to.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    model_class = getattr(transformers, family.model_class)
    options: dict[str, Any] = {
        "config": model_config, "dtype": dtype, "device_map": {"": device}, "weights_only": True,
        "revision": config.model.revision, "attn_implementation": "sdpa",
    }
    if quantise:
        options["quantization_config"] = _four_bit(dtype)
    wanted = weight_format(source)
    formats = [wanted] if wanted else ["safetensors", "pytorch_model.bin"]
    failures = []
    for name in formats:
        try:
            model = model_class.from_pretrained(
                str(source), use_safetensors=name == "safetensors", **options
            )
        except pickle.UnpicklingError:
            failures.append(
                f"{name}: it is damaged, or holds more than weights, which could run code; "
                "it was not read"
            )
            continue
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            failures.append(f"{name}: {first_line(error)}")
            continue
        if quantise:
            _compute_as_in_training(model)
        return model.eval(), name
    raise RunError(f"{source}: weights could not be loaded; {'; '.join(failures)}")


def _four_bit(dtype: Any) -> Any:
    """NF4 with double quantisation, computing in dtype (Dettmers et al. 2023, QLoRA)."""
    import torch
    from transformers import BitsAndBytesConfig

    compute = dtype if dtype in (torch.bfloat16, torch.float32) else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _compute_as_in_training(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU.

    Its layout for CPUs with AVX512-BF16 stays once the model trains again, though no gradient comes
    back through it (BART stops with an error, T5 learns wrongly in silence); it rounds the scales
    of the blocks, too, and needs layers of a multiple of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _use_tokenizer_ids(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let model and tokenizer agree on padding and end, and forget the checkpoint's own search.

    generate() fills in from it whatever is not set: mT5 XLSum's bans every n-gram of 2, tags too.
    """
    from transformers import GenerationConfig

    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )

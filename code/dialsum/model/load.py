"""Load a checkpoint: config checked, weights read safely, quantised if asked, rows for new tokens.

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
from dialsum.model.quantise import (
    Bits,
    choose_bits,
    compute_as_in_training,
    describe_quantisation,
)
from dialsum.model.trim import KeptPieces, TrimmedRows, trim_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class LoadedModel:
    """A model as loaded.

    Args:
        model: on its device, in evaluation mode.
        weights: file format that was read: safetensors, or pytorch_model.bin (weights only).
        tied: the head is the input embeddings.
        quantised: the blocks' linear layers are held in 4 or 8 bits.
        trimmed: what became of embeddings and head where the vocabulary was cut.
    """

    model: PreTrainedModel
    weights: str
    tied: bool
    quantised: bool
    trimmed: TrimmedRows | None = None


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
    new_tokens: Sequence[str], device: str, dtype: Any, kept: KeptPieces | None = None,
) -> LoadedModel:
    """Load the network, quantised if asked, with a row for every token.

    Args:
        new_tokens: tokens added to the tokenizer; their rows start as the mean of the pieces that
            spelled them.
        device: torch device, such as cuda:0 or cpu.
        dtype: torch dtype of weights that are not quantised.
        kept: the checkpoint's pieces to which its vocabulary is cut, as the tokenizer's was.

    Raises:
        UnfitError, RunError: unreadable weights.
    """
    family = get_family(config.model.architecture)
    model_config = read_model_config(source, config)
    if config.model.dropout is not None:
        name = "dropout" if family.name == "bart" else "dropout_rate"
        setattr(model_config, name, config.model.dropout)
    bits = choose_bits(config.qlora)
    model, weights = _read_weights(
        source, family=family, model_config=model_config, config=config, device=device,
        dtype=dtype, bits=bits,
    )
    tied = keep_head_as_it_is(model)
    # Before rows are added: growing the embeddings would hold them twice in full.
    trimmed = None if kept is None else trim_rows(model, kept)
    add_rows(model, tokenizer, new_tokens, means=trimmed.means if trimmed else ())
    _use_tokenizer_ids(model, tokenizer)
    return LoadedModel(
        model=model, weights=weights, tied=tied, quantised=bits is not None, trimmed=trimmed
    )


def _read_weights(
    source: str | Path, *, family: Family, model_config: Any, config: Config, device: str,
    dtype: Any, bits: Bits | None,
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
    if bits is not None:
        options["quantization_config"] = describe_quantisation(bits, compute=dtype)
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
        if bits == 4:
            compute_as_in_training(model)
        return model.eval(), name
    raise RunError(f"{source}: weights could not be loaded; {'; '.join(failures)}")


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

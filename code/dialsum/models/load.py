"""Load a checkpoint: config checked, weights read safely, quantised if asked, rows for new tokens.

Must not know LoRA (adapt.py) nor data.
"""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.errors import DialsumError, RunError, UnfitError, first_line
from dialsum.models.checkpoint import (
    find_folder_problems,
    find_weight_problems,
    list_held_embeddings,
    read_own_config,
    show_names,
    weight_format,
)
from dialsum.models.checkpoint_files import weight_files
from dialsum.models.embeddings import add_rows, keep_head_as_it_is
from dialsum.models.families import Family, get_family
from dialsum.models.quantise import Bits, choose_bits, compute_as_in_training, describe_quantisation
from dialsum.models.trim import KeptPieces, TrimmedRows, trim_rows

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


def read_model_config(source: Path, config: Config) -> Any:
    """Read a checkpoint's config.json and check it against the experiment.

    Raises:
        UnfitError: unreachable, another architecture, own code without leave, weights in bits, an
            adapter beside them, inputs beyond its positions, or no word on how decoding starts.
    """
    from transformers import AutoConfig

    if problems := find_folder_problems(source, config):
        raise UnfitError("; ".join(problems))
    try:
        return AutoConfig.from_pretrained(
            str(source),
            revision=config.model.revision,
            trust_remote_code=config.model.trust_remote_code,
        )
    except Exception as error:  # a config may be wrong in as many ways as the library has lines
        raise _explain_unread(source, error) from error


def _explain_unread(source: Path, error: Exception) -> UnfitError:
    return UnfitError(
        f"model.checkpoint {source}: its config could not be read ({first_line(error)}). "
        "Check the name and the network (or HF_HOME's cache), or give a local folder."
    )


def load_model(
    source: Path,
    *,
    config: Config,
    tokenizer: PreTrainedTokenizerFast,
    new_tokens: Sequence[str],
    device: str,
    dtype: Any,
    kept: KeptPieces | None = None,
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
    # Under True the library ties what the file lacks, and leaves a head of its own as it is; under
    # False, BART's encoder and decoder would not find the embeddings that they share.
    model_config.tie_word_embeddings = True
    if config.model.dropout is not None:
        name = "dropout" if family.name == "bart" else "dropout_rate"
        setattr(model_config, name, config.model.dropout)
    bits = choose_bits(config.qlora)
    model, weights = _read_weights(
        source,
        family=family,
        model_config=model_config,
        config=config,
        device=device,
        dtype=dtype,
        bits=bits,
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
    source: Path,
    *,
    family: Family,
    model_config: Any,
    config: Config,
    device: str,
    dtype: Any,
    bits: Bits | None,
) -> tuple[PreTrainedModel, str]:
    """Read safetensors where there are any, else pytorch_model.bin with weights_only.

    Raises:
        RunError: unreadable, or not the weights of this model.
    """
    import transformers

    # The library would start a thread that asks the hub to convert a checkpoint; nobody asked to.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    model_class = getattr(transformers, family.model_class)
    options: dict[str, Any] = {
        "config": model_config,
        "dtype": dtype,
        "device_map": {"": device},
        "weights_only": True,
        "revision": config.model.revision,
        "attn_implementation": "sdpa",
    }
    wanted = weight_format(source)
    formats = [wanted] if wanted else ["safetensors", "pytorch_model.bin"]
    failures = []
    for name in formats:
        options["use_safetensors"] = name == "safetensors"
        try:
            held = _refuse_partial(model_class, source, family=family, options=options)
            _refuse_not_finite(source)
            if bits is not None:
                options["quantization_config"] = describe_quantisation(bits, compute=dtype)
            model = model_class.from_pretrained(str(source), **options)
            _share_embeddings(model, held, family=family)
        except DialsumError:
            raise
        except pickle.UnpicklingError:
            failures.append(
                f"{name}: it is damaged, or holds more than weights, which could run code; "
                "it was not read"
            )
            continue
        except Exception as error:  # files may be wrong in as many ways as the library has lines
            failures.append(f"{name}: {first_line(error)}")
            continue
        if bits == 4:
            compute_as_in_training(model)
        return model.eval(), name
    raise RunError(f"{source}: weights could not be loaded; {'; '.join(failures)}")


def _refuse_partial(
    model_class: Any, source: Path, *, family: Family, options: Mapping[str, Any]
) -> list[str]:
    """Compare the names and sizes in a weight file with the model's, before any weight is held.

    The library fills what is absent with random numbers; in 4 and 8 bits it does not even look at
    sizes. Loaded as floats onto no device, and nothing tied, its report says what the file lacks.

    Returns:
        The names under which the file holds the input embeddings.

    Raises:
        RunError: weights are absent, unused or of another size.
    """
    config = copy.deepcopy(options["config"])
    config.tie_word_embeddings = False
    _, report = model_class.from_pretrained(
        str(source),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **(dict(options) | {"config": config, "device_map": {"": "meta"}}),
    )
    own = read_own_config(source)
    if problem := find_weight_problems(report, family=family, own=own):
        raise RunError(f"{source}: {problem}")
    return list_held_embeddings(report, family=family, own=own)


def _share_embeddings(model: Any, held: list[str], *, family: Family) -> None:
    """Put the matrix that the file holds in every place of the input embeddings.

    The library fills an absent `shared` from the first tied name that it finds, which is the head's
    for T5 and BART, even where the head is another matrix. A place for which the file has other
    values keeps them, as a merge of adapters writes it.

    Args:
        held: the names under which the file holds it.
    """
    import torch

    weight = model.get_parameter(held[0])
    for name in family.embeddings:
        layer, ties = model.get_submodule(name.rpartition(".")[0]), model.all_tied_weights_keys
        if name in held and not torch.equal(layer.weight, weight):
            ties.pop(name, None)
            continue
        layer.weight = weight
        if name != family.embeddings[0]:
            ties[name] = family.embeddings[0]


def _refuse_not_finite(source: Path) -> None:
    """Refuse weights that are not finite: every loss would be so, whatever trains on them.

    Looked at in the file: quantised, a NaN becomes some number.

    Raises:
        RunError: with their names.
    """
    import torch

    files = weight_files({path.name for path in source.iterdir()})
    names = [
        name
        for file in files
        if not file.endswith(".json")
        for name, weight in _read_tensors(source / file)
        if weight.is_floating_point()
        and weight.numel()
        # A sum of float16 may overflow where no weight does; NaN is least and largest.
        and not torch.stack(torch.aminmax(weight.float())).isfinite().all()
    ]
    if names:
        raise RunError(
            f"{source}: {len(names)} of its weights hold NaN or infinity ({show_names(names)}), so "
            "that every loss would be NaN; copy the checkpoint again, or give one that was saved "
            "before it was spoilt"
        )


def _read_tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Give each tensor of a weight file with its name; safetensors or a pickle of weights alone."""
    import torch
    from safetensors import safe_open

    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name)
        return
    # A pickle of the old form cannot be mapped into memory.
    yield from torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
    ).items()


def _use_tokenizer_ids(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let model and tokenizer agree on padding and end, and forget the checkpoint's own search.

    generate() fills in from it whatever is not set: mT5 XLSum's bans every n-gram of 2, tags too.
    """
    from transformers import GenerationConfig

    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )


def quiet_libraries() -> None:
    """Keep the libraries' bars and hints out of a log that a person reads; errors still come."""
    import logging

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

"""Load a checkpoint and make of it what learns: adapters (LoRA) and new tokens' rows, or all of it.

First its files are looked at (open_checkpoint), then come the tokenizer with the dialogue's tokens
and the network: weights read safely, quantised if asked, with a row for every token. Must not know
data or the trainer.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Bits, Config, Qlora
from dialsum.data.prompts import use_template
from dialsum.errors import RunError, UnfitError, first_line
from dialsum.models.checkpoint import (
    fetch_folder,
    find_checkpoint_problems,
    read_own_config,
    refuse_foreign_tokenizer,
    weight_files,
)
from dialsum.models.families import HEAD_WEIGHT, Family, get_family, map_target_names
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from dialsum.paths import shown
from dialsum.text import say_first

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHOWN_NAMES = 3
"""How many names of weights a message gives."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that suits its experiment, as far as that shows without its weights.

    Args:
        folder: that holds config, weights and tokenizer.
        config: the library's, of its config.json.
        own: what config.json says, with the family's default where a key is absent.
        files: of its weights; the index first, where there is one.
    """

    folder: Path
    config: Any
    own: Mapping[str, Any]
    files: Sequence[str]

    @property
    def weights(self) -> str:
        """Format of the weights: safetensors or pytorch_model.bin."""
        return "safetensors" if self.files[0].startswith("model.") else "pytorch_model.bin"


def open_checkpoint(config: Config, *, folder: Path | None = None) -> Checkpoint:
    """Look at the files of an experiment's checkpoint, which is downloaded where it is absent.

    Args:
        folder: where it lies; model.checkpoint when None.

    Raises:
        UnfitError: see fetch_folder and find_checkpoint_problems; or the library cannot read its
            config.
    """
    from transformers import AutoConfig

    folder = folder or fetch_folder(config.model)
    if problems := find_checkpoint_problems(folder, config):
        raise UnfitError("; ".join(problems))
    try:
        library_config = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=config.model.trust_remote_code
        )
    except Exception as error:  # a config may be wrong in as many ways as the library has lines
        raise UnfitError(
            f"model.checkpoint {folder}: its config could not be read ({first_line(error)}); "
            "copy the checkpoint again"
        ) from error
    own = {**get_family(config.model.architecture).defaults, **read_own_config(folder)}
    return Checkpoint(
        folder, library_config, own, weight_files({path.name for path in folder.iterdir()})
    )


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer with the dialogue's tokens.

    Args:
        tokenizer: a fast tokenizer; of a decoder alone with the template of its prompts.
        new_tokens: tokens that the checkpoint did not have.
        tags: all speaker tags and masks.
    """

    tokenizer: Any
    new_tokens: list[str]
    tags: list[str]


def prepare_tokenizer(
    checkpoint: Checkpoint, config: Config, *, tags: Sequence[str]
) -> PreparedTokenizer:
    """Load a checkpoint's tokenizer and add the tags that it lacks.

    Raises:
        UnfitError: it cannot be loaded, or is of another checkpoint than the weights.
    """
    folder = checkpoint.folder
    tokenizer = load_tokenizer(folder, trust_remote_code=config.model.trust_remote_code)
    rows = checkpoint.own["vocab_size"]
    refuse_foreign_tokenizer(tokenizer.get_vocab(), rows=rows, source=folder)
    family = get_family(config.model.architecture)
    if family.decoder_only:
        use_template(tokenizer, config.prompt, chat=family.chat, source=shown(folder))
    return PreparedTokenizer(tokenizer, add_dialogue_tokens(tokenizer, tags), list(tags))


def prepare_model(
    checkpoint: Checkpoint,
    config: Config,
    tokens: PreparedTokenizer,
    *,
    device: str,
    dtype: Any,
    gradient_checkpointing: bool,
) -> AdaptedModel:
    """Load the network and make the asked part of it trainable (load_model, adapt_model)."""
    from transformers import set_seed

    # Adapters start at random numbers, long before the loop sets its own seed.
    set_seed(config.training.seed)
    model = load_model(
        checkpoint,
        config=config,
        tokenizer=tokens.tokenizer,
        new_tokens=tokens.new_tokens,
        device=device,
        dtype=dtype,
    )
    return adapt_model(
        model,
        config=config,
        new_token_ids=tokens.tokenizer.convert_tokens_to_ids(tokens.new_tokens),
        gradient_checkpointing=gradient_checkpointing,
    )


def load_model(
    checkpoint: Checkpoint,
    *,
    config: Config,
    tokenizer: PreTrainedTokenizerFast,
    new_tokens: Sequence[str],
    device: str,
    dtype: Any,
) -> Any:
    """Load the network, quantised if asked, with a row for every token.

    Args:
        new_tokens: tokens added to the tokenizer; their rows start as the mean of the pieces that
            spelled them.
        device: torch device, such as cuda:0 or cpu.
        dtype: torch dtype of weights that are not quantised.

    Returns:
        The model on its device, in evaluation mode; its config says whether the head is tied.

    Raises:
        RunError: weights that cannot be read, are not finite, or are not those of this model.
    """
    import transformers

    family, bits = get_family(config.model.architecture), config.qlora.bits
    source, weights = str(checkpoint.folder), checkpoint.weights
    model_config = copy.deepcopy(checkpoint.config)
    # Under True the library ties what the file lacks, and leaves a head of its own as it is; under
    # False, BART's encoder and decoder would not find the embeddings that they share.
    model_config.tie_word_embeddings = True
    if config.model.dropout is not None:
        model_config.update(dict.fromkeys(family.dropout, config.model.dropout))
    # The library would start a thread that asks the hub to convert a checkpoint; nobody asked to.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    options: dict[str, Any] = {
        "dtype": dtype,
        "weights_only": True,
        "attn_implementation": "sdpa",
        "use_safetensors": weights == "safetensors",
    }
    model_class = getattr(transformers, family.model_classes[model_config.model_type])
    try:
        # The library fills what a file lacks with random numbers; in 4 and 8 bits it does not even
        # look at sizes. Loaded as floats onto no device, and nothing tied, it reports what lacks.
        untied = copy.deepcopy(model_config)
        untied.tie_word_embeddings = False
        _, report = model_class.from_pretrained(
            source,
            config=untied,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
        problem = find_weight_problems(report, family=family, own=checkpoint.own)
        problem = problem or _find_not_finite(checkpoint.folder / file for file in checkpoint.files)
        if problem is None:
            if bits is not None:
                options["quantization_config"] = describe_quantisation(bits, compute=dtype)
            model = model_class.from_pretrained(
                source, config=model_config, device_map={"": device}, **options
            ).eval()
            held = _held_embeddings(report, family=family, own=checkpoint.own)
            _share_embeddings(model, held, family=family)
    except pickle.UnpicklingError:
        problem = (
            f"weights could not be loaded; {weights}: it is damaged, or holds more than weights, "
            "which could run code; it was not read"
        )
    except Exception as error:  # files may be wrong in as many ways as the library has lines
        problem = f"weights could not be loaded; {weights}: {first_line(error)}"
    if problem:
        raise RunError(f"{source}: {problem}")
    if bits == 4:
        compute_as_in_training(model)
    give_rows(model, len(tokenizer))
    _spell_new_rows(model, tokenizer, new_tokens)
    forget_own_search(model, pad=tokenizer.pad_token_id, end=tokenizer.eos_token_id)
    return model


def find_weight_problems(
    report: Mapping[str, Collection[Any]], *, family: Family, own: Mapping[str, Any]
) -> str | None:
    """Say which weights of a file are not those of its model; None where all fit.

    Args:
        report: as the library gives it of a load: `missing_keys` and `unexpected_keys` are names,
            `mismatched_keys` a name with its shape in the file and in the model.
        own: the content of the checkpoint's config.json.
    """
    absent = set(report["missing_keys"])
    unused = {name for name in report["unexpected_keys"] if not _fits(family.unused, name)}
    if (prefix := _find_prefix(absent, unused, family)) is not None:
        return (
            f"the names of {len(unused)} weights begin with {prefix!r}, such as {min(unused)}, and "
            "the model's do not, so none of them would be read; save the state_dict of the model "
            "itself, not of what it was wrapped in, or take that beginning off the names"
        )
    if _held_embeddings(report, family=family, own=own):
        absent.difference_update(family.embeddings)
    if own.get("tie_word_embeddings") is not False:
        absent.discard(HEAD_WEIGHT)
    sizes = [
        f"{name} ({_show_shape(held)} in the file, {_show_shape(asked)} by config.json)"
        for name, held, asked in sorted(report["mismatched_keys"])
    ]
    parts = [
        f"{len(names)} {said} ({say_first(names, limit=SHOWN_NAMES)})"
        for names, said in (
            (sorted(name for name in absent if not _fits(family.absent, name)), "absent"),
            (sorted(unused), "unused"),
            (sizes, "of another size"),
        )
        if names
    ]
    if not parts:
        return None
    return (
        f"its weights are not those that its config.json describes: {'; '.join(parts)}. What "
        "is absent would begin at random, what is unused would be lost. Copy config.json and "
        "weights of one checkpoint again"
    )


def _held_embeddings(
    report: Mapping[str, Collection[Any]], *, family: Family, own: Mapping[str, Any]
) -> list[str]:
    """Return the names under which a file holds the one matrix of input embeddings.

    `save_model` of safetensors keeps any one name of a matrix that has several: of a tied model it
    may be the head's.
    """
    held = [name for name in family.embeddings if name not in report["missing_keys"]]
    if not held and own.get("tie_word_embeddings") is not False:
        return [HEAD_WEIGHT] if HEAD_WEIGHT not in report["missing_keys"] else []
    return held


def _fits(pattern: str | None, name: str) -> bool:
    return pattern is not None and re.search(pattern, name) is not None


def _find_prefix(absent: Collection[str], unused: Collection[str], family: Family) -> str | None:
    """Return what stands before every unused name, where names without it are the absent ones."""
    known = {*absent, *(name.removeprefix(f"{family.base}.") for name in absent)}
    first = min(unused, default="")
    for dot in re.finditer(r"\.", first):
        prefix = first[: dot.end()]
        if all(name.startswith(prefix) for name in unused) and any(
            name.removeprefix(prefix) in known for name in unused
        ):
            return prefix
    return None


def _show_shape(shape: Collection[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _find_not_finite(files: Iterator[Path]) -> str | None:
    """Say which weights are not finite: every loss would be so, whatever trains on them.

    Looked at in the file: quantised, a NaN becomes some number.
    """
    import torch

    names = [
        name
        for file in files
        if file.suffix != ".json"
        for name, weight in read_tensors(file)
        if weight.is_floating_point()
        and weight.numel()
        # A sum of float16 may overflow where no weight does; NaN is least and largest.
        and not torch.stack(torch.aminmax(weight.float())).isfinite().all()
    ]
    if not names:
        return None
    return (
        f"{len(names)} of its weights hold NaN or infinity "
        f"({say_first(names, limit=SHOWN_NAMES)}), so that every loss would be NaN; copy "
        "the checkpoint again, or give one that was saved before it was "
        "spoilt"
    )


def read_tensors(path: Path) -> Iterator[tuple[str, Any]]:
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


def give_rows(model: Any, rows: int) -> None:
    """Give a model's embeddings and head so many rows, taking none away."""
    # transformers 5 says True for every T5 and mT5; growing the embeddings would then silently
    # replace the head of mT5 and T5 v1.1 by them.
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
        model.all_tied_weights_keys.pop(HEAD_WEIGHT, None)
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
        if not model.config.is_encoder_decoder:
            return
        # That puts one and the same layer in all places. PEFT meets it once, under the name
        # `shared`, and an adapter asked for embed_tokens is then left out in silence.
        for stack in (model.get_encoder(), model.get_decoder()):
            stack.embed_tokens = copy.copy(stack.embed_tokens)
            stack.embed_tokens._parameters = dict(stack.embed_tokens._parameters)


def forget_own_search(model: Any, *, pad: int, end: int) -> None:
    """Leave a model nothing of its checkpoint's own search: generate() fills in from it whatever is
    not set, and mT5 XLSum's bans every n-gram of 2, tags too.

    Args:
        pad, end: ids of the tokenizer's tokens for padding and for the end of a text.
    """
    from transformers import GenerationConfig

    model.config.pad_token_id, model.config.eos_token_id = pad, end
    model.generation_config = GenerationConfig(
        pad_token_id=pad,
        eos_token_id=end,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )


def _spell_new_rows(
    model: Any, tokenizer: PreTrainedTokenizerFast, new_tokens: Sequence[str]
) -> None:
    """Let the row of a new token start as the mean of the pieces that spelled it, or of all, where
    none does."""
    import torch

    vocabulary = tokenizer.get_vocab()
    new_ids = [vocabulary[token] for token in new_tokens]
    matrices = [model.get_input_embeddings().weight]
    if (head := model.get_output_embeddings().weight) is not matrices[0]:
        matrices.append(head)
    spell = tokenizer.backend_tokenizer.model.tokenize
    with torch.no_grad():
        for token, new_id in zip(new_tokens, new_ids, strict=True):
            spelled = {piece.id for piece in spell(token.strip())} if token.strip() else set()
            pieces = sorted(spelled - {*new_ids, tokenizer.unk_token_id})
            for weight in matrices:
                rows = weight[pieces] if pieces else weight[: min(new_ids)]
                weight[new_id] = rows.mean(dim=0)


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


def quiet_libraries() -> None:
    """Keep the libraries' bars and hints out of a log that a person reads; errors still come."""
    import logging

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


HEAD, SHARED = "lm_head", "shared"


@dataclass(frozen=True)
class AdaptedModel:
    """A model ready to train.

    Args:
        model: with exactly the parameters that learn requiring gradients.
        loader: what was asked for and used, for the record: requested, used, why.
        targets: layers that got adapters; empty for full fine-tuning.
        notes: what the user should know (names mapped, ranks too large …).
    """

    model: Any
    loader: dict[str, str]
    targets: list[str]
    notes: list[str] = field(default_factory=list)

    def count_parameters(self) -> tuple[int, int]:
        """Return all parameters and those that learn; 4- and 8-bit weights count in full."""
        total = trainable = 0
        for parameter in self.model.parameters():
            state = getattr(parameter, "quant_state", None)
            count = state.shape.numel() if state is not None else parameter.numel()
            total += count
            trainable += count if parameter.requires_grad else 0
        return total, trainable


def adapt_model(
    model: Any, *, config: Config, new_token_ids: Sequence[int], gradient_checkpointing: bool
) -> AdaptedModel:
    """Freeze the base and add adapters, or let every weight learn.

    Args:
        new_token_ids: rows that must learn even when the embeddings are frozen.

    Raises:
        UnfitError: a name in qlora.target_modules matches no layer, or DoRA cannot serve a layer.
    """
    asked, family = config.qlora, get_family(config.model.architecture)
    model.config.use_cache = not gradient_checkpointing
    model.requires_grad_(not asked.use_qlora)
    loader = describe_loader(asked, decoder_only=family.decoder_only)
    from dialsum.models.layers import compute_faster

    if not asked.use_qlora:
        compute_faster(model)
        return AdaptedModel(model, loader, targets=[])
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    if gradient_checkpointing:
        # Gradients must reach the adapters through frozen, recomputed blocks.
        model.enable_input_require_grads()
    present = adaptable_names(model)
    targets, notes = [name for name in family.linear if name in present], list[str]()
    if asked.target_modules != "auto":
        targets, notes = map_target_names(asked.target_modules, family=family, present=present)
    if asked.train_embeddings:
        whole = [name for name in targets if name in (family.embedding, HEAD)]
        targets = [name for name in targets if name not in whole]
        if whole:
            notes.append(
                f"no adapter on {' and '.join(whole)}: qlora.train_embeddings lets them learn whole"
            )
    notes += describe_large_ranks(model, targets, rank=asked.lora_rank)
    for name in (family.embedding, HEAD):
        if new_token_ids and name in targets:
            notes.append(f"new tokens learn through the adapter on {name}")
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    rows_learn = bool(new_token_ids) and not asked.train_embeddings
    places = places_of_new_rows(targets, family=family, tied=tied) if rows_learn else []
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM if family.decoder_only else TaskType.SEQ_2_SEQ_LM,
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),
            r=asked.lora_rank,
            lora_alpha=asked.lora_alpha,
            lora_dropout=asked.lora_dropout,
            target_modules=targets,
            bias="none",
            use_rslora=asked.use_rslora,
            use_dora=asked.use_dora,
            init_lora_weights=(
                True if asked.init_lora_weights == "default" else asked.init_lora_weights
            ),
            trainable_token_indices={place: list(new_token_ids) for place in places} or None,
        ),
    )
    compute_faster(adapted)
    if not family.decoder_only and family.embedding in places:
        # PEFT gives encoder and decoder each a row for a new token, though they have one matrix: a
        # merge would keep the decoder's only.
        own, other = (
            stack.embed_tokens.token_adapter.trainable_tokens_delta
            for stack in (model.get_encoder(), model.get_decoder())
        )
        for name in own:
            other[name] = own[name]
    if asked.use_dora:
        _refuse_rows_without_direction(adapted)
    if asked.train_embeddings:
        # The base's own weights learn besides (save.py says why), positions too.
        learn = {*family.norms, HEAD}
        for name, module in adapted.named_modules():
            if isinstance(module, torch.nn.Embedding) or name.rpartition(".")[2] in learn:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)
    return AdaptedModel(adapted, loader, targets, notes)


def describe_loader(asked: Qlora, *, decoder_only: bool = False) -> dict[str, str]:
    """Say which library serves the adapters, and why not the one that was asked for."""
    if not asked.use_qlora:
        used = "transformers (full fine-tuning)"
        return {"requested": used, "used": used, "why": "qlora.use_qlora is false"}
    bits = asked.bits
    used = f"PEFT + bitsandbytes {bits}-bit" if bits else "PEFT + no quantisation"
    if not asked.use_unsloth:
        return {"requested": used, "used": used, "why": "as configured"}
    why = "Unsloth does not support encoder-decoder models; PEFT trains the same adapters"
    if decoder_only:
        why = "this program does not train through Unsloth yet; PEFT trains the same adapters"
    return {"requested": "Unsloth", "used": used, "why": why}


def adaptable_names(model: Any) -> set[str]:
    """Return the last name components of a model's linear and embedding layers.

    `shared`, which only holds the embeddings' weight and never computes, is left out.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D)
    }
    return names - {SHARED, "relative_attention_bias", "embed_positions", "wpe"}


def places_of_new_rows(targets: Sequence[str], *, family: Family, tied: bool) -> list[str]:
    """Return the layers in which the rows of new tokens learn by themselves.

    The head's too: a row that stays the mean of its pieces' rows gives the mean of their logits, so
    that one of the pieces always comes before the new token, and the token is never written.

    Args:
        targets: layers with adapters; PEFT cannot combine both on one layer.
        tied: the head is the input embeddings; their rows are then one.
    """
    free = [name for name in (family.embedding, HEAD) if name not in targets]
    one = family.embedding if family.decoder_only else SHARED
    return [one] if tied and len(free) == 2 else free


def describe_large_ranks(model: Any, targets: Sequence[str], *, rank: int) -> list[str]:
    """Name the layers that are smaller than the rank, with their sizes; [] if none is.

    The product of an adapter's factors never has a rank above the layer's own smaller side: what is
    asked beyond it costs memory and changes only the scale (alpha / r).

    Args:
        targets: last name components of layers with adapters.
    """
    import torch

    smaller: dict[tuple[int, int], set[str]] = defaultdict(set)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last not in targets:
            continue
        # Not its weight's shape, which is another in 4 bits.
        if isinstance(module, torch.nn.Linear):
            size = module.out_features, module.in_features
        elif isinstance(module, torch.nn.Embedding):
            size = module.num_embeddings, module.embedding_dim
        else:
            continue
        if min(size) < rank:
            smaller[size].add(last)
    if not smaller:
        return []
    layers = "; ".join(
        f"{', '.join(sorted(names))} ({rows} x {columns})"
        for (rows, columns), names in sorted(smaller.items())
    )
    return [
        f"qlora.lora_rank {rank} is above what some layers can hold: {layers}; "
        f"rank {max(map(min, smaller))} does all that it does there"
    ]


def _refuse_rows_without_direction(adapted: Any) -> None:
    """Refuse DoRA on a layer with a row of zeros: length over length would be NaN from the start.

    Raises:
        UnfitError: with the layers and how many such rows each has.
    """
    found = [
        f"{name.partition('.lora_magnitude_vector')[0].removeprefix('base_model.model.')} "
        f"({int((lengths == 0).sum())} of {lengths.numel()})"
        for name, lengths in adapted.named_parameters()
        if "lora_magnitude_vector" in name and bool((lengths == 0).any())
    ]
    if found:
        raise UnfitError(
            f"qlora.use_dora: rows of zeros in {', '.join(found)} have no direction, and the loss "
            "would be NaN (in a head it is the padding token's row); take the layer out of "
            "qlora.target_modules, or set qlora.use_dora: false"
        )

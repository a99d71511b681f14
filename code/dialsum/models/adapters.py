"""What of a loaded model learns: adapters (LoRA) and new tokens' rows, or every weight.

Must not know data or the trainer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dialsum.config.schema import Config, Qlora
from dialsum.errors import UnfitError
from dialsum.models.families import get_family, map_target_names
from dialsum.models.load import LoadedModel, choose_bits

EMBEDDING, HEAD, SHARED = "embed_tokens", "lm_head", "shared"


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
    loaded: LoadedModel,
    *,
    config: Config,
    new_token_ids: Sequence[int],
    gradient_checkpointing: bool,
) -> AdaptedModel:
    """Freeze the base and add adapters, or let every weight learn.

    Args:
        new_token_ids: rows that must learn even when the embeddings are frozen.

    Raises:
        UnfitError: a name in qlora.target_modules matches no layer, or DoRA cannot serve a layer.
    """
    model: Any = loaded.model
    asked, family = config.qlora, get_family(config.model.architecture)
    model.config.use_cache = not gradient_checkpointing
    model.requires_grad_(not asked.use_qlora)
    loader = describe_loader(asked)
    if not asked.use_qlora:
        return AdaptedModel(model, loader, targets=[])
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    from dialsum.models.token_rows import compute_rows_in_place

    if gradient_checkpointing:
        # Gradients must reach the adapters through frozen, recomputed blocks.
        model.enable_input_require_grads()
    present = adaptable_names(model)
    targets, notes = [name for name in family.linear if name in present], list[str]()
    if asked.target_modules != "auto":
        targets, notes = map_target_names(asked.target_modules, family=family, present=present)
    if asked.train_embeddings:
        whole = [name for name in targets if name in (EMBEDDING, HEAD)]
        targets = [name for name in targets if name not in whole]
        if whole:
            notes.append(
                f"no adapter on {' and '.join(whole)}: qlora.train_embeddings lets them learn whole"
            )
    notes += describe_large_ranks(model, targets, rank=asked.lora_rank)
    for name in (EMBEDDING, HEAD):
        if new_token_ids and name in targets:
            notes.append(f"new tokens learn through the adapter on {name}")
    rows_learn = bool(new_token_ids) and not asked.train_embeddings
    places = places_of_new_rows(targets, tied=loaded.tied) if rows_learn else []
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
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
    compute_rows_in_place(adapted)
    if EMBEDDING in places:
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


def describe_loader(asked: Qlora) -> dict[str, str]:
    """Say which library serves the adapters, and why not the one that was asked for."""
    if not asked.use_qlora:
        used = "transformers (full fine-tuning)"
        return {"requested": used, "used": used, "why": "qlora.use_qlora is false"}
    bits = choose_bits(asked)
    used = f"PEFT + bitsandbytes {bits}-bit" if bits else "PEFT + no quantisation"
    if not asked.use_unsloth:
        return {"requested": used, "used": used, "why": "as configured"}
    return {
        "requested": "Unsloth",
        "used": used,
        "why": "Unsloth does not support encoder-decoder models; PEFT trains the same adapters",
    }


def adaptable_names(model: Any) -> set[str]:
    """Return the last name components of a model's linear and embedding layers.

    `shared`, which only holds the embeddings' weight and never computes, is left out.
    """
    import torch

    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
    }
    return names - {SHARED, "relative_attention_bias", "embed_positions"}


def places_of_new_rows(targets: Sequence[str], *, tied: bool) -> list[str]:
    """Return the layers in which the rows of new tokens learn by themselves.

    The head's too: a row that stays the mean of its pieces' rows gives the mean of their logits, so
    that one of the pieces always comes before the new token, and the token is never written.

    Args:
        targets: layers with adapters; PEFT cannot combine both on one layer.
        tied: the head is the input embeddings; their rows are then one.
    """
    free = [name for name in (EMBEDDING, HEAD) if name not in targets]
    return [SHARED] if tied and len(free) == 2 else free


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


def require_trainable(model: Any) -> None:
    """Refuse a model in which nothing learns.

    Raises:
        UnfitError: no parameter requires a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnfitError("no parameter of the model would learn; check qlora.target_modules")

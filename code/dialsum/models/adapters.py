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
from dialsum.models.save import train_embeddings_and_norms

EMBEDDING, HEAD, SHARED = "embed_tokens", "lm_head", "shared"


@dataclass(frozen=True)
class AdaptedModel:
    """A model ready to train.

    Args:
        model: with exactly the parameters that learn requiring gradients.
        loader: what was asked for and used, for the record: requested, used, why.
        targets: layers that got adapters; empty for full fine-tuning.
        notes: what the user should know (names mapped, Unsloth not used …).
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
    model.config.use_cache = not gradient_checkpointing
    if not config.qlora.use_qlora:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        loader = {
            "requested": "transformers (full fine-tuning)",
            "used": "transformers (full fine-tuning)",
            "why": "qlora.use_qlora is false",
        }
        return AdaptedModel(model=model, loader=loader, targets=[])
    return _add_adapters(
        loaded,
        config=config,
        new_token_ids=new_token_ids,
        gradient_checkpointing=gradient_checkpointing,
    )


def _add_adapters(
    loaded: LoadedModel,
    *,
    config: Config,
    new_token_ids: Sequence[int],
    gradient_checkpointing: bool,
) -> AdaptedModel:
    from peft import LoraConfig, TaskType, get_peft_model

    from dialsum.models.token_rows import use_rows_without_copies

    model: Any = loaded.model
    family, asked = get_family(config.model.architecture), config.qlora
    present = adaptable_names(model)
    notes: list[str] = []
    if asked.target_modules == "auto":
        targets = [name for name in family.linear if name in present]
    else:
        wanted = list(asked.target_modules)
        targets, notes = map_target_names(wanted, family=family, present=present)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if gradient_checkpointing:
        # Gradients must reach the adapters through frozen, recomputed blocks.
        model.enable_input_require_grads()
    rows_learn = bool(new_token_ids) and not asked.train_embeddings
    places = places_of_new_rows(targets, tied=loaded.tied) if rows_learn else []
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=asked.lora_rank,
        lora_alpha=asked.lora_alpha,
        lora_dropout=asked.lora_dropout,
        target_modules=targets,
        bias="none",
        use_rslora=asked.use_rslora,
        use_dora=asked.use_dora,
        init_lora_weights=True if asked.init_lora_weights == "default" else asked.init_lora_weights,
        trainable_token_indices={place: list(new_token_ids) for place in places} or None,
    )
    notes.extend(describe_large_ranks(model, targets, rank=asked.lora_rank))
    for name in (EMBEDDING, HEAD):
        if new_token_ids and name in targets:
            notes.append(f"new tokens learn through the adapter on {name}")
    adapted = get_peft_model(model, lora)
    use_rows_without_copies(adapted)
    if EMBEDDING in places:
        _share_new_rows(adapted)
    if asked.use_dora:
        refuse_rows_without_direction(adapted)
    if asked.train_embeddings:
        train_embeddings_and_norms(adapted, family.norms)
    return AdaptedModel(model=adapted, loader=choose_loader(asked), targets=targets, notes=notes)


def _share_new_rows(adapted: Any) -> None:
    """Let encoder and decoder learn one row for each new token, since they have one matrix.

    PEFT gives each its own, though both are loaded from one: a merge would keep the decoder's only.
    """
    base = adapted.get_base_model()
    own, other = (
        stack.embed_tokens.token_adapter.trainable_tokens_delta
        for stack in (base.get_encoder(), base.get_decoder())
    )
    for name in own:
        other[name] = own[name]


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


def adaptable_names(model: Any) -> set[str]:
    """Return the last name components of a model's linear and embedding layers.

    `shared`, which only holds the embeddings' weight and never computes, is left out.
    """
    import torch

    names = set()
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            names.add(name.rsplit(".", 1)[-1])
    return names - {SHARED, "relative_attention_bias", "embed_positions"}


def choose_loader(asked: Qlora) -> dict[str, str]:
    """Say which library serves the adapters, and why not the one that was asked for."""
    bits = choose_bits(asked)
    used = f"PEFT + bitsandbytes {bits}-bit" if bits else "PEFT + no quantisation"
    if not asked.use_unsloth:
        return {"requested": used, "used": used, "why": "as configured"}
    return {
        "requested": "Unsloth",
        "used": used,
        "why": "Unsloth does not support encoder-decoder models; PEFT trains the same adapters",
    }


def require_trainable(model: Any) -> None:
    """Refuse a model in which nothing learns.

    Raises:
        UnfitError: no parameter requires a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnfitError("no parameter of the model would learn; check qlora.target_modules")


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
        if last not in targets or not isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            continue
        size = _size_of(module)
        if min(size) < rank:
            smaller[size].add(last)
    if not smaller:
        return []
    layers = "; ".join(
        f"{', '.join(sorted(names))} ({rows} x {columns})"
        for (rows, columns), names in sorted(smaller.items())
    )
    most = max(min(size) for size in smaller)
    return [
        f"qlora.lora_rank {rank} is above what some layers can hold: {layers}; "
        f"rank {most} does all that it does there"
    ]


def _size_of(module: Any) -> tuple[int, int]:
    """Return the outputs and inputs of a layer; a 4-bit weight itself has another shape."""
    if hasattr(module, "out_features"):
        return int(module.out_features), int(module.in_features)
    return int(module.num_embeddings), int(module.embedding_dim)


def refuse_rows_without_direction(adapted: Any) -> None:
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

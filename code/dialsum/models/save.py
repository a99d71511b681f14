"""What learned, on disk: adapters or all weights, always as safetensors.

With qlora.train_embeddings, embeddings and norms of the base learn besides the adapters. PEFT's own
way for that, modules_to_save, copies each embedding and so cuts the tie between input embeddings
and head: a small model then has to learn every word twice. Here the weights themselves learn, ties
stay, and they are saved in a file of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dialsum.errors import RunError
from dialsum.files import give_usual_mode

EXTRA_FILE = "trained_base.safetensors"
ADAPTER_MARKS = ("lora_", "trainable_tokens_", "modules_to_save")


def train_embeddings_and_norms(model: Any, norms: tuple[str, ...]) -> None:
    """Let embeddings, head, positions and normalisation layers of an adapted model learn.

    Args:
        norms: last name components of the family's normalisation layers.
    """
    import torch

    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) or last in norms or last == "lm_head":
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)


def extra_parameters(model: Any) -> dict[str, Any]:
    """Return what learns of a PEFT model and is in no adapter file; tied parameters once."""
    if not hasattr(model, "peft_config"):
        return {}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(mark in name for mark in ADAPTER_MARKS)
    }


def save_weights(model: Any, folder: Path) -> None:
    """Write what learned into folder: an adapter with its extra parameters, or the whole model.

    PEFT would ask the hub whether the embeddings changed, and put them whole beside an adapter on
    them; neither is needed, since the base's rows, new ones too, are made again on loading.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        _save_adapter(model, folder)
    else:
        _save_whole(model, folder)
    for path in folder.glob("*.safetensors"):
        give_usual_mode(path)


def _save_adapter(model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card
    extra = extra_parameters(model)
    if extra:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in extra.items()}
        save_file(tensors, str(folder / EXTRA_FILE))


def _save_whole(model: Any, folder: Path) -> None:
    """Write all weights, with a config under which they are loaded as they are.

    `tie_word_embeddings: false` would leave BART's stacks without embeddings (the file holds the
    shared ones alone) and T5 v1's head without its scale. Under true the library ties only what is
    absent or equal in the file, so a head of its own stays one.
    """
    own = model.config
    said = own.tie_word_embeddings
    own.tie_word_embeddings = (
        said or own.model_type == "bart" or getattr(own, "scale_decoder_outputs", False)
    )
    try:
        model.save_pretrained(folder)
    finally:
        own.tie_word_embeddings = said


def load_weights(model: Any, folder: Path) -> None:
    """Copy what save_weights wrote from folder back into the model that it was saved from.

    Raises:
        RunError: the files lack weights of the model, or hold others.
    """
    from safetensors.torch import load_file

    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(
            model, load_file(folder / "adapter_model.safetensors")
        )
        unknown, missing = found.unexpected_keys, []
        load_extra(model, folder)
    else:
        tensors = {
            name: tensor
            for file in sorted(folder.glob("model*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        found = model.load_state_dict(tensors, strict=False)
        named = dict(model.named_parameters(remove_duplicate=False))
        # A tied weight has several names, one of which is in the files.
        filled = {id(one) for name, one in named.items() if name in tensors}
        unknown = found.unexpected_keys
        missing = [
            one for one in found.missing_keys if one in named and id(named[one]) not in filled
        ]
    if unknown or missing:
        raise RunError(
            f"{folder}: is not of this model: lacks {missing[:3] or 'nothing'}, holds "
            f"{unknown[:3] or 'nothing'} beside it"
        )


def load_extra(model: Any, folder: Path) -> None:
    """Copy the extra parameters that save_weights wrote, if any, from folder back into model."""
    import torch
    from safetensors.torch import load_file

    if not (folder / EXTRA_FILE).is_file():
        return
    tensors = load_file(str(folder / EXTRA_FILE))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

"""What learned, on disk: adapters or all weights, always as safetensors.

With qlora.train_embeddings, embeddings and norms of the base learn besides the adapters. PEFT's own
way for that, modules_to_save, copies each embedding and so cuts the tie between input embeddings
and head: a small model then has to learn every word twice. Here the weights themselves learn, and
ties stay; they are saved as modules_to_save, which PEFT alone loads.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from dialsum.errors import RunError
from dialsum.files import give_usual_mode

ADAPTER_MARKS = ("lora_", "trainable_tokens_", "modules_to_save")


def save_weights(model: Any, folder: Path) -> None:
    """Write what learned into folder: an adapter with what of its base learned, or the whole model.

    PEFT would ask the hub whether the embeddings changed, and put them whole beside an adapter on
    them; neither is needed, since the base's rows, new ones too, are made again on loading.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        # Each place of a shared weight: loaded by PEFT, they are layers of their own. `shared`
        # computes nothing.
        trained = {
            name: parameter
            for name, parameter in model.named_parameters(remove_duplicate=False)
            if parameter.requires_grad
            and not any(mark in name for mark in ADAPTER_MARKS)
            and not name.endswith("shared.weight")
        }
        tensors = {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in (tensors | trained).items()
        }
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        adapter = copy.copy(model.peft_config["default"])
        adapter.modules_to_save = sorted({name.split(".")[-2] for name in trained}) or None
        adapter.inference_mode = True
        adapter.save_pretrained(folder)
    else:
        # `tie_word_embeddings: false` would leave BART's stacks without embeddings (the file holds
        # the shared ones alone) and T5 v1's head without its scale. Under true the library ties
        # only what is absent or equal in the file, so a head of its own stays one.
        own = model.config
        said = own.tie_word_embeddings
        if own.model_type == "bart" or getattr(own, "scale_decoder_outputs", False):
            own.tie_word_embeddings = True
        try:
            model.save_pretrained(folder)
        finally:
            own.tie_word_embeddings = said
    for path in folder.glob("*.safetensors"):
        give_usual_mode(path)


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

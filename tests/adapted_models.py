"""Small adapted models for the tests of adapters: made as an experiment makes them, trained a step.

Loads torch only when a function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dialsum.config.schema import Config
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.models.load import AdaptedModel, adapt_model, load_model, open_checkpoint
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from small_models import KINDS, make_config, train_sample_tokenizer, write_checkpoint

SORTS = list(KINDS)
RANK, ALPHA = 4, 8
LORA = {"use_qlora": True, "load_in_4bit": False, "lora_rank": RANK, "lora_alpha": ALPHA}
FOUR_BIT = LORA | {"load_in_4bit": True}
EIGHT_BIT = LORA | {"load_in_8bit": True}
BITS = pytest.mark.parametrize("qlora", [FOUR_BIT, EIGHT_BIT], ids=["4-bit", "8-bit"])
EVERYTHING = ["q", "k", "v", "o", "wi", "wo", "lm_head", "embed_tokens"]
"""The targets of the third experiment."""
TEXT = "#Person1#: 안녕하세요. #Person2#: 네, 안녕하세요."


@dataclass(frozen=True)
class Case:
    """A small model, adapted, with all that belongs to it."""

    adapted: AdaptedModel
    tokenizer: Any
    config: Config
    new: list[str]
    folder: Path

    @property
    def model(self) -> Any:
        """The model that trains."""
        return self.adapted.model

    @property
    def new_ids(self) -> list[int]:
        """The ids of the tokens that the checkpoint did not have."""
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(self.new)
        return ids

    def load_base(self) -> Any:
        """Return the checkpoint as an experiment loads it, before anything learns."""
        import torch

        return load_model(
            open_checkpoint(self.config),
            config=self.config,
            tokenizer=self.tokenizer,
            new_tokens=self.new,
            device="cpu",
            dtype=torch.float32,
        )

    def step(self) -> None:
        """Take one step of the optimizer on a text with new tokens."""
        import torch

        self.model.train()
        learning = [one for one in self.model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.0)
        self.model(**self.batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def batch(self) -> dict[str, Any]:
        """Return one row that asks for what it shows."""
        import torch

        ids = torch.tensor([self.tokenizer(TEXT)["input_ids"]], device=self.model.device)
        return {"input_ids": ids, "labels": ids}

    def logits(self) -> Any:
        """Return what the model says of that row, without dropout."""
        import torch

        self.model.eval()
        with torch.no_grad():
            return self.model(**self.batch()).logits


Build = Callable[..., Case]


def make_build(root: Path) -> Build:
    """Return the maker of adapted models, whose checkpoints are written to root once."""
    tokenizers = {kind: train_sample_tokenizer(kind) for kind in ("unigram", "bpe")}

    def make(
        sort: str,
        *,
        tokens: tuple[str, ...] = STANDARD_DIALOGUE_TOKENS,
        checkpointing: bool = False,
        dtype: str = "float32",
        **qlora: Any,
    ) -> Case:
        import torch

        folder = root / sort
        if not folder.is_dir():
            write_checkpoint(folder, sort, tokenizer=tokenizers[KINDS[sort]], width=64)
        torch.manual_seed(1)  # the same adapters whatever was tested before
        config = make_config(sort, folder, qlora=qlora)
        return load_case(folder, config, tokens=tokens, checkpointing=checkpointing, dtype=dtype)

    return make


def load_case(
    folder: Path,
    config: Config,
    *,
    tokens: tuple[str, ...],
    checkpointing: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
) -> Case:
    """Load a checkpoint and adapt it as an experiment does, each time from the same start."""
    import torch

    torch.manual_seed(11)
    tokenizer = load_tokenizer(folder)
    new = add_dialogue_tokens(tokenizer, tokens) if tokens else []
    loaded = load_model(
        open_checkpoint(config),
        config=config,
        tokenizer=tokenizer,
        new_tokens=new,
        device=device,
        dtype=getattr(torch, dtype),
    )
    adapted = adapt_model(
        loaded,
        config=config,
        new_token_ids=tokenizer.convert_tokens_to_ids(new),
        gradient_checkpointing=checkpointing,
    )
    return Case(adapted=adapted, tokenizer=tokenizer, config=config, new=new, folder=folder)


def linear_layers(model: Any) -> set[str]:
    """Return the names of the linear layers of the base, in 4 bits or not."""
    import torch

    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name
    }


def with_adapter(model: Any) -> set[str]:
    """Return the names of the layers that have a LoRA adapter."""
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if getattr(module, "lora_A", None) or getattr(module, "lora_embedding_A", None)
    }

"""4-bit weights on a CPU stay what they are when a run evaluates between its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dialsum.model.adapt import adapt_model
from dialsum.model.load import load_model
from dialsum.model.tokenizers import load_tokenizer
from small_models import KINDS, make_config, train_sample_tokenizer, write_checkpoint

pytestmark = pytest.mark.training


def load_four_bit(folder: Path, sort: str) -> tuple[Any, Any]:
    """Return an adapted 4-bit model and one batch for it."""
    import torch

    tokenizer = load_tokenizer(folder)
    config = make_config(sort, folder, qlora={"use_qlora": True, "load_in_4bit": True})
    loaded = load_model(
        folder, config=config, tokenizer=tokenizer, new_tokens=[], device="cpu",
        dtype=torch.float32,
    )
    model = adapt_model(
        loaded, config=config, new_token_ids=[], gradient_checkpointing=False
    ).model
    ids = torch.tensor([tokenizer("#Person1#: 안녕하세요. #Person2#: 네.")["input_ids"]])
    return model, {"input_ids": ids, "labels": ids}


def gradients(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the gradient of every learning parameter, with the same dropout each time."""
    import torch

    torch.manual_seed(0)
    model.train()
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_an_evaluation_changes_no_gradient(sort: str, tmp_path: Path) -> None:
    """Left alone, the library repacks weights at the first evaluation and cuts the gradient.

    Seen on processors with AVX512-BF16 only; on others there is nothing to repack.
    """
    import torch

    folder = write_checkpoint(
        tmp_path / sort, sort, tokenizer=train_sample_tokenizer(KINDS[sort]), width=64
    )
    model, batch = load_four_bit(folder, sort)
    before = gradients(model, batch)
    model.eval()
    with torch.no_grad():
        model(**batch)
    after = gradients(model, batch)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []

"""Layers computed with fewer passes: adapters and rows of new tokens just as PEFT computes them,
without copies of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapted_models import FOUR_BIT, LORA, SORTS, Build, Case, load_case
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.models.save import save_weights
from small_models import UNTIED, make_config, write_checkpoint
from tensor_sizes import tensors_made

pytestmark = pytest.mark.training

WAYS: dict[str, dict[str, Any]] = {"float": LORA, "4-bit": FOUR_BIT}


def row_layers(model: Any) -> list[Any]:
    """Return the layers of an adapted model that hold rows of new tokens."""
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    return [module for module in model.modules() if isinstance(module, TrainableTokensLayer)]


def give_rows_values(case: Case) -> Case:
    """Move every learned row and adapter away from the base's, as training does."""
    import torch

    torch.manual_seed(5)
    with torch.no_grad():
        for name, one in case.model.named_parameters():
            if "trainable_tokens_delta" in name:
                one.add_(torch.randn_like(one))
            elif "lora_B" in name:
                one.add_(torch.randn_like(one), alpha=0.3)
    return case


@contextmanager
def computed_by_peft(model: Any) -> Iterator[None]:
    """Let PEFT's own layers compute meanwhile."""
    from dialsum.models.layers import compute_faster

    changed = [
        layer
        for layer in model.modules()
        if [vars(layer).pop(name, None) for name in ("forward", "forward_adapters")] != [None, None]
    ]
    assert row_layers(model)[0] in changed and len(changed) > len(row_layers(model))
    yield
    compute_faster(model)


def logits_and_gradients(case: Case) -> tuple[Any, dict[str, Any]]:
    """Return what the model says of its row, and the gradients of that."""
    case.model.eval()
    case.model.zero_grad()
    said = case.model(**case.batch())
    said.loss.backward()
    return said.logits.detach(), {
        name: one.grad.clone()
        for name, one in case.model.named_parameters()
        if one.grad is not None
    }


def difference(first: Any, second: Any) -> float:
    """Return the norm of the difference of two tensors over that of one."""
    return float(((first - second).float().norm() / first.float().norm()).detach())


def assert_same(case: Case, *, within: float) -> None:
    """Compare logits and every gradient with PEFT's own."""
    with computed_by_peft(case.model):
        logits, gradients = logits_and_gradients(case)
    own_logits, own_gradients = logits_and_gradients(case)
    assert any("trainable_tokens_delta" in name for name in gradients)
    assert difference(logits, own_logits) < within
    assert gradients.keys() == own_gradients.keys()
    whole = sum(float(one.float().norm()) ** 2 for one in gradients.values()) ** 0.5
    for name, one in gradients.items():
        # Some gradients of BART's are zero but for rounding: a key's bias changes no attention.
        apart = float((one - own_gradients[name]).float().norm())
        assert apart < within * max(float(one.float().norm()), 1e-3 * whole), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_logits_and_gradients_are_peft_s_own(sort: str, way: str, build: Build) -> None:
    case = give_rows_values(build(sort, **WAYS[way]))
    places = 3 if sort in UNTIED else 4
    assert len(row_layers(case.model)) == places
    assert set(case.new_ids) & set(case.batch()["input_ids"][0].tolist())
    assert_same(case, within=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_adapters_are_peft_s_own_in_mixed_precision(sort: str, dtype: str, build: Build) -> None:
    import torch

    case = give_rows_values(build(sort, **FOUR_BIT))
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        assert_same(case, within=0.05 if dtype == "bfloat16" else 0.01)


def test_dropout_drops_its_share_and_gradients_are_of_what_was_kept(build: Build) -> None:
    import torch
    from peft.tuners.lora.layer import LoraLayer

    case = give_rows_values(build("mt5", lora_dropout=0.3, **LORA))
    case.model.eval()
    layer: Any = next(one for one in case.model.modules() if isinstance(one, LoraLayer))
    torch.manual_seed(2)
    x = torch.randn(4, 500, layer.in_features, requires_grad=True)

    def added() -> torch.Tensor:
        """Return what the adapter adds, its dropout drawn the same way each time."""
        torch.manual_seed(7)
        found: torch.Tensor = layer(x) - layer.base_layer(x)
        return found

    whole = added()
    layer.lora_dropout.train()
    dropped = [layer(x) - layer.base_layer(x) for _ in range(30)]
    assert not torch.equal(dropped[0], dropped[1])
    assert difference(whole, torch.stack(dropped).mean(0)) < 0.2
    spread = (torch.stack(dropped).var(0).mean() / (whole**2).mean()).item()
    assert 0.3 < spread < 0.6  # rate / (1 - rate) = 0.43 for independent values
    down = layer.lora_A["default"].weight
    slopes = torch.randn_like(whole)
    of_x, of_down = torch.autograd.grad((added() * slopes).sum(), [x, down])
    assert 0.29 < float((of_x == 0).float().mean()) < 0.31
    with torch.no_grad():
        for value, slope in ((x, of_x), (down, of_down)):
            step = torch.randn_like(value)
            value.add_(step, alpha=0.5)
            above = (added() * slopes).sum()
            value.sub_(step)
            below = (added() * slopes).sum()
            value.add_(step, alpha=0.5)
            # What is added is linear in either.
            assert abs(float(above - below - (slope * step).sum())) < 1e-3 * float(slope.norm())


@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_rows_are_peft_s_own_in_bfloat16(sort: str, build: Build) -> None:
    import torch

    case = give_rows_values(build(sort, dtype="bfloat16", **LORA))
    # Both are 6 % from the gradients in float32, which agree to 2e-6; they are up to 1.3 % apart
    # by torch's kernels for AVX2 and 2.6 % by those for AVX-512.
    assert_same(case, within=0.03)
    # What is added for the gradients' sake leaves no rounding behind.
    assert torch.equal(case.model(**case.batch()).logits, case.logits())


def make_scaled_bart(folder: Path, *, dtype: str) -> Case:
    """Load a BART whose embeddings are multiplied by the root of their width."""
    import json

    from small_models import train_sample_tokenizer

    write_checkpoint(folder, "bart", tokenizer=train_sample_tokenizer("bpe"), width=48)
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(description | {"scale_embedding": True}))
    config = make_config("bart", folder, qlora=LORA)
    case = load_case(folder, config, tokens=STANDARD_DIALOGUE_TOKENS, dtype=dtype)
    assert case.model.get_base_model().model.encoder.embed_tokens.token_adapter.base_layer
    return give_rows_values(case)


def test_scaled_embeddings_scale_the_learned_rows_too(tmp_path: Path) -> None:
    assert_same(make_scaled_bart(tmp_path / "base", dtype="float32"), within=2e-6)


def test_a_scale_is_not_rounded_to_the_weights(tmp_path: Path) -> None:
    # In bfloat16 PEFT multiplies by 6.9375 for the root of 48; the merged model by 6.9282.
    import torch

    case = make_scaled_bart(tmp_path / "base", dtype="bfloat16")
    embeddings = case.model.get_base_model().model.encoder.embed_tokens
    ids = case.batch()["input_ids"]
    found = embeddings(ids)
    embeddings.token_adapter.merge()
    assert torch.equal(embeddings(ids), found)


@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_no_matrix_is_copied_in_training_or_generation(sort: str, build: Build) -> None:
    import torch

    case = give_rows_values(build(sort, **LORA))
    whole = case.model.config.vocab_size * 64

    def largest_of_each() -> list[int]:
        with tensors_made() as training:
            logits_and_gradients(case)
        with tensors_made() as writing, torch.inference_mode():
            case.model.generate(input_ids=case.batch()["input_ids"], max_new_tokens=3, num_beams=2)
        return [max(torch.Size(shape).numel() for shape in made) for made in (training, writing)]

    assert max(largest_of_each()) < whole
    with computed_by_peft(case.model):
        assert min(largest_of_each()) >= whole


def test_a_head_makes_its_logits_once_and_no_copy_going_backward(build: Build) -> None:
    import torch

    case = build("mt5", **LORA)
    head, vocabulary = case.model.get_base_model().lm_head, case.model.config.vocab_size
    hidden = torch.randn(2, 3, 64, requires_grad=True)
    with tensors_made() as made:
        head(hidden).sum().backward()
    assert sum(shape[-1:] == (vocabulary,) and len(shape) > 1 for shape in made) == 1


@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_the_same_is_written(sort: str, build: Build) -> None:
    import torch

    case = give_rows_values(build(sort, **LORA))

    def write() -> list[list[int]]:
        with torch.inference_mode():
            found: list[list[int]] = case.model.generate(
                input_ids=case.batch()["input_ids"], max_new_tokens=12, num_beams=3
            ).tolist()
        return found

    with computed_by_peft(case.model):
        expected = write()
    assert write() == expected
    with case.model.disable_adapter():
        assert write() != expected


def test_training_goes_on_after_summaries_were_written(build: Build) -> None:
    # What is kept from inference mode cannot take part in a backward pass.
    import torch

    from dialsum.models.layers import _indices

    case = build("mt5", **LORA)
    _indices.cache_clear()
    with torch.inference_mode():
        case.model.generate(input_ids=case.batch()["input_ids"], max_new_tokens=2)
    case.step()


def assert_no_matrix_is_made(model: Any, case: Case) -> None:
    """Hold a forward pass against the size of the embeddings."""
    with tensors_made() as made:
        model(**case.batch())
    assert max(math.prod(shape) for shape in made) < case.model.config.vocab_size * 64


@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_what_learned_is_loaded_and_computed_without_copies(
    sort: str, build: Build, tmp_path: Path
) -> None:
    import torch

    from dialsum.models.save import attach_adapter

    case = build(sort, **LORA)
    names = set(case.model.state_dict())
    for _ in range(2):
        case.step()
    learned = case.logits()
    save_weights(case.model, tmp_path)
    base = case.load_base()
    again = attach_adapter(base, tmp_path)
    assert_no_matrix_is_made(again, case)
    assert set(again.state_dict()) == names
    with torch.no_grad():
        assert torch.equal(again(**case.batch()).logits, learned)
    # The best checkpoint of a training is read into the model that there is.
    again.load_adapter(str(tmp_path), again.active_adapter)
    assert_no_matrix_is_made(again, case)


@pytest.mark.parametrize("sort", ["mt5", "t5", "bart"])
def test_merged_rows_and_rows_switched_off_are_the_base_s(sort: str, build: Build) -> None:
    import torch

    case = give_rows_values(build(sort, **LORA))
    base = build(sort, use_qlora=False, load_in_4bit=False).logits()
    learned = case.logits()
    assert difference(base, learned) > 1e-2
    with case.model.disable_adapter():
        assert torch.equal(case.logits(), base)
    merged = case.model.merge_and_unload()
    with torch.no_grad():
        assert difference(learned, merged(**case.batch()).logits) < 2e-6


@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_gradients_pass_hooks_and_checkpointing(sort: str, build: Build) -> None:
    case = give_rows_values(build(sort, checkpointing=True, **LORA))
    head = case.model.get_base_model().lm_head.token_adapter.base_layer
    assert_same(case, within=2e-6)
    # A backward hook makes a layer's output a view, which nothing may write into.
    hook = head.register_full_backward_hook(lambda *_: None)
    assert_same(case, within=2e-6)
    hook.remove()
    # A hook such as checkpointing puts on embeddings makes it a leaf.
    head.register_forward_hook(lambda _layer, _inputs, said: said.detach().requires_grad_())
    logits_and_gradients(case)

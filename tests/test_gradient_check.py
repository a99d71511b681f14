"""Whether what should learn is reached by gradients, and that rightful zeros are no fault."""

from __future__ import annotations

from typing import Any

import pytest

from adapted_models import EVERYTHING, FOUR_BIT, LORA, SORTS, Build, Case
from dialsum.errors import RunError
from dialsum.train.guard import GradientCheck

pytestmark = pytest.mark.training

WAYS: dict[str, dict[str, Any]] = {
    "4-bit": FOUR_BIT,
    "8-bit": LORA | {"load_in_8bit": True},
    "on everything": LORA | {"target_modules": EVERYTHING},
    "and embeddings": FOUR_BIT | {"train_embeddings": True},
    "DoRA": FOUR_BIT | {"use_dora": True},
    "PiSSA": LORA | {"init_lora_weights": "pissa"},
    "full": {"use_qlora": False, "load_in_4bit": False},
}


def take_steps(
    model: Any, batch: dict[str, Any], *, rates: tuple[float, ...] = (1e-2, 1e-2)
) -> GradientCheck:
    """Train a step at each rate under the check."""
    import torch

    check = GradientCheck(model)
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        model(**batch).loss.backward()
        check.after_backward()
        optimizer.step()
        optimizer.zero_grad()
    return check


def batch_without_new_tokens(case: Case) -> dict[str, Any]:
    """Return one row in which no new token stands."""
    import torch

    ids = torch.tensor([case.tokenizer("안녕하세요. 네, 반갑습니다.")["input_ids"]])
    assert not set(ids[0].tolist()) & set(case.new_ids)
    return {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_what_learns_passes_in_every_family(sort: str, way: str, build: Build) -> None:
    case = build(sort, **WAYS[way])
    check = take_steps(case.model, batch_without_new_tokens(case))
    assert check.done


def test_the_zero_rate_of_a_warm_up_is_no_fault(build: Build) -> None:
    # One factor stays zero, so the other rightly has no gradient in the second step either.
    case = build("bart", **FOUR_BIT)
    assert take_steps(case.model, case.batch(), rates=(0.0, 1e-4)).done


def put_adapters_on(names: list[str], case: Case) -> Any:
    """Return the base of a case with adapters on other layers."""
    from peft import LoraConfig, TaskType, get_peft_model

    lora = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=4, target_modules=names)
    return get_peft_model(case.model, lora)


@pytest.mark.parametrize(
    ("sort", "named"), [("mt5", "shared"), ("t5", "shared"), ("bart", "model.shared")]
)
def test_a_layer_that_computes_nothing_is_named(sort: str, named: str, build: Build) -> None:
    linear = "q_proj" if sort == "bart" else "q"
    model = put_adapters_on(["shared", linear], build(sort, use_qlora=False, load_in_4bit=False))
    case = build(sort, **FOUR_BIT)
    with pytest.raises(RunError, match=rf"1 of the layers .* first 2 steps .*: {named}\. ") as said:
        take_steps(model, case.batch())
    assert linear not in str(said.value).split("end: ")[1].split(".")[0]


def test_nothing_is_said_after_the_first_step_and_nothing_is_looked_at_after_the_second(
    build: Build,
) -> None:
    model = put_adapters_on(["shared"], build("t5", use_qlora=False, load_in_4bit=False))
    check = GradientCheck(model)
    check.after_backward()
    assert not check.done
    with pytest.raises(RunError, match="shared"):
        check.after_backward()
    assert check.done
    check.after_backward()


@pytest.mark.parametrize("mark", ["lora_A", "lora_B"])
def test_a_factor_without_gradient_is_found(mark: str, build: Build) -> None:
    case = build("t5", **FOUR_BIT)
    names = [name for name, _ in case.model.named_parameters() if mark in name]
    (one,) = [item for name, item in case.model.named_parameters() if name == names[0]]
    one.register_hook(lambda gradient: gradient * 0)
    with pytest.raises(RunError, match=r"1 of the layers .*encoder\.block\.0"):
        take_steps(case.model, case.batch())


def test_gradients_in_one_of_the_two_steps_are_enough(build: Build) -> None:
    case = build("t5", **LORA | {"init_lora_weights": "pissa"})
    steps = iter(range(4))
    for name, one in case.model.named_parameters():
        if name.endswith("encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight"):
            one.register_hook(lambda gradient: gradient * (next(steps) % 2))
    assert take_steps(case.model, case.batch()).done
    assert next(steps) == 2


def test_a_parameter_outside_of_the_computation_is_found(build: Build) -> None:
    import torch

    case = build("t5", use_qlora=False, load_in_4bit=False)
    case.model.forgotten = torch.nn.Linear(3, 3)
    with pytest.raises(RunError, match=r"1 of the layers .*: forgotten"):
        take_steps(case.model, case.batch())


def test_gradients_that_are_not_finite_are_another_matter(build: Build) -> None:
    case = build("bart", **FOUR_BIT)
    for name, one in case.model.named_parameters():
        if "lora_" in name:
            one.register_hook(lambda gradient: gradient * float("nan"))
    assert take_steps(case.model, case.batch()).done


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_that_cuts_the_gradients_off_is_found(build: Build) -> None:
    # Blocks that are recomputed the old way from inputs without gradients give none to what is in
    # them; the head alone, behind them, learns.
    case = build("t5", tokens=(), **FOUR_BIT | {"target_modules": ["q", "lm_head"]})
    case.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    case.model.get_base_model().disable_input_require_grads()
    with pytest.raises(RunError, match=r"3 of .*SelfAttention.*gradient_checkpointing: false"):
        take_steps(case.model, case.batch())

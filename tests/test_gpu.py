"""What only an NVIDIA GPU can show: bf16, 4 bits, memory that is full, the record, the way back.

    python -m pytest -m gpu

run_tests.sh leaves these out where there is no GPU; bash scripts/gpu_check.sh runs them first.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapted_models import FOUR_BIT, SORTS, load_case
from dialsum.config.load import load_config
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from small_fit import (
    UNEQUAL,
    SmallTraining,
    make_rows,
    read_events,
    relative_difference,
    weights_of,
)
from small_models import KINDS, make_config, train_sample_tokenizer, write_checkpoint
from trainer_runs import command, read_result, read_summaries, run

pytestmark = [pytest.mark.gpu, pytest.mark.training]

MIB = 2**20


@pytest.fixture
def card() -> Iterator[Any]:
    """Give the GPU with all of its memory to be had; skip where there is none with bf16."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU: this test computes on one and nothing stands in")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip(f"the {torch.cuda.get_device_name()} does not compute in bf16")
    free_all()
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_per_process_memory_fraction(1.0)
    free_all()


def free_all() -> None:
    """Give back what this process holds of the card's memory, and forget its peak."""
    import torch

    gc.collect()
    torch.cuda.init()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def leave_only(room: int) -> None:
    """Let this process take no more than so many bytes beyond what it has reserved."""
    import torch

    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)


@pytest.mark.parametrize("sort", SORTS)
def test_a_training_computes_in_bf16_and_learns(sort: str, card: Any, tmp_path: Path) -> None:
    import torch

    trainer = SmallTraining(sort=sort, batch=4, gpu=True).trainer(tmp_path)
    assert {one.device.type for one in trainer.model.parameters()} == {card.type}
    seen = set()
    layer = next(one for one in trainer.model.modules() if type(one) is torch.nn.Linear)
    layer.register_forward_hook(lambda _layer, _inputs, output: seen.add(output.dtype))
    before = weights_of(trainer.model)
    trainer.train()
    losses = [event["loss"] for event in read_events(tmp_path, "train")]
    assert len(losses) == 4
    assert all(isinstance(loss, float) and math.isfinite(loss) for loss in losses)
    assert torch.bfloat16 in seen
    assert {one.dtype for one in trainer.model.parameters()} == {torch.float32}
    assert relative_difference(before, weights_of(trainer.model)) > 0


@pytest.mark.parametrize("sort", SORTS)
def test_adapters_learn_over_a_base_of_4_bits(sort: str, card: Any, tmp_path: Path) -> None:
    import torch

    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = write_checkpoint(
        tmp_path / sort, sort, tokenizer=train_sample_tokenizer(KINDS[sort]), width=64
    )
    case = load_case(
        folder,
        make_config(sort, folder, qlora=FOUR_BIT),
        tokens=STANDARD_DIALOGUE_TOKENS,
        dtype="bfloat16",
        device=f"cuda:{card.index}",
    )
    case.model.train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = case.model(**case.batch()).loss
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    layers = [one for one in case.model.modules() if type(one) is bitsandbytes.nn.Linear4bit]
    assert layers
    for layer in layers:
        assert layer.weight.device.type == "cuda"
        assert layer.weight.dtype == torch.uint8
        assert layer.compute_dtype == torch.bfloat16
    learning = {name: one for name, one in case.model.named_parameters() if one.requires_grad}
    assert [name for name, one in learning.items() if one.grad is None] == []
    assert any(bool(one.grad.any()) for one in learning.values())
    assert {one.dtype for one in learning.values()} == {torch.float32}


def test_a_pass_that_fills_the_memory_is_halved_until_it_fits(card: Any, tmp_path: Path) -> None:
    import torch

    each = 256 * MIB
    loop = SmallTraining(
        gpu=True, batch=8, rows=UNEQUAL[:8], training={"max_steps": 1, "eval_steps": 1}
    ).loop(tmp_path)
    usual = loop.task.loss

    def loss(model: Any, batch: dict[str, Any], *, count: int | None) -> torch.Tensor:
        taken = torch.empty(len(batch["input_ids"]) * each, dtype=torch.uint8, device=card)
        found: torch.Tensor = usual(model, batch, count=count)
        del taken
        return found

    loop.task.loss = loss
    free_all()
    leave_only(3 * each)  # two rows fit, four do not
    loop.run()
    assert loop.limit.retries == 2
    events = read_events(tmp_path, "memory_retry")
    assert len(events) == 2
    assert "CUDA out of memory" in events[0]["message"]


@pytest.mark.usefixtures("card")
def test_a_training_goes_on_in_less_memory_to_the_same_loss(tmp_path: Path) -> None:
    import torch

    def train(name: str) -> tuple[Any, list[float]]:
        trainer = SmallTraining(
            sort="mt5",
            rows=make_rows([40] * 320),
            batch=320,
            width=512,
            gpu=True,
            training={"max_steps": 2, "learning_rate": 1e-4},
        ).trainer(tmp_path / name)
        trainer.train()
        return trainer, [event["loss"] for event in read_events(tmp_path / name, "train")]

    free, losses = train("free")
    assert free.supervision.limit.retries == 0
    peak = torch.cuda.max_memory_reserved()
    assert peak > 200 * MIB, "too small a training to show anything"
    del free
    free_all()
    leave_only(int(0.7 * peak) - torch.cuda.memory_reserved())
    held, fewer = train("held")
    assert held.supervision.limit.retries >= 1
    assert torch.cuda.max_memory_reserved() <= 0.7 * peak + 2 * MIB  # the allocator's unit
    assert fewer == pytest.approx(losses, rel=2e-2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run of experiment 1 on a tiny model, on the GPU."""
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU: this test trains on one and nothing stands in")
    folder = tmp_path_factory.mktemp("run") / "run"
    sizes = ("general.device=cuda",)
    if importlib.util.find_spec("bitsandbytes") is None:
        sizes = (*sizes, "qlora.load_in_4bit=false")
    options = [word for size in sizes for word in ("--set", size)]
    done = run(command("01_mt5_xlsum_optimized_v2", folder, *options))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_record_names_the_card_and_its_peak(card: Any, finished: Path) -> None:
    import torch

    training = read_result(finished)["training"]
    assert training["device"]["kind"] == card.type
    assert training["device"]["name"] == torch.cuda.get_device_name(card)
    assert training["device"]["precision"]["used"] == "bf16"
    total = torch.cuda.get_device_properties(card).total_memory
    assert 0 < training["peak_memory_bytes"]["device"] < total
    assert training["nan_events"] == 0


def test_a_saved_adapter_writes_on_the_card_what_the_run_wrote(card: Any, finished: Path) -> None:
    import torch

    from dialsum.models.save import load_saved_model
    from predict_again import write_dev

    config = load_config(finished / "resolved_config.yaml").config
    # In full precision, since the demo trains embeddings beside the adapters.
    assert config.qlora.train_embeddings
    model, tokenizer = load_saved_model(
        finished / "model", config=config, device=f"cuda:{card.index}", dtype=torch.float32
    )
    written = read_summaries(finished / "results" / "predictions_dev.csv")
    assert write_dev(model, tokenizer, config, bf16=True) == list(written.values())
    assert any(written.values())

"""Training whose memory runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from small_fit import SmallTraining, read_events

pytestmark = pytest.mark.training

MEMORY_PROGRAM = """
import json, resource, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
from small_fit import SmallTraining, make_rows, read_events, weights_of
folder = Path(sys.argv[1])
rows = make_rows([60] * 256)
loop = SmallTraining(
    rows=rows, batch=int(sys.argv[3]), accumulation=int(sys.argv[4]), width=256, optim="sgd",
    training={{"max_steps": 2, "eval_steps": 2, "max_grad_norm": 0.0}},
).loop(folder)
if sys.argv[2] != "0":
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(sys.argv[2]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
passes = loop.dev.passes
def list_freely():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return passes()
loop.dev.passes = list_freely
loop.dev.find_heaviest = list
loop.run()
torch.save(weights_of(loop.model), folder / "weights.pt")
print(json.dumps({{"retries": loop.limit.retries, "positions": loop.limit.positions}}))
"""


def run_in_memory(folder: Path, megabytes: int, batch: int, accumulation: int) -> Any:
    """Train in a process that gets only so much memory more than it has, until it evaluates."""
    folder.mkdir()
    here = Path(__file__).resolve().parent
    program = MEMORY_PROGRAM.format(paths=[str(here), str(here.parent / "code")])
    return subprocess.run(
        [sys.executable, "-c", program, str(folder), str(megabytes), str(batch), str(accumulation)],
        capture_output=True,
        text=True,
        # What is freed leaves the address space at once, and does not stay in the heap, where
        # code that is compiled on the way cannot be placed.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded on Linux")
def test_full_memory_is_answered_by_smaller_passes_with_the_same_result(tmp_path: Path) -> None:
    import torch

    from small_fit import relative_difference

    free = run_in_memory(tmp_path / "free", 0, 256, 1)
    assert free.returncode == 0, free.stderr
    tight = run_in_memory(tmp_path / "tight", 240, 256, 1)
    assert tight.returncode == 0, tight.stderr
    answer = json.loads(tight.stdout.splitlines()[-1])
    assert answer["retries"] >= 1
    events = read_events(tmp_path / "tight", "memory_retry")
    assert len(events) == answer["retries"]
    # The heaviest pass is tried before the first step.
    assert events[0]["step"] == 0
    whole, cut = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("free", "tight")
    )
    assert relative_difference(whole, cut) < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded on Linux")
def test_memory_too_small_for_one_row_is_said(tmp_path: Path) -> None:
    ended = run_in_memory(tmp_path / "tiny", 1, 4, 1)
    assert ended.returncode != 0
    assert "memory was full with a single row" in ended.stderr


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit"])
def test_the_rehearsal_holds_what_the_optimizer_will(
    optim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dialsum.train import loop as module
    from dialsum.train.loop import allocate_states

    held: list[int] = []

    def look(optimizer: Any) -> list[Any]:
        found = allocate_states(optimizer)
        held.append(sum(one.nbytes for one in found))
        return found

    monkeypatch.setattr(module, "allocate_states", look)
    loop = SmallTraining(width=64, training={"max_steps": 1, "optim": optim}).loop(tmp_path)
    loop.run()
    states = [
        one
        for state in loop.optimizer.state.values()
        for one in state.values()
        if hasattr(one, "nbytes") and one.numel() > 256
    ]
    large = sum(one.nbytes for one in states)
    assert large > 0
    # Small weights, and 256 numbers of a code book in 8 bits, are the difference.
    assert abs(held[0] - large) < 0.05 * large + 8 * 256 * len(states)
    assert allocate_states(loop.optimizer) == []


def test_a_pass_that_failed_going_backward_leaves_nothing_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    import torch

    from dialsum.train.task import SummaryTask

    plain, seen, alive = SummaryTask.loss, list[Any](), list[bool]()

    def fail(_slope: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    def loss(task: SummaryTask, model: Any, batch: Any, *, count: int | None) -> Any:
        alive.extend(one() is not None for one in seen[:1])
        found = plain(task, model, batch, count=count)
        if not seen:
            found.register_hook(fail)
        seen.append(weakref.ref(found))
        return found

    monkeypatch.setattr(SummaryTask, "loss", loss)
    loop = SmallTraining(batch=4, training={"max_steps": 1}).loop(tmp_path)
    loop.run()
    assert loop.limit.retries == 1
    assert alive and not any(alive)


def test_a_row_that_is_too_much_is_learned_from_with_gradient_checkpointing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from dialsum.train.task import SummaryTask
    from small_fit import ADAPTERS, relative_difference, weights_of

    plain = SummaryTask.loss

    def loss(task: SummaryTask, model: Any, batch: Any, *, count: int | None) -> Any:
        if torch.is_grad_enabled() and not model.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(task, model, batch, count=count)

    asked = {"max_steps": 4}
    for name, qlora in (("full", {"use_qlora": False, "load_in_4bit": False}), ("lora", ADAPTERS)):
        training = SmallTraining(sort="mt5", batch=4, qlora=qlora, dropout=0.1, training=asked)
        usual = training.loop(tmp_path / name / "usual")
        usual.run()
        with monkeypatch.context() as patched:
            patched.setattr(SummaryTask, "loss", loss)
            tight = training.loop(tmp_path / name / "tight")
            result = tight.run()
        events = read_events(tmp_path / name / "tight", "memory_retry")
        assert result.memory_retries == len(events) >= 2
        assert "gradient checkpointing" in events[-1]["message"]
        assert relative_difference(weights_of(usual.model), weights_of(tight.model)) < 1e-5


def test_a_run_that_memory_cannot_hold_says_what_it_was_expected_to_take(tmp_path: Path) -> None:
    from dialsum.experiment.forecast import recall
    from small_models import make_config

    said = recall(make_config("mt5", tmp_path / "none"))
    assert "GiB by a formula" in said and "scripts/forecast.py" in said


def test_summaries_are_written_in_smaller_batches_where_memory_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from dialsum.errors import FullMemoryError
    from dialsum.generate import GenerationSettings, generate
    from small_models import KINDS, make_model, train_sample_tokenizer

    tokenizer = train_sample_tokenizer(KINDS["mt5"])
    model = make_model("mt5", tokenizer=tokenizer, width=16)
    inputs = [tokenizer("점심 먹자 " * count)["input_ids"] for count in (1, 5, 2, 9, 3, 4, 7)]
    settings = GenerationSettings(num_beams=2, max_new_tokens=4)
    whole = generate(model, tokenizer, inputs, settings=settings, batch_size=7)
    written, most, told = model.generate, [2], list[int]()

    def write(**asked: Any) -> Any:
        if len(asked["input_ids"]) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return written(**asked)

    monkeypatch.setattr(model, "generate", write)

    def listen(rows: int, _words: str) -> None:
        told.append(rows)

    again = generate(model, tokenizer, inputs, settings=settings, batch_size=7, on_full=listen)
    assert again == whole and told == [3, 1]
    most[0] = 0
    with pytest.raises(FullMemoryError, match=r"while one summary was written .*num_beams \(2\)"):
        generate(model, tokenizer, inputs, settings=settings, batch_size=7)

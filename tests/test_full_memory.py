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

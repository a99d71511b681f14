"""Devices, precision and the driver: choices by tables, the driver itself where there is one."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from dialsum.errors import UnfitError
from dialsum.machine.devices import (
    GIB,
    Device,
    HostMemory,
    cuda_attention,
    cuda_precisions,
    explain_missing_cuda,
    list_devices,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import free_memory
from dialsum.machine.show import describe_machine
from gpu_states import make_gpu


def make_cuda(capability: tuple[int, int], *, name: str = "RTX 3090", gib: float = 23.7) -> Device:
    return Device(
        "cuda",
        0,
        name,
        int(gib * GIB),
        int(gib * GIB),
        capability,
        cuda_precisions(capability),
        cuda_attention(capability),
    )


AMPERE = make_cuda((8, 6))
TURING = make_cuda((7, 5), name="T4", gib=14.6)
MPS = Device("mps", 0, "Apple GPU", 16 * GIB, 16 * GIB, None, ("fp32", "bf16", "fp16"), ("math",))
CPU = Device("cpu", 0, "CPU with 4 cores", 16 * GIB, 8 * GIB, None, ("fp32", "bf16"), ("math",))
BF16_CPU = replace(CPU, bf16_instructions="avx512_bf16")


@pytest.mark.parametrize(
    ("capability", "has", "lacks"),
    [
        ((9, 0), {"bf16", "tf32", "fp16", "4-bit"}, set()),
        ((8, 6), {"bf16", "tf32", "fp16", "4-bit"}, set()),
        ((7, 5), {"fp16", "4-bit"}, {"bf16", "tf32"}),
        ((6, 1), {"fp32", "4-bit"}, {"bf16", "fp16"}),
        ((5, 2), {"fp32"}, {"4-bit"}),
    ],
)
def test_precisions_follow_the_compute_capability(
    capability: tuple[int, int], has: set[str], lacks: set[str]
) -> None:
    found = set(cuda_precisions(capability))
    assert has <= found
    assert not lacks & found
    assert ("flash" in cuda_attention(capability)) == (capability >= (8, 0))


PRECISIONS = [
    ("auto", False, "bart", AMPERE, "bf16", "the GPU has it"),
    ("auto", False, "mt5", TURING, "fp32", "T4 does not compute in bf16"),
    ("auto", False, "mt5", CPU, "fp32", "up to 13 times slower"),
    ("auto", False, "mt5", MPS, "fp32", "untested"),
    (True, False, "mt5", AMPERE, "bf16", "as asked"),
    (True, False, "mt5", TURING, "fp32", "T4 does not compute in bf16"),
    (True, False, "mt5", CPU, "fp32", "shows no bf16 instructions"),
    ("auto", False, "mt5", BF16_CPU, "fp32", "its bf16 instructions (avx512_bf16)"),
    (True, False, "mt5", BF16_CPU, "fp32", "has bf16 instructions (avx512_bf16)"),
    (True, False, "mt5", MPS, "bf16", "as asked"),
    (False, False, "mt5", AMPERE, "fp32", "training.bf16 is false"),
    ("auto", True, "bart", AMPERE, "fp16", "as asked"),
    ("auto", True, "bart", CPU, "fp32", "needs a CUDA GPU"),
    (False, True, "bart", TURING, "fp16", "as asked"),
]


@pytest.mark.parametrize(("bf16", "fp16", "family", "device", "used", "why"), PRECISIONS)
def test_precision_is_chosen_with_its_reason(
    bf16: bool, fp16: bool, family: str, device: Device, used: str, why: str
) -> None:
    choice = pick_precision(bf16, fp16=fp16, architecture=family, device=device)
    assert choice.value == used
    assert why in choice.why


def test_what_is_said_of_this_cpu_is_what_torch_knows_of_it() -> None:
    import torch

    cpu = list_devices()[-1]
    known = torch.cpu.get_capabilities()
    for name in filter(None, cpu.bf16_instructions.split(", ")):
        assert known[name] is True
    if not cpu.bf16_instructions:
        assert not known.get("avx512_bf16") and not known.get("amx_bf16")


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
@pytest.mark.parametrize("device", [AMPERE, CPU], ids=["gpu", "cpu"])
def test_fp16_is_refused_for_the_t5_family(architecture: str, device: Device) -> None:
    with pytest.raises(UnfitError, match=r"overflow fp16.*training.bf16: true"):
        pick_precision("auto", fp16=True, architecture=architecture, device=device)


@pytest.mark.parametrize(
    ("requested", "device", "used"),
    [
        ("auto", AMPERE, True),
        ("auto", TURING, False),
        ("auto", CPU, False),
        (True, AMPERE, True),
        (True, CPU, False),
        (False, AMPERE, False),
    ],
)
def test_tf32_needs_a_gpu_that_has_it(requested: bool, device: Device, used: bool) -> None:
    assert pick_tf32(requested, device=device).value == used


@pytest.mark.parametrize(
    ("requested", "used"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("mps", "mps"), ("cpu", "cpu")]
)
def test_device_that_is_there_is_taken(requested: str, used: str) -> None:
    assert pick_device(requested, [AMPERE, MPS, CPU]).value.torch_name == used


@pytest.mark.parametrize("requested", ["auto", "cuda", "mps"])
def test_a_gpu_that_is_not_there_is_said_with_its_reason_and_ways_out(
    requested: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialsum.machine.devices.nvidia_gpus", list)
    if requested == "auto":
        assert pick_device("auto", [CPU]) == (
            CPU,
            "the fastest there is; there is no NVIDIA GPU that the driver shows",
        )
        return
    with pytest.raises(UnfitError) as caught:
        pick_device(requested, [CPU])
    for word in (f"general.device is {requested}", "there is cpu", "general.device=auto", "--demo"):
        assert word in str(caught.value)
    assert ("no NVIDIA GPU" in str(caught.value)) == (requested == "cuda")


@pytest.mark.parametrize(
    ("torch_cuda", "gpus", "driver", "visible", "words"),
    [
        ("12.8", 0, (12, 4), None, ["no NVIDIA GPU"]),
        (None, 1, (12, 4), None, ["build without CUDA", "RTX 3090", "remove .venv"]),
        ("12.8", 1, (12, 4), "", ["CUDA_VISIBLE_DEVICES=''", "unset"]),
        ("12.8", 1, (11, 4), None, ["550.54", "CUDA 11.4 at most", "needs 12.8", "update"]),
        ("12.8", 1, (12, 4), None, ["cannot start the NVIDIA GeForce RTX 3090", "torch.cuda.init"]),
    ],
)
def test_missing_cuda_is_explained(
    torch_cuda: str | None,
    gpus: int,
    driver: tuple[int, int],
    visible: str | None,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.version.cuda", torch_cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards = [replace(make_gpu(index), cuda_version=driver) for index in range(gpus)]
    text = explain_missing_cuda(cards)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("requested", "device", "cores", "gib", "workers"),
    [
        ("auto", CPU, 64, 64, 0),
        ("auto", MPS, 8, 16, 0),
        ("auto", AMPERE, 1, 64, 0),
        ("auto", AMPERE, 4, 64, 2),
        ("auto", AMPERE, 64, 64, 4),
        ("auto", AMPERE, 16, 5, 2),
        ("auto", AMPERE, 16, 1, 0),
        (0, AMPERE, 16, 64, 0),
        (7, CPU, 2, 1, 7),
    ],
)
def test_workers_go_by_cores_and_memory(
    requested: int,
    device: Device,
    cores: int,
    gib: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dialsum.machine.devices.usable_cores", lambda: cores)
    monkeypatch.setattr(
        "dialsum.machine.devices.host_memory", lambda: HostMemory(64 * GIB, gib * GIB)
    )
    assert pick_num_workers(requested, device=device).value == workers


def test_free_memory_collects_what_nobody_holds() -> None:
    class Node:
        other: Node

    node = Node()
    node.other = node
    seen = weakref.ref(node)
    gc.disable()
    try:
        del node
        assert seen() is not None
        free_memory()
        assert seen() is None
    finally:
        gc.enable()


def test_the_machine_is_said_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialsum.machine.show.list_devices", lambda: [AMPERE, CPU])
    monkeypatch.setattr("dialsum.machine.show.nvidia_gpus", lambda: [make_gpu(0)])
    text = describe_machine()
    for words in (
        "NVIDIA driver 550.54, CUDA up to 12.4\n"
        "  GPU 0 NVIDIA GeForce RTX 3090: 24.0 GiB, 1.0 used, 23.0 free, 41 °C\n",
        "general.device                   cuda:0  (the fastest there is)",
        "training.tf32                    on",
        "by the profile of 24 GB in bf16",
    ):
        assert words in text


@pytest.mark.parametrize("import_first", ["devices", "memory", "show"])
def test_device_layer_starts_without_torch(import_first: str) -> None:
    code = f"import dialsum.machine.{import_first}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


HIDDEN_MEMORY = [
    "",
    "".join(f"{name}: 0 kB\n" for name in ("MemTotal", "MemFree", "MemAvailable", "Buffers")),
]
"""What /proc/meminfo holds in sandboxes that do not tell the memory."""
ASK_MEMORY = """
from dialsum.machine.devices import Device, pick_num_workers
from dialsum.machine.devices import host_memory
from dialsum.machine.memory import TrainingMemory
print(host_memory())
print(Device("cpu", 0, "CPU", None, None, None, ("fp32",), ("math",)).describe())
print(pick_num_workers("auto", device=Device("cuda", 0, "x", 1, 1, (8, 6), (), ())).why)
memory = TrainingMemory("bart", 512, None, lora=True, precision="fp32")
print(memory.choose_batch()[2])
print(memory.choose_eval_batch(4), "rows beside", memory.room_gib - memory.estimate_gib(0))
"""


@pytest.mark.parametrize("content", HIDDEN_MEMORY, ids=["empty", "zeros"])
def test_memory_that_cannot_be_read_is_unknown_and_not_zero(
    repository: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "meminfo").write_text(content)
    (tmp_path / "ask.py").write_text(ASK_MEMORY)
    hidden = shlex.join(["mount", "--bind", str(tmp_path / "meminfo"), "/proc/meminfo"])
    ask = shlex.join([sys.executable, str(tmp_path / "ask.py")])
    apart = ["unshare", "--mount", "bash", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, hidden], check=False).returncode:
        pytest.skip("needs the right to hide a file of /proc from a process")
    done = subprocess.run(
        [*apart, f"{hidden} && exec {ask}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(repository / "code")},
    )
    assert done.returncode == 0, done.stderr
    memory, device, workers, batch, evaluation = done.stdout.splitlines()
    assert memory == "HostMemory(total_bytes=None, free_bytes=None)"
    assert device == "cpu  CPU, memory unknown"
    assert workers.endswith("cores; free main memory unknown")
    assert batch.startswith("unknown memory, taken for 8 GB, bart")
    assert "0.0 GiB" not in done.stdout
    assert " rows beside 5.3" in evaluation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 0, ["cpu  CPU with", "precision of training", "bart, full", "up to 1024"]),
        (["--device", "cpu"], 0, ["general.device  ", "precision of training            fp32"]),
        (["--device", "tpu"], 2, ["invalid choice: 'tpu'"]),
    ],
)
def test_device_utils_prints_the_machine(
    repository: Path, tmp_path: Path, arguments: list[str], status: int, words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, str(repository / "code" / "utils" / "device_utils.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr

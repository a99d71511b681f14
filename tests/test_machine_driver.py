"""What the NVIDIA driver and the host tell: really where there is a driver, by tables elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pynvml
import pytest

from dialsum.machine.devices import (
    DriverError,
    host_memory,
    nvidia_gpus,
    usable_cores,
    visible_gpus,
)
from gpu_states import make_gpu

HAS_DRIVER = Path("/proc/driver/nvidia").exists() or Path("/dev/dxg").exists()


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has an NVIDIA driver")
def test_without_nvidia_there_is_nothing_and_no_error() -> None:
    assert nvidia_gpus() == []


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DRIVER, reason="no NVIDIA driver here: nothing to ask")
def test_driver_tells_what_its_cards_are() -> None:
    gpus = nvidia_gpus()
    assert gpus
    for gpu in gpus:
        assert gpu.memory_total_bytes >= gpu.memory_used_bytes > 0
        assert gpu.uuid.startswith("GPU-")
        assert gpu.compute_capability >= (3, 0)
        assert (gpu.cuda_version or (0, 0)) >= (10, 0)
        assert all(process > 0 and held >= 0 for process, held in gpu.processes.items())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, ["version mismatch", "reboot"]),
        (pynvml.NVML_ERROR_GPU_IS_LOST, ["GPU is lost", "reboot"]),
        (pynvml.NVML_ERROR_UNKNOWN, ["Unknown Error", "nvidia-smi"]),
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, []),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, []),
    ],
)
def test_driver_error_is_named_and_absence_is_none(
    monkeypatch: pytest.MonkeyPatch, code: int, words: list[str]
) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    if not words:
        assert nvidia_gpus() == []
        return
    with pytest.raises(DriverError) as caught:
        nvidia_gpus()
    for word in ["NVIDIA driver", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,7,1", [0]),
        ("x", []),
        ("GPU-1aaa", [1]),
        ("GPU-2,GPU-0", [2, 0]),
        ("GPU-", []),
        ("MIG-5f", [0, 1, 2]),
    ],
)
def test_visible_gpus_are_those_of_cuda(visible: str | None, indices: list[int]) -> None:
    gpus = [make_gpu(index) for index in range(3)]
    assert [gpu.index for gpu in visible_gpus(gpus, visible)] == indices


CGROUPS = [
    ("none", {}, None, None),
    ("v2 without limits", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None),
    (
        "v2",
        {
            "memory.max": "1073741824\n",
            "memory.current": "805306368\n",
            "memory.stat": "anon 5\ninactive_file 268435456\n",
            "cpu.max": "50000 100000\n",
        },
        (2**30, 2**29),
        1,
    ),
    ("v2 over its limit", {"memory.max": "1048576", "memory.current": "2097152"}, (2**20, 0), None),
    (
        "v1",
        {
            "memory/memory.limit_in_bytes": "1073741824",
            "cpu/cpu.cfs_quota_us": "100000",
            "memory/memory.usage_in_bytes": "0",
            "cpu/cpu.cfs_period_us": "100000",
        },
        (2**30, 2**30),
        1,
    ),
    (
        "v1 without limits",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
        None,
        None,
    ),
    ("no numbers", {"memory.max": "what?", "cpu.max": ""}, None, None),
]


@pytest.mark.parametrize(
    ("files", "memory", "cores"), [case[1:] for case in CGROUPS], ids=[case[0] for case in CGROUPS]
)
def test_limits_of_a_container_count(
    tmp_path: Path, files: dict[str, str], memory: tuple[int, int] | None, cores: int | None
) -> None:
    whole, all_cores = host_memory(tmp_path), usable_cores(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = host_memory(tmp_path)
    if memory is None:
        assert found.total_bytes == whole.total_bytes
    else:
        assert dataclasses.astuple(found) == memory
    assert usable_cores(tmp_path) == (all_cores if cores is None else cores)

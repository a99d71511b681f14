"""This machine in words: its devices, what they have, and what would be chosen on them.

Must not know the configuration; it shows what `auto` comes to for each family.
"""

from __future__ import annotations

from collections.abc import Sequence

from dialsum.cli import CommandLine
from dialsum.errors import EXIT_OK
from dialsum.machine.devices import (
    Choice,
    Device,
    GpuState,
    Precision,
    driver_cuda_version,
    list_devices,
    nvidia_gpus,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import (
    EFFECTIVE_BATCH_SIZE,
    LENGTHS,
    count_fitting_rows,
    describe_memory,
    recommend_batch,
    recommend_checkpointing,
    recommend_eval_batch,
)

FAMILIES = ("mt5", "t5", "bart")
SHOWN_BEAMS = 4


def describe_machine(requested: str = "auto") -> str:
    """Return what `python code/utils/device_utils.py` prints.

    Args:
        requested: auto, cuda, mps or cpu, as general.device.

    Raises:
        UnfitError: that device is not there.
        DriverError: there is an NVIDIA driver and it does not work.
    """
    import torch

    devices = list_devices()
    chosen = pick_device(requested)
    lines = [f"Devices that torch {torch.__version__} can use, the best first"]
    for device in devices:
        lines += describe_device(device)
    lines += ["", *describe_driver(nvidia_gpus(), driver_cuda_version())]
    lines += ["", "Chosen where the configuration says auto", *describe_choices(chosen)]
    lines += ["", *describe_recommendations(chosen.value)]
    return "\n".join(lines)


def describe_device(device: Device) -> list[str]:
    """Return a device's memory, precisions and attention kernels, as lines."""
    return [
        f"  {device.describe()}",
        f"    precision: {', '.join(device.precisions)}; attention: {', '.join(device.attention)}",
    ]


def describe_driver(gpus: Sequence[GpuState], cuda: tuple[int, int] | None) -> list[str]:
    """Return what the NVIDIA driver says, as lines."""
    if not gpus:
        return ["NVIDIA driver: none, or no card"]
    newest = f", CUDA up to {cuda[0]}.{cuda[1]}" if cuda else ""
    cards = [f"  {gpu.describe()}" for gpu in gpus]
    return [f"NVIDIA driver {gpus[0].driver_version}{newest}", *cards]


def describe_choices(chosen: Choice[Device]) -> list[str]:
    """Return what the choices that depend on the device alone come to, each with its reason."""
    device = chosen.value
    precision = pick_precision("auto", fp16=False, architecture="mt5", device=device)
    tf32 = pick_tf32("auto", device=device)
    workers = pick_num_workers("auto", device=device)
    return [
        f"  general.device                   {device.torch_name}  ({chosen.why})",
        f"  precision of training            {precision.value}  ({precision.why})",
        f"  training.tf32                    {'on' if tf32.value else 'off'}  ({tf32.why})",
        f"  training.dataloader_num_workers  {workers.value}  ({workers.why})",
    ]


def describe_recommendations(device: Device) -> list[str]:
    """Return batch x accumulation for each family and input length, and the evaluation batch."""
    precision = _precision(device, FAMILIES[0])
    profile = describe_memory(device.memory_total_bytes)
    columns = "".join(f"{f'up to {length}':>14}" for length in LENGTHS)
    lines = [
        f"Batch x accumulation for {EFFECTIVE_BATCH_SIZE} rows a step, by the {profile} in "
        f"{precision} (estimated, not measured)",
        f"  {'input tokens':<24}{columns}{f'evaluation, {SHOWN_BEAMS} beams':>22}",
    ]
    for family in FAMILIES:
        for lora in (True, False):
            cells = "".join(f"{_recommend(device, family, length, lora):>14}" for length in LENGTHS)
            evaluation = recommend_eval_batch(
                SHOWN_BEAMS, LENGTHS[0], device.memory_total_bytes, architecture=family, lora=lora
            )
            name = f"{family}, {'LoRA on 4-bit' if lora else 'full'}"
            lines.append(f"  {name:<24}{cells}{evaluation.value:>22}")
    return [*lines, "  c: with gradient checkpointing; -: does not fit"]


def _recommend(device: Device, family: str, length: int, lora: bool) -> str:
    """Return one cell: `6 x 4`, `12 x 2 c` or `-`."""
    memory = device.memory_total_bytes
    precision = _precision(device, family)
    checkpointing = recommend_checkpointing(
        family, length, memory, lora=lora, precision=precision
    ).value
    fitting = count_fitting_rows(
        family, length, memory, lora=lora, checkpointing=checkpointing, precision=precision
    )
    if not fitting:
        return "-"
    batch, accumulation, _ = recommend_batch(
        family, length, memory, lora=lora, checkpointing=checkpointing, precision=precision
    )
    return f"{batch} x {accumulation}{' c' if checkpointing else ''}"


def _precision(device: Device, family: str) -> Precision:
    return pick_precision("auto", fp16=False, architecture=family, device=device).value


def main(argv: Sequence[str] | None) -> int:
    """Print the machine; return the exit status."""
    parser = CommandLine(
        prog="device_utils.py",
        description="Print this machine: devices, memory, precisions, and what auto comes to here.",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cuda", "mps", "cpu"),
        help="device to show the choices for (default: the best there is)",
    )
    print(describe_machine(parser.parse_args(argv).device))
    return EXIT_OK

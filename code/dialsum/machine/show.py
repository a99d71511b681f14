"""This machine in words: its devices, what they have, and what would be chosen on them.

Must not know the configuration; it shows what `auto` comes to for each family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dialsum.cli import CommandLine
from dialsum.errors import EXIT_OK
from dialsum.machine.devices import (
    list_devices,
    nvidia_gpus,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import LENGTHS, ROWS_PER_STEP, TrainingMemory, describe_memory

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
    device, why = pick_device(requested, devices)
    lines = [f"Devices that torch {torch.__version__} can use, the best first"]
    for one in devices:
        precisions, attention = ", ".join(one.precisions), ", ".join(one.attention)
        lines.append(f"  {one.describe()}")
        lines.append(f"    precision: {precisions}; attention: {attention}")
    gpus = nvidia_gpus()
    if gpus:
        cuda = gpus[0].cuda_version
        newest = f", CUDA up to {cuda[0]}.{cuda[1]}" if cuda else ""
        lines += ["", f"NVIDIA driver {gpus[0].driver_version}{newest}"]
        lines += [f"  {gpu.describe()}" for gpu in gpus]
    else:
        lines += ["", "NVIDIA driver: none, or no card"]
    precision = pick_precision("auto", fp16=False, architecture="mt5", device=device)
    tf32 = pick_tf32("auto", device=device)
    workers = pick_num_workers("auto", device=device)
    lines += [
        "",
        "Chosen where the configuration says auto",
        f"  general.device                   {device.torch_name}  ({why})",
        f"  precision of training            {precision.value}  ({precision.why})",
        f"  training.tf32                    {'on' if tf32.value else 'off'}  ({tf32.why})",
        f"  training.dataloader_num_workers  {workers.value}  ({workers.why})",
        "",
        f"Batch x accumulation for {ROWS_PER_STEP} rows a step, by the "
        f"{describe_memory(device.memory_total_bytes)} in {precision.value} (estimated, not "
        "measured)",
    ]
    columns = "".join(f"{f'up to {length}':>14}" for length in LENGTHS)
    lines.append(f"  {'input tokens':<24}{columns}{f'evaluation, {SHOWN_BEAMS} beams':>22}")
    for family in FAMILIES:
        own = pick_precision("auto", fp16=False, architecture=family, device=device).value
        for lora in (True, False):
            memory = TrainingMemory(
                family, LENGTHS[0], device.memory_total_bytes, lora=lora, precision=own
            )
            cells = ""
            for length in LENGTHS:
                there = replace(memory, max_input=length)
                there = replace(there, checkpointing=there.needs_checkpointing().value)
                batch, accumulation, _ = there.choose_batch()
                cell = f"{batch} x {accumulation}{' c' if there.checkpointing else ''}"
                cells += f"{cell if there.count_fitting_rows() else '-':>14}"
            rows = memory.choose_eval_batch(SHOWN_BEAMS)
            name = f"{family}, {'LoRA on 4-bit' if lora else 'full'}"
            lines.append(f"  {name:<24}{cells}{rows:>22}")
    return "\n".join([*lines, "  c: with gradient checkpointing; -: does not fit"])


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

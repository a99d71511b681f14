"""Pick the device and see the machine; run by itself, it prints the machine:

python code/utils/device_utils.py [--device auto|cuda|mps|cpu]
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run by itself, its own folder is on the path and code/ is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dialsum.cli import require_packages

if __name__ == "__main__":
    require_packages(__file__)

from dialsum.errors import run_script
from dialsum.machine.devices import (
    Choice,
    Device,
    list_devices,
    nvidia_gpus,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import TrainingMemory, free_memory
from dialsum.machine.show import describe_machine, main

__all__ = [
    "Choice",
    "Device",
    "TrainingMemory",
    "describe_machine",
    "free_memory",
    "list_devices",
    "nvidia_gpus",
    "pick_device",
    "pick_num_workers",
    "pick_precision",
    "pick_tf32",
]

if __name__ == "__main__":
    run_script(main)

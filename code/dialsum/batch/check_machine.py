"""Whether this machine has the GPU that experiments want; asked by a batch and by a single run.

Must not import torch: it asks what the driver's own command says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from dialsum.batch.first_look import COMMAND, find_gpu_problems
from dialsum.config.schema import Config
from dialsum.environment_variables import WORLD_SIZES
from dialsum.paths import PROJECT_ROOT


def wants_gpu(config: Config) -> bool:
    """Tell whether an experiment is refused where there is no NVIDIA GPU.

    Real checkpoints want one unless another device is named; tiny models only when it is named.
    """
    if config.general.device == "auto":
        return config.model.initialise == "pretrained"
    return config.general.device == "cuda"


def find_machine_problems(
    configs: Iterable[Config], *, environment: Mapping[str, str]
) -> list[str]:
    """Return why this machine cannot run these experiments; none where no GPU is wanted.

    Args:
        environment: environment variables, which may hide cards.
    """
    configs = list(configs)
    launched = [*find_launcher_problems(environment), *find_scorer_problems(configs)]
    if not any(wants_gpu(config) for config in configs):
        return launched
    demo = f"\n      Or see the whole way work here, with tiny models: {COMMAND} --demo"
    gpu = find_gpu_problems(PROJECT_ROOT, environment)
    return [*launched, *(problem + demo for problem in gpu)]


def find_scorer_problems(configs: Iterable[Config]) -> list[str]:
    """Say that the optional tokeniser is asked for and missing, before a night is spent."""
    asked = any(config.evaluation.tokenizer == "kiwi" for config in configs)
    if not asked or find_spec("kiwipiepy") is not None:
        return []
    return [
        "evaluation.tokenizer is kiwi, and kiwipiepy is not installed: "
        ".venv/bin/python -m pip install -r requirements-kiwi.txt"
    ]


def find_launcher_problems(environment: Mapping[str, str]) -> list[str]:
    """Refuse to be one of several processes: each would train it all and write the same files."""
    for name in WORLD_SIZES:
        size = environment.get(name, "").strip()
        if size and not size.isdecimal():
            return [f"{name}={size!r} is no number of processes; unset {name}"]
        if size and int(size) > 1:
            return [
                f"{name}={size}: a launcher such as torchrun started {size} processes, but an "
                "experiment trains in one process on one GPU. Start the command without the "
                f"launcher; where the variable stays from elsewhere: unset {name}. To use several "
                "GPUs, start one batch for each: CUDA_VISIBLE_DEVICES=1 … --only 4-7 "
                "--output-dir DIR"
            ]
    return []

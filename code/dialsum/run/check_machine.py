"""Whether this machine has the GPU that experiments want; asked by a batch and by a single run.

Must not import torch: it asks what the driver's own command says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dialsum.config.schema import Config
from dialsum.paths import PROJECT_ROOT
from dialsum.run.first_look import COMMAND, find_gpu_problems


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
    if not any(wants_gpu(config) for config in configs):
        return []
    demo = f"\n      Or see the whole way work here, with tiny models: {COMMAND} --demo"
    return [problem + demo for problem in find_gpu_problems(PROJECT_ROOT, environment)]

"""What is to be measured: the seven experiments, the comparisons, and what cannot run and why.

Must not know how anything is measured; no torch.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXPERIMENTS = REPOSITORY / "config" / "experiments"
ARCHITECTURES = {"mt5": "mt5_base", "t5": "t5_base_korean", "bart": "kobart"}
"""File of config/architectures that stands for the checkpoint of each family's experiments."""
SEVEN = (
    "01_mt5_xlsum_optimized_v2",
    "01_mt5_xlsum_korean_adapted",
    "01_mt5_xlsum_ultimate",
    "02_eenzeenee_t5_rtx3090",
    "01_baseline_kobart_rtx3090",
    "03_high_learning_rate_rtx3090",
    "04_batch_optimization_rtx3090",
)
COMPARED = {"mt5_base": "01_mt5_xlsum_optimized_v2", "kobart": "03_high_learning_rate_rtx3090"}
"""Architectures that ways of training are compared on, and the experiment whose batch, lengths and
adapter they take."""
FULL = ("qlora.use_qlora=false", "qlora.load_in_4bit=false")
FLOAT_BASE = ("qlora.load_in_4bit=false",)
FP32 = ("training.bf16=false", "training.tf32=false")
BF16 = ("training.bf16=true",)
WAYS: dict[str, tuple[str, ...]] = {
    "full, fp32": (*FULL, *FP32),
    "full, fp32 with TF32": (*FULL, "training.bf16=false", "training.tf32=true"),
    "full, bf16": (*FULL, *BF16),
    "LoRA, bf16": (*FLOAT_BASE, *BF16),
    "LoRA on 4 bits, bf16": BF16,
}
"""Ways of training that are compared, and what each sets."""
DECODER = "llama_270m"
NO_BITSANDBYTES = "bitsandbytes is not installed"
NO_UNSLOTH = "unsloth is not installed"
NO_CUDA_UNSLOTH = "unsloth needs an NVIDIA GPU"

Group = Literal["experiment", "comparison", "decoder"]


@dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        name: of its files; no slash or space.
        label: as the table shows it.
        group: the table that it stands in.
        architecture: file of config/architectures, without .json.
        way: what distinguishes it from the others on this architecture.
        experiment: file of config/experiments, without .yaml; empty for the decoder's.
        overrides: `section.key=value` on top of the experiment's own.
        capped: held to the memory of a smaller card, and evaluated.
        why_not: why it is not run; empty where it is.
    """

    name: str
    label: str
    group: Group
    architecture: str
    way: str = ""
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    capped: bool = False
    why_not: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Job:
        """Return what to_record wrote."""
        return cls(**record | {"overrides": tuple(record["overrides"])})


@dataclass(frozen=True)
class Settings:
    """How everything is measured.

    Args:
        device: cuda or cpu.
        steps: optimizer steps of each job.
        warm_up: of these, how many at the start are not timed.
        eval_rows: rows that summaries are written for.
        small: tiny versions of the architectures, and short rows: only the way is tried.
        cap_gib: memory of the card that the experiments are held to, GiB; 0: all there is.
        folder: where checkpoints and results go.
    """

    device: str
    steps: int
    warm_up: int
    eval_rows: int
    small: bool
    cap_gib: float
    folder: str


@dataclass(frozen=True)
class Libraries:
    """Which of the libraries that may be absent are there."""

    bitsandbytes: bool
    unsloth: bool

    @classmethod
    def find(cls) -> Libraries:
        """Look for them without importing any."""
        return cls(
            **{name: importlib.util.find_spec(name) is not None for name in cls.__annotations__}
        )


def choose_warm_up(steps: int) -> int:
    """Return the steps before the clock starts: 4 of 20, and at most half of them."""
    return min(4, steps // 2)


def plan_jobs(libraries: Libraries, *, device: str) -> list[Job]:
    """Return every job, those that cannot be run too, with the reason.

    Where bitsandbytes is absent, each job on 4 bits is followed by the same on a base in floats.
    """
    jobs = [*_plan_seven(libraries), *_plan_comparisons(libraries)]
    return [*jobs, *_plan_decoder(libraries, device=device)]


def _plan_seven(libraries: Libraries) -> list[Job]:
    from dialsum.config.load import load_configs

    jobs = []
    paths = [EXPERIMENTS / f"{name}.yaml" for name in SEVEN]
    for number, loaded in enumerate(load_configs(paths), start=1):
        asked = loaded.config
        job = Job(
            name=loaded.name,
            label=f"{number} {loaded.name}",
            group="experiment",
            architecture=ARCHITECTURES[asked.model.architecture],
            experiment=loaded.name,
            way="as configured",
            capped=True,
        )
        if asked.qlora.use_qlora and asked.qlora.load_in_4bit and not libraries.bitsandbytes:
            jobs.append(replace(job, why_not=NO_BITSANDBYTES))
            job = replace(
                job,
                name=f"{job.name}_bf16",
                label=f"{job.label} (LoRA on bf16)",
                way="LoRA, bf16",
                overrides=(*FLOAT_BASE, *BF16),
            )
        jobs.append(job)
    return jobs


def _plan_comparisons(libraries: Libraries) -> list[Job]:
    return [
        Job(
            name=f"{architecture}_{number}",
            label=f"{architecture}: {way}",
            group="comparison",
            architecture=architecture,
            way=way,
            experiment=experiment,
            overrides=(*overrides, "training.gradient_checkpointing=false"),
            why_not=NO_BITSANDBYTES if overrides is BF16 and not libraries.bitsandbytes else "",
        )
        for architecture, experiment in COMPARED.items()
        for number, (way, overrides) in enumerate(WAYS.items(), start=1)
    ]


def _plan_decoder(libraries: Libraries, *, device: str) -> list[Job]:
    why_not = ""
    if device != "cuda":
        why_not = NO_CUDA_UNSLOTH
    if not libraries.unsloth:
        why_not = NO_UNSLOTH
    peft = Job(
        name=f"{DECODER}_peft",
        label=f"{DECODER}: PEFT",
        group="decoder",
        architecture=DECODER,
        way="PEFT",
    )
    unsloth = replace(
        peft, name=f"{DECODER}_unsloth", label=f"{DECODER}: Unsloth", way="Unsloth", why_not=why_not
    )
    return [peft, unsloth]


def make_overrides(job: Job, settings: Settings, *, checkpoint: Path) -> list[str]:
    """Return what a job sets on top of its experiment, as --set takes it."""
    values: dict[str, Any] = {
        "general.device": settings.device,
        "model.checkpoint": str(checkpoint),
        "data.data_dir": str(REPOSITORY / "data" / "sample"),
        "data.cache_dir": None,
        "data.max_train_rows": 64,
        "training.max_steps": settings.steps,
        "training.eval_steps": settings.steps,
        "training.logging_steps": 1,
        "training.early_stopping_patience": None,
        "tracking.wandb": False,
        "tracking.tensorboard": False,
    }
    if settings.small:
        values["generation.max_new_tokens"] = 8
    written = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return [*written, *job.overrides]


def select_jobs(jobs: Sequence[Job], groups: Sequence[str]) -> list[Job]:
    """Return the jobs of some groups, in their order."""
    return [job for job in jobs if job.group in groups]

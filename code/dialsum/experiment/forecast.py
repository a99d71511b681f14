"""How much memory an experiment will take of its device, known before it starts, and what would
save most.

What is forecast once is kept, by a hash of everything that decides it. Importing this starts no
torch: only what is not kept is simulated (simulate.py). Must not know batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from dialsum.config.schema import DECODER_ONLY, Config
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.errors import DialsumError, UnfitError
from dialsum.files import read_regular, write_json
from dialsum.machine.devices import GIB, find_largest_gpu, host_memory
from dialsum.machine.memory import CONTEXT_GIB, RESERVE_SHARE, TrainingMemory
from dialsum.models.checkpoint import find_folder, find_size, read_own_config, read_published
from dialsum.models.families import get_family
from dialsum.paths import PROJECT_ROOT, project_path
from dialsum.text import align

KEPT = "dialsum-forecasts"
"""Made inside data.cache_dir, a file for each forecast; all of it may be deleted."""
CODE = ("experiment", "generate.py", "machine", "models", "train")
"""What of the program decides it."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
SECTIONS = ("model", "tokenizer", "prompt", "training", "qlora", "generation", "evaluation")
ARCHITECTURES = {
    "mt5": "mt5_base",
    "t5": "t5_base_korean",
    "bart": "kobart",
    "gpt2": "gpt2",
    "kogpt2": "kogpt2",
    "llama": "llama_3_2_3b",
    "qwen": "qwen2_5_3b",
    "gemma": "gemma_3_270m",
}
"""The config.json of the base size, for a checkpoint that is not here."""
CAPABILITY = (8, 6)
"""Of a card that is only spoken of: the RTX 3090's."""
LEAST_SAVING = 0.01
"""Of all; what saves less is not worth naming."""
Verdict = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True)
class Card:
    """What it is forecast for.

    Args:
        kind: cuda or cpu.
        memory_bytes: all of it; None where it is unknown.
        capability: compute capability of a GPU.
    """

    kind: Literal["cuda", "cpu"]
    memory_bytes: int | None
    capability: tuple[int, int] = CAPABILITY


def find_card(config: Config, *, memory_gib: float | None = None, cpu: bool = False) -> Card:
    """Return the device to forecast for: what is asked for, else what a run would have here, else
    the card that batch.memory_limit_gib speaks of.

    Args:
        memory_gib: of a card that need not be here.
        cpu: the CPU, which a config may name too.

    Raises:
        UnfitError: no such memory.
    """
    if memory_gib is not None:
        if not 0 < memory_gib < 10_000:
            raise UnfitError(f"--card {memory_gib:g}: no memory of a GPU in GiB, such as 24")
        return Card("cuda", int(memory_gib * GIB))
    if cpu or config.general.device == "cpu":
        return Card("cpu", host_memory().total_bytes)
    if best := find_largest_gpu():
        return Card("cuda", best.memory_total_bytes or None, best.compute_capability)
    return Card("cuda", int(config.batch.memory_limit_gib * GIB))


@dataclass(frozen=True)
class Forecast:
    """The memory of a run, in bytes.

    Args:
        card: for which it was forecast.
        stages: stage to sort of tensor to bytes at its peak, as simulate_run gives them.
        batch_size, accumulation: rows of a pass, and passes of a step.
        why: what its sizes were taken from.
    """

    card: Card
    stages: Mapping[str, Mapping[str, int]]
    batch_size: int
    accumulation: int
    why: str

    @property
    def tensors_bytes(self) -> int:
        """What the tensors take at most: what torch.cuda.max_memory_allocated would say."""
        return max(sum(parts.values()) for parts in self.stages.values())

    @property
    def total_bytes(self) -> int:
        """With the device's own share: CUDA's context and kernels, which no tensor shows."""
        own = CONTEXT_GIB if self.card.kind == "cuda" else 0.0
        return int(self.tensors_bytes + own * GIB)

    @property
    def heaviest(self) -> str:
        """The stage that takes most."""
        return max(self.stages, key=lambda stage: sum(self.stages[stage].values()))

    @property
    def fixed_bytes(self) -> int:
        """What no smaller batch would save: weights, and what learning keeps beside them."""
        parts = self.stages["training"]
        return sum(parts.get(name, 0) for name in ("weights", "learned weights", "states"))

    @property
    def verdict(self) -> Verdict:
        """Whether it fits: tight where what the allocator cannot use again (a tenth of the card, as
        the batch is chosen by) may be missing."""
        memory = self.card.memory_bytes
        if memory is None or self.total_bytes <= memory * (1 - RESERVE_SHARE):
            return "fits"
        return "tight" if self.total_bytes <= memory else "does not fit"

    def describe(self) -> str:
        """Say it in a few words."""
        room = self.card.memory_bytes
        of = "" if room is None else f" of {room / GIB:.1f}"
        return (
            f"{self.total_bytes / GIB:.1f}{of} GiB at most, while {self.heaviest}: {self.verdict}"
        )


def forecast(config: Config, *, card: Card, keep: bool = True) -> Forecast:
    """Return the forecast of an experiment, which is simulated where none is kept.

    Args:
        keep: keep what was simulated.

    Raises:
        UnfitError: its checkpoint's config cannot be read, or describes no model.
    """
    own, why = _read_own(config)
    place = _place(config, own, card=card)
    if (kept := _read_kept(place, card=card, why=why)) is not None:
        return kept
    content = _simulate(config, own, card=card)
    if keep and place is not None:
        # A folder that cannot be written costs time, no more.
        with suppress(DialsumError, OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, content)
    return _read(content, card=card, why=why)


def find_kept(config: Config, *, card: Card) -> Forecast | None:
    """Return the forecast that is kept of an experiment; None where none is."""
    own, why = _read_own(config)
    return _read_kept(_place(config, own, card=card), card=card, why=why)


def recall_training(config: Config) -> int | None:
    """Return the bytes that tensors were forecast to take at most in training and its evaluations;
    None where no forecast is kept."""
    try:
        kept = find_kept(config, card=find_card(config))
    except DialsumError:
        return None
    if kept is None:
        return None
    return max(sum(kept.stages[stage].values()) for stage in ("training", "evaluation"))


def recall(config: Config) -> str:
    """Say in a sentence what memory an experiment was expected to take; for who met its limit."""
    try:
        card = find_card(config)
        kept = find_kept(config, card=card)
    except DialsumError as error:
        return f"(What it takes cannot be forecast: {error}.)"
    if kept is not None:
        return f"(Its forecast: {kept.describe()}.)"
    return (
        f"(About {estimate(config, card=card):.0f} GiB by a formula; python scripts/forecast.py "
        "--config FILE forecasts it, and says what would save most.)"
    )


def _read_kept(place: Path | None, *, card: Card, why: str) -> Forecast | None:
    if place is None:
        return None
    try:
        return _read(json.loads(place.read_text(encoding="utf-8")), card=card, why=why)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or damaged: it is made anew


def _read(content: Mapping[str, Any], *, card: Card, why: str) -> Forecast:
    return Forecast(card, content["stages"], content["batch"], content["accumulation"], why)


def _read_own(config: Config) -> tuple[dict[str, Any], str]:
    """Return what a checkpoint's config.json says, with its family's defaults; and where from."""
    family = get_family(config.model.architecture)
    try:
        folder = find_folder(config.model)
    except UnfitError:
        folder = None  # of a demo that was not made yet; a batch refuses it elsewhere
    if folder is not None:
        return {**family.defaults, **read_own_config(folder)}, "its config.json"
    if published := read_published(config.model.checkpoint):
        return {**family.defaults, **published}, "not here, as published"
    name = ARCHITECTURES[config.model.architecture]
    path = PROJECT_ROOT / "config" / "architectures" / f"{name}.json"
    own = {**family.defaults, **json.loads(path.read_text(encoding="utf-8"))["config"]}
    return own, f"not here, taken for a base-size {family.name}"


def _place(config: Config, own: Mapping[str, Any], *, card: Card) -> Path | None:
    """Return where a forecast is kept, named by the hash of all that decides it; None: nowhere."""
    if config.data.cache_dir is None:
        return None
    said = {name: getattr(config, name).model_dump(mode="json") for name in SECTIONS}
    # What they lead to is in own: the same before and after the commit is stated.
    del said["model"]["checkpoint"], said["model"]["revision"]
    versions = [f"{name} {version(name)}" for name in LIBRARIES]
    decides = [said, dict(own), vars(card), versions, _hash_code()]
    text = json.dumps(decides, sort_keys=True, default=str)
    folder = project_path(config.data.cache_dir) / KEPT
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@cache
def _hash_code() -> str:
    root, digest = PROJECT_ROOT / "code" / "dialsum", hashlib.sha256()
    for name in CODE:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(read_regular(path, max_bytes=10_000_000))
    return digest.hexdigest()


def _simulate(config: Config, own: Mapping[str, Any], *, card: Card) -> dict[str, Any]:
    from dialsum.models.load import quiet_libraries

    quiet_libraries()  # before an import that hints
    from transformers import CONFIG_MAPPING

    from dialsum.experiment.choices import choose
    from dialsum.experiment.simulate import simulate_run
    from dialsum.machine.devices import Choice, Device, cuda_attention, cuda_precisions

    device = None
    if card.kind == "cuda":
        device = Choice(
            Device(
                kind="cuda",
                index=0,
                name="the card that is spoken of",
                memory_total_bytes=card.memory_bytes,
                memory_free_bytes=None,
                compute_capability=card.capability,
                precisions=cuda_precisions(card.capability),
                attention=cuda_attention(card.capability),
            ),
            "for a forecast",
        )
    choices = choose(config, device=device)
    # The line break is a token of its own in every family with an encoder.
    tags, line_end = config.tokenizer.dialogue_tokens, config.model.architecture not in DECODER_ONLY
    try:
        family = get_family(config.model.architecture)
        usual = next(iter(family.model_classes))
        library = CONFIG_MAPPING[own.get("model_type", usual)].from_dict(dict(own))
        stages = simulate_run(
            library,
            own,
            config=config,
            choices=choices,
            new_tokens=line_end + (0 if tags == "none" else len(STANDARD_DIALOGUE_TOKENS)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UnfitError(
            f"memory cannot be forecast: config.json describes no {config.model.architecture} "
            f"({error})"
        ) from error
    return {"stages": stages, "batch": choices.batch_size, "accumulation": choices.accumulation}


def estimate(config: Config, *, card: Card) -> float:
    """Return GiB by the formula that batches are chosen by, where nothing was forecast."""
    asked, batch = config.training, config.training.per_device_train_batch_size
    memory = TrainingMemory(
        config.model.architecture,
        config.tokenizer.encoder_max_len,
        card.memory_bytes,
        lora=config.qlora.use_qlora,
        checkpointing=asked.gradient_checkpointing is True,
        precision="fp32" if card.kind == "cpu" else "bf16",
        size=find_size(config).value,
    )
    return memory.estimate_gib(memory.choose_batch()[0] if batch == "auto" else batch)


def find_savings(config: Config, found: Forecast) -> list[tuple[str, int]]:
    """Return settings that would make a run smaller, with the bytes that each saves, most first.

    Args:
        found: the forecast of the run as it is configured.
    """
    batch, passes = found.batch_size, found.accumulation
    asked, lora = config.training, config.qlora
    tried: list[dict[str, Any]] = []
    if batch > 1:
        tried.append(
            {
                "training.per_device_train_batch_size": batch // 2,
                "training.gradient_accumulation_steps": passes * 2,
            }
        )
    if asked.gradient_checkpointing is not True:
        tried.append({"training.gradient_checkpointing": True})
    if not lora.use_qlora:
        tried.append({"qlora.use_qlora": True})
        if asked.optim.startswith("adamw_torch"):
            tried.append({"training.optim": "adamw_bnb_8bit"})
    elif not (lora.load_in_4bit or lora.load_in_8bit):
        tried.append({"qlora.load_in_4bit": True})
    if found.heaviest != "training":
        tried.append({"training.per_device_eval_batch_size": 1})
    savings = []
    for changes in tried:
        other = forecast(_change(config, changes), card=found.card)
        saved = found.tensors_bytes - other.tensors_bytes
        if saved > LEAST_SAVING * found.tensors_bytes:
            said = ", ".join(f"{key}: {json.dumps(value)}" for key, value in changes.items())
            savings.append((said, saved))
    return sorted(savings, key=lambda one: -one[1])


def _change(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with some values changed, which are known to be fit."""
    for key, value in changes.items():
        name, _, own = key.partition(".")
        section = getattr(config, name).model_copy(update={own: value})
        config = config.model_copy(update={name: section})
    return config


def describe_forecast(config: Config, found: Forecast) -> list[str]:
    """Return a forecast as lines: parts of each stage, the verdict, and what would save most."""
    rows = [["", *found.stages]]
    for name in dict.fromkeys(name for parts in found.stages.values() for name in parts):
        rows.append([name, *(_show(parts.get(name, 0)) for parts in found.stages.values())])
    rows.append(["in all", *(_show(sum(parts.values())) for parts in found.stages.values())])
    lengths = config.tokenizer
    lines = [
        f"{config.model.checkpoint} ({config.model.architecture}, {found.why}): passes of "
        f"{found.batch_size} rows x {lengths.encoder_max_len} input and "
        f"{lengths.decoder_max_len} target tokens, GiB at the peak of each stage",
        "",
        *align(rows, left=(0,)),
        "",
    ]
    if found.card.kind == "cuda":
        lines.append(f"CUDA's context and kernels: {CONTEXT_GIB} GiB besides (a rule)")
    lines.append(found.describe())
    savings = find_savings(config, found)
    lines += [f"{said} saves {_show(saved)} GiB" for said, saved in savings]
    return lines


def _show(count: int) -> str:
    return f"{count / GIB:.2f}"

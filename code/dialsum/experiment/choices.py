"""Everything that is decided for the user once device and config are known, each with its reason.

Must not know data or weights.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dialsum.config.schema import Config
from dialsum.machine.devices import (
    Choice,
    Device,
    peak_resident_bytes,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import (
    Size,
    recommend_accumulation,
    recommend_batch,
    recommend_checkpointing,
    recommend_eval_batch,
)
from dialsum.models.checkpoint import find_size

if TYPE_CHECKING:
    from dialsum.train.task import Machine

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Choices:
    """What a run uses of its machine.

    Args:
        lines: one sentence per choice, for the screen.
        size: of the checkpoint, which estimates of memory go by.
        record: requested, used and why of device and precision, for result.json.
    """

    config: Config
    where: Device
    precision: Precision
    tf32: bool
    gradient_checkpointing: bool
    batch_size: int
    accumulation: int
    num_workers: int
    lines: list[str]
    record: dict[str, Any]
    size: Size | None = None

    @property
    def device(self) -> str:
        """The device by torch's name."""
        return self.where.torch_name

    @property
    def bf16(self) -> bool:
        """Whether training and generation compute in bfloat16."""
        return self.precision == "bf16"

    @property
    def dtype(self) -> Any:
        """Torch dtype of weights that are not quantised.

        auto: bfloat16 for a frozen base under bf16, float32 where the weights themselves learn.
        """
        import torch

        asked = self.config.model.dtype
        if asked != "auto":
            return getattr(torch, asked)
        frozen = self.config.qlora.use_qlora and not self.config.qlora.train_embeddings
        return torch.bfloat16 if frozen and self.bf16 else torch.float32

    def eval_batch_size(self, num_beams: int) -> int:
        """Return the rows of a generation batch at that many beams."""
        asked = self.config.training.per_device_eval_batch_size
        if asked != "auto":
            return asked
        return recommend_eval_batch(
            num_beams,
            self.config.tokenizer.encoder_max_len,
            self.where.memory_total_bytes,
            architecture=self.config.model.architecture,
            lora=self.config.qlora.use_qlora,
            decoder_max_len=self.config.tokenizer.decoder_max_len,
            size=self.size,
        ).value

    def machine(self) -> Machine:
        """Return what the training loop needs of these choices."""
        import torch

        from dialsum.train.task import Machine

        return Machine(
            device=torch.device(self.device),
            precision=self.precision,
            tf32=self.tf32,
            gradient_checkpointing=self.gradient_checkpointing,
            num_workers=self.num_workers,
        )

    def peak_memory_bytes(self) -> dict[str, int]:
        """Return the most memory used so far: the GPU's as torch counts it, this process's RSS."""
        resident = peak_resident_bytes()
        peak = {"rss": resident} if resident else {}
        if self.where.kind == "cuda":
            import torch

            peak["device"] = torch.cuda.max_memory_reserved(self.where.index)
        return peak


def choose(config: Config, *, device: Choice[Device] | None = None) -> Choices:
    """Decide device, precision, batch and the rest for a config.

    Args:
        device: where to compute, if that is decided; else general.device decides it.

    Raises:
        UnfitError: a device that is not there, or fp16 on the T5 family.
    """
    asked = config.training
    device = pick_device(config.general.device) if device is None else device
    where = device.value
    precision = pick_precision(
        asked.bf16, fp16=asked.fp16, architecture=config.model.architecture, device=where
    )
    tf32 = pick_tf32(asked.tf32, device=where)
    workers = pick_num_workers(asked.dataloader_num_workers, device=where)
    lines = [
        _say("device", where.describe(), device.why),
        _say("precision", precision.value, precision.why),
    ]
    if asked.dataloader_num_workers == "auto":
        lines.append(_say("data loader processes", str(workers.value), workers.why))
    size = find_size(config, environment=os.environ)
    if "auto" in (
        asked.per_device_train_batch_size,
        asked.per_device_eval_batch_size,
        asked.gradient_checkpointing,
    ):
        lines.append(_say("memory is estimated for", config.model.architecture, size.why))
    checkpointing = _choose_checkpointing(config, where, precision.value, size.value, lines)
    batch, accumulation = _choose_batch(
        config, where, precision.value, checkpointing, size.value, lines
    )
    return Choices(
        config=config,
        where=where,
        precision=precision.value,
        tf32=tf32.value,
        gradient_checkpointing=checkpointing,
        batch_size=batch,
        accumulation=accumulation,
        num_workers=workers.value,
        lines=lines,
        size=size.value,
        record={
            "name": where.name,
            "kind": where.kind,
            "precision": {
                "requested": _requested(config),
                "used": precision.value,
                "why": precision.why,
            },
        },
    )


def _say(what: str, value: str, why: str) -> str:
    return f"{what}: {value} ({why})"


def _requested(config: Config) -> str:
    if config.training.fp16:
        return "fp16"
    return {True: "bf16", False: "fp32", "auto": "auto"}[config.training.bf16]


def _choose_checkpointing(
    config: Config, where: Device, precision: Precision, size: Size, lines: list[str]
) -> bool:
    asked = config.training.gradient_checkpointing
    if asked != "auto":
        return asked
    batch = config.training.per_device_train_batch_size
    chosen: Choice[bool] = recommend_checkpointing(
        config.model.architecture,
        config.tokenizer.encoder_max_len,
        where.memory_total_bytes,
        lora=config.qlora.use_qlora,
        batch=None if batch == "auto" else batch,
        precision=precision,
        size=size,
    )
    lines.append(_say("gradient checkpointing", "on" if chosen.value else "off", chosen.why))
    return chosen.value


def _choose_batch(
    config: Config,
    where: Device,
    precision: Precision,
    checkpointing: bool,
    size: Size,
    lines: list[str],
) -> tuple[int, int]:
    batch = config.training.per_device_train_batch_size
    accumulation = config.training.gradient_accumulation_steps
    if batch == "auto":
        rows, passes, why = recommend_batch(
            config.model.architecture,
            config.tokenizer.encoder_max_len,
            where.memory_total_bytes,
            lora=config.qlora.use_qlora,
            checkpointing=checkpointing,
            precision=precision,
            size=size,
        )
        batch = rows
        if accumulation == "auto":
            lines.append(_say("batch x accumulation", f"{rows} x {passes}", why))
            return rows, passes
        lines.append(_say("batch", str(rows), why))
    if accumulation == "auto":
        chosen = recommend_accumulation(batch)
        lines.append(_say("accumulation", str(chosen.value), chosen.why))
        accumulation = chosen.value
    return batch, accumulation

"""Everything that is decided for the user once device and config are known, each with its reason.

Must not know data or weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dialsum.config.schema import Config
from dialsum.errors import UnfitError
from dialsum.machine.devices import (
    Choice,
    Device,
    list_devices,
    pick_device,
    pick_num_workers,
    pick_precision,
    pick_tf32,
)
from dialsum.machine.memory import ROWS_PER_STEP, TrainingMemory
from dialsum.models.checkpoint import find_size

if TYPE_CHECKING:
    from dialsum.train.task import Machine


@dataclass(frozen=True)
class Choices:
    """What a run uses of its machine.

    Args:
        devices: all that there are; where: the one that is used.
        machine: what the training loop needs of it.
        memory: what training is estimated to take of it.
        lines: one sentence per choice, for the screen.
        record: requested, used and why of device and precision, for result.json.
    """

    config: Config
    devices: list[Device]
    where: Device
    machine: Machine
    memory: TrainingMemory
    batch_size: int
    accumulation: int
    lines: list[str]
    record: dict[str, Any]

    @property
    def bf16(self) -> bool:
        """Whether training and generation compute in bfloat16."""
        return self.machine.precision == "bf16"

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
        longest = self.config.tokenizer.decoder_max_len
        return self.memory.choose_eval_batch(num_beams, max_target=longest)


def choose(config: Config, *, device: Choice[Device] | None = None) -> Choices:
    """Decide device, precision, batch and the rest for a config.

    Args:
        device: where to compute, if that is decided; else general.device decides it.

    Raises:
        UnfitError: a device that is not there, or fp16 on a family that overflows it.
    """
    import torch

    from dialsum.train.task import Machine

    asked, architecture = config.training, config.model.architecture
    devices = list_devices()
    where, why = device or pick_device(config.general.device, devices)
    lines = [f"device: {where.describe()} ({why})"]
    precision, why = pick_precision(
        asked.bf16, fp16=asked.fp16, architecture=architecture, device=where
    )
    lines.append(f"precision: {precision} ({why})")
    wanted = {True: "bf16", False: "fp32", "auto": "auto"}[asked.bf16]
    used = {"requested": "fp16" if asked.fp16 else wanted, "used": precision, "why": why}
    workers, why = pick_num_workers(asked.dataloader_num_workers, device=where)
    if asked.dataloader_num_workers == "auto":
        lines.append(f"data loader processes: {workers} ({why})")
    processes = config.batch.gpus_per_experiment
    if processes > 1:
        if where.kind == "mps":
            raise UnfitError(
                f"batch.gpus_per_experiment is {processes}, but an Apple GPU (MPS) is one device: "
                "say 1, or take the CPU with --set general.device=cpu"
            )
        share = "a card each" if where.kind == "cuda" else "which share the cores"
        lines.append(f"processes: {processes}, {share} (batch.gpus_per_experiment)")
    size, why = find_size(config)
    batch, passes = asked.per_device_train_batch_size, asked.gradient_accumulation_steps
    accumulation = 0 if passes == "auto" else passes
    checkpointing = asked.gradient_checkpointing
    if "auto" in (batch, asked.per_device_eval_batch_size, checkpointing):
        lines.append(f"memory is estimated for: {architecture} ({why})")
    memory = TrainingMemory(
        architecture,
        config.tokenizer.encoder_max_len,
        where.memory_total_bytes,
        lora=config.qlora.use_qlora,
        precision=precision,
        size=size,
    )
    if checkpointing == "auto":
        checkpointing, why = memory.needs_checkpointing(None if batch == "auto" else batch)
        lines.append(f"gradient checkpointing: {'on' if checkpointing else 'off'} ({why})")
    memory = replace(memory, checkpointing=checkpointing)
    if batch == "auto":
        batch, fitting, why = memory.choose_batch()
        if accumulation:
            lines.append(f"batch: {batch} ({why})")
        else:
            accumulation = fitting
            lines.append(f"batch x accumulation: {batch} x {accumulation} ({why})")
    if not accumulation:
        accumulation = max(1, round(ROWS_PER_STEP / batch))
        rows = f"{batch} x {accumulation} = {batch * accumulation} rows a step"
        lines.append(f"accumulation: {accumulation} ({rows}, {ROWS_PER_STEP} wanted)")
    return Choices(
        config=config,
        devices=devices,
        where=where,
        machine=Machine(
            device=torch.device(where.torch_name),
            precision=precision,
            tf32=pick_tf32(asked.tf32, device=where).value,
            gradient_checkpointing=checkpointing,
            num_workers=workers,
        ),
        memory=memory,
        batch_size=batch,
        accumulation=accumulation,
        lines=lines,
        record={"name": where.name, "kind": where.kind, "processes": processes, "precision": used},
    )

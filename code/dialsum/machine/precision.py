"""In which precision a run computes, each choice with its reason.

Must not know the configuration: it is given plain values. Everything here is also importable from
dialsum.machine.devices.
"""

from __future__ import annotations

from typing import Literal

from dialsum.errors import UnfitError
from dialsum.machine.choice import AS_ASKED, Choice
from dialsum.machine.torch_devices import Device

Precision = Literal["fp32", "bf16", "fp16"]

T5_FAMILY = ("t5", "mt5")
# Training steps of T5 and BART of width 128, 2 threads, torch 2.13, an AMD EPYC with AVX512-BF16:
# 0.7 to 0.9 of fp32's time with all of its instructions, 1.3 to 1.8 times with oneDNN held to
# plain AVX-512, 7.5 to 13 times with it held to AVX2.


def _explain_fp32_on_cpu(instructions: str, *, asked: bool) -> str:
    """Say why a CPU computes in fp32; instructions: those that it has for bf16, or none."""
    if instructions and asked:
        return (
            "a CPU trains in fp32 here, also where it has bf16 instructions "
            f"({instructions}): bf16 is for GPUs"
        )
    if instructions:
        return (
            f"a CPU trains in fp32; with its bf16 instructions ({instructions}) bf16 could take "
            "0.7 to 0.9 of the time, as on one virtual x86 server, at 8 bits of mantissa"
        )
    return (
        "this CPU shows no bf16 instructions; without them bf16 was up to 13 times slower, "
        "measured on one virtual x86 server"
    )


def pick_precision(
    bf16: bool | Literal["auto"], *, fp16: bool, architecture: str, device: Device
) -> Choice[Precision]:
    """Choose the precision of training.

    Args:
        bf16, fp16: as the config has them (`training.bf16`, `training.fp16`).
        architecture: family of the model.

    Raises:
        UnfitError: fp16 for the T5 family.
    """
    if fp16 and bf16 is not True:
        return _answer_fp16(architecture, device)
    if bf16 is False:
        return Choice("fp32", "as asked (training.bf16 is false)", requested="fp32")
    requested = "bf16" if bf16 is True else None
    if device.kind == "cpu":
        return Choice(
            "fp32",
            _explain_fp32_on_cpu(device.bf16_instructions, asked=requested is not None),
            requested=requested,
        )
    if "bf16" not in device.precisions:
        return Choice("fp32", f"the {device.name} does not compute in bf16", requested=requested)
    if device.kind == "mps" and requested is None:
        return Choice(
            "fp32", "bf16 on Apple MPS is untested here; ask for it with training.bf16=true"
        )
    why = AS_ASKED if requested else "half the memory of fp32 with its range, and the GPU has it"
    return Choice("bf16", why, requested=requested)


def _answer_fp16(architecture: str, device: Device) -> Choice[Precision]:
    if architecture in T5_FAMILY:
        raise UnfitError(
            f"training.fp16 is true, but activations of the T5 family ({architecture}) overflow "
            "fp16 and the loss becomes NaN; write training.bf16: true instead "
            "(a GPU without bf16 gets fp32)"
        )
    if "fp16" in device.precisions and device.kind == "cuda":
        return Choice("fp16", AS_ASKED, requested="fp16")
    return Choice(
        "fp32",
        f"fp16 mixed precision needs a CUDA GPU that has it, not the {device.name}",
        requested="fp16",
    )


def pick_tf32(requested: bool | Literal["auto"], *, device: Device) -> Choice[bool]:
    """Choose whether products that stay in fp32 use TensorFloat-32: faster, 10 bits of mantissa."""
    asked = None if requested == "auto" else requested
    if requested is False:
        return Choice(False, AS_ASKED, requested=asked)
    if "tf32" in device.precisions:
        return Choice(
            True,
            AS_ASKED if asked else "the GPU has it, and fp32 products are faster",
            requested=asked,
        )
    return Choice(False, f"the {device.name} has no TF32", requested=asked)

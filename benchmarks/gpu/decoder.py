"""Unsloth beside PEFT: the same adapters on the same decoder-only model, the same tokens.

The project trains encoder-decoder models, which Unsloth does not serve; this says what is missed.
Must not know the tables that are made of the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialsum.machine.flops import count_flops, describe_speed, find_peak, find_products
from gpu.architectures import Architecture
from gpu.card import Meter, read_clock
from gpu.jobs import Job, Libraries, Settings

SEED = 42
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 16, 32
BATCH, LENGTH = 8, 512
SMALL_LENGTH = 32


@dataclass(frozen=True)
class _Pass:
    """What every step computes: one batch without padding."""

    batch: int
    length: int
    four_bit: bool


def measure_decoder(
    job: Job, settings: Settings, architecture: Architecture, *, checkpoint: Path, where: Any
) -> dict[str, Any]:
    """Train adapters for some steps and return the figures, as JSON is to hold them."""
    import torch

    shape = _Pass(
        batch=BATCH,
        length=SMALL_LENGTH if settings.small else LENGTH,
        four_bit=Libraries.find().bitsandbytes,
    )
    torch.manual_seed(SEED)
    bf16 = where.kind == "cuda" and "bf16" in where.precisions
    dtype = torch.bfloat16 if bf16 else torch.float32
    meter = Meter(where)
    load = _load_unsloth if job.way == "Unsloth" else _load_peft
    model = load(checkpoint, shape=shape, dtype=dtype, device=where.torch_name)
    loaded = meter.peak_gib()
    meter.reset()
    ends, losses = _train(
        model, shape=shape, settings=settings, pieces=architecture.pieces, where=where, bf16=bf16
    )
    precision = "bf16" if bf16 else "fp32"
    found: dict[str, Any] = {
        "device": where.name,
        "precision": precision,
        "batch": shape.batch,
        "accumulation": 1,
        "lengths": [shape.length, 0],
        "loader": f"{job.way}{', 4-bit' if shape.four_bit else ''}",
        "parameters_trainable": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "steps": len(ends),
        "timed_steps": settings.steps - settings.warm_up,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_gib": {"load": loaded, "train": meter.peak_gib()},
    }
    if not settings.warm_up:
        return found
    seconds = ends[-1] - ends[settings.warm_up - 1]
    lengths = [shape.length] * shape.batch * found["timed_steps"]
    flops = count_flops(
        find_products(model.named_modules(), decoder_only=True),
        attention=architecture.attention,
        inputs=[0] * len(lengths),
        targets=lengths,
    )
    return found | describe_speed(
        steps=found["timed_steps"],
        seconds=seconds,
        tokens=sum(lengths),
        flops=flops,
        peak=find_peak(where.name, precision=precision),
    )


def _load_peft(checkpoint: Path, *, shape: _Pass, dtype: Any, device: str) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM

    from dialsum.models.load import compute_as_in_training, describe_quantisation

    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": {"": device},
        "attn_implementation": "sdpa",
    }
    if shape.four_bit:
        options["quantization_config"] = describe_quantisation(4, compute=dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(str(checkpoint), **options)
    compute_as_in_training(model)
    model.config.use_cache = False
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            bias="none",
            target_modules=TARGETS,
        ),
    )


def _load_unsloth(checkpoint: Path, *, shape: _Pass, dtype: Any, device: str) -> Any:
    del device  # Unsloth takes the first card in sight, and use_one_gpu leaves one
    from unsloth import FastLanguageModel  # type: ignore[import-not-found,unused-ignore]

    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(checkpoint),
        max_seq_length=shape.length,
        dtype=dtype,
        load_in_4bit=shape.four_bit,
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0,
        bias="none",
        target_modules=TARGETS,
        use_gradient_checkpointing=False,
        random_state=SEED,
        max_seq_length=shape.length,
    )


def _train(
    model: Any, *, shape: _Pass, settings: Settings, pieces: int, where: Any, bf16: bool
) -> tuple[list[float], list[float]]:
    """Return the time at which each step ends, and its loss."""
    import torch

    from gpu.rows import SPECIAL_PIECES

    model.train()
    learning = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    draw = torch.Generator().manual_seed(SEED)
    ends, losses = [], []
    for _ in range(settings.steps):
        ids = torch.randint(SPECIAL_PIECES, pieces, (shape.batch, shape.length), generator=draw).to(
            where.torch_name
        )
        with torch.autocast(where.kind, dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        ends.append(read_clock(where))
    return ends, losses

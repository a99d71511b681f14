"""What the memory simulation gives for decoder-only models whose memory others have reported.

    python benchmarks/decoder_memory.py             about a minute, no weights, no GPU
    python benchmarks/decoder_memory.py --rows 4 --tokens 512

QLoRA as those reports have it: the library's own model and loss over every position, the base in 4
bits (NF4, double quantisation), adapters of rank 16 on every linear layer, AdamW, bf16 autocast,
gradient checkpointing. The network is the published architecture, its weights have no content.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import _disable_current_modes

from dialsum.models.imagine import fill, leave_room_for_bits
from dialsum.models.load import compute_as_in_training, quiet_libraries
from dialsum.train.simulation import simulate

RANK = 16
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODELS: dict[str, tuple[str, dict[str, int], float | None]] = {
    "Llama-3.2-3B": (
        "Llama",
        {
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 8192,
            "vocab_size": 128_256,
        },
        19.15,
    ),
    "Qwen2.5-3B": (
        "Qwen2",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11_008,
            "vocab_size": 151_936,
        },
        None,
    ),
    "Qwen3-4B": (
        "Qwen3",
        {
            "hidden_size": 2560,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 9728,
            "vocab_size": 151_936,
        },
        23.04,
    ),
}
"""Family, shape, and GB that were reported for 8 rows of 1,224 tokens, where any were."""


def simulate_step(family: str, shape: dict[str, int], *, rows: int, tokens: int) -> dict[str, int]:
    """Return the bytes of each sort of tensor at the peak of a training step."""
    library: Any = transformers
    config = getattr(library, f"{family}Config")(**shape, tie_word_embeddings=True)
    with simulate(as_on_gpu=True) as simulation:
        simulation.stage = "weights"
        with _disable_current_modes(), torch.device("meta"):
            model = getattr(library, f"{family}ForCausalLM")._from_config(
                config, attn_implementation="sdpa", dtype=torch.bfloat16
            )
            leave_room_for_bits(model, 4, dtype=torch.bfloat16)
        fill(model)
        compute_as_in_training(model)
        model.requires_grad_(False)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        adapters = LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules=LINEAR, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, adapters)
        learning = [one for one in model.parameters() if one.requires_grad]
        for one in learning:
            one.data = one.data.float()
        simulation.sort(learning, "adapters")
        simulation.stage = "activations, logits, gradients, states"
        optimizer = torch.optim.AdamW(learning, foreach=True)
        model.train()
        # In the second step the optimizer's states are there from the beginning.
        for _ in range(2):
            gc.collect()
            simulation.start()
            ids = torch.ones((rows, tokens), dtype=torch.long)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                told = model(input_ids=ids, attention_mask=ids, labels=ids, use_cache=False)
            loss = told.loss
            del told
            loss.backward()
            del loss
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return simulation.parts()


def main() -> None:
    """Print the peak of each model beside what was reported."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1224)
    asked = parser.parse_args()
    quiet_libraries()
    for name, (family, shape, reported) in MODELS.items():
        parts = simulate_step(family, shape, rows=asked.rows, tokens=asked.tokens)
        total = sum(parts.values()) / 1e9
        said = ", ".join(f"{sort} {count / 1e9:.2f}" for sort, count in parts.items())
        beside = ""
        if reported is not None and (asked.rows, asked.tokens) == (8, 1224):
            beside = f"; reported {reported:.2f}, {100 * (total / reported - 1):+.1f} %"
        print(f"{name}: {total:.2f} GB ({said}){beside}", flush=True)


if __name__ == "__main__":
    main()

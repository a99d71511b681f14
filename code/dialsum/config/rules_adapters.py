"""What must hold between the keys of what learns: bits, sorts of LoRA, types, rule by rule.

Must not know files or YAML: a rule sees the values of one experiment and says where each was
written.
"""

from __future__ import annotations

from collections.abc import Iterator

from dialsum.config.messages import show_value
from dialsum.config.view import Rule, View
from dialsum.config.yaml import Problem

NOT_BLOCKS = ("embed_tokens", "lm_head", "shared")
"""Targets outside of the blocks, which tied models have in common."""


def one_quantisation(view: View) -> Iterator[Problem]:
    """A weight is held in one way only."""
    if view["qlora.use_qlora"] and view["qlora.load_in_4bit"] and view["qlora.load_in_8bit"]:
        default = "" if view.stated("qlora.load_in_4bit") else " (the default)"
        found = f"true beside load_in_4bit: true{default}"
        yield view.problem("qlora.load_in_8bit", found, meant="load_in_4bit: false beside it")


def dora_reads_its_base(view: View) -> Iterator[Problem]:
    """DoRA needs the base's rows at every step; PEFT gets those of 8-bit layers back wrongly."""
    if not view["qlora.use_qlora"] or not view["qlora.use_dora"]:
        return
    if view["qlora.load_in_8bit"]:
        found = "true on an 8-bit base, whose scales PEFT loses when DoRA reads the weights"
        yield view.problem("qlora.use_dora", found, meant="load_in_4bit: true, or no quantisation")


def pissa_can_change_its_base(view: View) -> Iterator[Problem]:
    """PiSSA takes the largest directions out of the base, which must be floats, and no one else's.

    A tied head is the embeddings too: what is taken out of it would be missing there.
    """
    if not view["qlora.use_qlora"] or view["qlora.init_lora_weights"] != "pissa":
        return
    key = "qlora.init_lora_weights"
    for bits in (4, 8):
        if view[f"qlora.load_in_{bits}bit"]:
            found = f"pissa over {bits}-bit weights: it takes directions out of floats"
            yield view.problem(key, found, meant=f"load_in_{bits}bit: false, or default")
    targets = view["qlora.target_modules"]
    shared = [] if isinstance(targets, str) else [name for name in targets if name in NOT_BLOCKS]
    if shared:
        found = f"pissa with {show_value(shared)} among the target_modules"
        yield view.problem(key, found, meant="layers of the blocks alone, or default")


def what_learns_is_float32(view: View) -> Iterator[Problem]:
    """A bfloat16 weight has 8 bits of mantissa: an update below a 500th of it is rounded away."""
    if view["model.dtype"] != "bfloat16":
        return
    whole = not view["qlora.use_qlora"]
    if whole or view["qlora.train_embeddings"]:
        what = "every weight" if whole else "embeddings and norms"
        found = f"bfloat16, but {what} would learn in it, and most updates be rounded away"
        yield view.problem("model.dtype", found, meant="auto; training.bf16 computes in bfloat16")


ADAPTER_RULES: tuple[Rule, ...] = (
    one_quantisation,
    dora_reads_its_base,
    pissa_can_change_its_base,
    what_learns_is_float32,
)

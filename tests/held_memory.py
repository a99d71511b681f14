"""Counts what a real run holds: every storage that an operation makes, until it is let go.

Loads torch only when a function is called.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Held:
    """Bytes of tensors, now and at most since `start`."""

    now: int = 0
    peak: int = 0

    def start(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now


@contextmanager
def watch() -> Iterator[tuple[Held, Callable[[Any], None]]]:
    """Count what is made inside; the function takes in a tensor that was there before."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    held = Held()
    alive: set[int] = set()

    def let_go(address: int, nbytes: int) -> None:
        alive.discard(address)
        held.now -= nbytes

    def count(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address and address not in alive:
            alive.add(address)
            held.now += storage.nbytes()
            held.peak = max(held.peak, held.now)
            weakref.finalize(storage, let_go, address, storage.nbytes())

    class Watch(TorchDispatchMode):
        """Looks at what every operation gives back."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            """Run the operation and count."""
            found = func(*args, **(kwargs or {}))
            for one in tree_leaves(found):
                if isinstance(one, torch.Tensor):
                    count(one)
            return found

    with Watch():
        yield held, count


def measure_run(config: Any, checkpoint: Path, folder: Path) -> dict[str, int]:
    """Return the bytes that a real run on a checkpoint holds at the peak of each stage, and at the
    training's end those of its weights and of its optimizer's states.

    Every row is as long as the config allows, as in the forecast.
    """
    import torch

    from dialsum.experiment.choices import choose
    from dialsum.experiment.simulate import make_loop
    from dialsum.generate import GenerationSettings, describe_search, make_cache
    from dialsum.models.load import open_checkpoint, prepare_model, prepare_tokenizer

    opened, choices = open_checkpoint(config, folder=checkpoint), choose(config)
    tokens = prepare_tokenizer(opened, config, tags=[])
    found: dict[str, int] = {}
    with watch() as (held, count):
        model = prepare_model(
            opened,
            config,
            tokens,
            device="cpu",
            dtype=choices.dtype,
            gradient_checkpointing=choices.machine.gradient_checkpointing,
        ).model
        for one in (*model.parameters(), *model.buffers()):
            count(one)
        loop = make_loop(model, config, choices, folder, pad=tokens.tokenizer.pad_token_id)
        gc.collect()
        held.start()
        found["weights"] = held.now
        loop.take_step([loop.task[range(choices.batch_size)]])
        states = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for kept in loop.optimizer.state.values()
            for one in kept.values()
            if isinstance(one, torch.Tensor)
        }
        found["states"] = sum(states.values())
        loop.rehearse()
        found["training"] = held.peak
        for stage, beams in (
            ("evaluation", config.evaluation.training_num_beams),
            ("writing", config.generation.num_beams),
        ):
            if stage == "writing":
                del loop
                gc.collect()
            settings = GenerationSettings.from_config(
                config, exempt=(), bf16=choices.bf16, num_beams=beams
            )
            model.eval()
            held.start()
            rows = choices.eval_batch_size(beams)
            ids = torch.full((rows, config.tokenizer.encoder_max_len), 5)
            mask = torch.ones_like(ids)
            mask[0, -1] = 0
            with torch.no_grad():
                model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=describe_search(settings, model.config),
                    past_key_values=make_cache(model, ids, mask, beams=beams),
                )
            found[stage] = held.peak
    return found

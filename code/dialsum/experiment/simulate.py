"""An experiment's memory, by running its own steps on tensors without content: the model that it
would load, its heaviest training step with the optimizer's, its search at full length.

Every row is as long as the configuration allows, so that no pass of the data can take more. Must
not read weights.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dialsum.config.schema import DECODER_ONLY, Config
from dialsum.data.encode import Counts, EncodedSplit
from dialsum.experiment.choices import Choices
from dialsum.generate import GenerationSettings, describe_search, make_cache
from dialsum.models.imagine import imagine_model, name_ends
from dialsum.models.load import adapt_model
from dialsum.train.loop import Loop, Places
from dialsum.train.progress import Progress
from dialsum.train.simulation import Simulation, simulate
from dialsum.train.task import BatchShape, DevSet, SummaryTask

WEIGHTS, LEARNED, GRADIENTS, STATES = "weights", "learned weights", "gradients", "states"
LOGITS, ACTIVATIONS, BEAMS = "logits", "activations", "beams"
SEARCH_STEPS = 3
"""Tokens of a search that are followed at its full length."""


def simulate_run(
    library_config: Any,
    own: Mapping[str, Any],
    *,
    config: Config,
    choices: Choices,
    new_tokens: int,
) -> dict[str, dict[str, int]]:
    """Return the bytes of each sort of tensor at the peak of each stage of a run.

    For a process of its own: libraries keep tables that they make on the way, here without content.

    Args:
        library_config, own: as of imagine_model.
        choices: what the run would use of its device; where that is a GPU, with stand-ins for its
            kernels.
        new_tokens: that get rows of their own.

    Returns:
        `training`; `evaluation` in the midst of it, beside the optimizer's states; `writing` when
        it is over.
    """
    # The library's own gain rows where the vocabulary has no spare ones.
    rows = own["vocab_size"]
    on_gpu = choices.where.kind != "cpu"

    def name_logits(tensor: torch.Tensor) -> str | None:
        wide = tensor.dim() > 1 and tensor.shape[-1] == rows
        return LOGITS if wide and simulation.stage != WEIGHTS else None

    with (
        tempfile.TemporaryDirectory() as folder,
        simulate(name_logits, as_on_gpu=on_gpu) as simulation,
    ):
        simulation.stage = WEIGHTS
        model = adapt_model(
            imagine_model(library_config, own, config=config, dtype=choices.dtype, rows=rows),
            config=config,
            new_token_ids=range(rows - new_tokens, rows),
            gradient_checkpointing=choices.machine.gradient_checkpointing,
        ).model
        learning = [one for one in model.parameters() if one.requires_grad]
        simulation.sort(learning, LEARNED)
        simulation.stage = ACTIVATIONS
        loop = make_loop(model, config, choices, Path(folder), pad=name_ends(own)[0])
        if on_gpu and "foreach" in loop.optimizer.defaults:
            for group in loop.optimizer.param_groups:
                # As torch chooses on a GPU: all weights at once, with copies of them all.
                group["foreach"] = not group.get("fused")
        for parameter in learning:
            parameter.register_post_accumulate_grad_hook(_sorting(simulation))
        gc.collect()
        simulation.start()
        with redirect_stdout(StringIO()):
            loop.take_step([loop.task[range(choices.batch_size)]])
        states = [
            one
            for kept in loop.optimizer.state.values()
            for one in kept.values()
            if isinstance(one, torch.Tensor)
        ]
        simulation.sort(states, STATES)
        # Again, with the states there from the beginning, as in every later step.
        loop.rehearse()
        stages = {"training": simulation.parts()}
        beams = config.evaluation.training_num_beams
        stages["evaluation"] = _search(simulation, model, config, choices, beams=beams)
        del loop, states
        gc.collect()
        beams = config.generation.num_beams
        stages["writing"] = _search(simulation, model, config, choices, beams=beams)
    return stages


def _sorting(simulation: Simulation) -> Callable[[torch.Tensor], None]:
    def sort(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            simulation.sort([parameter.grad], GRADIENTS)

    return sort


def make_loop(model: Any, config: Config, choices: Choices, folder: Path, *, pad: int) -> Loop:
    """Return the training loop of a run on the CPU whose rows are as long as may be.

    Args:
        folder: for the files that it writes.
        pad: id of the padding token.
    """
    lengths, on_gpu = config.tokenizer, choices.where.kind != "cpu"

    def make_rows(count: int) -> EncodedSplit:
        # One is a token shorter: without padding there would be no mask.
        shorter = max(1, lengths.encoder_max_len - (count > 1))
        inputs = [np.ones(lengths.encoder_max_len, np.int32)] * (count - 1)
        inputs.append(np.ones(shorter, np.int32))
        targets = [np.ones(lengths.decoder_max_len, np.int32)] * count
        return EncodedSplit(inputs=inputs, targets=targets, counts=Counts())

    task = SummaryTask(
        make_rows(choices.batch_size),
        names=[""] * choices.batch_size,
        sha256="",
        shape=BatchShape(
            choices.batch_size,
            1,
            max_input=lengths.encoder_max_len,
            max_target=lengths.decoder_max_len,
        ),
        seed=0,
        pad_token_id=pad,
        by_length=False,
        label_smoothing=config.training.label_smoothing_factor,
        rdrop_alpha=config.training.rdrop_alpha,
        # Packed sequences are rows of full length, too.
        joined=config.model.architecture in DECODER_ONLY,
        prompt_loss_weight=config.training.prompt_loss_weight,
    )
    dev = choices.eval_batch_size(config.evaluation.training_num_beams)
    beams = config.evaluation.training_num_beams
    settings = GenerationSettings.from_config(config, exempt=(), bf16=choices.bf16, num_beams=beams)
    # Of a GPU's weights the snapshots for going back lie in main memory.
    on_nan = "skip" if on_gpu else config.training.on_nan
    return Loop(
        model,
        task,
        dev=DevSet(
            replace(
                task,
                encoded=make_rows(dev),
                names=[""] * dev,
                label_smoothing=0.0,
                rdrop_alpha=0.0,
                prompt_loss_weight=0.0,
            ),
            tokenizer=None,
            scorer=lambda _: {},
            settings=settings,
            batch_size=dev,
        ),
        measured={},
        tokenizer=None,
        asked=config.training.model_copy(update={"max_steps": 1, "on_nan": on_nan}),
        machine=replace(choices.machine, device=torch.device("cpu"), num_workers=0),
        places=Places(folder, folder / "nan_report.json", config_sha256=""),
        progress=Progress(folder / "metrics.jsonl"),
    )


class _FarEnough(Exception):
    """The search was followed as far as it is asked for."""


def _search(
    simulation: Simulation, model: Any, config: Config, choices: Choices, *, beams: int
) -> dict[str, int]:
    """Return the parts at the peak of a search: its input read, its first token, its last ones.

    All but the last are given to the decoder at once, which takes more than one after the other
    would, and is not counted.
    """
    settings = GenerationSettings.from_config(config, exempt=(), bf16=choices.bf16, num_beams=beams)
    begun, calls = 1, 0

    def follow(*_: Any) -> None:
        nonlocal calls
        calls += 1
        simulation.paused = begun > 1 and calls == 1
        if calls > SEARCH_STEPS:
            raise _FarEnough

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    alone = config.model.architecture in DECODER_ONLY
    network = base.base_model if alone else base.get_decoder()
    hook = network.register_forward_pre_hook(follow)
    rows, longest = choices.eval_batch_size(beams), config.tokenizer.encoder_max_len
    model.eval()
    simulation.start()
    simulation.stage = BEAMS
    # A greedy search asks whether it is at its end, one by beams whether it is not.
    simulation.truth = beams > 1
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16)
    few = describe_search(replace(settings, max_new_tokens=SEARCH_STEPS + 2), model.config)
    for begun in dict.fromkeys((1, max(1, settings.max_new_tokens - SEARCH_STEPS + 1))):
        calls = 0
        with suppress(_FarEnough), torch.no_grad(), autocast:
            ids = torch.ones((rows, longest + (begun - 1 if alone else 0)), dtype=torch.long)
            written = torch.ones((rows, begun), dtype=torch.long)
            mask = torch.ones_like(ids)
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=few,
                past_key_values=make_cache(model, ids, mask, beams=beams),
                **({} if alone else {"decoder_input_ids": written}),
            )
    hook.remove()
    simulation.paused = simulation.truth = False
    return simulation.parts()

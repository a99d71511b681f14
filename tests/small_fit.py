"""Trains small models with the real loop, for the tests of everything that looks on.

Loads torch only when a function is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dialsum.config.schema import DECODER_ONLY, Tokenizer
from dialsum.data.encode import encode_rows
from dialsum.data.prompts import make_frame
from dialsum.data.rows import Dialogue
from dialsum.generate import GenerationSettings
from dialsum.train.progress import Progress
from dialsum.train.task import BatchShape
from small_models import KINDS, load_decoder, make_config, make_model, train_sample_tokenizer

SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_mean", "rouge_sum")
WORDS = ["네", "오늘", "저녁에", "만나서", "같이", "밥을", "먹고", "영화를", "보자고", "합니다"]
FULL = {"use_qlora": False, "load_in_4bit": False}
ADAPTERS = {"use_qlora": True, "load_in_4bit": False, "lora_rank": 2, "lora_alpha": 4}


def make_rows(lengths: Sequence[int]) -> list[Dialogue]:
    """Return rows of that many words each."""
    return [
        Dialogue(
            fname=f"row_{row}",
            dialogue=" ".join((WORDS * 40)[row : row + words]),
            summary=" ".join((WORDS * 2)[row % 10 : row % 10 + 1 + words % 7]),
            topic=None,
            row=row,
        )
        for row, words in enumerate(lengths, start=1)
    ]


UNEQUAL = make_rows([1, 10, 3, 7, 25, 2, 14, 5, 40, 6, 9, 30])
"""Only unequal lengths show whether a short row counts too much."""


@dataclass
class SmallTraining:
    """What is asked of a small training.

    Args:
        sort: mt5, t5, t5_v1_1 or bart, or a decoder alone, which has its own width.
        training: keys of the config's training section.
        qlora: keys of its qlora section.
        scores: what successive evaluations give; the last again and again.
        dropout: of the network.
        change: applied to the model before training.
        gpu: trains on the NVIDIA GPU, in bf16.
    """

    sort: str = "bart"
    rows: Sequence[Dialogue] = field(default_factory=lambda: UNEQUAL)
    training: dict[str, Any] = field(default_factory=dict)
    qlora: dict[str, Any] = field(default_factory=lambda: dict(FULL))
    batch: int = 2
    accumulation: int = 1
    workers: int = 0
    scores: Sequence[float] = (1.0,)
    dropout: float = 0.0
    optim: str | None = None
    width: int = 16
    change: Callable[[Any, Any], None] | None = None
    gpu: bool = False

    def loop(self, folder: Path, *, resume: Path | None = None) -> Any:
        """Return the training loop, its files below folder."""
        import torch

        from dialsum.models.load import adapt_model
        from dialsum.train import loop
        from dialsum.train.task import DevSet, SummaryTask

        config = make_config(
            self.sort,
            "none/needed",
            qlora=self.qlora,
            training={"learning_rate": 1e-2, "max_steps": 4, "logging_steps": 1} | self.training,
            generation={"num_beams": 1, "max_new_tokens": 2},
        )
        torch.manual_seed(3)
        alone = self.sort in DECODER_ONLY
        longest = 192 if alone else 64  # a prompt stands around the dialogue
        if alone:
            network, tokenizer = load_decoder(self.sort)
        else:
            tokenizer = train_sample_tokenizer(KINDS[self.sort])
            network = make_model(self.sort, tokenizer=tokenizer, width=self.width)
        set_dropout(network, self.dropout)
        if self.change is not None:
            self.change(network, tokenizer)
        torch.manual_seed(4)
        device = torch.device("cuda" if self.gpu else "cpu")
        model = adapt_model(
            network, config=config, new_token_ids=[], gradient_checkpointing=False
        ).model.to(device)
        encoded = encode_rows(
            self.rows,
            tokenizer,
            Tokenizer(encoder_max_len=longest, decoder_max_len=64),
            frame=make_frame(config, tokenizer) if alone else None,
        )
        asked = config.training
        task = SummaryTask(
            encoded,
            names=[row.fname for row in self.rows],
            sha256="d" * 64,
            shape=BatchShape(self.batch, self.accumulation, max_input=longest, max_target=64),
            seed=asked.seed,
            pad_token_id=tokenizer.pad_token_id,
            by_length=asked.train_sampling_strategy == "token_budget",
            label_smoothing=asked.label_smoothing_factor,
            joined=alone,
            packing=asked.packing,
        )
        machine = loop.Machine(
            device, precision="bf16" if self.gpu else "fp32", num_workers=self.workers
        )
        script = list(self.scores)

        def score(_: Sequence[str]) -> dict[str, float]:
            return dict.fromkeys(SCORES, script.pop(0) if len(script) > 1 else script[0])

        dev = DevSet(
            replace(task, encoded=encoded.first(1), label_smoothing=0.0),
            tokenizer=tokenizer,
            scorer=score,
            settings=GenerationSettings.from_config(config, exempt=(), bf16=False),
            batch_size=1,
        )
        usual = loop.make_optimizer
        if self.optim == "sgd":
            loop.make_optimizer = lambda model, asked: torch.optim.SGD(
                [one for one in model.parameters() if one.requires_grad], lr=asked.learning_rate
            )
        try:
            return loop.Loop(
                model,
                task,
                dev=dev,
                measured={"rows": 1, "num_beams": 1},
                tokenizer=tokenizer,
                asked=asked,
                machine=machine,
                places=loop.Places(
                    checkpoints=folder / "checkpoints",
                    nan_report=folder / "nan_report.json",
                    config_sha256="c" * 64,
                    resume=resume,
                    stop=folder / "stop",
                ),
                progress=Progress(folder / "metrics.jsonl"),
            )
        finally:
            loop.make_optimizer = usual


def set_dropout(model: Any, share: float) -> None:
    """Set every dropout of a network."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def read_events(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events that a training wrote, of one kind or all."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [event for event in events if kind is None or event["event"] == kind]


def weights_of(model: Any) -> dict[str, Any]:
    """Return copies of what learns."""
    return {
        name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad
    }


def relative_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return the norm of the difference of two sets of tensors over the norm of the first."""
    import torch

    one, other = (
        torch.cat([weight.flatten() for weight in each.values()]) for each in (first, second)
    )
    return float((one - other).norm() / one.norm())

"""The project's own trainer without what comes between its steps: no evaluation, no checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.data.encoded import EncodedSplit
from dialsum.train.arguments import TrainingPlan


def make_bare_trainer(
    model: Any, tokenizer: Any, rows: EncodedSplit, *, config: Config, plan: TrainingPlan,
    folder: Path,
) -> Any:
    """Return a trainer, its `supervision` as in a run.

    Args:
        rows: what is trained on, with targets.
        folder: where metrics and a report of bad steps go.
    """
    from dialsum.model.generate import GenerationSettings
    from dialsum.train.arguments import make_arguments
    from dialsum.train.evaluation import DevSet
    from dialsum.train.fit import Material, Places, make_trainer, supervise
    from dialsum.train.progress import Progress

    checkpoints = folder / "checkpoints"
    supervision = supervise(
        config, config_sha256="", plan=plan,
        material=Material(
            train=rows, names=[f"row {row}" for row in range(len(rows))], sha256="",
            dev=DevSet(
                encoded=rows.first(1), tokenizer=tokenizer, score=lambda _: {}, batch_size=1,
                settings=GenerationSettings.from_config(config, exempt=(), bf16=plan.bf16),
            ),
        ),
        places=Places(checkpoints=checkpoints, nan_report=folder / "nan_report.json"),
        progress=Progress(folder / "metrics.jsonl", tensorboard=None),
    )
    arguments = make_arguments(config, plan=plan, checkpoints=checkpoints)
    trainer: Any = make_trainer(model, config=config, arguments=arguments, supervision=supervision)
    best = f"eval_{config.training.metric_for_best_model}"
    trainer.evaluate = lambda *_, **__: {best: 0.0}
    trainer._save_checkpoint = lambda *_, **__: None
    return trainer

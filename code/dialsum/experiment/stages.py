"""The stages of one experiment in order: load, encode, train, save, predict, score.

Must not know how a run begins or ends (run.py). Every stage says what it does and adds its part to
the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dialsum.config.read import LoadedConfig
from dialsum.config.schema import Config
from dialsum.data.encode import EncodedSplit, EncodeSettings
from dialsum.data.encode_cache import CachedEncoder
from dialsum.data.rows import name_rows
from dialsum.data.splits import Splits
from dialsum.data.submission import check_submission, write_predictions, write_submission
from dialsum.data.tags import loose_tags
from dialsum.errors import RunError
from dialsum.experiment.choices import Choices
from dialsum.experiment.evaluate import evaluate_dev, fill_empty, make_dev_scorer
from dialsum.experiment.outcome import Outcome
from dialsum.experiment.prepare import (
    PreparedModel,
    PreparedTokenizer,
    prepare_model,
    prepare_tokenizer,
)
from dialsum.experiment.saving import save_model
from dialsum.models.families import get_family
from dialsum.models.generate import GenerationSettings, generate_summaries
from dialsum.paths import RunPaths, project_path, shown
from dialsum.score.show import describe_measured, format_final
from dialsum.train.batches import BatchShape, padding_share, plan_random
from dialsum.train.progress import Progress

if TYPE_CHECKING:
    from dialsum.train.loop import Trained
    from dialsum.train.passes import SummaryTask

TINY_BASE = "base"
"""Folder, inside the saved model's, of a tiny checkpoint: its adapter is nothing without it."""


@dataclass(frozen=True)
class Context:
    """What every stage may look at or add to."""

    loaded: LoadedConfig
    paths: RunPaths
    splits: Splits
    choices: Choices
    outcome: Outcome
    progress: Progress
    resume: Path | None = None

    @property
    def config(self) -> Config:
        """The experiment's values."""
        return self.loaded.config


def run_stages(context: Context) -> None:
    """Take an experiment from checked rows to scored predictions."""
    say_data(context)
    tokens = load_tokens(context)
    model = load_network(context, tokens)
    encoded = encode(context, tokens)
    result = train(context, tokens, model=model, encoded=encoded)
    save_model(
        model.adapted.model,
        tokens.tokenizer,
        paths=context.paths,
        loaded=context.loaded,
        best_step=result.best_step,
        new_tokens=tokens.new_tokens,
        tiny_base=TINY_BASE if context.config.model.initialise == "tiny" else None,
        kept=tokens.kept,
    )
    predict_and_score(context, tokens, model=model, encoded=encoded)
    context.progress.stage("done", "all stages")


def say_data(context: Context) -> None:
    """Say which rows there are, what was cleaned, and what was chosen for this machine."""
    splits = context.splits.present
    counts = ", ".join(f"{len(split.rows):,} {split.kind}" for split in splits)
    folders = dict.fromkeys(shown(split.path.parent) for split in splits)
    context.progress.stage("data", f"{counts} rows from {', '.join(folders)}")
    for line in (*context.splits.notes, *context.choices.lines):
        print(f"  {line}")


def load_tokens(context: Context) -> PreparedTokenizer:
    """Load or train the tokenizer and say which summaries it would not give back."""
    config = context.config
    source = config.model.checkpoint
    if config.model.initialise == "tiny":
        size = config.model.tiny
        source = (
            f"a tiny {config.model.architecture} from scratch (width {size.d_model}, "
            f"{size.layers}+{size.layers} layers) in place of {source}"
        )
    context.progress.stage("model", source)
    tokens = prepare_tokenizer(config, context.splits, tiny_folder=context.paths.model / TINY_BASE)
    _require_room(config, tokens)
    trip = tokens.round_trip
    if 2 * len(trip.failed) > trip.texts:
        text, back = trip.failed[0]
        raise RunError(
            f"{len(trip.failed)} of {trip.texts} summaries do not survive the tokenizer of "
            f"{tokens.source}, such as {text!r} -> {back!r}: it is not the one that the checkpoint "
            "was trained with. Give a folder with the right tokenizer.json as model.checkpoint"
        )
    if trip.lacks_the_language and not config.tokenizer.train_on_data:
        raise RunError(
            f"{tokens.source}: {trip.describe_unknown()}: {trip.show_unknown()}. Nothing can be "
            "learnt of such text: give a checkpoint whose vocabulary holds the data's language as "
            "model.checkpoint, such as google/mt5-small (many languages) or paust/pko-t5-base "
            "(Korean)"
        )
    if trip.with_unknown:
        context.progress.warn(trip.describe_unknown())
    if trip.failed:
        text, back = trip.failed[0]
        context.progress.warn(
            f"{len(trip.failed)} of {trip.texts} summaries do not survive the tokenizer, "
            f"such as {text!r} -> {back!r}"
        )
    context.outcome.add(
        "model",
        tokens_added=len(tokens.new_tokens),
        vocabulary=len(tokens.tokenizer),
        summaries_not_kept=len(trip.failed),
        summaries_with_unknown_pieces=trip.with_unknown,
        unknown_target_tokens=trip.unknown_tokens,
    )
    return tokens


def _require_room(config: Config, tokens: PreparedTokenizer) -> None:
    """Refuse a prefix that leaves no room for a dialogue, before any weight is loaded."""
    asked = config.tokenizer
    taken = len(tokens.tokenizer(asked.input_prefix)["input_ids"])
    if taken >= asked.encoder_max_len:
        raise RunError(
            f"tokenizer.encoder_max_len {asked.encoder_max_len}: tokenizer.input_prefix and the "
            f"end token take {taken:,} tokens, so that none is left for a dialogue; shorten the "
            "prefix or allow longer inputs, such as 512"
        )


def load_network(context: Context, tokens: PreparedTokenizer) -> PreparedModel:
    """Load the network, quantise and adapt it as asked."""
    config, choices = context.config, context.choices
    model = prepare_model(
        config,
        tokens,
        device=choices.device,
        dtype=choices.dtype,
        gradient_checkpointing=choices.gradient_checkpointing,
    )
    total, trainable = model.adapted.count_parameters()
    loader = model.adapted.loader
    asked = ""
    if loader["used"] != loader["requested"]:
        asked = f", not {loader['requested']}: {loader['why']}"
    print(f"  {total:,} parameters, {trainable:,} learn ({100 * trainable / total:.1f} %)")
    print(f"  {loader['used']}{asked}")
    for note in model.notes:
        print(f"  {note}")
    context.outcome.add(
        "model",
        checkpoint=config.model.checkpoint,
        initialise=config.model.initialise,
        architecture=config.model.architecture,
        parameters_total=total,
        parameters_trainable=trainable,
        loader=loader,
        weights=model.loaded.weights,
        tied_head=model.loaded.tied,
        lora_targets=model.adapted.targets or None,
        vocabulary_trimmed=model.vocabulary_trimmed,
        **({"revision": config.model.revision} if config.model.revision else {}),
    )
    return model


def encode(context: Context, tokens: PreparedTokenizer) -> dict[str, EncodedSplit]:
    """Turn every split into token ids and say how many rows were cut."""
    asked = context.config.tokenizer
    context.progress.stage(
        "encode", f"at most {asked.encoder_max_len} input and {asked.decoder_max_len} target tokens"
    )
    folder = context.config.data.cache_dir
    encoder = CachedEncoder(
        tokens.tokenizer,
        settings=EncodeSettings.from_config(asked),
        folder=None if folder is None else project_path(folder),
    )
    encoded: dict[str, EncodedSplit] = {}
    for split in context.splits.present:
        encoded[split.kind] = encoder.encode(split.rows)
        print(f"  {split.kind}: {encoded[split.kind].describe()}")
    for warning in encoder.warnings:
        context.progress.warn(warning)
    context.outcome.add("data", encoded={kind: rows.to_record() for kind, rows in encoded.items()})
    return encoded


def train(
    context: Context,
    tokens: PreparedTokenizer,
    *,
    model: PreparedModel,
    encoded: Mapping[str, EncodedSplit],
) -> Trained:
    """Train, evaluating on dev as asked, and leave the best weights in the model."""
    from dialsum.train.evaluation import DevSet
    from dialsum.train.loop import Loop, Places
    from dialsum.train.passes import SummaryTask

    config, choices, asked = context.config, context.choices, context.config.training
    context.progress.stage(
        "train",
        f"{choices.batch_size} x {choices.accumulation} rows a step, learning rate "
        f"{asked.learning_rate:g}, {asked.lr_scheduler_type}",
    )
    context.outcome.add(
        "training",
        per_device_train_batch_size=choices.batch_size,
        gradient_accumulation_steps=choices.accumulation,
    )
    beams, splits = config.evaluation.training_num_beams, context.splits
    machine = choices.machine()
    bounded = get_family(config.model.architecture).position_limit is not None
    task = SummaryTask(
        encoded["train"],
        names=name_rows(splits.train.rows),
        sha256=splits.train.sha256,
        shape=BatchShape(
            batch_size=choices.batch_size,
            accumulation=choices.accumulation,
            max_input=config.tokenizer.encoder_max_len,
            max_target=config.tokenizer.decoder_max_len,
        ),
        seed=asked.seed,
        pad_token_id=int(tokens.tokenizer.pad_token_id),
        by_length=asked.train_sampling_strategy == "token_budget",
        label_smoothing=asked.label_smoothing_factor,
        multiple=1 if machine.device.type == "cpu" else 8,
        position_limit=config.tokenizer.encoder_max_len if bounded else None,
    )
    rows = min(config.evaluation.training_max_rows or len(encoded["dev"]), len(encoded["dev"]))
    dev = replace(
        task,
        encoded=encoded["dev"].first(rows),
        names=name_rows(splits.dev.rows[:rows]),
        label_smoothing=0.0,
        multiple=1,
        position_limit=None,
    )
    measured = {"rows": rows, "num_beams": beams}
    result = Loop(
        model.adapted.model,
        task,
        measured=measured,
        evaluate=DevSet(
            dev,
            tokenizer=tokens.tokenizer,
            score=make_dev_scorer(config, splits.dev.rows[:rows]),
            settings=_search(context, tokens, num_beams=beams),
            batch_size=choices.eval_batch_size(beams),
            machine=machine,
        ),
        tokenizer=tokens.tokenizer,
        asked=asked,
        machine=machine,
        places=Places(
            checkpoints=context.paths.checkpoints,
            nan_report=context.paths.nan_report,
            config_sha256=context.loaded.sha256,
            resume=context.resume,
        ),
        progress=context.progress,
    ).run()
    _record_training(context, result, task, measured=measured)
    return result


def _record_training(
    context: Context, result: Trained, task: SummaryTask, *, measured: Mapping[str, int]
) -> None:
    config, choices, progress = context.config, context.choices, context.progress
    inputs, targets = task.encoded.input_lengths, task.encoded.target_lengths
    drawn = plan_random(inputs, shape=task.shape, seed=task.seed, epoch=0)
    planned, at_random = (
        round(padding_share(steps, inputs, targets, multiple=task.multiple), 4)
        for steps in (task.steps(0), drawn)
    )
    context.outcome.add(
        "training",
        steps=result.steps,
        epochs=round(result.epochs, 3),
        best_step=result.best_step,
        best_metric={
            "name": config.training.metric_for_best_model,
            "value": result.best_metric,
            **measured,
        },
        effective_batch_size=choices.batch_size * choices.accumulation,
        stopped_early=result.stopped_early,
        seconds=round(result.seconds, 2),
        tokens_per_second=round(result.tokens_per_second, 1),
        peak_memory_bytes=choices.peak_memory_bytes(),
        nan_events=progress.nan_events,
        memory_retries=result.memory_retries,
        max_grad_norm=progress.max_grad_norm,
        padding_share={"value": planned, "drawn_at_random": at_random},
        **({"rows_left_out": result.left_out} if result.left_out else {}),
        remarks=progress.remarks,
        learning_rate=config.training.learning_rate,
        seed=config.training.seed,
        device=choices.record,
    )


def _search(
    context: Context, tokens: PreparedTokenizer, *, num_beams: int | None = None
) -> GenerationSettings:
    return GenerationSettings.from_config(
        context.config, exempt=tokens.tag_ids, bf16=context.choices.bf16, num_beams=num_beams
    )


def predict_and_score(
    context: Context,
    tokens: PreparedTokenizer,
    *,
    model: PreparedModel,
    encoded: Mapping[str, EncodedSplit],
) -> None:
    """Write dev predictions and their scores, then the checked submission."""
    settings = _search(context, tokens)

    def predict(kind: str) -> list[str]:
        on = {"rows": len(encoded[kind]), "num_beams": settings.num_beams}
        text = f"{kind} summaries ({describe_measured(**on)})"
        context.progress.stage("generate", text, split=kind, **on)
        return generate_summaries(
            model.adapted.model,
            tokens.tokenizer,
            encoded[kind].inputs,
            settings=settings,
            batch_size=context.choices.eval_batch_size(settings.num_beams),
        )

    splits = context.splits
    predictions = predict("dev")
    write_predictions(context.paths.predictions_dev, splits.dev.rows, predictions)
    context.progress.stage("score", f"{len(predictions)} dev summaries")
    context.outcome.parts["evaluation"] = evaluation = evaluate_dev(
        context.config,
        dev=splits.dev.rows,
        train=splits.train.rows,
        predictions=predictions,
        num_beams=settings.num_beams,
    )
    print(f"  {format_final(evaluation['dev'])}")
    if splits.test is None:
        return
    summaries, filled = fill_empty(predict("test"), splits.test.rows)
    if filled:
        context.progress.warn(
            f"{filled} test summaries came out empty; each holds its dialogue's first utterance"
        )
    write_submission(context.paths.submission, splits.test.rows, summaries)
    known = {
        tag for row in splits.train.rows for tag in loose_tags(f"{row.dialogue}\n{row.summary}")
    }
    remarks = check_submission(context.paths.submission, splits.test.rows, known=known)
    for remark in (*remarks.faults, *remarks.oddities):
        context.progress.warn(f"submission: {remark}")
    context.outcome.add("submission", rows=len(summaries), filled_empty=filled)

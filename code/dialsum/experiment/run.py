"""One experiment from config to record: how it begins and how it ends, whatever happens between.

Must not know other experiments. Everything is checked before the run's folder is touched; from then
on the run ends with a record.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialsum.config.load import dump_yaml
from dialsum.config.schema import Config, Target
from dialsum.data.encode import (
    STANDARD_DIALOGUE_TOKENS,
    EncodedSplit,
    encode_splits,
    find_dialogue_tokens,
)
from dialsum.data.rows import Dialogue, Splits, name_rows, read_data
from dialsum.data.submission import (
    fill_empty,
    one_line,
    remark_on_summaries,
    write_predictions,
    write_submission,
)
from dialsum.data.tags import loose_tags
from dialsum.errors import ProblemsError, RunError, UnfitError
from dialsum.experiment.choices import Choices, choose
from dialsum.experiment.job import Job
from dialsum.experiment.recording import (
    Recording,
    StopSignals,
    copy_output,
    describe_environment,
    explain_failure,
    explain_foreseen,
    listen_for_stop_signals,
)
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.files import dump_json
from dialsum.generate import GenerationSettings, generate
from dialsum.machine.devices import list_devices, use_one_gpu
from dialsum.models.checkpoint import fetch_folder, refuse_foreign_tokenizer
from dialsum.models.families import get_family
from dialsum.models.load import (
    AdaptedModel,
    LoadedModel,
    adapt_model,
    load_model,
    quiet_libraries,
    read_model_config,
    require_trainable,
)
from dialsum.models.save import save_model, write_model_card
from dialsum.models.tokenizers import (
    RoundTrip,
    add_dialogue_tokens,
    check_round_trip,
    load_tokenizer,
)
from dialsum.paths import in_project, project_path, shown
from dialsum.record import archive_previous
from dialsum.score.api import score_report, score_texts
from dialsum.score.rows import Rows
from dialsum.score.show import describe_measured, format_final
from dialsum.train.checkpoints import drop_unsealed_checkpoints
from dialsum.train.progress import Progress, WandbRun
from dialsum.train.task import BatchShape, padding_share, plan_random

if TYPE_CHECKING:
    from dialsum.train.loop import Trained
    from dialsum.train.task import SummaryTask


def run_experiment(job: Job) -> dict[str, Any]:
    """Run one experiment and return its record, as it stands in result.json.

    Raises:
        UnfitError: data, machine or checkpoint are not fit; nothing was written.
        KeyboardInterrupt: interrupted; the record says so.
    """
    config = job.config
    card = use_one_gpu()
    if card is not None:
        print(f"CUDA_VISIBLE_DEVICES={card.value} ({card.why}); set it yourself to take another")
    quiet_libraries()
    splits = read_data(config.data, seed=config.training.seed)
    changed = [
        shown(split.path)
        for split in splits.present
        if job.data_sha256.get(split.kind, split.sha256) != split.sha256
    ]
    if changed:
        raise UnfitError(
            f"{', '.join(changed)}: changed since the batch was started, so this experiment would "
            "not be comparable with those before it; give the rows back, or start a batch anew"
        )
    check_checkpoint(config)
    problems, notes = config.training.find_length_problems(train_rows=len(splits.train.rows))
    if problems:
        raise ProblemsError(problems)
    for note in notes:
        print(note)
    choices = choose(config)
    point = None
    if job.resume:
        point = find_resume_point(
            job.paths, config_sha256=job.loaded.sha256, data_sha256=splits.train.sha256
        )
    with listen_for_stop_signals() as signals:
        record = _open_record(job, splits, point)
        tensorboard = job.paths.tensorboard if config.tracking.tensorboard else None
        progress = Progress(job.paths.metrics, tensorboard=tensorboard)
        with copy_output(job.paths.train_log):
            return _Run(job, splits, choices, record, progress, point).end_with_record(signals)


def _open_record(job: Job, splits: Splits, point: ResumePoint | None) -> Recording:
    """Move an older run aside, or open it again, and write what is known before loading."""
    started = datetime.now().astimezone()
    loaded, paths = job.loaded, job.paths
    environment = describe_environment(
        started=started,
        paths=paths,
        seed=loaded.config.training.seed,
        devices=[device.to_record() for device in list_devices()],
    )
    first = {
        paths.job: job.to_json(),
        paths.environment: dump_json(environment),
        paths.resolved_config: dump_yaml(loaded.config, remarks=job.attempt.remarks()),
    }
    if point is not None:
        reopen_run(paths, point, first=first)
    elif (moved := archive_previous(paths, first=first)) is not None:
        print(f"the earlier run of {loaded.name} now stands in {shown(moved)}")
    head: dict[str, Any] = {
        "experiment": loaded.name,
        "label": loaded.config.general.label or loaded.name,
        "kind": job.kind,
        "batch": job.batch,
        "config_sha256": loaded.sha256,
    }
    if point is not None:
        head["resumed_after_step"] = point.step
    record = Recording(paths=paths, started=started, head=head, attempt=job.attempt)
    record.add(
        "data",
        rows={split.kind: len(split.rows) for split in splits.present},
        sha256=splits.sha256,
        files={split.kind: in_project(split.path) for split in splits.present},
        dev_share=loaded.config.data.dev_share,
    )
    return record


@dataclass
class _Run:
    """A run whose record is open: from here on it ends with that record, whatever happens."""

    job: Job
    splits: Splits
    choices: Choices
    record: Recording
    progress: Progress
    point: ResumePoint | None
    tracker: WandbRun | None = None

    def end_with_record(self, signals: StopSignals) -> dict[str, Any]:
        """Run everything and write the record, whatever ends it; return it."""
        status, reason, paths = "success", None, self.job.paths
        try:
            try:
                signals.let_go()
                self._start_tracking()
                self._go()
            finally:
                # Another signal, between here and the record, would cost the record.
                signals.hold()
        except KeyboardInterrupt:
            signals.hold()
            status, reason = "interrupted", "interrupted by Ctrl-C or a signal"
            raise
        except Exception as error:
            # The edge of one experiment: whatever went wrong is recorded.
            status, reason = "failed", explain_failure(error, folder=paths.folder)
            self.record.add_failure(error, self.progress)
            if explain_foreseen(error, folder=paths.folder) is None:
                traceback.print_exc()
        finally:
            if self.tracker is not None:
                self.record.parts["tracking"] = self.tracker.record
            if status != "success":
                drop_unsealed_checkpoints(paths.checkpoints)
            content = self.record.finish(status, reason=reason)
            self.progress.close()
            seconds = content["duration_seconds"]
            ending = f"finished in {seconds:.0f} s" if reason is None else f"{status}: {reason}"
            print(f"{ending}; record: {shown(paths.result)}", flush=True)
            # The record stands: what a network may hold up from here on can be cut off.
            signals.let_go()
            if self.tracker is not None:
                scores = self.record.parts.get("evaluation", {}).get("dev", {})
                numbers = {key: value for key, value in scores.items() if isinstance(value, float)}
                self.tracker.finish(numbers, exit_code=0 if reason is None else 1)
        return content

    def _start_tracking(self) -> None:
        job = self.job
        if self.point is not None:
            for note in self.point.notes:
                self.progress.warn(note)
            self.progress.event("resume", step=self.point.step)
            print(f"going on after step {self.point.step}, from {self.point.checkpoint.name}")
        self.tracker = WandbRun(
            job.config.tracking,
            name=job.name,
            group=job.batch,
            config=job.config.model_dump(mode="json"),
            folder=job.paths.folder,
        )
        self.progress.add_listener(self.tracker)
        print(self.tracker.describe(), flush=True)

    def _go(self) -> None:
        """Take the experiment from checked rows to scored predictions."""
        self._say_data()
        tokens = self._load_tokens()
        model = self._load_network(tokens)
        encoded = self._encode(tokens)
        result = self._train(tokens, model=model, encoded=encoded)
        info = save_model(
            model.adapted.model,
            tokens.tokenizer,
            paths=self.job.paths,
            loaded=self.job.loaded,
            best_step=result.best_step,
            new_tokens=tokens.new_tokens,
            tags=tokens.tokenizer.convert_ids_to_tokens(tokens.tag_ids),
            dtype=self.choices.dtype,
        )
        self._predict_and_score(tokens, model=model, encoded=encoded)
        write_model_card(
            self.job.paths.model,
            info,
            data=self.record.parts["data"]["rows"],
            dev=self.record.parts["evaluation"]["dev"],
        )
        self.progress.stage("done", "all stages")

    def _say_data(self) -> None:
        """Say which rows there are, what was cleaned, and what was chosen for this machine."""
        splits = self.splits.present
        counts = ", ".join(f"{len(split.rows):,} {split.kind}" for split in splits)
        folders = dict.fromkeys(shown(split.path.parent) for split in splits)
        self.progress.stage("data", f"{counts} rows from {', '.join(folders)}")
        for line in (*self.splits.notes, *self.choices.lines):
            print(f"  {line}")

    def _load_tokens(self) -> PreparedTokenizer:
        """Load the tokenizer and say which summaries it would not give back."""
        config = self.job.config
        self.progress.stage("model", config.model.checkpoint)
        tokens = prepare_tokenizer(config, self.splits)
        trip = tokens.round_trip
        lost = f"{len(trip.failed)} of {trip.texts} summaries do not survive the tokenizer"
        example = "such as {!r} -> {!r}".format(*trip.failed[0]) if trip.failed else ""
        if 2 * len(trip.failed) > trip.texts:
            raise RunError(
                f"{lost} of {tokens.source}, {example}: it is not the one that the checkpoint was "
                "trained with. Give a folder with the right tokenizer.json as model.checkpoint"
            )
        if trip.lacks_the_language:
            raise RunError(
                f"{tokens.source}: {trip.describe_unknown()}: {trip.show_unknown()}. Nothing can "
                "be learnt of such text: give a checkpoint whose vocabulary holds the data's "
                "language as model.checkpoint, such as google/mt5-small (many languages) or "
                "paust/pko-t5-base (Korean)"
            )
        if trip.with_unknown:
            self.progress.warn(trip.describe_unknown())
        if trip.failed:
            self.progress.warn(f"{lost}, {example}")
        self.record.add(
            "model",
            tokens_added=len(tokens.new_tokens),
            vocabulary=len(tokens.tokenizer),
            summaries_not_kept=len(trip.failed),
            summaries_with_unknown_pieces=trip.with_unknown,
            unknown_target_tokens=trip.unknown_tokens,
        )
        return tokens

    def _load_network(self, tokens: PreparedTokenizer) -> PreparedModel:
        """Load the network, quantise and adapt it as asked."""
        config, choices = self.job.config, self.choices
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
        self.record.add(
            "model",
            checkpoint=config.model.checkpoint,
            architecture=config.model.architecture,
            parameters_total=total,
            parameters_trainable=trainable,
            loader=loader,
            weights=model.loaded.weights,
            tied_head=model.loaded.tied,
            lora_targets=model.adapted.targets or None,
            **({"revision": config.model.revision} if config.model.revision else {}),
        )
        return model

    def _encode(self, tokens: PreparedTokenizer) -> dict[str, EncodedSplit]:
        """Turn every split into token ids and say how many rows were cut."""
        asked = self.job.config.tokenizer
        self.progress.stage(
            "encode",
            f"at most {asked.encoder_max_len} input and {asked.decoder_max_len} target tokens",
        )
        folder = self.job.config.data.cache_dir
        encoded, warnings = encode_splits(
            {split.kind: split.rows for split in self.splits.present},
            tokens.tokenizer,
            asked,
            folder=None if folder is None else project_path(folder),
        )
        for kind, rows in encoded.items():
            print(f"  {kind}: {rows.describe()}")
        for warning in warnings:
            self.progress.warn(warning)
        self.record.add("data", encoded={kind: rows.to_record() for kind, rows in encoded.items()})
        return encoded

    def _train(
        self,
        tokens: PreparedTokenizer,
        *,
        model: PreparedModel,
        encoded: Mapping[str, EncodedSplit],
    ) -> Trained:
        """Train, evaluating on dev as asked, and leave the best weights in the model."""
        from dialsum.train.loop import Loop, Places
        from dialsum.train.task import DevSet, SummaryTask

        config, choices, asked = self.job.config, self.choices, self.job.config.training
        self.progress.stage(
            "train",
            f"{choices.batch_size} x {choices.accumulation} rows a step, learning rate "
            f"{asked.learning_rate:g}, {asked.lr_scheduler_type}",
        )
        self.record.add(
            "training",
            per_device_train_batch_size=choices.batch_size,
            gradient_accumulation_steps=choices.accumulation,
        )
        beams, splits = config.evaluation.training_num_beams, self.splits
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
                settings=self._search(tokens, num_beams=beams),
                batch_size=choices.eval_batch_size(beams),
                machine=machine,
            ),
            tokenizer=tokens.tokenizer,
            asked=asked,
            machine=machine,
            places=Places(
                checkpoints=self.job.paths.checkpoints,
                nan_report=self.job.paths.nan_report,
                config_sha256=self.job.loaded.sha256,
                resume=None if self.point is None else self.point.checkpoint,
                stop=self.job.paths.stop_request,
            ),
            progress=self.progress,
        ).run()
        self._record_training(result, task, measured=measured)
        return result

    def _record_training(
        self, result: Trained, task: SummaryTask, *, measured: Mapping[str, int]
    ) -> None:
        config, choices, progress = self.job.config, self.choices, self.progress
        inputs, targets = task.encoded.input_lengths, task.encoded.target_lengths
        drawn = plan_random(inputs, shape=task.shape, seed=task.seed, epoch=0)
        planned, at_random = (
            round(padding_share(steps, inputs, targets, multiple=task.multiple), 4)
            for steps in (task.steps(0), drawn)
        )
        self.record.add(
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
            **({"stop_reason": result.stop_reason} if result.stop_reason else {}),
            remarks=progress.remarks,
            learning_rate=config.training.learning_rate,
            seed=config.training.seed,
            device=choices.record,
        )

    def _search(
        self, tokens: PreparedTokenizer, *, num_beams: int | None = None
    ) -> GenerationSettings:
        return GenerationSettings.from_config(
            self.job.config, exempt=tokens.tag_ids, bf16=self.choices.bf16, num_beams=num_beams
        )

    def _predict_and_score(
        self,
        tokens: PreparedTokenizer,
        *,
        model: PreparedModel,
        encoded: Mapping[str, EncodedSplit],
    ) -> None:
        """Write dev predictions and their scores, then the checked submission."""
        settings = self._search(tokens)

        def predict(kind: str) -> list[str]:
            on = {"rows": len(encoded[kind]), "num_beams": settings.num_beams}
            text = f"{kind} summaries ({describe_measured(**on)})"
            self.progress.stage("generate", text, split=kind, **on)
            written = generate(
                model.adapted.model,
                tokens.tokenizer,
                encoded[kind].inputs,
                settings=settings,
                batch_size=self.choices.eval_batch_size(settings.num_beams),
            )
            return [best.text for best, *_ in written]

        splits = self.splits
        predictions = predict("dev")
        write_predictions(self.job.paths.predictions_dev, splits.dev.rows, predictions)
        self.progress.stage("score", f"{len(predictions)} dev summaries")
        self.record.parts["evaluation"] = evaluation = evaluate_dev(
            self.job.config,
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
            self.progress.warn(
                f"{filled} test summaries came out empty; each holds its dialogue's first utterance"
            )
        write_submission(self.job.paths.submission, splits.test.rows, summaries)
        dialogues = {row.fname: row.dialogue for row in splits.test.rows}
        remarks = remark_on_summaries(
            dict(zip(dialogues, map(one_line, summaries), strict=True)),
            dialogues,
            known={
                tag
                for row in splits.train.rows
                for tag in loose_tags(f"{row.dialogue}\n{row.summary}")
            },
        )
        for remark in (*remarks.faults, *remarks.oddities):
            self.progress.warn(f"submission: {remark}")
        self.record.add("submission", rows=len(summaries), filled_empty=filled)


def check_checkpoint(config: Config) -> None:
    """Find out, without loading weights, whether a checkpoint in a local folder can serve.

    Raises:
        UnfitError: no such folder, no weights in it, or its config contradicts the experiment's.
    """
    read_model_config(fetch_folder(config.model, environment=os.environ), config)


def dialogue_tokens(config: Config, rows: list[Dialogue]) -> list[str]:
    """Return the tags and masks that become tokens: the standard ones, the data's too if asked."""
    kind = config.tokenizer.dialogue_tokens
    if kind == "none":
        return []
    if kind == "standard":
        return list(STANDARD_DIALOGUE_TOKENS)
    texts = [text for row in rows for text in (row.dialogue, row.summary or "")]
    found = find_dialogue_tokens(texts)
    more = (tag for tag in found if tag not in STANDARD_DIALOGUE_TOKENS)
    return [*STANDARD_DIALOGUE_TOKENS, *more]


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer with the dialogue's tokens, and where the network comes from.

    Args:
        tokenizer: a fast tokenizer.
        source: folder of the checkpoint.
        new_tokens: tokens that the checkpoint did not have.
        tag_ids: ids of all speaker tags and masks.
        round_trip: how many of the training and dev summaries survive encoding.
    """

    tokenizer: Any
    source: Path
    new_tokens: list[str]
    tag_ids: list[int]
    round_trip: RoundTrip


def prepare_tokenizer(config: Config, splits: Splits) -> PreparedTokenizer:
    """Load the checkpoint's tokenizer and add the dialogue's tokens."""
    source = fetch_folder(config.model, environment=os.environ)
    own = read_model_config(source, config)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code)
    refuse_foreign_tokenizer(tokenizer.get_vocab(), rows=own.vocab_size, source=source)
    tokens = dialogue_tokens(config, splits.train.rows)
    new = add_dialogue_tokens(tokenizer, tokens)
    summaries = [*splits.train.summaries, *splits.dev.summaries]
    vocabulary = tokenizer.get_vocab()
    return PreparedTokenizer(
        tokenizer=tokenizer,
        source=source,
        new_tokens=new,
        tag_ids=sorted(vocabulary[token] for token in tokens if token in vocabulary),
        round_trip=check_round_trip(tokenizer, summaries),
    )


@dataclass(frozen=True)
class PreparedModel:
    """A model on its device, ready to train."""

    loaded: LoadedModel
    adapted: AdaptedModel
    notes: list[str] = field(default_factory=list)


def prepare_model(
    config: Config,
    prepared: PreparedTokenizer,
    *,
    device: str,
    dtype: Any,
    gradient_checkpointing: bool,
) -> PreparedModel:
    """Load the network and make the asked part of it trainable."""
    from transformers import set_seed

    # Adapters start at random numbers, long before the trainer sets its own seed.
    set_seed(config.training.seed)
    loaded = load_model(
        prepared.source,
        config=config,
        tokenizer=prepared.tokenizer,
        new_tokens=prepared.new_tokens,
        device=device,
        dtype=dtype,
    )
    ids = prepared.tokenizer.convert_tokens_to_ids(list(prepared.new_tokens))
    adapted = adapt_model(
        loaded, config=config, new_token_ids=ids, gradient_checkpointing=gradient_checkpointing
    )
    require_trainable(adapted.model)
    notes = list(adapted.notes)
    if loaded.weights != "safetensors":
        notes.append(
            f"{prepared.source} has no safetensors; {loaded.weights} was read, weights only"
        )
    return PreparedModel(loaded=loaded, adapted=adapted, notes=notes)


TRAINING_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_mean", "rouge_sum")


def make_dev_scorer(
    config: Config, rows: Sequence[Dialogue]
) -> Callable[[Sequence[str]], dict[str, float]]:
    """Return the function that scores predictions of these dev rows on the experiment's scale."""
    references = [[row.summary or ""] for row in rows]

    def score(predictions: Sequence[str]) -> dict[str, float]:
        found = score_texts(predictions, references, tokenizer=config.evaluation.tokenizer)
        return {name: round(float(getattr(found, name)), 4) for name in TRAINING_SCORES}

    return score


def evaluate_dev(
    config: Config,
    *,
    dev: Sequence[Dialogue],
    train: Sequence[Dialogue],
    predictions: Sequence[str],
    num_beams: int,
) -> dict[str, Any]:
    """Score dev predictions on all scales, with floors and confidence, and against the targets.

    Args:
        num_beams: of the search that wrote the predictions.

    Returns:
        The `evaluation` block of result.json.
    """
    rows = Rows(
        predictions=predictions,
        references=[[row.summary or ""] for row in dev],
        dialogues=[row.dialogue for row in dev],
        names=[row.fname for row in dev],
        topics=[row.topic or "" for row in dev] if any(row.topic for row in dev) else None,
    )
    block = score_report(
        rows,
        tokenizer=config.evaluation.tokenizer,
        train_summaries=[row.summary or "" for row in train],
    )
    scale = block if config.evaluation.tokenizer == "whitespace" else block["whitespace"]
    scores = _scores_on(config, block, scale)
    block["num_beams"] = num_beams
    return {"dev": block, **check_target(config.evaluation.target, scores=scores)}


def _scores_on(
    config: Config, block: dict[str, Any], whitespace: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the scores on the scale that the targets were stated on; None where not computed."""
    wanted = config.evaluation.target.tokenizer
    if wanted == "whitespace":
        return whitespace
    return block if wanted == config.evaluation.tokenizer else None


def check_target(target: Target, *, scores: dict[str, Any] | None) -> dict[str, Any]:
    """Say whether scores on the target's scale reach what was expected, wanted, hoped for.

    Returns:
        {"target": {...}} with `met` beside each, or {} where there is no target or no score on its
        scale.
    """
    if scores is None or not (target.rouge1 or target.minimum or target.ideal):
        return {}
    record: dict[str, Any] = {
        "tokenizer": target.tokenizer,
        "signature": scores["signature"],
        "rouge1": scores["rouge1"],
        "rouge2": scores["rouge2"],
        "rougeL": scores["rougeL"],
    }
    if target.rouge1:
        met = scores["rouge1"] >= target.rouge1[0]
        record["expected"] = {"rouge1": target.rouge1, "met": met}
    for name in ("minimum", "ideal"):
        wanted: dict[Any, float] = getattr(target, name)
        if wanted:
            met = all(scores[key] >= least for key, least in wanted.items())
            record[name] = {**wanted, "met": met}
    return {"target": record}

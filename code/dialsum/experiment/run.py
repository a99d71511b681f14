"""One experiment from config to record: how it begins and how it ends, whatever happens between.

Must not know other experiments. Everything is checked before the run's folder is touched; from then
on the run ends with a record.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dialsum.config.load import dump_yaml
from dialsum.config.rules import find_length_problems
from dialsum.config.schema import Config, Training
from dialsum.data.encode import dialogue_tokens, encode_splits
from dialsum.data.prompts import find_subject, make_frame
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
from dialsum.experiment.attempt import FULL
from dialsum.experiment.bound import find_bound
from dialsum.experiment.choices import Choices, choose
from dialsum.experiment.forecast import recall, recall_training
from dialsum.experiment.helper import SameModel
from dialsum.experiment.job import Job
from dialsum.experiment.recording import (
    Recording,
    copy_output,
    describe_environment,
    explain_failure,
    explain_foreseen,
    listen_for_stop_signals,
    name_cause,
)
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.files import dump_json
from dialsum.generate import GenerationSettings, generate, say_full
from dialsum.lifeline import SAVING, beat
from dialsum.machine.devices import find_own_gpu, peak_resident_bytes, use_own_gpu
from dialsum.machine.flops import count_flops, find_products, name_product
from dialsum.models.checkpoint import measure_attention
from dialsum.models.families import get_family
from dialsum.models.load import (
    Checkpoint,
    open_checkpoint,
    prepare_model,
    prepare_tokenizer,
    quiet_libraries,
)
from dialsum.models.save import save_model, write_model_card
from dialsum.models.tokenizers import check_round_trip
from dialsum.models.writable import find_writable
from dialsum.paths import in_project, project_path, shown
from dialsum.record import archive_previous
from dialsum.score.api import score_means, score_report
from dialsum.score.rows import Rows
from dialsum.score.show import describe_measured, describe_reading, format_final
from dialsum.train.checkpoints import Room, drop_unsealed_checkpoints
from dialsum.train.parallel import Crew
from dialsum.train.progress import Progress
from dialsum.train.task import MOST_LEAK, BatchShape
from dialsum.train.tracking import Followers


def run_experiment(job: Job) -> dict[str, Any]:
    """Run one experiment and return its record, as it stands in result.json.

    Raises:
        UnfitError: data, machine or checkpoint are not fit; nothing was written.
        KeyboardInterrupt: interrupted; the record says so.
    """
    config, paths = job.config, job.paths
    processes = config.batch.gpus_per_experiment
    cards, said = use_own_gpu(processes, requested=config.general.device)
    print(said, end="\n" if said else "")
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
    checkpoint = open_checkpoint(config)
    choices = choose(config)
    chosen = {
        "per_device_train_batch_size": choices.batch_size,
        "gradient_accumulation_steps": choices.accumulation,
    }
    problems, notes = find_length_problems(
        config.training.model_copy(update=chosen), train_rows=len(splits.train.rows)
    )
    if problems:
        raise ProblemsError(problems)
    for note in notes:
        print(note)
    point = None
    if job.resume:
        point = find_resume_point(
            paths, config_sha256=job.loaded.outcome_sha256, train_sha256=splits.train.sha256
        )
    with listen_for_stop_signals() as signals:
        record = _open_record(job, splits, choices, point)
        progress = Progress(
            paths.metrics,
            ask_card=partial(find_own_gpu, choices.where.index)
            if choices.where.kind == "cuda"
            else None,
        )
        status, reason, followers = "success", None, None
        with copy_output(paths.train_log):
            try:
                try:
                    signals.let_go()
                    if point is not None:
                        for note in point.notes:
                            progress.warn(note)
                        progress.event("resume", step=point.step)
                        print(f"going on after step {point.step}, from {point.checkpoint.name}")
                    followers = Followers(
                        config.tracking,
                        paths=paths,
                        warn=progress.warn,
                        name=job.name,
                        group=job.batch,
                        config=config.model_dump(mode="json"),
                    )
                    progress.add_listener(followers.look)
                    with open_crew(processes, cards) as crew:
                        _go(
                            job,
                            splits=splits,
                            checkpoint=checkpoint,
                            choices=choices,
                            record=record,
                            progress=progress,
                            resume=None if point is None else point.checkpoint,
                            whole=signals.whole,
                            crew=crew,
                        )
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
                if name_cause(error) == FULL:
                    reason += f" {recall(config)}"
                record.add_failure(error, progress)
                if explain_foreseen(error, folder=paths.folder) is None:
                    traceback.print_exc()
            finally:
                if status != "success":
                    drop_unsealed_checkpoints(paths.checkpoints)
                if followers is not None:
                    scores = record.parts.get("evaluation", {}).get("dev")
                    record.parts["tracking"] = followers.finish(
                        scores, exit_code=0 if reason is None else 1
                    )
                record.add("time", **progress.divide_time())
                content = record.finish(
                    status, reason=reason, earlier_seconds=progress.earlier_seconds
                )
                seconds = content["duration_seconds"]
                ending = f"finished in {seconds:.0f} s" if reason is None else f"{status}: {reason}"
                print(f"{ending}; record: {shown(paths.result)}", flush=True)
                signals.let_go()
            return content


def open_crew(processes: int, cards: Sequence[str]) -> AbstractContextManager[Crew | None]:
    """Return what holds the processes that help an experiment to train; None within it for one."""
    return nullcontext() if processes == 1 else Crew(processes, cards=cards)


def _open_record(
    job: Job, splits: Splits, choices: Choices, point: ResumePoint | None
) -> Recording:
    """Move an older run aside, or open it again, and write what is known before loading."""
    started = datetime.now().astimezone()
    loaded, paths = job.loaded, job.paths
    environment = describe_environment(
        started=started,
        paths=paths,
        seed=job.config.training.seed,
        devices=[device.to_record() for device in choices.devices],
    )
    first = {
        paths.job: job.to_json(),
        paths.environment: dump_json(environment),
        paths.resolved_config: dump_yaml(job.config, remarks=job.attempt.remarks()),
    }
    if point is not None:
        reopen_run(paths, point, first=first)
    elif (moved := archive_previous(paths, first=first)) is not None:
        print(f"the earlier run of {loaded.name} now stands in {shown(moved)}")
    head = {
        "experiment": loaded.name,
        "label": job.label,
        "kind": job.kind,
        "batch": job.batch,
        "config_sha256": loaded.sha256,
        "resumed_after_step": None if point is None else point.step,
    }
    record = Recording(paths=paths, started=started, head=head, attempt=job.attempt)
    record.add(
        "data",
        rows={split.kind: len(split.rows) for split in splits.present},
        sha256=splits.sha256,
        files={split.kind: in_project(split.path) for split in splits.present},
        dev_share=job.config.data.dev_share,
    )
    return record


def _go(
    job: Job,
    *,
    splits: Splits,
    checkpoint: Checkpoint,
    choices: Choices,
    record: Recording,
    progress: Progress,
    resume: Path | None,
    whole: Callable[[], AbstractContextManager[Any]],
    crew: Crew | None,
) -> None:
    """Take the experiment from checked rows to scored predictions.

    Args:
        resume: checkpoint of this run to go on from.
        whole: keeps a signal from cutting a block in two.
        crew: of the processes that help to train.
    """
    from dialsum.train.loop import Loop, Places
    from dialsum.train.task import DevSet, SummaryTask

    config, paths, asked, machine = job.config, job.paths, job.config.training, choices.machine
    present = splits.present

    counts = ", ".join(f"{len(split.rows):,} {split.kind}" for split in present)
    folders = dict.fromkeys(shown(split.path.parent) for split in present)
    progress.stage("data", f"{counts} rows from {', '.join(folders)}")
    for line in (*splits.notes, *choices.lines):
        print(f"  {line}")

    progress.stage("model", config.model.checkpoint)
    tags = dialogue_tokens(config.tokenizer, splits.train.rows)
    device = choices.where.torch_name
    if crew is not None:
        crew.start(SameModel(config, checkpoint.folder, tags, device, choices.dtype, machine))
    tokens = prepare_tokenizer(checkpoint, config, tags=tags)
    tokenizer = tokens.tokenizer
    trip = check_round_trip(tokenizer, [*splits.train.summaries, *splits.dev.summaries])
    for warning in trip.judge(checkpoint.folder):
        progress.warn(warning)
    record.add(
        "model",
        tokens_added=len(tokens.new_tokens),
        vocabulary=len(tokenizer),
        summaries_not_kept=len(trip.failed),
        summaries_with_unknown_pieces=trip.with_unknown,
        unknown_target_tokens=trip.unknown_tokens,
    )
    adapted = prepare_model(
        checkpoint,
        config,
        tokens,
        device=device,
        dtype=choices.dtype,
        gradient_checkpointing=machine.gradient_checkpointing,
    )
    model, loader, weights = adapted.model, adapted.loader, checkpoint.weights
    total, trainable = adapted.count_parameters()
    other = ""
    if loader["used"] != loader["requested"]:
        other = f", not {loader['requested']}: {loader['why']}"
    print(f"  {total:,} parameters, {trainable:,} learn ({100 * trainable / total:.1f} %)")
    print(f"  {loader['used']}{other}")
    for note in adapted.notes:
        print(f"  {note}")
    if weights != "safetensors":
        print(f"  {checkpoint.folder} has no safetensors; {weights} was read, weights only")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        end = tokenizer.eos_token
        print(f"  the tokenizer names no token for padding: its end {end} fills up, and is masked")
    record.add(
        "model",
        checkpoint=config.model.checkpoint,
        architecture=config.model.architecture,
        parameters_total=total,
        parameters_trainable=trainable,
        loader=loader,
        weights=weights,
        tied_head=model.config.tie_word_embeddings,
        lora_targets=adapted.targets or None,
        revision=config.model.revision,
    )

    longest, longest_target = config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len
    progress.stage("encode", f"at most {longest} input and {longest_target} target tokens")
    rows_of_splits = {str(split.kind): split.rows for split in present}
    alone = get_family(config.model.architecture).decoder_only
    frame = make_frame(config, tokenizer, subject_of=find_subject(rows_of_splits, config.prompt))
    if alone:
        print(f"  each row reads: {frame.show()}")
        print(f"  a summary ends with {tokenizer.eos_token}; {describe_loss(asked)}")
        record.add(
            "data", prompt=frame.show(), subject_of=frame.subject_of, end=tokenizer.eos_token
        )
    encoded, warnings = encode_splits(
        rows_of_splits,
        tokenizer,
        config.tokenizer,
        frame=frame,
        folder=None if config.data.cache_dir is None else project_path(config.data.cache_dir),
    )
    for kind, rows in encoded.items():
        print(f"  {kind}: {rows.describe()}")
    cut = [said for kind, rows in encoded.items() for said in rows.list_cut_targets(kind)]
    for warning in (*warnings, *cut):
        progress.warn(warning)
    record.add("data", encoded={kind: rows.to_record() for kind, rows in encoded.items()})

    shape = BatchShape(
        batch_size=choices.batch_size,
        accumulation=choices.accumulation,
        max_input=longest,
        max_target=longest_target,
    )
    progress.stage(
        "train",
        f"{shape.batch_size} x {shape.accumulation} rows a step, learning rate "
        f"{asked.learning_rate:g}, {asked.lr_scheduler_type}",
    )
    task = SummaryTask(
        encoded["train"],
        names=name_rows(splits.train.rows),
        sha256=splits.train.sha256,
        shape=shape,
        seed=asked.seed,
        pad_token_id=int(tokenizer.pad_token_id),
        by_length=asked.train_sampling_strategy == "token_budget",
        label_smoothing=asked.label_smoothing_factor,
        rdrop_alpha=asked.rdrop_alpha,
        multiple=1 if machine.device.type == "cpu" else 8,
        joined=alone,
        prompt_loss_weight=asked.prompt_loss_weight,
        packing=asked.packing,
    )
    if task.packing:
        leak = task.measure_leak(model, machine)
        if leak > MOST_LEAK:
            raise RunError(
                f"training.packing: rows that share a sequence see each other: the loss of one "
                f"differs by {leak:.2f} from its loss alone. This model's attention does not keep "
                "them apart on this machine; set training.packing: false (rows of like length then "
                "go together, with 2 to 3 % padding)"
            )
        print(f"  packed rows do not see each other: a row's loss differs by {leak:.1e}")
    record.add(
        "training",
        per_device_train_batch_size=shape.batch_size,
        gradient_accumulation_steps=shape.accumulation,
        effective_batch_size=shape.rows_per_step,
        learning_rate=asked.learning_rate,
        packing=asked.packing if alone else None,
        seed=asked.seed,
        device=choices.record,
        padding_share=task.padding_share(),
    )
    budget = config.batch.disk_budget_gb
    dev_rows = splits.dev.rows[: config.evaluation.training_max_rows]
    references = [[summary] for summary in splits.dev.summaries[: len(dev_rows)]]
    measured = {"rows": len(dev_rows), "num_beams": config.evaluation.training_num_beams}
    settings = GenerationSettings.from_config(
        config, exempt=tokenizer.convert_tokens_to_ids(tokens.tags), bf16=choices.bf16
    )
    if scripts := settings.allowed_scripts:
        writable = find_writable(tokenizer, decoder_only=alone, scripts=scripts)
        print(
            f"  only {', '.join(scripts)}: {len(writable.never):,} of {writable.rows:,} pieces are "
            "never written"
        )

    def tell_full(rows: int, words: str) -> None:
        said = say_full(rows, words)
        progress.event("memory_retry", step=progress.step or 0, rows=rows, message=said)
        progress.warn(said)

    write: Callable[..., list[str]] = generate
    if crew is not None:
        crew.meet(model, machine)
        write = crew.write
    loop = Loop(
        model,
        task,
        measured=measured,
        dev=DevSet(
            replace(
                task,
                encoded=encoded["dev"].first(len(dev_rows)),
                names=name_rows(dev_rows),
                label_smoothing=0.0,
                rdrop_alpha=0.0,
                multiple=1,
                prompt_loss_weight=0.0,
                packing=False,
            ),
            tokenizer=tokenizer,
            scorer=partial(
                score_means, references=references, tokenizer=config.evaluation.tokenizer
            ),
            settings=settings.by_beams(measured["num_beams"]),
            batch_size=choices.eval_batch_size(measured["num_beams"]),
            write=write,
            on_full=tell_full,
        ),
        tokenizer=tokenizer,
        asked=asked,
        machine=machine,
        places=Places(
            checkpoints=paths.checkpoints,
            nan_report=paths.nan_report,
            config_sha256=job.loaded.outcome_sha256,
            resume=resume,
            stop=paths.stop_request,
            room=Room(
                Path(os.path.commonpath([paths.folder, paths.model])),
                None if budget is None else int(budget * 10**9),
            ),
        ),
        progress=progress,
        whole=whole,
        crew=crew,
    )
    result = loop.run()
    if reading := loop.measure_reading():
        record.add("evaluation", reading={**reading, "rows": len(dev_rows)})
    learned = encoded["train"]
    products = find_products(model.named_modules(), decoder_only=alone)
    attention = measure_attention(checkpoint.own, family=get_family(config.model.architecture))
    flops = result.epochs * count_flops(
        products, attention=attention, inputs=learned.input_lengths, targets=learned.target_lengths
    )
    bound = find_bound(
        config,
        products,
        attention=attention,
        encoded=encoded,
        training_flops=flops,
        steps=result.steps,
        batch=choices.eval_batch_size(settings.num_beams),
        card=choices.where.name,
        product=name_product(machine.precision, tf32=machine.tf32),
    )
    if bound is not None:
        record.add("time", least=asdict(bound))
    peak = {"rss": peak_resident_bytes() or None, "forecast": recall_training(config)}
    if machine.device.type == "cuda":
        import torch

        peak["device"] = torch.cuda.max_memory_reserved(machine.device.index)
        peak["tensors"] = torch.cuda.max_memory_allocated(machine.device.index)
    record.add(
        "training",
        steps=result.steps,
        epochs=round(result.epochs, 3),
        best_step=result.best_step,
        best_metric={"name": asked.metric_for_best_model, "value": result.best_metric, **measured},
        stopped_early=result.stopped_early,
        seconds=round(result.seconds, 2),
        tokens_per_second=round(result.tokens_per_second, 1),
        model_flops=flops,
        peak_memory_bytes=peak,
        card=progress.describe_card(),
        nan_events=progress.nan_events,
        memory_retries=result.memory_retries,
        max_grad_norm=progress.max_grad_norm,
        rows_left_out=result.left_out or None,
        stop_reason=result.stop_reason or None,
        remarks=progress.remarks,
    )
    beat(SAVING)
    info = save_model(
        model,
        tokenizer,
        paths=paths,
        loaded=job.loaded,
        best_step=result.best_step,
        new_tokens=tokens.new_tokens,
        tags=tokens.tags,
        dtype=choices.dtype,
        frame=frame if alone else None,
    )

    def predict(kind: str) -> list[str]:
        on: dict[str, Any] = {"rows": len(encoded[kind]), **describe_writing(config)}
        text = f"{kind} summaries ({describe_measured(**on)})"
        progress.stage("generate", text, split=kind, **on)
        return write(
            model,
            tokenizer,
            encoded[kind].inputs,
            settings=settings,
            batch_size=choices.eval_batch_size(settings.num_beams),
            on_batch=progress.count_written,
            on_full=tell_full,
        )

    predictions = predict("dev")
    write_predictions(paths.predictions_dev, splits.dev.rows, predictions)
    progress.stage("score", f"{len(predictions)} dev summaries")
    evaluation = evaluate_dev(
        config, dev=splits.dev.rows, train=splits.train.rows, predictions=predictions
    )
    record.add("evaluation", **evaluation)
    print(f"  {format_final(evaluation['dev'])}")
    print(f"  {evaluation['dev']['distinct_share']:.0f} % of the summaries are distinct")
    if reading:
        print(f"  {describe_reading(reading)}")
    if splits.test is not None:
        summaries, filled = fill_empty(predict("test"), splits.test.rows)
        if filled:
            progress.warn(
                f"{filled} test summaries came out empty; each holds its dialogue's first utterance"
            )
        write_submission(paths.submission, splits.test.rows, summaries)
        known = {
            tag for row in splits.train.rows for tag in loose_tags(f"{row.dialogue}\n{row.summary}")
        }
        dialogues = {row.fname: row.dialogue for row in splits.test.rows}
        written = dict(zip(dialogues, map(one_line, summaries), strict=True))
        remarks = remark_on_summaries(written, dialogues, known=known)
        for remark in (*remarks.faults, *remarks.oddities):
            progress.warn(f"submission: {remark}")
        record.add("submission", rows=len(summaries), filled_empty=filled)
    counts_of = {kind: len(rows) for kind, rows in rows_of_splits.items()}
    write_model_card(paths.model, info, data=counts_of, dev=evaluation["dev"])
    progress.stage("done", "all stages")


def describe_writing(config: Config) -> dict[str, Any]:
    """Return what the record says of how summaries were written."""
    asked = config.generation
    drawn = {} if asked.mbr_temperature is None else {"mbr_temperature": asked.mbr_temperature}
    return {"num_beams": asked.num_beams, **drawn}


def describe_loss(asked: Training) -> str:
    """Say of a decoder alone what it learns of each row, and how rows come together."""
    weight = asked.prompt_loss_weight
    learned = "all is learned" if weight == 1 else "the summary alone is learned"
    if 0 < weight < 1:
        learned = f"the summary is learned, and the prompt, whose tokens count {weight:g}"
    return f"{learned}, rows packed into full sequences" if asked.packing else learned


def evaluate_dev(
    config: Config,
    *,
    dev: Sequence[Dialogue],
    train: Sequence[Dialogue],
    predictions: Sequence[str],
) -> dict[str, Any]:
    """Score dev predictions on all scales, with floors and confidence, and against the targets.

    Returns:
        The `evaluation` block of result.json: `dev`, and `target`, which says of what was expected,
        wanted and hoped for whether it was met, where there is a target and scores on its scale.
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
    block |= describe_writing(config)
    evaluation, target = {"dev": block}, config.evaluation.target
    own = target.tokenizer == config.evaluation.tokenizer
    scores = block if own else block.get(target.tokenizer)
    if scores is None or not (target.rouge1 or target.minimum or target.ideal):
        return evaluation
    record = {key: scores[key] for key in ("signature", "rouge1", "rouge2", "rougeL")}
    record = {"tokenizer": target.tokenizer, **record}
    if target.rouge1:
        met = scores["rouge1"] >= target.rouge1[0]
        record["expected"] = {"rouge1": target.rouge1, "met": met}
    for name in ("minimum", "ideal"):
        wanted: dict[Any, float] = getattr(target, name)
        if wanted:
            met = all(scores[key] >= least for key, least in wanted.items())
            record[name] = {**wanted, "met": met}
    return {**evaluation, "target": record}

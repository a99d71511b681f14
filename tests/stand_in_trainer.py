"""A process that keeps trainer.py's contract with the runner, without training anything.

Started by the tests of the queue in place of code/trainer.py. What it does is the experiment's name
up to its first `_`: ok, numpy, fail, unfit, crash, silent, hang, stubborn, early (dies before it
touches its folder), late (crashes after its record), fill (fills the disk to the last byte), nan_2
and memory_2 (fail for that reason in the first two attempts), nanhang and nancrash
(meet NaN first, then hang or crash), untracked (finds no W&B; its log says what it was told of it),
meet (waits for another of its sort to run at the same time), slow (takes a second more),
sleep_S_N (takes S seconds more), count_N (takes N steps of a hundredth of a second with a
checkpoint after every second one, and goes on from there when asked to; its score tells of every
step), mute (gives no sign of life after its first step), lost (fails because its card is lost),
full (finds the disk full, but not the second time).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.batch.lock import hold_run
from dialsum.errors import DiskFullError, run_script
from dialsum.experiment.job import Job, read_job
from dialsum.experiment.recording import describe_environment
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.files import append_json_line, dump_json, write_json, write_text
from dialsum.lifeline import STEP, beat, watch_parent
from dialsum.paths import RunPaths
from dialsum.record import archive_previous
from dialsum.train.checkpoints import TENSORS, prune, seal_checkpoint

LONG_SECONDS = 600


def scores(mean: float) -> dict[str, Any]:
    """Return a block of scores as a record has it."""
    three = {"rouge1": mean + 5, "rouge2": mean - 5, "rougeL": mean}
    return {**three, "rougeLsum": mean, "rouge_mean": mean, "rouge_sum": 3 * mean}


def evaluation(mean: float) -> dict[str, Any]:
    """Return the `evaluation` part of a record."""

    def block(tokenizer: str, tags: str, points: float) -> dict[str, Any]:
        floor = {"text": "두 사람이 이야기한다.", **scores(10.0)}
        interval = {"level_percent": 95, "rouge_mean": [points - 1, points + 1]}
        return {
            **scores(points),
            "rows": 2,
            "signature": f"rouge|tok:{tokenizer}|tags:{tags}|refs:1",
            "confidence": interval,
            "floors": {"constant": floor, "lead2": scores(8.0)},
        }

    dev = block("mecab-ko", "split", mean)
    dev["tags_one"] = block("mecab-ko", "one", mean - 2)
    dev["whitespace"] = block("whitespace", "split", mean - 10)
    dev |= {"foreign_script_rate": 0.0, "num_beams": 4}
    whitespace = dev["whitespace"]["rouge1"]
    target = {
        "tokenizer": "whitespace",
        "expected": {"rouge1": [15, 18], "met": whitespace >= 15},
        "minimum": {"rouge1": 25, "rouge2": 8, "rougeL": 22, "met": whitespace >= 25},
    }
    return {"dev": dev, "target": target}


def parse() -> Job:
    """Read the job that the runner hands over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    return replace(read_job(asked.job), resume=asked.resume)


def main() -> int:
    """Behave as the experiment's name says."""
    watch_parent()
    asked = parse()
    act = asked.loaded.name.split("_")[0]
    print(f"stand-in for {asked.loaded.name}", flush=True)
    if act == "early":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "unfit":
        print("error: 1 problem found; nothing was started:\n  the checkpoint is no checkpoint")
        return 2
    paths = asked.paths
    with hold_run(paths):
        started = datetime.now().astimezone()
        environment = describe_environment(started=started, paths=paths, seed=1, devices=[])
        first = {paths.environment: dump_json(environment)}
        point = find_point(asked) if asked.resume else None
        if point is not None:
            reopen_run(paths, point, first={paths.job: asked.to_json(), **first})
        else:
            archive_previous(paths, first={paths.job: asked.to_json(), **first})
        return behave(act, paths, asked, started)


def behave(act: str, paths: RunPaths, asked: Job, started: datetime) -> int:
    """Write events and a record, or do not."""
    event(paths, event="stage", stage="train")
    event(paths, event="train", step=1, total_steps=2, epoch=0.5, loss=3.5)
    measured = {"rows": 2, "num_beams": 1}
    event(paths, event="eval", step=2, total_steps=2, best=True, **measured, **scores(20.0))
    for split in ("dev", "test"):
        event(paths, event="stage", stage="generate", split=split, rows=2, num_beams=4)
    if act in ("nanhang", "nancrash"):
        act = "nan" if asked.attempt.number == 1 else act.removeprefix("nan")
    elif act in ("nan", "memory") and asked.attempt.number > int(asked.loaded.name.split("_")[1]):
        act = "ok"
    if act in ("nan", "memory"):
        fail_in_training(act, paths, asked, started)
        return 1
    if act in ("hang", "stubborn"):
        hang(act, paths, asked, started)
        return 130
    if act == "crash":
        # Without the core file that the system would write of this very big process.
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "silent":
        return 0
    if act == "meet":
        meet(paths)
    if act == "unrecorded":
        raise DiskFullError(paths.result)
    if act == "mute":
        beat(STEP)
        time.sleep(LONG_SECONDS)
    if act == "lost":
        failure = {"cause": "device", "stage": "train", "step": 3}
        reason = "CUDA error: unspecified launch failure"
        record(paths, asked, started, status="failed", reason=reason, failure=failure)
        return 1
    if act == "full" and not paths.previous.is_dir():
        failure = {"cause": "disk_full", "stage": "train", "step": 3}
        record(paths, asked, started, status="failed", reason="no space", failure=failure)
        return 1
    if act == "count":
        name = asked.loaded.name
        points = float(count(asked, total=int(name.split("_")[1])))
        parts = {"evaluation": evaluation(points), "training": {"steps": int(name.split("_")[1])}}
        record(paths, asked, started, status="success", **parts)
        return 0
    if act == "slow":
        time.sleep(1)
    if act == "sleep":
        time.sleep(float(asked.loaded.name.split("_")[1]))
    if act == "fill":
        fill_disk(paths.folder)
    if act == "fail":
        record(paths, asked, started, status="failed", reason="the loss became NaN at step 2")
        return 1
    write_text(paths.model / "model_info.json", "{}\n")
    write_text(paths.submission, ",fname,summary\n0,t_0,요약\n")
    points = float(asked.loaded.name.split("_")[-1]) if "_" in asked.loaded.name else 20.0
    parts: dict[str, Any] = {"evaluation": evaluation(points)}
    if act == "numpy":
        import numpy as np

        parts["training"] = {"max_grad_norm": np.float32(1.5), "steps": np.int64(2)}
    else:
        parts["training"] = {"steps": 2, "best_step": 2, "stopped_early": False, "nan_events": 0}
    record(paths, asked, started, status="success", **parts)
    if act == "late":
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def fail_in_training(act: str, paths: RunPaths, asked: Job, started: datetime) -> None:
    """Write what a run leaves that met NaN or full memory at step 7."""
    cause = {"nan": "non_finite", "memory": "out_of_memory"}[act]
    write_json(paths.nan_report, {"schema_version": 1, "attempt": asked.attempt.number})
    write_text(paths.train_log, f"attempt {asked.attempt.number}\n")
    record(
        paths,
        asked,
        started,
        status="failed",
        reason=f"step 7: {cause}",
        failure={"cause": cause, "stage": "train", "step": 7},
        training={
            "steps": 6,
            "nan_events": 4 if act == "nan" else 0,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
        },
    )


def find_point(asked: Job) -> ResumePoint:
    """Return the checkpoint that the run goes on from."""
    return find_resume_point(
        asked.paths,
        config_sha256=asked.loaded.outcome_sha256,
        train_sha256=asked.data_sha256["train"],
    )


def count(asked: Job, *, total: int) -> int:
    """Take every step from the last checkpoint on, and return what all of them add up to."""
    paths, step, points = asked.paths, 0, 0
    if asked.resume:
        checkpoint = find_point(asked).checkpoint
        step, points = map(int, (checkpoint / TENSORS).read_text(encoding="utf-8").split())
    while step < total:
        step += 1
        points = (points * 31 + step) % 97
        time.sleep(0.01)
        event(paths, event="train", step=step, total_steps=total, loss=1.0)
        if step % 2 == 0:
            folder = paths.checkpoints / f"checkpoint-{step}"
            write_text(folder / TENSORS, f"{step} {points}")
            seal_checkpoint(
                folder,
                config_sha256=asked.loaded.outcome_sha256,
                data_sha256=asked.data_sha256["train"],
            )
            prune(paths.checkpoints, keep=folder, limit=2)
    return points


def meet(paths: RunPaths) -> None:
    """Wait until two runs have come here; say how many threads, and which card, each may use."""
    print(f"threads {os.environ.get('OMP_NUM_THREADS')}", flush=True)
    print(f"card {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    write_text(paths.folder.parent.parent / f"met_{paths.folder.name}", "")
    end = time.monotonic() + 30
    while len(list(paths.folder.parent.parent.glob("met_*"))) < 2:
        if time.monotonic() > end:
            sys.exit("error: nobody came")
        time.sleep(0.02)


def fill_disk(folder: Path) -> None:
    """Leave no byte free on the disk of a folder."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue  # full for pieces of this size


def hang(act: str, paths: RunPaths, asked: Job, started: datetime) -> None:
    """Wait for a signal with a process of its own beside it; a stubborn one does not listen."""
    helper = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LONG_SECONDS})"])
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    write_json(paths.folder / "pids.json", {"child": os.getpid(), "helper": helper.pid})
    while not heard or act == "stubborn":
        time.sleep(0.02)
    record(paths, asked, started, status="interrupted", reason="interrupted by a signal")


def event(paths: RunPaths, **values: Any) -> None:
    """Append one event."""
    append_json_line(paths.metrics, {"time": datetime.now().astimezone().isoformat(), **values})


def record(paths: RunPaths, asked: Job, started: datetime, *, status: str, **parts: Any) -> None:
    """Write result.json as a run does, last of all."""
    model = Path(os.path.relpath(paths.model, paths.folder)).as_posix()
    artifacts = {"model": model, "submission": "results/submission.csv"}
    finished = datetime.now().astimezone()
    content = {
        "schema_version": 1,
        "experiment": asked.loaded.name,
        "label": f"L_{asked.loaded.name}",
        "kind": "full",
        "batch": asked.batch,
        "config_sha256": asked.loaded.sha256,
        "status": status,
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": finished.isoformat(timespec="seconds"),
        "duration_seconds": (finished - started).total_seconds(),
        "data": {"rows": {"train": 4, "dev": 2}, "sha256": {"dev": "d" * 64}},
        **parts,
        "artifacts": artifacts if status == "success" else {},
    }
    write_json(paths.result, asked.attempt.add_to(content))


if __name__ == "__main__":
    run_script(lambda _: main())

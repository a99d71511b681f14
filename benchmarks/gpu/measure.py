"""Measures some jobs, one after another, in this process; scripts/gpu_check.sh starts it.

    python benchmarks/gpu/measure.py FOLDER JOB…

FOLDER holds plan.json. Each job leaves FOLDER/results/JOB.json as soon as it is done, whatever
becomes of the process later. Must not know the tables that are made of these.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "code"))

from dialsum.errors import DialsumError, first_line, run_script
from dialsum.files import write_json
from gpu.card import hold_to
from gpu.jobs import EXPERIMENTS, Job, Settings, make_overrides


def measure(job: Job, settings: Settings) -> dict[str, Any]:
    """Train, and evaluate where that is asked for, as a run does; return the figures."""
    from dialsum.config.load import load_config
    from dialsum.experiment.choices import choose
    from dialsum.machine.devices import pick_device
    from dialsum.machine.memory import free_memory
    from gpu.architectures import ensure_checkpoint, read_architecture
    from gpu.training import Bench

    folder = Path(settings.folder)
    picked = pick_device(settings.device)
    if settings.device == "cuda":
        # What an earlier job was held to stays with the process.
        import torch

        torch.cuda.set_per_process_memory_fraction(1.0, picked.value.index)
    where = hold_to(picked.value, settings.cap_gib if job.capped else 0.0)
    checkpoint = ensure_checkpoint(folder / "checkpoints", job.architecture, small=settings.small)
    architecture = read_architecture(job.architecture, small=settings.small)
    if job.group == "decoder":
        from gpu.decoder import measure_decoder

        return measure_decoder(job, settings, architecture, checkpoint=checkpoint, where=where)
    config = load_config(
        EXPERIMENTS / f"{job.experiment}.yaml",
        overrides=make_overrides(job, settings, checkpoint=checkpoint),
    ).config
    bench = Bench(
        job=job,
        settings=settings,
        architecture=architecture,
        config=config,
        choices=choose(config, device=picked._replace(value=where)),
    )
    try:
        return bench.measure()
    finally:
        free_memory()


def explain(error: BaseException) -> str:
    """Return why a job failed, in one line."""
    kind = "" if isinstance(error, DialsumError) else f"{type(error).__name__}: "
    return f"{kind}{first_line(error)}"[:300]


def main(arguments: list[str] | None = None) -> int:
    """Measure the named jobs; a failed one does not keep the next from being measured."""
    folder, *names = sys.argv[1:] if arguments is None else arguments
    plan = json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    settings = Settings(**plan["settings"])
    jobs = {record["name"]: Job.from_record(record) for record in plan["jobs"]}
    if any(jobs[name].way == "Unsloth" for name in names):
        import unsloth  # type: ignore[import-not-found]  # noqa: F401  # patches what comes after
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = 0
    for name in names:
        print(f"== {name}", flush=True)
        try:
            found = {"status": "ok", **measure(jobs[name], settings)}
        except Exception as error:
            # The edge of one measurement: whatever went wrong is its result.
            traceback.print_exc()
            found = {"status": "failed", "reason": explain(error)}
            failed += 1
        write_json(Path(folder) / "results" / f"{name}.json", found)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)  # type: ignore[arg-type]

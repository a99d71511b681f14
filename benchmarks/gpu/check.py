"""One command for a machine with an NVIDIA GPU: does everything run here, how fast, in how much.

    bash scripts/gpu_check.sh

docs/gpu.md says what is measured and how to read it. Only the processes that this one starts load
torch: the card's memory is theirs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "code"))

from dialsum.cli import require_packages

if __name__ == "__main__":
    require_packages(__file__)

from dialsum.cli import CommandLine
from dialsum.errors import EXIT_FAILED, EXIT_OK, UnfitError, run_script
from dialsum.experiment.recording import describe_environment
from dialsum.files import write_json
from dialsum.machine.devices import nvidia_gpus, use_one_gpu
from dialsum.packages import use_environment
from dialsum.paths import RunPaths, shown, timestamp
from gpu.children import environment, run_jobs, run_tests
from gpu.jobs import Libraries, Settings, choose_warm_up, plan_jobs, select_jobs
from gpu.table import describe_results

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PARTS = {
    "tests": "",
    "experiments": "experiment",
    "comparisons": "comparison",
    "decoder": "decoder",
}
"""Parts of the check, and the group of jobs of each."""
NEEDED = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")
TRY_ON_CPU = "bash scripts/gpu_check.sh --device cpu --tiny --steps 4"
RTX_3090_GIB = 23.7
LEAST_CAP_GIB = 2.0


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = CommandLine(
        prog="gpu_check.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu: try the way of the check without a GPU; its figures mean nothing",
    )
    add("--tiny", action="store_true", help="tiny versions of the architectures, short rows")
    add("--steps", type=_count, default=20, help="optimizer steps of each job (default: 20)")
    add("--eval-rows", type=_count, default=16, help="rows to write summaries for (default: 16)")
    add(
        "--cap-gib",
        type=_memory,
        default=RTX_3090_GIB,
        metavar="GIB",
        help="memory that the experiments are held to (default: an RTX 3090's); 0: all there is",
    )
    add("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    add(
        "--per-process",
        type=_count,
        default=1,
        metavar="N",
        help="jobs that share a process (default: 1, so that each has the card for itself)",
    )
    add("--minutes", type=float, default=15.0, help="longest time of a job (default: 15)")
    add(
        "--output-dir",
        type=Path,
        default=REPOSITORY / "outputs" / "gpu_check",
        metavar="DIR",
        help="where record and logs go (default: outputs/gpu_check)",
    )
    add(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where 5 GB of checkpoints are kept meanwhile (default: the temporary folder)",
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count of at least 1")
    return number


def _memory(text: str) -> float:
    size = float(text)
    if size and not LEAST_CAP_GIB <= size < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor at least {LEAST_CAP_GIB:g} GiB")
    return size


def read_parts(text: str) -> list[str]:
    """Return the parts that are named, in the order in which they are run.

    Raises:
        UnfitError: one that there is not.
    """
    named = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in named if part not in PARTS]
    if unknown or not named:
        raise UnfitError(f"--parts {text}: there are {', '.join(PARTS)}")
    return [part for part in PARTS if part in named]


def require_machine(device: str) -> None:
    """Refuse an interpreter or a machine on which nothing can be measured.

    Raises:
        UnfitError: with what is missing and how to go on.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UnfitError(
            f"{sys.executable} has no {', '.join(missing)}; install requirements.txt for it, or "
            "name another with --python"
        )
    if device == "cuda" and not nvidia_gpus():
        raise UnfitError(
            "there is no NVIDIA GPU that the driver shows, and nothing was measured. Start this "
            f"on a machine that has one, or try the way of the check here: {TRY_ON_CPU}"
        )


def show_machine(device: str) -> None:
    """Print what there is, by a process of its own, which gives its GPU memory back.

    Raises:
        UnfitError: torch cannot use the card; its reason has been printed.
    """
    script = REPOSITORY / "code" / "utils" / "device_utils.py"
    done = subprocess.run([sys.executable, str(script), "--device", device], env=environment())
    if done.returncode:
        raise UnfitError(f"torch cannot use {device} here (see above), and nothing was measured")


def list_absent(libraries: Libraries) -> list[str]:
    """Say what is left out because a library is absent."""
    lines = []
    if not libraries.bitsandbytes:
        lines.append(
            "bitsandbytes is not installed: nothing runs on 4 bits; LoRA on a base in "
            "bf16 takes its place"
        )
    if not libraries.unsloth:
        lines.append("unsloth is not installed: PEFT alone is measured on the decoder-only model")
    return lines


def measure(options: argparse.Namespace, record: dict[str, Any], *, logs: Path) -> None:
    """Run tests and jobs; put what each came to into the record as soon as it is known."""
    parts, libraries = read_parts(options.parts), Libraries.find()
    for line in list_absent(libraries):
        print(line, flush=True)
    if "tests" in parts:
        print("tests marked gpu", flush=True)
        record["tests"] = run_tests(logs=logs, minutes=options.minutes)
        print(f"  {describe_tests(record['tests'])}", flush=True)
    if options.work_dir is not None:
        options.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_check_", dir=options.work_dir) as work:
        folder = str(Path(work).resolve())
        settings = Settings(
            device=options.device,
            steps=options.steps,
            warm_up=choose_warm_up(options.steps),
            eval_rows=options.eval_rows,
            small=options.tiny,
            cap_gib=options.cap_gib,
            folder=folder,
        )
        record["settings"] = asdict(settings) | {"folder": None}
        jobs = select_jobs(
            plan_jobs(libraries, device=options.device), [PARTS[part] for part in parts]
        )
        for found in run_jobs(
            jobs,
            settings,
            logs=logs,
            per_process=options.per_process,
            minutes=options.minutes,
            say=lambda text: print(text, flush=True),
        ):
            record["results"].append(found)
            if found["status"] != "ok":
                print(f"  {found['label']}: {found['status']}: {found['reason']}", flush=True)


def describe_tests(found: dict[str, Any]) -> str:
    """Say in one line what the tests came to."""
    if "tests" not in found:
        return f"{found['status']}: {found['reason']}"
    passed = found["tests"] - found["skipped"] - found["failures"] - found["errors"]
    reason = f" ({found['reason']})" if "reason" in found else ""
    return f"{found['status']}: {passed} passed, {found['skipped']} skipped{reason}"


def find_status(record: dict[str, Any]) -> int:
    """Return the exit status: failed where anything that could run did not end well."""
    all_found = [record.get("tests", {}), *record["results"]]
    failed = any(found.get("status") == "failed" for found in all_found)
    return EXIT_FAILED if failed else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this machine and return the exit status."""
    options = make_parser().parse_args(arguments)
    read_parts(options.parts)
    require_machine(options.device)
    if options.device == "cuda" and (card := use_one_gpu()) is not None:
        print(f"CUDA_VISIBLE_DEVICES={card.value} ({card.why})")
    with use_environment():
        show_machine(options.device)
        return check(options)


def check(options: argparse.Namespace) -> int:
    """Measure, print the tables, write the record, and return the exit status."""
    started = datetime.now().astimezone()
    stem = f"gpu_check_{timestamp(started)}"
    path = options.output_dir / f"{stem}.json"
    record: dict[str, Any] = describe_environment(
        started=started, paths=RunPaths.alone(options.output_dir), seed=42, devices=[]
    )
    del record["model"]  # of a run; the check leaves none
    record |= {
        "gpus": [asdict(gpu) for gpu in nvidia_gpus()],
        "libraries": asdict(Libraries.find()),
        "results": [],
        "interrupted": True,
    }
    try:
        measure(options, record, logs=options.output_dir / stem)
        record["interrupted"] = False
    finally:
        # What was measured before Ctrl-C is kept, too.
        record["exit_status"] = find_status(record)
        write_json(path, record)
        for line in describe_results(record["results"]):
            print(line)
        if options.tiny or options.device == "cpu":
            print("\nthis was a trial of the way: its figures say nothing of a GPU")
        print(f"\nrecord: {shown(path)}; what each process printed: {shown(path.with_suffix(''))}")
    return int(record["exit_status"])


if __name__ == "__main__":
    run_script(main)

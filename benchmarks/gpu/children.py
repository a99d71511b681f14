"""Runs jobs in processes of their own, so that one that fails or dies does not end the rest.

Must not know what a job computes; no torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dialsum.files import write_json
from gpu.jobs import Job, Settings

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MEASURE = Path(__file__).resolve().parent / "measure.py"
NONE_COLLECTED = 5
"""pytest's exit status where no test was selected."""


def environment() -> dict[str, str]:
    """Return this process's environment, offline: a check asks for nothing that is not here."""
    # An interpreter of the user's may not have the project installed.
    places = [str(REPOSITORY / "code"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
    }


def run_jobs(
    jobs: Sequence[Job],
    settings: Settings,
    *,
    logs: Path,
    per_process: int,
    minutes: float,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Give the record of each job as soon as its process has ended; first of those not run.

    Args:
        logs: folder of what the processes print.
        per_process: jobs that share a process, one after another.
        minutes: longest time of a job.
        say: told before each process starts.
    """
    folder = Path(settings.folder).resolve()
    to_run = [job for job in jobs if not job.why_not]
    write_json(
        folder / "plan.json",
        {"settings": vars(settings), "jobs": [job.to_record() for job in to_run]},
    )
    logs.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        if job.why_not:
            yield _record(job, {"status": "not run", "reason": job.why_not})
    for start in range(0, len(to_run), per_process):
        group = to_run[start : start + per_process]
        say(f"[{start + 1}/{len(to_run)}] {', '.join(job.label for job in group)}")
        log = logs / f"{group[0].name}.log"
        ending = _run_process(
            [str(MEASURE), str(folder), *(job.name for job in group)],
            log=log,
            place=folder,
            seconds=60 * minutes * len(group),
        )
        for job in group:
            yield _record(job, _read_result(folder, job, ending=ending, log=log))


def _record(job: Job, found: dict[str, Any]) -> dict[str, Any]:
    own = job.to_record()
    return {key: own[key] for key in ("name", "label", "group", "architecture", "way")} | found


def _run_process(words: Sequence[str], *, log: Path, place: Path, seconds: float) -> str:
    """Run Python to its end, its output into a file, and say how it ended.

    Args:
        place: its working folder; Unsloth leaves files there.
    """
    with log.open("wb") as file:
        try:
            done = subprocess.run(
                [sys.executable, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(),
                cwd=place,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return f"it was stopped after {seconds / 60:.0f} minutes"
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}"
    return f"its process ended with status {done.returncode}"


def _read_result(folder: Path, job: Job, *, ending: str, log: Path) -> dict[str, Any]:
    path = folder / "results" / f"{job.name}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if found["status"] == "ok" else found | {"log": log.name}
    return {"status": "failed", "reason": f"no result: {ending}; see {log.name}", "log": log.name}


def run_tests(*, logs: Path, minutes: float) -> dict[str, Any]:
    """Run the tests marked gpu; return their status with how many passed, failed, skipped."""
    import importlib.util

    if importlib.util.find_spec("pytest") is None:
        return {"status": "not run", "reason": "pytest is not installed"}
    logs.mkdir(parents=True, exist_ok=True)
    report = logs.resolve() / "tests.xml"
    files = [
        str(path)
        for path in sorted((REPOSITORY / "tests").glob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    ending = _run_process(
        [
            "-m",
            "pytest",
            "-m",
            "gpu",
            "--rootdir",
            str(REPOSITORY),
            f"--junitxml={report}",
            "-rs",
            *files,
        ],
        log=logs / "tests.log",
        place=REPOSITORY,
        seconds=60 * minutes,
    )
    return read_test_report(report, ending=ending)


def read_test_report(report: Path, *, ending: str) -> dict[str, Any]:
    """Return what pytest's XML report says.

    Args:
        ending: how its process ended, for where there is no report.
    """
    if not report.is_file():
        return {"status": "failed", "reason": f"no report: {ending}; see tests.log"}
    suite = xml.parse(report).getroot().find("testsuite")
    told = {} if suite is None else suite.attrib
    counts = {name: int(told.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    ran = counts["tests"] - counts["skipped"]
    if bad:
        return counts | {
            "status": "failed",
            "reason": f"{bad} of {counts['tests']} tests failed; see tests.log",
        }
    if not ran:
        return counts | {
            "status": "not run",
            "reason": f"all {counts['tests']} were skipped; see tests.log",
        }
    return counts | {"status": "ok"}

"""Batches that are killed again and again, at random moments: what is lost, what is left behind.

    python tests/faults.py --rounds 20             three experiments that train for real
    python tests/faults.py --rounds 1000 --pretend stand-ins that only pretend to train

Each round starts a batch of three, kills its runner, the experiment's process or both with SIGKILL
at a moment drawn from the seed, goes on with --resume (which is killed again in every third round)
and compares: the table is that of a batch that nobody disturbed, nothing that was finished ran
again, exit statuses are true, no process and no temporary file is left. Ends with 0 where nothing
was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "code")]

from batch_world import make_options  # noqa: E402
from dialsum.batch.ledger import OPTIONS, read_batches  # noqa: E402
from dialsum.cli import BatchOptions  # noqa: E402
from dialsum.paths import LOCK, BatchPaths  # noqa: E402
from dialsum.record import find_records  # noqa: E402
from trainer_runs import EXPERIMENTS, FEW  # noqa: E402

REAL = ("01_mt5_xlsum_optimized_v2", "02_eenzeenee_t5_rtx3090", "01_baseline_kobart_rtx3090")
VICTIMS = ("runner", "child", "both")
PROGRAM = """
import sys
sys.path[:0] = {paths!r}
from dialsum.batch.ledger import OPTIONS
from dialsum.batch.start import run_batch
from dialsum.errors import run_script
from batch_world import start
asked = OPTIONS.validate_json(sys.argv[2])
run_script(lambda _: start(asked) if sys.argv[1] == "pretend" else run_batch(asked))
"""


@dataclass
class Tally:
    """What came of all rounds."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def run(options: BatchOptions, *, pretend: bool, log: Path) -> subprocess.Popen[bytes]:
    """Start a batch in a process of its own."""
    program = PROGRAM.format(paths=[str(HERE), str(HERE.parent / "code")])
    kind = "pretend" if pretend else "real"
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, kind, OPTIONS.dump_json(options).decode()],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def read_table(paths: BatchPaths) -> dict[str, Any]:
    """Return what each experiment's run scored, in full."""
    return {
        one.path.parent.name: one.value("evaluation.dev.rouge_mean")
        for one in find_records(paths.runs)[0]
        if one.succeeded
    }


def read_finished(paths: BatchPaths) -> dict[str, str]:
    """Return the records of what is finished."""
    if not paths.runs.is_dir():
        return {}
    return {
        one.path.parent.name: json.dumps(one.content, sort_keys=True)
        for one in find_records(paths.runs)[0]
        if one.succeeded
    }


def find_children(folder: Path) -> list[int]:
    """Return the processes whose command names a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue  # no process, or gone
        if process.name.isdigit() and str(folder).encode() in words and b"--job" in words:
            found.append(int(process.name))
    return found


def kill(victim: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the runner of a batch, its experiments' processes, or both."""
    children = find_children(folder)
    if victim != "child":
        process.kill()
    if victim != "runner":
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended in this moment
    if victim != "child":
        process.wait()


def wait_for_silence(folder: Path, *, seconds: float = 20.0) -> bool:
    """Wait until no process of a batch is left; return whether that came."""
    end = time.monotonic() + seconds
    while find_children(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def play(
    folder: Path,
    options: BatchOptions,
    whole: dict[str, Any],
    tally: Tally,
    *,
    pretend: bool,
    chance: random.Random,
    seconds: float,
) -> None:
    """Play one round."""
    assert options.output_dir is not None
    kind = "demo" if options.demo else "auto_experiments"
    paths = BatchPaths(options.output_dir / kind, options.output_dir / "logs")
    log, name = folder / "screen.log", f"round {tally.rounds}"
    asked, finished = options, dict[str, str]()
    for _ in range(2 if tally.rounds % 3 == 0 else 1):
        victim = chance.choice(VICTIMS)
        process = run(asked, pretend=pretend, log=log)
        time.sleep(chance.uniform(0.0, seconds))
        kill(victim, process, folder)
        tally.kills[victim] += 1
        if victim == "child":
            process.wait()
        if not wait_for_silence(folder):
            tally.faults.append(f"{name}: a process was left after killing {victim}")
        finished = read_finished(paths)
        if read_batches(paths.ledger):
            asked = replace(options, resume=True)
    status = 0
    for _ in range(3):
        # A child that was killed is a failed experiment of a batch that went on.
        process = run(asked, pretend=pretend, log=log)
        status = process.wait()
        batches = read_batches(paths.ledger)
        if batches and batches[0].status == "success":
            break
        asked = replace(options, resume=bool(batches))
    done = bool(batches) and batches[0].status == "success"
    if not (status == 0 or (status == 2 and done)) or not done:
        tally.faults.append(f"{name}: ended with {status}, see {log}")
    if read_table(paths) != whole:
        tally.faults.append(f"{name}: {read_table(paths)} in place of {whole}")
    after = read_finished(paths)
    again = [one for one, content in finished.items() if after.get(one) != content]
    if again:
        tally.faults.append(f"{name}: {', '.join(again)} ran again though finished")
    left = [
        path
        for path in folder.rglob("*")
        if path.name.endswith((".tmp", ".draft")) or path.name in (LOCK, "batches.sqlite3-wal")
    ]
    if left:
        tally.faults.append(f"{name}: left {', '.join(path.name for path in left)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the rounds and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pretend", action="store_true", help="stand-ins in place of training")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    chance, tally = random.Random(asked.seed), Tally()
    with tempfile.TemporaryDirectory(prefix="dialsum-faults-") as name:
        top = Path(name)

        def make(folder: Path) -> BatchOptions:
            if asked.pretend:
                return make_options(folder, "count_20", "count_24", "count_16")
            return BatchOptions(
                tuple(EXPERIMENTS / f"{name}.yaml" for name in REAL),
                demo=True,
                output_dir=folder / "out",
                overrides=FEW,
            )

        folder = top / "whole"
        folder.mkdir()
        options, began = make(folder), time.monotonic()
        status = run(options, pretend=asked.pretend, log=folder / "screen.log").wait()
        seconds = time.monotonic() - began
        assert options.output_dir is not None
        kind = "demo" if options.demo else "auto_experiments"
        whole = read_table(BatchPaths(options.output_dir / kind, options.output_dir))
        if status or len(whole) != 3:
            print((folder / "screen.log").read_text(encoding="utf-8"))
            return 1
        print(f"undisturbed: {seconds:.1f} s, {whole}", flush=True)
        for number in range(1, asked.rounds + 1):
            folder, tally.rounds = top / f"round_{number}", number
            folder.mkdir()
            before = len(tally.faults)
            play(
                folder,
                make(folder),
                whole,
                tally,
                pretend=asked.pretend,
                chance=chance,
                seconds=seconds,
            )
            if len(tally.faults) > before:
                print("\n".join(tally.faults[before:]), flush=True)
                print((folder / "screen.log").read_text(encoding="utf-8")[-3000:], flush=True)
            shutil.rmtree(folder)
    kills = ", ".join(f"{count} x {victim}" for victim, count in sorted(tally.kills.items()))
    print(f"{tally.rounds} rounds, killed {kills}: {len(tally.faults)} faults")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())

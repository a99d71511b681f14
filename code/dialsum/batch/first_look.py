"""What has to be there before anything is installed or started: data, a GPU, a fitting driver.

Standard library only: it runs under any Python >= 3.11 on a fresh clone, so that a machine that
is not ready is told so in a second, not after a download of gigabytes.
Must not know the configuration, nor import an installed package.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dialsum.cli import read_path
from dialsum.data import aihub
from dialsum.errors import EXIT_OK, UnfitError, run_script
from dialsum.files import BINARY, EMPTY, JSON, JSON_LINES, TEXT, UTF16, look_at
from dialsum.paths import PROJECT_ROOT, shown

COMMAND = "bash run_main_7_experiments.sh"
AIHUB = f"{aihub.COMMAND} FILE --output NAME.csv"
DATA_FILES = ("train.csv", "dev.csv", "test.csv")
PINNED_TORCH_CUDA = "13.0"
"""What the torch of requirements.txt is built for: its wheel depends on cuda-toolkit 13.0."""
MINIMUM_DRIVER = {13: 580, 12: 525}
"""CUDA major version -> oldest NVIDIA driver branch that runs it.

Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1."""
OLDER_BUILD = "cu126"
"""The build of the same torch for drivers from 525 on, in uv's words."""
MAX_SMI_SECONDS = 30.0
"""nvidia-smi takes seconds where many cards sleep; where the driver is broken it hangs."""


@dataclass(frozen=True)
class SmiGpu:
    """One card as nvidia-smi names it."""

    name: str
    driver: str


@dataclass(frozen=True)
class SmiAnswer:
    """What nvidia-smi said: its cards, or why there are none."""

    gpus: tuple[SmiGpu, ...]
    why_none: str


def ask_nvidia_smi(environment: Mapping[str, str] | None = None) -> SmiAnswer:
    """Ask nvidia-smi for the cards that a program started here could use; never raises."""
    environment = os.environ if environment is None else environment
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return SmiAnswer((), f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card")
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return SmiAnswer((), "there is no nvidia-smi command here")
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=MAX_SMI_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return SmiAnswer(
            (),
            f"nvidia-smi gave no answer in {MAX_SMI_SECONDS:.0f} s: "
            "the driver hangs, reboot the machine",
        )
    except OSError as error:
        return SmiAnswer((), f"{program} cannot be run: {error.strerror or error}")
    rows = [line.rpartition(",") for line in answer.stdout.splitlines() if "," in line]
    if answer.returncode != 0 or not rows:
        said = " ".join((answer.stdout + answer.stderr).split())
        return SmiAnswer((), f"nvidia-smi ends with {answer.returncode}: {said[:200]}")
    return SmiAnswer(tuple(SmiGpu(name.strip(), driver.strip()) for name, _, driver in rows), "")


def nvidia_gpus_by_smi() -> list[SmiGpu]:
    """Return the visible NVIDIA cards, none where there is no driver."""
    return list(ask_nvidia_smi().gpus)


def installed_torch_cuda(site_packages: Path | None = None) -> str | None:
    """Return the CUDA version that the installed torch is built for.

    None for a CPU build or no torch. Reads torch/version.py as text: importing takes seconds.

    Args:
        site_packages: where to look; this interpreter's own when absent.
    """
    folder = site_packages or Path(sysconfig.get_paths()["purelib"])
    try:
        text = (folder / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, flags=re.MULTILINE)
    return match[1] if match else None


def expected_torch_cuda(repository: Path, environment: Mapping[str, str]) -> str | None:
    """Return the CUDA version of the torch that the next start will use; None for a CPU build.

    UV_TORCH_BACKEND decides where it is set, else the finished environment, else the pin.
    """
    backend = environment.get("UV_TORCH_BACKEND", "")
    if match := re.fullmatch(r"cu(\d+)(\d)", backend):
        return f"{match[1]}.{match[2]}"
    if backend == "cpu":
        return None
    if (repository / ".venv" / ".dialsum-ready").is_file():
        for folder in (repository / ".venv" / "lib").glob("python3*/site-packages"):
            if cuda := installed_torch_cuda(folder):
                return cuda
    return PINNED_TORCH_CUDA


def find_driver_problems(gpus: Sequence[SmiGpu], cuda: str | None) -> list[str]:
    """Say that the driver is too old for a torch built for that CUDA version, and each way out.

    Args:
        gpus: as nvidia_gpus_by_smi returns them; all cards of one machine share one driver.
        cuda: `13.0`, or None for a CPU build, which needs no driver.
    """
    if not gpus or cuda is None:
        return []
    needed = MINIMUM_DRIVER.get(int(cuda.split(".")[0]))
    branch = re.match(r"\d+", gpus[0].driver)
    if needed is None or branch is None or int(branch[0]) >= needed:
        return []
    lines = [
        f"driver: NVIDIA driver {gpus[0].driver} ({gpus[0].name}) is too old for torch "
        f"built for CUDA {cuda}: {needed} or newer is needed."
    ]
    if needed > MINIMUM_DRIVER[12] <= int(branch[0]):
        lines.append(
            "      Take the same torch built for CUDA 12.6, which this driver can run: "
            f"UV_TORCH_BACKEND={OLDER_BUILD} {COMMAND}"
        )
    lines.append(
        "      Update the driver (Ubuntu: sudo apt install "
        f"nvidia-driver-{needed} && sudo reboot), or rent a machine that has {needed}."
    )
    return ["\n".join(lines)]


def find_data_problems(folder: Path, names: Sequence[str] = DATA_FILES) -> list[str]:
    """Say which of the data files are missing in folder, are no files, or hold something
    else by their first bytes; what text says is the reader's to judge."""
    problems, missing = [], []
    for name in names:
        try:
            look = look_at(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(name)
        except IsADirectoryError:
            problems.append(f"data: {shown(folder / name)} is a folder, not a CSV file.")
        except OSError as error:
            problems.append(f"data: {shown(folder / name)}: {error.strerror or error}.")
        else:
            if look.kind in (JSON, JSON_LINES) and Path(name).suffix in (".jsonl", ".ndjson"):
                continue
            if look.kind not in (TEXT, UTF16, EMPTY, BINARY):
                otherwise = (
                    f"give the table as CSV, or as JSON Lines in a .jsonl file; AI-Hub's: {AIHUB}"
                )
                said = look.explain(wanted="a CSV file", otherwise=otherwise)
                problems.append(f"data: {shown(folder / name)} {said}")
    if not missing:
        return problems
    if folder.is_file():
        return [
            f"data: {shown(folder)} is a file; --data-dir names the folder that holds "
            f"{', '.join(names)}."
        ]
    what = f"{', '.join(missing)} not found in" if folder.is_dir() else "there is no folder"
    return [
        *problems,
        f"data: {what} {shown(folder)}.\n"
        "      Put train.csv and dev.csv (columns fname,dialogue,summary) and test.csv "
        "(fname,dialogue) there,\n      or name their folder: --data-dir DIR "
        "(--demo without it: sample data)" + _other_data(folder, missing),
    ]


def _other_data(folder: Path, missing: Sequence[str]) -> str:
    """Say how files of other kinds in the folder are used."""
    said = ""
    for name in missing:
        lines = Path(name).with_suffix(".jsonl")
        if name in DATA_FILES and (folder / lines).is_file():
            said += f"\n      {lines} is there: --set data.{lines.stem}_file={lines}"
        for packed in sorted(folder.glob(f"{name}.*")):
            if not (packed.is_file() and os.access(packed, os.R_OK)):
                continue
            what = look_at(packed).explain(wanted="a CSV file", otherwise="rename it if it is one")
            said += f"\n      {packed.name} {what}"
    if any(folder.glob("*.json")):
        said += f"\n      .json files are there; AI-Hub's become a table by {AIHUB}"
    return said


def find_gpu_problems(repository: Path, environment: Mapping[str, str]) -> list[str]:
    """Say why the experiments have no NVIDIA card to run on, or that its driver is too old."""
    answer = ask_nvidia_smi(environment)
    if answer.gpus:
        return find_driver_problems(answer.gpus, expected_torch_cuda(repository, environment))
    instead = "mps" if sys.platform == "darwin" else "cpu"
    return [
        f"GPU: no NVIDIA GPU is visible: {answer.why_none}.\n"
        "      Real checkpoints are fine-tuned on a 24 GB card: start this on such a machine,\n"
        f"      or do without, many times slower: --set general.device={instead}"
    ]


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the few options that decide what has to be there; the rest is the runner's to judge."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--data-dir", type=read_path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    try:
        options = parser.parse_known_args(list(arguments))[0]
    except argparse.ArgumentError:
        # `--data-dir` without a value: the runner's own parser says so, in its own words.
        options = argparse.Namespace(
            demo=True, dry_run=True, explain=True, data_dir=None, overrides=[]
        )
    pattern = re.compile(r"(?:^|=)general\.device=(\w+)$")
    devices = [found for text in arguments for found in pattern.findall(text)]
    options.needs_gpu = not (options.demo or (devices and devices[-1] in {"cpu", "mps"}))
    return options


def find_missing(
    arguments: Sequence[str],
    *,
    repository: Path = PROJECT_ROOT,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Return everything that a start with these arguments lacks, all problems together.

    `--data-dir` is relative to the working folder. `--explain` reads configuration alone, and a dry
    run says itself what is missing, beside its plan.
    """
    environment = os.environ if environment is None else environment
    options = read_options(arguments)
    if options.explain or options.dry_run:
        return []
    default = repository / "data" / "sample" if options.demo else repository / "data"
    problems = find_data_problems(options.data_dir or default, _asked_files(options.overrides))
    if options.needs_gpu:
        problems += find_gpu_problems(repository, environment)
    return problems + find_set_problems(options.overrides)


def _asked_files(overrides: Sequence[str]) -> list[str]:
    """Return the names of the data files, as --set has them where it does."""
    asked = dict(re.findall(r"^data\.(train|dev|test)_file=(.*)$", "\n".join(overrides), re.M))
    names = [asked.get(Path(name).stem, name) for name in DATA_FILES]
    return [name for name in names if name not in ("null", "~", "")]


def find_set_problems(overrides: Sequence[str]) -> list[str]:
    """Say which values of --set are none at all; which keys there are needs the packages."""
    return [
        f"--set {override}: no SECTION.KEY=VALUE, such as training.learning_rate=3e-5."
        for override in overrides
        if not re.match(r"\w+(\.\w+)+=", override)
    ]


def main(argv: Sequence[str] | None) -> int:
    """Refuse what cannot work, with exit status 2 and every reason at once."""
    arguments = sys.argv[1:] if argv is None else argv
    problems = find_missing(arguments)
    if not problems:
        return EXIT_OK
    lines = ["this cannot start yet; nothing was installed or changed:"]
    lines += [f"  {problem}" for problem in problems]
    if read_options(arguments).overrides:
        lines.append("Which keys and values --set may name is checked with the packages there.")
    if "--demo" not in arguments:
        lines += [
            "To see the whole way work on this machine, with tiny models and sample data, "
            "in about ten minutes:",
            f"  {COMMAND} --demo",
        ]
    raise UnfitError("\n".join(lines))


if __name__ == "__main__":
    run_script(main)

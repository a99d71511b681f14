"""What has to be there before anything is installed or started: data, a GPU, a fitting driver.

Standard library only: the set-up runs it as a module, under any Python >= 3.11 on a fresh clone, so
that a machine that is not ready is told so in a second, not after a download of gigabytes.
Must not know the configuration, nor import an installed package.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from dialsum.cli import BatchOptions, read_batch_options
from dialsum.data.tables import AIHUB_COMMAND
from dialsum.errors import EXIT_OK, UnfitError, run_script
from dialsum.files import BINARY, EMPTY, JSON, JSON_LINES, TEXT, UTF16, look_at, read_regular
from dialsum.paths import PROJECT_ROOT, shown

MAIN_COMMAND = "bash run_main_7_experiments.sh"
AIHUB = f"{AIHUB_COMMAND} FILE --output NAME.csv"
DATA_FILES = ("train.csv", "dev.csv", "test.csv")
TORCH_BUILDS = {"cu130": 580, "cu126": 525}
"""Builds of the pinned torch in uv's words, and the oldest NVIDIA driver branch that runs each.

Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1. uv's own choice, `auto`,
goes by the driver that each CUDA release came with, and asks for builds that there are not."""
MAX_SMI_SECONDS = 30.0
"""nvidia-smi takes seconds where many cards sleep; where the driver is broken it hangs."""


def ask_nvidia_smi(environment: Mapping[str, str]) -> tuple[list[tuple[str, str]], str]:
    """Ask nvidia-smi for the cards that a program started here could use; never raises.

    Returns:
        Name and driver of each card, and why there is none.
    """
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return [], f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card"
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return [], "there is no nvidia-smi command here"
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=MAX_SMI_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [], (
            f"nvidia-smi gave no answer in {MAX_SMI_SECONDS:.0f} s: "
            "the driver hangs, reboot the machine"
        )
    except OSError as error:
        return [], f"{program} cannot be run: {error.strerror or error}"
    rows = [line.rpartition(",") for line in answer.stdout.splitlines() if "," in line]
    if answer.returncode != 0 or not rows:
        said = " ".join((answer.stdout + answer.stderr).split())
        return [], f"nvidia-smi ends with {answer.returncode}: {said[:200]}"
    return [(name.strip(), driver.strip()) for name, _, driver in rows], ""


def driver_branch(driver: str) -> int:
    """Return 580 of `580.95.05`; of what is no number, one that is new enough for anything."""
    found = re.match(r"\d+", driver)
    return int(found[0]) if found else sys.maxsize


def installed_torch_build(site_packages: Path | None = None) -> str | None:
    """Return the build of the installed torch, such as `cu130`; None for a CPU build or no torch.

    Reads torch/version.py as text: importing takes seconds.

    Args:
        site_packages: where to look; this interpreter's own when absent.
    """
    folder = site_packages or Path(sysconfig.get_paths()["purelib"])
    try:
        text = (folder / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)['\"]", text, flags=re.MULTILINE)
    return f"cu{match[1]}{match[2]}" if match else None


def find_gpu_problems(environment: Mapping[str, str], *, build: str | None) -> list[str]:
    """Say why the experiments have no NVIDIA card to run on, or that its driver is too old.

    Args:
        build: of the torch that will run, such as `cu130`; None for a CPU build, which needs no
            driver.
    """
    cards, why_none = ask_nvidia_smi(environment)
    if not cards:
        instead = "mps" if sys.platform == "darwin" else "cpu"
        return [
            f"GPU: no NVIDIA GPU is visible: {why_none}.\n"
            "      Real checkpoints are fine-tuned on a 24 GB card: start this on such a machine,\n"
            f"      or do without, many times slower: --set general.device={instead}"
        ]
    name, driver = cards[0]  # all cards of one machine share one driver
    numbers = re.fullmatch(r"cu(\d\d)(\d+)", build or "")
    if numbers is None:
        return []
    oldest = TORCH_BUILDS["cu126" if int(numbers[1]) < 13 else "cu130"]
    if driver_branch(driver) >= oldest:
        return []
    lines = [
        f"driver: NVIDIA driver {driver} ({name}) is too old for torch "
        f"built for CUDA {numbers[1]}.{numbers[2]}: {oldest} or newer is needed."
    ]
    if driver_branch(driver) >= TORCH_BUILDS["cu126"]:
        lines.append(
            "      Take the same torch built for CUDA 12.6, which this driver can run: "
            f"UV_TORCH_BACKEND=cu126 {MAIN_COMMAND}"
        )
    lines.append(
        "      Update the driver (Ubuntu: sudo apt install "
        f"nvidia-driver-{oldest} && sudo reboot), or rent a machine that has {oldest}."
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
    if missing == ["dev.csv"]:
        said = "\n      Without dev rows: --set data.dev_file=null --set data.dev_share=0.05"
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


def find_missing(
    asked: BatchOptions,
    *,
    repository: Path = PROJECT_ROOT,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Return everything that a start with these options lacks, all problems together.

    `--explain` reads configuration alone, and a dry run says itself what is missing, beside its
    plan.

    Args:
    """
    environment = os.environ if environment is None else environment
    if asked.explain or asked.dry_run:
        return []
    # A key may stand without its section.
    values = {
        key.strip().rpartition(".")[2]: value.strip()
        for key, _, value in (override.partition("=") for override in asked.overrides)
    }
    # What a config says of its data is looked at when it can be read, which takes packages.
    said = " ".join([*asked.overrides, *map(_read_config, asked.configs)])
    elsewhere = set(re.findall(r"\b(train|dev|test)_(?:file|share)\s*[:=]", said))
    files = {kind: "" if kind in elsewhere else f"{kind}.csv" for kind in ("train", "dev", "test")}
    names = [values.get(f"{kind}_file", name) for kind, name in files.items()]
    problems = []
    if asked.data_dir or asked.demo or not re.search(r"\bdata_dir\s*[:=]", said):
        default = repository / "data" / "sample" if asked.demo else repository / "data"
        problems += find_data_problems(
            asked.data_dir or default, [name for name in names if name not in ("null", "~", "")]
        )
    if not asked.demo and values.get("device") not in ("cpu", "mps"):
        # The set-up takes the oldest build that there is where no newer one can run.
        build = environment.get("UV_TORCH_BACKEND") or list(TORCH_BUILDS)[-1]
        problems += find_gpu_problems(environment, build=build)
    return problems + [
        f"--set {override}: no KEY=VALUE, such as training.learning_rate=3e-5."
        for override in asked.overrides
        if "=" not in override
    ]


def _read_config(path: Path) -> str:
    """Return the text of a config; nothing of one that cannot be read, which its reader says."""
    try:
        return read_regular(path, max_bytes=1_000_000).decode("utf-8", "replace")
    except OSError:
        return ""


def main(argv: Sequence[str] | None) -> int:
    """Refuse the options of a batch that cannot work, with every reason at once; without options,
    print the build of torch that the set-up should take.

    Raises:
        UnfitError: an option is wrong, or something is missing.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        cards, _ = ask_nvidia_smi(os.environ)
        branch = driver_branch(cards[0][1]) if cards else 0
        fit = (build for build, oldest in TORCH_BUILDS.items() if branch >= oldest)
        print(next(fit, "cpu"))
        return EXIT_OK
    asked = read_batch_options(words)
    if problems := find_missing(asked):
        lines = ["this cannot start yet; nothing was installed or changed:"]
        lines += [f"  {problem}" for problem in problems]
        if asked.overrides:
            lines.append("Which keys and values --set may name is checked with the packages there.")
        if not asked.demo:
            command = f"bash {shlex.quote(asked.script)}" if asked.script else MAIN_COMMAND
            lines += [
                "To see the whole way work on this machine, with tiny models and sample data:",
                f"  {command} --demo",
            ]
        raise UnfitError("\n".join(lines))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)

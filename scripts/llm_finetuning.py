"""Fine-tune a decoder-only LLM in the phases of config/llm, one of them or all to one table.

    python scripts/llm_finetuning.py --config config/finetune_config.yaml
    python scripts/llm_finetuning.py --phase all --demo

A phase is one experiment of code/trainer.py; all of them, a demo or a plan (--dry-run) are a batch
of code/auto_experiment_runner.py, in outputs/llm. Whatever else stands on the command line is
theirs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import STARTED_AS, read_batch_options, require_packages
from dialsum.errors import UnfitError, run_script
from dialsum.paths import LLM_OUTPUTS, PROJECT_ROOT, in_command, project_path, shown

CONFIG = PROJECT_ROOT / "config" / "finetune_config.yaml"
PHASES = ("before", "1", "2", "3")
LLM = PROJECT_ROOT / "config" / "llm"


def find_configs(config: Path | None, phase: str | None) -> list[Path]:
    """Return the experiment files that a phase means.

    Args:
        config: as it was given; None: config/finetune_config.yaml.
        phase: before, 1, 2, 3, all; None: the file itself, which is phase 1 for ours.

    Raises:
        UnfitError: a phase of a file that is not ours.
    """
    asked = CONFIG if config is None else config
    if phase is None:
        return [asked]
    if asked.resolve() != CONFIG:
        raise UnfitError(
            f"--phase {phase} beside --config {asked}: the phases are {shown(LLM)}/*.yaml, which "
            f"start from {shown(CONFIG)}. Change that file, or leave --phase out"
        )
    names = PHASES if phase == "all" else (phase,)
    return [LLM / (f"{name}.yaml" if name == "before" else f"phase{name}.yaml") for name in names]


def format_dialogue_prompt(dialogue: str, subject: str | None = None, *, phase: int = 2) -> str:
    """Return what the user's turn says of a dialogue, as a phase of config/llm asks it.

    Args:
        dialogue: a turn a line, `#Person1#: …`.
        subject: what it is about; the config's prompt.subject when None.
        phase: 1, 2 or 3.
    """
    from dialsum.config.load import load_config
    from dialsum.config.schema import DIALOGUE, SUBJECT

    asked = load_config(LLM / f"phase{phase}.yaml").config.prompt
    return asked.user.replace(SUBJECT, subject or asked.subject).replace(DIALOGUE, dialogue)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = argparse.ArgumentParser(
        prog="llm_finetuning.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="all other options are those of code/trainer.py, for --phase all, --demo and "
        "--dry-run those of code/auto_experiment_runner.py: --one-epoch, --data-dir DIR, "
        "--set KEY=VALUE, --resume …",
        allow_abbrev=False,
    )
    own.add_argument("--config", type=Path, metavar="FILE", help=f"default: {shown(CONFIG)}")
    own.add_argument("--phase", choices=(*PHASES, "all"), help="default: the config by itself")
    asked, rest = own.parse_known_args(words)
    configs = find_configs(asked.config, asked.phase)
    require_packages(__file__)
    if asked.phase != "all" and not {"--demo", "--dry-run"}.intersection(rest):
        from trainer import main as run_one

        return run_one(["--config", str(configs[0]), *rest])
    from auto_experiment_runner import main as run_batch

    asked_for = ["--phase", asked.phase] if asked.phase else ["--config", in_command(configs[0])]
    started = shlex.join([in_command(Path(sys.executable)), in_command(Path(__file__)), *asked_for])
    # Apart from the seven's, so that neither stands in the way of the other's --resume.
    places = ["--output-dir", str(project_path(LLM_OUTPUTS))]
    places += ["--log-dir", str(project_path("logs/llm"))]
    batch = [STARTED_AS, started, "--config", *map(str, configs), *places, *rest]
    status = run_batch(batch)
    options = read_batch_options(batch)
    if asked.phase == "all" and not (options.dry_run or options.explain or options.rehearse):
        from compare_phases import main as compare

        from dialsum.batch.plan import find_root, load_selected

        print()
        compare(["--root", str(find_root(options, load_selected(options)[0]))])
    return status


if __name__ == "__main__":
    run_script(main)

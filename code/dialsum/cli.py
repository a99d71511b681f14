"""Every option of the runner and the trainer, once; command lines whose mistakes are said in words,
and so is an interpreter without the packages.

Standard library only, in words that old Pythons understand too: it runs before anything is
installed.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dialsum.errors import UnfitError
from dialsum.paths import PROJECT_ROOT, in_command, project_path
from dialsum.text import SURROGATE, shorten

NEAR_ENOUGH = 0.6
"""Least similarity, 0 to 1, of a word that is offered in place of a misspelt one."""
HELP_HINT = "\n  --help shows every option."
SET_HINT = (
    "\n  What a config says is overruled with --set KEY=VALUE, such as --set "
    "training.num_train_epochs=3."
)


class CommandLine(argparse.ArgumentParser):
    """A parser that refuses what it does not know by name; options are never guessed from a part.

    Args:
        prog: the command as the user types it; it stands in every refusal.
        hidden: options that are real but not for this command's users, never offered to them.
    """

    def __init__(self, *, prog: str, hidden: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **settings)
        self._hidden = frozenset(hidden)
        self.register("type", Path, read_path)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse every word.

        Raises:
            UnfitError: a word that is no option, or an option with a value that it cannot have.
        """
        words = list(sys.argv[1:] if args is None else args)
        for word in words:
            # Bytes that are no UTF-8 stand in a word as halves of characters.
            if SURROGATE.search(word):
                raise UnfitError(
                    f"{self.prog}: {ascii(word)[:80]} holds bytes that are no UTF-8; rename the "
                    f"file or folder, or write the value in UTF-8.{HELP_HINT}"
                )
        # Before argparse looks: it would say that an option is missing, not that it is misspelt.
        end = words.index("--") if "--" in words else len(words)
        names = [word.partition("=")[0] for word in words[:end]]
        unknown = [
            name
            for name in names
            if len(name) > 2
            and name.startswith("--")
            and " " not in name
            and name not in self._option_string_actions
        ]
        if unknown:
            raise UnfitError(self._refuse(unknown))
        found, unknown = self.parse_known_intermixed_args(words, namespace)
        if unknown:
            raise UnfitError(self._refuse(unknown))
        return found

    def error(self, message: str) -> NoReturn:
        """Refuse what argparse itself found wrong."""
        raise UnfitError(f"{self.prog}: {message}.{HELP_HINT}")

    def _refuse(self, unknown: Sequence[str]) -> str:
        """Name words that are not known, each with the option that is most like it, dashes and case
        aside."""
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        names = [name for action in shown for name in action.option_strings]
        bare = {name.lstrip("-").lower(): name for name in names if name not in self._hidden}
        lines = []
        # The value of an unknown option is unknown as well, and no mistake of its own.
        for word in [word for word in unknown if word.startswith("-")] or unknown:
            word, equals, _ = word.partition("=")
            text = word.lstrip("-").lower().replace("_", "-")
            longer = [name for name in bare if len(text) > 2 and name.startswith(text)]
            near = longer or difflib.get_close_matches(text, bare, n=1, cutoff=NEAR_ENOUGH)
            what = "option" if word.startswith("-") else "argument"
            meant = f"; did you mean {bare[near[0]]}?" if near and bare[near[0]] != word else "."
            if what == "argument" and equals and "--set" in names:
                meant = "; each KEY=VALUE has a --set of its own before it."
            lines.append(f"{self.prog} has no {what} {word}{meant}")
        settings = SET_HINT if "--set" in names else ""
        return "\n  ".join(lines) + settings + HELP_HINT


def read_path(text: str) -> Path:
    """Return a path as it was meant: a shell leaves the ~ of `--run-dir=~/x` alone."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path's own raises where nobody is so called)


MULTI_MODEL = """Run the models of config/model_configs, one after another, and end in one table.

  ./run_multi_model_experiments.sh --demo        tiny models of the same kinds, on any CPU
  ./run_multi_model_experiments.sh --only 13,15  KoGPT2 and a Llama of 3 billion weights

Each runs in outputs/NAME/, with its log in logs/multi_model_experiments/.
"""
SEVEN = """Run the seven experiments, one after another on a GPU, and end in one table.

  bash run_main_7_experiments.sh --demo   tiny models of the same kinds, sample data, any CPU
  bash run_main_7_experiments.sh          the real checkpoints on data/*.csv, one NVIDIA GPU

The first start makes .venv with everything it needs (minutes, said before); later starts find it.
"""
BATCH_EPILOG = (
    "exit status: 0 all succeeded, 1 at least one failed (the others were still run),\n"
    "2 nothing was started, 130 interrupted"
)
RUN_EPILOG = (
    "exit status: 0 success, 1 failed (recorded), 2 nothing was started, 130 interrupted (recorded)"
)
RAY_ADDRESS = re.compile(r"auto|local|(\[[0-9a-fA-F:]+\]|[^\s:/]+):[0-9]{1,5}")
"""Addresses that --ray-address takes."""
STARTED_AS = "--started-as"
"""First word from a script that names the experiments itself; the second is its path."""


DEMO_OVERLAY = project_path("config/demo.yaml")
DEMO_OVERLAYS = project_path("config/demo")
DEMO_DATA = project_path("data/sample")
REHEARSAL_OVERLAY = project_path("config/rehearsal.yaml")


@dataclass(frozen=True)
class BatchOptions:
    """What is asked of a batch; every path relative to the working folder or absolute.

    Attributes:
        configs: experiment files, numbered from 1 in this order.
        only: the numbers to run, ascending; None for all.
        output_dir: stands for outputs/; runs_dir, log_dir: other places for runs and logs alone.
        overrides: `section.key=value`, the last one wins.
        rehearse: two steps on the longest rows, and all that follows; then stop.
        resume: go on with the last batch, where it has not come to its end.
        retry_failed: the same, and its failed experiments run again.
        dry_run: check and print the plan only; nothing is written.
        deep: with tokenizers, lengths and rows that are nearly the same; a start always looks.
        explain: print every value with where it comes from, and stop.
        ray_address: of the Ray cluster that the experiments run on; stands for batch.executor ray.
        script: the script that names these very files by itself, if one started the batch.
    """

    configs: tuple[Path, ...]
    one_epoch: bool = False
    demo: bool = False
    rehearse: bool = False
    data_dir: Path | None = None
    only: tuple[int, ...] | None = None
    output_dir: Path | None = None
    runs_dir: Path | None = None
    log_dir: Path | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    stop_on_error: bool = False
    resume: bool = False
    retry_failed: bool = False
    dry_run: bool = False
    deep: bool = False
    explain: bool = False
    ray_address: str | None = None
    script: str | None = None

    @property
    def numbers(self) -> Sequence[int]:
        """The experiments that --only leaves, from 1."""
        return self.only or range(1, len(self.configs) + 1)

    @property
    def kind(self) -> str:
        """`demo`, `rehearsal`, `one_epoch` or `full`; tiny models are a demo, however short."""
        short = "rehearsal" if self.rehearse else "one_epoch" if self.one_epoch else "full"
        return "demo" if self.demo else short

    @property
    def data_folder(self) -> Path | None:
        """Folder of the data where the options name one: --data-dir, else the demo's own."""
        if self.data_dir is not None:
            return self.data_dir.absolute()
        return DEMO_DATA if self.demo else None

    def overlays(self, config: Path) -> tuple[Path, ...]:
        """Files laid over an experiment: the demo's, for its name or for all; a rehearsal's."""
        own = DEMO_OVERLAYS / config.name
        demo = (own if own.is_file() else DEMO_OVERLAY,) if self.demo else ()
        return (*demo, REHEARSAL_OVERLAY) if self.rehearse else demo

    @property
    def only_words(self) -> str:
        """`--only 1,4` after a space, as a command of this batch repeats it; empty without."""
        return f" --only {','.join(map(str, self.only))}" if self.only else ""

    @property
    def command_line(self) -> str:
        """The options that a command of this batch repeats, each after a space."""
        words = ["--demo"] if self.demo else []
        words += ["--rehearse"] if self.rehearse else []
        words += ["--one-epoch"] if self.one_epoch else []
        places = {
            "--data-dir": self.data_dir,
            "--output-dir": self.output_dir,
            "--runs-dir": self.runs_dir,
            "--log-dir": self.log_dir,
        }
        for flag, path in places.items():
            words += [] if path is None else [flag, str(path)]
        words += [] if self.ray_address is None else ["--ray-address", self.ray_address]
        words += [] if self.seed is None else ["--seed", str(self.seed)]
        for override in self.overrides:
            words += ["--set", override]
        return "".join(f" {shlex.quote(word)}" for word in words)

    @property
    def all_overrides(self) -> list[str]:
        """Every option that stands for configuration values, as `key=value`; --set comes last and
        wins."""
        return list_overrides(
            {} if self.data_folder is None else {"data_dir": self.data_folder},
            one_epoch=self.one_epoch,
            seed=self.seed,
            said=[*(["batch.executor=ray"] if self.ray_address else []), *self.overrides],
        )


def read_batch_options(arguments: Sequence[str] | None = None) -> BatchOptions:
    """Read the command line of a batch.

    Raises:
        UnfitError: an option that is not known, or has a value that it cannot have.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    script = None
    if words[:1] == [STARTED_AS] and len(words) > 1 and not words[1].startswith("-"):
        script = words[1]
    own = MULTI_MODEL if script and "multi_model" in Path(script).name else SEVEN
    parser = CommandLine(
        prog=f"bash {script}" if script else "auto_experiment_runner.py",
        hidden=["--config"] if script else [],
        description=own if script else "Run experiments, each in its own process, to one table.",
        epilog=BATCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--config",
        dest="configs",
        default=[],
        nargs="+",
        action="extend",
        type=Path,
        metavar="FILE",
        help=argparse.SUPPRESS if script else "the experiments, numbered from 1 in this order",
    )
    add(
        "--demo",
        action="store_true",
        help="tiny checkpoints in place of the real ones, on data/sample, in the folder demo of "
        "the outputs; on other data in demo_own_data; with --one-epoch, _quick_test is added",
    )
    add(
        "--rehearse",
        action="store_true",
        help="each experiment for minutes: load, two steps on the longest rows, evaluate, save, go "
        "on from a checkpoint in a new process, write summaries; in the folder rehearsal",
    )
    add("--dry-run", action="store_true", help="check everything, print the plan, write nothing")
    add(
        "--deep",
        action="store_true",
        help="with --dry-run: also tokenizers, lengths, unknown pieces and rows that are nearly "
        "the same in two files (a minute; a real start always looks)",
    )
    add("--only", metavar="NUMBERS", help="run these of the experiments, in order: 1,4 or 2-5")
    add("--stop-on-error", action="store_true", help="start none after one that failed")
    add(
        "--resume",
        action="store_true",
        help="go on with the last batch: what is finished stays, what was cut off goes on from its "
        "checkpoint, the rest follows, all as it was asked then",
    )
    add(
        "--retry-failed", action="store_true", help="the same, and its failed experiments run again"
    )
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    add("--runs-dir", **folder, help="the runs' folders go here (default: ROOT/experiments)")
    add("--log-dir", **folder, help="the batches' logs go here (default: logs)")
    add(
        "--ray-address",
        metavar="ADDRESS",
        help="run on a Ray cluster: HOST:PORT of its head, auto (the one that this machine is in) "
        "or local (one of this machine alone)",
    )
    _add_shared(
        parser, one_epoch="one epoch each, in outputs/quick_test", output="logs to DIR/logs"
    )
    asked = parser.parse_args(words[2:] if script else words)
    asked.configs, asked.overrides = tuple(asked.configs), tuple(asked.overrides)
    if not (asked.configs or asked.resume or asked.retry_failed):
        parser.error("--config FILE: name the experiments")
    if asked.ray_address is not None and not RAY_ADDRESS.fullmatch(asked.ray_address):
        parser.error(
            f"--ray-address {shorten(asked.ray_address)!r}: write HOST:PORT of the cluster's head, "
            "such as 10.0.0.1:6379 (what ray start --head says), or auto, or local"
        )
    if asked.rehearse and asked.one_epoch:
        parser.error("--rehearse takes two steps; leave --one-epoch out")
    asked.only = select_numbers(asked.only, configs=asked.configs)
    return BatchOptions(**vars(asked), script=script)


def read_run_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of one experiment; `overrides` holds all that stand for config keys.

    Raises:
        UnfitError: an option that is not known, or has a value that it cannot have.
    """
    parser = CommandLine(
        prog="trainer.py",
        description="Train, evaluate and record one experiment, in this process.",
        epilog=RUN_EPILOG,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="the experiment")
    what.add_argument(
        "--job",
        type=Path,
        metavar="FILE",
        help="job.json of a run: the same again, in its folder; only --resume counts beside it",
    )
    add(
        "--overlay",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="values that go over the experiment's, such as config/demo.yaml (repeatable)",
    )
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    add("--train-data", **file, help="training rows")
    add("--val-data", **file, help="dev rows")
    add("--test-data", **file, help="rows to predict")
    own = "the run's own folder: new, empty, or one that holds a run (default: outputs/NAME)"
    add("--run-dir", **folder, help=own)
    add("--model-dir", **folder, help="the best model's own folder (default: RUN/model)")
    add(
        "--resume",
        action="store_true",
        help="go on with this run from its latest whole checkpoint, where it did not finish",
    )
    _add_shared(parser, one_epoch="one epoch only", output="the run goes to DIR/NAME")
    asked = parser.parse_args(arguments)
    if asked.job is not None:
        beside = {"job", "resume", "explain"}
        given = [
            action.option_strings[-1]
            for action in parser._actions
            if action.dest not in beside
            and getattr(asked, action.dest, action.default) != action.default
        ]
        if given:
            raise UnfitError(
                f"trainer.py: {', '.join(given)} beside --job: the job says all of that already; "
                "give --config for a run with other values, or change nothing"
            )
    paths = {
        "data_dir": asked.data_dir,
        "train_file": asked.train_data,
        "dev_file": asked.val_data,
        "test_file": asked.test_data,
    }
    asked.overrides = list_overrides(
        {key: path.resolve() for key, path in paths.items() if path is not None},
        one_epoch=asked.one_epoch,
        seed=asked.seed,
        said=asked.overrides,
    )
    return asked


def list_overrides(
    paths: Mapping[str, Path], *, one_epoch: bool, seed: int | None, said: Sequence[str]
) -> list[str]:
    """Return every option that stands for configuration values, as `section.key=value`.

    Args:
        paths: key in the section `data` to file or folder.
        said: of --set, which comes last and wins.
    """
    # As JSON, which is YAML: a file may be called anything.
    overrides = [
        f"data.{key}={json.dumps(str(path), ensure_ascii=False)}" for key, path in paths.items()
    ]
    overrides += ["training.num_train_epochs=1", "training.max_steps=null"] if one_epoch else []
    overrides += [] if seed is None else [f"training.seed={seed}"]
    return [*overrides, *said]


def _add_shared(parser: argparse.ArgumentParser, *, one_epoch: str, output: str) -> None:
    """Add the options that a batch and a run by itself both have."""
    add = parser.add_argument
    add("-1", "--one-epoch", action="store_true", help=one_epoch)
    data = "folder of train.csv, dev.csv, test.csv (default: data)"
    add("--data-dir", type=Path, metavar="DIR", help=data)
    add("--output-dir", type=Path, metavar="DIR", help=f"stands for outputs/; {output}")
    override = "another value, such as training.learning_rate=3e-5 (repeatable)"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=override)
    add("--seed", type=int, metavar="N", help="overrides training.seed")
    explain = "print every value with where it comes from, and stop"
    add("--explain", action="store_true", help=explain)


def select_numbers(only: str | None, *, configs: Sequence[Path]) -> tuple[int, ...] | None:
    """Return the numbers to run, ascending; None where all are.

    Args:
        only: `1,4`, `2-5`, or None.

    Raises:
        UnfitError: something else, or a number that no experiment has.
    """
    if only is None:
        return None
    names = ", ".join(f"{number} {path.stem}" for number, path in enumerate(configs, start=1))
    chosen: set[int] = set()
    for part in only.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        if match is None:
            raise UnfitError(
                f"--only {shorten(only)!r}: {shorten(part)!r} is no number of an experiment; "
                f"write numbers as in --only 1,4 or --only 2-5; the experiments are {names}"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UnfitError(
                f"--only {only!r}: write the smaller number first, as in {last}-{first}"
            )
        if not 1 <= first <= last <= len(configs):
            raise UnfitError(
                f"--only {only!r}: {part.strip()} is out of range; the experiments are {names}"
            )
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


OLDEST_PYTHON = (3, 11)
NEEDED = ("pydantic", "yaml", "rapidfuzz", "pynvml", "numpy")
"""Import names that the scripts need at once; whoever has these has run the set-up."""


def require_packages(script: str) -> None:
    """Return if this interpreter can run the project; else say which one can and exit with 2.

    Args:
        script: path of the script that was started (`__file__`), named in the command that works.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if sys.version_info[:2] < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        found = f"is Python {version}, and {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed"
    elif missing:
        found = f"lacks packages of this project ({', '.join(missing)})"
    else:
        return
    command = " ".join([in_command(Path(script).resolve()), *sys.argv[1:]])
    environment = PROJECT_ROOT / ".venv"
    interpreter = environment / "bin" / "python"
    set_up = in_command(PROJECT_ROOT / "scripts" / "setup_environment.sh")
    if not interpreter.exists():
        way = (
            f"make the environment: bash {set_up}\n  then run: {in_command(interpreter)} {command}"
        )
    elif Path(sys.prefix) == environment:
        way = f"complete the environment: bash {set_up} --repair"
    else:
        way = f"run: {in_command(interpreter)} {command}"
    sys.stderr.write(f"error: {sys.executable} {found}.\n  {way}\n")
    sys.exit(2)

"""What a batch's command line asked for, as values.

Must not read a file: plan.py finds out what the options come to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dialsum.errors import UnfitError
from dialsum.files import shorten
from dialsum.paths import project_path

DEMO_OVERLAY = project_path("config/demo.yaml")
DEMO_DATA = project_path("data/sample")


@dataclass(frozen=True)
class BatchOptions:
    """What the command line asked for; every path relative to the working folder or absolute.

    Attributes:
        configs: experiment files, numbered from 1 in this order.
        only: numbers to run, such as `1,4` or `2-5`; None for all.
        output_dir: stands for outputs/; runs_dir, log_dir: other places for runs and logs alone.
        overrides: `section.key=value`, the last one wins.
    """

    configs: tuple[Path, ...]
    one_epoch: bool = False
    demo: bool = False
    data_dir: Path | None = None
    only: str | None = None
    output_dir: Path | None = None
    runs_dir: Path | None = None
    log_dir: Path | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    stop_on_error: bool = False

    @property
    def kind(self) -> str:
        """`demo`, `one_epoch` or `full`: whose root the results go to. Tiny models are a demo,
        however short."""
        return "demo" if self.demo else "one_epoch" if self.one_epoch else "full"

    @property
    def overlays(self) -> tuple[Path, ...]:
        """Files laid over every experiment."""
        return (DEMO_OVERLAY,) if self.demo else ()

    @property
    def data_folder(self) -> Path | None:
        """Folder of the data where the options name one: --data-dir, else the demo's own."""
        if self.data_dir is not None:
            return self.data_dir.absolute()
        return DEMO_DATA if self.demo else None


def select_numbers(only: str | None, *, configs: Sequence[Path]) -> list[int]:
    """Return the numbers to run, ascending.

    Args:
        only: `1,4`, `2-5`, or None for all.

    Raises:
        UnfitError: something else, or a number that no experiment has.
    """
    if only is None:
        return list(range(1, len(configs) + 1))
    chosen: set[int] = set()
    for part in only.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        if match is None:
            raise UnfitError(
                f"--only {shorten(only)!r}: {shorten(part)!r} is no number of an experiment; "
                "write numbers as in --only 1,4 or --only 2-5"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= len(configs):
            names = ", ".join(
                f"{number} {path.stem}" for number, path in enumerate(configs, start=1)
            )
            raise UnfitError(
                f"--only {only!r}: {part.strip()} is out of range; the experiments are {names}"
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)

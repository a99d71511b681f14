"""Forecast how much memory an experiment takes, from its checkpoint's config.json alone.

    python scripts/forecast.py --config config/experiments/01_mt5_xlsum.yaml --card 24

Parses the command line and calls dialsum; holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages
from dialsum.errors import run_script


def make_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="forecast.py",
        description="Run an experiment's own training step and search, at their largest, on "
        "tensors without content, and print what they would hold: no GPU and no weights needed.",
        epilog="exit status: 0 it fits, 1 it is tight, 2 it does not fit, or cannot be forecast, "
        "with what to mend",
    )
    add = parser.add_argument
    add("--config", required=True, type=Path, metavar="FILE", help="the experiment")
    over = "replace a value, such as training.per_device_train_batch_size=4 (repeatable)"
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help=over)
    card = "a GPU's memory in GiB; the card that is here when absent, else batch.memory_limit_gib's"
    add("--card", type=float, metavar="GIB", help=card)
    add("--cpu", action="store_true", help="for a CPU in place of a GPU")
    return parser


def main(argv: Sequence[str] | None) -> int:
    """Print the forecast and return the exit status.

    Raises:
        UnfitError: the configuration or its checkpoint is not fit.
    """
    asked = make_parser().parse_args(argv)
    require_packages("scripts/forecast.py")
    from dialsum.config.load import load_config
    from dialsum.experiment.forecast import describe_forecast, find_card, forecast

    config = load_config(asked.config, overrides=asked.overrides).config
    card = find_card(config, memory_gib=asked.card, cpu=asked.cpu)
    found = forecast(config, card=card)
    print("\n".join(describe_forecast(config, found)))
    return {"fits": 0, "tight": 1, "does not fit": 2}[found.verdict]


if __name__ == "__main__":
    run_script(main)

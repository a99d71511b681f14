"""Writing or sending a run's curves after it has ended: what its trackers lack of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dialsum.errors import UnfitError
from dialsum.experiment.job import read_job
from dialsum.paths import RunPaths, shown
from dialsum.record import read_record
from dialsum.train.curves import Ending, OffError, Order, explain, send
from dialsum.train.tracking import (
    TITLES,
    find_numbers,
    find_why_off,
    order_tensorboard,
    order_wandb,
    with_id,
)


def read_run(folder: Path, tracker: Literal["tensorboard", "wandb"]) -> tuple[Order, Ending]:
    """Return what has a tracker take all of a run's curves.

    Raises:
        UnfitError: the folder holds no run with curves, or W&B is off.
        RunError: its record cannot be read.
    """
    paths = RunPaths.alone(folder)
    for needed in (paths.job, paths.metrics):
        if not needed.is_file():
            raise UnfitError(
                f"{shown(folder)}: no run's folder, it holds no {needed.name}; give one such as "
                "outputs/NAME or outputs/auto_experiments/experiments/NAME"
            )
    record = read_record(paths.result) if paths.result.is_file() else None
    ending = Ending()
    if record is not None:
        scores = record.value("evaluation.dev")
        ending = Ending(find_numbers(scores), exit_code=0 if record.succeeded else 1)
    if tracker == "tensorboard":
        return order_tensorboard(paths), ending
    job = read_job(paths.job)
    asked = job.config.tracking.model_copy(update={"wandb": True})
    if (why := find_why_off(asked)) is not None:
        raise UnfitError(f"Weights & Biases is off: {why}")
    order = order_wandb(
        asked,
        paths=paths,
        name=job.name,
        group=job.batch,
        config=job.config.model_dump(mode="json"),
    )
    return order, ending


def send_again(order: Order, ending: Ending) -> bool:
    """Write or send a run's curves, say what came of it, and return whether they are there.

    Raises:
        UnfitError: W&B is not to be had, for no run.
    """
    place, title = shown(Path(order.metrics).parent), TITLES[order.tracker]
    try:
        status = send(with_id(order) if order.tracker == "wandb" else order, ending)
    except OffError as error:
        raise UnfitError(f"{place}: {title} has not got the curves: {error}") from None
    # W&B raises its own errors, the network's, its service's: the other runs get their turn.
    except Exception as error:
        print(f"{place}: {title} has not got the curves: {explain(error)}", flush=True)
        return False
    if status["used"] == "offline":
        kept = shown((Path(order.folder) / "wandb" / "latest-run").resolve())
        print(f"{place}: {title} is offline ({status['why']}); send them with: wandb sync {kept}")
    else:
        print(f"{place}: {title} has the curves: {status.get('url', shown(Path(order.folder)))}")
    return True

"""What a run tells while it goes on: events in metrics.jsonl, lines on screen, remarks on its
curves, TensorBoard, Weights & Biases.

W&B is held at arm's length: it never asks, never waits long, never ends a run; every failure of it
is said and recorded, and training goes on without it. Must not know the loop: it is handed numbers.
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any, Literal

from dialsum.config.schema import Tracking
from dialsum.errors import first_line
from dialsum.files import append_json_line
from dialsum.lifeline import EVALUATION, LOADING, beat
from dialsum.machine.devices import GpuState
from dialsum.paths import in_command
from dialsum.score.show import describe_measured

WINDOW = 50
"""Steps that the running medians look back on."""
LEAST_STEPS = 20
"""Steps before a median is trusted."""
LOSS_SPIKE = 2.0
"""Times the median at which a loss is a spike; batches of 16 real rows stay within 1.5."""
GRADIENT_SPIKE = 10.0
"""Times the median at which a gradient norm is called exploding."""
QUIET_STEPS = 25
"""Steps after a spike in which another of its kind is not told: one fault is one event."""
RISING_EVALUATIONS = 3
"""Evaluations in a row of rising dev loss, with falling training loss, that are over-fitting."""
FLAT_EVALUATIONS = 5
"""Evaluations in a row without a better score that are a plateau."""
CHECK_STEP = 200
"""Step from which on the first look whether training converges is taken."""


Remark = dict[str, Any]
"""What the curves show: kind (loss_spike, gradient_spike, over_fitting, plateau, convergence),
step, message, and the numbers behind it."""


@dataclass
class Watch:
    """Follows one run and remarks on it; its fields are what a resumed run goes on from.

    Args:
        losses, norms: of the last WINDOW steps.
        first: losses of the first LEAST_STEPS steps.
        last_told: step at which each kind of spike was told.
        evaluations: step, dev loss and training loss of each.
        flat: evaluations since the last better score.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last_told: dict[str, int] = field(default_factory=dict)
    checked: bool = False
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    flat: int = 0
    over_fitting: bool = False

    def step(self, step: int, *, loss: float, grad_norm: float) -> list[Remark]:
        """Take in a finished optimizer step; both numbers finite."""
        remarks = []
        for kind, value, past, limit, name in (
            ("loss_spike", loss, self.losses, LOSS_SPIKE, "loss"),
            ("gradient_spike", grad_norm, self.norms, GRADIENT_SPIKE, "gradient norm"),
        ):
            usual = median(past) if len(past) >= LEAST_STEPS else None
            if usual is not None and value > limit * usual and self._may_tell(kind, step):
                text = (
                    f"step {step}: {name} {value:.3g} is {value / usual:.1f} times "
                    f"the median of the last {len(past)} steps ({usual:.3g})"
                )
                remarks.append(_remark(kind, step, text, value=value, median=usual))
            past.append(value)
            del past[:-WINDOW]
        if len(self.first) < LEAST_STEPS:
            self.first.append(loss)
        if step >= CHECK_STEP and not self.checked and len(self.losses) >= LEAST_STEPS:
            self.checked = True
            remarks.append(self._check_convergence(step))
        return remarks

    def _may_tell(self, kind: str, step: int) -> bool:
        last = self.last_told.get(kind)
        if last is not None and step - last < QUIET_STEPS:
            return False
        self.last_told[kind] = step
        return True

    def _check_convergence(self, step: int) -> Remark:
        first, now = median(self.first), median(self.losses[-LEAST_STEPS:])
        if now < 0.97 * first:
            verdict = "converging"
        elif now > 1.03 * first:
            verdict = "diverging: the learning rate may be too high"
        else:
            verdict = "not converging: the learning rate may be too low, or nothing can learn"
        text = (
            f"step {step}: {verdict} (median training loss {first:.3g} in the "
            f"first {len(self.first)} steps seen, {now:.3g} in the last {LEAST_STEPS})"
        )
        short = verdict.partition(":")[0]
        return _remark("convergence", step, text, verdict=short, first=first, now=now)

    def evaluation(self, step: int, *, dev_loss: float, better: bool) -> list[Remark]:
        """Take in an evaluation on dev.

        Args:
            better: the metric that chooses the best checkpoint improved.
        """
        train_loss = median(self.losses) if self.losses else float("nan")
        self.evaluations.append((step, dev_loss, train_loss))
        remarks = []
        recent = self.evaluations[-(RISING_EVALUATIONS + 1) :]
        pairs = list(pairwise(recent))
        rising = len(pairs) == RISING_EVALUATIONS and all(
            after[1] > before[1] for before, after in pairs
        )
        if not rising:
            self.over_fitting = False
        elif recent[-1][2] < recent[0][2] and not self.over_fitting:
            self.over_fitting = True
            text = (
                f"step {step}: dev loss rose {RISING_EVALUATIONS} times in a row, "
                f"{recent[0][1]:.4g} to {dev_loss:.4g}, while training loss fell, "
                f"{recent[0][2]:.4g} to {train_loss:.4g}: the model begins to over-fit after "
                f"step {recent[0][0]}"
            )
            numbers = {"dev_loss": dev_loss, "train_loss": train_loss}
            remarks.append(_remark("over_fitting", step, text, since_step=recent[0][0], **numbers))
        self.flat = 0 if better else self.flat + 1
        if self.flat == FLAT_EVALUATIONS:
            text = f"step {step}: no better score in {FLAT_EVALUATIONS} evaluations"
            remarks.append(_remark("plateau", step, text, evaluations=FLAT_EVALUATIONS))
        return remarks


def _remark(kind: str, step: int, message: str, **numbers: Any) -> Remark:
    return {"kind": kind, "step": step, "message": message, **numbers}


class Aside:
    """Does what may hang in a thread of its own, one thing after another; nobody waits for it but
    at the end, and only for so long.

    Attributes:
        error: what one of them raised; nothing is done after it.
    """

    def __init__(self, name: str) -> None:
        self.error: Exception | None = None
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # A daemon: one that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, act: Callable[[], object]) -> None:
        """Have something done after all that waits already."""
        self._waiting.put(act)

    def end(self, seconds: float) -> bool:
        """Say whether all that waits was done, or failed, within so many seconds; it does nothing
        more."""
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (act := self._waiting.get()) is not None:
            try:
                act()
            except Exception as error:
                # The edge of a tracker: whoever looks next says it.
                self.error = error
                return


class Progress:
    """One run's events, in order of time.

    Args:
        metrics: metrics.jsonl of the run.
        tensorboard: folder for TensorBoard events; None: none are written.
        ask_card: asks the driver how the run's card is; None: it has none.

    Attributes:
        current: the stage that began last.
        step: the optimizer step that is being run, or was run last; None before the first.
    """

    def __init__(
        self,
        metrics: Path,
        *,
        tensorboard: Path | None,
        ask_card: Callable[[], GpuState | None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._ask_card, self._asking = ask_card, None if ask_card is None else Aside("card")
        self._card: GpuState | None = None
        self.hottest_c: int | None = None
        self._watts: list[float] = []
        self._tensorboard_folder = tensorboard
        self._curves: Aside | None = None
        self._writer: Any = None
        self._listeners: list[Any] = []
        self.current: str | None = None
        self.step: int | None = None
        self.nan_events = 0
        self.remarks: list[dict[str, Any]] = []
        self.max_grad_norm = 0.0
        self._started = self._since = time.monotonic()
        self._spent: dict[str | None, float] = {}
        self._last_step = (0, self._started)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on from here has to know, as JSON can hold it."""
        return {
            "nan_events": self.nan_events,
            "remarks": self.remarks,
            "max_grad_norm": self.max_grad_norm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what state_dict returned."""
        self.nan_events, self.remarks = state["nan_events"], state["remarks"]
        self.max_grad_norm = state["max_grad_norm"]

    def add_listener(self, listener: Any) -> None:
        """Also hand every numeric event to listener(kind, step, values) (Weights & Biases)."""
        self._listeners.append(listener)

    def event(self, kind: str, **values: Any) -> None:
        """Append one event to metrics.jsonl; None values are left out."""
        moment = datetime.now().astimezone().isoformat(timespec="milliseconds")
        append_json_line(self._metrics, {"time": moment, "event": kind, **values})

    def stage(self, name: str, text: str, **details: Any) -> None:
        """Say that a new part of the run begins; details go into the event alone."""
        self._spend()
        self.current = name
        beat(EVALUATION if name in ("generate", "score") else LOADING)
        self.event("stage", stage=name, text=text, **details)
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed:6.1f} s] {name}: {text}", flush=True)

    def _spend(self) -> None:
        """Count the time since the last stage began to that stage."""
        now = time.monotonic()
        self._spent[self.current] = self._spent.get(self.current, 0.0) + now - self._since
        self._since = now

    def divide_time(self) -> dict[str, float]:
        """Return the seconds of this process by what they went into: start (libraries that load,
        data, model, token ids), training with its checkpoints, its evaluations, writing summaries,
        and the rest."""
        self._spend()
        spent = dict(self._spent)
        evaluation = spent.pop("evaluation", 0.0)
        parts = {
            "start": sum(spent.pop(name, 0.0) for name in (None, "data", "model", "encode")),
            "training": max(0.0, spent.pop("train", 0.0) - evaluation),
            "evaluation": evaluation,
            "writing": spent.pop("generate", 0.0),
        }
        parts["rest"] = sum(spent.values())
        return {name: round(seconds, 2) for name, seconds in parts.items()}

    def warn(self, message: str) -> None:
        """Say and record something that the user should look at."""
        self.event("warning", message=message)
        print(f"warning: {message}", flush=True)

    def remark(self, remark: Remark) -> None:
        """Say and record something that the curves show."""
        self.remarks.append(remark)
        self.event(**remark)
        print(f"note: {remark['message']}", flush=True)

    def train_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        """Record a line of loss, and how the card is."""
        loss, norm = logs.get("loss"), logs.get("grad_norm")
        card = self._read_card()
        self.event(
            "train",
            step=step,
            total_steps=total,
            epoch=logs.get("epoch"),
            loss=loss,
            grad_norm=norm,
            learning_rate=logs.get("learning_rate"),
            **card,
        )
        if loss is not None:
            print(
                f"step {step}/{total}  epoch {logs.get('epoch', 0):.2f}  loss {loss:.4f}  "
                f"grad norm {norm or 0:.2f}  learning rate {logs.get('learning_rate', 0):.2e}"
                f"{self._pace(step)}",
                flush=True,
            )
        numbers = {"loss": loss, "grad_norm": norm, "learning_rate": logs.get("learning_rate")}
        numbers |= card
        known = {key: value for key, value in numbers.items() if value is not None}
        self._report("train", step, known)

    def _read_card(self) -> dict[str, float | None]:
        """Return how the card was when it answered last, and have it asked again: nobody waits for
        a driver."""
        if self._asking is None or self._ask_card is None:
            return {}
        ask = self._ask_card

        def look() -> None:
            self._card = ask()

        card, self._card = self._card, None
        if self._asking.error is not None:
            self.warn(f"the card's temperature is not known any more: {self._asking.error}")
            self._asking = None
        else:
            self._asking.do(look)
        if card is None:
            return {}
        heat, watts = card.temperature_c, card.power_w
        self.hottest_c = max(filter(None, (self.hottest_c, heat)), default=None)
        self._watts += [] if watts is None else [watts]
        known = {
            "gpu_temperature_c": heat,
            "gpu_power_w": watts,
            "gpu_utilisation_percent": card.utilisation_percent,
        }
        return {name: one for name, one in known.items() if one is not None}

    def describe_card(self) -> dict[str, float | None] | None:
        """Return the highest temperature and the mean power over the logged steps of this process;
        None where no card told."""
        if self.hottest_c is None and not self._watts:
            return None
        watts = math.fsum(self._watts) / len(self._watts) if self._watts else None
        return {"hottest_c": self.hottest_c, "mean_power_w": watts and round(watts, 1)}

    def _pace(self, step: int) -> str:
        """Say the seconds per step since the line before, evaluations left out."""
        now = time.monotonic()
        before, moment = self._last_step
        self._last_step = (step, now)
        if not before or step <= before:
            return ""
        return f"  {(now - moment) / (step - before):.2f} s/step"

    def evaluation(
        self,
        step: int,
        total: int,
        *,
        epoch: float,
        values: Mapping[str, float],
        best: bool,
        seconds: float,
        rows: int,
        num_beams: int,
    ) -> None:
        """Record an evaluation on dev.

        Args:
            values: eval_loss and the ROUGE scores, 0-100.
            rows, num_beams: on what: these are fewer than the reported score's.
        """
        before, moment = self._last_step
        self._last_step = (before, moment + seconds)
        self._spent["evaluation"] = self._spent.get("evaluation", 0.0) + seconds
        self.event(
            "eval",
            step=step,
            total_steps=total,
            epoch=epoch,
            best=best,
            seconds=round(seconds, 2),
            rows=rows,
            num_beams=num_beams,
            **values,
        )
        measured = describe_measured(rows=rows, num_beams=num_beams)
        print(
            f"step {step}/{total}  dev ({measured}): R1 {values['rouge1']:.2f}  "
            f"R2 {values['rouge2']:.2f}  RL {values['rougeL']:.2f}  loss {values['eval_loss']:.4f}"
            f"{'  (best so far)' if best else ''}",
            flush=True,
        )
        self._report("dev", step, values)

    def _report(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if self._tensorboard_folder is not None:
            # Here: what is imported aside would cost a short run its curves.
            import torch.utils.tensorboard  # noqa: F401

            self._curves = self._curves or Aside("tensorboard")
            write = partial(self._write_curves, self._tensorboard_folder, kind, step, dict(values))
            self._curves.do(write)
            self._find_end_of_curves()
        for listener in self._listeners:
            listener(kind, step, values)

    def _write_curves(
        self, folder: Path, kind: str, step: int, values: Mapping[str, float]
    ) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a run had written after the checkpoint from which it goes on comes again.
            self._writer = SummaryWriter(str(folder), purge_step=step)
        for key, value in values.items():
            self._writer.add_scalar(f"{kind}/{key}", value, step)

    def _find_end_of_curves(self) -> None:
        """Say where TensorBoard failed, which then gets no more."""
        if self._curves is None or (error := self._curves.error) is None:
            return
        self._curves = self._tensorboard_folder = None
        why = getattr(error, "strerror", None) or first_line(error)
        self.warn(f"TensorBoard's curves end here ({why}); {KEPT_CURVES}")

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._curves is None:
            return
        self._curves.do(lambda: self._writer.close())
        if not self._curves.end(CURVES_SECONDS):
            self.warn(
                f"TensorBoard's files have not taken everything in {CURVES_SECONDS:g} s; "
                f"{KEPT_CURVES}"
            )
        self._find_end_of_curves()


BEGIN_SECONDS = 3.2  # for W&B's address to answer and then for W&B to begin, together
FINISH_SECONDS = 1.1  # for what it has not sent yet
CURVES_SECONDS = 0.5  # for TensorBoard's; a run loses no more than these by its trackers
KEPT_CURVES = "metrics.jsonl holds them all"
ANSWER_SECONDS = 0.2  # for W&B to say that it has not
LEAST_SECONDS = 0.5  # W&B takes 0 for no limit
MOST_CHARACTERS = 300  # of an error's text in the record
MOST_BYTES = 4096  # of an answer


COULD_NOT_START = "could not start: "
"""How `why` begins in the record where W&B was asked for and could not be had."""
MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""W&B's words for its mode, its old ones too, and the one that each stands for."""
BATCH_OFF = "DIALSUM_WANDB_OFF"
"""Variable in which a batch tells its later experiments why an earlier one could not start W&B."""


class WandbRun:
    """One W&B run, or the reason why there is none.

    Attributes:
        record: for result.json: `url` when there is one, and requested/used/why.
    """

    def __init__(
        self,
        asked: Tracking,
        *,
        name: str,
        group: str | None,
        config: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._run: Any = None
        self._aside: Aside | None = None
        self._latest = folder / "wandb" / "latest-run"
        self.record: dict[str, str] = {"requested": str(asked.wandb).lower()}
        if (why_off := find_why_off(asked, os.environ)) is not None:
            self._off(why_off)
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            if said := _read_mode(os.environ):
                os.environ["WANDB_MODE"] = MODES[said]  # W&B takes small letters alone
            import wandb
            from wandb.sdk import wandb_setup

            settings = wandb_setup.singleton().settings
            mode = MODES.get(settings.mode, "online")
            if mode == "disabled":
                self._off("its own settings say disabled (`wandb online` turns it on)")
                return
            began = time.monotonic()
            if mode != "offline":
                find_answer(settings.base_url)
            seconds = max(BEGIN_SECONDS - (time.monotonic() - began), LEAST_SECONDS)
            self._run = wandb.init(
                project=asked.project,
                entity=asked.entity,
                name=name,
                group=group,
                mode=mode,
                id=uuid.uuid4().hex[:12],  # its settings may name one for every run
                config=dict(config),
                dir=str(folder),
                reinit="finish_previous",
                settings=wandb.Settings(
                    init_timeout=seconds,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=True,
                    login_timeout=seconds,
                    console="off",
                    disable_git=True,
                    save_code=False,
                ),
            )
            # It would tell its service of each library that is imported from here on; with the
            # service dead, that import would fail, and the run with it.
            from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

            unregister_all_post_import_hooks()
        # W&B raises its own errors, the network's, its service's: none may end a night's training.
        except Exception as error:
            text = first_line(error)[:MOST_CHARACTERS]
            kind = "" if isinstance(error, UnreachableError) else f"{type(error).__name__}: "
            self._off(f"{COULD_NOT_START}{kind}{text}")
            return
        why = "a key was found" if asked.wandb == "auto" else "asked for"
        self.record |= {"used": "on", "why": why}
        if self._run.offline:
            where = "WANDB_MODE is" if said else "its own settings say"
            self.record |= {"used": "offline", "why": f"{where} {said or settings.mode}"}
        if getattr(self._run, "url", None):
            self.record["url"] = str(self._run.url)

    def _off(self, why: str) -> None:
        self._run = None
        self.record |= {"used": "off", "why": why}

    def describe(self) -> str:
        """Say in one line whether W&B is on, where, or why not."""
        if self.record["used"] == "off":
            return f"Weights & Biases off: {self.record['why']}"
        if self.record["used"] == "offline":
            return f"Weights & Biases offline, in the run folder: {self.record['why']}"
        return f"Weights & Biases on: {self.record.get('url', 'no address is known')}"

    def __call__(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Send one event; a failure turns W&B off for the rest of the run."""
        if self._run is None:
            return
        self._aside = self._aside or Aside("wandb")
        sent = {f"{kind}/{key}": value for key, value in values.items()}
        self._aside.do(partial(self._run.log, sent, step=step))
        if self._aside.error is not None:
            self._fail(self._aside.error)

    def finish(self, scores: Mapping[str, float], *, exit_code: int) -> None:
        """Close the run with its final scores."""
        if self._run is None:
            return
        run, aside = self._run, self._aside or Aside("wandb")
        aside.do(lambda: run.summary.update({f"final/{key}": one for key, one in scores.items()}))
        aside.do(lambda: run.finish(exit_code=exit_code))
        ended = aside.end(FINISH_SECONDS + ANSWER_SECONDS)
        if not ended or isinstance(aside.error, TimeoutError):
            # What it did not send stands on the disk, in a folder that the server does not name.
            print(
                f"warning: Weights & Biases has not taken everything in {FINISH_SECONDS:g} s; "
                f"send the rest later: wandb sync {in_command(self._latest.resolve())}",
                flush=True,
            )
        elif aside.error is not None:
            self._fail(aside.error)
        if not ended:
            _kill_service()

    def _fail(self, error: Exception) -> None:
        text = first_line(error)[:MOST_CHARACTERS]
        print(f"warning: Weights & Biases stopped: {text}; the run goes on", flush=True)
        self._off(f"stopped: {type(error).__name__}: {text}")
        if isinstance(error, ConnectionError):
            _forget_dead_service()


def _read_mode(environment: Mapping[str, str]) -> str:
    """Return what WANDB_MODE says, in small letters; empty where it says nothing."""
    return environment.get("WANDB_MODE", "").strip().lower()


def find_why_off(asked: Tracking, environment: Mapping[str, str]) -> str | None:
    """Return why W&B is off before anything of it is asked; None where it is to be tried."""
    mode = _read_mode(environment)
    disabled = environment.get("WANDB_DISABLED", "").strip()
    if asked.wandb is False:
        return "tracking.wandb is false"
    if mode == "disabled":
        return "WANDB_MODE is disabled in the environment"
    if disabled.lower() in ("1", "true", "t", "yes", "y", "on"):
        return f"WANDB_DISABLED is {disabled} in the environment"
    if mode and mode not in MODES:
        return f"{COULD_NOT_START}WANDB_MODE is {mode[:20]!r}; set it to one of {', '.join(MODES)}"
    if MODES.get(mode) == "offline":
        return None
    if not environment.get("WANDB_API_KEY"):
        return "WANDB_API_KEY is set neither in the environment nor in .env"
    return environment.get(BATCH_OFF)


class UnreachableError(Exception):
    """W&B's address does not answer as it should; the text says which and how."""


def find_answer(base_url: str, *, max_seconds: float = BEGIN_SECONDS) -> None:
    """Return once W&B's address has answered a question, whatever it answers.

    W&B itself tries a dead address for half a minute, and each experiment would wait for that.

    Args:
        max_seconds: for all of it, the look-up of the name too.

    Raises:
        UnreachableError: no connection, no answer in time, or not W&B's answer.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(base_url)
    place = parts.netloc.rpartition("@")[2] or base_url  # without a name and password
    url = parts._replace(netloc=place).geturl()
    said: list[str] = []

    def ask() -> None:
        with suppress(TimeoutError):
            said.append(_ask(url, max_seconds))

    # The look-up of a name knows no limit of time, so that a thread waits for it.
    asking = threading.Thread(target=ask, name="wandb-answer", daemon=True)
    asking.start()
    asking.join(max_seconds)
    wrong = said[0] if said else f"has not answered within {max_seconds:g} s"
    if wrong:
        raise UnreachableError(f"{place} {wrong}")


def _ask(base_url: str, max_seconds: float) -> str:
    """Return what is wrong with the answer; empty where W&B answers.

    Raises:
        TimeoutError: no answer in time.
    """
    import ssl
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        request = Request(
            f"{base_url.rstrip('/')}/graphql",
            data=b'{"query": "query { viewer { id } }"}',
            headers={"Content-Type": "application/json", "User-Agent": "dialsum"},
        )
        with urlopen(request, timeout=max_seconds) as answer:
            is_json = answer.read(MOST_BYTES).lstrip().startswith(b"{")
    except HTTPError as error:
        # It refuses a question without a key; that is an answer.
        return "" if error.code < 500 else f"answers {error.code} {error.reason}"
    except ssl.SSLError:
        return ""  # it is there; W&B has certificates of its own
    except OSError as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return ""
        if isinstance(cause, TimeoutError):
            raise TimeoutError from None
        return f"cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    except HTTPException:
        return "answers, but not as W&B does"
    except ValueError as error:
        return f"is no address: {error}"
    return "" if is_json else "answers, but not as W&B does"


def _kill_service() -> None:
    """End W&B's service where it does not answer: this process would wait for it at its end."""
    from wandb.sdk import wandb_setup

    connection: Any = wandb_setup.singleton().ensure_service()
    connection._proc._process.kill()
    with suppress(SystemExit):  # with the service's own status
        _forget_dead_service()


def _forget_dead_service() -> None:
    """Keep W&B from asking its dead service to end when this process does: that ends in a trace."""
    import wandb

    with suppress(ConnectionError):
        wandb.teardown()

"""Weights & Biases, held at arm's length: it never asks, never waits long, never ends a run.

Must not know the trainer. Every failure of W&B is said, recorded in the tracking record, and
training goes on without it.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from dialsum.config.schema import Tracking
from dialsum.errors import first_line

ANSWER_SECONDS = 5.0  # time that W&B's address has to answer, before anything else is asked
INIT_TIMEOUT_SECONDS = 15
FINISH_TIMEOUT_SECONDS = 60
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
        self.record: dict[str, str] = {"requested": str(asked.wandb).lower()}
        why_off = _find_why_off(asked, os.environ)
        if why_off is not None:
            self._off(why_off)
        else:
            self._start(asked, name=name, group=group, config=config, folder=folder)

    def _off(self, why: str) -> None:
        self._run = None
        self.record |= {"used": "off", "why": why}

    def _start(
        self,
        asked: Tracking,
        *,
        name: str,
        group: str | None,
        config: Mapping[str, Any],
        folder: Path,
    ) -> None:
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
            if mode != "offline":
                find_answer(settings.base_url)
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
                    init_timeout=INIT_TIMEOUT_SECONDS,
                    finish_timeout=FINISH_TIMEOUT_SECONDS,
                    finish_timeout_raises=True,
                    login_timeout=INIT_TIMEOUT_SECONDS,
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
        try:
            self._run.log({f"{kind}/{key}": value for key, value in values.items()}, step=step)
        except Exception as error:
            self._fail(error)

    def finish(self, scores: Mapping[str, float], *, exit_code: int) -> None:
        """Close the run with its final scores."""
        if self._run is None:
            return
        try:
            self._run.summary.update({f"final/{key}": value for key, value in scores.items()})
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            # What it did not send stands on the disk.
            print(
                f"warning: Weights & Biases has not taken everything in {FINISH_TIMEOUT_SECONDS} s;"
                f" send the rest later: wandb sync {Path(str(self._run.dir)).parent}",
                flush=True,
            )
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        text = first_line(error)[:MOST_CHARACTERS]
        print(f"warning: Weights & Biases stopped: {text}; the run goes on", flush=True)
        self._off(f"stopped: {type(error).__name__}: {text}")
        if isinstance(error, ConnectionError):
            _forget_dead_service()


def _read_mode(environment: Mapping[str, str]) -> str:
    """Return what WANDB_MODE says, in small letters; empty where it says nothing."""
    return environment.get("WANDB_MODE", "").strip().lower()


def _find_why_off(asked: Tracking, environment: Mapping[str, str]) -> str | None:
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


def find_answer(base_url: str, *, max_seconds: float = ANSWER_SECONDS) -> None:
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


def _forget_dead_service() -> None:
    """Keep W&B from asking its dead service to end when this process does: that ends in a trace."""
    import wandb

    with suppress(ConnectionError):
        wandb.teardown()

"""Weights & Biases, held at arm's length: it never asks, never waits long, never ends a run.

Must not know the trainer. Every failure of W&B is said, recorded in the tracking record, and
training goes on without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dialsum.config.schema import Tracking
from dialsum.errors import first_line

INIT_TIMEOUT_SECONDS = 30
FINISH_TIMEOUT_SECONDS = 60
MOST_CHARACTERS = 300  # of an error's text in the record


def read_env_file(path: Path) -> None:
    """Take HF_TOKEN, WANDB_API_KEY and the like from a .env file; the environment goes first."""
    if path.is_file():
        from dotenv import load_dotenv

        load_dotenv(path, override=False)


class WandbRun:
    """One W&B run, or the reason why there is none.

    Attributes:
        record: for result.json: `url` when there is one, and requested/used/why.
    """

    def __init__(self, asked: Tracking, *, name: str, group: str | None, config: Mapping[str, Any],
                 folder: Path) -> None:
        self._run: Any = None
        self.record: dict[str, str] = {"requested": str(asked.wandb).lower()}
        if asked.wandb is False:
            self._off("tracking.wandb is false")
        elif not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline":
            self._off("WANDB_API_KEY is set neither in the environment nor in .env")
        else:
            self._start(asked, name=name, group=group, config=config, folder=folder)

    def _off(self, why: str) -> None:
        self._run = None
        self.record |= {"used": "off", "why": why}

    def _start(self, asked: Tracking, *, name: str, group: str | None, config: Mapping[str, Any],
               folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            import wandb

            self._run = wandb.init(
                project=asked.project, entity=asked.entity, name=name, group=group,
                config=dict(config), dir=str(folder), reinit="finish_previous",
                settings=wandb.Settings(
                    init_timeout=INIT_TIMEOUT_SECONDS,
                    finish_timeout=FINISH_TIMEOUT_SECONDS, finish_timeout_raises=True,
                    login_timeout=INIT_TIMEOUT_SECONDS,
                    console="off", disable_git=True, save_code=False,
                ),
            )
            # It would tell its service of each library that is imported from here on; with the
            # service dead, that import would fail, and the run with it.
            from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

            unregister_all_post_import_hooks()
        # W&B raises its own errors, the network's, its service's: none may end a night's training.
        except Exception as error:
            text = first_line(error)[:MOST_CHARACTERS]
            self._off(f"could not start: {type(error).__name__}: {text}")
            return
        why = "a key was found" if asked.wandb == "auto" else "asked for"
        self.record |= {"used": "on", "why": why}
        if getattr(self._run, "url", None):
            self.record["url"] = str(self._run.url)

    def describe(self) -> str:
        """Say in one line whether W&B is on, where, or why not."""
        if self.record["used"] == "off":
            return f"Weights & Biases off: {self.record['why']}"
        return f"Weights & Biases on: {self.record.get('url', 'offline, in the run folder')}"

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


def _forget_dead_service() -> None:
    """Keep W&B from asking its dead service to end when this process does: that ends in a trace."""
    import wandb

    with suppress(ConnectionError):
        wandb.teardown()

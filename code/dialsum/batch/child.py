"""An experiment's process, of which nothing is ever left behind, and the wishes to stop.

The child leads a session, so that one signal reaches all that it started, and inherits a pipe whose
end tells it that the runner is gone. Must not know what the child computes, nor what its end means
for the batch; prints nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dialsum.errors import RunError, explain_os_error
from dialsum.parent_watch import PARENT_FD

POLL_SECONDS = 0.1
AGAIN_SECONDS = 0.5
"""Signals closer than this are one wish."""
GRACE_SECONDS = 60.0
"""Time between the wish to stop and the kill: a step, a save of some GB and the record must fit
in."""
KILL_SECONDS = 60.0
"""Time that a killed process may take to vanish: one that hangs in a driver never does."""


class Interrupts:
    """The wishes to stop that reached the runner: kept, never raised in the middle of something.

    Attributes:
        times: when they came, seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    @property
    def wanted(self) -> bool:
        """Whether somebody wants the batch to stop."""
        return bool(self.times)

    @property
    def insisted(self) -> bool:
        """Whether somebody asked again; `timeout` and some shells send each signal twice in one
        moment."""
        return bool(self.times) and self.times[-1] - self.times[0] >= AGAIN_SECONDS

    def receive(self) -> None:
        """Take note of a signal; which one it was does not matter."""
        self.times.append(time.monotonic())


@contextmanager
def listen_for_interrupts() -> Iterator[Interrupts]:
    """Collect Ctrl-C, SIGTERM and the end of the terminal instead of dying of them.

    A signal that the starter had ignored (nohup, a background job) stays ignored.
    """
    interrupts = Interrupts()
    old = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            old[number] = signal.signal(number, lambda *_: interrupts.receive())
    try:
        yield interrupts
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended.

    Attributes:
        exit_status: what it returned; None when a signal ended it.
        signal_name: the signal that ended it, such as SIGKILL; None when it returned.
        interrupted: whether it was asked to stop by the runner.
        killed: whether it had to be killed because it did not stop when asked.
    """

    exit_status: int | None
    signal_name: str | None
    interrupted: bool
    killed: bool


class Child:
    """A running command; whoever started it polls it until it has ended, or kills it.

    Args:
        command: program and arguments.
        log: gets what the child prints, stdout and stderr in order.
        environment: added to this process's own.
        grace_seconds: time it has to end after the first wish to stop.

    Attributes:
        pid: its process id, which is also its group's.

    Raises:
        RunError: the log cannot be opened or the command not be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._grace_seconds = grace_seconds
        self._deadline: float | None = None  # of the grace; None: not asked to stop
        self._killed = self._gone = False
        # The write end is never inherited, so that it closes with this process.
        read_end, self._write_end = os.pipe()
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    # Nobody answers a question at night: whoever asks one gets the end of file.
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[read_end],
                    env={
                        **os.environ,
                        **(environment or {}),
                        PARENT_FD: str(read_end),
                        "PYTHONUNBUFFERED": "1",
                        "PYTHONUTF8": "1",
                    },
                )
        except OSError as error:
            os.close(self._write_end)
            raise RunError(
                f"the experiment's process cannot be started: {explain_os_error(error)}"
            ) from error
        finally:
            os.close(read_end)
        self.pid = self._process.pid

    def poll(self, interrupts: Interrupts) -> ChildEnd | None:
        """Return how it ended, all that it left running ended too; None while it runs.

        The first wish to stop goes on to the child, which has its grace to end; a second one, or
        the end of that time, kills it and all that it started.

        Raises:
            RunError: it was killed and does not vanish.
        """
        # Asked without taking the exit status, where the system can: until then its number belongs
        # to nobody else.
        if hasattr(os, "waitid"):
            look = os.WEXITED | os.WNOWAIT | os.WNOHANG
            has_ended = os.waitid(os.P_PID, self.pid, look) is not None
        else:
            has_ended = self._process.poll() is not None
        if not has_ended:
            if interrupts.wanted and self._deadline is None:
                self._deadline = time.monotonic() + self._grace_seconds
                # To the child alone: its workers die with it, and would only print their own
                # tracebacks.
                self._process.send_signal(signal.SIGTERM)
            elif self._deadline and (interrupts.insisted or time.monotonic() > self._deadline):
                self._killed = True
                self._kill_group()
            return None
        self.kill()
        status = self._process.returncode
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return ChildEnd(
            exit_status=status if status >= 0 else None,
            signal_name=name if status < 0 else None,
            interrupted=self._deadline is not None,
            killed=self._killed,
        )

    def kill(self) -> None:
        """Kill what is left of the child's group, the child included, and take its exit status.

        Raises:
            RunError: it does not vanish.
        """
        if self._gone:
            return
        self._gone = True
        self._kill_group()
        try:
            self._process.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise RunError(
                f"the experiment's process {self.pid} was killed {KILL_SECONDS:g} s ago and is "
                "still there: it hangs in the system, most often in the GPU's driver; reboot the "
                "machine if the next experiment fails as well"
            ) from None
        finally:
            os.close(self._write_end)

    def _kill_group(self) -> None:
        # Nobody is left in it; macOS says so with EPERM when only the dead leader is.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

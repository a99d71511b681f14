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
from dataclasses import dataclass, field
from pathlib import Path

from dialsum.errors import RunError, explain_os_error
from dialsum.lifeline import BEAT_FD, EVALUATION, LOADING, PARENT_FD, SAVING, STACKS, STEP
from dialsum.text import format_duration

POLL_SECONDS = 0.1
AGAIN_SECONDS = 0.5
"""Signals closer than this are one wish."""
GRACE_SECONDS = 60.0
"""Time between the wish to stop and the kill: a step, a save of some GB and the record must fit
in."""
KILL_SECONDS = 60.0
"""Time that a killed process may take to vanish: one that hangs in a driver never does."""
DOING = {
    LOADING: ("loading", 2.0),
    STEP: ("a training step", 1.0),
    EVALUATION: ("an evaluation", 1.0),
    SAVING: ("saving", 2.0),
}
"""What a process may do, in words, and how much of the patience each has: disks may be slow."""
SEEN = 10.0
"""What once took long may take so many times as long."""
STACKS_SECONDS = 5.0
"""Time that a process has to write where it stands before it is killed."""
LONGEST_LOOK_SECONDS = 5.0
"""Between two looks; what is more is the runner's own sleep."""


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
    """Collect Ctrl-C and SIGTERM instead of dying of them; when the terminal closes, go on.

    A signal that the starter had ignored (nohup, a background job) stays ignored.
    """
    interrupts = Interrupts()
    old = {signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    for number in (signal.SIGINT, signal.SIGTERM):
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
        hung: what it did without a sign of life, and for how long, when it was ended for that.
    """

    exit_status: int | None
    signal_name: str | None
    interrupted: bool
    killed: bool
    hung: str | None = None


@dataclass
class Pulse:
    """The signs of life of a process: what it does, since when, and how long each sort of it took
    at most so far."""

    doing: str = LOADING
    since: float = field(default_factory=time.monotonic)
    longest: dict[str, float] = field(default_factory=dict)
    looked: float = field(default_factory=time.monotonic)

    def take(self, beats: str, *, now: float) -> None:
        """Take in what the process said since the last look.

        Args:
            now: seconds of the monotonic clock.
        """
        if (pause := now - self.looked) > LONGEST_LOOK_SECONDS:
            self.since += pause  # nobody looked: that time says nothing
        self.looked = now
        for doing in beats:
            spent = now - self.since
            self.longest[self.doing] = max(self.longest.get(self.doing, 0.0), spent)
            self.doing, self.since = doing, now

    def find_silence(self, patience_seconds: float | None) -> str | None:
        """Say what the process does without a sign of life for too long; None where it does not.

        Never for being slow: what was seen to take long may take SEEN times as long.
        """
        if patience_seconds is None:
            return None
        words, share = DOING.get(self.doing, DOING[LOADING])
        limit = max(patience_seconds * share, SEEN * self.longest.get(self.doing, 0.0))
        spent = self.looked - self.since
        return f"no sign of life for {format_duration(spent)} in {words}" if spent > limit else None


class Child:
    """A running command; whoever started it polls it until it has ended, or kills it.

    Args:
        command: program and arguments.
        log: gets what the child prints, stdout and stderr in order.
        environment: added to this process's own.
        grace_seconds: time it has to end after the first wish to stop.
        patience_seconds: time that it may be silent; None: any.

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
        patience_seconds: float | None = None,
    ) -> None:
        self._pulse, self._patience_seconds = Pulse(), patience_seconds
        self._hung: str | None = None
        self._grace_seconds = grace_seconds
        self._deadline: float | None = None  # of the grace; None: not asked to stop
        self._killed = self._gone = False
        # The write end is never inherited, so that it closes with this process.
        read_end, self._write_end = os.pipe()
        self._beats, beat_end = os.pipe()
        os.set_blocking(self._beats, False)
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
                    pass_fds=[read_end, beat_end],
                    env={
                        **os.environ,
                        **(environment or {}),
                        PARENT_FD: str(read_end),
                        BEAT_FD: str(beat_end),
                        "PYTHONUNBUFFERED": "1",
                        "PYTHONUTF8": "1",
                    },
                )
        except OSError as error:
            os.close(self._write_end)
            os.close(self._beats)
            raise RunError(
                f"the experiment's process cannot be started: {explain_os_error(error)}"
            ) from error
        finally:
            os.close(read_end)
            os.close(beat_end)
        self.pid = self._process.pid

    def poll(self, interrupts: Interrupts) -> ChildEnd | None:
        """Return how it ended, all that it left running ended too; None while it runs.

        The first wish to stop goes on to the child, which has its grace to end; a second one, or
        the end of that time, kills it and all that it started. So does a silence that lasts too
        long; before that it is asked to write where it stands.

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
            self._pulse.take(self._read_beats(), now=time.monotonic())
            if self._hung is not None:
                if self._deadline and time.monotonic() > self._deadline:
                    self._kill_group()
            elif interrupts.wanted and self._deadline is None:
                self._deadline = time.monotonic() + self._grace_seconds
                # To the child alone: its workers die with it, and would only print their own
                # tracebacks.
                self._process.send_signal(signal.SIGTERM)
            elif self._deadline and (interrupts.insisted or time.monotonic() > self._deadline):
                self._killed = True
                self._kill_group()
            elif not self._deadline and (
                silence := self._pulse.find_silence(self._patience_seconds)
            ):
                self._hung = silence
                self._deadline = time.monotonic() + STACKS_SECONDS
                self._process.send_signal(STACKS)
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
            interrupted=self._deadline is not None and self._hung is None,
            killed=self._killed,
            hung=self._hung,
        )

    def _read_beats(self) -> str:
        with suppress(BlockingIOError):
            return os.read(self._beats, 2**16).decode("ascii", "replace")
        return ""

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
            os.close(self._beats)

    def _kill_group(self) -> None:
        # Nobody is left in it; macOS says so with EPERM when only the dead leader is.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

"""Runs one experiment as a process of its own, never leaves anything of it behind, and hears the
wish to stop.

The child leads a session, so that one signal reaches all that it started, and inherits a pipe whose
end tells it that the runner is gone. Must not know what the child computes, nor what its end means
for the batch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dialsum.errors import RunError, explain_os_error
from dialsum.parent_watch import PARENT_FD

POLL_SECONDS = 0.1
AGAIN_SECONDS = 0.5
"""Signals closer than this are one wish."""


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

    def sleep(self, seconds: float) -> bool:
        """Wait; return False at once when somebody wants to stop."""
        end = time.monotonic() + seconds
        while not self.wanted and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))
        return not self.wanted


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


POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0
"""Time between the wish to stop and the kill: a step, a save of some GB and the record must fit
in."""
KILL_SECONDS = 60.0
"""Time that a killed process may take to vanish: one that hangs in a driver never does."""


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
    started_at: datetime
    finished_at: datetime
    interrupted: bool
    killed: bool


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    interrupts: Interrupts,
    on_start: Callable[[int], None] | None = None,
    on_poll: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> ChildEnd:
    """Run a command to its end, its output into a file; then end whatever it left running.

    The first wish to stop goes on to the child, which has grace_seconds to end; a second one, or
    the end of that time, kills it and all that it started.

    Args:
        command: program and arguments.
        log: gets what the child prints, stdout and stderr in order.
        on_start: called once with the child's process id, which is also its group's.
        on_poll: called about ten times a second while the child runs. If it raises, the child is
            killed first.
        environment: added to this process's own.

    Raises:
        RunError: the log cannot be opened or the command not be started.
    """
    started = datetime.now().astimezone()
    with _parent_pipe() as read_end:
        child = _start(
            command, log, read_end, {**os.environ, **(environment or {}), PARENT_FD: str(read_end)}
        )
        try:
            if on_start is not None:
                on_start(child.pid)
            stopping = _follow(child, interrupts, on_poll or _do_nothing, grace_seconds)
        finally:
            _end_group(child)
    status = child.returncode
    return ChildEnd(
        exit_status=status if status >= 0 else None,
        signal_name=_name_signal(-status) if status < 0 else None,
        started_at=started,
        finished_at=datetime.now().astimezone(),
        interrupted=stopping.asked,
        killed=stopping.killed,
    )


def _do_nothing() -> None:
    pass


@contextmanager
def _parent_pipe() -> Iterator[int]:
    """Hold a pipe open; yield its read end. Its write end is never inherited."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(read_end)
        os.close(write_end)


def _start(
    command: Sequence[str], log: Path, read_end: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                # Nobody answers a question at night: whoever asks one gets the end of file.
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[read_end],
                env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
            )
    except OSError as error:
        raise RunError(
            f"the experiment's process cannot be started: {explain_os_error(error)}"
        ) from error


@dataclass
class _Stopping:
    """How far the stopping of a child has come."""

    asked: bool = False
    killed: bool = False
    deadline: float = 0.0


def _follow(
    child: subprocess.Popen[bytes],
    interrupts: Interrupts,
    on_poll: Callable[[], None],
    grace_seconds: float,
) -> _Stopping:
    stopping = _Stopping()
    while not _has_ended(child):
        on_poll()
        if interrupts.wanted and not stopping.asked:
            stopping.asked = True
            stopping.deadline = time.monotonic() + grace_seconds
            # To the child alone: its workers die with it, and would only print their own
            # tracebacks.
            child.send_signal(signal.SIGTERM)
        elif stopping.asked and (interrupts.insisted or time.monotonic() > stopping.deadline):
            stopping.killed = True
            _kill_group(child.pid)
        time.sleep(POLL_SECONDS)
    on_poll()
    return stopping


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Ask without taking the exit status, where the system can: until then its number belongs to
    nobody else."""
    if child.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return child.poll() is not None
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's group, the child included, and take its exit status."""
    _kill_group(child.pid)
    try:
        child.wait(timeout=KILL_SECONDS)
    except subprocess.TimeoutExpired:
        raise RunError(
            f"the experiment's process {child.pid} was killed {KILL_SECONDS:g} s ago and is "
            "still there: it hangs in "
            "the system, most often in the GPU's driver; reboot the machine if the next "
            "experiment fails as well"
        ) from None


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it; macOS says so with EPERM when only the dead leader is


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""What ties a run's process to its runner: it ends with it, and tells it that it gets on.

The runner holds the write end of a pipe and never writes; its death, however sudden, closes that
end, and the read end, which the child inherits, comes to its end of file. Through a second pipe the
child says what it does next, each time that it gets on; no disk is asked for either. Standard
library only; must not know what the child does.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from dialsum.errors import UnfitError

PARENT_FD = "DIALSUM_PARENT_FD"
"""Environment variable with the number of the pipe's read end; absent where no runner started this
process."""
BEAT_FD = "DIALSUM_BEAT_FD"
"""The same of the write end of the pipe for signs of life."""
LOADING, STEP, EVALUATION, SAVING = "l", "s", "e", "w"
"""What a process does next."""
STACKS = signal.SIGUSR1
"""Has a process write where each of its threads stands."""
PARENT_SECONDS = 0.5
"""Between two looks at whether the parent is still there."""

_beats: int | None = None


def beat(doing: str) -> None:
    """Tell the runner that this process gets on, and what it does next; without one, nothing."""
    if _beats is not None:
        with suppress(OSError):  # the runner does not read just now, or is gone
            os.write(_beats, doing.encode())


def watch_parent() -> threading.Thread | None:
    """Start watching the runner; return None where none started this process.

    Call it before anything slow: a runner that died meanwhile is noticed at once.

    Raises:
        UnfitError: the variable names no open pipe, as when it was exported by hand.
    """
    global _beats
    ends = {name: _take_end(name) for name in (PARENT_FD, BEAT_FD)}
    descriptor, _beats = ends[PARENT_FD], ends[BEAT_FD]
    if descriptor is None:
        return None
    if _beats is not None:
        os.set_blocking(_beats, False)
    if sys.__stderr__ is not None:
        faulthandler.register(STACKS, file=sys.__stderr__)
    thread = threading.Thread(
        target=_wait_for_end, args=(descriptor,), name="parent-watch", daemon=True
    )
    thread.start()
    return thread


def run_main(module: str) -> list[str]:
    """Return the command that runs a module's main in a process of its own, its arguments to
    follow."""
    code = str(Path(__file__).resolve().parents[1])
    program = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; main()"
    return [sys.executable, "-c", program, code]


def end_with(parent: int) -> None:
    """Let this process end when the one that started it has, however sudden that was; what asks a
    whole group to stop, as Ctrl-C and a closed terminal do, is for that one alone to follow.

    Asked for instead of told by a pipe: whatever else the parent forked would hold its end open.
    Call it before anything slow.

    Args:
        parent: its process id.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _take_end(name: str) -> int | None:
    """Return the end of a pipe that a variable names; it is not for this process's own children."""
    text = os.environ.pop(name, None)
    if text is None:
        return None
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        raise UnfitError(
            f"{name}={text!r} names no open pipe ({error}); unset {name} and start again"
        ) from None
    return descriptor


def _wait_for_end(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass  # nobody writes; a stray byte is no end
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    # A process that leads no group of its own must not take its neighbours along.
    os.kill(os.getpid(), signal.SIGKILL)

"""Ends a child process, with all that it started, the moment the runner that started it is gone.

The runner holds the write end of a pipe and never writes; its death, however sudden, closes that
end, and the read end, which the child inherits, comes to its end of file. Standard library only;
must not know what the child does.
"""

from __future__ import annotations

import os
import signal
import threading

from dialsum.errors import UnfitError

PARENT_FD = "DIALSUM_PARENT_FD"
"""Environment variable with the number of the pipe's read end; absent where no runner started this
process."""


def watch_parent() -> threading.Thread | None:
    """Start watching the runner; return None where none started this process.

    Call it before anything slow: a runner that died meanwhile is noticed at once.

    Raises:
        UnfitError: the variable names no open pipe, as when it was exported by hand.
    """
    text = os.environ.pop(PARENT_FD, None)  # not for this process's own children
    if text is None:
        return None
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        raise UnfitError(
            f"{PARENT_FD}={text!r} names no open pipe ({error}); unset {PARENT_FD} and start again"
        ) from None
    thread = threading.Thread(
        target=_wait_for_end, args=(descriptor,), name="parent-watch", daemon=True
    )
    thread.start()
    return thread


def _wait_for_end(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass  # nobody writes; a stray byte is no end
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    # A process that leads no group of its own must not take its neighbours along.
    os.kill(os.getpid(), signal.SIGKILL)

"""Ctrl-C and SIGTERM during a run: raised where it may be cut off, kept where it may not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dialsum.experiment.recording import AGAIN_SECONDS, listen_for_stop_signals


def send(number: int) -> None:
    """Send this process a signal and let Python's handler run."""
    os.kill(os.getpid(), number)
    for _ in range(100):
        pass


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_kept_until_the_run_may_be_cut_off(number: int) -> None:
    before = signal.getsignal(number)
    with listen_for_stop_signals() as signals:
        send(number)
        send(number)
        with pytest.raises(KeyboardInterrupt):
            signals.let_go()
        signals.hold()
        signals.let_go()  # both were one wish
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_may_be_cut_off_and_the_next_of_that_moment_does_not(
    number: int,
) -> None:
    assert AGAIN_SECONDS >= 0.5
    with listen_for_stop_signals() as signals:
        signals.let_go()
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)
        signals.hold()
        send(number)
        with pytest.raises(KeyboardInterrupt):
            signals.let_go()


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listen_for_stop_signals() as signals:
            send(signal.SIGHUP)
            signals.let_go()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_in_another_thread_leaves_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with listen_for_stop_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_forked_process_dies_of_its_signal() -> None:
    with listen_for_stop_signals():
        child = os.fork()
        if child == 0:
            try:
                send(signal.SIGTERM)
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

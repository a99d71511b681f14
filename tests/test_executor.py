"""One child process: its end, its log, signals, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dialsum.batch.child import ChildEnd, Interrupts, listen_for_interrupts, run_child
from dialsum.errors import RunError, UnfitError
from dialsum.parent_watch import PARENT_FD, watch_parent

CODE = str(Path(__file__).resolve().parent.parent / "code")
PATIENCE_SECONDS = 30.0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is true that is sure to become true; fail when it never does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"still not so after {PATIENCE_SECONDS:g} s"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that waits to be taken note of has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run_python(program: str, folder: Path, **options: object) -> ChildEnd:
    """Run a Python program as a child, its log in folder."""
    interrupts = options.pop("interrupts", None) or Interrupts()
    return run_child(
        [sys.executable, "-c", program], log=folder / "log", interrupts=interrupts, **options
    )  # type: ignore[arg-type]


ENDS = [
    ("", 0, None),
    ("import sys; sys.exit(1)", 1, None),
    ("import sys; sys.exit(2)", 2, None),
    ("import os; os.kill(os.getpid(), 9)", None, "SIGKILL"),
    ("import os; os.kill(os.getpid(), 15)", None, "SIGTERM"),
]


@pytest.mark.parametrize(("program", "status", "signal_name"), ENDS)
def test_how_a_child_ended_is_told(
    tmp_path: Path, program: str, status: int | None, signal_name: str | None
) -> None:
    end = run_python(program, tmp_path)
    assert (end.exit_status, end.signal_name) == (status, signal_name)
    assert not end.interrupted
    assert end.started_at <= end.finished_at


def test_output_of_both_streams_is_in_the_log_and_nobody_can_be_asked(tmp_path: Path) -> None:
    program = (
        "import sys; print('요약', flush=True); print('oops', file=sys.stderr, flush=True)\n"
        "print(repr(sys.stdin.read()))"
    )
    run_python(program, tmp_path)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "요약\noops\n''\n"


def test_child_leads_its_own_group_and_is_followed(tmp_path: Path) -> None:
    started: list[int] = []
    polls: list[float] = []
    run_python(
        "import os; print(os.getpgrp(), os.getsid(0))",
        tmp_path,
        on_start=started.append,
        on_poll=lambda: polls.append(time.monotonic()),
    )
    assert (tmp_path / "log").read_text().split() == [str(started[0])] * 2
    assert polls


def test_what_a_child_leaves_running_is_ended_with_it(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid)"
    )
    run_python(program, tmp_path)
    wait_for(lambda: is_gone(int((tmp_path / "log").read_text())))


def test_a_command_that_is_none_is_an_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be started: .*no-such-program"):
        run_child(
            [str(tmp_path / "no-such-program")], log=tmp_path / "log", interrupts=Interrupts()
        )


def test_a_log_that_cannot_be_opened_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be started"):
        run_child([sys.executable], log=tmp_path / "file" / "log", interrupts=Interrupts())


def test_a_wish_to_stop_reaches_the_child(tmp_path: Path) -> None:
    interrupts = Interrupts()
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print('ready', flush=True); time.sleep(600)"
    )

    def stop_when_ready() -> None:
        if not interrupts.wanted and "ready" in (tmp_path / "log").read_text():
            interrupts.receive()

    end = run_python(program, tmp_path, interrupts=interrupts, on_poll=stop_when_ready)
    assert (end.exit_status, end.interrupted, end.killed) == (130, True, False)


STUBBORN = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True); time.sleep(600)"
)


def test_a_child_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    interrupts = Interrupts()

    def stop_when_ready() -> None:
        if not interrupts.wanted and "ready" in (tmp_path / "log").read_text():
            interrupts.receive()

    end = run_python(
        STUBBORN, tmp_path, interrupts=interrupts, on_poll=stop_when_ready, grace_seconds=0.3
    )
    assert (end.signal_name, end.interrupted, end.killed) == ("SIGKILL", True, True)


def test_a_second_wish_kills_at_once(tmp_path: Path) -> None:
    interrupts = Interrupts()

    def stop_twice() -> None:
        again = interrupts.wanted and not interrupts.insisted
        if again or "ready" in (tmp_path / "log").read_text():
            interrupts.receive()

    end = run_python(
        STUBBORN, tmp_path, interrupts=interrupts, on_poll=stop_twice, grace_seconds=600
    )
    assert end.killed


def test_signals_of_one_moment_are_one_wish() -> None:
    interrupts = Interrupts()
    assert not interrupts.wanted
    interrupts.receive()
    interrupts.receive()
    assert interrupts.wanted
    assert not interrupts.insisted


def test_a_child_is_ended_when_its_follower_fails(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_python("import time; time.sleep(600)", tmp_path, on_start=pids.append, on_poll=fail)
    assert is_gone(pids[0])


def test_signals_are_heard_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listen_for_interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: interrupts.wanted)
        assert not interrupts.sleep(600)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listen_for_interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.sleep(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_runner_means_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_FD, raising=False)
    assert watch_parent() is None


@pytest.mark.parametrize("value", ["", "seven", "987654"])
def test_a_number_that_is_no_pipe_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_FD, value)
    with pytest.raises(UnfitError, match=f"{PARENT_FD}='{value}' names no open pipe"):
        watch_parent()


RUNNER = f"""
import sys
sys.path.insert(0, {CODE!r})
from pathlib import Path
from dialsum.batch.child import Interrupts, run_child
run_child([sys.executable, "-c", sys.argv[1]], log=Path(sys.argv[2]), interrupts=Interrupts())
"""
CHILD = f"""
import subprocess, sys, time
sys.path.insert(0, {CODE!r})
from dialsum.parent_watch import watch_parent
watch_parent()
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
import os
print(os.getpid(), helper.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_runner_leaves_neither_child_nor_grandchild(tmp_path: Path) -> None:
    log = tmp_path / "log"
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, CHILD, str(log)])
    try:
        wait_for(lambda: log.exists() and len(log.read_text().split()) == 2)
        pids = [int(word) for word in log.read_text().split()]
        assert not any(is_gone(pid) for pid in pids)
    finally:
        runner.kill()
        runner.wait()
    wait_for(lambda: all(is_gone(pid) for pid in pids))

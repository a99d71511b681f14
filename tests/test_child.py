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

from dialsum.batch.child import Child, ChildEnd, Interrupts, Pulse, listen_for_interrupts
from dialsum.errors import RunError, UnfitError
from dialsum.lifeline import PARENT_FD, watch_parent

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
    return follow([sys.executable, "-c", program], folder / "log", **options)  # type: ignore[arg-type]


def follow(
    command: list[str],
    log: Path,
    *,
    interrupts: Interrupts | None = None,
    on_poll: Callable[[], None] = lambda: None,
    grace_seconds: float = 60.0,
) -> ChildEnd:
    """Run a command to its end, polled as the queue does."""
    child = Child(command, log=log, grace_seconds=grace_seconds)
    while (end := child.poll(interrupts or Interrupts())) is None:
        on_poll()
        time.sleep(0.02)
    return end


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


def test_output_of_both_streams_is_in_the_log_and_nobody_can_be_asked(tmp_path: Path) -> None:
    program = (
        "import sys; print('요약', flush=True); print('oops', file=sys.stderr, flush=True)\n"
        "print(repr(sys.stdin.read()))"
    )
    run_python(program, tmp_path)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "요약\noops\n''\n"


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
        Child([str(tmp_path / "no-such-program")], log=tmp_path / "log")


def test_a_log_that_cannot_be_opened_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be started"):
        Child([sys.executable], log=tmp_path / "file" / "log")


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


@pytest.mark.parametrize(("grace_seconds", "wishes"), [(0.3, 1), (600.0, 2)])
def test_a_child_that_does_not_listen_is_killed_after_the_grace_or_a_second_wish(
    tmp_path: Path, grace_seconds: float, wishes: int
) -> None:
    interrupts = Interrupts()

    def wish() -> None:
        if "ready" in (tmp_path / "log").read_text() and not (
            interrupts.insisted or len(interrupts.times) == wishes == 1
        ):
            interrupts.receive()

    end = run_python(
        STUBBORN, tmp_path, interrupts=interrupts, on_poll=wish, grace_seconds=grace_seconds
    )
    assert (end.signal_name, end.interrupted, end.killed) == ("SIGKILL", True, True)


def test_signals_of_one_moment_are_one_wish() -> None:
    interrupts = Interrupts()
    assert not interrupts.wanted
    interrupts.receive()
    interrupts.receive()
    assert interrupts.wanted
    assert not interrupts.insisted


def test_a_child_can_be_killed_more_than_once(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(600)"], log=tmp_path / "log")
    for _ in range(2):
        child.kill()
        assert is_gone(child.pid)


def test_signals_are_heard_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listen_for_interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: interrupts.wanted)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with listen_for_interrupts() as interrupts:
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            time.sleep(0.05)
            assert not interrupts.wanted
    finally:
        signal.signal(signal.SIGTERM, before)


SILENT = """
import sys, time
sys.path.insert(0, {code!r})
from dialsum.lifeline import STEP, beat, watch_parent
watch_parent()
for _ in range({beats}):
    beat(STEP)
    time.sleep(0.2)
def stand_still():
    time.sleep({silence})
stand_still()
"""


def test_a_child_without_a_sign_of_life_says_where_it_stands_and_is_ended(tmp_path: Path) -> None:
    child = Child(
        [sys.executable, "-c", SILENT.format(code=CODE, beats=1, silence=600)],
        log=tmp_path / "log",
        patience_seconds=1.0,
    )
    ends: list[ChildEnd] = []
    wait_for(lambda: bool((end := child.poll(Interrupts())) and (ends.append(end) or True)))
    [end] = ends
    assert end.hung is not None and "in a training step" in end.hung
    assert not (end.interrupted or end.killed)
    assert "in stand_still" in (tmp_path / "log").read_text(encoding="utf-8")
    assert is_gone(child.pid)


def test_a_child_that_gets_on_slowly_is_left_alone(tmp_path: Path) -> None:
    program = SILENT.format(code=CODE, beats=10, silence=0)
    child = Child([sys.executable, "-c", program], log=tmp_path / "log", patience_seconds=1.0)
    ends: list[ChildEnd] = []
    wait_for(lambda: bool((end := child.poll(Interrupts())) and (ends.append(end) or True)))
    assert (ends[0].exit_status, ends[0].hung) == (0, None)


def test_patience_is_twofold_for_loading_and_grows_with_what_was_seen() -> None:
    def silent_after(pulse: Pulse, *looks: float) -> str | None:
        for now in looks:
            pulse.take("", now=now)
        return pulse.find_silence(100.0)

    def every(first: int, last: int) -> list[float]:
        return [float(second) for second in range(first, last, 4)]

    fresh = Pulse(since=0.0, looked=0.0)
    assert silent_after(fresh, *every(0, 200)) is None
    assert silent_after(fresh, *every(200, 210)) == "no sign of life for 3 m 28 s in loading"
    step = Pulse(since=0.0, looked=0.0)
    step.take("s", now=1.0)
    assert silent_after(step, *every(1, 100)) is None
    assert silent_after(step, *every(100, 106)) is not None
    # A step that took 50 s lets others take 500 s.
    slow = Pulse(doing="s", since=0.0, looked=0.0, longest={"s": 50.0})
    assert silent_after(slow, *every(0, 500)) is None
    assert silent_after(slow, *every(500, 510)) is not None
    # A runner that was stopped itself has seen nothing.
    asleep = Pulse(doing="s", since=0.0, looked=0.0)
    assert silent_after(asleep, 1000.0, 1001.0) is None
    assert silent_after(asleep, *every(1001, 1110)) is not None
    assert Pulse(since=-1e9).find_silence(None) is None


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
import time
from dialsum.batch.child import Child, Interrupts
child = Child([sys.executable, "-c", sys.argv[1]], log=Path(sys.argv[2]))
while child.poll(Interrupts()) is None:
    time.sleep(0.02)
"""
CHILD = f"""
import subprocess, sys, time
sys.path.insert(0, {CODE!r})
from dialsum.lifeline import watch_parent
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

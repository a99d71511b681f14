"""Events to lines, estimates, the screen, and the hand-over of the GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_screen
from dialsum.batch.cards import (
    TOLERANCE_BYTES,
    CardUse,
    find_strangers,
    wait_for_strangers,
    wait_until_free,
)
from dialsum.batch.screen import EventFile, RunProgress, Screen, estimate_rest
from dialsum.score.show import format_final
from dialsum.text import cut_to_width, format_duration
from dialsum.train.progress import COUNT_EVERY_SECONDS, Progress
from gpu_states import make_gpu

CODE = str(Path(__file__).resolve().parent.parent / "code")
DURATIONS = [
    (0, "0 s"),
    (58.4, "58 s"),
    (89.4, "89 s"),
    (89.6, "1 m 30 s"),
    (200, "3 m 20 s"),
    (599.9, "10 m"),
    (2700, "45 m"),
    (3599, "1 h 00 m"),
    (4800, "1 h 20 m"),
    (90000, "25 h 00 m"),
]


@pytest.mark.parametrize(("seconds", "expected"), DURATIONS)
def test_durations_for_people(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


RESTS = [
    ([None], [], 0, None, None),
    ([], [(None, 60)], 0, None, None),
    ([600, 600], [], 100, 300, None),
    ([600], [(600, 0)], 100, None, None),
    ([None, None], [(None, 60)], 20, None, "about 1 m 40 s left in the batch"),
    ([600, 1200], [(300, 600)], 100, None, "about 58 m left in the batch"),
    ([600, 1200], [(300, 600)], 100, 60, "about 58 m left in the batch"),
    ([600, 1200], [(300, 600)], 5000, 60, "about 41 m left in the batch"),
    ([600, 1200], [(300, 600)], 5000, None, "at least 40 m left in the batch"),
    ([600], [(300, 600)], 5000, None, None),
    ([600, None], [(300, 60)], 0, None, "about 2 m 00 s left in the batch"),
]
"""Expected seconds of the rest, what is finished, the running one so far and by its steps."""


@pytest.mark.parametrize(("rest", "finished", "so_far", "left", "expected"), RESTS)
def test_rest_of_a_batch_is_estimated_from_what_was_measured(
    rest: list[float | None],
    finished: list[tuple[float | None, float]],
    so_far: float,
    left: float | None,
    expected: str | None,
) -> None:
    running = [(one, so_far, left) for one in rest[:1]]
    estimate = estimate_rest(running, rest[1:], finished=finished)
    assert estimate == expected


def test_the_rest_of_several_that_run_at_the_same_time() -> None:
    finished = [(None, 100.0)]
    two = [(None, 40.0, None), (None, 90.0, 30.0)]
    said = "about 2 m 40 s left in the batch"  # 70 and 30 of those that run, 220 of two to come
    assert estimate_rest(two, [None, None], finished=[(None, 110.0)], slots=2) == said
    assert estimate_rest(two, [], finished=finished, slots=2) == "about 60 s left in the batch"
    late = [(None, 140.0, None), (None, 90.0, 30.0)]
    assert estimate_rest(late, [], finished=finished, slots=2) == "at least 30 s left in the batch"


def test_progress_of_a_run() -> None:
    run = RunProgress()
    assert run.describe() == "starting"
    assert run.update({"event": "stage", "stage": "model"}, now=0) == "loading tokenizer and model"
    assert run.describe() == "loading tokenizer and model"
    run.update({"event": "stage", "stage": "train"}, now=2)
    assert run.seconds_left(2) is None
    of = {"total_steps": 100, "epoch": 0.1}
    event = {"event": "train", **of, "loss": 3.0}
    assert run.update({**event, "step": 10}, now=10) is None
    assert run.seconds_left(11) is None
    run.update({**event, "step": 20, "loss": 2.5}, now=20)
    assert run.seconds_left(20) == pytest.approx(80)
    assert run.seconds_left(25) == pytest.approx(75)
    scores = {"rouge1": 20.0, "rouge2": 10.0, "rougeL": 15.0, "rouge_mean": 15.0}
    line = run.update({"event": "eval", **of, "step": 20, "best": True, **scores}, now=22)
    assert line is not None
    assert "R1 20.00 R2 10.00 RL 15.00, mean 15.00 (best so far)" in line
    worse = {**scores, "rouge_mean": 9.0}
    run.update({"event": "eval", **of, "step": 30, "best": False, **worse}, now=24)
    assert run.describe() == "step 30/100  loss 2.500  best 15.00"


def test_time_left_neither_falls_to_nothing_nor_jumps_while_an_event_is_late() -> None:
    run = RunProgress(stage="train")
    for step in (10, 20, 30):
        run.update({"event": "train", "step": step, "total_steps": 100}, now=float(step))
    left = [run.seconds_left(float(now)) or 0.0 for now in range(30, 131)]
    assert left[:11] == pytest.approx(range(70, 59, -1))
    assert all(later > earlier for earlier, later in pairwise(left[10:]))
    run.update({"event": "train", "step": 40, "total_steps": 100}, now=130.0)
    assert run.seconds_left(130.0) == pytest.approx(left[-1])


def test_time_left_follows_the_pace_of_the_last_steps() -> None:
    run = RunProgress(stage="train")
    times = [60.0, *(60.0 + step for step in range(2, 41))]
    for step, now in enumerate(times, start=1):
        run.update({"event": "train", "step": step, "total_steps": 50}, now=now)
    assert run.seconds_left(times[-1]) == pytest.approx(10)
    run.update({"event": "train", "step": 50, "total_steps": 50}, now=120.0)
    assert run.seconds_left(121.0) is None


ODD_EVENTS: list[dict[str, Any]] = [
    {},
    {"event": "news"},
    {"event": "train"},
    {"event": "train", "step": 5, "loss": "nan", "epoch": None},
    {"event": "eval", "rouge1": None},
    {"event": "stage", "stage": "something new"},
    {"event": "train", "step": "five", "total_steps": None},
    {"event": "eval", "step": 1.5, "total_steps": "nan", "rouge_mean": "x", "best": True},
]


@pytest.mark.parametrize("event", ODD_EVENTS)
def test_odd_events_break_nothing(event: dict[str, Any]) -> None:
    run = RunProgress()
    run.update(event, now=0)
    run.update({"event": "stage", "stage": "train"}, now=1)
    assert run.describe()


FINALS: list[tuple[dict[str, Any], str]] = [
    ({}, "dev: without scores"),
    ({"floors": None, "rows": "x", "num_beams": None}, "dev: without scores"),
    ({"rouge1": "nan", "rows": 80}, "dev (80 rows): R1 nan"),
    (
        {"rouge1": 5, "rouge_mean": 4.0, "rows": 1200, "num_beams": 1},
        "dev (1,200 rows, greedy): R1 5.00, mean 4.00",
    ),
    (
        {"rouge1": 5, "num_beams": 4, "floors": {"constant": {"rouge_mean": 3.0}}},
        "dev (4 beams): R1 5.00 (constant sentence: mean 3.00)",
    ),
]


@pytest.mark.parametrize(("dev", "expected"), FINALS)
def test_the_final_line_says_what_its_scores_stand_on(dev: dict[str, Any], expected: str) -> None:
    assert format_final(dev) == expected


SAID = [
    ({"event": "stage", "stage": "generate"}, "writing summaries", "writing summaries"),
    (
        {"event": "stage", "stage": "generate", "split": "dev", "rows": 1499},
        "writing 1,499 dev summaries",
        "writing 1,499 dev summaries",
    ),
    ({"event": "warning", "message": "3 NaN"}, "warning: 3 NaN", "step 0"),
    ({"event": "train", "step": 1, "total_steps": 9, "loss": "nan"}, None, "step 1/9  loss nan"),
]


@pytest.mark.parametrize(("event", "line", "state"), SAID)
def test_what_an_event_says(event: dict[str, Any], line: str | None, state: str) -> None:
    run = RunProgress(stage="train")
    assert run.update(event, now=0) == line
    assert run.describe() == state


def test_summaries_that_are_written_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("dialsum.train.progress.time.monotonic", lambda: now)
    progress = Progress(tmp_path / "metrics.jsonl")
    progress.stage("generate", "dev summaries", split="dev", rows=1200)
    for done in range(100, 1300, 100):
        now += 0.4 * COUNT_EVERY_SECONDS
        progress.count_written(done, 1200)
    said = capsys.readouterr().out.splitlines()[1:]
    assert said == [f"  {done:,} of 1,200 summaries written" for done in (300, 600, 900, 1200)]
    run = RunProgress()
    for event in EventFile(tmp_path / "metrics.jsonl").read_new():
        run.update(event, now=0)
    assert run.describe() == "1,200 of 1,200 summaries written"


def test_half_a_line_waits_and_a_broken_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    events = EventFile(path)
    path.write_text('{"event": "a"}\n{"event"')
    assert events.read_new() == [{"event": "a"}]
    with path.open("a") as file:
        file.write(': "b"}\nnot json\n[1]\n')
    second, broken, other = events.read_new()
    assert second == {"event": "b"}
    assert broken["event"] == other["event"] == "warning"
    assert "not json" in broken["message"]


def test_plain_output_is_whole_lines_at_a_moderate_rate() -> None:
    times = iter([0.0, 1.0, 59.0, 60.0, 61.0])
    stream = StringIO()
    screen = Screen(stream=stream, terminal=False, clock=lambda: next(times))
    for number in range(5):
        screen.show_progress(lambda number=number: f"line {number}")  # type: ignore[misc]
    assert stream.getvalue() == "line 0\nline 3\n"


def test_a_terminal_line_is_written_over_and_cleared() -> None:
    screen, stream = make_screen(terminal=True)
    screen.show_progress(lambda: "passing")
    screen.say("stays")
    assert stream.getvalue() == "\r\x1b[Kpassing\r\x1b[Kstays\n"


WIDTHS = [("", 5, ""), ("abcde", 5, "abcde"), ("abcdef", 5, "abcd…"), ("가나다", 5, "가나…")]


@pytest.mark.parametrize(("text", "width", "expected"), WIDTHS)
def test_lines_are_cut_by_columns(text: str, width: int, expected: str) -> None:
    assert cut_to_width(text, width) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_screen_silences_it_only() -> None:
    program = (
        f"import sys; sys.path.insert(0, {CODE!r}); from dialsum.batch.screen import Screen\n"
        "screen = Screen.on(sys.stdout); screen.say('a'); screen.say('b')\n"
        "print(screen.silent, file=sys.stderr)"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=True
        )
    assert done.stderr == b"True\n"


def test_the_cards_state_as_a_line() -> None:
    line = "GPU 0 NVIDIA GeForce RTX 3090: 24.0 GiB, 1.0 used, 23.0 free, 41 °C, 3 % busy"
    card = replace(make_gpu(0), utilisation_percent=3)
    assert card.describe() == line
    assert (
        replace(card, temperature_c=None, utilisation_percent=None).describe().endswith("23.0 free")
    )


def use(used: int = 0, **processes: int) -> CardUse:
    """Return a card's use; processes by `p` and their number."""
    return CardUse({"GPU-1": used}, {int(name[1:]): held for name, held in processes.items()})


def hand_over(
    before: CardUse, *answers: CardUse, timeout: float = 30.0, cooldown: Any = "until_free"
) -> tuple[bool, str, int]:
    """Wait with the driver's answers given in turn; return free, note and how often was asked."""
    asked: list[CardUse] = []

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return True

    def read() -> CardUse:
        asked.append(answers[min(len(asked), len(answers) - 1)])
        return asked[-1]

    free, note = wait_until_free(
        before, group=2**22, timeout_seconds=timeout, cooldown=cooldown, sleep=wait, read_use=read
    )
    return free, note, len(asked)


HANDOVERS: list[tuple[CardUse, list[CardUse], tuple[bool, int]]] = [
    (CardUse({}, {}), [CardUse({}, {})], (True, 0)),  # without a card nobody waits
    (use(100), [use(100 + TOLERANCE_BYTES)], (True, 1)),  # as before is free
    (use(0), [use(2**30), use(0)], (True, 2)),  # memory of nobody
    # No process of this number can be alive: the driver still lists a dead one.
    (use(0), [use(0, p99999999=5), use(0)], (True, 2)),
    # Somebody else's process is not waited for.
    (use(0), [CardUse({"GPU-1": 2**33}, {os.getpid(): 2**33})], (True, 1)),
]


@pytest.mark.parametrize(("before", "answers", "expected"), HANDOVERS)
def test_the_next_experiment_waits_for_memory_that_comes_free(
    before: CardUse, answers: list[CardUse], expected: tuple[bool, int]
) -> None:
    free, note, asked = hand_over(before, *answers)
    assert (free, asked) == expected
    assert ("free again" in note) is bool(asked)


def test_memory_that_stays_is_said_with_who_holds_it() -> None:
    free, note, _ = hand_over(use(0), use(2**30, p99999999=2**30), timeout=0.1)
    assert not free
    assert "process 99999999 (1,024 MiB)" in note
    assert "next experiment starts all the same" in note
    free, note, _ = hand_over(use(0), use(2**30), timeout=0.1)
    assert not free
    assert "1,024 MiB more in use than before" in note


def test_strangers_on_the_card_are_named_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = replace(make_gpu(0), memory_used_bytes=20 * 2**30, processes={os.getpid(): 20 * 2**30})
    seen: list[list[Any]] = []

    def tell(*answers: list[Any], timeout: float = 30.0) -> tuple[str, list[str]]:
        """Return what is left after the wait, and what was said in it."""
        seen[:] = list(answers)
        monkeypatch.setattr(
            "dialsum.batch.cards.nvidia_gpus", lambda: seen.pop(0) if len(seen) > 1 else seen[0]
        )
        said: list[str] = []
        left = wait_for_strangers(
            timeout_seconds=timeout, sleep=lambda _: True, find=find_strangers, say=said.append
        )
        return left, said

    name = Path("/proc/self/comm").read_text().strip()
    left, said = tell([theirs], [theirs], [make_gpu(0)])
    assert left == "" and f"process {os.getpid()} {name} (20,480 MiB)" in said[0]
    assert said[1].strip() == "it is free after 0 s"
    left, _ = tell([theirs], timeout=0.0)
    assert "still in use by process" in left and "CUDA_VISIBLE_DEVICES" in left
    # One of two cards is free, and will be taken; a display's few MiB, too, keep nobody out.
    assert tell([theirs, make_gpu(1)]) == ("", [])
    assert tell([replace(make_gpu(0), memory_used_bytes=2**28, processes={1: 2**28})]) == ("", [])
    assert tell([]) == ("", [])


def test_a_configured_cool_down_is_kept_and_said() -> None:
    free, note, _ = hand_over(CardUse({}, {}), CardUse({}, {}), cooldown="1s")
    assert (free, note) == (True, "cool-down of 1 s as configured")
    assert hand_over(CardUse({}, {}), CardUse({}, {}), cooldown="0s")[:2] == (True, "")


def test_a_cool_down_to_a_temperature_asks_the_card() -> None:
    answers = [CardUse({"GPU-1": 0}, {}, heat) for heat in (80, 80, 66, 64, 90)]
    free, note, asked = hand_over(use(0), *answers, cooldown="65C")
    assert (free, asked) == (True, 4)
    assert note.endswith("64 °C after 1 s of cool-down (to 65 °C, batch.cooldown)")
    _, note, _ = hand_over(use(0), use(0), cooldown="65C")
    assert note.endswith("no card tells its temperature, so batch.cooldown waited for none")


def test_a_wish_to_stop_ends_the_wait() -> None:
    free, note = wait_until_free(
        use(0),
        group=2**22,
        timeout_seconds=600,
        cooldown="600s",
        sleep=lambda _: False,
        read_use=lambda: use(2**33),
    )
    assert not free
    assert "did not come free in 0 s" in note


def test_the_time_of_a_run_that_went_on_counts_from_its_beginning(tmp_path: Path) -> None:
    before, after = (Progress(tmp_path / f"{name}.jsonl") for name in ("before", "after"))
    before.stage("train", "one step")
    time.sleep(0.2)
    state = before.state_dict()
    after.load_state_dict(json.loads(json.dumps(state)))
    after.stage("train", "another step")
    time.sleep(0.1)
    assert state["time"]["training"] >= 0.2
    assert after.divide_time()["training"] - state["time"]["training"] >= 0.09

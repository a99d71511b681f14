"""Text from names, labels, data and libraries never reaches a terminal, a log or a record raw."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import yaml

from batch_world import REPOSITORY, make_result, write_result
from dialsum.batch.screen import Screen
from dialsum.config.yaml import dump_yaml_text
from dialsum.data.rows import Dialogue
from dialsum.data.submission import write_predictions, write_submission
from dialsum.errors import run_script
from dialsum.experiment.recording import copy_output
from dialsum.files import dump_json, write_table_for_people
from dialsum.text import HARMFUL, PrintableStream, printable

# Clears the screen, the same in one character, turns text around, parts lines, is half a character.
HOSTILE = "a\x1b[2Jb\x9b2Jc\u202ed\u2066e\u2028f\x7fg\x07h\x85i"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("한글\tA\n둘째 줄 👩‍💻 é", "한글\tA\n둘째 줄 👩‍💻 é"),
        ("a\r\nb", "a\nb"),
        ("a\rb", r"a\rb"),
        ("\x00\x1b[31m\x7f", r"\x00\x1b[31m\x7f"),
        ("\x85\x9b", r"\x85\x9b"),
        ("\u202eabc\u202c \u2066x\u2069", r"\u202eabc\u202c \u2066x\u2069"),
        ("\u2028\u2029\u200f", r"\u2028\u2029\u200f"),
        ("\udcb0", r"\udcb0"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected


@pytest.mark.parametrize(
    ("terminal", "text", "expected"),
    [
        (True, "\r 45 %", "\r 45 %"),
        (True, "\r\x1b[K 45 %\x1b[2J", "\r\x1b[K 45 %\\x1b[2J"),
        (True, "\n\n\x1b[A\x1b[A", "\n\n\x1b[A\x1b[A"),
        (True, "\x1b[A\x1b[2J", "\\x1b[A\\x1b[2J"),
        (True, "a\r 45 %", "a\\r 45 %"),
        (False, "\r 45 %", "\\r 45 %"),
    ],
)
def test_a_bar_may_write_over_its_line_on_a_terminal(
    terminal: bool, text: str, expected: str
) -> None:
    stream = StringIO()
    assert PrintableStream(stream, terminal=terminal).write(text) == len(text)
    assert stream.getvalue() == expected


def test_records_keep_text_that_no_terminal_gets() -> None:
    text = HOSTILE + '\udcb0 " \\ 가'
    for dumped in (dump_json({"label": text, text: [text]}), dump_yaml_text({"label": text})):
        assert not HARMFUL.search(dumped)
    assert json.loads(dump_json({"label": text, text: [text]})) == {"label": text, text: [text]}
    assert yaml.safe_load(dump_yaml_text({"a": [HOSTILE, "가 나"]})) == {"a": [HOSTILE, "가 나"]}


def test_the_screen_shows_none() -> None:
    for terminal in (True, False):
        stream = StringIO()
        screen = Screen(stream=stream, terminal=terminal)
        screen.show_progress(lambda: f"title {HOSTILE}")
        screen.say(HOSTILE, "second")
        text = stream.getvalue().replace("\r\x1b[K", "")
        assert not HARMFUL.search(text)
        assert text.endswith("\nsecond\n")


def test_a_run_s_log_gets_none_and_no_bars(tmp_path: Path) -> None:
    with copy_output(tmp_path / "train.log"):
        print(HOSTILE)
        print("\r 45 %", end="")
        print("second", file=sys.stderr)
    written = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert written == f"{printable(HOSTILE)}\nsecond\n"


@pytest.mark.parametrize(
    "said",
    [
        "raise DataError([text])",
        "raise RuntimeError(text)",
        "import logging; logging.error(text)",
        "import warnings; warnings.warn(text)",
        "print(text); print(text, file=sys.stderr)",
        "raise FileNotFoundError(2, text, text)",
    ],
)
def test_every_way_out_of_a_door(said: str) -> None:
    program = (
        "import sys; from dialsum.errors import *\n"
        f"def main(_):\n    text = 'first\\n' + {HOSTILE!r}\n    {said}\n    return 0\n"
        "run_script(main)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    shown = done.stdout.decode() + done.stderr.decode()
    assert "first\n" in shown and r"\x1b[2J" in shown
    assert not HARMFUL.search(shown)


def test_it_is_put_in_front_of_a_stream_once(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> int:
        print("\x1b[2J\udcb0")
        return 0

    for _ in range(2):
        with pytest.raises(SystemExit):
            run_script(main)
    assert capsys.readouterr().out == "\\x1b[2J\\udcb0\n" * 2
    assert isinstance(sys.stdout, PrintableStream)
    assert not isinstance(sys.stdout._stream, PrintableStream)


def run_door(door: str, *arguments: str, cwd: Path) -> str:
    """Run a script and return all that it printed."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / door), *arguments],
        capture_output=True,
        check=False,
        cwd=cwd,
    )
    return done.stdout.decode() + done.stderr.decode()


def test_doors_with_hostile_names(tmp_path: Path) -> None:
    name = "n\x1b[2J\u202ex"
    config = tmp_path / f"{name}.yaml"
    label = json.dumps(HOSTILE)
    config.write_text(
        f"extends: {REPOSITORY}/config/experiments/01_baseline_kobart_rtx3090.yaml\n"
        f"general: {{label: {label}}}\n",
        encoding="utf-8",
    )
    rows = f'fname,summary\n"{HOSTILE}",=가\n'
    (tmp_path / "a.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "b.csv").write_text(rows.replace("가", "나"), encoding="utf-8")
    write_result(tmp_path / "runs" / "x", make_result("x", mean=1.0, label=HOSTILE))
    submission = [f"--check-submission={tmp_path}/a.csv", f"--test={tmp_path}/b.csv"]
    runner = "code/auto_experiment_runner.py"
    for door, arguments in [
        (runner, ["--demo", "--dry-run", "--config", str(config)]),
        (runner, ["--demo", "--explain", "--config", str(config)]),
        (runner, ["--dry-run", "--config", f"{config}\x9b", "--set", f"{name}=1"]),
        ("code/trainer.py", ["--explain", "--config", str(config)]),
        ("code/trainer.py", ["--config", f"{config}.no", f"--{name}"]),
        ("scripts/score.py", [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]),
        ("scripts/score.py", [str(tmp_path / "a.csv"), f"{tmp_path}/{name}.csv"]),
        ("scripts/score.py", submission),
        ("scripts/collect_results.py", ["--root", str(tmp_path / "runs"), "--output", "all.csv"]),
    ]:
        shown = run_door(door, *arguments, cwd=tmp_path)
        assert "x1b[2J" in shown or "error" in shown, (door, arguments, shown)
        assert not HARMFUL.search(shown), (door, arguments, shown)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("", ""),
        ("가", "가"),
        ("=1+1", "'=1+1"),
        ("+82 10", "'+82 10"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("\t=1", "'\t=1"),
        ("\r=1", r"'\r=1"),
        ("＝1", "'＝1"),
        ("-1.5", "-1.5"),
        ("+3e-5", "+3e-5"),
        ("-inf", "-inf"),
        (-1.5, "-1.5"),
        (7, "7"),
        ("a\x1b\nb", "a\\x1b\nb"),
    ],
)
def test_cells_for_people(cell: object, written: str, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    write_table_for_people(path, ["=a", "b"], [[cell, 1]])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["'=a", "b"], [written, "1"]]


def test_what_is_handed_in_stays_as_it_is(tmp_path: Path) -> None:
    rows = [Dialogue(fname="=1", dialogue="#Person1#: -", summary=None, topic=None, row=1, line=2)]
    write_submission(tmp_path / "submission.csv", rows, ["=1+1 \u202e"])
    assert (tmp_path / "submission.csv").read_bytes().decode() == (
        ",fname,summary\n0,=1,=1+1 \u202e\n"
    )
    write_predictions(tmp_path / "dev.csv", rows, ["-가\x1b"])
    assert (tmp_path / "dev.csv").read_bytes() == (
        "fname,summary,dialogue,reference\n=1,-가\x1b,#Person1#: -,\n".encode()
    )

"""Values that no run could mean, in files and on command lines: words, never a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batch_world import make_options
from config_texts import WHOLE, problems_of
from dialsum.batch.check import check_plan
from dialsum.batch.screen import EventFile
from dialsum.cli import CommandLine
from dialsum.errors import RunError, UnfitError
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.paths import NAME_BYTES, RunPaths, find_name_fault
from dialsum.record import read_record
from dialsum.train.checkpoints import MANIFEST, TENSORS, find_damage, seal_checkpoint
from test_plan import plan_of

GOOD = ["a", "01_mT5.v2 (재현)", "가" * 66, "x" * NAME_BYTES, "console"]
BAD = ["가" * 67, "x" * (NAME_BYTES + 1), "x" * 1_000_000, "", ".", "..", "...", ".hidden", "a."]
BAD += ["a ", "a/b", "a\\b", "a\0", "a\nb", "a\x9b", "a\u202eb", "nul", "CON.yaml", "com1", "a:b"]
BAD += ["what?", "\udcb0\udca1"]


@pytest.mark.parametrize("name", GOOD + BAD, ids=lambda value: repr(value)[:20])
def test_a_name_is_one_that_every_usual_file_system_has(name: str) -> None:
    assert (find_name_fault(name) is None) == (name in GOOD)


@pytest.mark.parametrize("name", ["a", "가" * 66, "x" * NAME_BYTES], ids=len)
def test_the_longest_files_of_the_longest_name_can_be_made(tmp_path: Path, name: str) -> None:
    for made in (name, f".experiment_1234_{name}.attempt_123.job.json.abcdefgh.tmp"):
        (tmp_path / made).write_text("x")


@pytest.mark.parametrize("label", ["가" * 100, "x" * 900_000, "a/b", "", ".", "a b", "nul"])
def test_a_label_that_no_log_can_have_is_refused_with_one_that_can(
    tmp_path: Path, label: str
) -> None:
    text = WHOLE + f"general.label: {json.dumps(label, ensure_ascii=False)}\n"
    [problem] = problems_of(tmp_path, text)
    assert "log files are named by it" in problem
    better = problem.rpartition("no space or slash: ")[2]
    assert find_name_fault(better) is None
    assert len(problem) < 1000


def test_words_that_came_as_other_bytes_are_refused() -> None:
    parser = CommandLine(prog="x.py")
    parser.add_argument("--config")
    word = os.fsdecode("설정.yaml".encode("cp949"))
    with pytest.raises(UnfitError, match="no UTF-8"):
        parser.parse_args(["--config", word])
    assert parser.parse_args(["--config", "설정.yaml"]).config == "설정.yaml"


def test_foreign_code_is_said_loudly_with_its_line(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b")
    assert "WARNING" not in "".join(check_plan(plan_of(options)).notes)
    text = options.configs[1].read_text(encoding="utf-8")
    line = "  trust_remote_code: true\n"
    options.configs[1].write_text(text.replace("model:\n", f"model:\n{line}"), encoding="utf-8")
    [note] = [note for note in check_plan(plan_of(options)).notes if "WARNING" in note]
    assert "b.yaml:7 model.trust_remote_code: true" in note
    assert "will run as you" in note


LENGTHS = [
    ("training.warmup_steps=100000", "1 L_a: training.warmup_steps 100,000: the run has 8", True),
    ("training.warmup_steps=8", "peak learning rate is never reached", True),
    ("training.eval_steps=5000", "training.eval_steps 5,000: the run has 8 optimizer", False),
]


@pytest.mark.parametrize(("override", "words", "refused"), LENGTHS)
def test_steps_beyond_the_run_are_said_before_it(
    tmp_path: Path, override: str, words: str, refused: bool
) -> None:
    findings = check_plan(plan_of(make_options(tmp_path, "a", overrides=(override,))))
    assert any(words in line for line in findings.problems) == refused
    assert any(words in line for line in findings.notes) == (not refused)
    fitting = make_options(tmp_path, "a", overrides=("training.eval_steps=8",))
    text = "".join((found := check_plan(plan_of(fitting))).problems + found.notes)
    assert "the run has" not in text


def test_more_restarts_than_steps_are_refused_before_the_run(tmp_path: Path) -> None:
    for cycles, refused in ((8, False), (9, True)):
        overrides = (
            "training.lr_scheduler_type=cosine_with_restarts",
            f"training.lr_scheduler_kwargs={{num_cycles: {cycles}}}",
        )
        problems = check_plan(plan_of(make_options(tmp_path, "a", overrides=overrides))).problems
        assert ("num_cycles 9: the run has 8 optimizer" in "".join(problems)) == refused


def make_interrupted_run(folder: Path) -> tuple[RunPaths, ResumePoint]:
    """Write a run that was killed after its checkpoint of step 1."""
    paths = RunPaths.alone(folder)
    checkpoint = paths.checkpoints / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / TENSORS).write_text("1")
    seal_checkpoint(checkpoint, config_sha256="c", data_sha256="d")
    return paths, find_resume_point(paths, config_sha256="c", train_sha256="d")


def test_resume_drops_an_event_that_broke_off_within_a_character(tmp_path: Path) -> None:
    paths, point = make_interrupted_run(tmp_path)
    whole = '{"event": "train", "step": 1, "text": "요약\u2028"}\n'.encode()
    torn = '{"event": "warning", "message": "손'.encode()[:-1]
    paths.metrics.write_bytes(whole + torn)
    reopen_run(paths, point, first={})
    assert paths.metrics.read_bytes() == whole


def test_resume_refuses_a_pipe_in_place_of_the_events(tmp_path: Path) -> None:
    paths, point = make_interrupted_run(tmp_path)
    os.mkfifo(paths.metrics)
    with pytest.raises(UnfitError, match=r"metrics\.jsonl: cannot be read: is a pipe.*move it"):
        reopen_run(paths, point, first={})
    assert EventFile(paths.metrics).read_new() == []


DAMAGED = ["", "{", "[]", "3", "null", "[" * 100_000, '{"files": 3}', '{"files": {"a": {}}}', "\0"]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text)[:20])
def test_resume_beside_damaged_files_says_which(tmp_path: Path, text: str) -> None:
    paths = RunPaths.alone(tmp_path)
    for step in (1, 2):
        folder = paths.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / TENSORS).write_text(f"{step}")
        seal_checkpoint(folder, config_sha256="c", data_sha256="d")
    (paths.checkpoints / "checkpoint-2" / MANIFEST).write_text(text)
    assert find_damage(paths.checkpoints / "checkpoint-2") is not None
    point = find_resume_point(paths, config_sha256="c", train_sha256="d")
    assert point.step == 1
    assert "checkpoint-2 is left out" in point.notes[0]
    paths.metrics.write_text(f'{{"event": "train", "step": 1}}\n{text}\n')
    paths.result.write_text(text)
    with pytest.raises(RunError):
        read_record(paths.result)
    with pytest.raises(UnfitError, match=r"result\.json.*cannot be told"):
        find_resume_point(paths, config_sha256="c", train_sha256="d")
    reopen_run(paths, point, first={})
    kept = paths.metrics.read_text().splitlines()
    assert kept[0] == '{"event": "train", "step": 1}'

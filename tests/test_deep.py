"""The deep look before a batch: tokenizers, lengths, unknown pieces, rows that are nearly equal."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, make_screen
from dialsum.batch.check import check_plan
from dialsum.batch.deep import look_deeper
from dialsum.batch.start import run_batch
from dialsum.cli import BatchOptions
from dialsum.data.leakage import describe_leakage, find_near_pairs
from dialsum.data.rows import load_split, load_splits
from dialsum.errors import DataError, ProblemsError
from dialsum.experiment.bound import CARD
from dialsum.paths import PROJECT_ROOT
from small_models import SAMPLE, train_sample_tokenizer, write_checkpoint
from test_plan import plan_of

TALK = (
    "#Person1#: 안녕하세요, 지난주에 주문한 책상을 바꾸고 싶어서 전화했습니다.\n"
    "#Person2#: 네, 어떤 점이 마음에 들지 않으셨나요?\n"
    "#Person1#: 색이 사진과 많이 달라서 흰색으로 바꾸고 싶어요.\n"
    "#Person2#: 알겠습니다. {day}까지 새 책상을 보내 드리겠습니다."
)


def write(path: Path, *dialogues: str, summaries: bool = True) -> Path:
    """Write rows of these dialogues."""
    head = "fname,dialogue" + (",summary" if summaries else "")
    rows = [
        f'{path.stem}_{at},"{text}"' + (f",요약 {at}입니다." if summaries else "")
        for at, text in enumerate(dialogues)
    ]
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def other(at: int) -> str:
    """Return a dialogue of its own."""
    return (
        f"#Person1#: {at}번 손님, 오늘 점심은 무엇으로 하시겠어요?\n#Person2#: 국수 {at}그릇이요."
    )


def test_rows_that_are_nearly_the_same_are_found_and_no_others(tmp_path: Path) -> None:
    train = load_split(
        write(tmp_path / "train.csv", other(1), TALK.format(day="금요일"), TALK.format(day="내일")),
        kind="train",
    )
    changed = TALK.format(day="다음 주 월요일").replace("#Person1#", "#Person3#")
    dev = load_split(write(tmp_path / "dev.csv", other(77), changed), kind="dev")
    [pair] = find_near_pairs(dev, train)
    assert (pair.row.fname, pair.other.fname[:6]) == ("dev_1", "train_")
    assert 0.8 <= pair.share < 1.0
    splits = load_splits(tmp_path / "train.csv", tmp_path / "dev.csv", test=None)
    [said] = describe_leakage(splits)
    assert "1 of 2 dialogues are nearly dialogues of" in said and "fname 'dev_1'" in said


def test_the_sample_shares_no_rows() -> None:
    sample = PROJECT_ROOT / "data" / "sample"
    files = (sample / f"{kind}.csv" for kind in ("train", "dev", "test"))
    train, dev, test = files
    assert describe_leakage(load_splits(train, dev, test=test)) == []


def test_what_cannot_be_tokenized_is_found_before_the_first_experiment(tmp_path: Path) -> None:
    """The stand-in checkpoint has no tokenizer: its `tokenizer.json` says nothing."""
    options = make_options(tmp_path, "a", "b")
    said: list[str] = []
    plan = check_plan(plan_of(options)).plan
    found, bounds = look_deeper(plan, keep=False, forecast=False, card=CARD, say=said.append)
    assert bounds == {}
    problems = found["tokens"].problems
    assert len(problems) == 1 and problems[0].startswith("1 L_a, 2 L_b: ")
    assert "tokenizer" in problems[0]
    screen, _ = make_screen()
    with pytest.raises(ProblemsError, match="1 L_a, 2 L_b: "):
        run_batch(options, screen=screen)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ProblemsError, match="1 L_a, 2 L_b: "):
        run_batch(replace(options, dry_run=True, deep=True), screen=screen)
    assert run_batch(replace(options, dry_run=True), screen=screen) == 0


def test_a_file_that_cannot_be_read_hides_nothing_else_at_a_real_start(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b")
    dev = tmp_path / "data" / "dev.csv"
    dev.write_text(dev.read_text(encoding="utf-8").replace("summary", "sumary", 1))
    screen, shown = make_screen()
    with pytest.raises(ProblemsError) as caught:
        run_batch(options, screen=screen)
    assert "did you mean 'sumary'?" in str(caught.value)
    assert "1 L_a, 2 L_b: " in str(caught.value)
    assert re.search(r"tokens +1 problem +.* of what can be read looked at", shown.getvalue())


def test_near_duplicates_are_told_beside_exact_ones(tmp_path: Path) -> None:
    first, second = (TALK.format(day=day) for day in ("월요일", "다음 주 수요일"))
    files = (
        write(tmp_path / "train.csv", first, other(1)),
        write(tmp_path / "dev.csv", first, second),
    )
    with pytest.raises(DataError, match="1 of 2 dialogues stand in"):
        load_splits(*files, test=None)
    [said] = describe_leakage(load_splits(*files, test=None, overlapping=True))
    assert "fname 'dev_1'" in said


def test_five_faults_of_five_kinds_are_told_together_each_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    options = make_options(tmp_path, "a", "b", overrides=("general.device=cuda",))
    file = options.configs[0]
    file.write_text(file.read_text().replace("learning_rate:", "learning_rat:"))
    (tmp_path / "out").write_text("a file")
    screen, shown = make_screen()
    with pytest.raises(ProblemsError) as caught:
        run_batch(replace(options, dry_run=True, deep=True), screen=screen)
    told = str(caught.value).splitlines()
    assert told[0] == "4 problems found; nothing was started:"
    assert [line.strip() for line in told if re.fullmatch(r" \S[\w ]+", line)] == [
        "configuration",
        "tokens",
        "machine",
        "output folder",
    ]
    text = "\n".join(told)
    assert "a.yaml:" in text and "did you mean learning_rate?" in text
    assert "1 a, 2 L_b: " in text or "1 L_a, 2 L_b: " in text
    assert "--set general.device=cpu" in text and "move it, or give another place" in text
    table = shown.getvalue().partition("checked before the start:")[2]
    assert re.search(r"configuration +1 problem ", table) and re.search(r"data +ok ", table)
    assert re.search(r"tokens +1 problem ", table) and re.search(r"machine +1 problem ", table)


@pytest.mark.training
def test_the_deep_look_of_a_demo_tells_lengths(tmp_path: Path) -> None:
    config = PROJECT_ROOT / "config/experiments/02_eenzeenee_t5_rtx3090.yaml"
    line = [sys.executable, str(PROJECT_ROOT / "code" / "auto_experiment_runner.py")]
    line += ["--config", str(config), "--demo", "--output-dir", str(tmp_path), "--deep"]
    shorten = ["--set", "training.max_steps=1", "--set", "data.max_dev_rows=2"]
    shorten += ["--set", "data.max_test_rows=2", "--set", "generation.max_new_tokens=8"]
    dry = subprocess.run([*line, "--dry-run"], capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "the tokenizer of 1 eenzeenee_T5 is not here yet" in dry.stdout
    done = subprocess.run([*line, *shorten], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 eenzeenee_T5: train: inputs of " in done.stdout


@pytest.mark.training
def test_one_that_lacks_the_language_leaves_the_others_to_run(tmp_path: Path) -> None:
    from small_tokenizers import train_tokenizer

    words = "the weather report said that tomorrow every person would get another number again"
    english = train_tokenizer([words] * 9, kind="unigram", vocab_size=60)
    configs = []
    for name, tokenizer in (("english", english), ("korean", train_sample_tokenizer("unigram"))):
        checkpoint = write_checkpoint(tmp_path / name, "mt5", tokenizer=tokenizer)
        configs.append(tmp_path / f"{name}.yaml")
        configs[-1].write_text(
            f"extends: {PROJECT_ROOT}/config/model_configs/mt5_small.yaml\n"
            f"general: {{device: cpu, label: {name}}}\nmodel: {{checkpoint: {checkpoint}}}\n",
            encoding="utf-8",
        )

    def look(*chosen: Path) -> Any:
        options = BatchOptions(chosen, data_dir=SAMPLE, output_dir=tmp_path / "out")
        plan = check_plan(plan_of(options)).plan
        return look_deeper(plan, keep=False, forecast=False, card=CARD, say=print)[0]["tokens"]

    both, alone = look(*configs), look(configs[0])
    assert both.problems == []
    (said,) = [note for note in both.notes if note.startswith("1 english: ")]
    assert "lacks the data's language" in said and said.endswith("the others run")
    assert len(alone.problems) == 1 and "lacks the data's language" in alone.problems[0]

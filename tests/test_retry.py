"""batch.retry: what its entries change, when they are refused, which one comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, make_record, now
from config_texts import BART, problems_of
from dialsum.batch.plan import describe_plan, load_selected, make_plan
from dialsum.batch.queue import plan_retry
from dialsum.config.load import dump_yaml, load_config
from dialsum.config.schema import Config
from dialsum.config.yaml import read_document, show_value
from dialsum.experiment.attempt import (
    FIRST,
    NoHalfError,
    list_changes,
    ordinal,
    say_attempts,
    show_number,
)
from dialsum.experiment.job import Job

NUMBERS = [(1.2e-4, "1.2e-4"), (6e-5, "6e-5"), (0.5, "0.5"), (0.03125, "0.03125"), (48, "48")]


@pytest.mark.parametrize(("number", "shown"), NUMBERS)
def test_numbers_are_shown_in_short(number: float, shown: str) -> None:
    assert show_number(number) == shown


def as_child(changes: dict[str, Any]) -> str:
    """Return a file that states dotted keys over base.yaml."""
    lines = (f"{key}: {show_value(value)}\n" for key, value in changes.items())
    return "extends: base.yaml\n" + "".join(lines)


def make_config(**changes: Any) -> Config:
    """Return BART with changed values of training and adapters."""
    tree = read_document(BART, None)[0].plain()
    for key, value in changes.items():
        section = "qlora" if "lora" in key else "training"
        tree[section][key] = value
    return Config.model_validate(tree)


BATCH, PASSES = "per_device_train_batch_size", "gradient_accumulation_steps"
CHANGES: list[tuple[str, dict[str, Any], dict[str, int], list[tuple[str, Any, Any]]]] = [
    ("lr_half", {}, {}, [("training.learning_rate", 6e-5, 3e-5)]),
    ("batch_half", {}, {}, [(f"training.{BATCH}", 6, 3), (f"training.{PASSES}", 4, 8)]),
    (
        "batch_half",
        {BATCH: "auto", PASSES: "auto"},
        {"batch": 8, "accumulation": 3},
        [(f"training.{BATCH}", 8, 4), (f"training.{PASSES}", 3, 6)],
    ),
    (
        "batch_half",
        {PASSES: "auto"},
        {"batch": 9, "accumulation": 4},
        [(f"training.{BATCH}", 6, 3), (f"training.{PASSES}", 4, 8)],
    ),
    (
        "rank_half",
        {"lora_rank": 48, "lora_alpha": 96},
        {},
        [("qlora.lora_rank", 48, 24), ("qlora.lora_alpha", 96, 48)],
    ),
]


@pytest.mark.parametrize(("by", "values", "used", "expected"), CHANGES)
def test_each_halves_its_values(
    by: str, values: dict[str, Any], used: dict[str, int], expected: list[tuple[str, Any, Any]]
) -> None:
    found = list_changes(by, make_config(**values), **used)
    assert [(one.key, one.before, one.after) for one in found] == expected
    assert {one.by for one in found} == {by}


def test_a_batch_that_nobody_knows_or_of_one_row_cannot_be_halved() -> None:
    config = make_config(**{BATCH: "auto"})
    with pytest.raises(NoHalfError, match="was auto"):
        list_changes("batch_half", config)
    with pytest.raises(NoHalfError, match="1 has no half"):
        list_changes("batch_half", config, batch=1)


REFUSED = [
    ({"batch.retry": ["lr_haf"]}, "did you mean lr_half?"),
    ({"batch.retry": ["nonsense"]}, "a list of lr_half, batch_half or rank_half"),
    ({"batch.retry": "lr_half"}, "write [lr_half]"),
    ({"batch.retry": ["rank_half"], "qlora.use_qlora": False}, "every weight is trained"),
    (
        {"batch.retry": ["rank_half"], "qlora.lora_rank": 1, "qlora.lora_alpha": 2},
        "rank_half, but qlora.lora_rank 1 has no half",
    ),
    (
        {"batch.retry": ["rank_half", "lr_half", "rank_half"], "qlora.lora_rank": 2},
        "rank_half 2 times, but qlora.lora_rank 2 can be halved 1 times only (2 -> 1)",
    ),
    ({"batch.retry": ["rank_half"], "qlora.lora_alpha": 7}, "qlora.lora_alpha 7 has no half"),
    ({"batch.retry": ["batch_half"], f"training.{BATCH}": 1}, f"training.{BATCH} 1 has no half"),
    ({"batch.retry": ["batch_half"] * 2}, f"training.{BATCH} 6 can be halved 1 times only"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_be_halved_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    [problem] = problems_of(tmp_path, as_child(changes), base=BART)
    assert "x.yaml:" in problem
    assert "batch.retry" in problem
    assert said in problem


FIT: list[dict[str, Any]] = [
    {"batch.retry": []},
    {"batch.retry": ["lr_half", "lr_half", "lr_half"]},
    {"batch.retry": ["lr_half", "rank_half", "batch_half"]},
    {"batch.retry": ["batch_half", "batch_half"], f"training.{BATCH}": "auto"},
    {"batch.retry": ["lr_half"], "qlora.use_qlora": False},
]


@pytest.mark.parametrize("changes", FIT)
def test_what_can_be_halved_is_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert problems_of(tmp_path, as_child(changes), base=BART) == []


def first_job(folder: Path, retry: str, *overrides: str) -> Job:
    """Return the job of one experiment with this batch.retry."""
    options = make_options(folder, "one", overrides=(f"batch.retry=[{retry}]", *overrides))
    loaded, problems = load_selected(options)
    assert problems == []
    return make_plan(options, loaded, started_at=now()).jobs[0]


def failed(cause: str | None, **values: Any) -> Any:
    """Return the record of a run that failed in training."""
    failure = {"failure": {"cause": cause, "stage": "train", "step": 7}} if cause else {}
    return make_record(mean=None, **{"status": "failed", **failure, **values})


DECISIONS: list[tuple[str, Any, str | None, str]] = [
    ("", failed("non_finite"), None, ""),
    ("lr_half", failed(None), None, "batch.retry is for NaN and full memory"),
    ("lr_half", failed("non_finite", status="interrupted"), None, ""),
    ("lr_half", make_record(), None, ""),
    ("lr_half, batch_half", failed("non_finite"), "lr_half", ""),
    ("batch_half, lr_half", failed("non_finite"), "batch_half", ""),
    ("lr_half, batch_half", failed("out_of_memory"), "batch_half", "lr_half is left out"),
    ("lr_half, batch_half", failed("killed"), "batch_half", "takes no less memory"),
    ("lr_half", failed("out_of_memory"), None, "nothing of batch.retry is left after the 1st"),
    (
        "batch_half",
        failed("out_of_memory", failure={"cause": "out_of_memory", "stage": "generate"}),
        None,
        "outside of training",
    ),
]


@pytest.mark.parametrize(("asked", "record", "chosen", "said"), DECISIONS)
def test_the_next_change_goes_by_why_the_attempt_failed(
    tmp_path: Path, asked: str, record: Any, chosen: str | None, said: str
) -> None:
    retry, lines = plan_retry(first_job(tmp_path, asked), record)
    assert (None if retry is None else retry.attempt.changes[0].by) == chosen
    text = "\n".join(lines)
    assert said in text and bool(said) == bool(text)
    if retry is not None:
        assert sorted([*retry.config.batch.retry, chosen]) == sorted(asked.split(", "))


def test_an_auto_batch_is_halved_from_what_the_failed_run_used(tmp_path: Path) -> None:
    auto = (f"training.{BATCH}=auto", f"training.{PASSES}=auto")
    job = first_job(tmp_path, "batch_half", *auto)
    known = failed("out_of_memory", training={BATCH: 12, PASSES: 2})
    retry, _ = plan_retry(job, known)
    assert retry is not None
    assert [one.after for one in retry.attempt.changes] == [6, 4]
    unknown, said = plan_retry(job, failed("killed"))
    assert unknown is None
    assert "left no word" in said[0]


def test_the_plan_says_what_is_retried(tmp_path: Path) -> None:
    def lines(retry: str) -> str:
        options = make_options(tmp_path, "one", overrides=(f"batch.retry=[{retry}]",))
        plan = make_plan(options, load_selected(options)[0], started_at=now())
        return "\n".join(describe_plan(plan))

    said = "after NaN or full memory in training, retries with lr_half, then batch_half"
    assert said in lines("lr_half, batch_half")
    assert "batch.retry" not in lines("")


LORA = ("qlora.use_qlora=true", "qlora.lora_rank=16", "qlora.lora_alpha=32")


def third_attempt(folder: Path) -> Job:
    """Return what follows NaN, then full memory."""
    job: Job | None = first_job(folder, "lr_half, rank_half, lr_half", *LORA)
    for cause in ("non_finite", "out_of_memory"):
        assert job is not None
        job, _ = plan_retry(job, failed(cause, failure={"cause": cause, "stage": "train"}))
    assert job is not None
    return job


def test_an_attempts_values_come_last_and_say_where_they_are_from(tmp_path: Path) -> None:
    job, loaded = third_attempt(tmp_path), third_attempt(tmp_path).loaded
    assert loaded.config.training.learning_rate == 5e-4
    assert (loaded.config.qlora.lora_rank, loaded.config.qlora.lora_alpha) == (8, 16)
    assert loaded.config.batch.retry == ["lr_half"]
    assert loaded.origins["training.learning_rate"].text == "batch.retry lr_half"
    assert loaded.origins["qlora.lora_rank"].text == "batch.retry rank_half"
    assert loaded.sha256 != load_config(loaded.path).sha256
    text = dump_yaml(loaded.config, remarks=job.attempt.remarks())
    assert "#   training.learning_rate 0.001 -> 5e-4 (batch.retry lr_half)\n" in text
    assert "#   qlora.lora_rank 16 -> 8 (batch.retry rank_half)\n" in text
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    assert load_config(again).config == loaded.config


def test_a_record_holds_every_attempt(tmp_path: Path) -> None:
    attempt = third_attempt(tmp_path).attempt
    plain = {"status": "success", "duration_seconds": 3.0, "training": {"steps": 9}}
    assert FIRST.add_to(plain) == plain
    content = attempt.add_to(plain)
    assert content["attempt"] == 3
    assert [one["status"] for one in content["attempts"]] == ["failed", "failed", "success"]
    assert content["attempts"][2]["seconds"] == 3.0
    assert say_attempts(content) == [
        "2nd attempt: learning_rate 0.001 -> 5e-4 after NaN",
        "3rd attempt: lora_rank 16 -> 8, lora_alpha 32 -> 16 after full memory",
    ]


ORDINALS = [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]


@pytest.mark.parametrize(("number", "word"), ORDINALS)
def test_attempts_are_counted_in_words(number: int, word: str) -> None:
    assert ordinal(number) == word

"""The rungs of batch.retry: what they change, when they are refused, which one comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, make_record, now
from dialsum.attempts import FIRST, AttemptOfRun, list_overrides, ordinal, say_attempts
from dialsum.batch.plan import load_selected, make_plan
from dialsum.batch.plan_text import describe_plan
from dialsum.batch.retry import decide, first_attempt
from dialsum.config.load import LoadedConfig, dump_yaml, load_config
from dialsum.config.retry import RungError, apply_rung, count_halvings, show_number
from dialsum.config.schema import Config
from test_config_check import VALID, problems_of

HALVINGS = [(1, 0), (2, 1), (3, 0), (6, 1), (7, 0), (48, 4), (128, 7)]


@pytest.mark.parametrize(("number", "times"), HALVINGS)
def test_whole_numbers_are_halved_while_they_stay_whole(number: int, times: int) -> None:
    assert count_halvings(number) == times


NUMBERS = [(1.2e-4, "1.2e-4"), (6e-5, "6e-5"), (0.5, "0.5"), (0.03125, "0.03125"), (48, "48")]


@pytest.mark.parametrize(("number", "shown"), NUMBERS)
def test_numbers_are_shown_in_short(number: float, shown: str) -> None:
    assert show_number(number) == shown


def make_config(**changes: Any) -> Config:
    """Return VALID with changed values of training and adapters."""
    tree = {**VALID, "training": dict(VALID["training"]), "qlora": dict(VALID["qlora"])}
    for key, value in changes.items():
        section = "qlora" if "lora" in key else "training"
        tree[section][key] = value
    return Config.model_validate(tree)


BATCH, PASSES = "per_device_train_batch_size", "gradient_accumulation_steps"
RUNGS: list[tuple[str, dict[str, Any], dict[str, int], list[tuple[str, Any, Any]]]] = [
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


@pytest.mark.parametrize(("rung", "values", "used", "expected"), RUNGS)
def test_a_rung_halves_its_values(
    rung: str, values: dict[str, Any], used: dict[str, int], expected: list[tuple[str, Any, Any]]
) -> None:
    found = apply_rung(rung, make_config(**values), **used)
    assert [(one.key, one.before, one.after) for one in found] == expected
    assert {one.rung for one in found} == {rung}


def test_a_batch_that_nobody_knows_or_of_one_row_cannot_be_halved() -> None:
    config = make_config(**{BATCH: "auto"})
    with pytest.raises(RungError, match="was auto"):
        apply_rung("batch_half", config)
    with pytest.raises(RungError, match="1 has no half"):
        apply_rung("batch_half", config, batch=1)


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
def test_rungs_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    [problem] = problems_of(tmp_path, changes)
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
def test_rungs_that_can_be_are_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert problems_of(tmp_path, changes) == []


def load_plan(folder: Path, rungs: str) -> Any:
    """Return the plan of one experiment with these rungs."""
    options = make_options(folder, "one", overrides=(f"batch.retry=[{rungs}]",))
    loaded, problems = load_selected(options)
    assert problems == []
    return make_plan(options, loaded, started_at=now())


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
    ("lr_half", failed("out_of_memory"), None, "no rung of batch.retry is left after the 1st"),
    (
        "batch_half",
        failed("out_of_memory", failure={"cause": "out_of_memory", "stage": "generate"}),
        None,
        "outside of training",
    ),
]


@pytest.mark.parametrize(("rungs", "record", "chosen", "said"), DECISIONS)
def test_the_next_rung_goes_by_why_the_attempt_failed(
    tmp_path: Path, rungs: str, record: Any, chosen: str | None, said: str
) -> None:
    attempt = first_attempt(load_plan(tmp_path, rungs).experiments[0])
    decision = decide(attempt, record)
    assert (decision.changes[0].rung if decision.changes else None) == chosen
    text = "\n".join(decision.said)
    assert said in text and bool(said) == bool(text)
    if chosen:
        assert sorted([*decision.left, chosen]) == sorted(rungs.split(", "))


def test_an_auto_batch_is_halved_from_what_the_failed_run_used(tmp_path: Path) -> None:
    options = make_options(
        tmp_path,
        "one",
        overrides=("batch.retry=[batch_half]", f"training.{BATCH}=auto", f"training.{PASSES}=auto"),
    )
    plan = make_plan(options, load_selected(options)[0], started_at=now())
    attempt = first_attempt(plan.experiments[0])
    known = failed("out_of_memory", training={BATCH: 12, PASSES: 2})
    assert [one.after for one in decide(attempt, known).changes] == [6, 4]
    unknown = decide(attempt, failed("killed"))
    assert not unknown.changes
    assert "left no word" in unknown.said[0]


def test_the_plan_says_which_rungs_are_set(tmp_path: Path) -> None:
    lines = describe_plan(load_plan(tmp_path, "lr_half, batch_half"))
    assert any(
        "1: after NaN or full memory" in line and "lr_half, then batch_half" in line
        for line in lines
    )
    assert not any("batch.retry" in line for line in describe_plan(load_plan(tmp_path, "")))


def climb(folder: Path) -> tuple[AttemptOfRun, LoadedConfig]:
    """Return a third attempt, and the config that it runs with."""
    path = folder / "x.yaml"
    path.write_text(dump_yaml(make_config()), encoding="utf-8")
    config = make_config()
    first = apply_rung("lr_half", config)
    entries = (
        {
            "number": 1,
            "changes": [],
            "status": "failed",
            "failure": {"cause": "non_finite", "step": 700},
        },
        {
            "number": 2,
            "changes": [one.to_record() for one in first],
            "status": "failed",
            "failure": {"cause": "out_of_memory"},
        },
    )
    attempt = AttemptOfRun(3, tuple(apply_rung("rank_half", config)), ("lr_half",), entries)
    return attempt, load_config(path).changed(attempt.source())


def test_an_attempts_values_come_last_and_say_where_they_are_from(tmp_path: Path) -> None:
    attempt, loaded = climb(tmp_path)
    assert loaded.config.training.learning_rate == 3e-5
    assert (loaded.config.qlora.lora_rank, loaded.config.qlora.lora_alpha) == (8, 16)
    assert loaded.config.batch.retry == ["lr_half"]
    assert loaded.origins["training.learning_rate"].text == "batch.retry lr_half"
    assert loaded.origins["qlora.lora_rank"].text == "batch.retry rank_half"
    assert loaded.sha256 != load_config(loaded.path).sha256
    text = dump_yaml(loaded.config, remarks=attempt.remarks())
    assert "#   training.learning_rate 6e-5 -> 3e-5 (batch.retry lr_half)\n" in text
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    assert load_config(again).config == loaded.config


def test_an_attempt_changes_nothing_else_through_an_overlays_cases(tmp_path: Path) -> None:
    attempt, plain = climb(tmp_path)
    overlay = tmp_path / "over.yaml"
    overlay.write_text(
        "cases:\n  - when: {qlora.lora_rank: 16}\n    set: {training.weight_decay: 0.5}\n",
        encoding="utf-8",
    )
    loaded = load_config(plain.path, overlays=[overlay]).changed(attempt.source())
    assert (loaded.config.qlora.lora_rank, loaded.config.training.weight_decay) == (8, 0.5)


def test_a_record_holds_every_attempt_and_how_to_repeat_the_last(tmp_path: Path) -> None:
    attempt, _ = climb(tmp_path)
    plain = {"status": "success", "duration_seconds": 3.0, "training": {"steps": 9}}
    assert FIRST.add_to(plain) == plain
    content = attempt.add_to(plain)
    assert content["attempt"] == 3
    assert [one["status"] for one in content["attempts"]] == ["failed", "failed", "success"]
    assert content["attempts"][2]["seconds"] == 3.0
    assert say_attempts(content) == [
        "2nd attempt: learning_rate 6e-5 -> 3e-5 after NaN at step 700",
        "3rd attempt: lora_rank 16 -> 8, lora_alpha 32 -> 16 after full memory",
    ]
    assert list_overrides(content, rungs=["lr_half", "rank_half", "lr_half"]) == [
        "training.learning_rate=3e-05",
        "qlora.lora_rank=8",
        "qlora.lora_alpha=16",
        "batch.retry=[lr_half]",
    ]
    assert list_overrides(plain, rungs=["lr_half"]) == []


ORDINALS = [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]


@pytest.mark.parametrize(("number", "word"), ORDINALS)
def test_attempts_are_counted_in_words(number: int, word: str) -> None:
    assert ordinal(number) == word

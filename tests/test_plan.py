"""From options to a plan: who runs, with what, into where; estimates; text; preflight."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batch_world import TRAINER, make_options, now, write_configs
from dialsum.batch.check import check_plan
from dialsum.batch.plan import (
    BatchPlan,
    describe_plan,
    describe_replaced,
    expect_seconds,
    load_selected,
    make_plan,
)
from dialsum.cli import BatchOptions, select_numbers
from dialsum.config.load import load_config
from dialsum.errors import UnfitError
from dialsum.paths import PROJECT_ROOT, timestamp

SEVEN = tuple(Path(f"{name}.yaml") for name in "abcdefg")
SELECTIONS = [
    (None, None),
    ("1", (1,)),
    ("4,1", (1, 4)),
    (" 2 - 4 , 7 ", (2, 3, 4, 7)),
    ("3,3", (3,)),
]
BAD_SELECTIONS = ["", "0", "8", "1,9", "5-3", "a", "1.5", "-1", "1,,2", "1;2", "１"]


@pytest.mark.parametrize(("only", "expected"), SELECTIONS)
def test_only_selects_by_number(only: str | None, expected: tuple[int, ...] | None) -> None:
    assert select_numbers(only, configs=SEVEN) == expected


@pytest.mark.parametrize("only", BAD_SELECTIONS)
def test_a_selection_that_means_nothing_is_refused(only: str) -> None:
    with pytest.raises(UnfitError, match="--only") as caught:
        select_numbers(only, configs=SEVEN)
    assert repr(only) in str(caught.value)


def test_a_refused_number_names_the_experiments_and_is_never_repeated_whole() -> None:
    with pytest.raises(UnfitError, match=r"8 is out of range; the experiments are 1 a, 2 b"):
        select_numbers("8", configs=SEVEN)
    with pytest.raises(UnfitError, match="is no number of an experiment") as caught:
        select_numbers("1" * 5000, configs=SEVEN)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("names", "clash"),
    [
        (["a", "b"], False),
        (["a", "sub/a"], True),
        (["a", "sub/A"], True),
        (["\ud55c", "sub/\u1112\u1161\u11ab"], True),  # one syllable, and its three letters
    ],
)
def test_a_name_comes_once_in_a_batch(tmp_path: Path, names: list[str], clash: bool) -> None:
    paths = tuple(tmp_path / f"{name}.yaml" for name in names)
    _, problems = load_selected(BatchOptions(configs=paths))
    said = [problem for problem in problems if "rename the file" in problem]
    assert len(said) == clash
    assert all(f"{name}.yaml" in one for one in said for name in names)
    assert not any("rename" in one for one in load_selected(BatchOptions(paths, only=(2,)))[1])


def plan_of(options: BatchOptions) -> BatchPlan:
    """Return the plan of options that are fit."""
    loaded, problems = load_selected(options)
    assert problems == []
    return make_plan(options, loaded, started_at=now(), trainer=TRAINER)


def test_every_files_problems_are_shown_and_fit_ones_loaded(tmp_path: Path) -> None:
    configs = write_configs(tmp_path, "good", "bad", "worse")
    configs[1].write_text(configs[1].read_text().replace("learning_rate", "learnig_rate"))
    configs[2].write_text("training: [")
    loaded, problems = load_selected(BatchOptions(configs=configs))
    assert list(loaded) == [1]
    text = "\n".join(problems)
    assert "bad.yaml" in text and "learnig_rate" in text and "worse.yaml" in text
    loaded, problems = load_selected(BatchOptions(configs=configs, only=(1,)))
    assert (list(loaded), problems) == ([1], [])


ROOTS = [
    ({}, "auto_experiments"),
    ({"one_epoch": True}, "quick_test"),
    ({"demo": True}, "demo_own_data"),
    ({"demo": True, "one_epoch": True}, "demo_own_data_quick_test"),
    ({"demo": True, "data_dir": None}, "demo"),
    ({"demo": True, "data_dir": None, "one_epoch": True}, "demo_quick_test"),
    ({"demo": True, "data_dir": Path(os.path.relpath(PROJECT_ROOT / "data/sample"))}, "demo"),
    ({"demo": True, "data_dir": None, "overrides": ("data.dev_file=/x/dev.csv",)}, "demo_own_data"),
]


@pytest.mark.parametrize(("options", "root"), ROOTS)
def test_each_sort_of_batch_has_its_own_root(
    tmp_path: Path, options: dict[str, Any], root: str
) -> None:
    plan = plan_of(make_options(tmp_path, "a", **options))
    assert plan.paths.root == tmp_path / "out" / root
    assert plan.paths.log_root == tmp_path / "out" / "logs"
    assert plan.jobs[0].paths.folder == tmp_path / "out" / root / "experiments" / "a"
    assert plan.jobs[0].paths.model == tmp_path / "out" / root / "models" / "a"
    assert plan.log_of(plan.jobs[0]).name == "experiment_1_L_a.log"


def test_without_options_everything_is_in_the_project() -> None:
    configs = sorted((PROJECT_ROOT / "config" / "experiments").glob("02*.yaml"))
    plan = plan_of(BatchOptions(configs=tuple(configs)))
    assert plan.paths.root == PROJECT_ROOT / "outputs" / "auto_experiments"
    assert plan.paths.log_root == PROJECT_ROOT / "logs"
    assert plan.jobs[0].config.data.data_dir == "data"


def test_other_places_for_runs_and_logs(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", runs_dir=tmp_path / "r", log_dir=tmp_path / "l")
    plan = plan_of(options)
    assert plan.jobs[0].paths.folder == tmp_path / "r" / "a"
    assert plan.paths.logs(plan.started_at).parent == tmp_path / "l"


def test_options_reach_the_job(tmp_path: Path) -> None:
    overrides = ("training.weight_decay=0.5", "training.seed=8")
    options = make_options(
        tmp_path, "a", demo=True, one_epoch=True, seed=7, overrides=overrides, data_dir=tmp_path
    )
    plan = plan_of(options)
    [experiment] = plan.jobs
    # --set comes last and wins.
    assert experiment.config.training.seed == 8
    assert experiment.config.training.weight_decay == 0.5
    assert experiment.config.training.num_train_epochs == 1
    assert experiment.loaded.own_epochs == 4


def test_the_demo_has_its_own_data_and_a_strange_folder_name_survives(tmp_path: Path) -> None:
    plan = plan_of(BatchOptions(configs=write_configs(tmp_path, "a"), demo=True))
    assert plan.jobs[0].config.data.data_dir == str(PROJECT_ROOT / "data" / "sample")
    strange = tmp_path / "a: [b] #1 'c\" 데이터"
    plan = plan_of(make_options(tmp_path, "a", data_dir=strange))
    assert plan.jobs[0].config.data.data_dir == str(strange)


def test_a_batch_never_takes_the_file_names_of_another(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a")
    loaded, _ = load_selected(options)
    moment = now()
    first = make_plan(options, loaded, started_at=moment)
    first.paths.logs(first.started_at).mkdir(parents=True)
    second = make_plan(options, loaded, started_at=moment)
    assert second.batch_id == timestamp(moment + timedelta(seconds=1))


STEPS = [
    ({}, None, None),
    ({}, 1, 4),
    ({}, 5, 12),
    ({"gradient_accumulation_steps": 4}, 9, 8),
    ({"num_train_epochs": 0.5}, 9, 3),
    ({"max_steps": 7}, None, 7),
    ({"per_device_train_batch_size": "auto"}, 5, None),
]


@pytest.mark.parametrize(("changes", "rows", "expected"), STEPS)
def test_steps_of_a_run(
    tmp_path: Path, changes: dict[str, Any], rows: int | None, expected: int | None
) -> None:
    overrides = [f"training.{key}={json.dumps(value)}" for key, value in changes.items()]
    [path] = write_configs(tmp_path, "a")
    config = load_config(path, overrides=overrides).config
    assert config.training.count_steps(train_rows=rows) == expected


def test_expected_minutes_are_scaled_by_rows_and_to_one_epoch(tmp_path: Path) -> None:
    [full] = check_plan(plan_of(make_options(tmp_path, "a"))).plan.jobs
    assert full.train_rows == 4
    assert expect_seconds(full) == pytest.approx(3600 * 4 / 12_457)
    [short] = plan_of(make_options(tmp_path, "a", one_epoch=True)).jobs
    assert expect_seconds(short) == 900
    [demo] = plan_of(make_options(tmp_path, "a", demo=True)).jobs
    assert expect_seconds(demo) is None
    [whole] = plan_of(make_options(tmp_path, "a")).jobs
    steps = whole.config.training.count_steps(train_rows=12_457)
    assert steps is not None
    [cut] = plan_of(make_options(tmp_path, "a", overrides=("training.max_steps=2",))).jobs
    assert expect_seconds(cut) == pytest.approx(3600 * 2 / steps)


def test_without_stated_minutes_a_row_takes_what_it_takes_the_planned_of_its_family() -> None:
    folder = PROJECT_ROOT / "config" / "experiments"
    for name in (
        "01_mt5_xlsum_optimized_v2",
        "02_eenzeenee_t5_rtx3090",
        "01_baseline_kobart_rtx3090",
    ):
        stated, without = (
            plan_of(BatchOptions(configs=(folder / f"{name}.yaml",), overrides=overrides)).jobs[0]
            for overrides in ((), ("general.expected_minutes=null",))
        )
        expected = expect_seconds(stated)
        assert expected is not None
        assert expect_seconds(without) == pytest.approx(expected, rel=0.01)


def test_the_plan_as_text(tmp_path: Path) -> None:
    plan = plan_of(make_options(tmp_path, "a", "b", only=(2,)))
    text = "\n".join(describe_plan(check_plan(plan).plan))
    assert "1 experiment of 2 (--only 2), as configured" in text
    assert "2  L_b" in text
    assert "64/16" in text and "2 x 1 = 2" in text and "8 " in text and "all weights" in text
    assert "2 starts from /" in text
    assert describe_replaced(plan.jobs) == []


def test_what_the_demo_replaces_stands_beside_the_original(tmp_path: Path) -> None:
    configs = write_configs(tmp_path, "a", "b")
    configs[1].write_text(configs[1].read_text().replace("1e-3", "3e-3"))
    lines = describe_replaced(plan_of(BatchOptions(configs=configs, demo=True)).jobs)
    common = lines[1 : lines.index(next(line for line in lines if "1 L_a" in line))]
    assert any("max_train_rows null -> 600" in line for line in common)
    own = {line.split(":")[0].strip(): line for line in lines[len(common) + 1 :]}
    assert "learning_rate 0.001 -> " in own["1 L_a"]
    assert "learning_rate 0.003 -> " in own["2 L_b"]
    assert max(map(len, lines)) <= 102
    assert not any(word in "".join(lines) for word in ("target.", "wandb", "auto ->"))

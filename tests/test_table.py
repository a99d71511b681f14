"""The closing text: rankings, floors, targets, checks, next commands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from batch_world import make_options, make_record, now
from dialsum.batch.plan import load_selected, make_plan
from dialsum.batch.result import BatchResult, ExperimentResult
from dialsum.cli import DEMO_DATA, BatchOptions
from dialsum.files import write_csv, write_json
from dialsum.record import Record
from dialsum.report.closing import format_closing, format_times, make_checks, suggest_next
from dialsum.report.tables import (
    compare_with_best,
    format_ranking,
    group_records,
    points_above_floor,
    whitespace_number,
)
from dialsum.text import align


def with_dev(record: Record, **changes: Any) -> Record:
    """Return a record with other values in its dev block."""
    record.content["evaluation"]["dev"].update(changes)
    return record


ALIGNED = [
    ([], [0], None, []),
    ([[""]], [], None, [""]),
    ([["가나", "1.0"], ["abc", "20.0"]], [0], None, ["가나   1.0", "abc   20.0"]),
    ([["a\nb\x1b", "c"], ["d", "e"]], [0], None, [r"a\nb\x1b  c", "d         e"]),
    ([["[b]:x:", "긴 글 하나"]], [0, 1], 14, ["[b]:x:  긴 글", "        하나"]),
]


@pytest.mark.parametrize(("rows", "left", "width", "expected"), ALIGNED)
def test_a_table_as_lines(
    rows: list[list[str]], left: list[int], width: int | None, expected: list[str]
) -> None:
    assert align(rows, left=left, width=width) == expected


def test_best_first_with_interval_floors_and_recipe() -> None:
    lines = format_ranking([make_record("low", mean=12.0), make_record("high", mean=30.0)])
    high = next(line for line in lines if "L_high" in line)
    low = next(line for line in lines if "L_low" in line)
    assert lines.index(high) < lines.index(low)
    assert any(line.endswith("and the targets, which are on ws") for line in lines)
    row = "1 L_high 35.00 25.00 30.00 30.00 29.00 - 31.00 +20.00 10 m"
    assert high.split() == row.split()
    floors = [" ".join(line.split()) for line in lines if line.lstrip().startswith("(")]
    assert floors == ["(constant) 15.00 5.00 10.00 10.00", "(lead-2) 13.00 3.00 8.00 8.00"]
    assert "signature  rouge|tok:mecab-ko|tags:split|refs:1" in lines
    scales = [line for line in lines if "L_high" in line][1]
    assert " ".join(scales.split()) == "1 L_high 28.00 +18.00 25.00 15.00 20.00 15-18 met met"
    assert any("tok:mecab-ko|tags:one" in line for line in lines)
    assert any("tok:whitespace" in line for line in lines)


def test_a_run_at_its_floor_is_not_above_it() -> None:
    text = "\n".join(format_ranking([make_record("a", mean=10.0)]))
    assert "+0.00 NOT" in text
    assert "NOT        not above the constant text" in text
    assert "NOT  " not in "\n".join(format_ranking([make_record("a", mean=13.0)]))


def test_unlike_recipes_and_unlike_rows_are_never_ranked_together() -> None:
    other = with_dev(make_record("char", mean=90.0), signature="rouge|tok:char|tags:split|refs:1")
    rows = make_record("rows", mean=80.0, data={"sha256": {"dev": "e" * 64}})
    few = with_dev(make_record("few", mean=70.0), rows=1)
    plain = [make_record("a", mean=20.0), make_record("b", mean=30.0)]
    groups = group_records([other, rows, few, *plain])
    assert [[record.name for record in group.records] for group in groups] == [
        ["b", "a"],
        ["char"],
        ["rows"],
        ["few"],
    ]
    lines = format_ranking([other, rows, few, *plain])
    assert lines[0].startswith("4 rankings: ")
    assert sum(line.startswith("signature  ") for line in lines) == 4


def test_a_score_that_is_not_a_number_stands_last() -> None:
    broken = with_dev(make_record("a"), rouge_mean="nan")
    [group] = group_records([broken, make_record("b", mean=1.0)])
    assert [record.name for record in group.records] == ["b", "a"]
    assert any("nan" in line for line in format_ranking([broken]))


def test_failures_stand_below_with_their_reason() -> None:
    failed = make_record("bad", mean=None, status="failed", reason="out of memory")
    silent = make_record("silent", mean=None)
    lines = format_ranking([failed, make_record("good"), silent])
    assert group_records([make_record("a", status="failed")]) == []  # even with scores
    assert format_ranking([]) == []
    assert lines[-3:] == [
        "Without a score",
        "  L_bad: failed after 10 m: out of memory",
        "  L_silent: success after 10 m: no dev scores are recorded",
    ]


def test_absent_parts_are_a_dash_and_columns_that_nobody_fills_are_left_out() -> None:
    record = make_record("a")
    del record.content["evaluation"]["target"]
    text = "\n".join(format_ranking([record]))
    assert not any(word in text for word in ("target R1", "ideal", "targets"))
    for key in ("floors", "confidence", "tags_one", "whitespace"):
        del record.content["evaluation"]["dev"][key]
    lines = format_ranking([record, make_record("b", mean=1.0)])
    first, second = (line.split() for line in lines if "L_a" in line)
    assert first[6:8] == ["-", "-"]
    assert second[2:] == ["-"] * 7


def test_whitespace_scores_of_a_run_that_was_scored_on_whitespace() -> None:
    record = with_dev(make_record("a"), signature="rouge|tok:whitespace|tags:split|refs:1")
    del record.content["evaluation"]["dev"]["whitespace"]
    assert whitespace_number(record, "rouge1") == 25.0
    assert points_above_floor(make_record("a"), scale="whitespace.") == 0.0


def with_rows(name: str, scores: list[float], *, one: list[float]) -> Record:
    """Return a record with the scores of its rows, with tags as morphemes and as one token."""
    record = with_dev(
        make_record(name, mean=sum(scores) / len(scores)), per_row={"rouge_mean": scores}
    )
    record.content["evaluation"]["dev"]["tags_one"]["per_row"] = {"rouge_mean": one}
    return record


def test_the_lead_of_the_best_is_tested() -> None:
    base = [float(20 + row % 7) for row in range(40)]
    best = with_rows("a", [score + 5 + row % 3 for row, score in enumerate(base)], one=base)
    near = [score + 5.1 - row % 2 for row, score in enumerate(base)]
    records = [best, with_rows("b", near, one=base), with_rows("c", base, one=base)]
    lines = format_ranking(records)
    assert max(map(cell_len, lines)) <= 120
    verdicts = {
        (line.split()[0], line.split()[2]): line
        for line in lines
        if line.startswith(("ranking's", "tags=1   ")) and "rouge|" not in line
    }
    assert "REAL" in verdicts["ranking's", "L_c"]
    assert "LEVEL: they differ by less than 0.5 points" in verdicts["tags=1", "L_b"]
    assert any("another seed" in line for line in lines)
    assert compare_with_best(records[:1]) == []
    # Another number of rows, or none recorded: nothing is compared.
    shorter = with_rows("d", base[:5], one=base[:5])
    assert compare_with_best([best, shorter]) == []
    assert compare_with_best([best, make_record("e")]) == []


def add_content(record: Record, f1: float, rows: list[float], *, idf: str = "train,9") -> Record:
    """Give a record a content score, and scores of single rows."""
    content = {"f1": f1, "signature": f"content|idf:{idf}", "floors": {"constant": 1.5}}
    record.content["evaluation"]["dev"] |= {"content": content, "per_row": {"rouge_mean": rows}}
    return record


def test_content_and_halves_stand_beside_the_ranking() -> None:
    better, worse = [30.0 + at % 7 for at in range(60)], [29.0 + at % 5 for at in range(60)]
    first = add_content(make_record("a", mean=33.0), 20.0, better)
    second = add_content(make_record("b", mean=31.0), 25.0, worse)
    lines = format_ranking([second, first], width=100)
    assert max(map(cell_len, lines)) <= 100
    (row,) = [line.split() for line in lines if "L_a" in line and line.startswith("1")][:1]
    assert row[6] == "20.00"
    assert any(line.split()[:1] == ["(constant)"] and line.endswith(" 1.50") for line in lines)
    assert "           by content the order is another: #2, #1" in lines
    assert "halves     #1 is the best in 100 % of 1,000 random halves of the rows" in lines
    agreed = format_ranking([add_content(first, 26.0, better), second])
    assert not any("the order is another" in line for line in agreed)
    unlike = format_ranking([first, add_content(second, 25.0, worse, idf="sample")])
    assert any("taken by several recipes" in line for line in unlike)
    level = add_content(make_record("b", mean=33.0), 25.0, [*reversed(better)])
    said = next(line for line in format_ranking([first, level]) if line.startswith("halves"))
    assert said.count("#2") == 1 and "no one winner" in said


def test_a_run_that_does_not_read_is_named_whatever_its_score() -> None:
    runs = [make_record("best", mean=50.0), make_record("reader", mean=40.0)]
    for run, foreign in zip(runs, (2.653, 2.759), strict=True):
        run.content["evaluation"]["reading"] = {"own": 2.652 - (foreign > 2.7), "foreign": foreign}
    lines = format_ranking(runs)
    best, reader = [line for line in lines if "L_best" in line or "L_reader" in line][:2]
    assert " NOT " in best and " 1.11 " in reader and "NOT" not in reader


@pytest.mark.parametrize("width", [None, 90])
def test_lines_fit_a_wide_terminal_and_tables_a_narrow_one(width: int | None) -> None:
    records = [make_record(name, label=f"{name}_mT5_XLSum_3단계") for name in "ab"]
    lines = format_ranking(records, width=width)
    assert max(map(cell_len, lines)) <= 120
    table = [line for line in lines if line.startswith(("#", "1 ", "2 "))]
    assert len(table) == 6 and max(map(cell_len, table)) <= (width or 120)
    assert "a_mT5_XLSum_3단계" in table[1]  # a word is broken only where it must be


def close(folder: Path, *records: Record, **options: Any) -> BatchResult:
    """Return the outcome of a batch that left these records, one experiment each."""
    asked = make_options(folder, *(record.name for record in records), **options)
    plan = make_plan(asked, load_selected(asked)[0], started_at=now())
    pairs = zip(plan.jobs, records, strict=True)
    ended = {job.number: ExperimentResult(job, record, plan.log_of(job)) for job, record in pairs}
    return BatchResult(plan, ended, finished_at=now())


def training(**changes: Any) -> dict[str, Any]:
    """Return the `training` part of a record."""
    known = {"steps": 8, "best_step": 6, "stopped_early": False, "nan_events": 0}
    return {"training": {**known, **changes}}


def took(gib: int) -> dict[str, Any]:
    """Return the same of a run that took so much of a card."""
    return training(peak_memory_bytes={"device": gib * 2**30})


def test_where_the_time_went_beside_the_least_that_a_card_could_take() -> None:
    spent = {"start": 30.0, "training": 600.0, "evaluation": 120.0, "writing": 300.0, "rest": 2.0}
    there, unknown, without = (make_record(name, mean=20.0) for name in ("a", "b", "c"))
    least = {"training": 150.0, "evaluation": 60.0, "writing": 30.0}
    there.content.update(time={**spent, "least": least})
    unknown.content.update(time={**spent, "writing": 60.0})
    lines = [" ".join(line.split()) for line in format_times([there, unknown, without])]
    assert lines[1:] == [
        "Where the time went",
        "start training evaluation writing rest in all least multiple",
        "L_a 30 s 10 m x4.0 2 m 00 s x2.0 5 m 00 s x10.0 2 s 18 m 4 m 00 s 4.4",
        "L_b 30 s 10 m 2 m 00 s 60 s 2 s 14 m - -",
        "all runs 60 s 20 m 4 m 00 s 6 m 00 s 4 s 31 m - -",
    ]
    [*_, both] = [" ".join(line.split()) for line in format_times([there, there])]
    assert both == "all runs 60 s 20 m x4.0 4 m 00 s x2.0 10 m x10.0 4 s 35 m 8 m 00 s 4.4"
    assert "least" not in "".join(format_times([unknown]))
    assert format_times([without]) == []


CHECKS = [
    ("all finished", [{}], "yes", "1 of 1"),
    ("all finished", [{}, {"status": "failed"}], "NO", "1 of 2 (L_b failed)"),
    ("all finished", [{"status": "interrupted"}], "NO", "0 of 1 (L_a interrupted)"),
    ("stopped early", [{}, {}], "note", "0 of 2, 2 trained to the last step"),
    ("stopped early", [training(stopped_early=True, steps=5)], "note", "L_a at step 5"),
    ("GPU memory", [training(peak_memory_bytes={"rss": 1})], "not checked", "not measured"),
    ("GPU memory", [{}], "not checked", "within 24 GiB of GPU memory: not measured on CPU"),
    ("GPU memory", [took(8)], "yes", "most 8.0 GiB"),
    ("GPU memory", [took(25)], "NO", "over it: L_a"),
    ("constant sentence", [{}], "yes", "1 of 1"),
    ("constant sentence", [{"mean": 9.0}], "NO", "0 of 1 (L_a -1.00)"),
    ("constant sentence", [{"mean": None}], "not checked", "no floor is recorded"),
    ("ROUGE-1 over 20", [{"mean": 30.0}], "yes", "1 of 1"),
    ("ROUGE-1 over 20", [{"mean": 25.0}], "NO", "0 of 1 (L_a 20.00)"),
    ("ROUGE-1 over 20", [{"mean": None}], "not checked", "not scored on that scale"),
    ("minimum", [{"mean": 31.0}, {}], "NO", "25/8/22 (whitespace tokens): met by 1 of 2 (L_a)"),
    ("no NaN", [{}], "yes", "none in 1 run"),
    ("no NaN", [{}, {}], "yes", "none in 2 runs"),
    ("no NaN", [training(nan_events=3)], "NO", "L_a 3 times"),
    ("no NaN", [{"training": {}, "mean": None}], "not checked", "no run came far enough"),
]


@pytest.mark.parametrize(("title", "runs", "verdict", "said"), CHECKS)
def test_closing_checks(
    tmp_path: Path, title: str, runs: list[dict[str, Any]], verdict: str, said: str
) -> None:
    records = [make_record(name, **run) for name, run in zip("ab", runs, strict=False)]
    lines = make_checks(close(tmp_path, *records))
    [line] = [line for line in lines if title in line]
    assert line.strip().split("  ")[0] == verdict
    assert said in line


def test_nothing_started_is_no_success(tmp_path: Path) -> None:
    asked = make_options(tmp_path, "a", demo=True)
    plan = make_plan(asked, load_selected(asked)[0], started_at=now())
    outcome = BatchResult(plan, finished_at=now(), interrupted=True)
    assert outcome.exit_status == 130
    text = "\n".join(format_closing(outcome))
    assert "no experiment was started" in text
    assert re.search(r"^  NO +all finished: 0 of 1 \(L_a not started\)$", text, re.M)
    assert "go on where it was cut off: " in text
    assert "scores say nothing about the real checkpoints" in text


EXITS = [
    (["success"], {}, 0),
    (["success", "failed"], {}, 1),
    (["success", "interrupted"], {}, 1),
    (["success"], {"interrupted": True}, 130),
    (["success"], {"unwritten": {Path("x.json"): "disk full"}}, 1),
    (["success"], {"problems": ["GPU memory did not come free"]}, 0),
]


@pytest.mark.parametrize(("statuses", "changes", "expected"), EXITS)
def test_exit_status_tells_the_truth(
    tmp_path: Path, statuses: list[str], changes: dict[str, Any], expected: int
) -> None:
    records = [make_record(f"e{n}", status=status) for n, status in enumerate(statuses)]
    outcome = close(tmp_path, *records)
    for key, value in changes.items():
        setattr(outcome, key, value)
    assert outcome.exit_status == expected


def test_next_is_the_stage_that_the_experiment_names_unless_it_ran(tmp_path: Path) -> None:
    outcome = close(tmp_path, make_record("a"), overrides=("general.next=b", "training.seed=1"))
    [line] = [line for line in suggest_next(outcome) if "comes b" in line]
    assert f"--config {tmp_path}/configs/b.yaml" in line
    assert "--set general.next=b --set training.seed=1" in line
    both = close(tmp_path, make_record("a"), make_record("b"), overrides=("general.next=b",))
    assert not any("comes b" in line for line in suggest_next(both))


SUBMISSIONS = [
    ({}, "the best run's summaries, for submission: "),
    ({"one_epoch": True, "seed": 3}, "what a submission looks like (after one epoch: "),
    ({"demo": True}, "what a submission looks like (by a tiny model: "),
]


@pytest.mark.parametrize(("options", "words"), SUBMISSIONS)
def test_next_names_the_best_runs_submission_and_command(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    best = make_record("best", mean=50.0, artifacts={"submission": "results/submission.csv"})
    outcome = close(tmp_path, make_record("weak"), best, **options)
    lines = suggest_next(outcome)
    [line] = [line for line in lines if line.endswith(": /nowhere/best/results/submission.csv")]
    assert line.startswith(words)
    assert ("for submission" in line) is (options == {})
    [repeat] = [line for line in lines if line.startswith("repeat the best run")]
    assert repeat.endswith(f"code/trainer.py --job {outcome.by_number[2].job.paths.job}")


def test_next_after_a_failure_is_its_log_and_what_is_missing(tmp_path: Path) -> None:
    outcome = close(tmp_path, make_record("a"), make_record("b", mean=None, status="failed"))
    log = outcome.experiments[1].log
    assert log.name not in "\n".join(suggest_next(outcome))
    log.parent.mkdir(parents=True)
    log.write_text("error: it failed\n", encoding="utf-8")
    text = "\n".join(suggest_next(outcome))
    assert f"L_b: read why in {log}" in text
    [again] = [line for line in text.splitlines() if line.startswith("run what failed again: ")]
    assert "configs/b.yaml" in again and again.endswith(" --retry-failed")
    assert " --resume" not in text


def test_next_after_an_interrupt_is_to_start_again_and_no_log(tmp_path: Path) -> None:
    outcome = close(tmp_path, make_record("a"), make_record("b", mean=None, status="interrupted"))
    outcome.interrupted = True
    log = outcome.experiments[1].log
    log.parent.mkdir(parents=True)
    log.write_text("interrupted\n", encoding="utf-8")
    lines = suggest_next(outcome)
    assert not any(str(log) in line for line in lines)
    [on] = [line for line in lines if line.startswith("go on where it was cut off: ")]
    assert f" {tmp_path}/configs/b.yaml" in on and on.endswith(" --resume")
    assert "--retry-failed" not in "\n".join(lines)
    paths = outcome.by_number[2].job.paths
    write_json(paths.checkpoints / "checkpoint-30/manifest.json", {})
    [on] = [line for line in suggest_next(outcome) if line.startswith("go on where it was cut")]
    assert "(L_b after checkpoint-30): " in on


def test_next_after_the_demo_of_an_own_file_is_its_real_run(tmp_path: Path) -> None:
    options = {"demo": True, "data_dir": DEMO_DATA, "overrides": ("training.num_train_epochs=1",)}
    lines = suggest_next(close(tmp_path, make_record("own"), **options))
    [real] = [line for line in lines if line.startswith("the real checkpoint, on a 24 GB GPU")]
    assert "(leave out what --set meant for tiny models): " in real
    assert real.endswith(
        f"--config {tmp_path}/configs/own.yaml --output-dir {tmp_path}/out "
        "--set training.num_train_epochs=1"
    )
    assert "put train.csv, dev.csv, test.csv into data/" in real
    own_data = close(tmp_path, make_record("own"), demo=True)
    [real] = [line for line in suggest_next(own_data) if line.startswith("the real checkpoint")]
    assert f"--data-dir {tmp_path}/data" in real
    assert "into data/" not in real


@pytest.mark.parametrize(
    ("numbers", "ending"),
    [
        (None, "checkpoints, on a 24 GB GPU: put train.csv, dev.csv, test.csv into data/, then X"),
        ((2,), "checkpoint, on a 24 GB GPU: put train.csv, dev.csv, test.csv into data/, then X "),
    ],
)
def test_next_after_the_demo_that_a_script_started_is_that_script(
    tmp_path: Path, numbers: tuple[int, ...] | None, ending: str
) -> None:
    configs = make_options(tmp_path, "a", "b").configs
    options = BatchOptions(configs=configs, demo=True, only=numbers, script="run_these.sh")
    plan = make_plan(options, load_selected(options)[0], started_at=now())
    lines = suggest_next(BatchResult(plan, finished_at=now()))
    only = "--only 2" if numbers else ""
    assert f"the real {ending}{only}".replace("X", "bash run_these.sh") in lines


def test_three_samples_of_the_best_run_stand_in_the_closing_text(tmp_path: Path) -> None:
    outcome = close(tmp_path, make_record("best", mean=50.0), make_record("weak"))
    assert "Samples" not in "\n".join(
        format_closing(outcome)
    )  # none are named; then, none are there
    dialogue = "\n".join(f"#Person{1 + turn % 2}#: {'긴 말 ' * 30}{turn}" for turn in range(6))
    header = ["fname", "summary", "dialogue", "reference"]
    dev = [[f"dev_{at}", "", dialogue, f"{at}번 요약입니다. " * 12] for at in range(10)]
    best = outcome.by_number[1].record
    run = Record(tmp_path / "result.json", {**best.content, "artifacts": {"predictions_dev": "p"}})
    run.content["evaluation"]["dev"]["per_row"] = {"rouge_mean": [9.0 - at for at in range(10)]}
    outcome.by_number[1] = replace(outcome.by_number[1], record=run)
    assert "Samples" not in "\n".join(format_closing(outcome))
    write_csv(tmp_path / "p", header, dev)
    lines = format_closing(outcome)
    start = lines.index("Samples of dev rows, written by L_best")
    shown = lines[start + 1 : lines.index("Files") - 1]
    assert [line for line in shown if line.startswith("  dev_")] == [
        "  dev_1, scored well: mean 8.00",
        "  dev_5, scored middling: mean 4.00",
        "  dev_9, scored badly: mean 0.00",
    ]
    assert max(map(cell_len, shown)) <= 100
    assert [line[4:13].strip() for line in shown[1:8]] == [
        *("dialogue", "", "", "", "reference", "", "")
    ]
    assert shown[8] == "    summary    (empty)"
    narrow = format_closing(outcome, width=60)
    assert max(map(cell_len, narrow[narrow.index(lines[start]) : narrow.index("Files")])) <= 60
    write_csv(tmp_path / "p", ["fname", "summary"], [["dev_1", "요약"]])  # an earlier version's
    assert "Samples" not in "\n".join(format_closing(outcome))

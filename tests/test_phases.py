"""The table of phases: what differs, what came of it, which aims were met, what to do next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.errors import UnfitError
from dialsum.record import Record, read_record
from dialsum.report.phases import (
    check_aims,
    compare_runs,
    find_differences,
    give_advice,
    read_losses,
    seconds_per_epoch,
)


def write_run(
    folder: Path,
    name: str,
    *,
    scores: list[float],
    sums: float = 80.0,
    norm: float = 1.0,
    foreign: float = 0.0,
    seconds: float = 300.0,
    losses: tuple[tuple[float, float], ...] = ((0.5, 2.0), (1.0, 1.8), (1.5, 1.6), (2.0, 1.5)),
    settings: dict[str, Any] | None = None,
    checkpoint: str = "one",
    dev: str = "d",
    tokenizer: str = "mecab",
) -> Record:
    run = folder / name
    run.mkdir(parents=True)
    lines = [
        {"event": "train", "step": step, "epoch": epoch, "loss": loss}
        for step, (epoch, loss) in enumerate(losses, start=1)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    said = {"training": {"learning_rate": 2e-5}, "general": {"label": name}} | (settings or {})
    (run / "resolved_config.yaml").write_text(yaml.safe_dump(said))
    mean = sum(scores) / len(scores)
    scored = {
        "rouge1": 40.0,
        "rougeL": 35.0,
        "rouge_mean": mean,
        "rouge_sum": sums,
        "rows": len(scores),
        "signature": f"rouge|tok:{tokenizer}",
        "confidence": {"rouge_mean": [mean - 1, mean + 1]},
        "floors": {"constant": {"rouge1": 30.0, "rouge2": 10.0, "rougeL": 25.5}},
        "per_row": {"rouge_mean": scores, "rouge1": scores, "rougeL": scores[::-1]},
        "foreign_script_rate": foreign,
    }
    content = {
        "schema_version": 1,
        "experiment": name,
        "label": name,
        "status": "success",
        "started_at": "2026-11-28T10:00:00+09:00",
        "finished_at": "2026-11-28T11:00:00+09:00",
        "duration_seconds": 3600,
        "config_sha256": name,
        "data": {"sha256": {"dev": dev}},
        "model": {"checkpoint": checkpoint},
        "training": {"max_grad_norm": norm, "epochs": 2.0, "packing": name == "phase3"},
        "time": {"training": seconds},
        "evaluation": {"dev": scored},
        "artifacts": {"metrics": "metrics.jsonl", "resolved_config": "resolved_config.yaml"},
    }
    (run / "result.json").write_text(json.dumps(content))
    return read_record(run / "result.json")


GOOD, WORSE = [30.0 + at % 7 for at in range(60)], [20.0 + at % 5 for at in range(60)]


def verdicts(runs: list[Record]) -> dict[str, str]:
    return {said: verdict for verdict, said in check_aims({one.name: one for one in runs})}


def find(said: dict[str, str], words: str) -> str:
    (verdict,) = [verdict for text, verdict in said.items() if words in text]
    return verdict


def test_settings_that_differ_are_told_and_no_others() -> None:
    found = find_differences([{"a": 1, "b": [2], "c": "x"}, {"a": 1, "b": [3]}])
    assert found == {"b": [[2], [3]], "c": ["x", None]}


def test_a_run_that_does_well_meets_its_aims(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "before", scores=WORSE, foreign=8.0, norm=9.0),
        write_run(tmp_path, "phase1", scores=GOOD, foreign=2.5),
        write_run(tmp_path, "phase2", scores=GOOD, foreign=0.5),
        write_run(tmp_path, "phase3", scores=GOOD, seconds=150.0),
    ]
    said = verdicts(runs)
    assert set(said.values()) == {"yes"}
    assert "constant text 65.50" in " ".join(said)
    assert give_advice({one.name: one for one in runs}) == []
    lines = "\n".join(compare_runs(runs))
    assert "Settings that differ" in lines
    assert "2.000" not in lines.split("Aims")[0].split("What came of it")[0]
    for score in ("the mean", "ROUGE-1", "ROUGE-L"):
        (said,) = re.findall(rf"phase1 leads before by [\d.]+ points of {score} .*", lines)
        assert said.endswith("REAL")


@pytest.mark.parametrize(
    ("changed", "aim"),
    [
        ({"norm": 1.6}, "phase2: gradient norm"),
        ({"losses": ((0.5, 2.0), (1.5, 2.1))}, "phase2: loss falls"),
        ({"sums": 69.0}, "phase2: rouge_sum over 70"),
        ({"foreign": 1.0}, "phase2: foreign script in under 1"),
        ({"seconds": 240.0}, "phase3: an epoch in 40%"),
    ],
)
def test_each_aim_can_be_missed(tmp_path: Path, changed: dict[str, Any], aim: str) -> None:
    runs = [
        write_run(tmp_path, "phase2", scores=GOOD, **changed),
        write_run(tmp_path, "phase3", scores=GOOD, seconds=150.0),
    ]
    said = verdicts(runs)
    assert find(said, aim) == "NO"
    assert find(said, "phase1: not run") == "?"
    assert find(said, "phase3: no lower score") == "yes"


def test_a_score_that_packing_cost_is_seen(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "phase2", scores=GOOD),
        write_run(tmp_path, "phase3", scores=WORSE, sums=60.0, norm=3.0, seconds=150.0),
    ]
    said = verdicts(runs)
    assert find(said, "phase3: no lower score") == "NO"
    rate, low = give_advice({one.name: one for one in runs})
    assert "phase3" in rate
    assert "learning_rate=1e-05" in rate
    assert "submit phase1" in low


@pytest.mark.parametrize("other", [{"checkpoint": "two"}, {"dev": "e"}])
def test_runs_of_other_work_are_not_held_against_each_other(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    runs = [
        write_run(tmp_path, "before", scores=GOOD, foreign=8.0),
        write_run(tmp_path, "phase1", scores=GOOD, **other),
        write_run(tmp_path, "phase2", scores=GOOD),
        write_run(tmp_path, "phase3", scores=WORSE, seconds=150.0, **other),
    ]
    said = verdicts(runs)
    assert find(said, "phase1: half as many") == "?"
    assert find(said, "phase3: less time than phase2 at the same score") == "?"


def test_other_scales_have_other_aims(tmp_path: Path) -> None:
    run = write_run(tmp_path, "phase2", scores=GOOD, tokenizer="whitespace")
    assert find(verdicts([run]), "phase2: rouge_sum over 70") == "?"


def test_a_line_tells_of_all_steps_since_the_last(tmp_path: Path) -> None:
    run = write_run(tmp_path, "phase1", scores=GOOD, losses=())
    lines = [(1, 0.02, 9.0), (50, 1.0, 5.0), (100, 2.0, 4.0)]
    text = [{"event": "train", "step": s, "epoch": e, "loss": loss} for s, e, loss in lines]
    (tmp_path / "phase1" / "metrics.jsonl").write_text("".join(json.dumps(t) + "\n" for t in text))
    assert read_losses(run) == [pytest.approx((9 + 49 * 5) / 50), 4.0]


def test_losses_are_those_of_each_epoch_the_last_of_a_step(tmp_path: Path) -> None:
    run = write_run(tmp_path, "phase1", scores=GOOD)
    assert read_losses(run) == [pytest.approx(1.9), pytest.approx(1.55)]
    assert seconds_per_epoch(run) == 150.0
    with (tmp_path / "phase1" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "train", "step": 4, "epoch": 2.0, "loss": 1.4}) + "\n")
    assert read_losses(run)[1] == pytest.approx(1.5)


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="two are needed"):
        compare_runs([write_run(tmp_path, "phase1", scores=GOOD)])

"""What a run makes of its predictions: the constant is of the train rows, whatever dev says."""

from __future__ import annotations

import pytest

from dialsum.config.load import load_config
from dialsum.data.rows import Dialogue
from dialsum.data.submission import fill_empty
from dialsum.experiment.run import evaluate_dev
from dialsum.paths import PROJECT_ROOT


def make_rows(summary: str, count: int) -> list[Dialogue]:
    return [
        Dialogue(f"r{row}", "#Person1#: 네\n#Person2#: 네", f"{summary} {row}번", None, row=row + 1)
        for row in range(count)
    ]


def test_the_constant_is_chosen_on_train() -> None:
    config = load_config(PROJECT_ROOT / "config/experiments/01_baseline_kobart_rtx3090.yaml").config
    train, dev = make_rows("손님은 환불을 원한다", 12), make_rows("비둘기가 날아간다", 12)
    found = evaluate_dev(config, dev=dev, train=train, predictions=["비둘기가 난다"] * 12)["dev"]
    for scale in (found, found["tags_one"], found["whitespace"]):
        constant = scale["floors"]["constant"]["text"]
        assert "환불" in constant and "비둘기" not in constant
    assert found["num_beams"] == config.generation.num_beams
    for score in ("rouge1", "rouge2", "rougeL", "rouge_mean"):
        rows = found["per_row"][score]
        assert len(rows) == 12
        assert sum(rows) / 12 == pytest.approx(found[score], abs=1e-3)


def test_a_summary_that_says_nothing_becomes_the_first_words_that_do() -> None:
    dialogues = ["#Person1#: …\n#Person2#: 네, 가요", "#Person1#: 안녕\n#Person2#: 응", "a\nb", "c"]
    rows = [
        Dialogue(f"r{place}", text, None, None, row=place + 1)
        for place, text in enumerate(dialogues)
    ]
    filled = fill_empty(["-", " ", "nan", "둘은 만난다."], rows)
    assert filled == (["네, 가요", "안녕", "a", "둘은 만난다."], 3)

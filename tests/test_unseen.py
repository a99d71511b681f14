"""What ROUGE does not see: scripts, speakers, facts, form; each on rows where it is known."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from sacrebleu.metrics.chrf import CHRF

from dialsum.score.api import score_report, score_texts
from dialsum.score.facts import KINDS
from dialsum.score.files import align_rows, read_predictions, read_references
from dialsum.score.rows import Rows
from dialsum.score.tokenise import load_tokeniser
from dialsum.score.unseen import (
    MEASURES,
    copied_share,
    exchange_speakers,
    find_foreign,
    find_unknown_speakers,
    is_unfinished,
    repeated_share,
)

FOREIGN = [
    ([], 0.0),
    ([""], 0.0),
    (["#Person1#은 café에서 10,000원을 냈다! (약 3 km, 5 µm, 2 ℓ) 😀 ㅋㅋ ① ½ ㈜"], 0.0),
    (["Ｆｕｌｌ ｗｉｄｔｈ", "ﾡ"], 0.0),
    (["안녕", "привет"], 50.0),
    (["그는 ь"], 100.0),
    (["مرحبا", "สวัสดี", "こんにちは", "漢字", "α", "안녕"], 500 / 6),
]


@pytest.mark.parametrize(("texts", "percent"), FOREIGN)
def test_foreign_script_rate(texts: list[str], percent: float) -> None:
    found = sum(bool(find_foreign(text)) for text in texts)
    assert 100.0 * found / max(len(texts), 1) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("text", "source", "found"),
    [
        ("그는 漢字를 쓴다", None, {"han": ["漢", "字"]}),
        ("그는 漢字를 쓴다", "漢字로 쓰세요", {}),
        ("ありがとう", "", {"kana": ["あ", "り", "が", "と", "う"]}),
        ("Tôi đi học", "가요", {"vietnamese": ["đ", "ọ"], "latin": ["Tôi"]}),
        ("그는 meeting에 간다", "회의에 가요", {"latin": ["meeting"]}),
        ("그는 Meeting에 간다", "meeting 가요", {}),
        ("He goes home", "I go home.", {}),
        ("#Person1#은 #PhoneNumber#로", "네", {}),
        ("", "네", {}),
    ],
)
def test_what_the_dialogue_has_is_not_foreign(
    text: str, source: str | None, found: dict[str, list[str]]
) -> None:
    assert find_foreign(text, source) == found


@pytest.mark.parametrize(
    ("text", "source", "exchanged"),
    [
        ("#Person1#은 #Person2#를 본다", "", "#Person2#은 #Person1#를 본다"),
        ("#Person1#은 간다", "#Person1#: 가", "#Person2#은 간다"),
        ("#Person1# #Person2# #Person3#", "#Person3#: 네", "#Person2# #Person3# #Person1#"),
        ("둘은 #PhoneNumber#로", "", "둘은 #PhoneNumber#로"),
        ("#Person10#", "#Person10#: 네", "#Person1#"),
    ],
)
def test_speakers_are_exchanged(text: str, source: str, exchanged: str) -> None:
    assert exchange_speakers(text, source) == exchanged


def test_speakers_that_are_not_there() -> None:
    dialogue = "#Person1#: 가자\n#Person2#: 네"
    assert find_unknown_speakers("#Person3#은 #Person1#과 #Person3#", dialogue) == ["#Person3#"]
    assert find_unknown_speakers("#Person2#은 간다", dialogue) == []


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("", False),
        ("둘은 간다.", False),
        ("둘은 간다", False),
        ('그는 "가자."', False),
        ("둘이 역으로 향함", False),
        ("둘은 역에", True),
        ("둘은 약속을 지키지 않고 연락을", True),
        ("They go home", True),
        ("They go home!", False),
        ("값은 10", True),
    ],
)
def test_unfinished(text: str, unfinished: bool) -> None:
    assert is_unfinished(text) is unfinished


def test_repeated_and_copied_shares() -> None:
    assert repeated_share(["a", "b", "c", "a", "b", "c"]) == pytest.approx(1 / 4)
    assert repeated_share(["a", "b"]) == 0.0
    assert copied_share(["a", "b", "c", "d"], ["x", "a", "b", "c"]) == pytest.approx(1 / 2)
    assert copied_share([], ["a"]) == 0.0


ROWS = Rows(
    predictions=["#Person1#은 meeting에 간다 간다 간다 간다", "", "#Person3#은 5시에 부산에"],
    references=[["#Person1#은 서울에 간다."], ["둘은 만난다."], ["#Person2#은 3시에 서울에 간다."]],
    dialogues=["#Person1#: 서울 가요.\n#Person2#: 네."] * 3,
    names=["a", "b", "c"],
)


def test_the_report_has_every_measure_with_its_worst_rows() -> None:
    unseen = score_report(ROWS)["unseen"]
    assert set(unseen) == set(MEASURES)
    third = pytest.approx(100 / 3, abs=0.001)
    for key, worst in {
        "empty": "b",
        "foreign_script": "a",
        "speakers_unknown": "c",
        "names_unsupported": "c",
        "times_unsupported": "c",
    }.items():
        assert unseen[key]["value"] == third, key
        assert unseen[key]["references"] in (0.0, third)
        assert [row["name"] for row in unseen[key]["worst"]] == [worst]
    assert unseen["foreign_script"]["worst"][0]["what"] == "latin meeting"
    assert unseen["names_unsupported"]["worst"][0]["what"] == "부산"
    assert unseen["times_missed"]["value"] == 100.0
    assert unseen["times_missed"]["rows_measured"] == 1
    # Of the two that are not empty, one stops early.
    assert unseen["unfinished"]["value"] == 50.0
    assert unseen["repetition"]["worst"][0]["name"] == "a"
    assert unseen["chrf"]["worst"][0]["name"] == "b"


def test_without_dialogues_what_needs_them_is_left_out() -> None:
    rows = Rows(ROWS.predictions, ROWS.references)
    unseen = score_report(rows)["unseen"]
    assert set(unseen) == {key for key, one in MEASURES.items() if not one.needs_dialogue}
    assert not any(f"{kind}_unsupported" in unseen for kind in KINDS)


def test_exchanged_speakers_lose_what_they_earned() -> None:
    same = ["#Person1#은 #Person2#에게 길을 묻는다."]
    unseen = score_report(Rows(same, [same]))["unseen"]
    assert unseen["speaker_exchange"]["value"] > 10
    assert unseen["speaker_exchange"]["worst"] == []
    swapped = ["#Person2#은 #Person1#에게 길을 묻는다."]
    found = score_report(Rows(swapped, [same]))["unseen"]["speaker_exchange"]
    assert found["value"] < -10
    assert found["worst"][0]["name"] == "row 1"


def test_chrf_is_sacrebleu_s() -> None:
    references = [["둘은 점심을 먹는다.", "그들은 점심을 함께 먹는다."]]
    found = score_report(Rows(["둘은 저녁을 먹는다."], references))["unseen"]["chrf"]["value"]
    expected = CHRF().sentence_score("둘은 저녁을 먹는다.", references[0]).score
    assert found == pytest.approx(expected, abs=1e-3)


def test_speakers_exchanged_by_token_score_as_exchanged_by_text(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ko"
    references = read_references([folder / "dev.csv"])
    path = folder / "predictions" / "gemma270m_lora_greedy.csv"
    rows = align_rows(read_predictions(path, references, against=""), references, None)
    unseen = score_report(rows)["unseen"]["speaker_exchange"]["value"]
    sources = [texts[0] for texts in rows.references]
    exchanged = [exchange_speakers(*pair) for pair in zip(rows.predictions, sources, strict=True)]
    there, after = (
        score_texts(texts, rows.references, tags="one") for texts in (rows.predictions, exchanged)
    )
    assert unseen == pytest.approx(there.rouge_mean - after.rouge_mean, abs=0.02)


@pytest.mark.parametrize("tokenizer", ["mecab", "kiwi", "whitespace", "char", "english"])
def test_exchanged_speakers_lose_on_every_tokeniser(tokenizer: str) -> None:
    texts = ["#Person1# asks #Person2# the way to 서울.", "#Person2# thanks #Person1#."]
    rows = Rows(texts, [[text] for text in texts])
    unseen = score_report(rows, tokenizer=tokenizer)["unseen"]
    assert unseen["speaker_exchange"]["value"] > 5


ODD = [
    "\ud800 안녕",
    "ſix o'clock",
    "ſeven pm",
    f"#Person{'9' * 5000}#",
    "이" * 400,
    "#Person01#은",
    "\0\0",
    "١٢시",
    "①②③",
    "9" * 400,
]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_breaks_nothing(text: str) -> None:
    """Each of these once ended in a traceback."""
    block = score_report(Rows([text, "3 개"], [["둘은 3개를 산다."], [text]], [text, text]))
    assert 0.0 <= block["rouge_mean"] <= 100.0
    assert exchange_speakers(text, "#Person1#") is not None


def test_decomposed_text_has_the_same_figures() -> None:
    predictions = ["#Person1#은 서울에 간다.", "둘은 커피를 마신다."]
    rows = Rows(
        predictions,
        [["#Person1#은 서울로 갔다."], ["둘은 차를 마신다."]],
        ["#Person1#: 서울 가요.\n#Person2#: 네, 그러세요."] * 2,
    )

    def decompose(texts: Sequence[str]) -> list[str]:
        return [unicodedata.normalize("NFD", text) for text in texts]

    apart = Rows(
        decompose(rows.predictions),
        [decompose(texts) for texts in rows.references],
        decompose(rows.dialogues or []),
    )
    assert score_report(apart) == score_report(rows)


MANY = Rows(
    predictions=["#Person1#은 서울에 간다."],
    references=[["#Person1#은 부산에 간다. 부산은 멀다.", "#Person1#은 부산에 간다."]],
    dialogues=["#Person1#: 부산에 가요.\n#Person2#: 서울에 간다."],
)
"""One row with two references that differ in length, and a dialogue that has other words."""


def test_each_figure_is_held_against_what_it_should_be() -> None:
    unseen = score_report(MANY)["unseen"]
    # 부산 is what both references name and the prediction does not; 서울 is in the dialogue.
    assert unseen["names_missed"]["worst"][0]["what"] == "부산"
    assert unseen["names_unsupported"]["value"] == 0.0
    # 서울 + 에 + 간 …: three-token sequences that the dialogue has and the references have not.
    assert 0 < unseen["copied"]["value"] < 100
    reference_only = Rows(MANY.predictions, MANY.references, [MANY.references[0][0]])
    assert score_report(reference_only)["unseen"]["copied"]["value"] != unseen["copied"]["value"]
    tokens = [len(load_tokeniser("mecab", tags="one")(text)) for text in MANY.references[0]]
    own = len(load_tokeniser("mecab", tags="one")(MANY.predictions[0]))
    assert unseen["length_ratio"]["value"] == pytest.approx(own / (sum(tokens) / 2), abs=1e-3)
    both = CHRF().sentence_score(MANY.predictions[0], MANY.references[0]).score
    assert unseen["chrf"]["value"] == pytest.approx(both, abs=1e-3)


def test_missed_facts_are_those_of_the_reference() -> None:
    rows = Rows(["#Person1#은 서울에 간다."], [["#Person1#은 부산과 대구에 간다."]])
    assert score_report(rows)["unseen"]["names_missed"]["value"] == 100.0
    half = Rows(["#Person1#은 부산에 간다."], rows.references)
    assert score_report(half)["unseen"]["names_missed"]["value"] == 50.0

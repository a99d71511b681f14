"""What ROUGE does not see: scripts, speakers, facts, form; each on rows where it is known."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.chrf import CHRF

from dialsum.score.api import score_report, score_texts
from dialsum.score.files import read_predictions, read_references
from dialsum.score.rouge import load_tokeniser
from dialsum.score.rows import Rows
from dialsum.score.unseen import (
    KINDS,
    MEASURES,
    exchange_speakers,
    find_facts,
    find_foreign,
    find_lacking,
    find_speaker_fit,
    find_unknown_speakers,
    is_unfinished,
    words_of_speakers,
)


def unseen(rows: Rows, **recipe: str) -> dict[str, Any]:
    found: dict[str, Any] = score_report(rows, **recipe)["unseen"]
    return found


def test_numbers_in_words_are_those_in_figures() -> None:
    ones = ["", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"]
    tens = ["", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"]
    words = {ten + one: at for at, (ten, one) in enumerate(product(tens, ones)) if at}
    words |= {"스무": 20, "한": 1, "세": 3, "열네": 14, "삼백이": 302, "이공이오": 2025}
    words |= {"오만삼천": 53_000, "일억": 10**8, "zero": 0, "eleven": 11, "hundred": 100}
    for word, number in words.items():
        assert find_lacking(find_facts(f"{number}명"), f"{word} 명")["numbers"] == [], word
        assert find_lacking(find_facts(f"{number + 1}명"), f"{word} 명")["numbers"], word


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10,000원을 냈다", [10000]),
        ("3만 원", [30000]),
        ("2.5배, 100%", [2.5, 100]),
        ("1,2번", [12]),
        ("없다", []),
        ("끝 12.", [12]),
        ("3만 2천원과 1만 2천", [32000, 12000]),
        ("만 2천 원이다", [12000]),
        ("(만2천원)", [12000]),
        ("2억 3천만 원", [230_000_000]),
        ("1조 2천억", [1_200_000_000_000]),
        ("2.5만", [25000]),
        ("이만 5천 원", [25000]),
        ("5만 이천 원", [52000]),
        ("천 5백 원", [1500]),
        ("만 500원", [10500]),
        ("백 2십", [120]),
        ("10만 2백 5", [100_205]),
        # Two numbers, not their sum.
        ("2만 3만 원", [20000, 30000]),
        ("2천 5천", [2000, 5000]),
        ("3 2천", [3, 2000]),
        ("1만, 2천", [10000, 2000]),
        # A particle, an age, and words that begin as numbers do.
        ("책만 2천 원", [2000]),
        ("#만 2천 원", [2000]),
        ("만 19세", [19]),
        ("백 20명", [20]),
        ("3만이 든다", [30000]),
        ("3만 이 사람", [30000]),
        ("3만 천사", [30000]),
        ("10 만족", [10]),
        ("30 조각", [30]),
        ("10 만원", [100_000]),
        ("이 3명", [3]),
    ],
)
def test_numbers_in_digits(text: str, values: list[float]) -> None:
    assert list(find_facts(text)["numbers"]) == values


FACTS = [
    ("오후 3시 30분에 만난다", "times", {"3:30", "오후"}),
    ("세 시 반에", "times", {"3:30"}),
    ("15:20에 금요일", "times", {"3:20", "금요일"}),
    ("네 시 오 분에", "times", {"4:05"}),
    ("3시간 동안 시험을 본다", "times", set()),
    ("간단한 시험이다", "times", set()),
    ("at seven o'clock on Friday", "times", {"7:00", "금요일"}),
    ("12 pm, twelve o'clock", "times", {"12:00", "오후"}),
    ("#PhoneNumber#로 #Person1#에게", "masks", {"#PhoneNumber#"}),
    ("#PERSON1#은 #PersonName#을", "masks", {"#PersonName#"}),
    ("#Person1#은 서울에 간다", "names", {"서울"}),
    ("#Person1#은 Ruby와 간다", "names", {"Ruby"}),
    ("The man meets Ruby.", "names", {"Ruby"}),
    # mecab takes pieces of words that it does not know for names.
    ("그에게 알립니다.", "names", set()),
    ("패셔너블한 옷이다.", "names", set()),
    ("", "names", set()),
]


@pytest.mark.parametrize(("text", "kind", "expected"), FACTS)
def test_facts(text: str, kind: str, expected: set[str]) -> None:
    assert set(find_facts(text)[kind]) == expected


LACKING: list[tuple[str, str, str, list[str]]] = [
    ("5명이 간다", "다섯 명이 가요", "numbers", []),
    ("5명이 간다", "여섯 명이 가요", "numbers", ["5"]),
    ("3만 원이다", "30,000원이에요", "numbers", []),
    ("3시에 만난다", "오후 세 시에 봐요", "times", []),
    ("3시에 만난다", "네 시에 봐요", "times", ["3:00"]),
    ("12시에 만난다", "정오에 봐요", "times", []),
    ("만 2천 원이다", "2천 원이에요", "numbers", ["만 2천"]),
    ("2천 원이다", "만 2천 원이에요", "numbers", ["2천"]),
    ("#Person1#만 2천 원을 낸다", "2천 원이에요", "numbers", []),
    ("서울에 간다", "서울역이요", "names", []),
    ("서울에 간다", "부산이요", "names", ["서울"]),
    ("#Email#로", "#PhoneNumber#로요", "masks", ["#Email#"]),
    # A lone syllable is no number without something counted.
    ("2명이다", "이 사람은 한국에 간다", "numbers", ["2"]),
    *(
        (summary, dialogue, "numbers", [])
        for summary, dialogue in [
            ("35,000원이다", "3만 5천 원이요"),
            ("3만 5천 원이다", "35,000원이요"),
            ("1억 2천만 원", "120,000,000원"),
            ("만 5천 원", "만 오천 원이요"),
            ("15,000원", "만 오천 원이요"),
            ("5천 원", "책만 오천 원"),
            ("10,000원", "만 원"),
            ("20,003,000원", "이천만 삼천 원"),
            ("1,500원", "천오백 원"),
            ("20분 걸린다", "이십 분"),
            ("25살이다", "스물다섯 살"),
            ("20명이 온다", "twenty people"),
            ("3명이다", "세 명"),
            ("2마리가 있다", "두 마리요"),
            ("2가지다", "두 가지요"),
            ("4사람이 간다", "네 사람이요"),
            ("3블록 간다", "세 블록이요"),
            ("1000위안", "천 위안이요"),
        ]
    ),
]


@pytest.mark.parametrize(("summary", "dialogue", "kind", "lacking"), LACKING)
def test_what_a_dialogue_lacks(summary: str, dialogue: str, kind: str, lacking: list[str]) -> None:
    assert find_lacking(find_facts(summary), dialogue)[kind] == lacking


@pytest.mark.parametrize(
    ("text", "source", "found"),
    [
        ("", "네", {}),
        ("#Person1#은 café에서 10,000원을 냈다! (3 km, 5 µm, 2 ℓ) 😀 ㅋㅋ ① ½ ㈜", None, {}),
        ("Ｆｕｌｌ ｗｉｄｔｈ ﾡ", None, {}),
        ("그는 ь", None, {"cyrillic": ["ь"]}),
        ("สวัส", None, {"thai": ["ส", "ว"]}),
        ("م α", None, {"other": ["م", "α"]}),
        ("그는 漢字를 쓴다", None, {"han": ["漢", "字"]}),
        ("그는 漢字를 쓴다", "漢字로 쓰세요", {}),
        ("ありカ", "", {"kana": ["あ", "り", "カ"]}),
        ("Tôi đi học", "가요", {"vietnamese": ["đ", "ọ"], "latin": ["Tôi"]}),
        ("그는 meeting에 간다", "회의에 가요", {"latin": ["meeting"]}),
        ("그는 Meeting에 간다", "meeting 가요", {}),
        ("He goes home", "I go home.", {}),
        ("#Person1#은 #PhoneNumber#로", "네", {}),
    ],
)
def test_what_is_foreign(text: str, source: str | None, found: dict[str, list[str]]) -> None:
    assert find_foreign(text, source) == found


def test_speakers() -> None:
    for text, source, exchanged in [
        ("#Person1#은 #Person2#를 본다", "", "#Person2#은 #Person1#를 본다"),
        ("#Person1#은 간다", "#Person1#: 가", "#Person2#은 간다"),
        ("#Person1# #Person2# #Person3#", "#Person3#: 네", "#Person2# #Person3# #Person1#"),
        ("둘은 #PhoneNumber#로", "", "둘은 #PhoneNumber#로"),
        ("#Person10#", "#Person10#: 네", "#Person1#"),
    ]:
        assert exchange_speakers(text, source) == exchanged
    dialogue = "#Person1#: 가자\n#Person2#: 네"
    assert find_unknown_speakers("#Person3#은 #Person1#과 #Person3#", dialogue) == ["#Person3#"]
    assert find_unknown_speakers("#Person2#은 간다", dialogue) == []


def test_a_particle_after_a_tag_and_a_blank_is_no_name() -> None:
    text = "#Person1# 에게 #Person2# 가 말한다. #Person1# 은 간다. #Person1# 은행 직원"
    assert find_facts(text)["names"] == {}


def test_unfinished() -> None:
    ended = ["", "둘은 간다.", "둘은 간다", '그는 "가자."', "둘이 역으로 향함", "They go home!"]
    ended += ["둘은 만나요~", "가자고 해요😊", "좋아요 👍🏽", "둘은 간다 ^^"]
    assert [text for text in ended if is_unfinished(text)] == []
    open_ones = ["둘이 만난 바다", "새 담요", "그의 책임", "둘의 만남,"]
    open_ones += ["둘은 역에", "둘은 약속을 지키지 않고 연락을", "They go home", "값은 10"]
    assert [text for text in open_ones if not is_unfinished(text)] == []


ROWS = Rows(
    predictions=["#Person1#은 meeting에 간다 간다 간다 간다", "", "#Person3#은 5시에 부산에"],
    references=[["#Person1#은 서울에 간다."], ["둘은 만난다."], ["#Person2#은 3시에 서울에 간다."]],
    dialogues=["#Person1#: 서울 가요.\n#Person2#: 네."] * 3,
    names=["a", "b", "c"],
)


def test_the_report_has_every_measure_with_its_worst_rows() -> None:
    found = unseen(ROWS)
    assert list(found) == list(MEASURES)
    third = pytest.approx(100 / 3, abs=0.001)
    for key, worst, what in [
        ("empty", "b", ""),
        ("foreign_script", "a", "latin meeting"),
        ("speakers_unknown", "c", "#Person3#"),
        ("names_unsupported", "c", "부산"),
        ("times_unsupported", "c", "5:00"),
    ]:
        assert found[key]["value"] == third, key
        assert found[key]["references"] in (0.0, third)
        assert [(row["name"], row["what"]) for row in found[key]["worst"]] == [(worst, what)]
    assert found["times_missed"]["value"] == 100.0
    assert found["times_missed"]["rows_measured"] == 1
    assert found["times_missed"]["worst"][0]["what"] == "3:00"
    # Of the two that are not empty, one stops early.
    assert found["unfinished"]["value"] == 50.0
    assert found["unfinished"]["worst"][0]["what"] == "… #Person3#은 5시에 부산에"
    assert found["repetition"]["worst"][0]["name"] == "a"
    assert found["chrf"]["worst"][0]["name"] == "b"
    assert found["chrf"]["worst"][0]["text"] == ""


def test_without_dialogues_what_needs_them_is_left_out() -> None:
    found = unseen(Rows(ROWS.predictions, ROWS.references))
    needs = {
        "speakers_unknown",
        "speaker_fit",
        "copied",
        *(f"{kind}_unsupported" for kind in KINDS),
    }
    assert set(found) == set(MEASURES) - needs


def test_repeated_and_copied_shares() -> None:
    row = Rows(["가 나 다 가 나 다"], [["라 가"]], ["가 나 다 라"])
    found = unseen(row)
    cut = load_tokeniser("mecab", tags="one")
    tokens, source = cut(row.predictions[0]), cut("가 나 다 라")
    grams = [tuple(tokens[at : at + 3]) for at in range(len(tokens) - 2)]
    known = {tuple(source[at : at + 3]) for at in range(len(source) - 2)}
    repeated = 100 * (1 - len(set(grams)) / len(grams))
    copied = 100 * sum(gram in known for gram in grams) / len(grams)
    assert 0 < repeated < copied < 100
    assert found["repetition"]["value"] == pytest.approx(repeated, abs=1e-3)
    assert found["repetition"]["worst"][0]["what"] == "가 나 다"
    assert found["copied"]["value"] == pytest.approx(copied, abs=1e-3)
    assert found["repetition"]["references"] == found["copied"]["references"] == 0.0


def test_speakers_exchanged_lose_what_they_earned() -> None:
    same = ["#Person1#은 #Person2#에게 길을 묻는다."]
    found = unseen(Rows(same, [same]))["speaker_exchange"]
    assert found["value"] > 10 and found["worst"] == []
    swapped = ["#Person2#은 #Person1#에게 길을 묻는다."]
    found = unseen(Rows(swapped, [same]))["speaker_exchange"]
    assert found["value"] < -10 and found["worst"][0]["name"] == "row 1"


@pytest.mark.parametrize("tokenizer", ["mecab", "kiwi", "whitespace", "char", "english"])
def test_speakers_exchanged_lose_on_every_tokeniser(tokenizer: str) -> None:
    texts = ["#Person1# asks #Person2# the way to 서울.", "#Person2# thanks #Person1#."]
    rows = Rows(texts, [[text] for text in texts])
    assert unseen(rows, tokenizer=tokenizer)["speaker_exchange"]["value"] > 5


def test_speakers_exchanged_by_token_score_as_exchanged_by_text(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ko"
    references = read_references([folder / "dev.csv"])
    path = folder / "predictions" / "gemma270m_lora_greedy.csv"
    found = read_predictions(path, references)
    rows = Rows(found.predictions, found.references)
    lost = unseen(rows)["speaker_exchange"]["value"]
    sources = [texts[0] for texts in rows.references]
    exchanged = [exchange_speakers(*pair) for pair in zip(rows.predictions, sources, strict=True)]
    there, after = (
        score_texts(texts, rows.references, tags="one") for texts in (rows.predictions, exchanged)
    )
    assert lost == pytest.approx(there.rouge_mean - after.rouge_mean, abs=0.02)


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
    rows = Rows(
        ["#Person1#은 서울에 간다.", "둘은 커피를 마신다."],
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


def test_several_references_count_as_they_should() -> None:
    """Facts that all agree on, the mean length, chrF of both; sources are dialogues."""
    row = Rows(
        predictions=["#Person1#은 서울에 간다."],
        references=[["#Person1#은 부산과 대구에 간다. 부산은 멀다.", "#Person1#은 부산에 간다."]],
        dialogues=["#Person1#: 부산에 가요.\n#Person2#: 서울에 간다."],
    )
    found = unseen(row)
    assert found["names_missed"]["worst"][0]["what"] == "부산"
    assert found["names_unsupported"]["value"] == 0.0
    assert 0 < found["copied"]["value"] < 100
    cut = load_tokeniser("mecab", tags="one")
    one, other = (len(cut(text)) for text in row.references[0])
    own = len(cut(row.predictions[0]))
    assert found["length_ratio"]["value"] == pytest.approx(2 * own / (one + other), abs=1e-3)
    assert found["length_ratio"]["references"] == pytest.approx(2 * one / (one + other), abs=1e-3)
    both = CHRF().sentence_score(row.predictions[0], row.references[0]).score
    assert found["chrf"]["value"] == pytest.approx(both, abs=1e-3)
    half = Rows(["#Person1#은 부산에 간다."], [["#Person1#은 부산과 대구에 간다."]])
    assert unseen(half)["names_missed"]["value"] == 50.0


def test_a_text_that_other_rows_have_too_is_counted() -> None:
    rows = Rows(
        ["둘은 만난다.", "둘은  만난다.", "표를 산다.", ""], [["가"], ["나"], ["다"], ["라"]]
    )
    found = score_report(rows)
    shared = found["unseen"]["shared"]
    assert shared["value"] == pytest.approx(200 / 3, abs=1e-3)
    assert shared["rows_measured"] == 3
    assert [one["what"] for one in shared["worst"]] == ["2 rows", "2 rows"]
    assert shared["references"] == 0.0
    assert found["distinct_share"] == 75.0


@pytest.mark.parametrize(
    ("summary", "dialogue", "lacking"),
    [
        ("세 시간을 기다린다", "세 시간이요", ""),
        ("네 시간을 기다린다", "세 시간이요", "네 시간"),
        ("네 시간을 기다린다", "4시간이요", ""),
        ("두 사람은 만난다", "안녕", ""),
        ("젊은 세대를 말한다", "안녕", ""),
        ("사흘 쉰다", "3일 쉬어요", ""),
        ("나흘 쉰다", "사흘 쉬어요", "나흘"),
        ("석 달 산다", "세 달 살아요", ""),
        ("3달 산다", "석 달 살아요", ""),
        ("넉 달 산다", "석 달 살아요", "넉"),
        ("6월에 간다", "유월에 가요", ""),
        ("90분 걸린다", "한 시간 반 걸려요", ""),
        ("2명이 간다", "둘이서 가요", ""),
        ("3위안을 낸다", "3위안입니다", ""),
        ("3달러를 낸다", "3위안입니다", "3달러"),
        ("3달러를 낸다", "$3 입니다", ""),
        ("3달러를 낸다", "셋이에요 3", ""),
        ("3 달러를 낸다", "three dollars", ""),
        ("Friday에 만난다", "금요일에 만나요", ""),
        ("목요일에 만난다", "See you on Friday", "목요일"),
        ("오전 7시에 간다", "아침 7시요", ""),
        ("오전 7시에 간다", "오후 7시요", "오전"),
        ("모레 간다", "내일 가요", "모레"),
        ("내일 간다", "다음 날 가요", ""),
        ("지난주에 샀다", "다음 주에 사요", "지난주"),
    ],
)
def test_numbers_in_words_units_and_days_are_looked_up(
    summary: str, dialogue: str, lacking: str
) -> None:
    found = find_lacking(find_facts(summary), dialogue)
    told = [fact for kind in ("numbers", "units", "times") for fact in found[kind]]
    assert told == ([lacking] if lacking else [])


def test_whose_words_a_summary_gives_to_a_speaker() -> None:
    dialogue = (
        "#Person1#: 감기에 걸려 병원에 갔어요.\n#Person2#: 시험을 준비해요.\n시험이 어려워요."
    )
    said = words_of_speakers(dialogue)
    right = "#Person1#은 병원에 간다. #Person2#는 시험을 준비한다."
    assert find_speaker_fit(right, said) == (100.0, "")
    value, what = find_speaker_fit(exchange_speakers(right, dialogue), said)
    assert value == -100.0
    assert what == "#Person2# 병원 가; #Person1# 시험 준비"
    for silent in ("", "둘은 만난다.", "#Person1#은 웃는다.", "#Person3#은 병원에 간다."):
        assert math.isnan(find_speaker_fit(silent, said)[0])
    assert math.isnan(find_speaker_fit(right, words_of_speakers("#Person1#: 병원"))[0])


def test_exchanged_speakers_are_listed_by_both_signals() -> None:
    dialogue = "#Person1#: 감기에 걸려 병원에 갔어요.\n#Person2#: 저는 시험을 준비해요."
    reference = "#Person1#은 병원에 간다. #Person2#는 시험을 준비한다."
    rows = Rows([exchange_speakers(reference, "")], [[reference]], [dialogue])
    found = unseen(rows)
    assert found["speaker_fit"]["worst"][0]["what"].startswith("exchange gains; #Person2# 병원")
    assert found["speaker_exchange"]["worst"][0]["what"] == "another's words, too"


def test_a_missing_dialogue_costs_its_row_alone() -> None:
    def read(dialogues: list[str]) -> dict[str, Any]:
        rows = Rows(["둘은 7시에 간다."] * 3, [["둘은 간다."]] * 3, dialogues)
        found: dict[str, Any] = score_report(rows)
        return found

    known = "#Person1#: 가자\n#Person2#: 네"
    found, whole = read([known, "", known]), read([known] * 3)
    for key in ("speakers_unknown", "times_unsupported", "copied"):
        assert found["unseen"][key]["rows_measured"] == 2
        assert found["unseen"][key]["value"] == whole["unseen"][key]["value"]
    assert found["unseen"]["length_ratio"]["rows_measured"] == 3
    assert found["floors"]["lead2"] == whole["floors"]["lead2"]
    assert found["content"]["floors"]["lead2"] == whole["content"]["floors"]["lead2"]
    assert "lead2" not in read([""] * 3)["floors"]

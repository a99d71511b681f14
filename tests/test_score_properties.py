"""What holds of scores whatever the text: hypothesis tries what nobody would think of."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialsum.score.api import SCORES, score_report, score_texts
from dialsum.score.rouge import METRICS
from dialsum.score.rows import Rows

TOKENIZERS = ["mecab", "whitespace", "char", "english"]
WORDS = st.sampled_from(
    ["#Person1#은", "간다.", "역에", "3시에", "Go", "\n", " ", "가", "café", "漢"]
)
KOREAN = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
ANY = st.text(st.characters(codec="utf-8"), max_size=40)
REFERENCE = (KOREAN | ANY).filter(lambda text: bool(text.strip()))
FEW = settings(max_examples=60, deadline=None)


@given(ANY | KOREAN, REFERENCE, st.sampled_from(TOKENIZERS))
@FEW
def test_scores_lie_between_0_and_100(prediction: str, reference: str, tokenizer: str) -> None:
    found = score_texts([prediction], [[reference]], tokenizer=tokenizer)
    for name in METRICS:
        for values in (found.precision[name], found.recall[name], found.per_row[name]):
            assert 0.0 <= values[0] <= 100.0


@given(KOREAN.filter(str.strip), st.sampled_from(["mecab", "whitespace", "char"]))
@FEW
def test_identical_texts_score_100(text: str, tokenizer: str) -> None:
    found = score_texts([text], [[text]], tokenizer=tokenizer)
    assert found.rouge1 == found.rougeL == found.rougeLsum == pytest.approx(100.0)


@given(REFERENCE, REFERENCE, st.sampled_from(TOKENIZERS))
@FEW
def test_exchanging_the_texts_exchanges_precision_and_recall(
    one: str, other: str, tokenizer: str
) -> None:
    there = score_texts([one], [[other]], tokenizer=tokenizer)
    back = score_texts([other], [[one]], tokenizer=tokenizer)
    # Lsum takes the union of the reference's lines: it is not symmetric for several lines.
    for name in METRICS[:3]:
        assert there.precision[name].tolist() == back.recall[name].tolist()
        assert there.per_row[name].tolist() == pytest.approx(back.per_row[name].tolist())


@given(st.lists(st.tuples(KOREAN, KOREAN.filter(str.strip)), min_size=2, max_size=6), st.randoms())
@FEW
def test_the_order_of_rows_does_not_count(rows: list[tuple[str, str]], random: object) -> None:
    shuffled = rows[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        score_texts([one for one, _ in some], [[other] for _, other in some])
        for some in (rows, shuffled)
    )
    for name in SCORES:
        assert getattr(first, name) == pytest.approx(getattr(second, name))


@given(KOREAN, st.lists(KOREAN.filter(str.strip), min_size=2, max_size=4))
@FEW
def test_another_reference_never_lowers_the_best(prediction: str, references: list[str]) -> None:
    fewer = score_texts([prediction], [references[:-1]], aggregate="max")
    more = score_texts([prediction], [references], aggregate="max")
    for name in METRICS:
        assert getattr(more, name) >= getattr(fewer, name) - 1e-9


@given(KOREAN | ANY, REFERENCE, st.sampled_from(TOKENIZERS))
@FEW
def test_composed_and_decomposed_text_score_alike(
    prediction: str, reference: str, tokenizer: str
) -> None:
    composed, decomposed = (
        score_texts(
            [unicodedata.normalize(form, prediction)],
            [[unicodedata.normalize(form, reference)]],
            tokenizer=tokenizer,
        )
        for form in ("NFC", "NFD")
    )
    for name in SCORES:
        assert getattr(composed, name) == getattr(decomposed, name)


@given(ANY | KOREAN, REFERENCE, ANY)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_breaks_the_report(prediction: str, reference: str, dialogue: str) -> None:
    block = score_report(Rows([prediction], [[reference]], [dialogue]))
    assert 0.0 <= block["rouge_mean"] <= 100.0
    assert 0.0 <= block["unseen"]["chrf"]["value"] <= 100.0

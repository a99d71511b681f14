"""The search with a real, small model: order, lengths, candidates, tags that may come again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.generate import GenerationSettings, banned_tokens, generate, search
from dialsum.models.load import load_model, open_checkpoint
from dialsum.models.tokenizers import add_dialogue_tokens
from dialsum.score.api import rank_by_likeness
from small_models import KINDS, make_config, make_model, train_sample_tokenizer, write_checkpoint

TEXTS = ["네", "안녕하세요 오늘 저녁에 같이 밥을 먹을까요", "", "내일 만나요", "좋아요 그때 봐요"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer trained on the sample, with tags."""
    trained = train_sample_tokenizer(KINDS["bart"])
    add_dialogue_tokens(trained, STANDARD_DIALOGUE_TOKENS)
    return trained


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A small BART with random weights."""
    import torch

    torch.manual_seed(5)
    return make_model("bart", tokenizer=tokenizer, width=32)


def settings(**values: Any) -> GenerationSettings:
    """Return a short search."""
    return GenerationSettings(**{"num_beams": 3, "max_new_tokens": 12} | values)


def encode(tokenizer: Any) -> list[list[int]]:
    """Return the texts as ids; an empty one is its end alone."""
    return [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in TEXTS]


@pytest.mark.training
def test_no_inputs_are_no_summaries(model: Any, tokenizer: Any) -> None:
    assert generate(model, tokenizer, [], settings=settings(), batch_size=4) == []


@pytest.mark.training
def test_of_drawn_summaries_the_one_most_like_all_is_kept(model: Any, tokenizer: Any) -> None:
    inputs = encode(tokenizer)

    def draw(candidates: int = 8, **values: Any) -> list[list[str]]:
        asked = settings(num_beams=8, mbr_temperature=0.5, **values)
        found = search(
            model, tokenizer, inputs, settings=asked, batch_size=2, candidates=candidates
        )
        return [[one.text for one in row] for row in found]

    drawn = draw()
    assert any(len(set(row)) > 1 for row in drawn)
    assert all(rank_by_likeness(row, tokenizer="mecab")[0] == 0 for row in drawn)
    assert draw(1) == [row[:1] for row in drawn]
    assert draw() == drawn != draw(seed=1)


@pytest.mark.training
@pytest.mark.parametrize("family", ["bart", "mt5"])
def test_at_no_temperature_what_is_drawn_is_what_greedy_writes(family: str) -> None:
    import torch

    tokenizer = train_sample_tokenizer(KINDS[family])
    torch.manual_seed(5)
    own = make_model(family, tokenizer=tokenizer, width=32)
    with torch.no_grad():
        own.get_output_embeddings().weight.normal_()
    inputs = encode(tokenizer)
    greedy, drawn = (
        generate(own, tokenizer, inputs, settings=settings(min_new_tokens=5, **asked), batch_size=3)
        for asked in ({"num_beams": 1}, {"num_beams": 3, "mbr_temperature": 1e-5})
    )
    assert any(greedy)
    assert drawn == greedy


@pytest.mark.training
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_summaries_come_in_the_order_of_the_inputs(
    model: Any, tokenizer: Any, batch_size: int
) -> None:
    inputs = encode(tokenizer)
    alone = [
        generate(model, tokenizer, [one], settings=settings(), batch_size=1)[0] for one in inputs
    ]
    assert len(set(alone)) > 1
    calls: list[tuple[int, int]] = []
    together = generate(
        model,
        tokenizer,
        inputs,
        settings=settings(),
        batch_size=batch_size,
        on_batch=lambda done, total: calls.append((done, total)),
    )
    assert together == alone
    assert calls[-1] == (5, 5)
    assert len(calls) == -(-5 // batch_size)


@pytest.mark.training
def test_the_model_is_left_in_the_mode_that_it_was_in(model: Any, tokenizer: Any) -> None:
    for training in (True, False):
        model.train(training)
        generate(model, tokenizer, [[5]], settings=settings(), batch_size=1)
        assert model.training is training


@pytest.mark.training
@pytest.mark.parametrize(("least", "most"), [(0, 1), (4, 4), (7, 12)])
def test_lengths_are_held(model: Any, tokenizer: Any, least: int, most: int) -> None:
    asked = settings(min_new_tokens=least, max_new_tokens=most)
    lengths = [len(written) for written in write(model, tokenizer, asked)]
    assert all(least <= length <= most for length in lengths)


def write(model: Any, tokenizer: Any, asked: GenerationSettings) -> list[tuple[int, ...]]:
    """Return the ids that a search wrote."""
    found = search(model, tokenizer, encode(tokenizer), settings=asked, batch_size=8)
    return [best.tokens for [best] in found]


@pytest.mark.training
@pytest.mark.parametrize("sort", ["bart", "mt5"])
def test_candidates_come_best_first_each_with_what_the_model_gives_its_tokens(
    sort: str, tokenizer: Any
) -> None:
    import torch

    torch.manual_seed(6)
    model = make_model(sort, tokenizer=tokenizer, width=32).eval()
    inputs, asked = encode(tokenizer), settings(num_beams=4, length_penalty=0.0)
    found = search(model, tokenizer, inputs, settings=asked, batch_size=2, candidates=3, score=True)
    assert [len(row) for row in found] == [3] * len(inputs)
    alone = generate(model, tokenizer, inputs, settings=asked, batch_size=2)
    assert alone == [best.text for best, *_ in found]
    lengths = set()
    for ids, row in zip(inputs, found, strict=True):
        assert len({one.tokens for one in row}) == 3
        for one in row:
            lengths.add(len(one.tokens))
            with torch.no_grad():
                labels = torch.tensor([one.tokens])
                loss = float(model(input_ids=torch.tensor([ids]), labels=labels).loss)
            assert one.log_probability == pytest.approx(-loss * len(one.tokens), rel=1e-5)
            assert tokenizer.decode(one.tokens, skip_special_tokens=True).strip() == one.text
    assert len(lengths) > 1 or sort != "bart", "no candidate was padded"


@pytest.mark.training
@pytest.mark.parametrize("candidates", [0, 4])
def test_no_more_candidates_than_beams(model: Any, tokenizer: Any, candidates: int) -> None:
    with pytest.raises(ValueError, match=f"{candidates} candidates of a search with 3 beams"):
        search(model, tokenizer, [[5]], settings=settings(), batch_size=1, candidates=candidates)


SEARCH_OF_THE_CHECKPOINT = {
    "max_length": 6,
    "min_length": 5,
    "no_repeat_ngram_size": 2,
    "num_beams": 4,
    "length_penalty": 0.6,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 8,
    "do_sample": True,
    "encoder_no_repeat_ngram_size": 2,
    "repetition_penalty": 1.9,
    "suppress_tokens": [9, 10, 11],
    "early_stopping": False,
    "task_specific_params": {"summarization": {"min_length": 9}},
}
"""In the manner of mT5 XLSum's: 84 tokens at most, n-grams of 2 banned, 4 beams."""


@pytest.mark.training
@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("sort", ["mt5", "bart"])
def test_a_checkpoint_s_own_search_stays_out(sort: str, place: str, tmp_path: Path) -> None:
    import torch

    tokenizer = train_sample_tokenizer(KINDS[sort])
    write_checkpoint(tmp_path, sort, tokenizer=tokenizer)

    def load_and_write() -> list[tuple[int, ...]]:
        config = make_config(sort, tmp_path)
        model = load_model(
            open_checkpoint(config),
            config=config,
            tokenizer=tokenizer,
            new_tokens=[],
            device="cpu",
            dtype=torch.float32,
        )
        return write(model, tokenizer, settings(num_beams=2))

    plain = load_and_write()
    assert any(len(set(row)) < len(row) - 1 for row in plain), "nothing that a ban would change"
    path = tmp_path / place
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(found | SEARCH_OF_THE_CHECKPOINT), encoding="utf-8")
    assert load_and_write() == plain


@pytest.mark.training
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
def test_no_n_gram_comes_twice_but_those_with_tags(
    model: Any, tokenizer: Any, size: int, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = tokenizer.convert_tokens_to_ids("#Person1#")
    # A head that prefers the tag shows whether it may come again.
    preferred = model.final_logits_bias.clone()
    preferred[0, tag] = 6.0
    monkeypatch.setitem(model._buffers, "final_logits_bias", preferred)
    asked = {"num_beams": beams, "min_new_tokens": 12, "no_repeat_ngram_size": size}
    exempt = write(model, tokenizer, settings(**asked, exempt=frozenset({tag})))
    counted = write(model, tokenizer, settings(**asked))
    assert any(row.count(tag) > 2 for row in exempt)
    for rows, free in ((exempt, {tag}), (counted, set())):
        for row in rows:
            for end in range(1, len(row)):
                assert row[end] not in banned_tokens(row[:end], size=size, exempt=free)
    if size == 1:
        assert all(row.count(tag) == 1 for row in counted)


TAG, MASK = 7, 8
"""Ids of a speaker tag and of a mask in these tables."""


@pytest.mark.parametrize(
    ("written", "size", "banned"),
    [
        ([], 1, []),
        ([], 3, []),
        ([1], 2, []),
        ([1, 2], 3, []),
        ([1, 2, 3], 4, []),
        ([1, 2, 3], 3, []),
        ([1], 1, [1]),
        ([2, 1, 2], 1, [1, 2]),
        ([1, 1], 2, [1]),
        ([1, 2, 1], 2, [2]),
        ([1, 2, 1, 3, 1], 2, [2, 3]),
        ([1, 2, 3, 1, 2], 3, [3]),
        ([1, 2, 3, 1, 4], 3, []),
        ([1, 2, 3, 4, 1, 2, 3], 4, [4]),
        # A tag may come as often as there is something to say of the speaker.
        ([TAG], 1, []),
        ([TAG, 1, TAG], 1, [1]),
        ([TAG, 1, 2, TAG, 1], 3, []),
        ([1, TAG, 2, 1, TAG], 3, []),
        ([1, 2, TAG, 1, 2], 3, []),
        ([MASK, 1, MASK], 2, []),
        ([1, TAG, 2, 3, 1, TAG, 2], 4, []),
        # What has no tag in it is banned beside one.
        ([TAG, 1, 2, TAG, 1], 2, [2]),
        ([TAG, 1, 2, 3, MASK, 1, 2], 3, [3]),
        ([TAG, 1, 2, 3, 4, TAG, 1, 2, 3], 4, [4]),
    ],
)
def test_banned_tokens(written: Sequence[int], size: int, banned: list[int]) -> None:
    assert banned_tokens(written, size=size, exempt={TAG, MASK}) == banned


def test_every_value_of_the_generation_section_arrives() -> None:
    asked = {
        "num_beams": 3,
        "mbr_temperature": 0.7,
        "min_new_tokens": 2,
        "max_new_tokens": 17,
        "no_repeat_ngram_size": 5,
        "length_penalty": 0.5,
        "repetition_penalty": 1.5,
        "early_stopping": False,
        "allowed_scripts": ["hangul", "punctuation"],
    }
    config = make_config("bart", "none/needed", generation=asked)
    assert set(asked) == set(type(config.generation).model_fields)
    settings = GenerationSettings.from_config(config, exempt=[4, 4, 5], bf16=True)
    assert {name: getattr(settings, name) for name in asked} == asked
    assert settings.exempt == {4, 5}
    assert settings.tokenizer == config.evaluation.tokenizer
    assert settings.seed == config.training.seed
    assert settings.bf16


@pytest.mark.parametrize(
    ("generation", "num_beams", "beams", "longest"),
    [
        ({}, None, 4, 20),
        ({"num_beams": 12, "mbr_temperature": 0.5}, 4, 4, 20),
        ({"num_beams": 12}, None, 12, 20),
        ({"num_beams": 12}, 1, 1, 20),
        ({"num_beams": 1, "max_new_tokens": 30}, None, 1, 30),
    ],
)
def test_length_and_beams_have_their_fallbacks(
    generation: dict[str, object], num_beams: int | None, beams: int, longest: int
) -> None:
    settings = GenerationSettings.from_config(
        make_config("bart", "none/needed", lengths=(64, 20), generation=generation),
        exempt=(),
        bf16=False,
        num_beams=num_beams,
    )
    assert (settings.num_beams, settings.max_new_tokens) == (beams, longest)
    assert settings.mbr_temperature is None

"""Which tokens no_repeat_ngram_size bans, and what of the config reaches the search."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dialsum.config.schema import Config
from dialsum.generate import GenerationSettings, banned_tokens

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


def test_without_exemption_a_tag_in_pieces_is_banned() -> None:
    # What the exemption is for: `# Person 1 #` in four pieces, its last one banned the second time.
    pieces = [11, 12, 13, 14]
    written = [*pieces, 1, 2, *pieces[:3]]
    assert banned_tokens(written, size=4, exempt=()) == [14]
    assert banned_tokens(written, size=4, exempt=pieces) == []


def make_config(**generation: object) -> Config:
    """Return a whole config with the given generation section."""
    return Config.model_validate(
        {
            "model": {"architecture": "bart", "checkpoint": "none/needed"},
            "tokenizer": {"encoder_max_len": 64, "decoder_max_len": 20},
            "training": {
                "learning_rate": 1e-3,
                "num_train_epochs": 1,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "lr_scheduler_type": "linear",
                "eval_steps": 1,
            },
            "qlora": {"use_qlora": False},
            "generation": generation,
        }
    )


def test_every_value_of_the_generation_section_arrives() -> None:
    asked = {
        "num_beams": 3,
        "min_new_tokens": 2,
        "max_new_tokens": 17,
        "no_repeat_ngram_size": 5,
        "length_penalty": 0.5,
        "repetition_penalty": 1.5,
        "early_stopping": False,
    }
    config = make_config(**asked)
    assert set(asked) == set(type(config.generation).model_fields)
    settings = GenerationSettings.from_config(config, exempt=[4, 4, 5], bf16=True)
    assert {name: getattr(settings, name) for name in asked} == asked
    assert settings.exempt == {4, 5}
    assert settings.bf16


@pytest.mark.parametrize(
    ("generation", "num_beams", "beams", "longest"),
    [
        ({}, None, 4, 20),
        ({"num_beams": 12}, None, 12, 20),
        ({"num_beams": 12}, 1, 1, 20),
        ({"num_beams": 1, "max_new_tokens": 30}, None, 1, 30),
    ],
)
def test_length_and_beams_have_their_fallbacks(
    generation: dict[str, object], num_beams: int | None, beams: int, longest: int
) -> None:
    settings = GenerationSettings.from_config(
        make_config(**generation), exempt=(), bf16=False, num_beams=num_beams
    )
    assert (settings.num_beams, settings.max_new_tokens) == (beams, longest)

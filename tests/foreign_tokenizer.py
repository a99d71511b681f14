"""A small tokenizer that knows English and Russian besides the sample's Korean, as mT5's does.

That is what there is to cut of a vocabulary. Loads transformers only when a function is called.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.models.tokenizers import add_dialogue_tokens, load_tokenizer
from small_models import train_sample_tokenizer

ENGLISH = "the weather report said that tomorrow every Person would get another PhoneNumber again"
RUSSIAN = "сегодня утром погода хорошая поэтому станция снова открыта для всех пассажиров"
TAGS = STANDARD_DIALOGUE_TOKENS


@cache
def foreign() -> Any:
    """Return a tokenizer of Korean, English and Russian, without dialogue tokens; not to change.

    The foreign pieces stand before the Korean ones, so that nearly every id changes in a cut.
    """
    from tokenizers import models

    tokenizer = train_sample_tokenizer("unigram")
    own = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    korean: list[tuple[str, float]] = [tuple(one) for one in own["vocab"]]
    words = [f"▁{word}" for word in (*ENGLISH.split(), *RUSSIAN.split())]
    parts = {
        word[start:stop]
        for word in words
        for start in range(len(word))
        for stop in range(start + 1, len(word) + 1)
    } - {piece for piece, _ in korean}
    other = [(part, -9.0 if len(part) > 1 else -14.0) for part in sorted(parts)]
    tokenizer.backend_tokenizer.model = models.Unigram(
        [*korean[:3], *other, *korean[3:]], own["unk_id"]
    )
    return tokenizer


def loaded(folder: Path, tags: tuple[str, ...] = TAGS) -> tuple[Any, list[str]]:
    """Return a folder's tokenizer with the tags, and which tokens are new."""
    tokenizer = load_tokenizer(folder)
    return tokenizer, add_dialogue_tokens(tokenizer, tags)

"""Tokenizers trained in a second on the texts at hand, for tests that need no checkpoint's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

SPECIALS = {
    "unigram": ["<pad>", "</s>", "<unk>"],
    "bpe": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


def train_tokenizer(
    texts: Iterable[str], *, kind: str, vocab_size: int, exclude: Sequence[str] = ()
) -> Any:
    """Train a tokenizer of a family's kind on texts.

    Args:
        kind: unigram (as T5, mT5) or bpe (as KoBART).
        vocab_size: pieces at most; small data yields fewer.
        exclude: tokens that are added later and must not be learnt in pieces.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from dialsum.models.tokenizers import SPECIAL_NAMES

    specials = SPECIALS[kind]
    tags = re.compile("|".join(re.escape(token) for token in exclude)) if exclude else None
    lines = [
        line
        for text in texts
        for line in (tags.sub("\n", text) if tags else text).splitlines()
        if line
    ]
    trainer: Any
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
    else:
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=specials, show_progress=False
        )
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.train_from_iterator(lines, trainer)
    if kind == "unigram":
        _put_pieces_in_order(backend, len(specials))
    named = {key: name for key, name in SPECIAL_NAMES.items() if name in specials}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(1e9),
        **named,
    )


def _put_pieces_in_order(backend: Any, special_count: int) -> None:
    """Give a trained unigram model the ids and scores that it has whenever it is trained again.

    The trainer gives the characters that were too rare to be learned the lowest score, then 0.0001
    more, then 0.0002 more, in the order of a hash map: two runs on the same texts get other ids,
    and so other weights in a model that is built around them.
    """
    from tokenizers import models

    trained = json.loads(backend.to_str())["model"]
    specials = [(piece, score) for piece, score in trained["vocab"][:special_count]]
    # Sums over that hash map differ in the last digits.
    scores = {piece: round(score, 6) for piece, score in trained["vocab"][special_count:]}
    lowest = min(scores.values(), default=0.0)
    steps = {piece: (score - lowest) / 1e-4 for piece, score in scores.items() if len(piece) == 1}
    rare = sorted(piece for piece, step in steps.items() if abs(step - round(step)) < 0.02)
    scores |= dict(zip(rare, sorted(scores[piece] for piece in rare), strict=True))
    pieces = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    backend.model = models.Unigram([*specials, *pieces], trained["unk_id"])

"""A tokenizer of ten words, called as those of transformers are: what encoding needs, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from dialsum.data.rows import Dialogue

WORDS = [f"w{number}" for number in range(10)]
END, UNKNOWN, NEWLINE = 1, 2, 3
SPEAKERS = ["A:", "B:"]


class WordTokenizer:
    """A tokenizer of ten words, two speakers and the line end.

    Args:
        adds_end: put the end token after every text, as T5's does and KoBART's does not.
        words: its words.
    """

    def __init__(self, *, adds_end: bool, words: Sequence[str] = (*WORDS, *SPEAKERS)) -> None:
        self.eos_token_id, self.unk_token_id = END, UNKNOWN
        vocabulary = {
            word: row for row, word in enumerate(["<pad>", "</s>", "<unk>", "\n", *words])
        }
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.add_tokens([AddedToken("\n", normalized=False)])
        if adds_end:
            backend.post_processor = processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", END)]
            )
        self.backend_tokenizer = backend

    def __call__(
        self,
        texts: Sequence[str],
        *,
        return_attention_mask: bool = True,
        return_offsets_mapping: bool = False,
        add_special_tokens: bool = True,
    ) -> dict[str, list[Any]]:
        encodings = self.backend_tokenizer.encode_batch(
            list(texts), add_special_tokens=add_special_tokens
        )
        found: dict[str, list[Any]] = {"input_ids": [one.ids for one in encodings]}
        if return_attention_mask:
            found["attention_mask"] = [one.attention_mask for one in encodings]
        if return_offsets_mapping:
            found["offset_mapping"] = [one.offsets for one in encodings]
        return found

    def read(self, ids: Sequence[int]) -> str:
        """Return the words of ids, the end token as <end>."""
        names = {END: "<end>", NEWLINE: "|"}
        return " ".join(
            names.get(token) or str(self.backend_tokenizer.id_to_token(token)) for token in ids
        )


T5_LIKE, KOBART_LIKE = WordTokenizer(adds_end=True), WordTokenizer(adds_end=False)


def word(number: int) -> int:
    """Return the id of a word."""
    return 4 + number


def rows(*pairs: tuple[str, str | None]) -> list[Dialogue]:
    """Return dialogues with their summaries."""
    return [
        Dialogue(fname=f"d_{row}", dialogue=dialogue, summary=summary, topic=None, row=row)
        for row, (dialogue, summary) in enumerate(pairs, start=1)
    ]

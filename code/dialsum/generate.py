"""Write summaries with a trained model: one search for evaluation, dev rows and submission.

Only pieces that a summary can hold are written, and bytes only as whole characters (see writable).
Must not know files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dialsum.config.schema import Config
from dialsum.errors import FullMemoryError, first_line
from dialsum.lifeline import EVALUATION, beat
from dialsum.machine.memory import free_memory, is_out_of_memory
from dialsum.models.writable import LONGEST, WritablePieces, find_writable
from dialsum.score.api import rank_by_likeness

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import LogitsProcessorList, PreTrainedTokenizerFast


@dataclass(frozen=True)
class GenerationSettings:
    """How to search; names and meaning as in the config's generation section.

    Args:
        allowed_scripts: those that characters may be of (see script_of); None: all.
        tokenizer: the unit in which drawn summaries are compared (rank_by_likeness).
        seed: of what is drawn.
        exempt: token ids that no_repeat_ngram_size does not count (speaker tags and masks).
        bf16: compute in bfloat16 where the weights are not.
    """

    num_beams: int
    max_new_tokens: int
    mbr_temperature: float | None = None
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    early_stopping: bool = True
    allowed_scripts: Sequence[str] | None = None
    tokenizer: str = "mecab"
    seed: int = 0
    exempt: frozenset[int] = frozenset()
    bf16: bool = False

    @classmethod
    def from_config(
        cls, config: Config, *, exempt: Collection[int], bf16: bool, num_beams: int | None = None
    ) -> GenerationSettings:
        """Take the config's generation section; num_beams asks for a search by so many beams in
        place of its own."""
        asked = config.generation.model_dump()
        asked["max_new_tokens"] = asked["max_new_tokens"] or config.tokenizer.decoder_max_len
        settings = cls(
            **asked,
            tokenizer=config.evaluation.tokenizer,
            seed=config.training.seed,
            exempt=frozenset(exempt),
            bf16=bf16,
        )
        return settings if num_beams is None else settings.by_beams(num_beams)

    def by_beams(self, num_beams: int) -> GenerationSettings:
        """Return a search by so many beams in place of this."""
        return replace(self, num_beams=num_beams, mbr_temperature=None)


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    inputs: Sequence[Sequence[int] | NDArray[np.int32]],
    *,
    settings: GenerationSettings,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None = None,
    on_full: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Return the best summary of each input, in the inputs' order (arguments as search)."""
    found = search(
        model,
        tokenizer,
        inputs,
        settings=settings,
        batch_size=batch_size,
        on_batch=on_batch,
        on_full=on_full,
    )
    return [best.text for [best] in found]


class Candidate(NamedTuple):
    """One summary that a search wrote.

    Attributes:
        tokens: ids as written, the end token last where the search came to one.
        log_probability: natural logarithm of what the model alone, without the rules and penalties
            of a search, gives for those tokens one after the other; None where nobody asked.
    """

    text: str
    tokens: tuple[int, ...]
    log_probability: float | None = None


def search(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    inputs: Sequence[Sequence[int] | NDArray[np.int32]],
    *,
    settings: GenerationSettings,
    batch_size: int,
    candidates: int = 1,
    score: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
    on_full: Callable[[int, str], None] | None = None,
) -> list[list[Candidate]]:
    """Return the best summaries for each input, in the inputs' order, the best of each first.

    Rows are sorted by length, so that a batch holds little padding; a batch that does not fit the
    GPU's memory is halved and tried again. The same rows in the same batches draw the same
    summaries; torch's own random numbers are set to settings.seed where any are drawn.

    Args:
        inputs: token ids per row.
        batch_size: rows at once (each takes num_beams beams, or draws).
        candidates: summaries per row, from 1 to num_beams.
        score: say each one's log-probability, for one more pass of the model per row.
        on_batch: called with rows done and rows in all.
        on_full: called with the rows of smaller batches and the library's words where memory was
            full; printed where nobody listens.

    Raises:
        FullMemoryError: memory was full with one row.
        ValueError: more candidates than beams.
    """
    import torch

    own, beams = model.config, settings.num_beams
    if not 1 <= candidates <= beams:
        raise ValueError(f"{candidates} candidates of a search with {beams} beams")
    alone = not own.is_encoder_decoder
    asked = describe_search(settings, own, candidates=candidates)
    writable = find_writable(tokenizer, decoder_only=alone, scripts=settings.allowed_scripts)
    unwritable = _list_unwritable(writable, device=model.device)
    autocast = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=settings.bf16)
    order = sorted(range(len(inputs)), key=lambda index: -len(inputs[index]))
    found: list[list[Candidate]] = [[] for _ in inputs]
    done, was_training = 0, model.training
    if asked.do_sample:
        torch.manual_seed(settings.seed)
    model.eval()
    try:
        while done < len(order):
            beat(EVALUATION)
            chosen = order[done : done + batch_size]
            rows = [[int(one) for one in inputs[index]] for index in chosen]
            words = None
            try:
                with torch.inference_mode(), autocast:
                    # The first id of what is written is the decoder's start; without an encoder
                    # all of the prompt stands there, and padding before it.
                    width = max(map(len, rows))
                    begun = width if alone else 1
                    ids = torch.full((len(rows), width), own.pad_token_id)
                    mask = torch.zeros_like(ids)
                    for place, row in enumerate(rows):
                        held = slice(width - len(row), None) if alone else slice(len(row))
                        ids[place, held], mask[place, held] = torch.tensor(row), 1
                    ids, mask = ids.to(model.device), mask.to(model.device)
                    written = model.generate(
                        input_ids=ids,
                        attention_mask=mask,
                        generation_config=asked,
                        logits_processor=_processors(
                            settings, writable, unwritable, begun=begun, alone=alone
                        ),
                        past_key_values=make_cache(model, ids, mask, beams=beams),
                    )[:, begun:].tolist()
                    for place, index in enumerate(chosen):
                        count = asked.num_return_sequences
                        each = written[place * count : (place + 1) * count]
                        best = [_read_candidate(tokenizer, one, own) for one in each]
                        if asked.do_sample:
                            ranks = rank_by_likeness(
                                [one.text for one in best], tokenizer=settings.tokenizer
                            )
                            best = [best[one] for one in ranks[:candidates]]
                        found[index] = best
                        if score:
                            found[index] = _score(model, rows[place], found[index])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                words = first_line(error).split(". ")[0]
                if len(chosen) == 1:
                    raise FullMemoryError(
                        f"memory was full while one summary was written ({words}). Lower "
                        f"generation.num_beams ({beams}) or tokenizer.encoder_max_len"
                    ) from error
                batch_size = len(chosen) // 2
            if words is not None:
                # Outside of the handler: the error would hold on to the tensors of the batch.
                free_memory()
                if on_full is not None:
                    on_full(batch_size, words)
                else:
                    print(say_full(batch_size, words))
                continue
            done += len(chosen)
            if on_batch is not None:
                on_batch(done, len(order))
    finally:
        model.train(was_training)
    return found


def say_full(rows: int, words: str) -> str:
    """Say that memory was full while summaries were written, and how it goes on."""
    return f"memory was full while summaries were written ({words}); now {rows} rows at a time"


def describe_search(settings: GenerationSettings, own: Any, *, candidates: int = 1) -> Any:
    """Return a search as the library takes it.

    Args:
        own: the model's config. load_model made the model forget its checkpoint's own search.
    """
    from transformers import GenerationConfig

    drawn = settings.mbr_temperature is not None
    beams = 1 if drawn else settings.num_beams
    return GenerationConfig(
        num_beams=beams,
        num_return_sequences=settings.num_beams if drawn else candidates,
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        do_sample=drawn,
        # From all pieces, not the library's 50 likeliest.
        **({"temperature": settings.mbr_temperature, "top_k": 0} if drawn else {}),
        use_cache=True,
        # The library's counts the prompt, which a summary has to repeat.
        repetition_penalty=settings.repetition_penalty if own.is_encoder_decoder else 1.0,
        length_penalty=settings.length_penalty if beams > 1 else None,
        early_stopping=settings.early_stopping if beams > 1 else None,
        pad_token_id=own.pad_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=getattr(own, "decoder_start_token_id", None),
    )


def _read_candidate(tokenizer: PreTrainedTokenizerFast, ids: list[int], own: Any) -> Candidate:
    end = ids.index(own.eos_token_id) + 1 if own.eos_token_id in ids else len(ids)
    text = str(tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()
    return Candidate(text, tuple(ids[:end]))


def _score(model: Any, row: list[int], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of one row with their log-probabilities."""
    import torch

    pad = model.config.pad_token_id
    longest = max(len(one.tokens) for one in candidates)
    targets = [[*one.tokens, *[pad] * (longest - len(one.tokens))] for one in candidates]

    def place(rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=model.device)

    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        logits = model(
            input_ids=place([row] * len(candidates)),
            decoder_input_ids=place([[start, *target[:-1]] for target in targets]),
        ).logits
    else:
        whole = place([[*row, *target[:-1]] for target in targets])
        logits = model(input_ids=whole, logits_to_keep=longest).logits
    written = torch.tensor(targets, device=model.device)
    said = logits.float().log_softmax(-1).gather(-1, written[:, :, None])[:, :, 0]
    return [
        one._replace(log_probability=float(own[: len(one.tokens)].sum()))
        for one, own in zip(candidates, said, strict=True)
    ]


def make_cache(model: Any, ids: torch.Tensor, mask: torch.Tensor, *, beams: int) -> Any:
    """Return a cache in which what the beams of a row share stays where it is; None: the library
    makes one.

    A beam search reorders beams within a row at every step, and the library copies the whole cache
    to follow. All beams of a row have the same input, which need not move. With an encoder these
    are the keys and values of the cross-attention, the larger half: the summaries are the same, in
    a third of the time at 10 beams and 40 rows on a CPU. Without one it is the prompt, which is
    read here, once, up to its last token, where the library has each beam read it: 0.4 of the time
    (Gemma 3 270M on a CPU, 10 prompts of up to 400 tokens, 4 beams, 24 tokens written).

    Args:
        ids: [rows, width], inputs, or prompts padded on the left.
        mask: 1 where a token stands.
        beams: or draws.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    begun = ids.shape[1]

    class StillCrossAttentionCache(EncoderDecoderCache):
        """EncoderDecoderCache for beam search over rows whose beams share their input."""

        def reorder_cache(self, beam_idx: Any) -> None:
            self.self_attention_cache.reorder_cache(beam_idx)

    class StillPromptCache(DynamicCache):
        """DynamicCache for beam search over rows whose beams share their prompt."""

        def reorder_cache(self, beam_idx: Any) -> None:
            layers: Sequence[Any] = self.layers
            for layer in layers:
                # The prompt's last token is read by every beam.
                if (written := layer.get_seq_length() - begun) > 0:
                    for kept in (layer.keys, layer.values):
                        moved = kept[..., -written:, :]
                        moved.copy_(moved.index_select(0, beam_idx))

    if model.config.is_encoder_decoder:
        return StillCrossAttentionCache(DynamicCache(), DynamicCache())
    if beams == 1 or begun == 1:
        return None
    cache = StillPromptCache(config=model.config)
    model(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, :-1],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(beams)
    return cache


def banned_tokens(written: Sequence[int], *, size: int, exempt: Collection[int]) -> list[int]:
    """Return tokens that would complete an n-gram already written.

    Args:
        written: token ids so far.
        size: n, at least 1.
        exempt: ids that never count: an n-gram with one of them may come again, and none of them is
            banned.
    """
    count = len(written) - size + 1
    if count < 0:
        return []
    last = list(written[count:])
    grams = (list(written[start : start + size]) for start in range(count))
    return sorted(
        {gram[-1] for gram in grams if gram[:-1] == last and not any(t in exempt for t in gram)}
    )


def _list_unwritable(
    writable: WritablePieces, *, device: Any
) -> Callable[[int, int], torch.Tensor]:
    """Return what says, for a width of the logits and the tokens that are left, which ids may not
    come between two characters; each answer is made once in a search."""
    import torch

    @cache
    def unwritable(width: int, left: int) -> torch.Tensor:
        begin = writable.may_follow(b"", left=left)
        parts = writable.parts.keys() - set(begin)
        banned = {*writable.never, *range(writable.rows, width), *parts}
        return torch.tensor(sorted(banned), dtype=torch.long, device=device)

    return unwritable


def _processors(
    settings: GenerationSettings,
    writable: WritablePieces,
    unwritable: Callable[[int, int], torch.Tensor],
    *,
    begun: int,
    alone: bool,
) -> LogitsProcessorList:
    """Return what a search may not write, in the library's form.

    Args:
        unwritable: as _list_unwritable returns it.
        begun: ids of each row that nobody wrote: the decoder's start, or a prompt. No n-gram holds
            one.
        alone: it is a prompt, of which nothing counts as a repetition.
    """
    from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    never = -float("inf")
    exempt = settings.exempt | writable.parts.keys()

    class NoRepeatNgramExceptTags(LogitsProcessor):
        """no_repeat_ngram_size that leaves out what summaries repeat: tags, masks, bytes."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            for row, written in enumerate(input_ids.tolist()):
                own = written[begun:]
                ban = banned_tokens(own, size=settings.no_repeat_ngram_size, exempt=exempt)
                if ban:
                    scores[row, ban] = never
            return scores

    class OnlyWritable(LogitsProcessor):
        """Leave out what no target holds; of a wide vocabulary few columns are touched."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            left = settings.max_new_tokens + begun - input_ids.shape[1]
            own = input_ids[:, begun:].tolist() if writable.parts else []
            states = map(writable.begun_by, own)
            inside = {row: begun for row, begun in enumerate(states) if begun}
            kept = scores[list(inside)]
            scores.index_fill_(1, unwritable(scores.shape[1], min(left, LONGEST)), never)
            for (row, begun_bytes), before in zip(inside.items(), kept, strict=True):
                may = writable.may_follow(begun_bytes, left=left)
                scores[row] = never
                scores[row, may] = before[may]
            return scores

    processors: list[LogitsProcessor] = []
    if alone and settings.repetition_penalty != 1.0:
        processors.append(
            RepetitionPenaltyLogitsProcessor(
                settings.repetition_penalty, prompt_ignore_length=begun
            )
        )
    if settings.no_repeat_ngram_size:
        processors.append(NoRepeatNgramExceptTags())
    return LogitsProcessorList([*processors, OnlyWritable()])

"""The training loss without the logits of a whole pass: by a few target tokens at a time.

With 250,112 pieces the logits of 6 x 128 target tokens take 0.77 GB in float32, and a loss holds
them four times over. Here the decoder's outputs are scored in chunks of tokens that count. Each
chunk's logits are replaced by the loss's gradient, block by block, and taken backward while they
are there, so that nothing is computed twice (the scheme of Liger's fused linear cross-entropy, Hsu
et al. 2024; its kernels take a plain matrix on a GPU, while a head here may have an adapter or
learned rows).

The mean is over all target tokens of an optimizer step: transformers averages each forward pass of
an encoder-decoder model by itself and then sums over the accumulation, so that batch 2 x 4 has four
times the gradient of batch 8 x 1. Must not know the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

IGNORED = -100
"""Label of a place that does not count."""
PROMPT = "prompt"
"""Key of a pass: which of its places hold a prompt, where those count otherwise in the loss."""

CHUNK_BYTES = 256 * 2**20
"""Logits of a chunk in float32, held once (by an adapter on the head up to four times): a third of
what mT5-base's head itself takes. The head is read anew for each chunk; with a quarter of this it
takes 1.15 to 1.4 times as long on a CPU."""

BLOCK_BYTES, GPU_BLOCK_BYTES = 4 * 2**20, 32 * 2**20
"""Logits of a block in float32. The loss goes over them some ten times; in a CPU's cache that
shortens the whole head by 9 to 33 %. A GPU has no such cache and loses time by many small calls."""

HALF_SCALE = 16.0
"""Factor of the gradients within a float16 chunk, where a piece's probability of 1/30,000 is below
the normal numbers; the trainer's own factor comes only after the chunk is gone."""


def summary_loss(
    model: Any,
    batch: dict[str, Any],
    *,
    label_smoothing: float,
    count: float | None,
    rdrop_alpha: float = 0.0,
    prompt_weight: float = 1.0,
) -> torch.Tensor:
    """Return the loss of one forward pass in float32: its sum over target tokens over count.

    A decoder alone needs no mask: padding stands behind all that counts, and packed rows are told
    apart by their positions, which begin again with each (without a mask and a cache the library
    lets none see another).

    Args:
        model: adapted or not.
        batch: input_ids, attention_mask [batch, input], labels [batch, target] with -100 where
            nothing counts; of a decoder alone position_ids besides, and labels of the inputs' shape
            that say each token itself; where a prompt's count otherwise, PROMPT says which those
            are.
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016).
        count: target tokens of the whole optimizer step, each for what it counts; None: of this
            pass.
        prompt_weight: what a token of a prompt counts, where PROMPT says which those are.
        rdrop_alpha: above 0, each row goes through twice, under two draws of dropout: the mean of
            the two losses and alpha / 4 times the sum of both Kullback-Leibler divergences between
            what they say, half of R-Drop's own sum (Liang et al. 2021, equation 4).
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if rdrop_alpha:
        batch = {key: torch.cat([value, value]) for key, value in batch.items()}
    mask, labels = batch["attention_mask"], batch["labels"]
    if base.config.is_encoder_decoder:
        hidden = _decode(base, batch["input_ids"], mask, labels)
    else:
        hidden = base.base_model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        )[0][:, :-1]
        labels = labels[:, 1:]
    learned = labels != IGNORED
    weights = [(learned, 1.0)]
    if PROMPT in batch:
        prompt = batch[PROMPT][:, 1:]
        weights = [(learned & ~prompt, 1.0), (learned & prompt, prompt_weight)]
    total, tokens = torch.zeros((), device=hidden.device), 0.0
    for those, weight in weights:
        places = those.nonzero(as_tuple=True)
        total = total + weight * sum_head_losses(
            base.lm_head,
            hidden[places],
            labels[places],
            bias=getattr(base, "final_logits_bias", None),
            label_smoothing=label_smoothing,
            rows=max(1, CHUNK_BYTES // (4 * base.config.vocab_size)),
            rdrop_alpha=rdrop_alpha,
        )
        tokens += weight * len(places[0]) / (2 if rdrop_alpha else 1)
    return total / max(1, tokens if count is None else count)


def _decode(base: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what the head of an encoder-decoder model gets, [batch, target, width]."""
    encoded = base.get_encoder()(input_ids=ids, attention_mask=mask)
    hidden: torch.Tensor = base.get_decoder()(
        input_ids=base.prepare_decoder_input_ids_from_labels(labels=labels),
        encoder_hidden_states=encoded[0],
        encoder_attention_mask=mask,
        use_cache=False,
    )[0]
    # T5 v1's head expects smaller inputs; mT5's own forward never makes them so.
    if base.config.model_type == "t5" and base.config.scale_decoder_outputs:
        hidden = hidden * base.model_dim**-0.5
    return hidden


def sum_head_losses(
    head: torch.nn.Module,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    label_smoothing: float,
    rows: int,
    rdrop_alpha: float = 0.0,
) -> torch.Tensor:
    """Return the summed loss of what a head says of tokens, in float32.

    Where gradients are wanted they are computed at once, and can be taken backward one time.

    Args:
        head: the layer itself, with whatever adapter is on it.
        hidden: [tokens, width], what the head gets.
        labels: [tokens], none of them ignored.
        bias: [1, vocabulary], what the model adds to the logits; None: nothing.
        rows: most tokens of a chunk.
        rdrop_alpha: above 0, the second half of hidden and labels are the tokens of the first once
            more, under another draw of dropout.
    """
    work = _Work(head, labels, bias, label_smoothing, rows, rdrop_alpha)
    learning = [item for item in head.parameters() if item.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or learning):
        total: torch.Tensor = _SumOfLosses.apply(  # type: ignore[no-untyped-call]
            work, hidden, *learning
        )
        return total
    return work.sum_losses(hidden)


@dataclass(frozen=True)
class _Work:
    """A head and what it is to say; see sum_head_losses."""

    head: torch.nn.Module
    labels: torch.Tensor
    bias: torch.Tensor | None
    label_smoothing: float
    rows: int
    rdrop_alpha: float

    @property
    def times(self) -> int:
        """How often each token is there."""
        return 2 if self.rdrop_alpha else 1

    def chunks(self) -> Iterator[slice]:
        """Give the tokens of each chunk, nearly as many in each; those of both halves alike."""
        tokens = len(self.labels) // self.times
        chunks = -(-tokens // max(1, self.rows // self.times))
        for at in range(chunks):
            yield slice(at * tokens // chunks, (at + 1) * tokens // chunks)

    def sum_losses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of [tokens, width], without gradients."""
        total = torch.zeros((), device=hidden.device)
        apart = self._part(hidden)
        for chunk in self.chunks():
            total += self._grade(self.head(apart[:, chunk]), chunk, slope_scale=None)
        return total

    def sum_gradients(
        self, hidden: torch.Tensor, learning: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the summed loss of [tokens, width], and its gradients in float32 at least.

        Args:
            learning: parameters of the head; their gradients come after that of hidden.
        """
        total = torch.zeros((), device=hidden.device)
        own, *sums = [_zeros_like(item) for item in (hidden, *learning)]
        apart, into = self._part(hidden), self._part(own)
        for chunk in self.chunks():
            piece = apart[:, chunk].detach().requires_grad_()
            pairs = [(piece, into[:, chunk]), *zip(learning, sums, strict=True)]
            # A function of its own, so that nothing of a chunk is left when the next begins.
            total += self._add_gradients(piece, chunk, pairs)
        return total, [own, *sums]

    def _part(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return [tokens, …] as [times, tokens of each, …]."""
        return hidden.view(self.times, -1, *hidden.shape[1:])

    def _add_gradients(
        self, hidden: torch.Tensor, chunk: slice, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """Add a chunk's gradients to their sums, and return its summed loss.

        Args:
            hidden: [times, tokens of the chunk, width], with no graph behind it.
            pairs: what learns and its sum, hidden among them.
        """
        with torch.enable_grad():
            logits = self.head(hidden)
        scale = HALF_SCALE if logits.dtype == torch.float16 else 1.0
        loss = self._grade(logits, chunk, slope_scale=scale)
        slopes = logits.detach()
        # A plain head's weight is as large as all logits were: its gradient is not made twice.
        plain = self.head.weight if type(self.head) is torch.nn.Linear else None
        through = [pair for pair in pairs if pair[0] is not plain]
        found = torch.autograd.grad(
            logits, [item for item, _ in through], slopes, allow_unused=True
        )
        for (_, into), gradient in zip(through, found, strict=True):
            if gradient is not None:
                into.add_(gradient, alpha=1 / scale)
        for into in (into for item, into in pairs if item is plain):
            _add_product(into, slopes.flatten(0, 1), hidden.detach().flatten(0, 1), scale=scale)
        return loss

    def _grade(
        self, logits: torch.Tensor, chunk: slice, *, slope_scale: float | None
    ) -> torch.Tensor:
        """Return the summed loss of a chunk's logits, [times, tokens, vocabulary].

        Args:
            slope_scale: put the loss's gradient with respect to the logits, times this, in their
                place; None: leave them.
        """
        total = torch.zeros((), device=logits.device)
        size = BLOCK_BYTES if logits.device.type == "cpu" else GPU_BLOCK_BYTES
        few = max(1, size // (4 * self.times * logits.shape[-1]))
        blocks = zip(logits.detach().split(few, dim=1), self.labels[chunk].split(few), strict=True)
        for place, labels in blocks:
            said = place.detach().float() if self.bias is None else place.float() + self.bias
            with torch.set_grad_enabled(slope_scale is not None):
                loss = cross_entropy(
                    said.requires_grad_(slope_scale is not None).flatten(0, 1),
                    labels.repeat(self.times),
                    label_smoothing=self.label_smoothing,
                    reduction="sum",
                )
                if self.rdrop_alpha:
                    loss = loss / 2 + self.rdrop_alpha / 4 * sum_divergences(*said)
            if slope_scale is not None:
                # A linear layer's backward pass needs its inputs, not what came out.
                (slopes,) = torch.autograd.grad(loss, said, torch.full_like(loss, slope_scale))
                place.copy_(slopes)
            total += loss.detach()
        return total


def sum_divergences(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergences of two [tokens, vocabulary] of logits, both ways,
    summed."""
    one, other = one.log_softmax(-1), other.log_softmax(-1)
    return ((one.exp() - other.exp()) * (one - other)).sum()


def _add_product(
    into: torch.Tensor, slopes: torch.Tensor, hidden: torch.Tensor, *, scale: float
) -> None:
    """Add slopes.T @ hidden / scale to a matrix [vocabulary, width], some rows at a time."""
    few = max(1, CHUNK_BYTES // (16 * hidden.shape[1]))
    for rows, part in zip(into.split(few), slopes.split(few, dim=1), strict=True):
        if rows.dtype == part.dtype == hidden.dtype:
            rows.addmm_(part.t(), hidden, alpha=1 / scale)
        else:
            rows.add_(part.t() @ hidden, alpha=1 / scale)


def _zeros_like(item: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(item, dtype=torch.promote_types(item.dtype, torch.float32))


class _SumOfLosses(torch.autograd.Function):
    """Computes gradients going forward; going backward they are only scaled."""

    @staticmethod
    def forward(
        ctx: Any, work: _Work, hidden: torch.Tensor, *learning: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed loss and keep its gradients."""
        total, ctx.gradients = work.sum_gradients(hidden, learning)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients times that of what follows, and let go of them."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(f"{slope}: this loss was already taken backward")
        return None, *(gradient.mul_(slope) for gradient in gradients)

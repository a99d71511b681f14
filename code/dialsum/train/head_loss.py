"""The training loss without the logits of a whole pass: by a few target tokens at a time.

With 250,112 pieces the logits of 6 x 128 target tokens take 0.77 GB in float32, and a loss holds
them three times over. Here the decoder's outputs are scored in chunks of tokens that count, and
each chunk's gradients are computed at once, while its logits are there, so that nothing is computed
twice (the scheme of Liger's fused linear cross-entropy, Hsu et al. 2024; its kernels take a plain
matrix on a GPU alone, while a head here may have an adapter or learned rows). Gradients and loss
are those of loss.pass_loss. Must not know the trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from dialsum.train.loss import IGNORED, sum_token_losses

CHUNK_BYTES = 64 * 2**20
"""Logits of a chunk in float32. The loss holds them about four times over: a quarter of a gigabyte
in all, next to mT5-base's 0.77 GB of head weights. Chunks of 16 MiB take longer, for the whole head
is read for each; above 64 MiB the time stays the same."""

HALF_SCALE = 16.0
"""Factor of the gradients within a float16 chunk, where a piece's probability of 1/30,000 is below
the normal numbers; the trainer's own factor comes only after the chunk is gone."""


def summary_loss(
    model: Any, batch: dict[str, Any], *, label_smoothing: float,
    count: torch.Tensor | int | None,
) -> torch.Tensor:
    """Return the loss of one forward pass: its sum over target tokens, divided by count.

    Args:
        model: T5, mT5 or BART, adapted or not.
        batch: input_ids, attention_mask [batch, input], labels [batch, target] with -100 where
            nothing counts.
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016).
        count: target tokens of the whole optimizer step; None: of this pass.
    """
    total = sum_summary_loss(model, batch, label_smoothing=label_smoothing)
    if count is None:
        count = max(1, int((batch["labels"] != IGNORED).sum()))
    return total / count


def sum_summary_loss(
    model: Any, batch: dict[str, Any], *, label_smoothing: float
) -> torch.Tensor:
    """Return the summed loss of one forward pass in float32; see summary_loss.

    Without a gradient to compute it is the loss alone, again in chunks. With one, it can be taken
    backward once.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = batch["labels"]
    places = (labels != IGNORED).nonzero(as_tuple=True)
    work = _Work(
        head=base.lm_head, bias=getattr(base, "final_logits_bias", None), labels=labels[places],
        label_smoothing=label_smoothing, rows=_rows_per_chunk(base.config.vocab_size),
    )
    hidden = _decode(base, batch)[places]
    learning = [item for item in base.lm_head.parameters() if item.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or learning):
        total: torch.Tensor = _SumOfLosses.apply(work, hidden, *learning)
        return total
    return work.sum_losses(hidden)


def _decode(base: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return what the head gets: [batch, target, width], as the model's own forward computes it."""
    mask = batch.get("attention_mask")
    encoded = base.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask)
    hidden: torch.Tensor = base.get_decoder()(
        input_ids=base.prepare_decoder_input_ids_from_labels(labels=batch["labels"]),
        encoder_hidden_states=encoded[0], encoder_attention_mask=mask, use_cache=False,
    )[0]
    if getattr(base.config, "scale_decoder_outputs", False):
        hidden = hidden * base.model_dim**-0.5
    return hidden


def _rows_per_chunk(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (4 * vocabulary))


@dataclass(frozen=True)
class _Work:
    """A head and what it is to say.

    Args:
        head: the layer itself, with whatever was put on it.
        bias: [1, vocabulary], what the model adds to the logits; None: nothing.
        labels: [tokens], none of them ignored.
        rows: most tokens of a chunk.
    """

    head: torch.nn.Module
    bias: torch.Tensor | None
    labels: torch.Tensor
    label_smoothing: float
    rows: int

    def chunks(self) -> Iterator[slice]:
        """Give the tokens of each chunk, nearly as many in each."""
        tokens = len(self.labels)
        size = -(-tokens // max(1, -(-tokens // self.rows)))
        yield from (slice(at, at + size) for at in range(0, tokens, max(1, size)))

    def losses(self, hidden: torch.Tensor, chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits that the head alone made of a chunk, and the chunk's summed loss."""
        logits = self.head(hidden)
        said = logits if self.bias is None else logits + self.bias
        loss = sum_token_losses(said, self.labels[chunk], label_smoothing=self.label_smoothing)
        return logits, loss

    def sum_losses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of [tokens, width], without gradients."""
        total = torch.zeros((), device=hidden.device)
        for chunk in self.chunks():
            total += self.losses(hidden[chunk], chunk)[1]
        return total

    def sum_gradients(
        self, hidden: torch.Tensor, learning: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the summed loss of [tokens, width], and its gradients with respect to these and to
        the head's parameters that learn, in float32 at least.
        """
        total = torch.zeros((), device=hidden.device)
        own, *sums = [_zeros_like(item) for item in (hidden, *learning)]
        for chunk in self.chunks():
            piece = hidden[chunk].detach().requires_grad_()
            with torch.enable_grad():
                logits, loss = self.losses(piece, chunk)
            total += loss.detach()
            pairs = [(piece, own[chunk]), *zip(learning, sums, strict=True)]
            self._add_gradients(loss, logits, pairs)
        return total, [own, *sums]

    def _add_gradients(
        self, loss: torch.Tensor, logits: torch.Tensor,
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        """Add a chunk's gradients to their sums.

        Args:
            pairs: what learns and its sum; the chunk's hidden states come first.
        """
        scale = HALF_SCALE if logits.dtype == torch.float16 else 1.0
        (slopes,) = torch.autograd.grad(loss, logits, torch.full_like(loss, scale))
        # A plain head's weight is as large as all logits were: no second one is made for the sum.
        plain = self.head.weight if type(self.head) is torch.nn.Linear else None
        through = [pair for pair in pairs if pair[0] is not plain]
        found = torch.autograd.grad(
            logits, [item for item, _ in through], slopes, allow_unused=True
        )
        for (_, into), gradient in zip(through, found, strict=True):
            if gradient is not None:
                into.add_(gradient, alpha=1 / scale)
        hidden = pairs[0][0].detach()
        for into in (into for item, into in pairs if item is plain):
            few = max(1, CHUNK_BYTES // (4 * hidden.shape[1]))
            for part, slope in zip(into.split(few), slopes.split(few, dim=1), strict=True):
                if slope.dtype == hidden.dtype == part.dtype:
                    part.addmm_(slope.t(), hidden)
                else:
                    part.add_(slope.t() @ hidden, alpha=1 / scale)


def _zeros_like(item: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(item, dtype=torch.promote_types(item.dtype, torch.float32))


class _SumOfLosses(torch.autograd.Function):
    """Computes gradients going forward; going backward they are only scaled."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, work: _Work, hidden: torch.Tensor, *learning: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed loss and keep its gradients."""
        total, ctx.gradients = work.sum_gradients(hidden, learning)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients times that of what follows, and let go of them."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(f"{slope}: the gradients of this loss were already taken backward")
        return None, *(gradient.mul_(slope) for gradient in gradients)

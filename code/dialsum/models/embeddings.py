"""Input embeddings and head: tied or not, and grown by a row for every new token.

Must not know where weights come from (load.py) nor what of them learns (adapt.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def is_tied(model: Any) -> bool:
    """Say whether the head's weight is the input embeddings' own."""
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def untie_head(model: Any) -> None:
    """Give the head a weight of its own (a copy of the embeddings') and mark the model untied."""
    import torch

    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    _mark_untied(model)


def start_untied(model: Any, *, std: float) -> None:
    """Give T5 or mT5 a head of its own, and start it and the embeddings at random.

    T5's own initial embeddings have a standard deviation of 1, which makes logits of hundreds.

    Args:
        std: standard deviation of both; d_model**-0.5 suits a head that nothing scales.
    """
    import torch

    untie_head(model)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight.normal_(0.0, std)


def _mark_untied(model: Any) -> None:
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys.pop("lm_head.weight", None)


def keep_head_as_it_is(model: Any) -> bool:
    """Write into the config whether the head is tied, as the weights say it, and return that.

    transformers 5 sets tie_word_embeddings to True for every T5 and mT5; resizing would then
    silently replace the head of mT5 and T5 v1.1 by the input embeddings.
    """
    tied = is_tied(model)
    if not tied:
        _mark_untied(model)
    return tied


def add_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    new_tokens: Sequence[str],
    *,
    means: Sequence[Any] = (),
) -> None:
    """Give every token a row, taking none away; new ones start from the pieces that spelled it.

    Args:
        means: rows of a token that no piece spells, in the embeddings and in a head of its own;
            without them it gets the mean of all pieces that there are.
    """
    import torch

    embeddings = model.get_input_embeddings()
    if len(tokenizer) > embeddings.weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        _give_stacks_their_own_layer(model)
    if not new_tokens:
        return
    vocabulary = tokenizer.get_vocab()
    new_ids = {vocabulary[token] for token in new_tokens}
    matrices = {
        id(module.weight): module.weight
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    with torch.no_grad():
        for token in new_tokens:
            pieces = _old_pieces(tokenizer, token, new_ids)
            for place, weight in enumerate(matrices.values()):
                rows = weight[pieces] if pieces else weight[: min(new_ids)]
                row = means[place] if means and not pieces else rows.mean(dim=0)
                weight[tokenizer.convert_tokens_to_ids(token)] = row


def _give_stacks_their_own_layer(model: Any) -> None:
    """Make encoder and decoder embeddings layers of their own again, with the one shared weight.

    Resizing puts one and the same layer in all places. PEFT meets it once, under the name `shared`,
    and an adapter asked for embed_tokens is then left out in silence.
    """
    for stack in (model.get_encoder(), model.get_decoder()):
        layer = copy.copy(stack.embed_tokens)
        layer._parameters = dict(layer._parameters)
        stack.embed_tokens = layer


def _old_pieces(tokenizer: Any, token: str, new_ids: set[int]) -> list[int]:
    """Return the ids that spelled token before it was added."""
    model = tokenizer.backend_tokenizer.model
    found = {piece.id for piece in model.tokenize(token.strip())} if token.strip() else set()
    return sorted(found - new_ids - {tokenizer.unk_token_id})

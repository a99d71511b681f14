"""The first half of an experiment: rows, tokenizer, model, and what device and precision they use.

Must not train, nor write a record.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialsum.config.schema import Config
from dialsum.data.dialogues import Dialogue
from dialsum.data.prompts import STANDARD_DIALOGUE_TOKENS, build_input, find_dialogue_tokens
from dialsum.data.splits import Splits, load_splits
from dialsum.models.adapt import AdaptedModel, adapt_model, require_trainable
from dialsum.models.checkpoint import fetch_folder, refuse_foreign_tokenizer, weight_format
from dialsum.models.families import get_family
from dialsum.models.load import LoadedModel, load_model, read_model_config
from dialsum.models.tiny import write_tiny_checkpoint
from dialsum.models.tokenizers import (
    RoundTrip,
    add_dialogue_tokens,
    check_round_trip,
    load_tokenizer,
    train_tokenizer,
)
from dialsum.models.trim import KeptPieces, named_token_ids
from dialsum.models.trim_tokenizer import TrimmedTokenizer, trim_tokenizer
from dialsum.paths import project_path


def read_splits(config: Config) -> Splits:
    """Read and check the files that a config names.

    Raises:
        DataError: every problem of the files, with file and row.
    """
    asked = config.data
    folder = project_path(asked.data_dir)
    return load_splits(
        folder / asked.train_file,
        folder / asked.dev_file,
        test=folder / asked.test_file if asked.test_file else None,
        max_train_rows=asked.max_train_rows,
        max_dev_rows=asked.max_dev_rows,
        max_test_rows=asked.max_test_rows,
    )


def check_checkpoint(config: Config) -> None:
    """Find out, without loading weights, whether a checkpoint in a local folder can serve.

    Raises:
        UnfitError: no such folder, no weights in it, or its config contradicts the experiment's.
    """
    if config.model.initialise == "tiny":
        return
    source = fetch_folder(config, environment=os.environ)
    weight_format(source)
    read_model_config(source, config)


def dialogue_tokens(config: Config, rows: list[Dialogue]) -> list[str]:
    """Return the tags and masks that become tokens: the standard ones, the data's too if asked."""
    kind = config.tokenizer.dialogue_tokens
    if kind == "none":
        return []
    if kind == "standard":
        return list(STANDARD_DIALOGUE_TOKENS)
    texts = [text for row in rows for text in (row.dialogue, row.summary or "")]
    found = find_dialogue_tokens(texts)
    more = (tag for tag in found if tag not in STANDARD_DIALOGUE_TOKENS)
    return [*STANDARD_DIALOGUE_TOKENS, *more]


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer with the dialogue's tokens, and where the network comes from.

    Args:
        tokenizer: a fast tokenizer.
        source: folder of the checkpoint.
        new_tokens: tokens that the checkpoint did not have.
        tag_ids: ids of all speaker tags and masks.
        round_trip: how many of the training and dev summaries survive encoding.
        trimmed: what was cut of the vocabulary (tokenizer.trim_vocabulary).
    """

    tokenizer: Any
    source: Path
    new_tokens: list[str]
    tag_ids: list[int]
    round_trip: RoundTrip
    trimmed: TrimmedTokenizer | None = None

    @property
    def kept(self) -> KeptPieces | None:
        """The checkpoint's pieces that stay; None where all do."""
        return self.trimmed.kept if self.trimmed else None


def prepare_tokenizer(config: Config, splits: Splits, *, tiny_folder: Path) -> PreparedTokenizer:
    """Load the checkpoint's tokenizer, or train one and write a tiny checkpoint around it.

    Args:
        tiny_folder: where a tiny checkpoint is written (model.initialise: tiny).
    """
    tokens = dialogue_tokens(config, splits.train.rows)
    if config.model.initialise == "tiny":
        source = tiny_folder
        tokenizer = _write_tiny(config, splits, tokens, tiny_folder)
        new: list[str] = []
    else:
        source = fetch_folder(config, environment=os.environ)
        own = read_model_config(source, config)
        tokenizer = load_tokenizer(
            source, revision=config.model.revision, trust_remote_code=config.model.trust_remote_code
        )
        refuse_foreign_tokenizer(tokenizer.get_vocab(), rows=own.vocab_size, source=source)
        new = add_dialogue_tokens(tokenizer, tokens)
    trimmed = _trim(config, splits, tokenizer, source=source, new_tokens=new)
    tokenizer = trimmed.tokenizer if trimmed else tokenizer
    summaries = [row.summary or "" for split in (splits.train, splits.dev) for row in split.rows]
    vocabulary = tokenizer.get_vocab()
    return PreparedTokenizer(
        tokenizer=tokenizer,
        source=source,
        new_tokens=new,
        tag_ids=sorted(vocabulary[token] for token in tokens if token in vocabulary),
        round_trip=check_round_trip(tokenizer, summaries),
        trimmed=trimmed,
    )


def _trim(
    config: Config, splits: Splits, tokenizer: Any, *, source: Path, new_tokens: list[str]
) -> TrimmedTokenizer | None:
    """Cut the vocabulary to what the rows need, if asked.

    What the model is to learn or read chooses pieces: the train rows, and the dialogues of dev and
    test, which are inputs wherever it is used; they are then spelled as without the cut, no better.
    The dev summaries choose none. They are what the score is held against, and a vocabulary shaped
    by them would say something of them to the model.
    """
    asked = config.tokenizer
    if not asked.trim_vocabulary or asked.train_on_data:
        return None
    dialogues = [
        build_input(asked.input_prefix, row.dialogue)
        for split in splits.present
        for row in split.rows
    ]
    return trim_tokenizer(
        tokenizer,
        texts=[*dialogues, *(row.summary or "" for row in splits.train.rows)],
        checked=[row.summary or "" for row in splits.dev.rows],
        new_tokens=new_tokens,
        more_ids=named_token_ids(read_model_config(source, config)).values(),
    )


def _write_tiny(config: Config, splits: Splits, tokens: list[str], folder: Path) -> Any:
    family = get_family(config.model.architecture)
    texts = [text for row in splits.train.rows for text in (row.dialogue, row.summary or "")]
    if config.tokenizer.train_on_data:
        tokenizer = train_tokenizer(
            [*texts, config.tokenizer.input_prefix],
            kind=family.tiny_tokenizer,
            vocab_size=config.tokenizer.vocab_size,
            exclude=tokens,
        )
    else:
        tokenizer = load_tokenizer(fetch_folder(config, environment=os.environ))
    add_dialogue_tokens(tokenizer, tokens)
    limit = max(config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len)
    write_tiny_checkpoint(
        folder,
        family=family,
        size=config.model.tiny,
        tokenizer=tokenizer,
        position_limit=limit,
        seed=config.training.seed,
    )
    return tokenizer


@dataclass(frozen=True)
class PreparedModel:
    """A model on its device, ready to train."""

    loaded: LoadedModel
    adapted: AdaptedModel
    notes: list[str] = field(default_factory=list)
    vocabulary_trimmed: dict[str, Any] | None = None


def prepare_model(
    config: Config,
    prepared: PreparedTokenizer,
    *,
    device: str,
    dtype: Any,
    gradient_checkpointing: bool,
) -> PreparedModel:
    """Load the network and make the asked part of it trainable."""
    from transformers import set_seed

    # Adapters start at random numbers, long before the trainer sets its own seed.
    set_seed(config.training.seed)
    loaded = load_model(
        prepared.source,
        config=config,
        tokenizer=prepared.tokenizer,
        new_tokens=prepared.new_tokens,
        device=device,
        dtype=dtype,
        kept=prepared.kept,
    )
    ids = prepared.tokenizer.convert_tokens_to_ids(list(prepared.new_tokens))
    adapted = adapt_model(
        loaded, config=config, new_token_ids=ids, gradient_checkpointing=gradient_checkpointing
    )
    require_trainable(adapted.model)
    notes = list(adapted.notes)
    if loaded.weights != "safetensors":
        notes.append(
            f"{prepared.source} has no safetensors; {loaded.weights} was read, weights only"
        )
    record = None
    if prepared.trimmed and loaded.trimmed:
        sizes = loaded.trimmed.sizes()
        notes.insert(0, prepared.trimmed.describe(**sizes))
        record = prepared.trimmed.to_record(**sizes)
    return PreparedModel(loaded=loaded, adapted=adapted, notes=notes, vocabulary_trimmed=record)

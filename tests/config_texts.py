"""A whole config as text, and what is said of files that hold or extend it.

Must not know what any test asserts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dialsum.config.load import LoadedConfig, load_config
from dialsum.errors import ConfigError

HEAD = "model: {architecture: mt5, checkpoint: a/b}\n"
TOKENIZER = "tokenizer:\n  encoder_max_len: 512\n  decoder_max_len: 128\n"
TRAINING = """\
training:
  learning_rate: 6e-5
  num_train_epochs: 4
  per_device_train_batch_size: 6
  gradient_accumulation_steps: 4
  lr_scheduler_type: linear
  eval_steps: 100
"""
TAIL = "qlora:\n  use_qlora: true\n"
WHOLE = HEAD + TOKENIZER + TRAINING + TAIL
BART = WHOLE.replace("mt5", "bart")


def load(
    folder: Path,
    text: str | bytes,
    *,
    base: str | None = None,
    overrides: Sequence[str] = (),
    overlay: str | None = None,
) -> LoadedConfig:
    """Load x.yaml; base goes beside it as base.yaml, and overlay as over.yaml over it."""
    path, over = folder / "x.yaml", folder / "over.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if base is not None:
        (folder / "base.yaml").write_text(base, encoding="utf-8")
    if overlay is not None:
        over.write_text(overlay, encoding="utf-8")
    return load_config(path, overrides=overrides, overlays=[over] if overlay is not None else [])


def problems_of(
    folder: Path, text: str | bytes, *, base: str | None = None, overrides: Sequence[str] = ()
) -> list[str]:
    """Return what is said of x.yaml, without folder and columns; nothing where it loads."""
    try:
        load(folder, text, base=base, overrides=overrides)
    except ConfigError as error:
        return [" ".join(line.replace(f"{folder}/", "").split()) for line in error.problems]
    return []

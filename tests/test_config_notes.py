"""What is said of settings that an overlay or --set leaves without effect, and what it replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.config.load import load_config

BASE = """\
model: {architecture: bart, checkpoint: a/b}
tokenizer: {encoder_max_len: 512, decoder_max_len: 128}
training:
  num_train_epochs: 4
  per_device_train_batch_size: 6
  per_device_eval_batch_size: auto
  gradient_accumulation_steps: 4
  gradient_checkpointing: auto
  lr_scheduler_type: linear
  warmup_steps: 0.1
  eval_steps: 100
  early_stopping_patience: 3
  early_stopping_threshold: 0.0
qlora: {lora_dropout: 0.05, target_modules: auto, train_embeddings: false}
tracking: {project: nlp-5, wandb: auto}
"""
OWN = """\
extends: base.yaml
training.learning_rate: 6e-5
qlora: {use_qlora: true, lora_rank: 16, lora_alpha: 32}
"""
NO_ADAPTERS = "every weight is trained, without adapters"
NO_LORA = f"lora_rank, lora_alpha, lora_dropout have no effect ({NO_ADAPTERS})"


def write(folder: Path, own: str = OWN) -> Path:
    """Write an experiment and its base."""
    (folder / "base.yaml").write_text(BASE)
    (folder / "x.yaml").write_text(own)
    return folder / "x.yaml"


@pytest.mark.parametrize(
    ("overrides", "notes"),
    [
        ([], []),
        (["qlora.use_qlora=true"], []),
        (["qlora.use_qlora=false"], [f"--set qlora.use_qlora false: {NO_LORA}"]),
        (
            ["training.lr_scheduler_type=constant"],
            [
                "--set training.lr_scheduler_type constant: warmup_steps has no effect (it has no"
                " warm-up)"
            ],
        ),
        (["training.lr_scheduler_type=constant_with_warmup"], []),
        (["training.early_stopping_patience=null"], []),
        (["tracking.wandb=false"], []),
        (["generation.num_beams=1"], []),
        (["data.data_dir=/d"], []),
        (
            [
                "data.data_dir=/d",
                "data.train_file=/a/t.csv",
                "data.dev_file=/a/d.csv",
                "data.test_file=null",
            ],
            [
                "--set data.data_dir: it has no effect (train_file, dev_file and test_file are"
                " whole paths)"
            ],
        ),
    ],
)
def test_keys_left_without_effect_are_named(
    tmp_path: Path, overrides: list[str], notes: list[str]
) -> None:
    assert load_config(write(tmp_path), overrides=overrides).notes == notes


@pytest.mark.parametrize(
    ("own", "override", "words"),
    [
        (
            "generation.length_penalty: 2",
            "generation.num_beams=1",
            "length_penalty has no effect (greedy search",
        ),
        ("tracking.project: mine", "tracking.wandb=false", "project has no effect (W&B is off)"),
        ("data.max_test_rows: 5", "data.test_file=null", "max_test_rows has no effect"),
        (
            "training.early_stopping_threshold: 0.5",
            "training.early_stopping_patience=null",
            "early_stopping_threshold has no effect (training never stops early)",
        ),
    ],
)
def test_an_experiments_own_keys_are_named(
    tmp_path: Path, own: str, override: str, words: str
) -> None:
    [note] = load_config(write(tmp_path, f"{OWN}{own}\n"), overrides=[override]).notes
    assert words in note


def test_what_had_no_effect_before_is_not_said_again(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: base.yaml\nlr: 6e-5\nqlora.use_qlora: false\n")
    assert not any("no effect" in note for note in load_config(path).notes)
    again = load_config(path, overrides=["qlora.use_qlora=false"])
    assert not any("no effect" in note for note in again.notes)


def test_an_overlay_that_silences_names_its_line(tmp_path: Path) -> None:
    path, over = write(tmp_path), tmp_path / "over.yaml"
    over.write_text("# none\nqlora.use_qlora: false\n")
    [note] = load_config(path, overlays=[over]).notes
    assert note == f"{over}:2 qlora.use_qlora false: {NO_LORA}"


def test_only_values_that_had_an_effect_are_replaced(tmp_path: Path) -> None:
    path, over = write(tmp_path), tmp_path / "over.yaml"
    over.write_text(
        "model: {dropout: 0.0}\n"
        "training: {per_device_eval_batch_size: 20, gradient_checkpointing: false}\n"
    )
    replaced = [item.key for item in load_config(path, overlays=[over]).replaced]
    assert replaced == ["model.dropout"]
    path.write_text(OWN + "training.gradient_checkpointing: true\n")
    replaced = [item.key for item in load_config(path, overlays=[over]).replaced]
    assert "training.gradient_checkpointing" in replaced

"""Old and bare spellings: understood and said where the meaning is certain, refused elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.config.load import load_config
from dialsum.config.messages import ALWAYS, RENAMED, bare_names
from dialsum.config.schema import schema_keys
from dialsum.errors import ConfigError

BASE = """\
model: {architecture: bart, checkpoint: a/b}
tokenizer: {encoder_max_len: 512, decoder_max_len: 128}
training: {learning_rate: 6.0e-05, num_train_epochs: 4, per_device_train_batch_size: 6,
  gradient_accumulation_steps: 4, lr_scheduler_type: linear, eval_steps: 100}
qlora: {use_qlora: true}
"""

UNDERSTOOD: list[tuple[str, Any, dict[str, Any]]] = [
    # Bare names, at the top level and in sections that are not theirs
    ("learning_rate", 1e-4, {"training.learning_rate": 1e-4}),
    ("model.learning_rate", 1e-4, {"training.learning_rate": 1e-4}),
    ("general.seed", 7, {"training.seed": 7}),
    ("training.num_beams", 3, {"generation.num_beams": 3}),
    ("target_modules", ["q"], {"qlora.target_modules": ["q"]}),
    # Other programs' names
    ("generation_num_beams", 3, {"generation.num_beams": 3}),
    ("training.generation_num_beams", 3, {"generation.num_beams": 3}),
    ("generation_max_length", 100, {"generation.max_new_tokens": 99}),
    ("generation.max_length", 100, {"generation.max_new_tokens": 99}),
    ("max_source_length", 256, {"tokenizer.encoder_max_len": 256}),
    ("max_target_length", 64, {"tokenizer.decoder_max_len": 64}),
    ("source_prefix", "a", {"tokenizer.input_prefix": "a"}),
    ("truncation_side", "right", {"tokenizer.long_dialogues_keep": "start"}),
    ("tokenizer.truncation_side", "left", {"tokenizer.long_dialogues_keep": "end"}),
    ("warmup_ratio", 0.1, {"training.warmup_steps": 0.1}),
    ("training.warmup_ratio", 0, {"training.warmup_steps": 0.0}),
    ("group_by_length", True, {"training.train_sampling_strategy": "token_budget"}),
    ("group_by_length", False, {"training.train_sampling_strategy": "random"}),
    ("qlora.r", 8, {"qlora.lora_rank": 8}),
    ("qlora.alpha", 8, {"qlora.lora_alpha": 8}),
    ("lora", {"r": 8, "lora_alpha": 9}, {"qlora.lora_rank": 8, "qlora.lora_alpha": 9}),
    ("wandb", {"project": "p", "entity": "e"}, {"tracking.project": "p", "tracking.entity": "e"}),
    ("batch_size", 3, {"training.per_device_train_batch_size": 3}),
    ("eval_batch_size", 3, {"training.per_device_eval_batch_size": 3}),
    ("epochs", 3, {"training.num_train_epochs": 3.0}),
    ("model_name", "c/d", {"model.checkpoint": "c/d"}),
    ("report_to", "wandb", {"tracking.wandb": True, "tracking.tensorboard": False}),
    ("report_to", ["tensorboard"], {"tracking.wandb": False, "tracking.tensorboard": True}),
    ("report_to", "none", {"tracking.wandb": False, "tracking.tensorboard": False}),
    ("report_to", "all", {"tracking.wandb": True, "tracking.tensorboard": True}),
    ("use_cpu", True, {"general.device": "cpu"}),
    ("metric_for_best_model", "eval_rougeL", {"training.metric_for_best_model": "rougeL"}),
    # What is always so
    ("use_cpu", False, {}),
    ("evaluation_strategy", "steps", {}),
    ("training.eval_strategy", "steps", {}),
    ("overwrite_output_dir", True, {}),
    ("save_safetensors", True, {}),
    ("greater_is_better", True, {}),
    ("load_in_8bit", False, {"qlora.load_in_8bit": False}),
    ("qlora.init_lora_weights", True, {"qlora.init_lora_weights": "default"}),
]

REFUSED: list[tuple[str, Any, str]] = [
    ("evaluation_strategy", "epoch", "set training.eval_steps"),
    ("evaluation_strategy", "no", "cannot be switched off"),
    ("save_strategy", "best", "set training.save_steps"),
    ("warmup_ratio", 1, "a share below 1, or training.warmup_steps"),
    ("warmup_ratio", "0.1", 'the text "0.1" → a number (≥ 0, ≤ 10,000,000): write 0.1'),
    ("generation_max_length", "100", "write 100 without quotes"),
    ("group_by_length", "yes", "training.train_sampling_strategy"),
    ("report_to", "mlflow", "wandb, tensorboard, both in a list, all or none"),
    ("report_to", ["none", "wandb"], "wandb, tensorboard, both"),
    ("save_safetensors", False, "always written as safetensors"),
    ("load_best_model_at_end", False, "always the one used"),
    ("predict_with_generate", False, "always generates"),
    ("load_in_8bit", True, "load_in_4bit: false beside it"),
    ("init_lora_weights", "loftq", "default or pissa"),
    ("adam_beta2", 0.98, "0.9, 0.999, 1e-8"),
    ("truncation_side", "middle", "long_dialogues_keep: both_ends, start or end"),
    ("truncation", True, "long_dialogues_keep: both_ends, start or end, the part that is kept"),
    ("tokenizer.truncation", "tail", "the part that is kept"),
    ("do_eval", 1, "a run always trains"),
    ("logging_dir", "logs", "TensorBoard events go to logs/"),
    ("output_dir", "out", "--output-dir"),
    ("max_length", 512, "tokenizer.encoder_max_len (input)"),
    ("evaluation.num_beams", 4, "evaluation.training_num_beams"),
    ("early_stopping", True, "training.early_stopping_patience"),
    ("training.early_stopping", 3, "training.early_stopping_patience"),
    ("use_cpu", "yes", "general.device"),
    ("overwrite_output_dir", "yes", "moved to previous/"),
    ("greater_is_better", "yes", "it follows from training.metric_for_best_model"),
    # Names that could mean several keys are nobody's
    ("dropout", 0.1, "model.dropout (the network's own)"),
    ("layers", 3, "unknown key"),
    ("model.r", 3, "unknown key"),
    ("minimum", {"rouge1": 3}, "unknown"),
    ("nowhere.learning_rate", 1e-4, "unknown section"),
]


def load(folder: Path, key: str, value: Any) -> Any:
    """Load BASE under a file that holds one more key, nested by its dots."""
    tree: Any = value
    for name in reversed(key.split(".")):
        tree = {name: tree}
    (folder / "base.yaml").write_text(BASE)
    path = folder / "x.yaml"
    path.write_text(
        "extends: base.yaml\n" + yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8"
    )
    return load_config(path)


@pytest.mark.parametrize(("key", "value", "settings"), UNDERSTOOD)
def test_a_certain_spelling_is_understood_and_said(
    tmp_path: Path, key: str, value: Any, settings: dict[str, Any]
) -> None:
    loaded = load(tmp_path, key, value)
    for dotted, expected in settings.items():
        found: Any = loaded.config
        for name in dotted.split("."):
            found = getattr(found, name)
        assert (type(found), found) == (type(expected), expected)
        assert loaded.origins[dotted].file == tmp_path / "x.yaml"
    assert loaded.notes, "what was understood is said"
    assert all(note.startswith(f"{tmp_path}/x.yaml:") for note in loaded.notes)


@pytest.mark.parametrize(("key", "value", "words"), REFUSED)
def test_an_uncertain_spelling_is_refused_with_what_to_write(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, key, value)
    assert len(caught.value.problems) == 1
    assert words in caught.value.problems[0]
    assert f"x.yaml:{3 if '.' in key and 'section' not in words else 2}" in caught.value.problems[0]


def test_a_note_holds_place_found_and_meant(tmp_path: Path) -> None:
    assert load(tmp_path, "warmup_ratio", 0.1).notes == [
        f"{tmp_path}/x.yaml:2 warmup_ratio 0.1 -> training.warmup_steps 0.1"
    ]


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("lora_r: 8\nqlora: {lora_rank: 8}\n", True),
        ("lora_r: 8\nqlora: {lora_rank: 16}\n", False),
        ("warmup_ratio: 0.1\ntraining: {warmup_steps: 100}\n", False),
        ("num_beams: 4\ntraining: {generation_num_beams: 8}\n", False),
        ("training.seed: 1\ntraining: {seed: 2}\n", False),
    ],
)
def test_two_spellings_of_one_key_must_agree(tmp_path: Path, text: str, accepted: bool) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "x.yaml"
    path.write_text("extends: base.yaml\n" + text)
    if accepted:
        assert load_config(path).config.qlora.lora_rank == 8
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    assert "x.yaml:3" in problem
    assert f"in {path}:2" in problem


def test_the_tables_name_keys_that_exist_and_hide_none() -> None:
    keys = schema_keys()
    assert set(RENAMED.values()) <= set(keys)
    assert set(bare_names().values()) <= set(keys)
    last_names = {key.rpartition(".")[2] for key in keys}
    assert not last_names & set(ALWAYS)
    assert not last_names & set(RENAMED)

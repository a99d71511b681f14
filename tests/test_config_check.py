"""What is refused in a config, in which words, and that all of it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.config.check import RULES
from dialsum.config.load import load_config, load_configs
from dialsum.config.messages import describe_type, show_value, suggest
from dialsum.config.schema import description, schema_keys
from dialsum.config.yaml import dump_yaml_text
from dialsum.errors import EXIT_UNFIT, ConfigError

VALID: dict[str, Any] = {
    "model": {"architecture": "bart", "checkpoint": "some/bart"},
    "tokenizer": {"encoder_max_len": 512, "decoder_max_len": 128},
    "training": {
        "learning_rate": 6e-5,
        "num_train_epochs": 4,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 4,
        "lr_scheduler_type": "linear",
        "eval_steps": 100,
    },
    "qlora": {"use_qlora": True},
}


def problems_of(
    folder: Path, changes: dict[str, Any], *, base: dict[str, Any] | None = None
) -> list[str]:
    """Return what is said of VALID with dotted changes (None of a required key takes it away)."""
    tree = yaml.safe_load(yaml.safe_dump(VALID))
    for dotted, value in changes.items():
        *sections, name = dotted.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
        if value == "ABSENT":
            del place[name]
    head = ""
    if base is not None:
        (folder / "base.yaml").write_text(
            yaml.safe_dump(base, allow_unicode=True), encoding="utf-8"
        )
        head = "extends: base.yaml\n"
    path = folder / "x.yaml"
    path.write_text(head + dump_yaml_text(tree), encoding="utf-8")
    try:
        load_config(path)
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.learning_rate", "ABSENT", "a number (≥ 1e-12, < 1): Peak learning rate"),
        ("model", "ABSENT", "not given → mt5, t5 or bart"),
        ("training.learning_rate", None, "nothing → a number (≥ 1e-12, < 1)"),
        (
            "training.learning_rate",
            "3e-5",
            'the text "3e-5" → a number (≥ 1e-12, < 1): write 3e-5 without',
        ),
        ("training.learning_rate", True, "true → a number"),
        ("training.learning_rate", 0, "0 → a number (≥ 1e-12, < 1)"),
        ("training.learning_rate", 3, "3 → a number (≥ 1e-12, < 1)"),
        (
            "training.learning_rate",
            float("nan"),
            "nan → a number (≥ 1e-12, < 1); nan is not a finite number",
        ),
        ("training.learning_rate", "nan", "(≥ 1e-12, < 1); nan is not a finite number"),
        ("generation.length_penalty", float("inf"), "(≥ -100, ≤ 100); inf is not a finite number"),
        ("generation.length_penalty", "-Infinity", "; -Infinity is not a finite number"),
        ("training.seed", float("inf"), "inf is not a finite number"),
        ("training.seed", "1_000", "write 1000"),
        ("training.eval_steps", "1,000", "write 1000"),
        ("training.weight_decay", "0,01", 'the text "0,01" → a number (≥ 0, ≤ 1,000)'),
        ("training.seed", 1e3, "1000.0 → a whole number (≥ 0, < 4,294,967,296): write 1000"),
        ("general.expected_minutes", 1e300, "1e+300 → a whole number"),
        ("training.seed", 1.5, "1.5 → a whole number"),
        ("training.seed", -1, "-1 → a whole number (≥ 0"),
        ("training.seed", False, "false → a whole number"),
        ("training.fp16", "yes", 'the text "yes" → true or false: write true'),
        ("training.bf16", "off", "true, false or auto: write false"),
        ("training.bf16", 1, "1 → true, false or auto"),
        ("training.lr_scheduler_type", "cosin", "did you mean cosine?"),
        ("training.lr_scheduler_kwargs", 4, "4 → a mapping of names to values"),
        ("training.per_device_train_batch_size", "automatic", "number (≥ 1, ≤ 65,536) or auto"),
        ("qlora.target_modules", "q_proj", "a list of texts or auto"),
        ("qlora.target_modules", ["q", 3], "[q, 3] → a list of texts or auto"),
        ("general.label", 7, "7 → text or null"),
        ("tokenizer.input_prefix", None, "nothing → text"),
        ("tokenizer.encoder_max_len", 1, "1 → a whole number (≥ 2, ≤ 1,000,000)"),
        ("tokenizer.decoder_max_len", 1, "1 → a whole number (≥ 2, ≤ 1,000,000)"),
        ("tokenizer.long_dialogues_keep", "tail", "both_ends, start or end"),
        ("tokenizer.long_dialogues_keep", "both_end", "did you mean both_ends?"),
        ("data.cache_dir", "", 'the text "" → text or null'),
        ("data.cache_dir", False, "false → text or null"),
        ("evaluation.target.rouge1", [15], "[15] → a list of 2 numbers or null"),
        (
            "evaluation.target.minimum",
            {"rouge4": 3},
            "a mapping of rouge1, rouge2 or rougeL to numbers",
        ),
        ("training", 3, "3 → a section: its keys below it, indented"),
        ("training.learnig_rate", 1, "unknown key → did you mean learning_rate?"),
        ("trainin", {"seed": 1}, "unknown section → did you mean training?"),
        ("tokenizer.max_len", 3, "did you mean encoder_max_len or decoder_max_len?"),
        ("zzz", 3, "the sections are general, model, tokenizer"),
        ("data.zzz", 3, "data knows data_dir, train_file"),
        ("training.label", "a", "ABSENT"),
    ],
)
def test_each_wrong_value_is_said_in_plain_words(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    said = problems_of(tmp_path, {key: value})
    if words == "ABSENT":
        assert said == []
        return
    assert any(words in problem for problem in said), said
    assert max(map(len, said)) < 300
    assert not any("pydantic" in problem or "validation" in problem.lower() for problem in said)
    assert not any("input_" in p.replace("input_prefix", "") for p in said)


RULE_CASES: list[tuple[str, dict[str, Any], str]] = [
    ("fp16 on T5", {"model.architecture": "t5", "training.fp16": True}, "→ bf16: true"),
    ("fp16 on mT5", {"model.architecture": "mt5", "training.fp16": True}, "overflow float16 (NaN)"),
    ("fp16 on BART", {"training.fp16": True}, ""),
    ("both halves", {"training.fp16": True, "training.bf16": True}, "keep bf16: true alone"),
    ("fp16 beside auto", {"training.fp16": True, "training.bf16": "auto"}, ""),
    ("family", {"model.checkpoint": "digit82/kobart-summarization"}, ""),
    ("wrong family", {"model.checkpoint": "google/mt5-small"}, "→ architecture: mt5"),
    ("no checkpoint", {"model.checkpoint": " "}, "an empty text"),
    ("save at evaluations", {"training.save_steps": 200}, ""),
    ("save between", {"training.save_steps": 50}, ""),
    ("shortest equals longest", {"generation.min_new_tokens": 128}, ""),
    ("shortest above longest", {"generation.min_new_tokens": 129}, "129, above the longest, 128"),
    (
        "shortest above max",
        {"generation.min_new_tokens": 9, "generation.max_new_tokens": 8},
        "at most 8",
    ),
    ("prefix fits", {"tokenizer.input_prefix": "요약: ", "tokenizer.encoder_max_len": 3}, ""),
    ("prefix alone", {"tokenizer.input_prefix": "a b", "tokenizer.encoder_max_len": 3}, "take all"),
    ("literal line break", {"tokenizer.input_prefix": "요약:\\n"}, "literal \\n"),
    ("real line break", {"tokenizer.input_prefix": "요약:\n"}, ""),
    ("kobart", {"model.checkpoint": "x/KoBART", "tokenizer.encoder_max_len": 1025}, "1,025 tokens"),
    ("kobart's limit", {"model.checkpoint": "x/KoBART", "tokenizer.encoder_max_len": 1024}, ""),
    ("another bart", {"tokenizer.encoder_max_len": 2048}, ""),
    ("label", {"general.label": "극한_학습률"}, ""),
    ("label with slash", {"general.label": "a/b c"}, "no space or slash: a_b_c"),
    ("empty label", {"general.label": ""}, "no space or slash: a_name"),
    ("no targets", {"qlora.target_modules": []}, "adapts nothing"),
    ("target twice", {"qlora.target_modules": ["q", "v", "q"]}, "each name once"),
    ("auto in a list", {"qlora.target_modules": ["auto"]}, "auto inside a list"),
    ("8-bit", {"qlora.load_in_8bit": True, "qlora.load_in_4bit": False}, ""),
    ("8-bit beside the default", {"qlora.load_in_8bit": True}, "load_in_4bit: true (the default)"),
    (
        "8-bit beside 4-bit",
        {"qlora.load_in_8bit": True, "qlora.load_in_4bit": True},
        "true beside load_in_4bit: true →",
    ),
    ("no bits", {"qlora.load_in_4bit": False}, ""),
    ("bfloat16 base", {"model.dtype": "bfloat16"}, ""),
    (
        "bfloat16 learns",
        {"model.dtype": "bfloat16", "qlora.use_qlora": False},
        "every weight would learn in it",
    ),
    (
        "bfloat16 embeddings learn",
        {"model.dtype": "bfloat16", "qlora.train_embeddings": True},
        "embeddings and norms would learn in it",
    ),
    ("rank-stabilised", {"qlora.use_rslora": True, "qlora.use_dora": True}, ""),
    ("DoRA", {"qlora.use_dora": True}, ""),
    (
        "DoRA on 8 bits",
        {"qlora.use_dora": True, "qlora.load_in_8bit": True, "qlora.load_in_4bit": False},
        "true on an 8-bit base",
    ),
    ("PiSSA", {"qlora.init_lora_weights": "pissa", "qlora.load_in_4bit": False}, ""),
    ("PiSSA on 4 bits", {"qlora.init_lora_weights": "pissa"}, "pissa over 4-bit weights"),
    (
        "PiSSA on 8 bits",
        {
            "qlora.init_lora_weights": "pissa",
            "qlora.load_in_8bit": True,
            "qlora.load_in_4bit": False,
        },
        "pissa over 8-bit weights",
    ),
    (
        "PiSSA on the head",
        {
            "qlora.init_lora_weights": "pissa",
            "qlora.load_in_4bit": False,
            "qlora.target_modules": ["q", "lm_head"],
        },
        "pissa with [lm_head] among",
    ),
    ("removed: tiny models", {"model.initialise": "tiny"}, "make_tiny_checkpoints.py OUT --data"),
    ("removed: their size", {"model.tiny": {"heads": 5}}, "make_tiny_checkpoints.py OUT --data"),
    ("removed: their tokenizer", {"tokenizer.train_on_data": True}, "make_tiny_checkpoints.py"),
    ("removed: cutting", {"tokenizer.trim_vocabulary": True}, "trim_vocabulary.py CHECKPOINT OUT"),
    ("warm-up steps", {"training.warmup_steps": 100}, ""),
    ("warm-up share", {"training.warmup_steps": 0.1}, ""),
    ("warm-up between", {"training.warmup_steps": 1.5}, "1.5 → whole steps"),
    ("warm-up for ever", {"training.warmup_steps": 50, "training.max_steps": 50}, "never reached"),
    ("dev trains", {"data.train_file": "a.csv", "data.dev_file": "a.csv"}, "a.csv also trains"),
    ("a share of train", {"data.dev_file": None, "data.dev_share": 0.05}, ""),
    ("dev rows twice", {"data.dev_share": 0.05}, "0.05 beside data.dev_file dev.csv"),
    ("no dev rows", {"data.dev_file": None}, "null, and no data.dev_share"),
    ("columns", {"data.columns.summary": "target", "data.columns.fname": "id"}, ""),
    ("one column twice", {"data.columns.summary": "dialogue"}, "data.columns.dialogue too"),
    ("target backwards", {"evaluation.target.rouge1": [18, 15]}, "[from, to], 0 to 100"),
    ("target as share", {"evaluation.target.minimum": {"rouge1": 101}}, "a score, 0 to 100"),
    ("metric", {"greater_is_better": True}, ""),
    ("metric reversed", {"greater_is_better": False}, "it follows from the metric"),
    ("loss", {"greater_is_better": False, "training.metric_for_best_model": "eval_loss"}, ""),
    (
        "loss reversed",
        {"greater_is_better": True, "training.metric_for_best_model": "loss"},
        "true, but metric_for_best_model is loss",
    ),
]

SCHEDULES: list[tuple[str, Any, str]] = [
    ("linear", {}, ""),
    ("linear", {"num_cycles": 2}, "linear takes none"),
    ("cosine", {"num_cycles": 0.5}, ""),
    ("cosine", {"num_cycles": 0}, "a number above 0"),
    ("cosine", {"power": 2}, "cosine takes num_cycles"),
    ("cosine_with_restarts", {}, "one cycle, plain cosine"),
    ("cosine_with_restarts", {"num_cycles": 1}, "from 2 (one cycle is plain cosine)"),
    ("cosine_with_restarts", {"num_cycles": 2.5}, "a whole number from 2"),
    ("cosine_with_restarts", {"num_cycles": True}, "a whole number from 2"),
    ("cosine_with_restarts", {"num_cycles": 4}, ""),
    ("polynomial", {"power": 2, "lr_end": 1e-7}, ""),
    ("polynomial", {"lr_end": 1}, "below the learning rate"),
    ("polynomial", {"power": "2"}, "a number above 0"),
    ("inverse_sqrt", {"timescale": 1000}, ""),
    ("inverse_sqrt", {"timescale": 0.5}, "a whole number from 1"),
    ("constant", {}, ""),
]

EFFECTS: list[tuple[str, dict[str, Any], str]] = [
    ("no adapters", {"qlora.use_qlora": False}, ""),
    ("no adapters, no 4-bit", {"qlora.use_qlora": False, "qlora.load_in_4bit": False}, ""),
    ("4-bit alone", {"qlora.use_qlora": False, "qlora.load_in_4bit": True}, "load_in_4bit"),
    ("8-bit alone", {"qlora.use_qlora": False, "qlora.load_in_8bit": True}, "load_in_8bit"),
    ("DoRA alone", {"qlora.use_qlora": False, "qlora.use_dora": True}, "use_dora"),
    ("unsloth alone", {"qlora.use_qlora": False, "qlora.use_unsloth": True}, "use_unsloth"),
    ("rank alone", {"qlora.use_qlora": False, "r": 8}, "qlora.lora_rank (written r)"),
    (
        "targets alone",
        {"qlora.use_qlora": False, "qlora.target_modules": ["q"]},
        "[q] has no effect",
    ),
    ("threshold", {"training.early_stopping_threshold": 0.1}, "training never stops early"),
    ("greedy", {"generation.num_beams": 1, "generation.length_penalty": 2}, "no beams to weigh"),
    ("no tests", {"data.test_file": None, "data.max_test_rows": 5}, "no test rows are read"),
    ("W&B off", {"tracking.wandb": False, "tracking.project": "p"}, "W&B is off"),
    (
        "constant with warm-up",
        {"training.lr_scheduler_type": "constant", "training.warmup_steps": 0.1},
        "constant_with_warmup",
    ),
]


@pytest.mark.parametrize(
    ("changes", "words"),
    [pytest.param(changes, words, id=name) for name, changes, words in RULE_CASES + EFFECTS],
)
def test_each_rule_between_keys(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    said = problems_of(tmp_path, changes)
    assert len(said) == (1 if words else 0), said
    assert all(words in problem and "x.yaml:" in problem for problem in said), said


@pytest.mark.parametrize(("shape", "arguments", "words"), SCHEDULES)
def test_a_schedule_takes_its_own_arguments_only(
    tmp_path: Path, shape: str, arguments: dict[str, Any], words: str
) -> None:
    changes = {"training.lr_scheduler_type": shape, "training.lr_scheduler_kwargs": arguments}
    said = problems_of(tmp_path, changes)
    assert len(said) == (1 if words else 0), said
    assert all(words in problem for problem in said), said


@pytest.mark.parametrize(
    ("base", "overrides", "refused"),
    [
        ({"qlora.lora_rank": 8}, ("qlora.use_qlora=false",), False),
        ({"qlora.use_qlora": False}, ("qlora.lora_rank=8",), False),
        ({}, ("qlora.use_qlora=false", "qlora.lora_rank=8"), True),
        ({"training.warmup_steps": 0.1}, ("training.lr_scheduler_type=constant",), False),
        ({"training.max_steps": 7}, (), True),
        ({}, ("training.max_steps=7",), False),
        ({"training.max_steps": 7}, ("training.num_train_epochs=1",), True),
        (
            {"training.max_steps": 7},
            ("training.num_train_epochs=1", "training.max_steps=null"),
            False,
        ),
    ],
)
def test_only_what_is_stated_last_can_be_ignored(
    tmp_path: Path, base: dict[str, Any], overrides: tuple[str, ...], refused: bool
) -> None:
    path = tmp_path / "x.yaml"
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base or {"general": None}))
    path.write_text("extends: base.yaml\n" + yaml.safe_dump(VALID))
    if refused:
        with pytest.raises(ConfigError):
            load_config(path, overrides=overrides)
    else:
        load_config(path, overrides=overrides)


def test_steps_that_rule_over_epochs_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(VALID))
    notes = load_config(path, overrides=["training.max_steps=7"]).notes
    assert notes == ["--set max_steps 7 rules over num_train_epochs 4"]


def test_every_problem_of_every_file_is_shown_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "one.yaml", tmp_path / "two.yaml"
    (tmp_path / "base.yaml").write_text("training:\n  weight_decya: 0.1\n  fp16: true\n")
    first.write_text(
        "extends: base.yaml\n"
        + yaml.safe_dump(VALID | {"model": {"architecture": "mt5", "checkpoint": 3}})
        + "general: {label: a b}\n"
    )
    second.write_text("extends: base.yaml\nlearning_rate: much\ngeneration:\n  num_beam: 4\n")
    with pytest.raises(ConfigError) as caught:
        load_configs([first, second, tmp_path / "three.yaml"])
    assert caught.value.exit_code == EXIT_UNFIT
    text = str(caught.value)
    for words in (
        "base.yaml:2",
        "did you mean weight_decay?",
        "base.yaml:3",
        "in one: fp16: true on mt5",
        "training.learning_rate (written learning_rate)",
        "did you mean num_beams?",
        "no space or slash: a_b",
        "model.checkpoint",
        "3 → text",
        "model.architecture",
        "qlora.use_qlora",
        "three.yaml",
    ):
        assert words in text, words
    assert text.count("weight_decya") == 1
    lines = [line for line in caught.value.problems if "three.yaml" not in line]
    assert len({line.index(line.split()[1]) for line in lines}) == 1, "keys start in one column"
    assert text.startswith(f"{len(caught.value.problems)} problems found; nothing was started:\n")


def test_korean_text_keeps_the_columns_aligned(tmp_path: Path) -> None:
    path = tmp_path / "한국어.yaml"
    path.write_text("한글키: 1\nlabel: 'a b'\n" + yaml.safe_dump(VALID), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    found = [
        line.index(words)
        for line, words in zip(caught.value.problems, ("unknown key", "the text"), strict=True)
    ]
    # Three Korean characters take three columns more than the same number of characters.
    assert found[0] + 3 == found[1]


def test_every_rule_says_why_it_is_there() -> None:
    assert [rule.__name__ for rule in RULES if not rule.__doc__] == []
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


def test_every_key_has_a_meaning_and_a_type_in_words() -> None:
    for key, field in schema_keys().items():
        assert len(description(key)) > 5, key
        words = describe_type(field)
        assert words, key
        assert not set("[]'<class") <= set(words), f"{key}: {words}"
        assert "typing" not in words, f"{key}: {words}"


@pytest.mark.parametrize("key", ["", "a", "a.b.c.d", "training.", ".seed", "한국어"])
def test_any_unknown_key_gets_an_answer(key: str) -> None:
    text, _ = suggest(key)
    assert text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", "''"),
        ("a", "a"),
        ("요약: ", "'요약: '"),
        ("yes", "'yes'"),
        ("a\nb", '"a\\nb"'),
        (None, "null"),
        (True, "true"),
        (6e-5, "6e-05"),
        ([1, "a"], "[1, a]"),
        ({"a": "no"}, "{a: 'no'}"),
    ],
)
def test_values_are_shown_as_they_would_be_written(value: Any, shown: str) -> None:
    assert show_value(value) == shown
    assert yaml.safe_load(shown) == value or value == 6e-5

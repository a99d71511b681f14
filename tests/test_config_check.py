"""What is refused in a config, in which words, and that a fault hides none of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config_texts import BART, HEAD, TAIL, TOKENIZER, TRAINING, WHOLE, load, problems_of
from dialsum.config.load import load_config, load_configs
from dialsum.config.messages import describe_key, describe_type, problem_lines
from dialsum.config.schema import schema_keys
from dialsum.config.yaml import Origin, Problem
from dialsum.errors import EXIT_UNFIT, ConfigError

CHILD = "extends: base.yaml\n"

WRONG_VALUES = [
    ("training.learning_rate: null", "nothing → a number (≥ 1e-12, < 1)"),
    ("training.learning_rate: '3e-5'", 'the text "3e-5" → a number (≥ 1e-12, < 1): write 3e-5 wi'),
    ("training.learning_rate: true", "true → a number"),
    ("training.learning_rate: 0", "0 → a number (≥ 1e-12, < 1)"),
    ("training.learning_rate: 3", "3 → a number (≥ 1e-12, < 1)"),
    ("training.learning_rate: .nan", "nan → a number (≥ 1e-12, < 1); nan is not a finite number"),
    ("training.learning_rate: nan", "(≥ 1e-12, < 1); nan is not a finite number"),
    ("generation.length_penalty: .inf", "(≥ -100, ≤ 100); inf is not a finite number"),
    ("generation.length_penalty: -Infinity", "; -Infinity is not a finite number"),
    ("training.seed: .inf", "inf is not a finite number"),
    ("training.seed: 1_000", "write 1000"),
    ("training.eval_steps: '1,000'", "write 1000"),
    ("training.weight_decay: 0,01", 'the text "0,01" → a number (≥ 0, ≤ 1,000)'),
    ("training.seed: 1e3", "1000.0 → a whole number (≥ 0, < 4,294,967,296): write 1000"),
    ("general.expected_minutes: 1e300", "1e+300 → a whole number"),
    ("training.seed: 1.5", "1.5 → a whole number"),
    ("training.seed: -1", "-1 → a whole number (≥ 0"),
    ("training.seed: false", "false → a whole number"),
    ("training.fp16: yes", 'the text "yes" → true or false: write true'),
    ("training.bf16: off", "true, false or auto: write false"),
    ("training.bf16: 1", "1 → true, false or auto"),
    ("training.lr_scheduler_type: cosin", "did you mean cosine?"),
    ("training.lr_scheduler_kwargs: 4", "4 → a mapping of names to values"),
    ("training.per_device_train_batch_size: automatic", "number (≥ 1, ≤ 65,536) or auto"),
    ("qlora.target_modules: q_proj", "a list of texts or auto"),
    ("qlora.target_modules: [q, 3]", "[q, 3] → a list of texts or auto"),
    ("general.label: 7", "7 → text or null"),
    ("tokenizer.input_prefix: null", "nothing → text"),
    ("tokenizer.encoder_max_len: 1", "1 → a whole number (≥ 2, ≤ 1,000,000)"),
    ("tokenizer.decoder_max_len: 1", "1 → a whole number (≥ 2, ≤ 1,000,000)"),
    ("tokenizer.long_dialogues_keep: tail", "both_ends, start or end"),
    ("tokenizer.long_dialogues_keep: both_end", "did you mean both_ends?"),
    ("data.cache_dir: ''", 'the text "" → text or null'),
    ("data.cache_dir: false", "false → text or null"),
    ("batch.retry: [lr_halve]", "did you mean lr_half?"),
    ("batch.retry: lr_half", "write [lr_half]"),
    ("evaluation.target.rouge1: [15]", "[15] → a list of 2 numbers (≥ 0, ≤ 100) or null"),
    ("evaluation.target.rouge1: [18, 15]", "[18, 15] → [from, to], 0 to 100"),
    ("evaluation.target.minimum: {rouge4: 3}", "a mapping of rouge1, rouge2 or rougeL to numbers"),
    ("evaluation.target.minimum: {rouge1: 101}", "to numbers (≥ 0, ≤ 100)"),
    ("training: 3", "3 → a section: its keys below it, indented"),
    ("training.learnig_rate: 1", "unknown key → did you mean learning_rate?"),
    ("trainin: {seed: 1}", "unknown section → did you mean training?"),
    ("tokenizer.max_len: 3", "did you mean encoder_max_len or decoder_max_len?"),
    ("zzz: 3", "the sections are general, model, tokenizer"),
    ("data.zzz: 3", "data knows data_dir, train_file"),
    ("evaluation.target.minimun: 3", "did you mean minimum?"),
    # What one value must be besides its type
    ("model.checkpoint: ' '", "an empty text"),
    (r"tokenizer.input_prefix: '요약:\n'", r"a literal \n (backslash and n)"),
    ("general.label: a/b c", "no space or slash: a_b_c"),
    ("general.label: ''", "no space or slash: a_name"),
    ("qlora.target_modules: []", "adapts nothing"),
    ("qlora.target_modules: [q, v, q]", "each name once"),
    ("qlora.target_modules: [auto]", "auto inside a list"),
    ("training.warmup_steps: 1.5", "1.5 → whole steps"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_VALUES)
def test_each_wrong_value_is_said_in_plain_words(tmp_path: Path, text: str, words: str) -> None:
    [said] = problems_of(tmp_path, f"{CHILD}{text}\n", base=BART)
    assert said.startswith("x.yaml:2 ")
    assert words in said
    assert len(said) < 300
    assert not {"pydantic", "validation", "input_v", "input_t"} & set(said.lower().split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "  learning_rate: 6e-5\n",
            "training.learning_rate not given → a number (≥ 1e-12, < 1): P",
        ),
        (TAIL, "qlora.use_qlora not given → true or false: Train adapters"),
        (HEAD, "model.architecture not given → mt5, t5, bart, gpt2, kogpt2, llama, qwen or gemma"),
    ],
)
def test_what_has_to_be_given_is_said_with_its_meaning(
    tmp_path: Path, line: str, words: str
) -> None:
    assert problems_of(tmp_path, WHOLE.replace(line, ""))[0].startswith(f"x.yaml {words}")


FIT = """
fp16: true
fp16: true & bf16: auto
model.checkpoint: digit82/kobart-summarization
save_steps: 200
save_steps: 50
min_new_tokens: 128
input_prefix: '요약: ' & encoder_max_len: 3
input_prefix: "요약:\\n"
model.checkpoint: x/KoBART & encoder_max_len: 1024
encoder_max_len: 2048
label: 극한_학습률
load_in_8bit: true & load_in_4bit: false
load_in_4bit: false
model.dtype: bfloat16
use_rslora: true & use_dora: true
init_lora_weights: pissa & load_in_4bit: false
warmup_steps: 100
warmup_steps: 0.1
data.dev_file: null & data.dev_share: 0.05
data.columns: {summary: target, fname: id}
greater_is_better: true
greater_is_better: false & metric_for_best_model: eval_loss
use_qlora: false
use_qlora: false & load_in_4bit: false
"""
"""Lines that each fit a config of BART; ` & ` parts keys."""
UNFIT = [
    ("model.architecture: t5\nfp16: true", "→ bf16: true"),
    ("model.architecture: mt5\nfp16: true", "overflow float16 (NaN)"),
    ("fp16: true\nbf16: true", "keep bf16: true alone"),
    ("model.checkpoint: google/mt5-small", "→ architecture: mt5"),
    ("min_new_tokens: 129", "129, above the longest, 128"),
    ("min_new_tokens: 9\nmax_new_tokens: 8", "at most 8"),
    ("input_prefix: a b\nencoder_max_len: 3", "take all"),
    ("model.checkpoint: x/KoBART\nencoder_max_len: 1025", "1,025 tokens"),
    ("qlora.load_in_8bit: true", "load_in_4bit: true (the default)"),
    ("load_in_8bit: true\nload_in_4bit: true", "true beside load_in_4bit: true →"),
    ("model.dtype: bfloat16\nuse_qlora: false", "every weight would learn in it"),
    ("model.dtype: bfloat16\ntrain_embeddings: true", "embeddings and norms would learn in it"),
    ("use_dora: true\nload_in_8bit: true\nload_in_4bit: false", "true on an 8-bit base"),
    ("init_lora_weights: pissa", "pissa over 4-bit weights"),
    (
        "init_lora_weights: pissa\nload_in_8bit: true\nload_in_4bit: false",
        "pissa over 8-bit weights",
    ),
    (
        "init_lora_weights: pissa\nload_in_4bit: false\ntarget_modules: [q, lm_head]",
        "pissa with [lm_head] among",
    ),
    ("warmup_steps: 50\nmax_steps: 50", "never reached"),
    ("model.initialise: tiny", "make_tiny_checkpoints.py OUT --data"),
    ("model.tiny: {heads: 5}", "make_tiny_checkpoints.py OUT --data"),
    ("tokenizer.train_on_data: true", "make_tiny_checkpoints.py"),
    ("tokenizer.trim_vocabulary: true", "trim_vocabulary.py CHECKPOINT OUT"),
    ("data.dev_share: 0.05", "0.05 beside data.dev_file dev.csv"),
    ("data.dev_file: null", "null, and no data.dev_share"),
    ("data.columns.summary: dialogue", "data.columns.dialogue too"),
    ("train_file: a.csv\ndev_file: a.csv", "a.csv also trains"),
    ("greater_is_better: false", "it follows from the metric"),
    (
        "greater_is_better: true\nmetric_for_best_model: loss",
        "true, but metric_for_best_model is loss",
    ),
    ("use_qlora: false\nload_in_4bit: true", "load_in_4bit"),
    ("use_qlora: false\nload_in_8bit: true", "load_in_8bit"),
    ("use_qlora: false\nuse_dora: true", "use_dora"),
    ("use_qlora: false\nuse_unsloth: true", "use_unsloth"),
    ("use_qlora: false\nr: 8", "qlora.lora_rank (written r)"),
    ("use_qlora: false\ntarget_modules: [q]", "[q] has no effect"),
    ("early_stopping_threshold: 0.1", "training never stops early"),
    ("num_beams: 1\nlength_penalty: 2", "no beams to weigh"),
    ("mbr_temperature: 0.5\nlength_penalty: 2", "(drawn summaries have no beams to weigh)"),
    ("mbr_temperature: 0.5\nnum_beams: 2", "8 to 64 with mbr_temperature"),
    ("test_file: null\nmax_test_rows: 5", "no test rows are read"),
    ("wandb: {wandb: false, project: p}", "W&B is off"),
    (
        "lr_scheduler_type: constant\nwarmup_steps: 0.1",
        "(it has no warm-up; constant_with_warmup has one) →",
    ),
]
SCHEDULES = [
    ("linear", "{}", ""),
    ("linear", "{num_cycles: 2}", "linear takes none"),
    ("cosine", "{num_cycles: 0.5}", ""),
    ("cosine", "{num_cycles: 0}", "a number above 0"),
    ("cosine", "{power: 2}", "cosine takes num_cycles"),
    ("cosine_with_restarts", "{}", "one cycle, plain cosine"),
    ("cosine_with_restarts", "{num_cycles: 1}", "from 2 (one cycle is plain cosine)"),
    ("cosine_with_restarts", "{num_cycles: 2.5}", "a whole number from 2"),
    ("cosine_with_restarts", "{num_cycles: true}", "a whole number from 2"),
    ("cosine_with_restarts", "{num_cycles: 4}", ""),
    ("polynomial", "{power: 2, lr_end: 1e-7}", ""),
    ("polynomial", "{lr_end: 1}", "below the learning rate"),
    ("polynomial", "{power: '2'}", "a number above 0"),
    ("polynomial", "{power: .inf}", "a number above 0"),
    ("inverse_sqrt", "{timescale: 1000}", ""),
    ("inverse_sqrt", "{timescale: 0.5}", "a whole number from 1"),
    ("constant", "{}", ""),
]
for _shape, _arguments, _words in SCHEDULES:
    _text = f"lr_scheduler_type: {_shape}\nlr_scheduler_kwargs: {_arguments}"
    UNFIT += [(_text, _words)] if _words else []
    FIT += "" if _words else f"lr_scheduler_type: {_shape} & lr_scheduler_kwargs: {_arguments}\n"


def test_what_fits_together_is_not_refused(tmp_path: Path) -> None:
    for line in FIT.strip().splitlines():
        text = line.replace(" & ", "\n")
        assert problems_of(tmp_path, f"{CHILD}{text}\n", base=BART) == [], line


@pytest.mark.parametrize(("text", "words"), UNFIT)
def test_each_rule_between_keys(tmp_path: Path, text: str, words: str) -> None:
    [said] = problems_of(tmp_path, f"{CHILD}{text}\n", base=BART)
    assert words in said and said.startswith(("x.yaml:", "base.yaml:"))


@pytest.mark.parametrize(
    ("text", "base", "overrides", "refused"),
    [
        ("", "qlora.lora_rank: 8", ["qlora.use_qlora=false"], False),
        ("", "", ["qlora.use_qlora=false", "qlora.lora_rank=8"], True),
        ("use_qlora: false", "", ["qlora.lora_rank=8"], True),
        ("", "training.warmup_steps: 0.1", ["training.lr_scheduler_type=constant"], False),
        ("", "training.max_steps: 7", [], False),
        ("training.num_train_epochs: 4", "training.max_steps: 7", [], True),
        ("", "", ["training.max_steps=7"], False),
        ("", "training.max_steps: 7", ["training.num_train_epochs=1"], True),
        (
            "",
            "training.max_steps: 7",
            ["training.num_train_epochs=1", "training.max_steps=null"],
            False,
        ),
    ],
)
def test_only_what_is_stated_last_can_be_ignored(
    tmp_path: Path, text: str, base: str, overrides: list[str], refused: bool
) -> None:
    said = problems_of(tmp_path, CHILD + text, base=f"{WHOLE}{base}\n", overrides=overrides)
    assert len(said) == refused


def test_every_problem_of_every_file_is_shown_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "one.yaml", tmp_path / "두번째.yaml"
    (tmp_path / "base.yaml").write_text("training:\n  weight_decya: 0.1\n  fp16: true\n")
    first.write_text(CHILD + WHOLE.replace("a/b", "3") + "general: {label: a b}\n")
    second.write_text(f"{CHILD}learning_rate: much\ngeneration:\n  num_beam: 4\n한글키: 1\n")
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
    assert text.startswith(f"{len(caught.value.problems)} problems found; nothing was started:\n")
    # Keys start in one column, and Korean characters take two.
    lines = [line for line in caught.value.problems if "three.yaml" not in line]
    starts = {line.index(line.split()[1]) + 3 * ("두번째" in line) for line in lines}
    assert len(starts) == 1


WRONG = "generation:\n  num_beam: 4\nfp16: true\n"
"""Stands behind a fault: an unknown key and a broken rule, which must be seen all the same."""
FAULTS = [
    (WHOLE, ""),
    (
        WHOLE + "training.seed: 1\ntraining.seed: 1\n",
        "x.yaml:15 training.seed given again (already in line 14) → keep one of the two; the later"
        " was checked",
    ),
    (
        WHOLE.replace("eval_steps: 100\n", "eval_steps: 100\n  seed: 1\n  seed: 2\n"),
        "x.yaml:13 training.seed given again (already in line 12)",
    ),
    (
        HEAD + TOKENIZER + TAIL + "training:\n  seed: 1\n" + TRAINING,
        "x.yaml:9 training given again (already in line 7) → one section that holds the keys of"
        " both",
    ),
    (
        WHOLE + "training:\n",
        "x.yaml:14 training given again (already in line 5) → keep one of the two; the earlier"
        " was checked",
    ),
    (
        WHOLE.replace("learning_rate: ", "learning_rate: !!int "),
        "x.yaml:6 training.learning_rate a tag (!)",
    ),
    (WHOLE.replace("learning_rate: ", "lr: !!int "), "x.yaml:6 training.lr a tag (!)"),
    (WHOLE.replace("qlora:", "qlora: !x"), "x.yaml:12 qlora a tag (!)"),
    (WHOLE.replace("qlora:", "lora: !x"), "x.yaml:12 lora a tag (!)"),
    (WHOLE + "  target_modules: [q, !!int v]\n", "x.yaml:14 qlora.target_modules a tag (!)"),
    (
        WHOLE + "training.lr_scheduler_kwargs: {power: !!int v}\n",
        "x.yaml:14 training.lr_scheduler_kwargs.power a tag (!)",
    ),
    (
        HEAD
        + "tokenizer:\n  <<: {encoder_max_len: 512}\n  decoder_max_len: 128\n"
        + TRAINING
        + TAIL,
        "x.yaml:3 tokenizer.<< a merge key",
    ),
    (
        WHOLE.replace("model: {", "model: &m {") + "qlora.target_modules: *m\n",
        "x.yaml:1 qlora.target_modules an alias (*)",
    ),
    (WHOLE + "1: x\n", "x.yaml:14 1 the key '1'"),
    (WHOLE + "? [a]\n: x\n", "x.yaml:14 a key of parts"),
    (
        HEAD + TOKENIZER + TAIL + r'"training:\\n learning_rate": 6e-5' + "\n",
        r"x.yaml:7 training:\n learning_rate a literal \n (backslash and n) stands in the key",
    ),
    (
        WHOLE.replace("learning_rate: ", "learning_rate: \u00a0"),
        "x.yaml:6 training.learning_rate U+00A0 (no-break space) in column 18",
    ),
    (
        WHOLE.replace("learning_rate: ", "learning_rate\u200b: "),
        "x.yaml:6 training.learning_rate\\u200b U+200B (zero width space) in column 16",
    ),
    (HEAD + WRONG + "---\n" + TAIL, "x.yaml:5 a second document (---)"),
    (WHOLE + "\a#\a\n", "x.yaml:14 control character U+0007, the first of 2"),
    (WHOLE + "extends: !!int x\n", "x.yaml:14 extends a tag (!)"),
    (WHOLE + "resolved: !!int x\n", "x.yaml:14 resolved a tag (!)"),
    (WHOLE + "extends: x.yaml\n", "x.yaml:14 extends a circle"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_a_fault_is_one_problem_among_the_others(tmp_path: Path, text: str, words: str) -> None:
    said = problems_of(tmp_path, text if WRONG in text else text + WRONG)
    rest = [line for line in said if "num_beam" not in line and "fp16: true on mt5" not in line]
    assert len(said) == len(rest) + 2, said
    assert len(rest) == (1 if words else 0), said
    assert all(line.startswith(words) for line in rest), said


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ((WRONG + WHOLE + "label: 한국어\n").encode("cp949"), "x.yaml:17 Korean text in cp949"),
        (WRONG.encode() + WHOLE.encode() + b"label: \xff\n", "x.yaml:17 byte 0xff"),
        ((WRONG + WHOLE).encode("utf-16"), "x.yaml:1 UTF-16 text"),
    ],
)
def test_a_wrong_encoding_hides_nothing(tmp_path: Path, raw: bytes, words: str) -> None:
    said = problems_of(tmp_path, raw)
    assert len(said) == 3
    assert sum(line.startswith(words) for line in said) == 1
    assert sum("num_beam" in line or "fp16: true on mt5" in line for line in said) == 2


def test_of_a_key_given_three_times_each_line_is_named(tmp_path: Path) -> None:
    first, second, wrong = problems_of(tmp_path, WHOLE + "seed: 1\nseed: 2\nseed: x\n")
    assert first.startswith("x.yaml:15 seed given again (already in line 14)")
    assert second.startswith("x.yaml:16 seed given again (already in line 15)")
    assert 'x.yaml:16 training.seed (written seed) the text "x"' in wrong


def test_both_blocks_of_a_doubled_section_are_checked(tmp_path: Path) -> None:
    text = WHOLE + "training:\n  seed: x\n  eval_steps: 0\n  sed: 1\n"
    said = problems_of(tmp_path, text)
    assert [line.split()[0] for line in said] == [f"x.yaml:{n}" for n in (14, 15, 16, 16, 17)]
    assert "training.eval_steps given again (already in line 11)" in "\n".join(said)
    assert "did you mean seed?" in said[-1]


def test_what_was_probably_meant_is_not_missing_as_well(tmp_path: Path) -> None:
    [said] = problems_of(tmp_path, WHOLE.replace("learning_rate", "learnig_rate"))
    assert "did you mean learning_rate?" in said
    # Of a doubled section, one block holds what cannot be read: nobody knows what it gives.
    text = HEAD + TRAINING + TAIL + "tokenizer: {<<: {a: 1}}\ntokenizer: {input_prefix: a}\n"
    assert [line.split()[1] for line in problems_of(tmp_path, text)] == [
        "tokenizer.<<",
        "tokenizer",
    ]


def test_what_a_fault_may_have_given_is_known_again_once_a_later_source_gives_it(
    tmp_path: Path,
) -> None:
    base = WHOLE.replace("decoder_max_len: 128", "decoder_max_len: !!int x")
    text = f"{CHILD}decoder_max_len: 128\ngeneration.min_new_tokens: 129\n"
    said = sorted(problems_of(tmp_path, text, base=base))
    assert [line.partition(":")[0] for line in said] == ["base.yaml", "x.yaml"]
    assert "129, above the longest, 128" in said[1]


def test_a_broken_base_hides_no_rule_about_the_files_own_keys(tmp_path: Path) -> None:
    text = f"{CHILD}model.architecture: mt5\nfp16: true\ngeneral.label: a b\n"
    said = sorted(problems_of(tmp_path, text, base="a: [\n"))
    assert len(said) == 3
    for line, words in zip(said, ("base.yaml", "fp16: true on mt5", "slash: a_b"), strict=True):
        assert words in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("encoder_max_len: x\ngeneration.max_new_tokens: 2000\n", "2,000 tokens, but KoBART"),
        ("evaluation.target: {rouge1: 3, minimum: {rouge1: 101}}\n", "rouge1: 101"),
        ("warmup_steps: 1.5\nmax_steps: x\n", "1.5 → whole steps"),
        ("lr: x\nlr_scheduler_kwargs: {lr_end: 2, power: -1}\n", "power: -1"),
        ("use_qlora: x\ntracking: {wandb: false, project: p}\n", "W&B is off"),
        ("fp16: true\nmodel.architecture: x\nbf16: true\n", "keep bf16: true alone"),
    ],
)
def test_a_wrong_value_hides_no_rule_about_another_key(
    tmp_path: Path, more: str, words: str
) -> None:
    base = WHOLE.replace("mt5, checkpoint: a/b", "bart, checkpoint: a/kobart")
    said = problems_of(tmp_path, CHILD + more, base=base.replace("linear", "polynomial"))
    assert any(words in line for line in said), said


def test_a_value_that_is_not_known_breaks_no_rule(tmp_path: Path) -> None:
    text = f"{CHILD}early_stopping_patience: x\nearly_stopping_threshold: 0.1\n"
    assert len(problems_of(tmp_path, text, base=WHOLE)) == 1
    text = f"{CHILD}metric_for_best_model: x\ngreater_is_better: false\n"
    assert len(problems_of(tmp_path, text, base=WHOLE)) == 1


def test_each_wrong_member_of_a_mapping_is_named_with_its_own_file(tmp_path: Path) -> None:
    text = f"{CHILD}evaluation.target:\n  minimum.rouge9: 1\n  minimum.rouge2: x\n"
    base = WHOLE + "evaluation.target:\n  minimum:\n    rouge1: y\n    rougeL: z\n"
    said = problems_of(tmp_path, text, base=base)
    places = [line.split()[0] for line in said]
    assert sorted(places) == ["base.yaml:16", "base.yaml:17", "x.yaml:3", "x.yaml:4"]


BELOW = [
    ("learning_rate: 6e-5", "learning_rate: fast", "training.learning_rate: 1e-3"),
    ("learning_rate: 6e-5", "learning_rate: -1", "training.learning_rate: 1e-3"),
    ("train_batch_size: 6", "train_batch_size: 0", "training.per_device_train_batch_size: 4"),
]


@pytest.mark.parametrize(("was", "wrong", "right"), BELOW)
@pytest.mark.parametrize("over", ["overlay", "--set", "file"])
def test_what_lies_over_a_wrong_value_does_not_hide_it(
    tmp_path: Path, was: str, wrong: str, right: str, over: str
) -> None:
    text = WHOLE.replace(was, wrong)
    with pytest.raises(ConfigError) as caught:
        if over == "overlay":
            load(tmp_path, text, overlay=right)
        elif over == "--set":
            load(tmp_path, text, overrides=[right.replace(": ", "=")])
        else:
            load(tmp_path, CHILD + right, base=text)
    [problem] = caught.value.problems
    line = WHOLE[: WHOLE.index(was)].count("\n") + 1
    assert f"{'base' if over == 'file' else 'x'}.yaml:{line} " in problem
    assert right.partition(":")[0] in problem


def test_two_keys_that_do_not_fit_together_are_put_right_by_a_later_source_but_no_overlay(
    tmp_path: Path,
) -> None:
    text = f"{WHOLE}fp16: true\n"
    assert not problems_of(tmp_path, text, overrides=["fp16=false"])
    assert not problems_of(tmp_path, f"{CHILD}fp16: false\n", base=text)
    with pytest.raises(ConfigError, match=r"x\.yaml:14 +training\.fp16"):
        load(tmp_path, text, overlay="fp16: false\n")


def test_an_overlay_may_give_what_a_file_leaves_open(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD + TOKENIZER + TAIL, overlay=TRAINING)
    assert loaded.config.training.learning_rate == 6e-5


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("training.seed", "training.seed"),
        ("한국어", "한국어"),
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        ("\x1b[31m", r"\x1b[31m"),
    ],
)
def test_a_key_stands_on_one_line(key: str, shown: str) -> None:
    other = Problem(Origin.at(Path("y.yaml"), 1), "k", f"found {key}", f"meant {key}")
    lines = problem_lines([Problem(Origin.at(Path(f"{key}.yaml"), 1), key, "f", "m"), other])
    assert [line.isprintable() for line in lines] == [True, True]
    assert f"  {shown}  f → m" in lines[0]
    assert lines[1].endswith(f"found {shown} → meant {shown}")


def test_what_may_be_a_secret_behind_a_sign_is_not_repeated(tmp_path: Path) -> None:
    said = problems_of(tmp_path, f"{WHOLE}HF_TOKEN=hf_secret: 1\n")
    assert [line.split()[1] for line in said] == ["HF_TOKEN=…"]


def test_every_key_has_a_meaning_and_a_type_in_words() -> None:
    for key in schema_keys():
        words, whole = describe_type(key), describe_key(key)
        assert len(whole) > len(words) + 8, key
        assert not set("[]'<class") <= set(words), f"{key}: {words}"
        if "number" in words and "mapping" not in words and "list" not in words:
            assert "≤" in words or "<" in words, key
            assert "≥" in words or ">" in words, key
    assert describe_key("training.warmup_steps").endswith(
        "Steps of rising learning rate; below 1 it is a share of all steps"
    )


ODD = [
    ".inf",
    ".nan",
    "1e308",
    "-1",
    "0",
    "1" + "0" * 18,
    "9" * 6000,
    "-0x" + "f" * 6000,
    "5e-324",
    '""',
    "[]",
    "{a: 1}",
    '"a\\0b"',
    '"\\uD83D"',
    "null",
    "[" * 300 + "]" * 300,
    "&a [*a]",
]


@pytest.mark.parametrize("key", schema_keys())
def test_odd_values_of_every_key_end_in_words(tmp_path: Path, key: str) -> None:
    base, path = tmp_path / "base.yaml", tmp_path / "x.yaml"
    base.write_text(WHOLE, encoding="utf-8")
    for value in ODD:
        path.write_text(f"{CHILD}{key}: {value}\n", encoding="utf-8")
        for paths, overrides in (([path], []), ([base], [f"{key}={value}"])):
            try:
                [loaded] = load_configs(paths, overrides=overrides)
            except ConfigError as error:
                text = str(error)
                said = (("\0" in text), len(text.encode()) < 4000)
                assert said == (False, True), f"{key}: {value[:20]}"
            else:
                json.dumps(loaded.to_record(), allow_nan=False).encode()


INTERPOLATED = [
    ("model.checkpoint", "${oc.env:CKPT}", "${oc.env:CKPT}"),
    ("model.checkpoint", "models/${name}/1", "${name}"),
    ("tokenizer.input_prefix", '"${prompt.prefix}: "', "${prompt.prefix}"),
    ("tokenizer.input_prefix", '"요약 ${"', "${"),
    ("training.learning_rate", "${lr}", "${lr}"),
    ("data.data_dir", "$HOME/data", "$HOME"),
    ("data.train_file", "$(ls data)/x", "$(ls data)"),
    ("qlora.target_modules", "[q, '${layers}']", "${layers}"),
    ("training.lr_scheduler_kwargs", "{num_cycles: '${n}'}", "${n}"),
    ("model.checkpoint", "'{{ checkpoint }}'", "{{ checkpoint }}"),
    ("tokenizer.input_prefix", "'요약: {dialogue}'", "{dialogue}"),
    ("tokenizer.input_prefix", "'요약 $LANG: '", "$LANG"),
    ("data.data_dir", "/data/$USER/x", "$USER"),
    ("general.label", "'run_%(name)s'", "%(name)s"),
]


@pytest.mark.parametrize(("key", "value", "named"), INTERPOLATED)
def test_what_nothing_fills_in_is_refused_once_by_line(
    tmp_path: Path, key: str, value: str, named: str
) -> None:
    [line] = problems_of(tmp_path, f"{CHILD}{key}: {value}\n", base=WHOLE)
    assert line.startswith(f'x.yaml:2 {key} "{named}", which nothing fills in →')
    [line] = problems_of(tmp_path, WHOLE, overrides=[f"{key}={value}"])
    assert line.startswith(f'--set {key} "{named}", which nothing fills in →')


def test_money_and_braces_are_text(tmp_path: Path) -> None:
    for prefix in ("US$ 5: ", "{요약}", "100$", "$5 "):
        text = f"{WHOLE}tokenizer.input_prefix: {json.dumps(prefix)}\n"
        assert load(tmp_path, text).config.tokenizer.input_prefix == prefix


@pytest.mark.parametrize("name", ["..yaml", "...yaml", "nul.yaml", "a\u202eb.yaml"])
def test_a_file_whose_run_could_have_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(WHOLE, encoding="utf-8")
    with pytest.raises(ConfigError, match="no name for the folder of its run"):
        load_config(path)


def test_a_prefix_beyond_the_encoder_is_refused_by_its_characters(tmp_path: Path) -> None:
    for prefix in ("가" * 9000, "word " * 512):
        [said] = problems_of(tmp_path, WHOLE, overrides=[f"tokenizer.input_prefix={prefix}"])
        assert "of which the prefix and the end take all" in said

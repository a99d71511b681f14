"""A fault in a config file hides none of the others, in it or in another file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dialsum.config.load import load_config, load_configs
from dialsum.config.messages import problem_lines
from dialsum.config.yaml import Origin, Problem, parse_yaml, read_yaml
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
WRONG = "generation:\n  num_beam: 4\nfp16: true\n"
"""Stands behind a fault: an unknown key and a broken rule, which must be seen all the same."""


def problems_of(folder: Path, text: str | bytes, *, base: str | None = None) -> list[str]:
    """Return what is said of a file, without the folder."""
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if base is not None:
        (folder / "base.yaml").write_text(base, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [" ".join(line.removeprefix(f"{folder}/").split()) for line in caught.value.problems]


FAULTS: list[tuple[str, str, str]] = [
    ("nothing", WHOLE, ""),
    (
        "a value twice",
        WHOLE + "training.seed: 1\ntraining.seed: 1\n",
        "x.yaml:15 training.seed given again (already in line 14) → keep one of the two; the later"
        " was checked",
    ),
    (
        "a value twice in a section",
        WHOLE.replace("eval_steps: 100\n", "eval_steps: 100\n  seed: 1\n  seed: 2\n"),
        "x.yaml:13 training.seed given again (already in line 12)",
    ),
    (
        "a section twice",
        HEAD + TOKENIZER + TAIL + "training:\n  seed: 1\n" + TRAINING,
        "x.yaml:9 training given again (already in line 7) → one section that holds the keys of"
        " both",
    ),
    (
        "a section emptied",
        WHOLE + "training:\n",
        "x.yaml:14 training given again (already in line 5) → keep one of the two; the earlier"
        " was checked",
    ),
    (
        "a tag",
        WHOLE.replace("learning_rate: ", "learning_rate: !!int "),
        "x.yaml:6 training.learning_rate a tag (!)",
    ),
    (
        "a tag under another spelling",
        WHOLE.replace("learning_rate: ", "lr: !!int "),
        "x.yaml:6 training.lr a tag (!)",
    ),
    ("a tag on a section", WHOLE.replace("qlora:", "qlora: !x"), "x.yaml:12 qlora a tag (!)"),
    ("a tag on a renamed one", WHOLE.replace("qlora:", "lora: !x"), "x.yaml:12 lora a tag (!)"),
    (
        "a tag in a list",
        WHOLE + "  target_modules: [q, !!int v]\n",
        "x.yaml:14 qlora.target_modules a tag (!)",
    ),
    (
        "a tag in a mapping",
        WHOLE + "training.lr_scheduler_kwargs: {power: !!int v}\n",
        "x.yaml:14 training.lr_scheduler_kwargs.power a tag (!)",
    ),
    (
        "a merge key",
        HEAD
        + "tokenizer:\n  <<: {encoder_max_len: 512}\n  decoder_max_len: 128\n"
        + TRAINING
        + TAIL,
        "x.yaml:3 tokenizer.<< a merge key",
    ),
    (
        "an alias",
        WHOLE.replace("model: {", "model: &m {") + "qlora.target_modules: *m\n",
        "x.yaml:1 qlora.target_modules an alias (*)",
    ),
    ("a number as a key", WHOLE + "1: x\n", "x.yaml:14 1 the key '1'"),
    ("a list as a key", WHOLE + "? [a]\n: x\n", "x.yaml:14 a key of parts"),
    (
        "a literal line break",
        HEAD + TOKENIZER + TAIL + r'"training:\\n learning_rate": 6e-5' + "\n",
        r"x.yaml:7 training:\n learning_rate a literal \n (backslash and n) stands in the key",
    ),
    ("a second document", HEAD + WRONG + "---\n" + TAIL, "x.yaml:5 a second document (---)"),
    ("control characters", WHOLE + "\a#\a\n", "x.yaml:14 control character U+0007, the first of 2"),
    ("a tag on extends", WHOLE + "extends: !!int x\n", "x.yaml:14 extends a tag (!)"),
    ("a tag on resolved", WHOLE + "resolved: !!int x\n", "x.yaml:14 resolved a tag (!)"),
    ("a circle", WHOLE + "extends: x.yaml\n", "x.yaml:14 extends a circle"),
]


@pytest.mark.parametrize(
    ("text", "words"), [pytest.param(text, words, id=name) for name, text, words in FAULTS]
)
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


def test_what_a_fault_may_have_given_is_known_again_once_a_later_source_gives_it(
    tmp_path: Path,
) -> None:
    base = WHOLE.replace("decoder_max_len: 128", "decoder_max_len: !!int x")
    text = "extends: base.yaml\ndecoder_max_len: 128\ngeneration.min_new_tokens: 129\n"
    said = problems_of(tmp_path, text, base=base)
    assert [line.split()[0].partition(":")[0] for line in sorted(said)] == ["base.yaml", "x.yaml"]
    assert any("129, above the longest, 128" in line for line in said)


def test_a_broken_base_hides_no_rule_about_the_files_own_keys(tmp_path: Path) -> None:
    text = "extends: base.yaml\nmodel.architecture: mt5\nfp16: true\ngeneral.label: a b\n"
    said = problems_of(tmp_path, text, base="a: [\n")
    assert len(said) == 3
    assert "base.yaml" in said[0]
    assert "fp16: true on mt5" in said[1]
    assert "no space or slash: a_b" in said[2]


def test_every_file_that_names_a_missing_base_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / "x.yaml", tmp_path / "y.yaml"]
    for path in paths:
        path.write_text("extends: zzz.yaml\n")
    with pytest.raises(ConfigError) as caught:
        load_configs(paths)
    assert [line.split()[0] for line in caught.value.problems] == [f"{one}:1" for one in paths]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("encoder_max_len: x\ngeneration.max_new_tokens: 2000\n", "2,000 tokens, but KoBART"),
        ("evaluation.target: {rouge1: 3, minimum: {rouge1: 101}}\n", "rouge1: 101"),
        ("warmup_steps: 1.5\nmax_steps: x\n", "1.5 → whole steps"),
        ("lr: x\nlr_scheduler_kwargs: {lr_end: 2, power: -1}\n", "power: -1"),
        ("use_qlora: x\ntracking: {wandb: false, project: p}\n", "W&B is off"),
    ],
)
def test_a_wrong_value_hides_no_rule_about_another_key(
    tmp_path: Path, more: str, words: str
) -> None:
    base = WHOLE.replace("mt5, checkpoint: a/b", "bart, checkpoint: a/kobart")
    base = base.replace("linear", "polynomial")
    said = problems_of(tmp_path, f"extends: base.yaml\n{more}", base=base)
    assert any(words in line for line in said), said


def test_each_wrong_member_of_a_mapping_is_named_with_its_own_file(tmp_path: Path) -> None:
    text = "extends: base.yaml\nevaluation.target:\n  minimum.rouge9: 1\n  minimum.rouge2: x\n"
    base = WHOLE + "evaluation.target:\n  minimum:\n    rouge1: y\n    rougeL: z\n"
    said = problems_of(tmp_path, text, base=base)
    assert sorted(line.split()[0] for line in said) == [
        "base.yaml:16",
        "base.yaml:17",
        "x.yaml:3",
        "x.yaml:4",
    ]


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


def test_a_line_break_in_a_key_of_a_file_is_shown_as_written(tmp_path: Path) -> None:
    said = problems_of(tmp_path, WHOLE + '"a\\nb": 1\ntraining: {"c\\nd": 2}\n')
    assert [line.split()[1] for line in said if "unknown key" in line] == [
        r"a\nb",
        r"training.c\nd",
    ]


@pytest.mark.parametrize(
    ("text", "value", "whole"),
    [
        ("", None, True),
        ("a: 1", {"a": 1}, True),
        ("a: !x [1]\nb: 2", {"a": None, "b": 2}, False),
        ("a: {b: [1, !!int y]}", {"a": {"b": [1, None]}}, False),
        ("1: x\nb: 2", {"b": 2}, True),
        ("<<: {a: 1}\nb: 2", {"b": 2}, False),
    ],
)
def test_what_could_be_read_is_handed_on(
    tmp_path: Path, text: str, value: Any, whole: bool
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    document = read_yaml(path)
    assert (document.tree.plain(), document.tree.whole()) == (value, whole)
    if not document.problems:
        assert parse_yaml(text, path) == document.tree

"""YAML to values with their places, and back: what is read, what is refused at which line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from config_texts import WHOLE, load, problems_of
from dialsum.config.load import dump_yaml, load_config
from dialsum.config.yaml import Origin, UnreadableError, dump_yaml_text, read_document, show_value
from dialsum.errors import ConfigError

CHILD = "extends: base.yaml\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ('""', ""),
        ("''", ""),
        ("3e-5", 3e-5),
        ("6e-05", 6e-5),
        ("1e3", 1000.0),
        ("1.2e-4", 1.2e-4),
        ("5E-1", 0.5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+2", 2),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("9" * 41, float("inf")),
        ("-" + "9" * 41, float("-inf")),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ('"3e-5"', "3e-5"),
        ("'true'", "true"),
        ("한국어", "한국어"),
        ("[1, 2e1]", [1, 20.0]),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
        ("e5", "e5"),
        ("\n  -", [None]),
        ("3e", "3e"),
        ('"a\\uD83D\\uDE00"', "a\N{GRINNING FACE}"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    tree, problems = read_document(f"key: {text}", Path("x"))
    found = tree.plain()["key"]
    assert (type(found), found, problems) == (type(value), value, [])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\tb: 1\n", 2, "a tab in the indentation"),
        ("a: 1\nb: c: d\n", 2, "a second colon: b: …"),
        ("a:\n    b: 1\n  c: 2\n", 3, "indentation that fits no line above: c: …"),
        ("a: 50\\nb: 100\n", 1, "literal \\n"),
        ("a: 50\n\\n  b: 100\n", 2, "literal \\n"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ('a: "x\n', 2, "not YAML"),
        ("a: *secret\n", 1, "not YAML: found undefined alias"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: " + "[" * 9999 + "]" * 9999, None, "nested too deep"),
    ],
)
def test_what_is_no_plain_yaml_is_named_with_its_line(
    text: str, line: int | None, words: str
) -> None:
    try:
        problems = read_document(text, Path("x.yaml"))[1]
    except UnreadableError as error:
        problems = error.problems
    assert [(p.origin.line, words in p.found) for p in problems] == [(line, True)]
    assert "secret" not in problems[0].found


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "an empty file"),
        (b"# nothing but words\n", "an empty file"),
        (b"- a\n", "x.yaml:1 a list →"),
        (b"3\n", "one number"),
        (b"text\n", "text without any `key: value`"),
        (b"%PDF-1.4", "a PDF document, not a YAML file"),
    ],
)
def test_files_that_are_no_config_say_so(tmp_path: Path, raw: bytes, words: str) -> None:
    [said] = problems_of(tmp_path, raw)
    assert words in said
    assert said.startswith("x.yaml")


def test_of_a_file_of_another_name_nothing_is_quoted(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN: hf_secret\n")
    with pytest.raises(ConfigError, match=r"no config by its name, which ends in \.yaml") as caught:
        load_config(tmp_path / ".env")
    assert "secret" not in str(caught.value)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    loaded = load(tmp_path, b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert loaded.config.training.learning_rate == 6e-5
    assert loaded.origins["training.learning_rate"] == Origin.at(tmp_path / "x.yaml", 6)


ODD_BLANKS = [
    ("tokenizer:\n\u00a0 encoder_max_len: 512\n", 2, "U+00A0 (no-break space)", 1),
    ("tokenizer:\n \u3000encoder_max_len: 512\n", 2, "U+3000 (ideographic space)", 2),
    ("\ufefftokenizer:\n", 1, "U+FEFF (zero width no-break space)", 1),
    ("training:\n  seed\u00a0: 5\n", 2, "U+00A0 (no-break space)", 7),
    ("training:\n  seed:\u2003512\n", 2, "U+2003 (em space)", 8),
    ("training:\n  seed: 512\u200b\n", 2, "U+200B (zero width space)", 12),
    ("training:\n  seed: 512\u00a0# few\n", 2, "U+00A0 (no-break space)", 12),
    ("tokenizer:\n\u00a0\n", 2, "U+00A0 (no-break space)", 1),
    ("training:\n  seed\uff1a 512\n", 1, "U+FF1A (fullwidth colon)", None),
    ("training\uff1a\n  seed: 5\n", 1, "U+FF1A (fullwidth colon)", 9),
    ("qlora.target_modules:\n  -\u00a0q\n", 2, "U+00A0 (no-break space)", 4),
    ("training:\n\u3164 seed: 5\n", 2, "U+3164 (hangul filler)", 1),
    ("training:\n  seed: \u2800512\n", 2, "U+2800 (braille pattern blank)", 9),
    ("training:\n  seed:\ufe0f512\n", 2, "U+FE0F (variation selector-16)", 8),
    ("training:\n  seed: 5\U000e0020\n", 2, "U+E0020 (tag space)", 10),
    ("training:\n  seed: 5\u2062\r\n", 2, "U+2062 (invisible times)", 10),
    ("training:\n  se\u200bed: 5\n", 2, "U+200B (zero width space)", 5),
    ("tokenizer.input_prefix: a\u00a0b\n", 1, "U+00A0 (no-break space)", 26),
    ("training:\n  seed: 1 # a\u2028b\n", 2, "control character U+2028", None),
    ("general.label: a\x85b\n", 1, "control character U+0085", None),
    ("tokenizer.input_prefix: |\n  a\u2029b\n", 2, "control character U+2029", None),
    ("training:\n  seed\u2236 5\n", 1, "U+2236 (ratio)", None),
    ("evaluation.target.rouge1: [18,\u00a022]\n", 1, "U+00A0 (no-break space)", 31),
    ("evaluation.target.minimum: {rouge1\uff1a25}\n", 1, "U+FF1A (fullwidth colon)", 35),
    ("{training.seed: 1,\n training.max_steps\uff1a 3}\n", 2, "U+FF1A (fullwidth colon)", 20),
]


@pytest.mark.parametrize(("text", "number", "words", "column"), ODD_BLANKS)
def test_odd_blanks_and_colons_are_named_where_they_stand(
    tmp_path: Path, text: str, number: int, words: str, column: int | None
) -> None:
    head = "# a comment\u00a0may hold them\n" + CHILD * (text[0] != "{")
    every = problems_of(tmp_path, head + text, base=WHOLE)
    [said] = [line for line in every if words in line]
    assert said.startswith(f"x.yaml:{number + head.count(chr(10))} ")
    assert column is None or f" in column {column} →" in said
    assert not any(said in line for line in every for said in ("second colon", "not YAML"))


@pytest.mark.parametrize(
    "value",
    [
        '"\u3000요약\u00a0"',
        "|\n    \u3000요약\n     \u00a0둘\n    a\uff1ab\n",
        "'요\u3000약：' # ❤\ufe0f",
        "요약：a ❤\ufe0f",
    ],
)
def test_odd_blanks_in_quotes_and_blocks_are_text(tmp_path: Path, value: str) -> None:
    text = WHOLE.replace("tokenizer:\n", f"tokenizer:\n  input_prefix: {value}\n")
    prefix = load(tmp_path, text).config.tokenizer.input_prefix
    assert any(char in prefix for char in "\u3000\ufe0f")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    text = CHILD + "# a\u2028b\x85c\u2029d\nsed: 1\n"
    odd, unknown = problems_of(tmp_path, text, base=WHOLE)
    assert odd.startswith("x.yaml:2 control character U+2028, the first of 3")
    assert unknown.startswith("x.yaml:3 sed unknown key")


@pytest.mark.parametrize("blank", ["\v", "\f", "\x01"])
def test_what_a_forbidden_character_leaves_is_no_second_problem(tmp_path: Path, blank: str) -> None:
    text = f"{CHILD}training:\n{blank} seed: 1\n{blank}{blank} a: 1\n    b: 1\n"
    [said] = problems_of(tmp_path, text, base=WHOLE)
    assert said.startswith(f"x.yaml:3 control character U+{ord(blank):04X}, the first of 3")


@pytest.mark.parametrize("half", ['"a\\uD83D"', '"\\uDE00\\uD83D"'])
def test_half_a_character_is_an_error(tmp_path: Path, half: str) -> None:
    [line] = problems_of(tmp_path, f"{CHILD}general.label: {half}\n", base=WHOLE)
    assert line.startswith("x.yaml:2 general.label half a character (U+")


@pytest.mark.parametrize("more", ["", "qlora.use_qlora: false\n"])
def test_a_dumped_config_loads_to_the_same(tmp_path: Path, more: str) -> None:
    nasty = '요약: "하세요" # \\ a'
    text = WHOLE.replace("qlora:\n  use_qlora: true\n", more) if more else WHOLE
    one = load(tmp_path, f"{text}tokenizer.input_prefix: {dump_yaml_text([nasty])[2:]}\n")
    assert one.config.tokenizer.input_prefix == nasty
    again = load(tmp_path, dump_yaml(one.config))
    assert (again.config, again.sha256, again.notes) == (one.config, one.sha256, [])


NASTY_TEXTS = ["", " ", "yes", "3e-5", "1e3", "~", "null", "x: y", "#a", "010", "1:30", "\n"]
NASTY_TEXTS += ["a\nb", "\\n", "0x1f", ".5", "2024-01-01", "'", '"', "=", "<<", "1_000", ".inf"]
NASTY_TEXTS += ["\x85", "\u2028x", "😀", "\r", "\t", "a" * 300, "a " * 100]


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_dumped_text_reads_back_under_both_versions_of_yaml(text: str) -> None:
    for written in (dump_yaml_text({"key": [text]}), f"key: {json.dumps([text])}"):
        assert read_document(written, None)[0].plain() == {"key": [text]}
    assert yaml.safe_load(dump_yaml_text({"key": [text]})) == {"key": [text]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", "''"),
        ("a", "a"),
        ("요약: ", "'요약: '"),
        ("yes", "'yes'"),
        ("a\nb", '"a\\nb"'),
        ("a b " * 15 + "c", "a b " * 15 + "c"),
        (None, "null"),
        (True, "true"),
        (6e-5, "6e-05"),
        ([1, "a"], "[1, a]"),
        ({"a": "no"}, "{a: 'no'}"),
    ],
)
def test_values_are_shown_on_one_line_as_they_would_be_written(value: Any, shown: str) -> None:
    assert show_value(value) == shown
    assert yaml.safe_load(shown) == value or value == 6e-5

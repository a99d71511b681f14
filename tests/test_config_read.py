"""Config files to values: YAML with lines, inheritance, overlays, --set, origins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.config.load import LoadedConfig, dump_yaml, load_config, load_configs
from dialsum.config.yaml import Origin, YamlError, dump_yaml_text, parse_yaml
from dialsum.errors import ConfigError

EXPERIMENT = """\
model: {architecture: mt5, checkpoint: a/b}
tokenizer:
  encoder_max_len: 512
  decoder_max_len: 128
training:
  learning_rate: 6e-5
  num_train_epochs: 4
  per_device_train_batch_size: 6
  gradient_accumulation_steps: 4
  lr_scheduler_type: linear
  eval_steps: 100
qlora:
  use_qlora: true
"""


def write(folder: Path, **files: str) -> Path:
    """Write NAME.yaml for each keyword; return the first file."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def load(folder: Path, more: str = "", *, overrides: tuple[str, ...] = ()) -> LoadedConfig:
    """Load EXPERIMENT with more text behind it."""
    return load_config(write(folder, x=EXPERIMENT + more), overrides=overrides)


def refusal(folder: Path, text: str) -> str:
    """Return what is said of a file that is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, x=text))
    return str(caught.value)


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
        ("-", [None]),
        ("3e", "3e"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}" if text != "-" else "key:\n  -", Path("x")).plain()["key"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given again (already in line 1)"),
        ("a:\n  b: 1\n  b: 1\n", 3, "given again (already in line 2)"),
        ("a:\n\tb: 1\n", 2, "a tab in the indentation"),
        ("a: 1\nb: c: d\n", 2, "a second colon"),
        ("a:\n    b: 1\n  c: 2\n", 3, "indentation"),
        ("a: 50\\nb: 100\n", 1, "literal \\n"),
        ("a: 50\n\\n  b: 100\n", 2, "literal \\n"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ('a: "x\n', 2, "not YAML"),
        ("a: 1\n---\nb: 1\n", 2, "second document"),
        ("a: &a {b: *a}\n", 1, "alias"),
        ("a: &a [1]\nb: *a\n", 1, "alias"),
        ("a: 1\n<<: {b: 1}\n", 2, "merge key"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: 1\nb: !mine {c: 1}\n", 2, "tag"),
        ("a: !!int x\n", 1, "tag"),
        ("1: x\n", 1, "the key '1'"),
        ("? [a]\n: x\n", 1, "a key of parts"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
    ],
)
def test_what_is_no_plain_yaml_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text, Path("x.yaml"))
    assert [(p.origin.line, words in p.found) for p in caught.value.problems] == [(line, True)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "an empty file"),
        (b"# nothing but words\n", "an empty file"),
        (b"- a\n", "1  a list →"),
        (b"text\n", "text without any `key: value`"),
        (b"a: " + b"[" * 9999 + b"]" * 9999, "nested too deep"),
        ((EXPERIMENT + "label: 한국어\n").encode("cp949"), "cp949 (EUC-KR)"),
        (EXPERIMENT.encode() + b"label: \xff\xff\xff\n", "byte 0xff, which is not UTF-8"),
        (EXPERIMENT.encode("utf-16"), "UTF-16"),
    ],
)
def test_files_that_are_no_config_say_so(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="1 problem found") as caught:
        load_config(path)
    assert words in caught.value.problems[0]
    assert str(path) in caught.value.problems[0]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + EXPERIMENT.replace("\n", "\r\n").encode())
    loaded = load_config(path)
    assert loaded.config.training.learning_rate == 6e-5
    assert loaded.origins["training.learning_rate"] == Origin.at(path, 6)


def test_a_missing_file_names_the_near_ones(tmp_path: Path) -> None:
    write(tmp_path, ultimate=EXPERIMENT, other=EXPERIMENT)
    with pytest.raises(ConfigError) as caught:
        load_configs([tmp_path / "ultimat.yaml", tmp_path / "zzz.yaml", tmp_path])
    near, far, folder = caught.value.problems
    assert near.endswith(f"no such file → did you mean {tmp_path / 'ultimate.yaml'}?")
    assert far.endswith("the files there are other.yaml, ultimate.yaml")
    assert folder.endswith("is a folder → one file in it: other.yaml, ultimate.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, x=EXPERIMENT)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(path)


def test_inheritance_goes_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, base="training: {seed: 1, weight_decay: 0.1, max_grad_norm: 2}\n")
    write(tmp_path, middle="extends: base.yaml\ntraining:\n  seed: 2\n  weight_decay: 0.2\n")
    path = write(
        tmp_path / "sub",
        x="extends: ../middle.yaml\n" + EXPERIMENT + "\ngeneral:\ntraining.seed: 3\n",
    )
    loaded = load_config(path)
    training, origins = loaded.config.training, loaded.origins
    assert (training.seed, training.weight_decay, training.max_grad_norm) == (3, 0.2, 2.0)
    assert origins["training.seed"] == Origin.at(path, 17)
    assert origins["training.weight_decay"] == Origin.at(tmp_path / "middle.yaml", 4)
    assert origins["training.max_grad_norm"] == Origin.at(tmp_path / "base.yaml", 1)
    assert origins["training.bf16"].text == "default"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"x": "extends: x.yaml\n"}, "a circle: "),
        (
            {"x": "extends: y.yaml\n", "y": "a: 1\nextends: x.yaml\n"},
            "y.yaml:2  extends  a circle: ",
        ),
        (
            {"x": "extends: bass.yaml\n", "base": "general:\n"},
            "bass.yaml no such file → did you mean ",
        ),
        ({"x": "extends: .\n"}, "is a folder"),
        ({"x": "extends: [a.yaml, b.yaml]\n"}, "[a.yaml, b.yaml] → one file name"),
        ({"x": "extends:\n"}, "nothing → one file name"),
        ({"x": "cases: []\n"}, "config/demo/NAME.yaml"),
        ({"x": "resolved: maybe\n"}, "resolved"),
    ],
)
def test_broken_inheritance_is_named_at_its_line(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, **files))
    assert any(words in problem for problem in caught.value.problems), caught.value


def test_what_a_broken_base_would_have_given_is_not_missed_too(tmp_path: Path) -> None:
    files = {"x": "extends: base.yaml\nqlora:\n  use_qlora: maybe\n", "base": "a: [\n"}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, **files))
    first, second = caught.value.problems
    assert "base.yaml" in first
    assert "not YAML" in first
    assert "x.yaml:3" in second
    assert "true or false" in second


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.learning_rate=3e-5", "training.learning_rate", 3e-5),
        ("lr=1e-4", "training.learning_rate", 1e-4),
        ("qlora.target_modules=[q, v]", "qlora.target_modules", ["q", "v"]),
        ("training.save_steps=null", "training.save_steps", None),
        ("tokenizer.input_prefix=요약: ", "tokenizer.input_prefix", "요약: "),
        ("tokenizer.input_prefix=- a", "tokenizer.input_prefix", "- a"),
        ("tokenizer.input_prefix=a # b", "tokenizer.input_prefix", "a # b"),
        ("tokenizer.input_prefix=a=b: [", "tokenizer.input_prefix", "a=b: ["),
        ("tokenizer.input_prefix= ", "tokenizer.input_prefix", " "),
        ("tokenizer.input_prefix=''", "tokenizer.input_prefix", ""),
        ('general.label="7"', "general.label", "7"),
        (" training.seed = 7", "training.seed", 7),
        (
            "evaluation.target.minimum.rouge1=30",
            "evaluation.target.minimum",
            {"rouge1": 30.0, "rougeL": 2.0},
        ),
        ("evaluation.target.minimum={}", "evaluation.target.minimum", {}),
    ],
)
def test_a_set_value_wins_over_every_file(
    tmp_path: Path, override: str, key: str, value: Any
) -> None:
    more = "evaluation: {target: {minimum: {rouge1: 1, rougeL: 2}}}\n"
    loaded = load(tmp_path, more, overrides=(override,))
    found: Any = loaded.config
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert loaded.origins[key].text == "--set"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("", "key=value"),
        ("foo", "key=value"),
        ("=3", "key=value"),
        ("training..seed=3", "key=value"),
        ("trainig.seed=3", "did you mean the section training?"),
        ("training.sed=3", "did you mean seed?"),
        ("training.seed=x", 'the text "x" → a whole number'),
        ("training.seed=", "nothing → a whole number"),
        ("training=3", "a section"),
        ("evaluation.target.minimum.rouge9=1", "a mapping of rouge1, rouge2 or rougeL to numbers"),
    ],
)
def test_a_wrong_set_is_said(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"--set") as caught:
        load(tmp_path, overrides=(override,))
    assert words in str(caught.value)


def test_of_two_sets_the_later_wins_and_that_is_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, overrides=("training.seed=1", "seed=2"))
    assert loaded.config.training.seed == 2
    assert "--set seed 2 wins over training.seed 1, given before it" in loaded.notes


def test_a_wrong_set_is_said_though_a_later_one_wins(tmp_path: Path) -> None:
    sets = ("training.learning_rate=fast", "learning_rate=-1", "training.learning_rate=1e-4")
    with pytest.raises(ConfigError, match=r"--set") as caught:
        load(tmp_path, overrides=sets)
    assert "fast" in str(caught.value)


LOWER = "training: {learning_rate: 5e-4, logging_steps: 7, num_train_epochs: 9}\n"
OVERLAY = """\
training:
  num_train_epochs: 20
extends: lower.yaml
"""


def test_what_an_overlay_replaced_stands_beside_the_original(tmp_path: Path) -> None:
    path = write(tmp_path, x=EXPERIMENT, over=OVERLAY, lower=LOWER)
    over, lower = tmp_path / "over.yaml", tmp_path / "lower.yaml"
    loaded = load_config(path, overlays=[over])
    assert [(r.key, r.original, r.value, r.origin) for r in loaded.replaced] == [
        ("training.learning_rate", 6e-5, 5e-4, Origin.at(lower, 1)),
        ("training.num_train_epochs", 4, 20, Origin.at(over, 2)),
        ("training.logging_steps", 50, 7, Origin.at(lower, 1)),
    ]
    assert load_config(path).replaced == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty file"),
        ("extends: none.yaml\n", "no such file"),
        ("cases: [{when: {qlora.use_qlora: true}}]\n", "config/demo/NAME.yaml"),
        ("training.sed: 1\n", "did you mean seed?"),
    ],
)
def test_a_broken_overlay_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, x=EXPERIMENT, over=text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overlays=[tmp_path / "over.yaml"])
    assert len(caught.value.problems) == 1
    assert words in caught.value.problems[0]


def test_equal_values_have_equal_hashes_wherever_they_stand(tmp_path: Path) -> None:
    one = load(tmp_path)
    same = load(tmp_path, "training.seed: 42  # the default, stated\n")
    other = load(tmp_path, overrides=("training.seed=43",))
    assert one.sha256 == same.sha256 != other.sha256
    assert len(one.sha256) == 64


@pytest.mark.parametrize("more", ["", "qlora.use_qlora: false\n"])
def test_a_dumped_config_loads_to_the_same(tmp_path: Path, more: str) -> None:
    text = EXPERIMENT.replace("qlora:\n  use_qlora: true\n", more or "qlora:\n  use_qlora: true\n")
    nasty = '요약: "하세요" # \\ a'
    path = write(tmp_path, x=text + f"tokenizer.input_prefix: {dump_yaml_text([nasty])[2:]}\n")
    config = load_config(path).config
    assert config.tokenizer.input_prefix == nasty
    again = load_config(write(tmp_path, resolved_config=dump_yaml(config)))
    assert again.config == config
    assert again.notes == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yes",
        "3e-5",
        "1e3",
        "~",
        "null",
        "x: y",
        "#a",
        "010",
        "1:30",
        "\n",
        "a\nb",
        "\\n",
        "0x1f",
        ".5",
        "2024-01-01",
        "'",
        '"',
        "=",
        "<<",
        "1_000",
        ".inf",
        "\x85",
        "\u2028x",
        "😀",
        "\r",
        "\t",
        "a" * 300,
    ],
)
def test_dumped_text_reads_back_under_both_versions_of_yaml(text: str) -> None:
    dumped = dump_yaml_text({"key": [text]})
    assert parse_yaml(dumped, Path("x")).plain() == {"key": [text]}
    assert yaml.safe_load(dumped) == {"key": [text]}


def test_reading_starts_no_fuzzy_matcher_while_nothing_is_wrong(repository: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dialsum.config.load import load_config;"
        "overlays = [Path('config/demo.yaml')];"
        "load_config(Path('config/experiments/01_mt5_xlsum.yaml'), overlays=overlays);"
        "print('rapidfuzz' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(repository / "code")},
    )
    assert done.stdout.strip() == "False"

"""Values that no run could mean, in files and on command lines: words, never a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batch_world import REPOSITORY, make_options, write_configs
from dialsum.batch.check import check_plan
from dialsum.batch.screen import EventFile
from dialsum.cli import CommandLine
from dialsum.config.load import load_config, load_configs
from dialsum.config.messages import describe_type
from dialsum.config.schema import schema_keys
from dialsum.errors import ConfigError, RunError, UnfitError
from dialsum.experiment.resume import ResumePoint, find_resume_point, reopen_run
from dialsum.paths import NAME_BYTES, RunPaths, find_name_fault
from dialsum.record import read_record
from dialsum.train.checkpoints import MANIFEST, TENSORS, find_damage, seal_checkpoint
from test_config_faults import HEAD, TAIL, TOKENIZER, TRAINING, WHOLE, problems_of
from test_plan import plan_of

DEMO = REPOSITORY / "config" / "demo.yaml"
ODD = [
    ".inf",
    ".nan",
    "1e308",
    "-1",
    "0",
    "1" + "0" * 18,
    "9" * 6000,
    "0x" + "f" * 6000,
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
        path.write_text(f"extends: base.yaml\n{key}: {value}\n", encoding="utf-8")
        for paths, overrides in (([path], []), ([base], [f"{key}={value}"])):
            try:
                [loaded] = load_configs(paths, overrides=overrides)
            except ConfigError as error:
                text = str(error)
                said = (("\0" in text), len(text.encode()) < 4000)
                assert said == (False, True), f"{key}: {value[:20]}"
            else:
                json.dumps(loaded.to_record(), allow_nan=False).encode()


def test_every_number_has_both_bounds() -> None:
    for key, field in schema_keys().items():
        said = describe_type(field)
        if "number" in said and "mapping" not in said and "list" not in said:
            assert "≤" in said or "<" in said, key
            assert "≥" in said or ">" in said, key


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
    text = "extends: base.yaml\n" + f"{key}: {value}\n"
    [line] = problems_of(tmp_path, text, base=WHOLE)
    assert line.startswith(f'x.yaml:2 {key} "{named}", which nothing fills in →')
    with pytest.raises(ConfigError, match="which nothing fills in") as caught:
        load_config(tmp_path / "base.yaml", overrides=[f"{key}={value}"])
    assert [one.split()[0] for one in caught.value.problems] == ["--set"]


def test_money_and_braces_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for prefix in ("US$ 5: ", "{요약}", "100$", "$5 "):
        path.write_text(WHOLE + f"tokenizer.input_prefix: {json.dumps(prefix)}\n")
        assert load_config(path).config.tokenizer.input_prefix == prefix


BELOW = [
    ("learning_rate: 6e-5", "learning_rate: fast", "training.learning_rate"),
    ("learning_rate: 6e-5", "learning_rate: -1", "training.learning_rate"),
    ("train_batch_size: 6", "train_batch_size: 0", "training.per_device_train_batch_size"),
    ("eval_steps: 100", "eval_steps: 100\n  fp16: true", "training.fp16"),
]


@pytest.mark.parametrize(("was", "wrong", "key"), BELOW)
@pytest.mark.parametrize("over", ["demo", "--set", "file"])
def test_what_lies_over_a_wrong_value_does_not_hide_it(
    tmp_path: Path, was: str, wrong: str, key: str, over: str
) -> None:
    path, top = tmp_path / "x.yaml", tmp_path / "top.yaml"
    path.write_text(WHOLE.replace(was, wrong), encoding="utf-8")
    right = {"training.fp16": "false", "training.learning_rate": "1e-3"}.get(key, "4")
    top.write_text(f"extends: x.yaml\n{key}: {right}\n", encoding="utf-8")
    overlay = tmp_path / "over.yaml"
    overlay.write_text(f"{key}: {right}\n", encoding="utf-8")
    if over != "demo" and key == "training.fp16":
        # Two keys that do not fit together are put right by a later source, as they should be.
        load_config(path, overrides=[f"{key}={right}"])
        return
    with pytest.raises(ConfigError) as caught:
        if over == "demo":
            load_config(path, overlays=[overlay])
        elif over == "--set":
            load_config(path, overrides=[f"{key}={right}"])
        else:
            load_config(top)
    [problem] = caught.value.problems
    line = WHOLE[: WHOLE.index(was)].count("\n") + wrong.count("\n") + 1
    assert f"x.yaml:{line} " in problem
    assert key in problem


def test_an_overlay_may_give_what_a_file_leaves_open(tmp_path: Path) -> None:
    path, overlay = tmp_path / "x.yaml", tmp_path / "over.yaml"
    path.write_text(HEAD + TOKENIZER + TAIL, encoding="utf-8")
    overlay.write_text(TRAINING, encoding="utf-8")
    assert load_config(path, overlays=[overlay]).config.training.learning_rate == 6e-5


SPACES = [
    ("tokenizer:\n\u00a0 encoder_max_len: 512\n", 2, "U+00A0 (no-break space) in the ind", 1),
    ("tokenizer:\n \u3000encoder_max_len: 512\n", 2, "U+3000 (ideographic space) in the ind", 2),
    ("\ufefftokenizer:\n", 1, "U+FEFF (zero width no-break space) in the indentation", 1),
    ("tokenizer:\n  vocab_size\u00a0: 5\n", 2, "U+00A0 (no-break space) in the line", 13),
    ("tokenizer:\n  vocab_size:\u2003512\n", 2, "U+2003 (em space) in the line", 14),
    ("tokenizer:\n  vocab_size: 512\u200b\n", 2, "U+200B (zero width space) in the line", 18),
    ("tokenizer:\n  vocab_size: 512\u00a0# few\n", 2, "U+00A0 (no-break space) in the line", 18),
    ("tokenizer:\n\u00a0\n", 2, "U+00A0 (no-break space) in the indentation", 1),
    ("tokenizer:\n  vocab_size\uff1a 512\n", 2, "U+FF1A (fullwidth colon) after the key", 13),
    ("tokenizer\uff1a\n  vocab_size: 5\n", 1, "U+FF1A (fullwidth colon) after the key", 10),
    ("qlora.target_modules:\n  -\u00a0q\n", 2, "U+00A0 (no-break space) in the indentation", 4),
    ("tokenizer:\n\u3164 vocab_size: 5\n", 2, "U+3164 (hangul filler) in the indentation", 1),
    ("tokenizer:\n  vocab_size:\uffa0512\n", 2, "U+FFA0 (halfwidth hangul filler) in the line", 14),
    ("tokenizer:\n  vocab_size: \u2800512\n", 2, "U+2800 (braille pattern blank) in the l", 15),
    ("tokenizer:\n  vocab_size: 512\u1160\n", 2, "U+1160 (hangul jungseong filler) in the l", 18),
    ("tokenizer:\n\u115f vocab_size: 512\n", 2, "U+115F (hangul choseong filler) in the i", 1),
    ("tokenizer:\n  vocab_size:\u180e512\n", 2, "U+180E (mongolian vowel separator) in the", 14),
    ("tokenizer:\n  vocab_size:\u180b512\n", 2, "U+180B (mongolian free variation selector", 14),
    ("tokenizer:\n  vocab_size:\ufe0f512\n", 2, "U+FE0F (variation selector-16) in the line", 14),
    ("tokenizer:\n  vocab_size: 5\U000e0020\n", 2, "U+E0020 (tag space) in the line", 16),
    ("tokenizer:\n  vocab_size: 5\u2062\r\n", 2, "U+2062 (invisible times) in the line", 16),
    ("tokenizer:\n  vocab\u200b_size: 5\n", 2, "U+200B (zero width space) in the line", 8),
    ("tokenizer.input_prefix: a\u00a0b\u00a0\n", 1, "U+00A0 (no-break space) in the l", 28),
    ("training:\n  seed: 1 # a\u2028b\n", 2, "U+2028 (line separator) inside the line", 14),
    ("general.label: a\x85b\n", 1, "U+0085 (next line) inside the line", 17),
    ("tokenizer.input_prefix: |\n  a\u2029b\n", 2, "U+2029 (paragraph separator) inside the l", 4),
    ('tokenizer:\n  "vocab_size"\uff1a 5\n', 2, "U+FF1A (fullwidth colon) after the key", 15),
    ("tokenizer:\n  vocab_size\ufe55 5\n", 2, "U+FE55 (small colon) after the key", 13),
    ("tokenizer:\n  vocab_size\u2236 5\n", 2, "U+2236 (ratio) after the key", 13),
    ("tokenizer:\n  vocab_size\ua789 5\n", 2, "U+A789 (modifier letter colon) after the key", 13),
    ("evaluation.target.rouge1: [18,\u00a022]\n", 1, "U+00A0 (no-break space) in the line", 31),
    ("evaluation.target.rouge1: [18,\n  22\u00a0,\n]\n", 2, "U+00A0 (no-break space) in the l", 5),
    ("evaluation.target.minimum: {rouge1\uff1a25}\n", 1, "U+FF1A (fullwidth colon) after", 35),
    ("evaluation.target.minimum: {rouge1:\u00a025}\n", 1, "U+00A0 (no-break space) in the l", 36),
    ("{training.seed: 1,\n training.max_steps\uff1a 3}\n", 2, "U+FF1A (fullwidth colon) after", 20),
]


@pytest.mark.parametrize(("text", "number", "words", "column"), SPACES)
def test_odd_spaces_are_named_where_they_stand(
    tmp_path: Path, text: str, number: int, words: str, column: int
) -> None:
    head = "# a comment\u00a0may hold them\n" + "extends: base.yaml\n" * (text[0] != "{")
    every = problems_of(tmp_path, head + text, base=WHOLE)
    said = [line for line in every if "U+" in line]
    assert len(said) == 1
    assert said[0].startswith(f"x.yaml:{number + head.count(chr(10))} {words}")
    assert f"column {column} →" in said[0]
    assert not any(words in line for line in every for words in ("second colon", "not YAML"))


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    text = "extends: base.yaml\n# a\u2028b\x85c\u2029d\nsed: 1\n"
    odd, unknown = problems_of(tmp_path, text, base=WHOLE)
    assert odd.startswith("x.yaml:2 U+2028 (line separator) inside the line, column 4")
    assert unknown.startswith("x.yaml:3 sed unknown key")


@pytest.mark.parametrize("blank", ["\v", "\f", "\x01"])
def test_what_a_forbidden_character_leaves_is_no_second_problem(tmp_path: Path, blank: str) -> None:
    text = f"extends: base.yaml\ntraining:\n{blank} seed: 1\n{blank}{blank} a: 1\n    b: 1\n"
    [said] = problems_of(tmp_path, text, base=WHOLE)
    assert said.startswith(f"x.yaml:3 control character U+{ord(blank):04X}, the first of 3")


def test_odd_spaces_inside_a_text_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    block = "|\n    \u3000요약\n     \u00a0둘\n    a\uff1ab\n"
    emoji = "'요\u3000약：' # ❤\ufe0f"
    texts = ("요\u3000약 [a,\u3000b]\uff1a ❤\ufe0f", "it's a\u3000b 'c", "요약\uff1a\u3000a")
    for value in ('"\u3000요약\u00a0"', "요\u3000약", block, emoji, *texts):
        path.write_text(WHOLE.replace("tokenizer:\n", f"tokenizer:\n  input_prefix: {value}\n"))
        assert "\u3000" in load_config(path).config.tokenizer.input_prefix


NAMES = [
    ("a", True),
    ("01_mT5.v2 (재현)", True),
    ("가" * 66, True),
    ("가" * 67, False),
    ("x" * NAME_BYTES, True),
    ("x" * (NAME_BYTES + 1), False),
    ("", False),
    (".", False),
    ("..", False),
    ("...", False),
    (".hidden", False),
    ("a.", False),
    ("a ", False),
    ("a/b", False),
    ("a\\b", False),
    ("a\0", False),
    ("a\nb", False),
    ("a\x9b", False),
    ("a\u202eb", False),
    ("nul", False),
    ("CON.yaml", False),
    ("console", True),
    ("com1", False),
    ("a:b", False),
    ("what?", False),
    ("\udcb0\udca1", False),
    ("x" * 1_000_000, False),
]


@pytest.mark.parametrize(("name", "good"), NAMES, ids=lambda value: repr(value)[:20])
def test_a_name_is_one_that_every_usual_file_system_has(name: str, good: bool) -> None:
    assert (find_name_fault(name) is None) == good


@pytest.mark.parametrize("name", ["a", "가" * 66, "x" * NAME_BYTES], ids=len)
def test_the_longest_files_of_the_longest_name_can_be_made(tmp_path: Path, name: str) -> None:
    for made in (name, f".experiment_1234_{name}.attempt_123.job.json.abcdefgh.tmp"):
        (tmp_path / made).write_text("x")


@pytest.mark.parametrize("name", ["..yaml", "...yaml", "nul.yaml", "a\u202eb.yaml"])
def test_a_file_whose_run_could_have_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(WHOLE, encoding="utf-8")
    with pytest.raises(ConfigError, match="no name for the folder of its run"):
        load_config(path)


@pytest.mark.parametrize("label", ["가" * 100, "x" * 900_000, "a/b", "", ".", "a b", "nul"])
def test_a_label_that_no_log_can_have_is_refused_with_one_that_can(
    tmp_path: Path, label: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WHOLE + f"general.label: {json.dumps(label, ensure_ascii=False)}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    [problem] = caught.value.problems
    assert "log files are named by it" in problem
    better = problem.rpartition("no space or slash: ")[2]
    assert find_name_fault(better) is None
    assert len(problem) < 1000


def test_two_halves_are_an_emoji_and_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WHOLE + 'general.label: "a\\uD83D\\uDE00"\n', encoding="utf-8")
    assert load_config(path).config.general.label == "a\N{GRINNING FACE}"
    for wrong in ('"a\\uD83D"', '"\\uDE00\\uD83D"'):
        text = "extends: base.yaml\n" + f"general.label: {wrong}\n"
        [line] = problems_of(tmp_path, text, base=WHOLE)
        assert line.startswith("x.yaml:2 general.label half a character (U+")


def test_words_that_came_as_other_bytes_are_refused() -> None:
    parser = CommandLine(prog="x.py")
    parser.add_argument("--config")
    word = os.fsdecode("설정.yaml".encode("cp949"))
    with pytest.raises(UnfitError, match="no UTF-8"):
        parser.parse_args(["--config", word])
    assert parser.parse_args(["--config", "설정.yaml"]).config == "설정.yaml"


def test_foreign_code_is_said_loudly_with_its_line(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b")
    assert "WARNING" not in "".join(check_plan(plan_of(options)).notes)
    text = options.configs[1].read_text(encoding="utf-8")
    line = "  trust_remote_code: true\n"
    options.configs[1].write_text(text.replace("model:\n", f"model:\n{line}"), encoding="utf-8")
    [note] = [note for note in check_plan(plan_of(options)).notes if "WARNING" in note]
    assert "b.yaml:7 model.trust_remote_code: true" in note
    assert "will run as you" in note


LENGTHS = [
    ("training.warmup_steps=100000", "1 L_a: training.warmup_steps 100,000: the run has 8", True),
    ("training.warmup_steps=8", "peak learning rate is never reached", True),
    ("training.eval_steps=5000", "training.eval_steps 5,000: the run has 8 optimizer", False),
]


@pytest.mark.parametrize(("override", "words", "refused"), LENGTHS)
def test_steps_beyond_the_run_are_said_before_it(
    tmp_path: Path, override: str, words: str, refused: bool
) -> None:
    findings = check_plan(plan_of(make_options(tmp_path, "a", overrides=(override,))))
    assert any(words in line for line in findings.problems) == refused
    assert any(words in line for line in findings.notes) == (not refused)
    fitting = make_options(tmp_path, "a", overrides=("training.eval_steps=8",))
    text = "".join((found := check_plan(plan_of(fitting))).problems + found.notes)
    assert "the run has" not in text


def test_more_restarts_than_steps_are_refused_before_the_run(tmp_path: Path) -> None:
    for cycles, refused in ((8, False), (9, True)):
        overrides = (
            "training.lr_scheduler_type=cosine_with_restarts",
            f"training.lr_scheduler_kwargs={{num_cycles: {cycles}}}",
        )
        problems = check_plan(plan_of(make_options(tmp_path, "a", overrides=overrides))).problems
        assert ("num_cycles 9: the run has 8 optimizer" in "".join(problems)) == refused


def test_the_demo_takes_a_file_with_steps_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    text = WHOLE.replace("eval_steps: 100", "eval_steps: 50\n  save_steps: 150\n  max_steps: 900")
    path.write_text(text, encoding="utf-8")
    assert load_config(path).config.training.save_steps == 150
    demo = load_config(path, overlays=[DEMO]).config.training
    assert (demo.save_steps, demo.max_steps) == (None, None)


def test_a_prefix_beyond_the_encoder_is_refused_by_its_characters(tmp_path: Path) -> None:
    [path] = write_configs(tmp_path, "a")
    for prefix in ("가" * 5000, "word " * 70):
        with pytest.raises(ConfigError, match="of which the prefix and the end take all"):
            load_config(path, overrides=[f"tokenizer.input_prefix={prefix}"])


def make_interrupted_run(folder: Path) -> tuple[RunPaths, ResumePoint]:
    """Write a run that was killed after its checkpoint of step 1."""
    paths = RunPaths.alone(folder)
    checkpoint = paths.checkpoints / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / TENSORS).write_text("1")
    seal_checkpoint(checkpoint, config_sha256="c", data_sha256="d")
    return paths, find_resume_point(paths, config_sha256="c", data_sha256="d")


def test_resume_drops_an_event_that_broke_off_within_a_character(tmp_path: Path) -> None:
    paths, point = make_interrupted_run(tmp_path)
    whole = '{"event": "train", "step": 1, "text": "요약\u2028"}\n'.encode()
    torn = '{"event": "warning", "message": "손'.encode()[:-1]
    paths.metrics.write_bytes(whole + torn)
    reopen_run(paths, point, first={})
    assert paths.metrics.read_bytes() == whole


def test_resume_refuses_a_pipe_in_place_of_the_events(tmp_path: Path) -> None:
    paths, point = make_interrupted_run(tmp_path)
    os.mkfifo(paths.metrics)
    with pytest.raises(UnfitError, match=r"metrics\.jsonl: cannot be read: is a pipe.*move it"):
        reopen_run(paths, point, first={})
    assert EventFile(paths.metrics).read_new() == []


DAMAGED = ["", "{", "[]", "3", "null", "[" * 100_000, '{"files": 3}', '{"files": {"a": {}}}', "\0"]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: repr(text)[:20])
def test_resume_beside_damaged_files_says_which(tmp_path: Path, text: str) -> None:
    paths = RunPaths.alone(tmp_path)
    for step in (1, 2):
        folder = paths.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / TENSORS).write_text(f"{step}")
        seal_checkpoint(folder, config_sha256="c", data_sha256="d")
    (paths.checkpoints / "checkpoint-2" / MANIFEST).write_text(text)
    assert find_damage(paths.checkpoints / "checkpoint-2") is not None
    point = find_resume_point(paths, config_sha256="c", data_sha256="d")
    assert point.step == 1
    assert "checkpoint-2 is left out" in point.notes[0]
    paths.metrics.write_text(f'{{"event": "train", "step": 1}}\n{text}\n')
    paths.result.write_text(text)
    with pytest.raises(RunError):
        read_record(paths.result)
    with pytest.raises(UnfitError, match=r"result\.json.*cannot be told"):
        find_resume_point(paths, config_sha256="c", data_sha256="d")
    reopen_run(paths, point, first={})
    kept = paths.metrics.read_text().splitlines()
    assert kept[0] == '{"event": "train", "step": 1}'

"""Every committed YAML: it loads, holds the values stated, says how to run it and what it asks.

A file that a user adds is the user's own, and no concern of these tests.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dialsum.cli import BatchOptions, read_batch_options, read_run_options
from dialsum.config.load import load_config, load_configs
from dialsum.config.sources import read_source
from dialsum.config.yaml import read_document
from dialsum.errors import UnfitError

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "config"


def find_committed(folder: Path) -> list[Path]:
    """Return the YAML files below a folder that git follows; all of them where git cannot say."""
    found = sorted(folder.rglob("*.y*ml"))
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "-z"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return found
    followed = {folder / name for name in asked.stdout.decode("utf-8").split("\0") if name}
    return [path for path in found if path in followed] if followed else found


COMMITTED = find_committed(CONFIG)
EXPERIMENTS = [path for path in COMMITTED if CONFIG / "experiments" in path.parents]
DEMOS = sorted((CONFIG / "demo").glob("*.yaml"))
OVERLAYS = [CONFIG / "demo.yaml", CONFIG / "rehearsal.yaml", *DEMOS]
BASES = [CONFIG / "base_config.yaml"]
CHECKPOINTS = {
    "XLSum": ("mt5", "csebuetnlp/mT5_multilingual_XLSum"),
    "KoBART": ("bart", "digit82/kobart-summarization"),
    "eenzeenee": ("t5", "eenzeenee/t5-base-korean-summarization"),
}
PREFIXES = {"-": "", "short": "요약: ", "long": "한국어 대화를 요약하세요: ", "en": "summarize: "}
ALL_LAYERS = ["q", "k", "v", "o", "wi", "wo", "lm_head", "embed_tokens"]
COLUMNS = """
general.label model.architecture model.checkpoint tokenizer.input_prefix
tokenizer.encoder_max_len tokenizer.decoder_max_len training.per_device_train_batch_size
training.gradient_accumulation_steps training.learning_rate training.lr_scheduler_type
training.num_train_epochs qlora.use_qlora qlora.use_unsloth qlora.lora_rank generation.num_beams
general.expected_minutes evaluation.target.rouge1
"""
ROWS = """
01_mt5_xlsum_optimized_v2 mT5_XLSum_1단계 XLSum short
  512 128 6 4 6e-5 cosine 4 true true 48 4 45 [15,18]
01_mt5_xlsum_korean_adapted mT5_XLSum_2단계 XLSum long
  768 150 6 4 9e-5 cosine 8 true true 64 6 60 [18,22]
01_mt5_xlsum_ultimate mT5_XLSum_3단계 XLSum long
  1024 150 8 3 1.2e-4 cosine 8 true true 96 10 90 [22,25]
02_eenzeenee_t5_rtx3090 eenzeenee_T5 eenzeenee en
  512 128 12 2 5e-5 linear 4 true false 16 4 60 [16,20]
01_baseline_kobart_rtx3090 KoBART KoBART -
  512 128 8 2 3e-5 linear 4 false false null 8 60 [18,22]
03_high_learning_rate_rtx3090 극한_학습률 KoBART -
  512 128 8 2 8e-5 cosine_with_restarts 4 true false 96 4 60 [20,24]
04_batch_optimization_rtx3090 배치_최적화 KoBART -
  1024 128 4 8 5e-5 linear 4 true false 128 12 90 [21,25]
01_mt5_xlsum mT5_XLSum_기준 XLSum short
  512 128 2 8 3e-5 cosine 4 true false 16 4 null null
plan/01_mt5_xlsum_optimized_v2_plan mT5_XLSum_1단계_계획 XLSum short
  512 128 4 4 8e-5 cosine 4 true true 32 4 45 [18,20]
plan/01_mt5_xlsum_korean_adapted_plan mT5_XLSum_2단계_계획 XLSum long
  768 150 4 4 1.2e-4 cosine 8 true true 64 6 60 [22,25]
plan/01_mt5_xlsum_ultimate_plan mT5_XLSum_3단계_계획 XLSum long
  1024 150 8 2 2e-4 cosine 12 true true 128 12 120 [28,32]
"""
"""The experiments as the project states them, two lines a file: its name, label, checkpoint and
prefix; then the rest of COLUMNS from the encoder's length on."""
TABLE: dict[str, tuple[Any, ...]] = {}
for _head, _cells in zip(ROWS.split("\n")[1:-1:2], ROWS.split("\n")[2::2], strict=True):
    _name, _label, _checkpoint, _prefix = _head.split()
    _values = read_document(f"[{', '.join(_cells.split())}]", None)[0].plain()
    TABLE[_name] = (_label, *CHECKPOINTS[_checkpoint], PREFIXES[_prefix], *_values)

OTHERS: dict[str, dict[str, Any]] = {
    "01_mt5_xlsum_optimized_v2": {"general.next": "01_mt5_xlsum_korean_adapted"},
    "01_mt5_xlsum_korean_adapted": {
        "general.next": "01_mt5_xlsum_ultimate",
        "tokenizer.dialogue_tokens": "data",
    },
    "01_mt5_xlsum_ultimate": {
        "qlora.target_modules": ALL_LAYERS,
        "tokenizer.dialogue_tokens": "data",
    },
    "01_baseline_kobart_rtx3090": {"training.gradient_checkpointing": True},
    "03_high_learning_rate_rtx3090": {
        "training.lr_scheduler_kwargs": {"num_cycles": 4},
        "training.bf16": True,
    },
    "04_batch_optimization_rtx3090": {"training.logging_steps": 10},
    "01_mt5_xlsum": {
        "training.bf16": True,
        "training.gradient_checkpointing": False,
        "training.per_device_eval_batch_size": 4,
    },
    "plan/01_mt5_xlsum_korean_adapted_plan": {"tokenizer.dialogue_tokens": "data"},
    "plan/01_mt5_xlsum_ultimate_plan": {
        "qlora.target_modules": ALL_LAYERS,
        "tokenizer.dialogue_tokens": "data",
    },
}
SEVEN = list(TABLE)[:7]
MODELS = [path for path in COMMITTED if path.parent == CONFIG / "model_configs"]
PHASES = [CONFIG / "finetune_config.yaml", *sorted((CONFIG / "llm").glob("*.yaml"))]
MODEL_ROWS = """
bart_base bart facebook/bart-base 8 2 5e-5 linear
bart_large bart facebook/bart-large 8 2 5e-5 linear
t5_small t5 google-t5/t5-small 8 2 3e-4 linear
t5_base t5 google-t5/t5-base 8 2 3e-4 linear
t5_large t5 google-t5/t5-large 8 2 3e-4 linear
mt5_small mt5 google/mt5-small 6 2 3e-4 linear
mt5_base mt5 google/mt5-base 6 2 3e-4 linear
flan_t5_base t5 google/flan-t5-base 8 2 3e-4 linear
flan_t5_large t5 google/flan-t5-large 8 2 3e-4 linear
gpt2 gpt2 openai-community/gpt2 4 4 5e-5 cosine
gpt2_medium gpt2 openai-community/gpt2-medium 4 4 5e-5 cosine
gpt2_large gpt2 openai-community/gpt2-large 4 4 5e-5 cosine
kogpt2 kogpt2 skt/kogpt2-base-v2 4 4 5e-5 cosine
llama_3_2_1b llama meta-llama/Llama-3.2-1B-Instruct 8 4 1e-4 cosine
llama_3_2_korean_3b llama Bllossom/llama-3.2-Korean-Bllossom-3B 4 8 1e-4 cosine
qwen2_5_3b qwen Qwen/Qwen2.5-3B-Instruct 4 8 1e-4 cosine
qwen3_4b qwen Qwen/Qwen3-4B-Instruct-2507 4 8 1e-4 cosine
gemma_3_270m gemma google/gemma-3-270m-it 8 2 2e-4 cosine
kobart_rdrop bart gogamza/kobart-base-v2 8 2 3e-5 linear
solar_10_7b llama upstage/SOLAR-10.7B-Instruct-v1.0 1 32 1e-4 cosine
"""
"""The models: architecture, checkpoint, batch, accumulation, rate, schedule."""
MODEL_TABLE = {line.split()[0]: line.split()[1:] for line in MODEL_ROWS.split("\n")[1:-1]}
NO_HANGUL = ("t5_small", "t5_base", "t5_large", "flan_t5_base", "flan_t5_large")
PHASE_KEYS = """
training.learning_rate training.lr_scheduler_type training.weight_decay training.warmup_steps
training.per_device_train_batch_size training.gradient_accumulation_steps
training.prompt_loss_weight training.packing
"""
PHASE_TABLE: dict[str, tuple[Any, ...]] = {
    "before": (1e-4, "constant", 0.0, 0, 8, 4, 1, False),
    "finetune_config": (2e-5, "cosine", 0.1, 0.1, 8, 8, 1, False),
    "phase1": (2e-5, "cosine", 0.1, 0.1, 8, 8, 1, False),
    "phase2": (2e-5, "cosine", 0.1, 0.1, 8, 8, 0, False),
    "phase3": (2e-5, "cosine", 0.1, 0.1, 8, 8, 0, True),
}


KEPT = """
model.architecture model.checkpoint tokenizer.encoder_max_len tokenizer.decoder_max_len
tokenizer.input_prefix training.lr_scheduler_type training.lr_scheduler_kwargs qlora.use_qlora
qlora.load_in_4bit qlora.lora_rank qlora.lora_alpha qlora.target_modules generation.num_beams
general.label
"""
"""What the demo leaves as each experiment has it."""


def stem(path: Path) -> str:
    """Return an experiment's name in TABLE."""
    return path.relative_to(CONFIG / "experiments").with_suffix("").as_posix()


def header(path: Path) -> dict[str, str]:
    """Return the fields of the comment at a file's top, continued lines joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if found := re.match(r"# (\w+):\s+(.*)", line):
            name = found[1]
            fields[name] = found[2]
        elif name and line.startswith("#    "):
            fields[name] += " " + line[1:].strip()
        else:
            name = ""
    return fields


def test_no_committed_yaml_is_left_out() -> None:
    assert {stem(path) for path in EXPERIMENTS} == set(TABLE)
    assert {*COMMITTED} == {*EXPERIMENTS, *OVERLAYS, *BASES, *MODELS, *PHASES}
    assert {path.stem for path in MODELS} == set(MODEL_TABLE)
    assert {path.stem for path in PHASES} == {*PHASE_TABLE}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_each_experiment_holds_the_values_of_the_table(path: Path) -> None:
    loaded = load_config(path)
    expected = dict(zip(COLUMNS.split(), TABLE[stem(path)], strict=True)) | OTHERS.get(
        stem(path), {}
    )
    rank = expected.pop("qlora.lora_rank")
    assert {key: loaded.value(key) for key in expected} == expected
    if rank is not None:
        qlora = loaded.config.qlora
        assert (qlora.lora_rank, qlora.lora_alpha, qlora.load_in_4bit) == (rank, 2 * rank, True)
    training = loaded.config.training
    assert (training.eval_steps, training.save_steps) == (100, None)
    assert training.logging_steps == (10 if stem(path).startswith("04") else 50)
    assert training.fp16 is False
    target = loaded.config.evaluation.target
    assert target.tokenizer == "whitespace"
    assert target.minimum == {"rouge1": 25, "rouge2": 8, "rougeL": 22}
    assert target.ideal == {"rouge1": 30, "rouge2": 12}
    assert loaded.notes == [], "committed files use the program's own names"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_each_experiment_loads_under_the_demo_and_keeps_its_own(path: Path) -> None:
    options = BatchOptions(configs=(path,), demo=True)
    plain, demo = load_config(path), load_config(path, overlays=options.overlays(path))
    for key in KEPT.split():
        assert demo.value(key) == plain.value(key), key
    replaced = {item.key: (item.original, item.value) for item in demo.replaced}
    rates = (plain.config.training.learning_rate, demo.config.training.learning_rate)
    assert replaced["training.learning_rate"] == rates
    assert rates[1] > rates[0]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_each_model_holds_the_values_of_the_table(path: Path) -> None:
    loaded = load_config(path)
    config, asked = loaded.config, loaded.config.training
    said = [config.model.architecture, config.model.checkpoint]
    said += [str(asked.per_device_train_batch_size), str(asked.gradient_accumulation_steps)]
    assert said == MODEL_TABLE[path.stem][:4]
    assert asked.learning_rate == float(MODEL_TABLE[path.stem][4])
    assert asked.lr_scheduler_type == MODEL_TABLE[path.stem][5]
    prefix = "summarize: " if path.stem in NO_HANGUL else ""
    assert config.tokenizer.input_prefix == prefix
    assert ("no Hangul" in header(path)["Question"]) == (path.stem in NO_HANGUL)
    assert loaded.notes == []
    demo = load_config(path, overlays=BatchOptions(configs=(path,), demo=True).overlays(path))
    assert demo.config.prompt == config.prompt


@pytest.mark.parametrize("path", PHASES, ids=lambda path: path.stem)
def test_each_phase_holds_the_values_of_the_plan(path: Path) -> None:
    config = load_config(path).config
    values = tuple(load_config(path).value(key) for key in PHASE_KEYS.split())
    assert values == PHASE_TABLE[path.stem]
    assert (config.model.architecture, config.training.num_train_epochs) == ("llama", 3)
    lora = config.qlora
    assert (lora.bits, lora.lora_rank, lora.lora_alpha, lora.lora_dropout) == (4, 16, 32, 0.05)
    assert (lora.target_modules, config.training.gradient_checkpointing) == ("auto", True)
    assert config.tokenizer.decoder_max_len == 200
    system = config.prompt.system or ""
    assert system.startswith(
        "당신은 대화 요약 전문가" if path.stem == "before" else "당신은 유능한"
    )
    structured = path.stem in ("phase2", "phase3")
    assert config.prompt.user.startswith(
        "[Conversation]" if structured else "다음 대화를 요약하세요:\n---"
    )
    assert ("{subject}" in config.prompt.user) == structured
    load_config(path, overlays=BatchOptions(configs=(path,), demo=True).overlays(path))


def test_the_models_are_run_in_the_order_of_their_headers() -> None:
    script = REPOSITORY / "run_multi_model_experiments.sh"
    names = [path.stem for path in experiments_of(script)]
    assert names == list(MODEL_TABLE)
    for number, name in enumerate(names, start=1):
        asked = header(CONFIG / "model_configs" / f"{name}.yaml")["Run"]
        assert asked == f"./run_multi_model_experiments.sh --only {number}"


@pytest.mark.parametrize("name", SEVEN)
def test_the_seven_hold_only_what_is_their_own(name: str) -> None:
    base = {one.key: one.value for one in read_source(BASES[0]).statements}
    own = read_source(CONFIG / "experiments" / f"{name}.yaml").statements
    repeated = [one.key for one in own if one.key in base and base[one.key] == one.value]
    assert repeated == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_the_next_experiment_exists(path: Path) -> None:
    following = load_config(path).config.general.next
    assert following is None or (path.parent / f"{following}.yaml").is_file()
    assert following != path.stem


PLAIN = """
data.data_dir data.train_file data.dev_file data.test_file data.max_dev_rows data.max_test_rows
training.logging_steps tracking.project evaluation.training_max_rows evaluation.target.minimum
evaluation.target.ideal
"""
"""What only names a file or repeats the row above, and values whose key is the reason."""


def test_every_value_of_the_base_has_its_reason_near() -> None:
    lines = BASES[0].read_text(encoding="utf-8").splitlines()
    said = read_source(BASES[0]).statements
    without = []
    for one in said:
        number = one.origin.line or 0
        line, above = lines[number - 1], lines[number - 2].strip()
        if "#" not in line and not above.startswith("#"):
            without.append(one.key)
    assert set(without) <= set(PLAIN.split())


@pytest.mark.parametrize(
    "path", [*EXPERIMENTS, OVERLAYS[0], *MODELS, *PHASES], ids=lambda path: path.stem
)
def test_each_header_asks_one_question(path: Path) -> None:
    question, _, remark = header(path)["Question"].partition("?")
    assert "?" not in remark
    assert not remark or path in MODELS
    assert question[0].isupper()
    assert 40 < len(question) < 200


def test_no_question_is_asked_twice() -> None:
    asked = [*EXPERIMENTS, *MODELS, *PHASES]
    questions = [header(path)["Question"].partition("?")[0] for path in asked]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_each_header_holds_the_commands_that_run_this_file(path: Path) -> None:
    fields = header(path)
    program, script, *arguments = shlex.split(fields["Alone"])
    assert (program, script) == ("python", "code/trainer.py")
    assert (REPOSITORY / read_run_options(arguments).config).resolve() == path
    program, script, *arguments = shlex.split(fields["Run"])
    if stem(path) not in SEVEN:
        assert (program, script) == ("python", "code/auto_experiment_runner.py")
        assert [(REPOSITORY / one).resolve() for one in read_batch_options(arguments).configs] == [
            path
        ]
        return
    assert (program, script) == ("bash", "run_main_7_experiments.sh")
    seven = experiments_of(REPOSITORY / script)
    options = read_batch_options(["--config", *map(str, seven), *arguments])
    assert options.configs[options.only[0] - 1] == path


def test_the_demo_is_run_by_its_header() -> None:
    program, script, *arguments = shlex.split(header(OVERLAYS[0])["Run"])
    assert (program, script) == ("bash", "run_main_7_experiments.sh")
    assert read_batch_options(["--config", "x.yaml", *arguments]).demo


def experiments_of(script: Path) -> list[Path]:
    """Return the files that the script hands to the runner, in its order."""
    names = re.search(r"^experiments=\(\n(.*?)^\)", script.read_text(encoding="utf-8"), re.M | re.S)
    assert names, f"{script.name} no longer lists `experiments=(…)`"
    return [CONFIG / "experiments" / f"{name}.yaml" for name in names[1].split()]


def test_the_seven_are_run_in_the_order_of_the_table() -> None:
    script = REPOSITORY / "run_main_7_experiments.sh"
    assert [path.stem for path in experiments_of(script)] == SEVEN


def test_the_base_alone_is_no_experiment() -> None:
    with pytest.raises(Exception, match=r"training\.learning_rate +not given"):
        load_config(BASES[0])


@pytest.mark.parametrize("path", [*COMMITTED], ids=lambda path: path.stem)
def test_any_reader_of_yaml_finds_the_same_text_and_lists(path: Path) -> None:
    """3e-5 apart, which YAML 1.1 reads as text, the files mean the same under 1.1 and 1.2."""
    for one in read_source(path).statements:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in one.key.split("."):
            found = found[name]
        assert found == one.value or float(found) == one.value, one.key


def test_seven_configs_are_loaded_together() -> None:
    paths = experiments_of(REPOSITORY / "run_main_7_experiments.sh")
    loaded = load_configs(paths, overlays=OVERLAYS[:1], overrides=["seed=3"])
    assert [one.name for one in loaded] == SEVEN
    assert {one.config.training.seed for one in loaded} == {3}
    assert len({one.sha256 for one in loaded}) == 7


def test_a_job_takes_no_other_values() -> None:
    assert read_run_options(["--job", "job.json", "--resume"]).resume
    with pytest.raises(UnfitError, match="--set, --seed beside --job"):
        read_run_options(["--job", "job.json", "--seed", "9", "--set", "training.seed=1"])


@pytest.mark.parametrize(("word", "hint"), [("data.max_dev_rows=5", True), ("a.yaml", False)])
def test_a_value_without_its_option_is_told_from_a_file(word: str, hint: bool) -> None:
    with pytest.raises(UnfitError, match="has no argument") as caught:
        read_run_options(["--config", "x.yaml", "--set", "training.seed=1", word])
    assert ("has a --set of its own" in str(caught.value)) is hint

"""Config files to one experiment: inheritance, overlays, --set, origins, notes, --explain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from config_texts import WHOLE, load, problems_of
from dialsum.config.load import load_config, load_configs
from dialsum.config.schema import schema_keys
from dialsum.config.yaml import Origin
from dialsum.errors import ConfigError


def write(folder: Path, **files: str) -> Path:
    """Write NAME.yaml for each keyword; return the first file."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def test_a_missing_file_names_the_near_ones(tmp_path: Path) -> None:
    write(tmp_path, ultimate=WHOLE, other=WHOLE)
    with pytest.raises(ConfigError) as caught:
        load_configs([tmp_path / "ultimat.yaml", tmp_path / "zzz.yaml", tmp_path])
    near, far, folder = caught.value.problems
    assert near.endswith(f"no such file → did you mean {tmp_path / 'ultimate.yaml'}?")
    assert far.endswith("the files there are other.yaml, ultimate.yaml")
    assert folder.endswith("is a folder → one file in it: other.yaml, ultimate.yaml")


def test_what_is_no_regular_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"is a pipe, no regular file → a YAML file"):
        load_config(tmp_path / "pipe.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, x=WHOLE)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(path)


def test_inheritance_goes_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, base="training: {seed: 1, weight_decay: 0.1, max_grad_norm: 2}\n")
    write(tmp_path, middle="extends: base.yaml\ntraining:\n  seed: 2\n  weight_decay: 0.2\n")
    text = "extends: ../middle.yaml\n" + WHOLE + "\ngeneral:\ntraining.seed: 3\n"
    path = write(tmp_path / "sub", x=text)
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
        ({"x": "resolved: maybe\n"}, "resolved"),
        ({"x": "extends: y.yaml\nqlora.use_qlora: maybe\n", "y": "a: [\n"}, "true or false"),
    ],
)
def test_broken_inheritance_is_named_at_its_line_and_nothing_of_it_is_missed(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, **files))
    assert any(words in problem for problem in caught.value.problems), caught.value
    # What a file that could not be read would have given is not missed too.
    assert ("not given" in str(caught.value)) == ("resolved" in files["x"])


def test_every_file_that_names_a_missing_base_is_named(tmp_path: Path) -> None:
    write(tmp_path, x="extends: zzz.yaml\n", y="extends: zzz.yaml\n")
    paths = [tmp_path / "x.yaml", tmp_path / "y.yaml"]
    with pytest.raises(ConfigError) as caught:
        load_configs(paths)
    assert [line.split()[0] for line in caught.value.problems] == [f"{one}:1" for one in paths]


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
    loaded = load(tmp_path, WHOLE + more, overrides=[override])
    assert loaded.value(key) == value
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
    [said] = problems_of(tmp_path, WHOLE, overrides=[override])
    assert said.startswith("--set ")
    assert words in said


def test_of_two_sets_the_later_wins_and_that_is_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, WHOLE, overrides=["training.seed=1", "seed=2"])
    assert loaded.config.training.seed == 2
    assert "--set seed 2 wins over training.seed 1, given before it" in loaded.notes
    sets = ["training.learning_rate=fast", "learning_rate=-1", "training.learning_rate=1e-4"]
    said = problems_of(tmp_path, WHOLE, overrides=sets)
    assert ["fast" in said[0], "-1 →" in said[1], len(said)] == [True, True, 2]


LOWER = "training: {learning_rate: 5e-4, logging_steps: 7, num_train_epochs: 9}\n"


def test_what_an_overlay_replaced_stands_beside_the_original(tmp_path: Path) -> None:
    write(tmp_path, lower=LOWER)
    over, lower = tmp_path / "over.yaml", tmp_path / "lower.yaml"
    text = "training:\n  num_train_epochs: 20\nextends: lower.yaml\n"
    loaded = load(tmp_path, WHOLE, overlay=text)
    assert [(r.key, r.original, r.value, r.origin) for r in loaded.replaced] == [
        ("training.learning_rate", 6e-5, 5e-4, Origin.at(lower, 1)),
        ("training.num_train_epochs", 4, 20, Origin.at(over, 2)),
        ("training.logging_steps", 50, 7, Origin.at(lower, 1)),
    ]
    assert loaded.own_epochs == 4
    assert load(tmp_path, WHOLE).replaced == []


def test_only_values_that_had_an_effect_are_replaced(tmp_path: Path) -> None:
    overlay = """\
training: {per_device_eval_batch_size: 20, early_stopping_patience: 3, early_stopping_threshold: 1}
"""
    for own, replaced in (
        ("", ["training.early_stopping_patience"]),
        (
            "training.per_device_eval_batch_size: 4\ntraining.early_stopping_patience: 2\n",
            [
                "training.per_device_eval_batch_size",
                "training.early_stopping_patience",
                "training.early_stopping_threshold",
            ],
        ),
    ):
        assert [
            one.key for one in load(tmp_path, WHOLE + own, overlay=overlay).replaced
        ] == replaced


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
    with pytest.raises(ConfigError, match="1 problem found") as caught:
        load(tmp_path, WHOLE, overlay=text)
    assert words in str(caught.value)


def test_equal_values_have_equal_hashes_wherever_they_stand(tmp_path: Path) -> None:
    one = load(tmp_path, WHOLE)
    same = load(tmp_path, WHOLE + "training.seed: 42  # the default, stated\n")
    other = load(tmp_path, WHOLE, overrides=["training.seed=43"])
    assert one.sha256 == same.sha256 != other.sha256
    assert len(one.sha256) == 64


BASE = (
    WHOLE.replace("learning_rate: 6e-5", "warmup_steps: 0.1").replace("use_qlora: true", "")
    + "  {lora_dropout: 0.05, target_modules: auto, train_embeddings: false}\n"
    + "tracking: {project: nlp-5, wandb: auto}\n"
    + "training.early_stopping_patience: 3\ntraining.early_stopping_threshold: 0.0\n"
)
OWN = """\
extends: base.yaml
training.learning_rate: 6e-5
qlora: {use_qlora: true, lora_rank: 16, lora_alpha: 32}
"""
LORA = "lora_rank, lora_alpha, lora_dropout have"
WHOLE_PATHS = ("data.train_file=/a/t.csv", "data.dev_file=/a/d.csv", "data.test_file=null")
SILENCED = [
    ("", "qlora.use_qlora=false", LORA, "every weight is trained, without adapters"),
    (
        "",
        "training.lr_scheduler_type=constant",
        "warmup_steps has",
        "it has no warm-up; constant_with_warmup has one",
    ),
    ("generation.length_penalty: 2", "generation.num_beams=1", "length_penalty has", "greedy "),
    ("tracking.project: mine", "tracking.wandb=false", "project has", "W&B is off)"),
    ("data.max_test_rows: 5", "data.test_file=null", "max_test_rows has", "no test rows are read"),
    (
        "training.early_stopping_threshold: 0.5",
        "training.early_stopping_patience=null",
        "early_stopping_threshold has",
        "training never stops early",
    ),
]
"""What a file says more, what --set says, and what has no effect then for which reason."""


@pytest.mark.parametrize(("more", "override", "silenced", "why"), SILENCED)
def test_keys_left_without_effect_are_named(
    tmp_path: Path, more: str, override: str, silenced: str, why: str
) -> None:
    [note] = load(tmp_path, f"{OWN}{more}\n", base=BASE, overrides=[override]).notes
    assert note.startswith(f"--set {override.replace('=', ' ')}: {silenced} no effect ({why}")


OTHERS = [
    ([], ""),
    (["qlora.use_qlora=true"], ""),
    (["training.lr_scheduler_type=constant_with_warmup"], ""),
    (["training.early_stopping_patience=null"], ""),
    (["tracking.wandb=false"], ""),
    (["generation.num_beams=1"], ""),
    (["data.data_dir=/d"], ""),
    (["data.data_dir=/d", *WHOLE_PATHS], "data.data_dir: it has no effect (train_file, dev_file"),
    (["training.max_steps=7"], "max_steps 7 rules over num_train_epochs 4"),
]


@pytest.mark.parametrize(("overrides", "note"), OTHERS)
def test_what_keeps_its_effect_is_not_named(
    tmp_path: Path, overrides: list[str], note: str
) -> None:
    notes = load(tmp_path, OWN, base=BASE, overrides=overrides).notes
    assert len(notes) == bool(note)
    assert all(one.startswith(f"--set {note}") for one in notes)


def test_what_had_no_effect_before_is_not_said_again(tmp_path: Path) -> None:
    text = "extends: base.yaml\nlr: 6e-5\nqlora.use_qlora: false\n"
    for overrides in ([], ["qlora.use_qlora=false"]):
        notes = load(tmp_path, text, base=BASE, overrides=overrides).notes
        assert not any("no effect" in note for note in notes)


def test_an_overlay_that_silences_names_its_line(tmp_path: Path) -> None:
    loaded = load(tmp_path, OWN, base=BASE, overlay="# none\nqlora.use_qlora: false\n")
    [note] = loaded.notes
    assert note.startswith(f"{tmp_path / 'over.yaml'}:2 qlora.use_qlora false: {LORA} no effect")


def lines_of(text: str) -> dict[str, str]:
    """Return the lines that start with a known key, by key."""
    lines = [line for line in text.splitlines() if line.split("  ")[0].strip() in schema_keys()]
    return {line.split()[0]: line for line in lines}


def test_every_key_is_explained_with_its_origin(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    path = Path("config/experiments/03_high_learning_rate_rtx3090.yaml")
    loaded = load_config(
        path,
        overlays=[Path("config/demo.yaml")],
        overrides=["seed=7", "tokenizer.input_prefix=요약: "],
    )
    text = loaded.explain(checkpoint=["what the checkpoint asks"])
    lines = lines_of(text)
    assert list(lines) == list(schema_keys())
    for key, origin in loaded.origins.items():
        assert lines[key].endswith(f"  {origin.text}")
    number = path.read_text(encoding="utf-8").splitlines().index("  lora_rank: 96") + 1
    assert lines["qlora.lora_rank"].split() == ["qlora.lora_rank", "96", f"{path}:{number}"]
    assert lines["training.seed"].split() == ["training.seed", "7", "--set"]
    assert "'요약: '" in lines["tokenizer.input_prefix"]
    assert "config/demo.yaml:" in lines["training.num_train_epochs"]
    assert lines["general.next"].endswith("default")
    assert "  --set seed 7 -> training.seed 7" in text.splitlines()
    assert text.startswith(f"{path.stem}  {path}\n")
    assert text.endswith(f"\n\nwhat the checkpoint asks\n\nsha256 of these values: {loaded.sha256}")
    plain = load_config(repository / "config/experiments/01_mt5_xlsum.yaml").explain()
    assert "understood:" not in plain

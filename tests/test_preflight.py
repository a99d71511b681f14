"""What is found before the start: data, places, machine, local checkpoints, all together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, write_configs, write_data
from dialsum.batch.check import check_plan, find_place_problems
from dialsum.batch.checkpoints import find_model_problems
from dialsum.batch.lock import hold_batch
from dialsum.batch.space import estimate_disk_bytes, find_lack_of_space
from dialsum.config.load import load_config
from dialsum.errors import UnfitError
from dialsum.machine.memory import BASE_SIZES
from dialsum.models.checkpoint import find_hub_cache, find_size, measure_size, read_published
from dialsum.models.families import get_family
from small_models import REPOSITORY
from test_plan import plan_of
from trainer_runs import command, run


def test_preflight_of_a_fit_batch_writes_nothing(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a")
    before = sorted(tmp_path.rglob("*"))
    findings = check_plan(plan_of(options))
    assert findings.problems == []
    assert any("train.csv 4 train rows" in note for note in findings.notes)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide nvidia-smi."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_card")
def test_preflight_shows_all_problems_together(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", overrides=("general.device=cuda",))
    (tmp_path / "data" / "dev.csv").write_text("fname,dialog\n1,x\n")
    (tmp_path / "data" / "test.csv").write_bytes("fname,dialogue\nt1,안녕\n".encode("cp949"))
    (tmp_path / "out").write_text("a file")
    text = "\n".join(check_plan(plan_of(options)).problems)
    assert "dev.csv:1" in text and "'summary'" in text
    assert "test.csv" in text and "cp949" in text
    assert "out: is a file" in text
    assert "no NVIDIA GPU" in text and "--demo" in text


@pytest.mark.usefixtures("no_card")
def test_a_missing_gpu_is_a_note_in_a_dry_run(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", overrides=("general.device=cuda",))
    findings = check_plan(plan_of(options), dry_run=True)
    assert findings.problems == []
    assert any("would be refused: GPU" in note for note in findings.notes)


@pytest.mark.usefixtures("no_card")
def test_a_missing_gpu_is_counted_with_other_problems_in_a_dry_run(tmp_path: Path) -> None:
    options = make_options(
        tmp_path, "a", data_dir=tmp_path / "none", overrides=("general.device=cuda",)
    )
    findings = check_plan(plan_of(options), dry_run=True)
    assert len(findings.problems) == 2
    assert not any("would be refused" in note for note in findings.notes)


def test_a_scorer_that_is_not_installed_is_named_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(make_options(tmp_path, "a", overrides=("evaluation.tokenizer=kiwi",)))
    assert check_plan(plan).problems == []
    monkeypatch.setattr("dialsum.batch.check.find_spec", lambda _: None)
    [problem] = check_plan(plan).problems
    assert "requirements-kiwi.txt" in problem


LAUNCHED = [
    ("WORLD_SIZE", "1", []),
    ("OMPI_COMM_WORLD_SIZE", "1", []),
    ("WORLD_SIZE", "4", ["WORLD_SIZE=4", "without the launcher"]),
    ("OMPI_COMM_WORLD_SIZE", "4", ["OMPI_COMM_WORLD_SIZE=4", "without the launcher"]),
    ("WORLD_SIZE", "abc", ["WORLD_SIZE='abc'", "unset"]),
    ("WORLD_SIZE", "-2", ["WORLD_SIZE='-2'", "unset"]),
]


@pytest.mark.parametrize(("name", "value", "said"), LAUNCHED)
def test_one_of_several_processes_is_refused(
    tmp_path: Path, name: str, value: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    problems = check_plan(plan_of(make_options(tmp_path, "a"))).problems
    assert len(problems) == bool(said)
    assert all(words in problems[0] for words in said)


def test_one_experiment_under_a_launcher_starts_nothing(tmp_path: Path) -> None:
    done = run(command("01_mt5_xlsum_optimized_v2", tmp_path / "run"), WORLD_SIZE="2", RANK="1")
    assert done.returncode == 2
    assert "WORLD_SIZE=2" in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_data_is_said_once_for_all(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", "b", data_dir=tmp_path / "none")
    [problem] = check_plan(plan_of(options)).problems
    assert "none" in problem
    assert "--data-dir DIR" in problem


def test_files_beside_a_missing_one_are_read_all_the_same(tmp_path: Path) -> None:
    options = make_options(tmp_path, "a", data_dir=write_data(tmp_path / "mine"))
    (tmp_path / "mine" / "test.csv").unlink()
    train = tmp_path / "mine" / "train.csv"
    train.write_text(train.read_text(encoding="utf-8").replace("summary", "요약", 1), "utf-8")
    missing, header = check_plan(plan_of(options)).problems
    assert "test.csv not found" in missing
    assert "train.csv:1" in header and "'summary'" in header


def test_a_folder_that_another_batch_uses_is_refused(tmp_path: Path) -> None:
    plan = plan_of(make_options(tmp_path, "a"))
    plan.paths.root.mkdir(parents=True)
    assert find_place_problems(plan) == []
    with hold_batch(plan.paths, []):
        [problem] = check_plan(plan).problems
        assert "another batch is at work" in problem
        rehearsed = check_plan(plan, dry_run=True)
        assert rehearsed.problems == []
        assert f"a start now would be refused: {problem}" in rehearsed.notes
        with pytest.raises(UnfitError, match="another batch"), hold_batch(plan.paths, []):
            raise AssertionError("held twice")
    assert check_plan(plan).problems == []


def test_a_folder_without_rights_is_refused(tmp_path: Path) -> None:
    plan = plan_of(make_options(tmp_path, "a"))
    plan.paths.root.parent.mkdir()
    plan.paths.root.parent.chmod(0o500)
    if os.access(plan.paths.root.parent, os.W_OK):
        pytest.skip("this user may write everywhere")
    [problem] = find_place_problems(plan)
    assert "may not write there" in problem


def test_too_little_space_is_said_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(make_options(tmp_path, "a"))
    needed = estimate_disk_bytes(plan.jobs[0].config)
    monkeypatch.setattr("dialsum.batch.space.LOGS_BYTES", 2**60)
    [problem] = find_lack_of_space(plan.jobs)
    assert [problem] == check_plan(plan).areas["disk"].problems
    assert "GiB free, but models and checkpoints of 1 experiment take" in problem
    assert 0 < needed < 2**30


def pretrained(folder: Path, checkpoint: str) -> Any:
    """Return a configuration that starts from a checkpoint."""
    [path] = write_configs(folder, "a")
    overrides = [f"model.checkpoint={json.dumps(checkpoint)}"]
    return load_config(path, overrides=overrides).config


def write_checkpoint(folder: Path, config: str) -> Path:
    """Write what a checkpoint's folder holds, without real weights."""
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


CHECKPOINTS = [
    ("[" * 100_000, "config.json breaks off in the middle"),
    ("[" * 100_000 + "]", "config.json is no valid JSON (maximum recursion"),
    (
        '{"model_type": "bart", "quantization_config": {"quant_method": "gptq"}}',
        "has a quantization_config (gptq), by which its weights are held in bits",
    ),
]
"""What test_checkpoint.py, which has the others, does not make."""


@pytest.mark.parametrize(("config", "said"), CHECKPOINTS)
def test_a_local_checkpoint_that_does_not_fit_is_found(
    tmp_path: Path, config: str, said: str
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", config)
    problems, _ = find_model_problems(pretrained(tmp_path, str(folder)))
    assert len(problems) == 1
    assert said in problems[0]


def test_a_local_checkpoint_that_fits_is_no_problem(tmp_path: Path) -> None:
    good = '{"model_type": "bart", "max_position_embeddings": 64}'
    folder = write_checkpoint(tmp_path / "checkpoint", good)
    assert find_model_problems(pretrained(tmp_path, str(folder))) == ([], [])
    (folder / "model.safetensors").unlink()
    [problem], _ = find_model_problems(pretrained(tmp_path, str(folder)))
    assert "no model.safetensors" in problem


def test_a_hub_checkpoint_needs_a_network_or_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pretrained(tmp_path, "someone/something")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    problems, notes = find_model_problems(config)
    assert problems == []
    assert "is to be downloaded" in notes[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [problem], _ = find_model_problems(config)
    assert "HF_HUB_OFFLINE" in problem
    cached = tmp_path / "hub" / "models--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc123")
    (cached / "snapshots").mkdir()
    snapshot = write_checkpoint(cached / "snapshots" / "abc123", '{"model_type": "bart"}')
    problems, notes = find_model_problems(config)
    assert problems == []
    assert notes == [
        "model.checkpoint someone/something: in the cache, at commit abc123; no newer one is asked "
        "for"
    ]
    # What lies in the cache is looked at like a local folder.
    (snapshot / "config.json").write_text('{"model_type": "gpt2"}')
    [problem], _ = find_model_problems(config)
    assert "is of type 'gpt2'" in problem
    # A download that was cut off before the weights goes on where there is a network.
    (snapshot / "config.json").write_text('{"model_type": "bart"}')
    (snapshot / "model.safetensors").unlink()
    [problem], _ = find_model_problems(config)
    assert "HF_HUB_OFFLINE" in problem
    monkeypatch.delenv("HF_HUB_OFFLINE")
    problems, notes = find_model_problems(config)
    assert problems == []
    assert "is to be downloaded" in notes[0]


CACHES = [
    ({}, Path.home() / ".cache/huggingface/hub"),
    ({"XDG_CACHE_HOME": "/x"}, Path("/x/huggingface/hub")),
    ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, Path("/h/hub")),
    ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, Path("/c")),
]


@pytest.mark.parametrize(("variables", "expected"), CACHES)
def test_where_the_hubs_cache_is(
    variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_hub_cache() == expected


def sizes(width: Any, layers: int, forward: int, vocabulary: int, positions: int) -> dict[str, Any]:
    """Return what a config.json of BART says of the model's size."""
    both = {f"{side}_layers": layers for side in ("encoder", "decoder")}
    both |= {f"{side}_ffn_dim": forward for side in ("encoder", "decoder")}
    return {
        **both,
        "d_model": width,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


KOBART = sizes(768, 6, 3072, 30000, 1026)
BASE = BASE_SIZES["bart"].parameters
SIZES = [
    (KOBART, BASE, "124 million parameters by its config.json"),
    # What is left out has the library's values: those of bart-large.
    ({}, 405_000_000, "by its config.json"),
    (sizes(16, 1, 16, 100, 8), 6_000, "0.0 million"),
    ({"d_model": "wide"}, BASE, "says d_model: wide, which is no size"),
    ({"d_model": 0}, BASE, "taken for a base-size bart"),
]


@pytest.mark.parametrize(("own", "parameters", "why"), SIZES)
def test_memory_and_disk_go_by_the_checkpoints_own_config(
    tmp_path: Path, own: dict[str, Any], parameters: int, why: str
) -> None:
    content = json.dumps({"model_type": "bart"} | own)
    config = pretrained(tmp_path, str(write_checkpoint(tmp_path / "checkpoint", content)))
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"architecture": "bart"})}
    )
    found = find_size(config)
    assert found.value.parameters == pytest.approx(parameters, rel=0.05)
    assert why in found.why
    estimated = estimate_disk_bytes(config)
    kept = 1 + 3 * config.training.save_total_limit
    learning = (estimated - 20 * 2**20) / 4 / kept
    assert learning <= found.value.parameters * 1.01


ARCHITECTURES = sorted((REPOSITORY / "config" / "architectures").glob("*.json"))


@pytest.mark.parametrize("path", ARCHITECTURES, ids=lambda path: path.stem)
def test_a_published_architecture_has_its_checkpoints_size(path: Path) -> None:
    said = json.loads(path.read_text(encoding="utf-8"))
    size = measure_size(said["config"], family=get_family(said["family"]))
    # Norms and biases are not counted.
    assert size.parameters == pytest.approx(said["parameters"], rel=0.002)


def test_every_checkpoint_of_ours_has_its_size_before_it_is_here() -> None:
    asked = REPOSITORY / "config" / "model_configs"
    for path in (*asked.glob("*.yaml"), *(REPOSITORY / "config" / "experiments").glob("*.yaml")):
        assert read_published(load_config(path).config.model.checkpoint), path
    solar = load_config(asked / "solar_10_7b.yaml").config
    found = find_size(solar)
    assert found.value.parameters > 10e9
    assert "as published; upstage/SOLAR-10.7B-Instruct-v1.0 is not downloaded yet" in found.why


def test_a_checkpoint_that_is_not_here_yet_is_taken_for_its_familys_base(tmp_path: Path) -> None:
    found = find_size(pretrained(tmp_path, "someone/something"))
    assert found.value in BASE_SIZES.values()
    assert "someone/something is not downloaded yet, taken for a base-size" in found.why

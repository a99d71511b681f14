"""Checkpoints of the hub: in its cache, or downloaded at one commit before anything starts."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_options, make_screen, start
from dialsum.config.schema import Model
from dialsum.errors import ProblemsError, UnfitError
from dialsum.models.checkpoint import BANS, ask_hub, choose_files, fetch_folder, find_folder
from hub_server import COMMIT, TOKEN, Hub, serve_hub
from small_models import Checkpoints
from trainer_runs import REPOSITORY

EMPTY_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
FILES = {
    "config.json": b'{"model_type": "bart", "max_position_embeddings": 64}',
    "model.safetensors": EMPTY_WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"tf",
    "flax_model.msgpack": b"flax",
    "onnx/model.onnx": b"onnx",
    "README.md": b"#",
    "tokenizer.json": b"{}",
    "own_code.py": b"raise SystemExit",
    "training_args.bin": b"x",
}

PRETRAINED = ("general.device=cpu",)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the model a/b; this process and its children know no other, nor another cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", *BANS, "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serve_hub({"a/b": FILES}) as served:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def asked(name: str = "a/b", **values: Any) -> Model:
    """Return the section of a configuration that names a checkpoint."""
    return Model(architecture="bart", checkpoint=name, **values)


@pytest.mark.parametrize("revision", [None, "main", "v1", COMMIT])
def test_only_the_files_of_a_run_are_downloaded_and_once(
    revision: str | None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder = fetch_folder(asked(revision=revision), say=said.append)
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == hub.fetched
    assert hub.fetched == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    [line] = said
    assert line.startswith(f"downloading a/b at {COMMIT[:12]}: 3 files, 0.0 MiB, into ")
    hub.asked.clear()
    for again in (revision, COMMIT):
        assert fetch_folder(asked(revision=again)) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_folder(asked(revision=revision)) == folder
    assert hub.asked == []


def test_what_is_absent_in_the_cache_alone_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch_folder(asked())
    (folder / "model.safetensors").unlink()
    assert find_folder(asked()) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnfitError, match="or not all of it, and HF_HUB_OFFLINE forbids"):
        fetch_folder(asked())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.asked.clear()
    assert fetch_folder(asked()) == folder
    assert hub.fetched <= {"model.safetensors"}  # it is linked anew where its content is kept
    assert (folder / "model.safetensors").read_bytes() == EMPTY_WEIGHTS


REFUSED: list[tuple[dict[str, Any], dict[str, str], list[str]]] = [
    ({"name": "a/nope"}, {}, ["has no such model, or it is private", "check its name"]),
    ({"name": "private/p"}, {}, ["or it is private", "HF_TOKEN"]),
    ({"name": "gated/g"}, {}, ["is behind a licence; accept it at http", "gated/g", "HF_TOKEN"]),
    ({}, {"HF_TOKEN": "hf_wrong"}, ["refuses the token that it was given (401)"]),
    ({"revision": "v9"}, {}, ["has no revision 'v9'", "model.revision"]),
    ({"name": "only/tf"}, {}, ["no model.safetensors or pytorch_model.bin", "tf_model.h5"]),
    ({"name": "only/gguf"}, {}, ["no config.json", "m.gguf is in llama.cpp's form", "made from"]),
    ({"name": "huge/h"}, {}, ["take 931322574.6 GiB, but", "free; free space there", "HF_HOME"]),
    ({"name": "a/b c"}, {}, ["no such folder (and no hub name, which is OWNER/NAME"]),
    ({}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["cannot be reached", "refused", "network"]),
    ({}, {"HF_HUB_OFFLINE": "1"}, ["not in the cache", "HF_HUB_OFFLINE forbids its download"]),
    ({}, {"TRANSFORMERS_OFFLINE": "yes"}, ["TRANSFORMERS_OFFLINE forbids its download"]),
]


@pytest.mark.parametrize(("values", "variables", "words"), REFUSED)
def test_why_a_checkpoint_cannot_be_downloaded(
    values: dict[str, Any],
    variables: dict[str, str],
    words: list[str],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hub.models |= {
        "private/p": FILES,
        "gated/g": FILES,
        "only/gguf": {"m.gguf": b"GGUF"},
        "only/tf": {"config.json": b"{}", "tf_model.h5": b"tf"},
        "huge/h": {**FILES, "merges.txt": b"x"},
    }
    hub.private.add("private/p")
    hub.gated.add("gated/g")
    hub.sizes["merges.txt"] = 10**18
    with pytest.raises(UnfitError) as caught:
        fetch_folder(asked(**values))
    said = str(caught.value)
    assert said.startswith(f"model.checkpoint {values.get('name', 'a/b')}: ")
    for word in words:
        assert word in said
    assert hub.fetched == set()


def test_a_token_opens_what_is_behind_a_licence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.models["gated/g"] = FILES
    hub.gated.add("gated/g")
    assert (fetch_folder(asked("gated/g")) / "config.json").is_file()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_ill_is_said_with_its_answer(status: int, hub: Hub) -> None:
    hub.status = status
    with pytest.raises(UnfitError, match=f"the hub answers {status}; start again in some minutes"):
        fetch_folder(asked())


def test_a_download_that_broke_off_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    weights = (2).to_bytes(8, "little") + b"{}" + bytes(100_000)
    hub.models["a/b"]["model.safetensors"] = weights
    hub.cut = "model.safetensors"
    with pytest.raises(UnfitError, match=r"broke off .*start again: what has come is kept"):
        fetch_folder(asked())
    hub.cut = None
    folder = fetch_folder(asked())
    assert (folder / "model.safetensors").read_bytes() == weights


CHOSEN = [
    (
        ["config.json", "model.safetensors", "pytorch_model.bin"],
        ["config.json", "model.safetensors"],
    ),
    (["config.json", "pytorch_model.bin", "rust_model.ot"], ["config.json", "pytorch_model.bin"]),
    (
        [
            "model.safetensors.index.json",
            "model-00002-of-00002.safetensors",
            "model-00001-of-00002.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
        ],
        [
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ],
    ),
    (
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin", "optimizer.bin"],
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
    ),
    (
        ["spiece.model", "onnx/config.json", "tokenizer_config.json"],
        ["spiece.model", "tokenizer_config.json"],
    ),
    (["tf_model.h5", "README.md"], []),
]


@pytest.mark.parametrize(("names", "chosen"), CHOSEN)
def test_of_weights_one_format_is_chosen(names: list[str], chosen: list[str]) -> None:
    assert choose_files(names) == chosen
    assert choose_files([*names, "own.py"], code=True) == [*chosen, "own.py"]


def test_a_batch_downloads_and_pins_before_its_first_experiment(hub: Hub, tmp_path: Path) -> None:
    overrides = (*PRETRAINED, "model.checkpoint=a/b")
    options = make_options(tmp_path, "ok", "ok_2", overrides=overrides)
    screen, shown = make_screen()
    assert start(replace(options, dry_run=True), screen=screen) == 0
    assert "a/b is not in the cache" in shown.getvalue()
    assert "is to be downloaded before the first experiment starts" in shown.getvalue()
    assert hub.asked == []
    assert not (tmp_path / "home").exists()
    screen, shown = make_screen()
    assert start(options, screen=screen) == 0
    text = shown.getvalue()
    assert text.count("downloading a/b") == 1
    assert text.index("downloading a/b") < text.index("[1/2]")
    jobs = [json.loads(path.read_text()) for path in tmp_path.rglob("experiments/*/job.json")]
    assert [job["config"]["model"]["revision"] for job in jobs] == [COMMIT, COMMIT]
    assert "looked at before the start" in jobs[0]["origins"]["model.revision"][0]
    screen, shown = make_screen()
    assert start(replace(options, dry_run=True), screen=screen) == 0
    assert f"a/b: in the cache, at commit {COMMIT[:12]}" in shown.getvalue()


def test_a_batch_with_one_checkpoint_that_is_not_to_be_had_starts_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    hub.models["bad/config"] = {**FILES, "config.json": b'{"model_type": "gpt2"}'}
    hub.models["bad/page"] = {**FILES, "tokenizer.json": b"<!doctype html>"}
    adapter = b'{"peft_type": "LORA", "base_model_name_or_path": "a/b"}'
    hub.models["bad/adapter"] = {"adapter_config.json": adapter, "adapter_model.safetensors": b"x"}
    for name in ("absent/x", "bad/config", "bad/page", "bad/adapter"):
        overrides = (*PRETRAINED, f"model.checkpoint={name}")
        options = make_options(tmp_path, "ok", overrides=overrides)
        with pytest.raises(ProblemsError) as caught:
            start(options, screen=make_screen()[0])
        assert f"1 L_ok: model.checkpoint {name}: " in caught.value.problems[0] or (
            "gpt2" in caught.value.problems[0]
        )
        assert not (tmp_path / "out").exists()
    assert "holds a LoRA adapter (adapter_config.json), which belongs on a/b" in str(caught.value)
    assert "adapter_model.safetensors" not in hub.fetched


@pytest.mark.training
def test_one_run_downloads_trains_and_is_repeated_offline_from_its_record(
    hub: Hub, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = checkpoints("bart", "pytorch_model.bin")
    hub.models["own/bart"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = [
        sys.executable,
        "code/trainer.py",
        "--data-dir",
        "data/sample",
        "--set",
        "general.device=cpu",
        "--set",
        "training.max_steps=1",
        "--set",
        "training.eval_steps=1",
        "--set",
        "data.max_train_rows=8",
        "--set",
        "data.max_dev_rows=4",
        "--set",
        "data.max_test_rows=4",
        "--set",
        "generation.num_beams=1",
    ]
    first = [
        "--config",
        "config/experiments/01_baseline_kobart_rtx3090.yaml",
        "--set",
        "model.checkpoint=own/bart",
        "--output-dir",
        str(tmp_path / "first"),
    ]
    done = subprocess.run([*command, *first], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "downloading own/bart" in done.stdout
    [result] = tmp_path.glob("first/**/result.json")
    model = json.loads(result.read_text())["model"]
    assert (model["checkpoint"], model["revision"]) == ("own/bart", COMMIT)
    hub.asked.clear()
    hub.status = 503
    shutil.rmtree(tmp_path / "home" / "hub" / "models--own--bart" / "refs")
    resolved = result.parent / "resolved_config.yaml"
    again = ["--config", str(resolved), "--output-dir", str(tmp_path / "again")]
    done = subprocess.run([*command, *again], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.asked == []


def test_the_hub_is_asked_for_what_is_not_here_before_a_dry_run_ends(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["a/closed"] = dict(FILES)
    hub.gated.add("a/closed")
    there, none, closed = ask_hub([asked(), asked("a/none"), asked("a/closed")])
    assert there == (None, "0.0 MiB to download")
    assert none[0] is not None and "the hub has no such model" in none[0]
    assert closed[0] is not None and "is behind a licence" in closed[0]
    assert not hub.fetched
    hub.status = 503
    [busy] = ask_hub([asked()])
    assert busy[0] is None and "unknown: the hub answers 503" in busy[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        answers = ask_hub([asked(), asked("a/c")], seconds=0.5)
    assert all(problem is None and known.startswith("unknown: ") for problem, known in answers)

"""--explain: every key with its value and the line that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dialsum.batch.checkpoints import explain_checkpoint
from dialsum.config.load import load_config

XLSUM = {
    "model_type": "mt5",
    "max_length": 84,
    "num_beams": 4,
    "no_repeat_ngram_size": 2,
    "length_penalty": 0.6,
    "decoder_start_token_id": 0,
}
KOBART = {
    "model_type": "bart",
    "pad_token_id": 3,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
TASK = {"task_specific_params": {"summarization": {"min_length": 30, "num_beams": 4}}}
OWN_SEARCHES: list[tuple[dict[str, Any], dict[str, Any] | None, list[str]]] = [
    ({"model_type": "mt5"}, None, []),
    (
        XLSUM,
        None,
        [
            "no_repeat_ngram_size 2 (config.json) here 0 (generation.no_repeat_ngram_size)",
            "length_penalty 0.6 (config.json) here 1.0 (generation.length_penalty)",
            "max_length 84 (config.json) here 128 (tokenizer.decoder_max_len)",
        ],
    ),
    # Where there is a generation_config.json, the library looks at nothing else.
    (XLSUM, {"max_length": 128}, []),
    (XLSUM, {"do_sample": True}, ["do_sample true (generation_config.json) here false"]),
    (
        KOBART,
        None,
        [
            "forced_eos_token_id 2, <usr> (config.json) here nothing",
            "decoder_start_token_id 2, <usr> (config.json) kept, as trained",
        ],
    ),
    (
        {"model_type": "mt5"} | TASK,
        None,
        ["min_length 30 (config.json, for pipelines) here 0 (generation.min_new_tokens)"],
    ),
    ({"model_type": "mt5", "task_specific_params": None, "num_beams": None}, None, []),
]


@pytest.mark.parametrize(("own", "search", "said"), OWN_SEARCHES)
@pytest.mark.parametrize("place", ["folder", "cache"])
def test_what_a_checkpoint_asks_of_generation_is_said(
    own: dict[str, Any],
    search: dict[str, Any] | None,
    said: list[str],
    place: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder, name = tmp_path / "model", str(tmp_path / "model")
    if place == "cache":
        cache, name, commit = tmp_path / "models--some--one", "some/one", "c" * 40
        folder = cache / "snapshots" / commit
        (cache / "refs").mkdir(parents=True)
        (cache / "refs/main").write_text(commit)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text(json.dumps(own))
    if search is not None:
        (folder / "generation_config.json").write_text(json.dumps(search))
    (folder / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"id": 2, "content": "<usr>"}]})
    )
    loaded = load_config(
        repository / "config/experiments/01_mt5_xlsum.yaml",
        overrides=[
            f"model.checkpoint={json.dumps(name)}",
            f"model.architecture={own['model_type']}",
            "generation.num_beams=4",
            "generation.length_penalty=1.0",
            "generation.min_new_tokens=0",
            "generation.no_repeat_ngram_size=0",
        ],
    )
    lines = explain_checkpoint(loaded.config)
    assert [" ".join(line.split()) for line in lines[1:]] == said
    assert lines[0].startswith(f"{name} asks")
    assert "\n".join(["", *lines, ""]) in loaded.explain(checkpoint=lines)


def test_a_checkpoint_that_is_not_here_cannot_be_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    loaded = load_config(repository / "config/experiments/01_mt5_xlsum.yaml")
    [line] = explain_checkpoint(loaded.config)
    assert "is not downloaded yet" in line

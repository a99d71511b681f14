"""Checkpoints before they are loaded: which files are read, what does not fit is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from dialsum.batch.checkpoints import find_model_problems
from dialsum.errors import UnfitError
from dialsum.models.checkpoint import resolve_checkpoint
from dialsum.models.load import open_checkpoint
from small_models import Checkpoints, Malicious, make_config

pytestmark = pytest.mark.training


@pytest.mark.parametrize(
    "name", [None, "weights.pkl", "tf_model.h5", "model.pt", "flax_model.msgpack", "model.ckpt"]
)
def test_other_weights_are_refused_before_anything_is_read(
    name: str | None, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(checkpoints("t5"), folder)
    (folder / "model.safetensors").unlink()
    if name:
        (folder / name).write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(UnfitError) as caught:
        open_checkpoint(make_config("t5", folder))
    said = str(caught.value)
    assert "no model.safetensors and no pytorch_model.bin" in said
    assert (name or "config.json") in said
    assert str(folder) in said
    assert not marker.exists()


def test_a_file_of_llama_cpp_is_explained(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = folder / "model-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    for given in (folder, file):
        with pytest.raises(UnfitError, match=r"Q4_K_M\.gguf is in llama\.cpp's form.*safetensors"):
            open_checkpoint(make_config("t5", given))
    (folder / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(UnfitError, match=r"no model\.safetensors.*is in llama\.cpp's form"):
        open_checkpoint(make_config("t5", folder))


def edit_config(folder: Path, **values: Any) -> None:
    """Change values of a checkpoint's config.json; None takes one away."""
    path = folder / "config.json"
    found = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(
        json.dumps({key: value for key, value in found.items() if value is not None}),
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("sort", "claimed"), [("mt5", "t5"), ("t5", "mt5"), ("bart", "t5"), ("t5_v1_1", "bart")]
)
def test_another_architecture_is_refused(sort: str, claimed: str, checkpoints: Checkpoints) -> None:
    folder = checkpoints(sort)
    with pytest.raises(UnfitError) as caught:
        open_checkpoint(make_config(claimed, folder))
    assert f"is of type {sort.partition('_')[0]!r}" in str(caught.value)
    assert f"model.architecture says {claimed!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("lengths", "key"), [((1024, 128), "encoder_max_len"), ((512, 513), "decoder_max_len")]
)
def test_lengths_beyond_the_positions_are_refused(
    lengths: tuple[int, int], key: str, checkpoints: Checkpoints
) -> None:
    folder = checkpoints("bart")
    with pytest.raises(UnfitError, match="beyond the 512 positions") as caught:
        open_checkpoint(make_config("bart", folder, lengths=lengths))
    assert f"tokenizer.{key}" in str(caught.value)
    open_checkpoint(make_config("bart", folder, lengths=(512, 512)))
    # T5's positions are relative: no length is too much for them.
    open_checkpoint(make_config("mt5", checkpoints("mt5"), lengths=(2048, 600)))


@pytest.mark.parametrize(
    "place", ["./absent", "/absent/model", "~/absent", "a/b/c", "나의 모델", "a b/c"]
)
def test_a_missing_folder_is_no_hub_name(place: str) -> None:
    with pytest.raises(UnfitError, match="no such folder") as caught:
        resolve_checkpoint(place)
    assert place in str(caught.value)


def test_a_file_of_a_checkpoint_is_not_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UnfitError, match="is a file; give the folder"):
        resolve_checkpoint(str(tmp_path / "model.safetensors"))


def test_what_is_no_folder_is_a_hub_name() -> None:
    assert resolve_checkpoint("digit82/kobart-summarization") == "digit82/kobart-summarization"


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UnfitError, match=r"no config\.json") as caught:
        open_checkpoint(make_config("t5", tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "config.json is empty"),
        ("{", "config.json is text, not JSON"),
        ("[]", "it holds a list"),
        ("null", "it holds a NoneType"),
        ('{"model_type": "unheard_of"}', "is of type 'unheard_of'"),
        ("{}", "names no model_type"),
        (
            '{"model_type": "t5", "decoder_start_token_id": 0, "num_layers": "six"}',
            "its config.json says num_layers: six, which is no size",
        ),
        *(
            (
                f'{{"model_type": "t5", "decoder_start_token_id": 0, "vocab_size": {value}}}',
                "its config.json says vocab_size: .*, which is no size; copy",
            )
            for value in ("1e18", "1000000000000000000", "1e400", "NaN", "0", "-3", "true", "[]")
        ),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(
    content: str, said: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints("t5"), folder)
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UnfitError, match=said) as caught:
        open_checkpoint(make_config("t5", folder))
    assert str(folder) in str(caught.value)


def test_a_model_that_brings_code_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(checkpoints("t5"), folder)
    (folder / "own_config.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n", encoding="utf-8"
    )
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own_config.OwnConfig"})
    config = make_config("t5", folder)
    assert config.model.trust_remote_code is False
    with pytest.raises(UnfitError, match="is of type 'own'"):
        open_checkpoint(config)
    assert not marker.exists()


def test_a_checkpoint_that_does_not_say_how_decoding_starts_is_refused(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints("t5"), folder)
    edit_config(folder, decoder_start_token_id=None)
    with pytest.raises(UnfitError, match="decoder_start_token_id") as caught:
        open_checkpoint(make_config("t5", folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("sort", "claimed", "lengths"), [("mt5", "t5", (64, 32)), ("bart", "bart", (1024, 128))]
)
def test_a_batch_says_of_a_checkpoint_what_a_run_says(
    sort: str, claimed: str, lengths: tuple[int, int], checkpoints: Checkpoints
) -> None:
    config = make_config(claimed, checkpoints(sort), lengths=lengths)
    [problem], _ = find_model_problems(config)
    with pytest.raises(UnfitError) as caught:
        open_checkpoint(config)
    assert str(caught.value) == problem

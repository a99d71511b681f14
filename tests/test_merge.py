"""Adapters merged into their base: the same answers from disk, or a refusal with the figure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adapted_models import EIGHT_BIT, EVERYTHING, FOUR_BIT, LORA, SORTS, TEXT, Build, Case
from dialsum.errors import RunError, UnfitError
from dialsum.files import write_json
from dialsum.models.merge import (
    TOLERANCE,
    MergeReport,
    compute_logits,
    measure_shift,
    merge_adapter,
)
from dialsum.models.save import load_saved_model, save_weights
from small_models import UNTIED, read_weights

pytestmark = pytest.mark.training

ROWS = [(TEXT, "#Person1#이 인사한다."), ("오늘 저녁에 뭐 먹을까요?", "저녁 약속을 정한다.")]
WAYS: dict[str, dict[str, Any]] = {
    "float": LORA,
    "4-bit": FOUR_BIT,
    "8-bit": EIGHT_BIT,
    "and embeddings": FOUR_BIT | {"train_embeddings": True},
    "rank-stabilised": FOUR_BIT | {"use_rslora": True},
    "DoRA": FOUR_BIT | {"use_dora": True},
    "PiSSA": LORA | {"init_lora_weights": "pissa"},
}
SHARED: dict[str, dict[str, Any]] = {
    "on everything": FOUR_BIT | {"target_modules": EVERYTHING},
    "on the embeddings": LORA | {"target_modules": ["q", "embed_tokens"]},
    "on the head": LORA | {"target_modules": ["q", "lm_head"]},
}
"""Adapters on layers whose weight may be another layer's, too."""


def train_and_save(case: Case, folder: Path) -> Path:
    """Take a few steps and save the adapter as a run does."""
    for _ in range(4):
        case.step()
    save_weights(case.model, folder)
    case.tokenizer.save_pretrained(folder)
    write_json(
        folder / "model_info.json",
        {"kind": "adapter", "base": str(case.folder), "tokens_added": case.new},
    )
    return folder


def answers(folder: Path, case: Case) -> list[Any]:
    """Return what a saved model says of a text, loaded anew."""
    import torch

    model, tokenizer = load_saved_model(
        folder, config=case.config, device="cpu", dtype=torch.float32
    )
    ids = tokenizer(TEXT)["input_ids"]
    return compute_logits(model, [(ids, ids)])


def check_merged(out: Path, case: Case, saved: Path, report: MergeReport) -> None:
    """Hold a merged model against the adapter and its base, each loaded from disk."""
    # Only the inputs of 8-bit layers are rounded: their rounding is stated, and not the merge's.
    eight = case.config.qlora.load_in_8bit
    assert report.merge < 1e-5 < TOLERANCE
    assert (1e-4 < report.quantisation < 0.1) if eight else report.quantisation < 1e-5
    assert report.same_choices > 0.9
    assert report.rows == len(ROWS)
    before, after = answers(saved, case), answers(out, case)
    assert measure_shift(before, after) < (0.1 if eight else 1e-5)
    info = json.loads((out / "model_info.json").read_text(encoding="utf-8"))
    assert (info["kind"], info["merged"], info["tokens_added"]) == ("full", True, case.new)
    assert info["merge"]["merge"] == report.merge
    names = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith("adapter") or name.endswith(".bin")]
    assert not list(out.parent.glob("*.draft"))
    assert "quantization_config" not in (out / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_a_merged_model_says_the_same_and_keeps_its_ties(
    sort: str, way: str, build: Build, tmp_path: Path
) -> None:
    case = build(sort, **WAYS[way])
    saved = train_and_save(case, tmp_path / "adapter")
    report = merge_adapter(saved, tmp_path / "merged", config=case.config, rows=ROWS)
    check_merged(tmp_path / "merged", case, saved, report)
    held = read_weights(tmp_path / "merged")
    matrices = [name for name in held if "embed_tokens" in name or "shared" in name]
    assert len(matrices) == 1, "encoder and decoder have one matrix"
    assert ("lm_head.weight" in held) == (sort in UNTIED)


@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("sort", SORTS)
def test_a_merge_into_shared_weights_is_refused_unless_untied(
    sort: str, way: str, build: Build, tmp_path: Path
) -> None:
    case = build(sort, **SHARED[way])
    saved, out = train_and_save(case, tmp_path / "adapter"), tmp_path / "merged"
    shares = not (way == "on the head" and sort in UNTIED)
    if shares:
        with pytest.raises(RunError, match=r"untie=True") as caught:
            merge_adapter(saved, out, config=case.config, rows=ROWS)
        (figure,) = re.findall(r"move by up to ([\d.e+]+) standard deviations", str(caught.value))
        assert float(figure) > 0.01
        assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    report = merge_adapter(saved, out, config=case.config, rows=ROWS, untie=True)
    check_merged(out, case, saved, report)


@pytest.mark.parametrize("sort", SORTS)
def test_an_untied_merged_model_trains_and_saves_on_as_it_is(
    sort: str, build: Build, tmp_path: Path
) -> None:
    # T5 v1 scales its head's input by what its config says of ties, and BART's stacks find their
    # embeddings by it: both must survive being saved with a head of their own.
    import torch

    case = build(sort, **SHARED["on the head"])
    saved = train_and_save(case, tmp_path / "adapter")
    merge_adapter(saved, tmp_path / "merged", config=case.config, rows=ROWS, untie=True)
    before = answers(tmp_path / "merged", case)
    model, tokenizer = load_saved_model(
        tmp_path / "merged", config=case.config, device="cpu", dtype=torch.float32
    )
    again = tmp_path / "again"
    save_weights(model, again)
    tokenizer.save_pretrained(again)
    info = (tmp_path / "merged" / "model_info.json").read_text(encoding="utf-8")
    (again / "model_info.json").write_text(info, encoding="utf-8")
    assert measure_shift(before, answers(again, case)) == 0.0


def test_the_rows_at_hand_need_not_hold_the_new_tokens(build: Build, tmp_path: Path) -> None:
    case = build("mt5", **LORA)
    saved = train_and_save(case, tmp_path / "adapter")
    rows = [("저녁에 뭐 먹을까요?", "저녁 약속을 정한다.")]
    # Rows of encoder and decoder that had learned apart would show in this comparison alone.
    delta = "base_model.model.decoder.embed_tokens.token_adapter.trainable_tokens_delta"
    change_tensors(saved / "adapter_model.safetensors", delta)
    with pytest.raises(RunError, match="move by up to"):
        merge_adapter(saved, tmp_path / "merged", config=case.config, rows=rows)


def change_tensors(path: Path, name: str) -> None:
    """Change the tensors of a file whose names begin like this; there must be one."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(path))
    found = [key for key in tensors if key.startswith(name)]
    assert len(found) == 1, list(tensors)
    tensors[found[0]] += 1.0
    save_file(tensors, str(path), metadata={"format": "pt"})


def test_what_cannot_be_merged_is_refused_before_anything_is_loaded(
    build: Build, tmp_path: Path
) -> None:
    case = build("t5", **LORA)
    saved = train_and_save(case, tmp_path / "adapter")
    with pytest.raises(UnfitError, match="no rows were given"):
        merge_adapter(saved, tmp_path / "merged", config=case.config, rows=[])
    with pytest.raises(UnfitError, match="is there already"):
        merge_adapter(saved, saved, config=case.config, rows=ROWS)
    with pytest.raises(UnfitError, match="no finished model"):
        merge_adapter(tmp_path, tmp_path / "merged", config=case.config, rows=ROWS)
    merge_adapter(saved, tmp_path / "merged", config=case.config, rows=ROWS)
    with pytest.raises(UnfitError, match="a full model was saved here"):
        merge_adapter(tmp_path / "merged", tmp_path / "twice", config=case.config, rows=ROWS)
